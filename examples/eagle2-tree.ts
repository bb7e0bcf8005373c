/**
 * EAGLE-2's dynamic tree: the most confident guesses of all levels, by the draft's own probabilities.
 *
 *     npx tsx examples/eagle2-tree.ts [--seed 0] [--json]
 *
 * Look for: the tree is wide where the draft hesitates and a chain where it does not. At temperature 0 it brings more
 * tokens a pass than a chain of as many guesses, for fewer draft passes. When sampling, its guesses are still the most
 * probable ones: right as often as the target's own draw falls among them.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  ChainDrafter,
  type Drafter,
  DySpecDrafter,
  Eagle2TreeDrafter,
  generate,
  generateAll,
} from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({ options: { seed: { type: "string", default: "0" }, json: { type: "boolean" } } });
const { seed } = values;
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
const maxTokens = 24;

/** Over all prompts: tokens per target pass, and draft passes per step. */
async function run(drafter: Drafter, temperature: number) {
  let [tokens, passes, draftPasses] = [0, 0, 0];
  for (const prompt of prompts) {
    const report = await generateAll(target.model, prompt, { maxTokens, drafter, temperature, seed });
    tokens += report.tokens.length;
    passes += report.targetPasses;
    draftPasses += report.cost.draft.passes;
  }
  return { tokensPerPass: tokens / passes, draftPasses: draftPasses / passes };
}

const rows = [];
for (const temperature of [0, 1]) {
  for (const budget of [8, 24]) {
    for (const [method, drafter] of Object.entries({
      "EAGLE-2 tree": new Eagle2TreeDrafter(draft.model, { budget }),
      "DySpec, drawn": new DySpecDrafter(draft.model, { budget }),
      chain: new ChainDrafter(draft.model, { gamma: budget }),
    })) {
      rows.push({ temperature, budget, method, ...(await run(drafter, temperature)) });
    }
  }
}

const steps = [];
const drafter = new Eagle2TreeDrafter(draft.model, { budget: 12 });
for await (const step of generate(target.model, prompts[1]!, { maxTokens, drafter, seed })) steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ rows, step }));
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => target.tokenizer.decode(ids))}\n`);
  console.log("temperature  guesses  method         draft passes a step  tokens per pass");
  for (const { temperature, budget, method, draftPasses, tokensPerPass } of rows) {
    const columns = [
      String(temperature).padStart(11),
      String(budget).padStart(7),
      method.padEnd(13),
      draftPasses.toFixed(1).padStart(19),
      tokensPerPass.toFixed(2).padStart(15),
    ];
    console.log(columns.join("  "));
  }
}
