/**
 * Token recycling: a table of what the target last ranked first after each token, read as a tree of guesses.
 *
 *     npx tsx examples/token-recycling.ts [--seed 0] [--temperature 0] [--json]
 *
 * Look for: tokens per pass rise with the tree and with the candidates kept, and rise again where the table is hot, filled
 * by the prompts before. The table is a few kilobytes, and nothing else is stored: no draft model, no text.
 */
import { parseArgs } from "node:util";
import { heldOutEdits } from "../src/held-out-edits.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  generate,
  generateAll,
  recyclingTemplate,
  TokenRecyclingDrafter,
  type TreeTemplate,
} from "../src/speculative/index.ts";
import { drawTree } from "./draft-tree.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "0" },
    temperature: { type: "string", default: "0" },
    json: { type: "boolean" },
  },
});
const sampling = { seed: values.seed, temperature: Number(values.temperature), maxTokens: 48 };
const { model, tokenizer } = await loadEmbedded("target");
const prompts = {
  edits: heldOutEdits.map(({ original, edited }) => tokenizer.encode(original + edited)),
  others: heldOutPrompts.slice(0, heldOutEdits.length).map(({ text }) => tokenizer.encode(text)),
};

/** Tokens per pass over all prompts of a kind, the table cold for each or kept from one to the next. */
async function tokensPerPass(kind: keyof typeof prompts, drafter: TokenRecyclingDrafter, hot: boolean) {
  let [tokens, passes] = [0, 0];
  drafter.reset();
  for (const prompt of prompts[kind]) {
    if (!hot) drafter.reset();
    const report = await generateAll(model, prompt, { ...sampling, drafter });
    tokens += report.tokens.length;
    passes += report.targetPasses;
  }
  return tokens / passes;
}

const kept = (k: number): TreeTemplate => recyclingTemplate.filter((path) => path.every((rank) => rank < k));
const rows = [];
for (const template of [
  kept(1),
  kept(2),
  kept(4),
  recyclingTemplate.slice(0, 29),
  recyclingTemplate.slice(0, 63),
  recyclingTemplate,
]) {
  const drafter = new TokenRecyclingDrafter({ template });
  const row = {
    k: Math.max(...template.flat()) + 1,
    guesses: template.length,
    editsCold: await tokensPerPass("edits", drafter, false),
    editsHot: await tokensPerPass("edits", drafter, true),
    othersCold: await tokensPerPass("others", drafter, false),
    othersHot: await tokensPerPass("others", drafter, true),
    bytes: drafter.bytes,
  };
  rows.push(row);
}

const steps = [];
const drafter = new TokenRecyclingDrafter({ template: kept(2) });
for await (const step of generate(model, prompts.others[0]!, { ...sampling, drafter })) steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ tables: rows, step }));
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => tokenizer.decode(ids))}\n`);
  console.log("                tokens per pass: edits        others");
  console.log("k  guesses                  cold   hot    cold   hot  bytes of table");
  for (const { k, guesses, bytes, ...rates } of rows) {
    const [editsCold, editsHot, othersCold, othersHot] = Object.values(rates).map((rate) => rate.toFixed(2));
    console.log(
      `${k}  ${String(guesses).padStart(7)}  ${editsCold!.padStart(20)}  ${editsHot}    ${othersCold}  ${othersHot}  ` +
        String(bytes).padStart(14),
    );
  }
}
