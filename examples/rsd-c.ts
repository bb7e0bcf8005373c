/**
 * RSD-C: a tree of guesses whose siblings all differ, drawn without replacement.
 *
 *     npx tsx examples/rsd-c.ts [--seed 0] [--rounds 2] [--json]
 *
 * Three methods, the same draft passes for each, at three temperatures. Look for: the lower the temperature, the surer the
 * draft model, and the more often independent siblings are copies of each other, until their tree is hardly better than a
 * chain; siblings without replacement go on being worth their rows. Texts are drawn, so figures have errors: more rounds,
 * smaller errors.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  ChainDrafter,
  childrenOf,
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
    rounds: { type: "string", default: "2" },
    json: { type: "boolean" },
  },
});
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));

async function run(drafter: Drafter, temperature: number): Promise<Step[]> {
  const steps: Step[] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const prompt of prompts) {
      const options = { temperature, drafter, maxTokens: 48, seed: `${values.seed} ${round}` };
      for await (const step of generate(target.model, prompt, options)) steps.push(step);
    }
  }
  return steps;
}

const tokensPerPass = (steps: readonly Step[]): number =>
  steps.reduce((sum, { tokens }) => sum + tokens.length, 0) / steps.length;

/** The share of second siblings that repeat the first. */
function copies(steps: readonly Step[]): number {
  let [pairs, same] = [0, 0];
  for (const { draft } of steps) {
    for (let node = 0; node < draft.tokens.length; node++) {
      const [first, second] = childrenOf(draft, node);
      if (first === undefined || second === undefined) continue;
      pairs += 1;
      if (draft.tokens[first] === draft.tokens[second]) same += 1;
    }
  }
  return same / pairs;
}

const rows = [];
let shown: Step | undefined;
const branching = [2, 2, 2];
for (const temperature of [1, 0.6, 0.3]) {
  const chain = await run(new ChainDrafter(draft.model, { gamma: branching.length }), temperature);
  const independent = await run(new SpecInferDrafter(draft.model, { branching }), temperature);
  const without = await run(new RsdCDrafter(draft.model, { branching }), temperature);
  rows.push({
    temperature,
    chain: tokensPerPass(chain),
    independent: tokensPerPass(independent),
    without: tokensPerPass(without),
    copies: copies(independent),
  });
  // A step that went all the way, and needed a second sibling for it.
  const second = ({ draft, path }: Step) =>
    path.some((node, depth) => depth > 0 && childrenOf(draft, path[depth - 1]!).indexOf(node) > 0);
  shown ??= without.find((step) => step.path.length > branching.length && second(step));
}

if (values.json) {
  console.log(JSON.stringify({ branching, temperatures: rows, step: shown ?? null }));
} else {
  if (shown) console.log(`Saved by a sibling:\n${drawTree(shown, (ids) => target.tokenizer.decode(ids))}\n`);
  console.log("temperature  tokens per pass: chain  independent siblings  of which copies  without replacement");
  for (const { temperature, chain, independent, copies, without } of rows) {
    const columns = [
      String(temperature).padStart(11),
      chain.toFixed(2).padStart(22),
      independent.toFixed(2).padStart(20),
      `${(100 * copies).toFixed(0)} %`.padStart(15),
      without.toFixed(2).padStart(19),
    ];
    console.log(columns.join("  "));
  }
}
