/**
 * Hardware-aware drafting: the same guesses on two machines, one where wide passes are cheap and one where they are not.
 *
 *     npx tsx examples/hardware-aware-drafting.ts [--seed 0] [--json]
 *
 * Look for: the tensor decoder's passes cost nearly the same for one token or eight, so drafts are long there; on the
 * engine a pass costs its arithmetic, so drafts are short, and stop where they would lose. Prompts are edits, which copy
 * much of what they say, and other declarations. Cost counts passes over one token, drafting included; below 1 a token is
 * cheaper than by plain decoding.
 */
import { parseArgs } from "node:util";
import { heldOutEdits } from "../src/held-out-edits.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { allowRelaxedSimd } from "../src/kernels/index.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  generate,
  generateAll,
  HardwareAwareDrafter,
  measureDrafting,
  measurePassCosts,
  passCost,
  promptLookupDrafter,
} from "../src/speculative/index.ts";

const { values } = parseArgs({ options: { seed: { type: "string", default: "0" }, json: { type: "boolean" } } });
const { seed } = values;
await allowRelaxedSimd();
const maxTokens = 64;
const rows = [];
const curves = [];
for (const runs of ["tensors", "engine"] as const) {
  const { model, tokenizer } = await loadEmbedded("target", { runs });
  const encode = (text: string): number[] => Array.from(tokenizer.encode(text));
  const sets = {
    edits: heldOutEdits.map(({ original, edited }) => encode(original + edited)),
    declarations: heldOutPrompts.map(({ text }) => encode(text)),
  };
  const inner = promptLookupDrafter({ maxNgramSize: 3, predictedTokens: 15 });
  const passCosts = measurePassCosts(model, { seconds: 0.3 });
  const drafting = measureDrafting(model, inner, sets.edits);
  curves.push({ runs, passCosts, drafting });
  for (const [prompts, encoded] of Object.entries(sets)) {
    for (const [method, drafter] of [
      ["prompt lookup, 15 guesses", inner],
      ["hardware-aware", new HardwareAwareDrafter(inner, { passCosts, drafting })],
    ] as const) {
      let [tokens, passes, guesses, cost, same] = [0, 0, 0, 0, true];
      for (const prompt of encoded) {
        const plain = await generateAll(model, prompt, { maxTokens });
        const generation = generate(model, prompt, { maxTokens, drafter, seed });
        for (let step = generation.step(); step !== undefined; step = generation.step()) {
          const nodes = step.draft.tokens.length;
          guesses += nodes - 1;
          cost += passCost(passCosts, nodes) + (nodes > 1 ? drafting.perStep + drafting.perGuess * (nodes - 1) : 0);
        }
        tokens += generation.report.tokens.length;
        passes += generation.report.targetPasses;
        same &&= generation.report.tokens.join() === plain.tokens.join();
      }
      rows.push({
        runs,
        prompts,
        method,
        tokensPerPass: tokens / passes,
        guesses: guesses / passes,
        cost: cost / tokens,
        same,
      });
    }
  }
}

if (values.json) {
  console.log(JSON.stringify({ curves, rows }));
} else {
  for (const { runs, passCosts } of curves) {
    const shown = [1, 2, 4, 8, 16].map((nodes) => `${nodes}: ${passCost(passCosts, nodes).toFixed(2)}`);
    console.log(`${runs.padEnd(8)} a pass over n tokens costs  ${shown.join("   ")}`);
  }
  console.log(
    "\nruns on   prompts       method                      tokens/pass  guesses/pass  cost/token  same tokens",
  );
  for (const { runs, prompts, method, tokensPerPass, guesses, cost, same } of rows) {
    const columns = [
      runs.padEnd(8),
      prompts.padEnd(12),
      method.padEnd(26),
      tokensPerPass.toFixed(2).padStart(11),
      guesses.toFixed(1).padStart(12),
      cost.toFixed(2).padStart(10),
      (same ? "yes" : "NO").padStart(11),
    ];
    console.log(columns.join("  "));
  }
}
