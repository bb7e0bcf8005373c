/**
 * Chimera: a draft model of one layer on the target's own hidden states, every guess fed back to it.
 *
 *     npx tsx examples/chimera.ts [--seed 0] [--json]
 *
 * Look for: each branch goes on with guesses of its own, unlike Medusa's, and so deeper guesses are right about as often
 * as the first ones. The text at temperature 0 is the target's own, in about half the passes and fewer.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  ChainDrafter,
  ChimeraDrafter,
  type Drafter,
  generate,
  generateAll,
  loadChimeraHeads,
  loadMedusaHeads,
  MedusaDrafter,
} from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({ options: { seed: { type: "string", default: "0" }, json: { type: "boolean" } } });
const { seed } = values;
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const chimera = await loadChimeraHeads();
const medusa = await loadMedusaHeads();
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
const maxTokens = 32;

/** Over all prompts: tokens per target pass, and million multiply-adds of drafting per step. */
async function run(drafter: Drafter) {
  let [tokens, passes, multiplyAdds] = [0, 0, 0];
  for (const prompt of prompts) {
    const report = await generateAll(target.model, prompt, { maxTokens, drafter });
    tokens += report.tokens.length;
    passes += report.targetPasses;
    multiplyAdds += report.cost.draft.multiplyAdds;
  }
  return { tokensPerPass: tokens / passes, draftMillions: multiplyAdds / passes / 1e6 };
}

const rows = [];
for (const budget of [4, 8, 16, 32]) {
  for (const [method, drafter] of Object.entries({
    Chimera: new ChimeraDrafter(chimera.heads, { accuracies: chimera.accuracies, budget }),
    Medusa: new MedusaDrafter(medusa.heads, { accuracies: medusa.accuracies, budget }),
    "chain of a draft model": new ChainDrafter(draft.model, { gamma: budget }),
  })) {
    rows.push({ budget, method, ...(await run(drafter)) });
  }
}

const steps = [];
const drafter = new ChimeraDrafter(chimera.heads, { accuracies: chimera.accuracies, budget: 12 });
for await (const step of generate(target.model, prompts[1]!, { maxTokens, drafter, seed })) steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ rows, accuracies: { chimera: chimera.accuracies, medusa: medusa.accuracies }, step }));
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => target.tokenizer.decode(ids))}\n`);
  const shares = (accuracies: readonly (readonly number[])[]) =>
    accuracies.map(([first]) => `${(100 * first!).toFixed(0)} %`).join(", ");
  console.log(
    `First guess right, by depth: Chimera ${shares(chimera.accuracies)}; Medusa ${shares(medusa.accuracies)}\n`,
  );
  console.log("guesses  method                  million products a draft  tokens per pass");
  for (const { budget, method, draftMillions, tokensPerPass } of rows) {
    const columns = [
      String(budget).padStart(7),
      method.padEnd(22),
      draftMillions.toFixed(2).padStart(24),
      tokensPerPass.toFixed(2).padStart(15),
    ];
    console.log(columns.join("  "));
  }
}
