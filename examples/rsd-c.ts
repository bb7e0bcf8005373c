/**
 * RSD-C: a tree of guesses whose siblings all differ, drawn without replacement.
 *
 *     npx tsx examples/rsd-c.ts [--seed 0] [--temperature 1] [--json]
 *
 * Look for: at every depth more tokens per pass than a chain, and at most depths more than a tree of independent
 * siblings of the same shape, for draft passes that are as many. Trees double with every level: see rsd-s.ts for what to
 * do about that. The text is drawn from the target's own law; at temperature 0 it is the target's own.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  ChainDrafter,
  type Drafter,
  generate,
  RsdCDrafter,
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
const sampling = { seed: values.seed, temperature: Number(values.temperature), maxTokens: 48 };
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));

async function run(drafter: Drafter): Promise<Step[]> {
  const steps: Step[] = [];
  for (const prompt of prompts) {
    for await (const step of generate(target.model, prompt, { ...sampling, drafter })) steps.push(step);
  }
  return steps;
}
const tokensPerPass = (steps: readonly Step[]) =>
  steps.reduce((sum, { tokens }) => sum + tokens.length, 0) / steps.length;

const rows = [];
let shown: Step | undefined;
for (const depth of [1, 2, 3, 4]) {
  const branching = new Array<number>(depth).fill(2);
  const steps = await run(new RsdCDrafter(draft.model, { branching }));
  rows.push({
    depth,
    guesses: 2 ** (depth + 1) - 2,
    chain: tokensPerPass(await run(new ChainDrafter(draft.model, { gamma: depth }))),
    independent: tokensPerPass(await run(new SpecInferDrafter(draft.model, { branching }))),
    without: tokensPerPass(steps),
  });
  // The first step that went all the way, and needed a second sibling for it.
  if (depth === 3)
    shown = steps.find(({ path }) => path.length === 4 && path.some((node) => node > 0 && node % 2 === 0));
}

if (values.json) {
  console.log(JSON.stringify({ depths: rows, step: shown ?? null }));
} else {
  if (shown) console.log(`Saved by siblings:\n${drawTree(shown, (ids) => target.tokenizer.decode(ids))}\n`);
  console.log("levels  guesses of a tree  tokens per pass: chain  independent siblings  without replacement");
  for (const { depth, guesses, chain, independent, without } of rows) {
    const columns = [
      String(depth).padStart(6),
      String(guesses).padStart(17),
      chain.toFixed(2).padStart(22),
      independent.toFixed(2).padStart(20),
      without.toFixed(2).padStart(19),
    ];
    console.log(columns.join("  "));
  }
}
