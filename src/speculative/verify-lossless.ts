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
 * and fails law checks: `chi-square 1598.3, 55 degrees of freedom, limit 107.1`.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { TableModel } from "../model/table-model.ts";
import { Random } from "../tensor/random.ts";
import { chiSquarePoint } from "./chi-square.ts";
import type { JointLawFit } from "./joint-law.ts";
import { JointLaw } from "./joint-law.ts";
import { plainDecoding } from "./plain-decoding.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { ContractRule, Note, StrategyFactory, WatchedOptions } from "./watched-generation.ts";
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

/** Temperature 0 against the table's arg-max, all budgets and prompts of one pair. */
export interface GreedyCheck {
  readonly kind: "greedy";
  readonly passed: boolean;
  /** Which target and draft. */
  readonly pair: PairName;
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
  readonly pair: PairName;
  readonly sampling: SamplingOptions;
  /** Most guesses per pass, and most tokens per generation. */
  readonly budget: number;
  readonly maxTokens: number;
  /** The statistics; null when an error ended the draws. */
  readonly fit: JointLawFit | null;
  /** What `fit.chiSquare` must stay below, and `fit.proposal.pValue` above. */
  readonly limit: number;
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

/** Target and draft tables, and how they are to each other. */
const pairNames = {
  unlike: "draft and target have nothing to do with each other",
  kindred: "the draft is the target's law mixed with a stranger's",
  equal: "the draft is the target",
  disjoint: "the draft says only what the target never says",
  overlapping: "each says something the other never says",
  tied: "several tokens are the target's most probable",
  short: "the draft model's context ends before the target's",
} as const;
export type PairName = keyof typeof pairNames;

/** Law checks: which pair, how it is sampled, guesses per pass, tokens a generation may have. */
const laws: readonly (readonly [PairName, SamplingOptions, budget: number, maxTokens: number])[] = [
  ["unlike", { temperature: 1 }, 16, 12],
  // As many tokens as are looked at: the one after a full path is among them.
  ["unlike", { temperature: 1 }, 16, 3],
  ["unlike", { temperature: 1 }, 1, 12],
  ["unlike", { temperature: 1 }, 2, 12],
  ["unlike", { temperature: 0.6 }, 16, 12],
  ["unlike", { temperature: 1, topK: 3 }, 6, 12],
  ["unlike", { temperature: 1, topP: 0.8 }, 6, 12],
  ["kindred", { temperature: 1 }, 16, 12],
  ["kindred", { temperature: 0.6, topK: 3, topP: 0.95 }, 5, 3],
  ["equal", { temperature: 1 }, 16, 12],
  ["equal", { temperature: 0.6 }, 3, 3],
  ["disjoint", { temperature: 1 }, 8, 12],
  ["disjoint", { temperature: 0.6 }, 2, 12],
  ["overlapping", { temperature: 1 }, 16, 12],
  ["overlapping", { temperature: 0.6 }, 4, 3],
];
/** Tokens looked at together: with 4 ids, 64 continuations. */
const jointTokens = 3;
const contextLength = 128;
const longPrompt = 24;
/** Draws between two turns of other work. */
const helping = 500;

/**
 * Checks a strategy.
 * @param strategy builds it for a draft model, the target's vocabulary; called for each pair of models, several times
 * @param options see `VerifyLosslessOptions`
 * @returns the report; a strategy that throws is reported, not thrown
 * @throws ArgumentError on options out of range; the signal's reason when it is aborted
 */
export async function verifyLossless(
  strategy: StrategyFactory,
  options: VerifyLosslessOptions = {},
): Promise<LosslessReport> {
  const { draws = 5_000, budgets = [1, 2, 3, 4, 8, 16, 32, 64], falseAlarm = 0.001, seed = 0, dress } = options;
  if (!(Number.isSafeInteger(draws) && draws >= 1)) throw new ArgumentError("draws", "an integer >= 1", draws);
  new Random(seed);
  if (!(falseAlarm > 0 && falseAlarm < 1)) throw new ArgumentError("falseAlarm", "a number in (0, 1)", falseAlarm);
  if (budgets.length === 0) throw new ArgumentError("budgets", "at least one", budgets);
  for (const budget of budgets) {
    if (!(Number.isSafeInteger(budget) && budget >= 0)) throw new ArgumentError("budgets", "integers >= 0", budget);
  }
  const pairs = Object.keys(pairNames) as PairName[];
  const total = pairs.length * (budgets.length + 1) + laws.length * Math.ceil(draws / helping);
  let done = 0;
  /** Says how far it is, and lets other work of the process have its turn. */
  const pause = async (detail: string) => {
    options.signal?.throwIfAborted();
    options.onProgress?.(done, total, detail);
    done += 1;
    await new Promise((resolve) => setTimeout(resolve, 0));
  };

  const broken = new Map<ContractRule, { violations: number; first: string }>();
  const note: Note = (rule, violation) => {
    const known = broken.get(rule);
    if (known === undefined) broken.set(rule, { violations: 1, first: violation });
    else known.violations += 1;
  };
  const checks: LosslessCheck[] = [];
  const guesses = { drafted: 0, accepted: 0 };
  const count = ({ drafted, accepted }: { readonly drafted: number; readonly accepted: number }) => {
    guesses.drafted += drafted;
    guesses.accepted += accepted;
  };

  for (const pair of pairs) {
    const tables = makePair(pair, 8, seed);
    const check = { runs: 0, tokens: 0, passes: 0, mismatch: null as GreedyCheck["mismatch"] };
    const watch = attempt(note, () => new Watch(tables.target, tables.draft, strategy, note, dress));
    for (const budget of budgets) {
      await pause(`greedy, ${pair}, budget ${budget}`);
      for (const { prompt, ...limits } of greedyRuns(tables.target, seed)) {
        const report = attempt(note, () => watch?.generate(prompt, { ...limits, budget }).finish());
        const got = report?.tokens ?? [];
        const expected = greedyTokens(tables.target, prompt, limits);
        if (got.join() !== expected.join()) check.mismatch ??= { prompt, budget, expected, got };
        check.runs += 1;
        check.tokens += got.length;
        check.passes += report?.targetPasses ?? 0;
        if (report !== undefined) count(report);
      }
    }
    checks.push({ kind: "greedy", passed: check.mismatch === null, pair, ...check });

    await pause(`contract, ${pair}`);
    const [steps, again] = [0, 1].map(() =>
      attempt(note, () => {
        const fresh = new Watch(tables.target, tables.draft, strategy, note, dress);
        return sampledRuns(tables.target, seed).map(({ prompt, ...options }) => {
          const generation = fresh.generate(prompt, options);
          count(generation.finish());
          return generation.steps.map(({ tokens, draft }) => [
            tokens,
            Array.from(draft.tokens),
            Array.from(draft.parents),
          ]);
        });
      }),
    );
    if (JSON.stringify(steps) !== JSON.stringify(again)) note("seed", `${pair}: a second run took other steps`);
  }

  const level = falseAlarm / (2 * laws.length);
  for (const [pair, sampling, budget, maxTokens] of laws) {
    const { target, draft } = makePair(pair, 4, seed);
    const prompt = promptOf(target, seed);
    let fit: JointLawFit | null = null;
    let error: string | null = null;
    try {
      const { drafter = plainDecoding, verifier } = strategy(draft);
      const law = new JointLaw(target, prompt, {
        ...sampling,
        ...(verifier && { verifier }),
        ...(dress && { model: dress(target) }),
        drafter: limitGuesses(drafter, budget),
        tokens: jointTokens,
        maxTokens,
        seed: `${seed} ${checks.length}`,
      });
      for (let drawn = 0; drawn < draws; drawn += helping) {
        await pause(`law, ${pair}, ${samplingName(sampling)}, budget ${budget}`);
        law.draw(Math.min(helping, draws - drawn));
      }
      fit = law.fit;
      count(fit);
    } catch (thrown) {
      options.signal?.throwIfAborted();
      error = messageOf(thrown);
      note(ruleOf(thrown), error);
    }
    const degrees = Math.max(1, fit?.degrees ?? 1);
    const limit = chiSquarePoint(level, degrees);
    const passed = fit !== null && fit.pValue >= level && (fit.proposal === null || fit.proposal.pValue >= level);
    const detectable = detectableVariation(limit, degrees, draws);
    checks.push({ kind: "law", passed, pair, sampling, budget, maxTokens, fit, limit, level, detectable, error });
  }

  for (const rule of Object.keys(contractRules) as ContractRule[]) {
    const { violations, first } = broken.get(rule) ?? { violations: 0, first: null };
    checks.push({ kind: "contract", passed: violations === 0, rule, violations, first });
  }
  const passed = checks.every((check) => check.passed);
  const kind = !passed ? "failed" : guesses.drafted === 0 ? "never guessed" : "lossless";
  options.onProgress?.(total, total, "done");
  const report = { kind, checks, ...guesses, draws, falseAlarm, seed } as const;
  return { ...report, text: textOf(report) };
}

/** What `work` returns; undefined where it throws, which is noted. */
function attempt<T>(note: Note, work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    note(ruleOf(error), messageOf(error));
    return undefined;
  }
}

/** Two tables of one vocabulary. */
function makePair(pair: PairName, vocabularySize: number, seed: number | string) {
  const sizes = { vocabularySize, contextLength };
  const random = (label: string, order: number) => TableModel.random({ ...sizes, order, seed: `${seed} ${label}` });
  const target = random("target", 2);
  const stranger = random("stranger", 1);
  /** The table's law with some tokens taken out. */
  const without = (table: TableModel, removed: (token: number, last: number) => boolean) =>
    new TableModel({
      ...sizes,
      order: 2,
      law: (context) => table.law(context).map((p, token) => (removed(token, context.at(-1) ?? 0) ? 0 : p)),
    });
  /** Laws of small whole weights: ties are many, and exact. */
  const tied = (label: string) => {
    const weights = new Random(`${seed} ${label}`);
    return new TableModel({
      ...sizes,
      order: 2,
      law: (context) => {
        const stream = weights.fork(context.join());
        return Array.from({ length: vocabularySize }, () => 1 + stream.integer(3));
      },
    });
  };
  const makers: Record<PairName, () => { readonly target: TableModel; readonly draft: TableModel }> = {
    unlike: () => ({ target, draft: stranger }),
    kindred: () => ({
      target,
      draft: new TableModel({
        ...sizes,
        order: 2,
        law: (context) => target.law(context).map((p, token) => 0.6 * p + 0.4 * stranger.law(context)[token]!),
      }),
    }),
    equal: () => ({ target, draft: target }),
    disjoint: () => ({
      target: without(target, (token) => token >= vocabularySize / 2),
      draft: without(stranger, (token) => token < vocabularySize / 2),
    }),
    overlapping: () => ({
      target: without(target, (token, last) => token === (last + 1) % vocabularySize),
      draft: without(stranger, (token, last) => token === (last + 2) % vocabularySize),
    }),
    tied: () => ({ target: tied("target"), draft: tied("stranger") }),
    short: () => ({
      target,
      draft: new TableModel({
        ...sizes,
        contextLength: contextLength / 2,
        order: 2,
        law: (context) => target.law(context),
      }),
    }),
  };
  return makers[pair]();
}

/** A text as the target writes it, so that drafters that look for repetitions find some. */
function promptOf(target: TableModel, seed: number | string, length = longPrompt): number[] {
  const random = new Random(`${seed} prompt`);
  const prompt: number[] = [];
  while (prompt.length < length) prompt.push(random.categorical(target.law(prompt)));
  return prompt;
}

type Run = WatchedOptions & { readonly prompt: readonly number[] };

/** From one token, to the end of the context, a few tokens, at its very end, to a stop token. Cuts change no arg-max. */
function greedyRuns(target: TableModel, seed: number | string): Run[] {
  const prompt = promptOf(target, seed);
  const stop = greedyTokens(target, prompt, { maxTokens: 9 }).at(-1)!;
  return [
    { prompt: prompt.slice(0, 1), maxTokens: 30, seed: 1 },
    { prompt, topK: 2, seed: 2 },
    { prompt, maxTokens: 3, topP: 0.5, seed: 3 },
    { prompt: promptOf(target, seed, contextLength - 2), seed: 4 },
    { prompt: promptOf(target, seed, contextLength), seed: 5 },
    { prompt, stopTokens: [stop], seed: 6 },
  ];
}

/** Generations with chance in them, short and long, some to a stop token. */
function sampledRuns(target: TableModel, seed: number | string): Run[] {
  const prompt = promptOf(target, seed);
  const samplings: SamplingOptions[] = [
    { temperature: 1 },
    { temperature: 0.6 },
    { temperature: 1, topK: 3, topP: 0.9 },
  ];
  return samplings.flatMap((sampling, i) => [
    { ...sampling, prompt, maxTokens: 40, seed: `${seed} ${i}`, budget: 16 },
    { ...sampling, prompt: prompt.slice(0, 2), maxTokens: 40, seed: `${seed} ${i}`, budget: 2, stopTokens: [i] },
  ]);
}

/** The oracle of temperature 0: looked up in the table, arg-max after arg-max, ties to the lower id. */
function greedyTokens(
  target: TableModel,
  prompt: readonly number[],
  { maxTokens = Number.POSITIVE_INFINITY, stopTokens = [] }: Pick<WatchedOptions, "maxTokens" | "stopTokens">,
): number[] {
  const text = prompt.slice();
  const stops = new Set(stopTokens);
  // The last token of a full context still says one more.
  while (text.length <= contextLength && text.length - prompt.length < maxTokens) {
    const logits = target.logits(text);
    const token = logits.indexOf(Math.max(...logits));
    text.push(token);
    if (stops.has(token)) break;
  }
  return text.slice(prompt.length);
}

/** See "detectable" above. */
function detectableVariation(limit: number, degrees: number, draws: number): number {
  const z = 2.326;
  const excess = limit - degrees;
  const b = excess + 2 * z * z;
  const noncentrality = b + Math.sqrt(b * b - excess * excess + 2 * z * z * degrees);
  return Math.min(1, Math.sqrt(noncentrality / (4 * draws)));
}

function samplingName({ temperature, topK, topP }: SamplingOptions): string {
  return `temperature ${temperature}${topK ? `, top-k ${topK}` : ""}${topP ? `, top-p ${topP}` : ""}`;
}

function textOf(report: Omit<LosslessReport, "text">): string {
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
    const line = `${mark}${pair}: ${runs} runs, ${tokens} tokens in ${passes} passes`;
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
