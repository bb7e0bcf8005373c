/**
 * Lookahead: a trie of the prompt and of all that was generated before guesses many branches at once.
 *
 *     npx tsx examples/lookahead.ts [--seed 0] [--temperature 0] [--json]
 *
 * Look for: hierarchical drafts bring more than parallel ones, and those more than a single branch, all the more where
 * the trie is warm. Cold, on prompts that repeat nothing, there is hardly anything to find; after other texts there is:
 * what a model writes often is found, not only what this prompt says.
 */
import { parseArgs } from "node:util";
import { heldOutEdits } from "../src/held-out-edits.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { generate, generateAll, LookaheadDrafter } from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "0" },
    temperature: { type: "string", default: "0" },
    json: { type: "boolean" },
  },
});
const sampling = { seed: values.seed, temperature: Number(values.temperature), maxTokens: 64 };
const { model, tokenizer } = await loadEmbedded("target");
const prompts = {
  edits: heldOutEdits.map(({ original, edited }) => tokenizer.encode(original + edited)),
  others: heldOutPrompts.slice(0, heldOutEdits.length).map(({ text }) => tokenizer.encode(text)),
};

/** Tokens per pass over all prompts of a kind, the trie cold for each or warm with the texts before it. */
async function tokensPerPass(kind: keyof typeof prompts, drafter: LookaheadDrafter, warm: boolean) {
  let [tokens, passes] = [0, 0];
  drafter.reset();
  for (const prompt of prompts[kind]) {
    if (!warm) drafter.reset();
    const report = await generateAll(model, prompt, { ...sampling, drafter });
    tokens += report.tokens.length;
    passes += report.targetPasses;
  }
  return tokens / passes;
}

const rows = [];
for (const [mode, decodingLength] of [
  ["single", 64],
  ["parallel", 16],
  ["hierarchical", 16],
  ["parallel", 64],
  ["hierarchical", 64],
] as const) {
  const drafter = new LookaheadDrafter({ mode, decodingLength });
  rows.push({
    mode,
    nodes: decodingLength,
    editsCold: await tokensPerPass("edits", drafter, false),
    editsWarm: await tokensPerPass("edits", drafter, true),
    othersCold: await tokensPerPass("others", drafter, false),
    othersWarm: await tokensPerPass("others", drafter, true),
  });
}

const steps = [];
const drafter = new LookaheadDrafter({ decodingLength: 32 });
for await (const step of generate(model, prompts.edits[0]!, { ...sampling, drafter })) steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ tries: rows, step }));
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => tokenizer.decode(ids))}\n`);
  console.log("                     tokens per pass: edits        others");
  console.log("drafts        nodes                cold  warm    cold  warm");
  for (const { mode, nodes, ...rates } of rows) {
    const [editsCold, editsWarm, othersCold, othersWarm] = Object.values(rates).map((rate) => rate.toFixed(2));
    console.log(
      `${mode.padEnd(12)}  ${String(nodes).padStart(5)}  ${editsCold!.padStart(18)}  ${editsWarm}    ${othersCold}  ${othersWarm}`,
    );
  }
}
