/**
 * Prompt lookup: the text itself is the draft model. What followed the last tokens earlier is what they guess.
 *
 *     npx tsx examples/prompt-lookup.ts [--seed 0] [--temperature 0] [--json]
 *
 * Look for: many tokens a pass where the model repeats itself or its prompt, hardly more than one where it does not, and
 * no cost but the rows scored. This model is too small to copy names; it repeats the form of lines. A longer n-gram is
 * right more often, a shorter one guesses more often.
 */
import { parseArgs } from "node:util";
import { heldOutEdits } from "../src/held-out-edits.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { generate, generateAll, promptLookupDrafter } from "../src/speculative/index.ts";
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

const rows = [];
for (const [maxNgramSize, predictedTokens] of [
  [1, 10],
  [2, 3],
  [2, 10],
  [2, 30],
  [4, 10],
] as const) {
  const drafter = promptLookupDrafter({ maxNgramSize, predictedTokens });
  const row = { maxNgramSize, predictedTokens, edits: 0, others: 0, accepted: 0, drafted: 0 };
  for (const kind of ["edits", "others"] as const) {
    let [tokens, passes] = [0, 0];
    for (const prompt of prompts[kind]) {
      const report = await generateAll(model, prompt, { ...sampling, drafter });
      tokens += report.tokens.length;
      passes += report.targetPasses;
      row.accepted += report.accepted;
      row.drafted += report.drafted;
    }
    row[kind] = tokens / passes;
  }
  rows.push(row);
}

const steps = [];
const drafter = promptLookupDrafter();
for await (const step of generate(model, prompts.edits[0]!, { ...sampling, drafter })) steps.push(step);
const step = steps.reduce((best, step) => (step.path.length > best.path.length ? step : best));

if (values.json) {
  console.log(JSON.stringify({ lookups: rows, step }));
} else {
  console.log(`The step with the most accepted guesses:\n${drawTree(step, (ids) => tokenizer.decode(ids))}\n`);
  console.log("n-gram  guesses  tokens per pass, edits  others  guesses accepted");
  for (const { maxNgramSize, predictedTokens, edits, others, accepted, drafted } of rows) {
    const columns = [
      String(maxNgramSize).padStart(6),
      String(predictedTokens).padStart(7),
      edits.toFixed(2).padStart(22),
      others.toFixed(2).padStart(6),
      `${accepted} of ${drafted}`.padStart(16),
    ];
    console.log(columns.join("  "));
  }
}
