/**
 * S2D: one draft model of three depths, for targets of different cost. A guess leaves at the first depth that is sure of it.
 *
 *     npx tsx examples/s2d.ts [--seed 0] [--json]
 *
 * Look for: what is easy to guess (blanks, the rest of a word) leaves after one layer. Where a target pass costs little, the
 * shallow exit alone is best; the more it costs, the deeper guesses may be. The costs are modelled, since there are no
 * three trained targets of different size here. The ones that are served: the embedded target; the same tuned for
 * SkipDecode, here at full depth; and the embedded draft model, which is smaller than what drafts for it and would not be
 * worth drafting for. Rows times layers hardly fall: what waits is run later, beside another row, unless it is rejected.
 */
import { parseArgs } from "node:util";
import { painter } from "../src/cli/output.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import type { LanguageModel } from "../src/model/language-model.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { type EarlyExitPass, generate, loadSkipDecode, loadSortedDraft, S2dDrafter } from "../src/speculative/index.ts";

const { values } = parseArgs({ options: { seed: { type: "string", default: "0" }, json: { type: "boolean" } } });
const { seed } = values;
const { model: draft, exits } = await loadSortedDraft();
const target = await loadEmbedded("target");
const tuned = await loadSkipDecode();
const small = await loadEmbedded("draft");
const prompts = heldOutPrompts.map(({ text }) => target.tokenizer.encode(text));
const maxTokens = 32;

const never = 1;
const settings: Readonly<Record<string, readonly number[]>> = {
  "1 layer": [0, never],
  "2 layers": [never, 0],
  "3 layers": [never, never],
  "(.5, .5)": [0.5, 0.5],
  "(.75, .7)": [0.75, 0.7],
  "(.9, .85)": [0.9, 0.85],
};

/** The steps of one generation, each with the passes that made its guesses. */
async function stepsOf(
  model: LanguageModel,
  prompt: ArrayLike<number>,
  thresholds: readonly number[],
  temperature: number,
) {
  const passes: EarlyExitPass[] = [];
  const drafter = new S2dDrafter(draft, { exits, thresholds, onPass: (pass) => passes.push(pass) });
  const steps = [];
  for await (const step of generate(model, prompt, { maxTokens, drafter, temperature, seed })) {
    steps.push({ step, passes: passes.splice(0) });
  }
  return steps;
}

/** Over all prompts: what a token cost. */
async function run(model: LanguageModel, thresholds: readonly number[], temperature: number) {
  let [tokens, targetPasses, layerCalls, layerRows] = [0, 0, 0, 0];
  const guesses = exits.map(() => 0);
  for (const prompt of prompts) {
    for (const { step, passes } of await stepsOf(model, prompt, thresholds, temperature)) {
      tokens += step.tokens.length;
      targetPasses += 1;
      for (const pass of passes) {
        layerCalls += pass.layerCalls;
        layerRows += pass.layerRows;
        guesses[exits.indexOf(pass.exit)]! += 1;
      }
    }
  }
  const drafted = guesses.reduce((a, b) => a + b);
  return {
    tokensPerPass: tokens / targetPasses,
    layerCallsPerToken: layerCalls / tokens,
    layerRowsPerToken: layerRows / tokens,
    leftAt: guesses.map((count) => count / drafted),
  };
}

const rows = [];
for (const [name, model] of Object.entries({
  "embedded target": target.model,
  "tuned target": tuned.model,
  "embedded draft": small.model,
})) {
  for (const temperature of [0, 1]) {
    for (const [setting, thresholds] of Object.entries(settings)) {
      rows.push({ target: name, temperature, setting, ...(await run(model, thresholds, temperature)) });
    }
  }
}

// A target pass that takes as long as so many draft layers one after another.
const costs = [4, 16, 64, 256];
const speedups = rows
  .filter(({ target, temperature }) => target === "embedded target" && temperature === 0)
  .map(({ setting, tokensPerPass, layerCallsPerToken }) => ({
    setting,
    speedups: costs.map((cost) => cost / (cost / tokensPerPass + layerCallsPerToken)),
  }));

const steps = await stepsOf(target.model, prompts[1]!, [0.5, 0.5], 0);
const shown = steps.reduce((best, one) => (one.step.path.length > best.step.path.length ? one : best));

if (values.json) {
  console.log(JSON.stringify({ rows, costs, speedups, step: shown }));
} else {
  const { paint } = painter(process.stdout, process.env);
  const text = (token: number): string => JSON.stringify(target.tokenizer.decode([token]));
  const { draft: guessed, path, tokens } = shown.step;
  console.log(
    `The step with the most accepted guesses, thresholds (.5, .5): layers each guess took\n${text(guessed.tokens[0]!)}`,
  );
  shown.passes.forEach(({ exit }, i) => {
    const label = `${text(guessed.tokens[i + 1]!)}${path.includes(i + 1) ? " \u2713" : ""}`;
    const layers = "\u25a0".repeat(exit).padEnd(draft.config.layers);
    console.log(`  ${layers}  ${path.includes(i + 1) ? paint(label, "green", "bold") : paint(label, "dim")}`);
  });
  console.log(`\u2192 ${path.length - 1} accepted, then the target's own ${text(tokens[tokens.length - 1]!)}\n`);
  console.log(
    "target           temperature  exits      tokens per pass  layer calls a token  rows x layers  left after 1, 2, 3",
  );
  for (const row of rows) {
    const columns = [
      row.target.padEnd(15),
      String(row.temperature).padStart(11),
      row.setting.padEnd(9),
      row.tokensPerPass.toFixed(2).padStart(15),
      row.layerCallsPerToken.toFixed(2).padStart(19),
      row.layerRowsPerToken.toFixed(2).padStart(13),
      row.leftAt.map((share) => `${Math.round(100 * share)} %`.padStart(5)).join(" "),
    ];
    console.log(columns.join("  "));
  }
  console.log("\nModelled speed-up at temperature 0, where a target pass takes as long as so many draft layers:");
  console.log(`exits      ${costs.map((cost) => String(cost).padStart(6)).join("")}`);
  const best = costs.map((_, c) => Math.max(...speedups.map(({ speedups }) => speedups[c]!)));
  for (const { setting, speedups: row } of speedups) {
    const cells = row.map((speedup, c) => {
      const cell = speedup.toFixed(2).padStart(6);
      return speedup === best[c] ? paint(cell, "green", "bold") : cell;
    });
    console.log(`${setting.padEnd(11)}${cells.join("")}`);
  }
}
