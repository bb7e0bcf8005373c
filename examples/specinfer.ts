/**
 * SpecInfer: a tree of guesses whose siblings are drawn independently, so that a wrong guess is not the end.
 *
 *     npx tsx examples/specinfer.ts [--seed 0] [--temperature 1] [--json]
 *
 * Look for: more siblings accept more, at the same number of draft passes. But where the draft model is sure, siblings
 * drawn independently are copies of each other, and a copy is a row of the target's pass for nothing; drawn without
 * replacement (RSD-C) none is. At temperature 0 the most probable tokens are taken instead, and there are no copies.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { childrenOf, generate, RsdCDrafter, SpecInferDrafter, type Step } from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "0" },
    temperature: { type: "string", default: "1" },
    json: { type: "boolean" },
  },
});
const sampling = { seed: values.seed, temperature: Number(values.temperature), maxTokens: 48 };
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));

/** All steps over all prompts. */
async function run(drafter: SpecInferDrafter | RsdCDrafter): Promise<Step[]> {
  const steps: Step[] = [];
  for (const prompt of prompts) {
    for await (const step of generate(target.model, prompt, { ...sampling, drafter })) steps.push(step);
  }
  return steps;
}

/** Siblings after the first of each node, and how many of them repeat an earlier one. */
function countCopies(steps: readonly Step[]) {
  let [laterSiblings, copies] = [0, 0];
  for (const { draft } of steps) {
    for (let node = 0; node < draft.tokens.length; node++) {
      const siblings = childrenOf(draft, node).map((child) => draft.tokens[child]!);
      laterSiblings += Math.max(0, siblings.length - 1);
      copies += siblings.length - new Set(siblings).size;
    }
  }
  return { laterSiblings, copies };
}

const rows = [];
let shown: Step | undefined;
for (const branching of [
  [1, 1, 1],
  [2, 1, 1],
  [2, 2, 2],
  [4, 2, 1],
  [8, 1, 1],
]) {
  const row = { branching, independent: 0, without: 0, guesses: 0, copies: 0 };
  for (const [kind, drafter] of [
    ["independent", new SpecInferDrafter(draft.model, { branching })],
    ["without", new RsdCDrafter(draft.model, { branching })],
  ] as const) {
    const steps = await run(drafter);
    row[kind] = steps.reduce((sum, { tokens }) => sum + tokens.length, 0) / steps.length;
    if (kind === "without") continue;
    const { laterSiblings, copies } = countCopies(steps);
    row.guesses = steps.reduce((sum, { draft }) => sum + draft.tokens.length - 1, 0) / steps.length;
    row.copies = laterSiblings === 0 ? 0 : copies / laterSiblings;
    if (branching.join() === "2,2,2")
      shown = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));
  }
  rows.push(row);
}

if (values.json) {
  console.log(JSON.stringify({ trees: rows, step: shown }));
} else {
  console.log(
    `A step in which all levels accept a guess:\n${drawTree(shown!, (ids) => target.tokenizer.decode(ids))}\n`,
  );
  console.log("tree       guesses a pass  tokens per pass  later siblings that are copies  tokens per pass, no copies");
  for (const { branching, independent, without, guesses, copies } of rows) {
    const columns = [
      branching.join(" x ").padEnd(9),
      guesses.toFixed(1).padStart(14),
      independent.toFixed(2).padStart(15),
      (branching.every((factor) => factor === 1) ? "" : `${(100 * copies).toFixed(0)} %`).padStart(30),
      without.toFixed(2).padStart(26),
    ];
    console.log(columns.join("  "));
  }
}
