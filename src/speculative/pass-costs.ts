/**
 * What a pass over n nodes costs on this machine, in passes over one: what decides whether guesses pay.
 *
 * On a GPU, and wherever weights have to be fetched for every pass, the curve is nearly flat: sixteen nodes cost hardly
 * more than one. On a processor whose cache holds the weights it is nearly a line: sixteen nodes are sixteen times the
 * arithmetic. The same draft wins on the one and loses on the other.
 *
 * Worked example: sizes [1, 2, 8], costs [1, 1.5, 4.5]: 5 nodes cost 1.5 + 3 / 6 * 3 = 3, and 10 nodes 5.5.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Drafter } from "./drafter.ts";
import { generate } from "./generate.ts";
import type { Verifier } from "./verifier.ts";
import { limitGuesses } from "./watched-generation.ts";

/** A curve through measured points. */
export interface PassCosts {
  /** Growing numbers of nodes, the first one 1. */
  readonly nodes: readonly number[];
  /** Cost of a pass over as many, in passes over one node; the first is 1, and they never fall. */
  readonly costs: readonly number[];
}

/** Every size costs the same, as on hardware that waits for memory: then tokens per pass are all that counts. */
export const flatPassCosts: PassCosts = { nodes: [1], costs: [1] };

/** Cost of a pass over `nodes` nodes: between measured sizes on the line through them, beyond the last on its continuation. */
export function passCost({ nodes: sizes, costs }: PassCosts, nodes: number): number {
  if (sizes.length < 2) return costs[0]!;
  let i = 1;
  while (i < sizes.length - 1 && sizes[i]! < nodes) i++;
  const slope = (costs[i]! - costs[i - 1]!) / (sizes[i]! - sizes[i - 1]!);
  return costs[i - 1]! + slope * (nodes - sizes[i - 1]!);
}

export interface MeasureOptions {
  /** Numbers of nodes to measure; 1 is measured in any case. Default 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, as the context allows. */
  readonly sizes?: readonly number[];
  /** Committed tokens the passes stand behind. Default half of what the context leaves, at most 256. */
  readonly context?: number;
  /**
   * Seconds to measure for, after half as many in which the runtime compiles what it runs. Sizes take turns of a few
   * milliseconds, and the least of a size counts: the others only add what else the machine did. Default 0.5.
   */
  readonly seconds?: number;
  /** Milliseconds since some moment. Default `performance.now`. */
  readonly clock?: () => number;
}

const turnMilliseconds = 3;

/**
 * Measure a model.
 * @throws ArgumentError on seconds that are no number > 0; on sizes that are no integers >= 1, or do not fit the context behind `context` tokens
 */
export function measurePassCosts(model: LanguageModel, options: MeasureOptions = {}): PassCosts {
  const { seconds = 0.5, clock = () => performance.now() } = options;
  if (!(Number.isFinite(seconds) && seconds > 0)) throw new ArgumentError("seconds", "a number > 0", seconds);
  const fitting = [1, 2, 3, 4, 6, 8, 12, 16, 32, 64].filter((size) => size <= model.contextLength / 2);
  const sizes = [...new Set([1, ...(options.sizes ?? fitting)])].sort((a, b) => a - b);
  const largest = sizes.at(-1)!;
  const context = options.context ?? Math.min(256, Math.floor((model.contextLength - largest) / 2));
  for (const size of sizes) {
    if (!(Number.isSafeInteger(size) && size >= 1 && context + size <= model.contextLength)) {
      const room = model.contextLength - context;
      throw new ArgumentError("sizes", `integers from 1 to ${room}, behind ${context} tokens`, size);
    }
  }
  const least = leastMilliseconds(model, sizes, context, seconds, clock);
  return { nodes: sizes, costs: least.map((time) => time / least[0]!) };
}

/** The least time of a pass over each number of nodes, behind `context` tokens. */
function leastMilliseconds(
  model: LanguageModel,
  sizes: readonly number[],
  context: number,
  seconds: number,
  clock: () => number,
): number[] {
  const session = model.openSession();
  try {
    const token = (i: number): number => i % model.vocabularySize;
    if (context > 0)
      session.extend(
        Array.from({ length: context }, (_, i) => token(i)),
        { logits: "none" },
      );
    const trees = sizes.map((size) => ({
      tokens: Array.from({ length: size }, (_, i) => token(i)),
      parents: Array.from({ length: size }, (_, i) => i - 1),
    }));
    const least = sizes.map(() => Number.POSITIVE_INFINITY);
    const begin = clock();
    const counted = begin + 500 * seconds;
    for (let turn = 0; turn < 2 || clock() < counted + 1000 * seconds; turn++) {
      // Small passes get as much time as large ones: the code they run is compiled by use as well.
      trees.forEach((tree, i) => {
        const end = clock() + turnMilliseconds;
        for (let start = clock(); start < end; ) {
          session.score(tree);
          const now = clock();
          if (start >= counted || turn > 0) least[i] = Math.min(least[i]!, now - start);
          start = now;
        }
      });
    }
    // More nodes are never less work, so a size that only ever met a busy machine is corrected by the larger ones.
    for (let i = least.length - 2; i >= 0; i--) least[i] = Math.min(least[i]!, least[i + 1]!);
    return least;
  } finally {
    session.close();
  }
}

/** What a drafter's own work costs, in target passes over one node. */
export interface DraftingCosts {
  readonly perStep: number;
  readonly perGuess: number;
}

/**
 * Measure what drafting costs on some prompts: time spent in the drafter, with a few guesses a step and with many, over
 * the time of a target pass over one node. The smallest of several turns counts.
 * @throws ArgumentError when there is no prompt
 */
export function measureDrafting(
  model: LanguageModel,
  drafter: Drafter,
  prompts: readonly ArrayLike<number>[],
  { clock = () => performance.now(), onePass, ...options }: MeasureDraftingOptions = {},
): DraftingCosts {
  const { maxTokens = 24, turns = 3, verifier } = options;
  if (prompts.length === 0) throw new ArgumentError("prompts", "at least one", []);
  const unit = onePass ?? leastMilliseconds(model, [1], Math.floor(model.contextLength / 4), 0.05, clock)[0]!;
  const least = [2, 12].map((guesses) => {
    let best: Drafted = { milliseconds: Number.POSITIVE_INFINITY, steps: 1, guesses: 0 };
    for (let turn = 0; turn < turns; turn++) {
      const drafted = { milliseconds: 0, steps: 0, guesses: 0 };
      drafter.reset();
      const timed = timing(limitGuesses(drafter, guesses), clock, drafted);
      for (const prompt of prompts) {
        const generation = generate(model, prompt, { maxTokens, drafter: timed, ...(verifier && { verifier }) });
        while (generation.step() !== undefined);
      }
      if (drafted.milliseconds < best.milliseconds) best = drafted;
    }
    return best;
  });
  drafter.reset();
  const [few, many] = least.map(({ milliseconds, steps, guesses }) => ({
    perStep: milliseconds / steps / unit,
    guesses: guesses / steps,
  })) as [PerStep, PerStep];
  // A line through the two; drafters that hardly guess more when they may have no slope.
  const difference = many.guesses - few.guesses;
  const perGuess = difference > 0.5 ? Math.max(0, (many.perStep - few.perStep) / difference) : 0;
  return { perStep: Math.max(0, few.perStep - perGuess * few.guesses), perGuess };
}

export interface MeasureDraftingOptions {
  /** Tokens to generate after each prompt. Default 24. */
  readonly maxTokens?: number;
  /** Times everything is measured. Default 3. */
  readonly turns?: number;
  /** Milliseconds of a target pass over one node. Default: measured. */
  readonly onePass?: number;
  /** Default: as in `generate`. */
  readonly verifier?: Verifier;
  /** Milliseconds since some moment. Default `performance.now`. */
  readonly clock?: () => number;
}

interface Drafted {
  milliseconds: number;
  steps: number;
  guesses: number;
}

interface PerStep {
  readonly perStep: number;
  readonly guesses: number;
}

/** The same drafter, adding to `drafted` what it does and how long that takes. */
function timing(drafter: Drafter, clock: () => number, drafted: Drafted): Drafter {
  const timed = <T>(work: () => T): T => {
    const start = clock();
    const result = work();
    drafted.milliseconds += clock() - start;
    return result;
  };
  return {
    ...drafter,
    open(start) {
      const drafting = drafter.open(start);
      return {
        get cost() {
          return drafting.cost;
        },
        propose(context) {
          const draft = timed(() => drafting.propose(context));
          drafted.steps++;
          drafted.guesses += draft.tokens.length - 1;
          return draft;
        },
        observe: (pass) => timed(() => drafting.observe(pass)),
        close: () => drafting.close(),
      };
    },
  };
}
