/**
 * RSD-S: whole sequences of guesses drawn without replacement, by stochastic beam search.
 *
 *     npx tsx examples/rsd-s.ts [--seed 0] [--temperature 1] [--json]
 *
 * Methods are compared at equal numbers of guesses, each in the shape that does best there. Look for: most tokens per
 * pass for RSD-S, which puts its guesses where the draft model is likely to be right. A chain needs a draft pass for every
 * guess, a tree one for every level: the last column counts a draft pass as its share of the target's parameters.
 */
import { parseArgs } from "node:util";
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
    json: { type: "boolean" },
  },
});
const sampling = { seed: values.seed, temperature: Number(values.temperature), maxTokens: 32 };
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
const costRatio = parameterCount(draft.model.config) / parameterCount(target.model.config);

/** Shapes with as many guesses, by method. */
const shapes: Readonly<Record<number, Readonly<Record<string, readonly (readonly [string, Drafter])[]>>>> = {
  6: {
    chain: [chain(6)],
    SpecInfer: [specInfer(2, 2), specInfer(3, 1)],
    "RSD-C": [rsdC(2, 2), rsdC(3, 1)],
    "RSD-S": [rsdS(2, 3), rsdS(3, 2)],
  },
  14: {
    chain: [chain(14)],
    SpecInfer: [specInfer(2, 2, 2), specInfer(2, 1, 2, 1, 1)],
    "RSD-C": [rsdC(2, 2, 2), rsdC(2, 1, 2, 1, 1)],
    "RSD-S": [rsdS(2, 7), rsdS(7, 2)],
  },
  30: {
    chain: [chain(30)],
    SpecInfer: [specInfer(2, 2, 2, 2), specInfer(6, 2, 1, 1)],
    "RSD-C": [rsdC(2, 2, 2, 2), rsdC(6, 2, 1, 1)],
    "RSD-S": [rsdS(5, 6), rsdS(6, 5)],
  },
};
function chain(gamma: number) {
  return [`${gamma}`, new ChainDrafter(draft.model, { gamma })] as const;
}
function specInfer(...branching: number[]) {
  return [branching.join(" x "), new SpecInferDrafter(draft.model, { branching })] as const;
}
function rsdC(...branching: number[]) {
  return [branching.join(" x "), new RsdCDrafter(draft.model, { branching })] as const;
}
function rsdS(beamWidth: number, depth: number) {
  return [`${beamWidth} wide, ${depth} deep`, new RsdSDrafter(draft.model, { beamWidth, depth })] as const;
}

/** Tokens per pass, the standard error of its mean over prompts, and draft passes per target pass. */
async function run(drafter: Drafter) {
  const perPrompt: number[] = [];
  let [tokens, passes, draftPasses] = [0, 0, 0];
  for (const prompt of prompts) {
    const report = await generateAll(target.model, prompt, { ...sampling, drafter });
    tokens += report.tokens.length;
    passes += report.targetPasses;
    draftPasses += report.cost.draft.passes;
    perPrompt.push(report.tokensPerPass);
  }
  const mean = perPrompt.reduce((a, b) => a + b, 0) / perPrompt.length;
  const variance = perPrompt.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (perPrompt.length - 1);
  const tokensPerPass = tokens / passes;
  return {
    tokensPerPass,
    standardError: Math.sqrt(variance / perPrompt.length),
    draftPasses: draftPasses / passes,
    speedup: expectedSpeedup(tokensPerPass, draftPasses / passes, costRatio),
  };
}

const rows = [];
for (const [guesses, methods] of Object.entries(shapes)) {
  for (const [method, candidates] of Object.entries(methods)) {
    const measured = [];
    for (const [shape, drafter] of candidates) measured.push({ guesses, method, shape, ...(await run(drafter)) });
    rows.push(measured.reduce((best, row) => (row.tokensPerPass > best.tokensPerPass ? row : best)));
  }
}

const steps: Step[] = [];
const drafter = new RsdSDrafter(draft.model, { beamWidth: 4, depth: 5 });
for await (const step of generate(target.model, prompts[0]!, { ...sampling, drafter })) steps.push(step);
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
