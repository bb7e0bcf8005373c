/** `bench speculative`: the speculative family on four sets of prompts, as tables. */
import { catalog, type Technique } from "../catalog.ts";
import type { SpeculativeComparison } from "../comparison/speculative-report.ts";
import { Progress } from "../progress.ts";
import { type PromptSetName, promptSetNames } from "../prompt-sets.ts";
import { type Command, chosen, type Input, numbers, UsageError } from "./command-line.ts";
import { grouped, type Io, painter, table, textWidth, wrap } from "./output.ts";

/** Measure as the options say. @throws UsageError on options out of range */
export async function compareSpeculative(input: Input, command: Command): Promise<SpeculativeComparison> {
  const techniques = chosenTechniques(input.text("techniques"), command);
  const sets = chosen(input.text("sets"), promptSetNames, "prompt set", command) as readonly PromptSetName[];
  const temperatures = numbers(input, "temperatures") ?? [0, 0.6, 1];
  const budgets = numbers(input, "budgets") ?? [4, 8, 16, 32, 64];
  for (const budget of budgets) {
    if (!(Number.isSafeInteger(budget) && budget >= 1)) {
      throw new UsageError(`--budgets: expected integers >= 1, got ${budget}.`);
    }
  }
  const [maxTokens, seed] = [input.integer("max-tokens") ?? 48, input.integer("seed") ?? 0];
  const [runs] = chosen(input.text("runs") ?? "engine", ["engine", "tensors"] as const, "runner", command);

  const { compareSpeculation } = await import("../comparison/speculative.ts");
  const { measurePassCosts } = await import("../speculative/index.ts");
  const { calibrationPrompts } = await import("../held-out-prompts.ts");
  const { promptSets } = await import("../prompt-sets.ts");
  const { loadModel } = await import("./loaded-model.ts");
  const target = await loadModel(undefined, "target", { runs: runs! });
  const draft = await loadModel(undefined, "draft");
  const encode = (text: string): number[] => Array.from(target.tokenizer.encode(text));
  const prompts = Object.fromEntries(sets.map((name) => [name, promptSets[name].map(encode)]));
  const passCosts = measurePassCosts(target.model);
  const label = `comparing ${techniques.length} techniques on ${runs}`;
  const progress = new Progress(label, sets.length * temperatures.length * budgets.length * techniques.length);
  try {
    const rows = await compareSpeculation({
      target: target.model,
      draft: draft.model,
      techniques,
      promptSets: prompts,
      calibration: calibrationPrompts.map(({ text }) => encode(text)),
      temperatures,
      budgets,
      maxTokens,
      seed,
      onRow: ({ technique, budget, promptSet }, done) =>
        progress.update(done, `${technique}, ${budget} guesses, ${promptSet}`),
    });
    const counts = Object.fromEntries(Object.entries(prompts).map(([name, { length }]) => [name, length]));
    return { family: "speculative", runs: runs!, maxTokens, seed, prompts: counts, passCosts, rows };
  } finally {
    progress.finish();
    draft.model.close();
    target.model.close();
  }
}

/** Tables for people. */
export async function printSpeculative(
  { runs, rows, passCosts, prompts, maxTokens }: SpeculativeComparison,
  io: Io,
): Promise<void> {
  const { allowedSpeedup, bestRows, ceilingOf, tableOf } = await import("../comparison/speculative-report.ts");
  const { stdout, env } = io;
  const { paint } = painter(stdout, env);
  const shown = (text: string): void => void stdout.write(`${text}\n`);
  const sets = Object.entries(prompts).map(([name, count]) => `${name} (${count})`);
  shown(
    wrap(`${maxTokens} tokens after each prompt: ${sets.join(", ")}. The target runs on ${runs}.`, textWidth(stdout)),
  );
  const curve = passCosts.nodes.map((nodes, i) => `${nodes}: ${passCosts.costs[i]!.toFixed(2)}`).join("  ");
  shown(`\nA pass over n tokens costs, in passes over one:\n  ${curve}`);
  const ceiling = ceilingOf(passCosts);
  shown(
    wrap(
      `So a drafter that is always right and costs nothing would be ${ceiling.speedup.toFixed(2)} times as fast as plain ` +
        `decoding, with ${ceiling.nodes - 1} guesses a pass. No technique can be faster here.`,
      textWidth(stdout),
    ),
  );
  for (const temperature of new Set(rows.map((row) => row.temperature))) {
    const own = rows.filter((row) => row.temperature === temperature);
    const lossy = new Set(own.filter((row) => row.lossy && temperature > 0).map(({ technique }) => technique));
    const named = (technique: string): string => (lossy.has(technique) ? `${technique} (LOSSY)` : technique);
    for (const [what, value] of [
      ["tokens per target pass, the token after each path included", (row: (typeof own)[number]) => row.tokensPerPass],
      ["seconds: plain decoding's over the technique's", (row: (typeof own)[number]) => row.speedup],
    ] as const) {
      const { budgets, lines } = tableOf(own, value);
      shown(`\n${paint(`Temperature ${temperature}, ${what}`, "bold")}; means over the prompt sets`);
      shown(
        table([
          ["guesses", ...budgets.map(String)],
          ...lines.map(({ technique, values }) => [named(technique), ...values.map((v) => v.toFixed(2))]),
        ]),
      );
    }
    for (const set of Object.keys(prompts)) {
      shown(`\n${paint(`Temperature ${temperature}, ${set}`, "bold")}: each technique where it was fastest`);
      const best = bestRows(
        own.filter((row) => row.promptSet === set),
        (row) => row.speedup,
      );
      shown(
        table([
          [
            "technique",
            "guesses",
            "made",
            "tokens/pass",
            "draft passes/token",
            "multiply-adds/plain",
            "allowed",
            "speed",
          ],
          ...best.map((row) => [
            named(row.technique),
            String(row.budget),
            row.guesses.toFixed(1),
            row.tokensPerPass.toFixed(2),
            row.draftPassesPerToken.toFixed(2),
            ratio(row).toFixed(2),
            `${allowedSpeedup(row, passCosts).toFixed(2)}x`,
            `${row.speedup.toFixed(2)}x`,
          ]),
        ]),
      );
    }
  }
  const greedy = rows.filter(({ identical }) => identical !== null);
  const same = greedy.filter(({ identical }) => identical).length;
  shown(
    `\n${wrap(
      "made: guesses per pass; allowed: what tokens per pass would come to if only the pass over them cost anything. " +
        `Identical to plain decoding at temperature 0: ${grouped(same)} of ${grouped(greedy.length)} rows.`,
      textWidth(stdout),
    )}`,
  );
}

function ratio({
  multiplyAddsPerToken: { target, draft },
  plainMultiplyAddsPerToken: plain,
}: SpeculativeComparison["rows"][number]): number {
  return (target + draft) / plain;
}

function chosenTechniques(text: string | undefined, command: Command): Technique[] {
  const generating = catalog.filter(({ name, run }) => run.kind === "generation" && name !== "plain-decoding");
  const names = chosen(
    text,
    generating.map(({ name }) => name),
    "technique",
    command,
  );
  return generating.filter(({ name }) => names.includes(name));
}
