/**
 * Sequoia: measure how often the k-th guess is the right one, then spend every budget on the best tree for that.
 *
 *     npx tsx examples/sequoia.ts [--seed 0] [--json]
 *
 * Look for: a first child is worth many times a second, so small trees are chains, and branch near the root first. The
 * tokens per pass predicted from other prompts come out about right, though real positions are not all alike, as the
 * prediction assumes. The text is the target's own, token for token. Costs are in target passes over one token: where
 * passes cost their arithmetic a small tree is the fastest, or none; where they wait for memory a large one is.
 */
import { parseArgs } from "node:util";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { parameterCount } from "../src/model/decoder-config.ts";
import type { LanguageModel } from "../src/model/language-model.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  flatPassCosts,
  generate,
  generateAll,
  measurePassCosts,
  OptimalTrees,
  passCost,
  positionalAcceptance,
  SequoiaDrafter,
} from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({ options: { seed: { type: "string", default: "0" }, json: { type: "boolean" } } });
const { seed } = values;
const target = await loadEmbedded("target");
const draft = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
// Measured on every other prompt, used on those between.
const measuredOn = prompts.filter((_, i) => i % 2 === 0);
const usedOn = prompts.filter((_, i) => i % 2 === 1);
const maxTokens = 48;

const acceptance = await positionalAcceptance(target.model, draft.model, measuredOn, { width: 8, maxTokens, seed });
const plain = await Promise.all(usedOn.map((prompt) => generateAll(target.model, prompt, { maxTokens })));
const rows = [];
for (const budget of [1, 2, 4, 8, 16, 32]) {
  const drafter = new SequoiaDrafter(draft.model, { acceptance, budget });
  const { depth, tokensPerPass } = drafter.trees.shape();
  let [tokens, passes, same] = [0, 0, true];
  for (const [i, prompt] of usedOn.entries()) {
    const report = await generateAll(target.model, prompt, { maxTokens, drafter, seed });
    tokens += report.tokens.length;
    passes += report.targetPasses;
    same &&= report.tokens.join() === plain[i]!.tokens.join();
  }
  rows.push({ budget, depth, predicted: tokensPerPass, measured: tokens / passes, same });
}

// The fastest tree here, and where a pass waits for its weights: there its size costs nothing, and a draft pass costs the
// draft's share of the parameters.
const trees = new OptimalTrees(acceptance, { budget: 63, maxDepth: 10 });
const flat = parameterCount(draft.model.config) / parameterCount(target.model.config);
const here = milliseconds(draft.model, 4) / milliseconds(target.model, 1);
const fastest = [
  { machine: "this machine", curve: measurePassCosts(target.model), costOfDraftPass: here },
  { machine: "flat costs", curve: flatPassCosts, costOfDraftPass: flat },
].map(({ machine, curve, costOfDraftPass }) => {
  const costOfPass = Array.from({ length: 65 }, (_, nodes) => passCost(curve, nodes));
  const { parents, depth, tokensPerPass, costPerToken } = trees.fastest({ costOfPass, costOfDraftPass });
  return { machine, costOfDraftPass, guesses: parents.length - 1, depth, tokensPerPass, costPerToken };
});

/** Least time of a pass over so many nodes. */
function milliseconds(model: LanguageModel, nodes: number): number {
  const session = model.openSession();
  session.extend(prompts[0]!);
  const tree = { tokens: new Array(nodes).fill(0), parents: Array.from({ length: nodes }, (_, node) => node - 1) };
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 200; i++) {
    const start = performance.now();
    session.score(tree);
    least = Math.min(least, performance.now() - start);
  }
  session.close();
  return least;
}

const steps = [];
const drafter = new SequoiaDrafter(draft.model, { acceptance, budget: 12 });
for await (const step of generate(target.model, usedOn[0]!, { maxTokens, drafter, seed })) steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ acceptance: Array.from(acceptance), trees: rows, fastest, step }));
} else {
  console.log(`accepted at rank 1, 2, ..: ${Array.from(acceptance, (share) => share.toFixed(3)).join(", ")}\n`);
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => target.tokenizer.decode(ids))}`);
  console.log("\nguesses  levels  tokens per pass, predicted  measured  same tokens");
  for (const { budget, depth, predicted, measured, same } of rows) {
    const columns = [
      String(budget).padStart(7),
      String(depth).padStart(6),
      predicted.toFixed(2).padStart(26),
      measured.toFixed(2).padStart(8),
      (same ? "yes" : "NO").padStart(11),
    ];
    console.log(columns.join("  "));
  }
  console.log("\nmachine       a draft pass costs  fastest tree            tokens per pass  cost per token");
  for (const { machine, costOfDraftPass, guesses, depth, tokensPerPass, costPerToken } of fastest) {
    const columns = [
      machine.padEnd(12),
      costOfDraftPass.toFixed(2).padStart(18),
      `${guesses} guesses, ${depth} levels`.padEnd(22),
      tokensPerPass.toFixed(2).padStart(15),
      costPerToken.toFixed(2).padStart(14),
    ];
    console.log(columns.join("  "));
  }
}
