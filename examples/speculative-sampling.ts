/**
 * Speculative sampling: a small model guesses, the target checks a whole chain of guesses in one pass.
 *
 *     npx tsx examples/speculative-sampling.ts
 *
 * Look for: [brackets] around tokens the draft guessed right, which cost no target pass of their own. The text is the
 * target's own, token for token; longer chains save more passes, but each guess costs a draft pass, so seconds have a
 * best length and then get worse.
 */
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { ChainDrafter, generate, generateAll } from "../src/speculative/index.ts";

const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const [{ text }] = heldOutPrompts as [(typeof heldOutPrompts)[number]];
const prompt = target.tokenizer.encode(text);
const maxTokens = 64;

const generation = generate(target.model, prompt, { maxTokens, drafter: new ChainDrafter(draft.model, { gamma: 4 }) });
let picture = text;
for await (const { tokens } of generation) {
  const guessed = target.tokenizer.decode(tokens.slice(0, -1));
  picture += `${guessed === "" ? "" : `[${guessed}]`}${target.tokenizer.decode(tokens.slice(-1))}`;
}
console.log(`${picture}\n`);

const plain = await generateAll(target.model, prompt, { maxTokens });
console.log("chain  target passes  tokens per pass  guesses accepted  same tokens");
for (const gamma of [1, 2, 4, 8]) {
  const report = await generateAll(target.model, prompt, {
    maxTokens,
    drafter: new ChainDrafter(draft.model, { gamma }),
  });
  const same = report.tokens.join() === plain.tokens.join() ? "yes" : "NO";
  const columns = [
    String(gamma).padStart(5),
    String(report.targetPasses).padStart(13),
    report.tokensPerPass.toFixed(2).padStart(15),
    `${report.accepted} of ${report.drafted}`.padStart(16),
    same.padStart(11),
  ];
  console.log(columns.join("  "));
}
