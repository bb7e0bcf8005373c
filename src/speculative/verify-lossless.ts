/**
 * Is this way of decoding lossless? Proof by greedy equality and by the joint law, for any drafter and verifier.
 *
 *     console.log((await verifyLossless((draft) => ({ drafter: new MyDrafter(draft) }))).text);
 *
 * A decoding is lossless when its tokens have exactly the law of the target's own. Real models do not say their joint
 * laws, tables do: so the strategy is built on `TableModel`s made here, targets and drafts that are unlike, alike in part,
 * equal, disjoint or overlapping in what they can say, and put to three kinds of checks.
 *
 *     greedy     temperature 0: the tokens are those of arg-max after arg-max in the table, for every budget and prompt
 *     law        the first 3 tokens against their enumerated law, by chi-square, under several samplings and budgets;
 *                and the guesses against the laws they state, by the largest of their scores (see joint-law.ts)
 *     contract   what drafters and verifiers promise (see watched-generation.ts), looked after in every step
 *
 * Chance can fail a lossless strategy. The checks that draw are m, each judged at falseAlarm / m, so that all of them
 * together fail one with a probability of about `falseAlarm` (chi-square's law is a limit: see chi-square.ts for how
 * close). What a check of n draws can see follows from the non-central law with noncentrality n sum (p' - p)^2 / p, which
 * is at least 4 n TV^2: its normal approximation gives the total variation a wrong law would be found at.
 *
 *     detectable   sqrt(y / 4 n),  y = b + sqrt(b^2 - (c - k)^2 + 2 z^2 k),  b = c - k + 2 z^2,  z = 2.326  (99 %)
 *                  k degrees of freedom, c the limit the statistic is judged by
 *
 * **Unlike** the tests of one technique, it asks nothing of it but the contracts. It sees distributions, not reasons, and
 * what no check runs into (a mistake beyond 128 tokens, say) it does not see.
 *
 * Worked example: chain speculative sampling with a replacement drawn from p instead of [p - q]+ passes at temperature 0
 * and fails law checks: `chi-square 1667.8, 55 degrees of freedom, limit 107.1`.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { Random } from "../tensor/random.ts";
import { chiSquarePoint } from "./chi-square.ts";
import { JointLaw } from "./joint-law.ts";
import type { TablePair } from "./lossless-cases.ts";
import {
  greedyCases,
  greedyTokens,
  jointTokens,
  lawCases,
  makePair,
  promptOf,
  sampledCases,
  tablePairs,
} from "./lossless-cases.ts";
import type { ContractCheck, GreedyCheck, LawCheck, LosslessCheck, LosslessReport } from "./lossless-report.ts";
import { samplingName, textOf } from "./lossless-report.ts";
import { plainDecoding } from "./plain-decoding.ts";
import type { ContractRule, StrategyFactory } from "./watched-generation.ts";
import { contractRules, limitGuesses, messageOf, ruleOf, Watch } from "./watched-generation.ts";

export interface VerifyLosslessOptions {
  /** Generations per law check, an integer >= 1. More see smaller deviations. Default 5,000. */
  readonly draws?: number;
  /** Guesses per pass to try at temperature 0, integers >= 0, at least one. Default 1, 2, 3, 4, 8, 16, 32, 64. */
  readonly budgets?: readonly number[];
  /** Probability that a lossless strategy is reported as failed, in (0, 1). Default 0.001. */
  readonly falseAlarm?: number;
  /** Same seed, same report. Default 0. */
  readonly seed?: number | string;
  /**
   * Makes a table the target a strategy needs, with hidden states to tap, say. Sessions must be those of the table given,
   * dressed, and their logits the table's. Default: the table itself.
   */
  readonly dress?: (table: LanguageModel) => LanguageModel;
  /** Told of progress: units done, units in all, and what is being checked. */
  readonly onProgress?: (done: number, total: number, detail: string) => void;
  /** Aborting it rejects with its reason. */
  readonly signal?: AbortSignal;
}

/** Draws between two turns of other work. */
const helping = 500;

/**
 * Checks a strategy.
 * @param strategy builds it for a draft model and its vocabulary, of 4 or 8 ids; called for each pair of models, several
 *   times
 * @param options see `VerifyLosslessOptions`
 * @returns the report; a strategy that throws is reported, not thrown
 * @throws ArgumentError on options out of range; the signal's reason when it is aborted
 */
export async function verifyLossless(
  strategy: StrategyFactory,
  options: VerifyLosslessOptions = {},
): Promise<LosslessReport> {
  const proof = new Proof(strategy, options);
  const checks: LosslessCheck[] = [];
  for (const pair of Object.keys(tablePairs) as TablePair[]) {
    checks.push(await proof.greedy(pair));
    await proof.sampled(pair);
  }
  for (const lawCase of lawCases) checks.push(await proof.law(lawCase));
  checks.push(...proof.contracts());
  const { drafted, accepted, draws, falseAlarm, seed } = proof;
  const passed = checks.every((check) => check.passed);
  const kind = !passed ? "failed" : drafted === 0 ? "never guessed" : "lossless";
  options.onProgress?.(proof.total, proof.total, "done");
  const report = { kind, checks, drafted, accepted, draws, falseAlarm, seed } as const;
  return { ...report, text: textOf(report) };
}

/** A verification under way. */
class Proof {
  readonly draws: number;
  readonly falseAlarm: number;
  readonly seed: number | string;
  /** Units of progress. */
  readonly total: number;
  /** Over all generations so far. */
  drafted = 0;
  accepted = 0;
  readonly #strategy: StrategyFactory;
  readonly #options: VerifyLosslessOptions;
  readonly #budgets: readonly number[];
  readonly #broken = new Map<ContractRule, { violations: number; first: string }>();
  #done = 0;

  constructor(strategy: StrategyFactory, options: VerifyLosslessOptions) {
    const { draws = 5_000, budgets = [1, 2, 3, 4, 8, 16, 32, 64], falseAlarm = 0.001, seed = 0 } = options;
    if (!(Number.isSafeInteger(draws) && draws >= 1)) throw new ArgumentError("draws", "an integer >= 1", draws);
    if (!(falseAlarm > 0 && falseAlarm < 1)) throw new ArgumentError("falseAlarm", "a number in (0, 1)", falseAlarm);
    if (budgets.length === 0) throw new ArgumentError("budgets", "at least one", budgets);
    for (const budget of budgets) {
      if (!(Number.isSafeInteger(budget) && budget >= 0)) throw new ArgumentError("budgets", "integers >= 0", budget);
    }
    // Every seed is made from this one, as text: what is no seed must be refused here.
    new Random(seed);
    this.#strategy = strategy;
    this.#options = options;
    this.#budgets = budgets;
    this.draws = draws;
    this.falseAlarm = falseAlarm;
    this.seed = seed;
    this.total = Object.keys(tablePairs).length * (budgets.length + 1) + lawCases.length * Math.ceil(draws / helping);
  }

  /** Temperature 0, all budgets and prompts. */
  async greedy(pair: TablePair): Promise<GreedyCheck> {
    const { target, watch } = this.#watch(pair);
    const check = { runs: 0, tokens: 0, passes: 0 };
    let mismatch: GreedyCheck["mismatch"] = null;
    for (const budget of this.#budgets) {
      await this.#pause(`greedy, ${pair}, budget ${budget}`);
      for (const { prompt, ...limits } of greedyCases(target, this.seed)) {
        const report = this.#attempt(() => watch?.generate(prompt, { ...limits, budget }).finish());
        const got = report?.tokens ?? [];
        const expected = greedyTokens(target, prompt, limits);
        if (got.join() !== expected.join()) mismatch ??= { prompt, budget, expected, got };
        check.runs += 1;
        check.tokens += got.length;
        check.passes += report?.targetPasses ?? 0;
        this.#count(report);
      }
    }
    return { kind: "greedy", passed: mismatch === null, pair, ...check, mismatch };
  }

  /** Watched generations with chance in them, twice: the same seeds give the same steps. */
  async sampled(pair: TablePair): Promise<void> {
    await this.#pause(`contract, ${pair}`);
    const [steps, again] = [0, 1].map(() => {
      const { target, watch } = this.#watch(pair);
      return sampledCases(target, this.seed).map(({ prompt, ...options }) => {
        const generation = this.#attempt(() => watch?.generate(prompt, options));
        this.#count(generation?.finish());
        return generation?.steps.map(({ tokens, draft }) => [
          tokens,
          Array.from(draft.tokens),
          Array.from(draft.parents),
        ]);
      });
    });
    if (JSON.stringify(steps) !== JSON.stringify(again)) this.#note("seed", `${pair}: a second run took other steps`);
  }

  /** The joint law, and that of the guesses. */
  async law([pair, sampling, budget, maxTokens]: (typeof lawCases)[number]): Promise<LawCheck> {
    const { target, draft } = makePair(pair, 4, this.seed);
    const { dress } = this.#options;
    const name = `${pair}, ${samplingName(sampling)}, budget ${budget}, ${maxTokens} tokens`;
    let error: string | null = null;
    const failed = (message: string) => {
      error = message;
    };
    const law = this.#attempt(() => {
      const { drafter = plainDecoding, verifier } = this.#strategy(draft);
      return new JointLaw(target, promptOf(target, this.seed), {
        ...sampling,
        ...(verifier && { verifier }),
        ...(dress && { model: dress(target) }),
        drafter: limitGuesses(drafter, budget),
        tokens: jointTokens,
        maxTokens,
        seed: `${this.seed} ${name}`,
      });
    }, failed);
    for (let drawn = 0; drawn < this.draws; drawn += helping) {
      await this.#pause(`law, ${name}`);
      if (error === null) this.#attempt(() => law?.draw(Math.min(helping, this.draws - drawn)), failed);
    }
    const fit = error === null && law !== undefined ? law.fit : null;
    if (fit !== null) this.#count(fit);
    const level = this.falseAlarm / (2 * lawCases.length);
    const degrees = Math.max(1, fit?.degrees ?? 1);
    const limit = chiSquarePoint(level, degrees);
    const passed = fit !== null && fit.pValue >= level && (fit.proposal === null || fit.proposal.pValue >= level);
    const detectable = detectableVariation(limit, degrees, this.draws);
    return { kind: "law", passed, pair, sampling, budget, maxTokens, fit, limit, level, detectable, error };
  }

  /** What was noted while all of that ran. */
  contracts(): ContractCheck[] {
    return (Object.keys(contractRules) as ContractRule[]).map((rule) => {
      const { violations, first } = this.#broken.get(rule) ?? { violations: 0, first: null };
      return { kind: "contract", passed: violations === 0, rule, violations, first };
    });
  }

  #watch(pair: TablePair) {
    const { target, draft } = makePair(pair, 8, this.seed);
    const note = this.#note.bind(this);
    return { target, watch: this.#attempt(() => new Watch(target, draft, this.#strategy, note, this.#options.dress)) };
  }

  #note(rule: ContractRule, violation: string): void {
    const known = this.#broken.get(rule);
    if (known === undefined) this.#broken.set(rule, { violations: 1, first: violation });
    else known.violations += 1;
  }

  /** What `work` returns; undefined where it throws, which is noted. */
  #attempt<T>(work: () => T, failed?: (message: string) => void): T | undefined {
    try {
      return work();
    } catch (error) {
      this.#note(ruleOf(error), messageOf(error));
      failed?.(messageOf(error));
      return undefined;
    }
  }

  #count(report: { readonly drafted: number; readonly accepted: number } | undefined): void {
    this.drafted += report?.drafted ?? 0;
    this.accepted += report?.accepted ?? 0;
  }

  /** Says how far it is, and lets other work of the process have its turn. */
  async #pause(detail: string): Promise<void> {
    const { signal, onProgress } = this.#options;
    signal?.throwIfAborted();
    onProgress?.(this.#done, this.total, detail);
    this.#done += 1;
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

/** See "detectable" above. */
function detectableVariation(limit: number, degrees: number, draws: number): number {
  const z = 2.326;
  const excess = limit - degrees;
  const b = excess + 2 * z * z;
  const noncentrality = b + Math.sqrt(b * b - excess * excess + 2 * z * z * degrees);
  return Math.min(1, Math.sqrt(noncentrality / (4 * draws)));
}
