/**
 * What chain speculation saves on a pair of models: tokens per target pass, acceptance by position, multiply-adds and
 * seconds, against plain decoding of the same prompts in the same run.
 *
 * Counts hold on any machine. Seconds are a ratio: each repetition times plain decoding and every gamma once, in turn,
 * so that a slow spell of the machine meets all of them, and the median over repetitions is reported.
 */
import { pathToFileURL } from "node:url";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { allowRelaxedSimd } from "../src/kernels/index.ts";
import type { LanguageModel } from "../src/model/language-model.ts";
import { addCosts } from "../src/model/language-model.ts";
import { loadEmbedded } from "../src/model/load.ts";
import type { GenerateOptions, Report, SamplingOptions } from "../src/speculative/index.ts";
import { ChainDrafter, expectedTokensPerPass, generate, measurePassCosts } from "../src/speculative/index.ts";

export interface SpeculativeBenchOptions {
  readonly target: LanguageModel;
  readonly draft: LanguageModel;
  /** Token ids, one array per prompt. */
  readonly prompts: readonly (readonly number[])[];
  /** Default: temperature 0. */
  readonly sampling?: SamplingOptions;
  /** Guesses per step. Default 1, 2, 3, 4, 6, 8. */
  readonly gammas?: readonly number[];
  /** Tokens generated after each prompt. Default 128. */
  readonly maxTokens?: number;
  /** Timed repetitions, after one that is not timed. Default 5. */
  readonly repetitions?: number;
}

export interface SpeculativeBenchRow {
  /** 0 is plain decoding. */
  readonly gamma: number;
  /** Generated tokens per target pass, the one after each path included, over all prompts. */
  readonly tokensPerPass: number;
  /** 1 + a + ... + a^gamma for the measured acceptance a: what independent guesses would give. */
  readonly expectedTokensPerPass: number;
  /** Accepted guesses per tested guess. NaN without guesses. */
  readonly acceptance: number;
  /** The same at depth 1, 2, ...: given that everything before was accepted. NaN where nothing was tested. */
  readonly acceptanceByPosition: readonly number[];
  /** Multiply-adds per generated token, target and draft, their passes over the prompts included. */
  readonly multiplyAddsPerToken: number;
  /** Median seconds of plain decoding over median seconds of this; above 1 is faster. */
  readonly speedup: number;
  /** Whether the tokens are those of plain decoding. At temperatures above 0 they need not be; their law is the same. */
  readonly identical: boolean;
}

/** Runs plain decoding and each gamma over all prompts. Row 0 is plain decoding. */
export function measureSpeculation(options: SpeculativeBenchOptions): SpeculativeBenchRow[] {
  const { target, draft, prompts, sampling = {}, gammas = [1, 2, 3, 4, 6, 8], maxTokens = 128 } = options;
  const { repetitions = 5 } = options;
  const variants: GenerateOptions[] = [{}, ...gammas.map((gamma) => ({ drafter: new ChainDrafter(draft, { gamma }) }))];
  const runAll = (variant: GenerateOptions): Report[] =>
    prompts.map((prompt, seed) => {
      const generation = generate(target, prompt, { ...sampling, ...variant, maxTokens, seed });
      while (generation.step() !== undefined);
      return generation.report;
    });

  const reports = variants.map(runAll);
  const seconds = variants.map(() => [] as number[]);
  for (let repetition = 0; repetition < repetitions; repetition++) {
    variants.forEach((variant, i) => {
      const start = performance.now();
      runAll(variant);
      seconds[i]!.push((performance.now() - start) / 1000);
    });
  }

  return reports.map((own, i) => {
    const gamma = i === 0 ? 0 : gammas[i - 1]!;
    const sum = (value: (report: Report) => number) => own.reduce((total, report) => total + value(report), 0);
    const at = (depth: number, count: "tested" | "accepted") => sum((report) => report.positions[depth]?.[count] ?? 0);
    const depths = Array.from({ length: gamma }, (_, depth) => depth);
    const acceptance = sum((r) => r.accepted) / depths.reduce((total, depth) => total + at(depth, "tested"), 0);
    const cost = addCosts(...own.flatMap((report) => [report.cost.prefill, report.cost.target, report.cost.draft]));
    const tokens = sum((report) => report.tokens.length);
    return {
      gamma,
      tokensPerPass: tokens / sum((report) => report.targetPasses),
      expectedTokensPerPass: expectedTokensPerPass(Number.isNaN(acceptance) ? 0 : acceptance, gamma),
      acceptance,
      acceptanceByPosition: depths.map((depth) => at(depth, "accepted") / at(depth, "tested")),
      multiplyAddsPerToken: cost.multiplyAdds / tokens,
      speedup: median(seconds[0]!) / median(seconds[i]!),
      identical: own.every((report, p) => report.tokens.join() === reports[0]![p]!.tokens.join()),
    };
  });
}

/** The rows as lines of text. */
export function formatSpeculativeBench(rows: readonly SpeculativeBenchRow[]): string {
  const header = [
    "gamma",
    "tokens/pass",
    "if independent",
    "acceptance",
    "multiply-adds/token",
    "speed-up",
    "identical",
  ];
  const lines = rows.map((row) => [
    row.gamma === 0 ? "plain" : String(row.gamma),
    row.tokensPerPass.toFixed(2),
    row.expectedTokensPerPass.toFixed(2),
    shownRate(row.acceptance),
    row.multiplyAddsPerToken === 0 ? "-" : Math.round(row.multiplyAddsPerToken).toLocaleString("en-US"),
    `${row.speedup.toFixed(2)}x`,
    row.identical ? "yes" : "no",
  ]);
  const byPosition = rows
    .filter((row) => row.gamma > 0)
    .map((row) => `  gamma ${row.gamma}: ${row.acceptanceByPosition.map(shownRate).join("  ")}`);
  const table = [header, ...lines];
  const widths = header.map((_, column) => Math.max(...table.map((line) => line[column]!.length)));
  return [
    ...table.map((line) => line.map((cell, column) => cell.padStart(widths[column]!)).join("  ")),
    "acceptance by position, given that everything before was accepted:",
    ...byPosition,
  ].join("\n");
}

function shownRate(rate: number): string {
  return Number.isNaN(rate) ? "-" : rate.toFixed(2);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * The embedded pair on its held-out prompts, greedy and sampled; the target on the tensor decoder, where wide passes are
 * cheap, and on the engine, where they cost their arithmetic. Prints tables, or one JSON document.
 */
export async function benchSpeculative({
  json = false,
}: {
  json?: boolean;
} = {}): Promise<Record<string, SpeculativeBenchRow[]>> {
  await allowRelaxedSimd();
  const draft = await loadEmbedded("draft");
  const results: Record<string, SpeculativeBenchRow[]> = {};
  for (const runs of ["tensors", "engine"] as const) {
    const target = await loadEmbedded("target", { runs });
    const prompts = heldOutPrompts.map(({ text }) => Array.from(target.tokenizer.encode(text)));
    const { nodes, costs } = measurePassCosts(target.model);
    if (!json) {
      const curve = nodes.map((size, i) => `${size}: ${costs[i]!.toFixed(2)}`).join("  ");
      console.log(`embedded target on ${runs}; a pass over n tokens costs  ${curve}\n`);
    }
    for (const temperature of [0, 0.6, 1]) {
      const rows = measureSpeculation({
        target: target.model,
        draft: draft.model,
        prompts,
        sampling: { temperature },
        maxTokens: 96,
      });
      results[`${runs}, temperature ${temperature}`] = rows;
      if (!json) {
        console.log(`${runs}, ${prompts.length} held-out prompts, temperature ${temperature}
${formatSpeculativeBench(rows)}\n`);
      }
    }
    target.model.close();
  }
  draft.model.close();
  if (json) console.log(JSON.stringify(results, undefined, 2));
  return results;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await benchSpeculative({ json: process.argv.includes("--json") });
}
