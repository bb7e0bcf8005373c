/** A comparison of the speculative family as tables: tokens per pass, seconds, and what the cost of a pass allows. */
import { type PassCosts, passCost } from "../speculative/pass-costs.ts";
import type { ComparisonRow } from "./speculative.ts";

/** A comparison as it is written and read: `tokenthrift bench speculative --json`. */
export interface SpeculativeComparison {
  readonly family: "speculative";
  /** What the target ran on. */
  readonly runs: "engine" | "tensors";
  readonly maxTokens: number;
  readonly seed: number;
  /** Prompts by set. */
  readonly prompts: Readonly<Record<string, number>>;
  /** The target's, measured in the same run. */
  readonly passCosts: PassCosts;
  readonly rows: readonly ComparisonRow[];
}

/** Rows of cells: a technique a row, a number of guesses a column, the mean over prompt sets in each. */
export function tableOf(
  rows: readonly ComparisonRow[],
  value: (row: ComparisonRow) => number,
): {
  readonly budgets: readonly number[];
  readonly lines: readonly { readonly technique: string; readonly values: readonly number[] }[];
} {
  const budgets = [...new Set(rows.map(({ budget }) => budget))];
  const techniques = [...new Set(rows.map(({ technique }) => technique))];
  return {
    budgets,
    lines: techniques.map((technique) => ({
      technique,
      values: budgets.map((budget) => {
        const cells = rows.filter((row) => row.technique === technique && row.budget === budget).map(value);
        return cells.reduce((a, b) => a + b, 0) / cells.length;
      }),
    })),
  };
}

/**
 * How much faster than plain decoding a row's tokens per pass could be on this machine if drafting cost nothing: every pass
 * pays for the guesses it was given.
 *
 *     allowed = tokens per pass / cost(1 + guesses per pass)
 */
export function allowedSpeedup({ tokensPerPass, guesses }: ComparisonRow, costs: PassCosts): number {
  return tokensPerPass / passCost(costs, 1 + guesses);
}

/** The row with the largest value of one technique each; ties to the earlier. */
export function bestRows(rows: readonly ComparisonRow[], value: (row: ComparisonRow) => number): ComparisonRow[] {
  const best = new Map<string, ComparisonRow>();
  for (const row of rows) {
    const known = best.get(row.technique);
    if (known === undefined || value(row) > value(known)) best.set(row.technique, row);
  }
  return [...best.values()];
}

/**
 * The most any drafter could gain on this machine: always right, drafting for nothing.
 *
 *     ceiling = max over n of n / cost(n)
 */
export function ceilingOf({ nodes, costs }: PassCosts): { readonly nodes: number; readonly speedup: number } {
  return nodes
    .map((n, i) => ({ nodes: n, speedup: n / costs[i]! }))
    .reduce((best, one) => (one.speedup > best.speedup ? one : best));
}
