/**
 * Medusa: extra heads guess the tokens after the next one, all from the target's last hidden state. And what happens when
 * guesses are kept for being plausible: typical acceptance, the one lossy way to verify.
 *
 *     npx tsx examples/medusa.ts [--seed 0] [--json]
 *
 * Look for: below every guess of the first level stand the same guesses of the second, since the heads do not see each
 * other. At temperature 0 the text is the target's own. When sampling, typical acceptance brings more tokens a pass than
 * rejection sampling the hotter it gets, because what it writes is less and less what the target would have drawn.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  ChainDrafter,
  type Drafter,
  generate,
  generateAll,
  loadMedusaHeads,
  MedusaDrafter,
  recursiveRejectionSampling,
  typicalAcceptance,
} from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({ options: { seed: { type: "string", default: "0" }, json: { type: "boolean" } } });
const { seed } = values;
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const { heads, accuracies } = await loadMedusaHeads();
const medusa = (budget: number) => new MedusaDrafter(heads, { accuracies, budget });
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
const maxTokens = 32;

/** Over all prompts. */
async function tokensPerPass(
  drafter: Drafter,
  temperature = 0,
  verifier = recursiveRejectionSampling,
): Promise<number> {
  let [tokens, passes] = [0, 0];
  for (const prompt of prompts) {
    const report = await generateAll(target.model, prompt, { maxTokens, drafter, verifier, temperature, seed });
    tokens += report.tokens.length;
    passes += report.targetPasses;
  }
  return tokens / passes;
}

const budgets = [];
for (const budget of [4, 8, 16, 32]) {
  const chain = await tokensPerPass(new ChainDrafter(draft.model, { gamma: budget }));
  budgets.push({ budget, medusa: await tokensPerPass(medusa(budget)), chain });
}
const verifiers = [];
for (const temperature of [0, 0.6, 1]) {
  const lossless = await tokensPerPass(medusa(16), temperature);
  verifiers.push({ temperature, lossless, typical: await tokensPerPass(medusa(16), temperature, typicalAcceptance()) });
}

const steps = [];
for await (const step of generate(target.model, prompts[1]!, { maxTokens, drafter: medusa(12), seed }))
  steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ accuracies, budgets, verifiers, step }));
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => target.tokenizer.decode(ids))}\n`);
  console.log("Tokens per target pass at temperature 0:\nguesses  Medusa  chain of a draft model");
  for (const row of budgets) {
    const columns = [
      String(row.budget).padStart(7),
      row.medusa.toFixed(2).padStart(6),
      row.chain.toFixed(2).padStart(22),
    ];
    console.log(columns.join("  "));
  }
  console.log("\nMedusa, 16 guesses, by verifier:\ntemperature  rejection sampling  typical acceptance (LOSSY)");
  for (const row of verifiers) {
    const columns = [
      String(row.temperature).padStart(11),
      row.lossless.toFixed(2).padStart(18),
      row.typical.toFixed(2).padStart(26),
    ];
    console.log(columns.join("  "));
  }
}
