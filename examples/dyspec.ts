/**
 * DySpec: a tree grown for every step, by the draft's own probabilities.
 *
 *     npx tsx examples/dyspec.ts [--seed 0] [--temperature 0] [--json]
 *
 * Look for: guesses the draft finds probable are accepted more often, which is all the method rests on. Its trees are
 * long where the draft is sure and wide where it is not, and bring about as many tokens a pass as Sequoia's tree, which had
 * to be fitted first, and more than a chain. Greedy construction takes a draft pass for every node it draws under,
 * threshold construction one a level.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  ChainDrafter,
  childrenOf,
  type Drafter,
  DySpecDrafter,
  generate,
  positionalAcceptance,
  SequoiaDrafter,
  type Step,
} from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "0" },
    temperature: { type: "string", default: "0" },
    json: { type: "boolean" },
  },
});
const temperature = Number(values.temperature);
const sampling = { seed: values.seed, temperature, maxTokens: 48 };
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
// Sequoia's tree is fitted on every other prompt; all are compared on those between.
const fittedOn = prompts.filter((_, i) => i % 2 === 0);
const usedOn = prompts.filter((_, i) => i % 2 === 1);
const acceptance = await positionalAcceptance(target.model, draft.model, fittedOn, { ...sampling, width: 8 });

/** All steps over all prompts, and what they brought and took on average. */
async function run(drafter: Drafter) {
  const steps: Step[] = [];
  let [tokens, guesses, draftPasses] = [0, 0, 0];
  for (const prompt of usedOn) {
    const generation = generate(target.model, prompt, { ...sampling, drafter });
    for await (const step of generation) steps.push(step);
    const { report } = generation;
    tokens += report.tokens.length;
    guesses += report.drafted;
    draftPasses += report.cost.draft.passes;
  }
  const passes = steps.length;
  return { steps, tokensPerPass: tokens / passes, guesses: guesses / passes, draftPasses: draftPasses / passes };
}

const rows = [];
let steps: Step[] = [];
for (const budget of [4, 8, 16, 32]) {
  const greedy = await run(new DySpecDrafter(draft.model, { budget }));
  const threshold = await run(new DySpecDrafter(draft.model, { budget, threshold: 2 / budget }));
  const sequoia = await run(new SequoiaDrafter(draft.model, { acceptance, budget }));
  const chain = await run(new ChainDrafter(draft.model, { gamma: budget }));
  for (const [method, { steps: _, ...averages }] of Object.entries({ greedy, threshold, sequoia, chain })) {
    rows.push({ budget, method, ...averages });
  }
  steps = greedy.steps;
}

// How often guesses of a given probability are accepted, of those that were tested: earlier siblings rejected.
const bins = [0.05, 0.2, 0.4, 0.6, 0.8, 1].map((below) => ({ below, tested: 0, accepted: 0 }));
for (const { draft, path } of steps) {
  for (const [i, node] of path.entries()) {
    for (const child of childrenOf(draft, node)) {
      const bin = bins.find(({ below }) => draft.laws[child]![draft.tokens[child]!]! <= below + 1e-12)!;
      bin.tested += 1;
      if (child !== path[i + 1]) continue;
      bin.accepted += 1;
      break;
    }
  }
}
const small = await run(new DySpecDrafter(draft.model, { budget: 12 }));
const step = small.steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(
    JSON.stringify({
      acceptance: Array.from(acceptance),
      rows,
      bins,
      step: { ...step, draft: { ...step.draft, laws: undefined } },
    }),
  );
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => target.tokenizer.decode(ids))}\n`);
  console.log("draft's probability  tested  accepted");
  for (const [i, { below, tested, accepted }] of bins.entries()) {
    const range = `${(bins[i - 1]?.below ?? 0).toFixed(2)} to ${below.toFixed(2)}`;
    const share = tested === 0 ? "-" : `${((100 * accepted) / tested).toFixed(0)} %`;
    console.log(`${range.padEnd(19)}  ${String(tested).padStart(6)}  ${share.padStart(8)}`);
  }
  console.log("\nbudget  method             guesses a step  draft passes a step  tokens per pass");
  const names: Record<string, string> = {
    greedy: "DySpec, greedy",
    threshold: "DySpec, threshold",
    sequoia: "Sequoia",
    chain: "chain",
  };
  for (const { budget, method, guesses, draftPasses, tokensPerPass } of rows) {
    const columns = [
      String(budget).padStart(6),
      names[method]!.padEnd(17),
      guesses.toFixed(1).padStart(14),
      draftPasses.toFixed(1).padStart(19),
      tokensPerPass.toFixed(2).padStart(15),
    ];
    console.log(columns.join("  "));
  }
}
