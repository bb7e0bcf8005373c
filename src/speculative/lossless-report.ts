/**
 * The report of `verifyLossless`: every check with its figures, and the whole as text to read.
 *
 * Worked example: a check of the joint law that failed reads
 *
 *     FAIL  unlike, temperature 1, budget 16, 12 tokens
 *           chi-square 1667.8, 55 degrees of freedom, limit 107.1, p below 1e-300; sees a total variation of 0.073
 *           guesses: token 0 5085 times, 5036.5 promised, z 0.9, p 1.0
 *           furthest off: [3,1,0] 362 times, expected 177.4
 */
import type { JointLawFit } from "./joint-law.ts";
import type { TablePair } from "./lossless-cases.ts";
import { jointTokens, tablePairs } from "./lossless-cases.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { ContractRule } from "./watched-generation.ts";
import { contractRules } from "./watched-generation.ts";

/** Temperature 0 against the table's arg-max, all budgets and prompts of one pair. */
export interface GreedyCheck {
  readonly kind: "greedy";
  readonly passed: boolean;
  /** Which target and draft. */
  readonly pair: TablePair;
  /** Generations, their tokens, and target passes. */
  readonly runs: number;
  readonly tokens: number;
  readonly passes: number;
  /** The first run that went wrong. */
  readonly mismatch: {
    readonly prompt: readonly number[];
    /** Most guesses per pass. */
    readonly budget: number;
    readonly expected: readonly number[];
    readonly got: readonly number[];
  } | null;
}

/** The joint law of the first tokens. */
export interface LawCheck {
  readonly kind: "law";
  readonly passed: boolean;
  readonly pair: TablePair;
  readonly sampling: SamplingOptions;
  /** Most guesses per pass, and most tokens per generation. */
  readonly budget: number;
  readonly maxTokens: number;
  /** The statistics; null when an error ended the draws. */
  readonly fit: JointLawFit | null;
  /** What `fit.chiSquare` must not exceed. */
  readonly limit: number;
  /** What neither of the two p-values may fall below. */
  readonly level: number;
  /** A law that differs by this total variation is found with probability 0.99, about. */
  readonly detectable: number;
  /** Message of the error that ended the draws. */
  readonly error: string | null;
}

/** One promise of the contracts, over all steps of the watched generations. */
export interface ContractCheck {
  readonly kind: "contract";
  readonly passed: boolean;
  readonly rule: ContractRule;
  readonly violations: number;
  /** The first violation. */
  readonly first: string | null;
}

export type LosslessCheck = GreedyCheck | LawCheck | ContractCheck;

export interface LosslessReport {
  /**
   * `"lossless"`: every check passed. `"failed"`: some did not. `"never guessed"`: every check passed, but not one token
   * was ever guessed, so nothing was put to the test.
   */
  readonly kind: "lossless" | "failed" | "never guessed";
  readonly checks: readonly LosslessCheck[];
  /** Guesses the target scored, and those accepted, over all generations. */
  readonly drafted: number;
  readonly accepted: number;
  readonly draws: number;
  readonly falseAlarm: number;
  readonly seed: number | string;
  /** The report to read, a line a check. */
  readonly text: string;
}

/** `temperature 0.6, top-k 3`. */
export function samplingName({ temperature, topK, topP }: SamplingOptions): string {
  return `temperature ${temperature}${topK ? `, top-k ${topK}` : ""}${topP ? `, top-p ${topP}` : ""}`;
}

/** The report to read: the outcome, then section by section a line or a few per check. */
export function textOf(report: Omit<LosslessReport, "text">): string {
  const { kind, checks, drafted, accepted, draws, falseAlarm, seed } = report;
  const failed = checks.filter(({ passed }) => !passed).length;
  const outcome = {
    lossless: `LOSSLESS as far as ${checks.length} checks can tell`,
    failed: `FAILED ${failed} of ${checks.length} checks`,
    "never guessed": `NEVER GUESSED: all ${checks.length} checks passed, and nothing was put to the test`,
  }[kind];
  const lines = [
    `${outcome}: ${accepted} of ${drafted} guesses accepted, ${draws} draws a law, seed ${seed}.`,
    `A lossless strategy fails with probability ${falseAlarm}.`,
  ];
  const headings = {
    greedy: "Temperature 0, token for token the table's arg-max",
    law: `Joint law of ${jointTokens} tokens against its enumeration; guesses against the laws they state`,
    contract: "Contracts of drafter and verifier",
  };
  for (const section of ["greedy", "law", "contract"] as const) {
    lines.push("", headings[section]);
    for (const check of checks) if (check.kind === section) lines.push(...linesOf(check));
  }
  return lines.join("\n");
}

function shownProbability(p: number): string {
  return p < 1e-300 ? "below 1e-300" : p.toPrecision(2);
}

function linesOf(check: LosslessCheck): string[] {
  const mark = check.passed ? "  ok    " : "  FAIL  ";
  const indent = " ".repeat(mark.length);
  if (check.kind === "contract") {
    const line = `${mark}${check.rule}: ${contractRules[check.rule]}`;
    return check.passed ? [line] : [line, `${indent}${check.violations} times, first: ${check.first}`];
  }
  if (check.kind === "greedy") {
    const { pair, runs, tokens, passes, mismatch } = check;
    const line = `${mark}${pair}, ${tablePairs[pair]}: ${runs} runs, ${tokens} tokens in ${passes} passes`;
    if (mismatch === null) return [line];
    const { prompt, budget, expected, got } = mismatch;
    const at = expected.findIndex((token, i) => token !== got[i]);
    const where =
      at < 0
        ? `more than ${expected.length} tokens`
        : `token ${at} is ${got[at] ?? "missing"}, expected ${expected[at]}`;
    return [line, `${indent}${where}; budget ${budget}, prompt of ${prompt.length}`];
  }
  const { pair, sampling, budget, maxTokens, fit, limit, detectable, error } = check;
  const line = `${mark}${pair}, ${samplingName(sampling)}, budget ${budget}, ${maxTokens} tokens`;
  if (fit === null) return [line, `${indent}ended by an error: ${error}`];
  const { chiSquare, degrees, pValue, worst, proposal } = fit;
  const lines = [
    line,
    `${indent}chi-square ${chiSquare.toFixed(1)}, ${degrees} degrees of freedom, limit ${limit.toFixed(1)}, ` +
      `p ${shownProbability(pValue)}; sees a total variation of ${detectable.toFixed(3)}`,
  ];
  if (proposal !== null) {
    const { token, observed, expected, z, pValue } = proposal;
    lines.push(
      `${indent}guesses: token ${token} ${observed} times, ${expected.toFixed(1)} promised, ` +
        `z ${z.toFixed(1)}, p ${shownProbability(pValue)}`,
    );
  }
  if (!check.passed && pValue < check.level) {
    const { tokens, observed, expected } = worst;
    lines.push(`${indent}furthest off: [${tokens}] ${observed} times, expected ${expected.toFixed(1)}`);
  }
  return lines;
}
