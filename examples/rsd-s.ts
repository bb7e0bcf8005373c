/**
 * RSD-S: whole sequences of guesses drawn without replacement, by stochastic beam search.
 *
 *     npx tsx examples/rsd-s.ts [--seed 0] [--temperature 1] [--rounds 2] [--budgets 6,10,14,21,30] [--json]
 *
 * Methods are compared at equal numbers of guesses. Look for: most tokens per pass for RSD-S, which puts its guesses where
 * the draft model is likely to be right. A chain needs a draft pass for every guess, a tree one for every level: the last
 * column counts a draft pass as its share of the target's parameters. Texts are drawn, so figures have errors.
 */
import { parseArgs } from "node:util";
import { ArgumentError } from "../src/errors.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { parameterCount } from "../src/model/decoder-config.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  ChainDrafter,
  type Drafter,
  expectedSpeedup,
  generate,
  generateAll,
  RsdCDrafter,
  RsdSDrafter,
  SpecInferDrafter,
  type Step,
} from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "0" },
    temperature: { type: "string", default: "1" },
    rounds: { type: "string", default: "2" },
    budgets: { type: "string", default: "6,14" },
    json: { type: "boolean" },
  },
});
const sampling = { temperature: Number(values.temperature), maxTokens: 48 };
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
const costRatio = parameterCount(draft.model.config) / parameterCount(target.model.config);

/** Draft trees of as many guesses. A chain's draft passes are its guesses, a tree's its levels. */
const shapes: Readonly<
  Record<string, { readonly branching: readonly number[]; readonly beam: readonly [number, number] }>
> = {
  6: { branching: [2, 2], beam: [2, 3] },
  10: { branching: [2, 2, 1], beam: [2, 5] },
  14: { branching: [2, 2, 2], beam: [2, 7] },
  21: { branching: [3, 2, 2], beam: [3, 7] },
  30: { branching: [2, 2, 2, 2], beam: [5, 6] },
};

function drafters(guesses: string): readonly (readonly [method: string, shape: string, drafter: Drafter])[] {
  const shape = shapes[guesses];
  if (shape === undefined) throw new ArgumentError("budgets", `among ${Object.keys(shapes).join(", ")}`, guesses);
  const { branching, beam } = shape;
  const [beamWidth, depth] = beam;
  return [
    ["chain", guesses, new ChainDrafter(draft.model, { gamma: Number(guesses) })],
    ["SpecInfer", branching.join(" x "), new SpecInferDrafter(draft.model, { branching })],
    ["RSD-C", branching.join(" x "), new RsdCDrafter(draft.model, { branching })],
    ["RSD-S", `${beamWidth} wide, ${depth} deep`, new RsdSDrafter(draft.model, { beamWidth, depth })],
  ];
}

/** Tokens per pass, the standard error of its mean over texts, and draft passes per target pass. */
async function run(drafter: Drafter) {
  const perText: number[] = [];
  let [tokens, passes, draftPasses] = [0, 0, 0];
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const prompt of prompts) {
      const report = await generateAll(target.model, prompt, { ...sampling, drafter, seed: `${values.seed} ${round}` });
      tokens += report.tokens.length;
      passes += report.targetPasses;
      draftPasses += report.cost.draft.passes;
      perText.push(report.tokensPerPass);
    }
  }
  const mean = perText.reduce((a, b) => a + b, 0) / perText.length;
  const variance = perText.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (perText.length - 1);
  const tokensPerPass = tokens / passes;
  return {
    tokensPerPass,
    standardError: Math.sqrt(variance / perText.length),
    draftPasses: draftPasses / passes,
    speedup: expectedSpeedup(tokensPerPass, draftPasses / passes, costRatio),
  };
}

const rows = [];
for (const guesses of values.budgets.split(",")) {
  for (const [method, shape, drafter] of drafters(guesses)) {
    rows.push({ guesses, method, shape, ...(await run(drafter)) });
  }
}

const steps: Step[] = [];
const drafter = new RsdSDrafter(draft.model, { beamWidth: 4, depth: 5 });
for await (const step of generate(target.model, prompts[0]!, { ...sampling, drafter, seed: values.seed }))
  steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ costRatio, methods: rows, step }));
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => target.tokenizer.decode(ids))}\n`);
  console.log("guesses  method     shape           tokens per pass  draft passes  speedup if memory-bound");
  for (const { guesses, method, shape, tokensPerPass, standardError, draftPasses, speedup } of rows) {
    const columns = [
      guesses.padStart(7),
      method.padEnd(9),
      shape.padEnd(14),
      `${tokensPerPass.toFixed(2)} ± ${standardError.toFixed(2)}`.padStart(15),
      draftPasses.toFixed(1).padStart(12),
      speedup.toFixed(2).padStart(23),
    ];
    console.log(columns.join("  "));
  }
}
