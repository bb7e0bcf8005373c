/**
 * Models of bytes: the one contract of single models and of ensembles, whatever their tokens.
 *
 *     session.start(bytes)                  begin anew behind a text, cut anywhere
 *     loop:
 *       session.next()                      a law over 256 bytes and the end of the text
 *       session.push(byte)
 *
 * Temperature and top-p act on this law, after the sum over tokens. A temperature on bytes is not one on tokens: neither is a
 * mistake, but they differ.
 *
 * An ensemble averages the laws and gives each byte drawn to all its members: models of different vocabularies agree on bytes.
 *
 * Worked example: laws [.5, .5, 0] and [.3, .3, .4], evenly weighted, are [.4, .4, .2].
 */
import { ArgumentError } from "../errors.ts";
import { addCosts, type Cost } from "../model/language-model.ts";
import { type SamplingOptions, tokenLaw } from "../speculative/sampling.ts";
import { Random } from "../tensor/random.ts";

/** The outcome behind the 256 bytes: the text ends here. */
export const END_OF_TEXT = 256;
/** Entries of a law: 256 bytes and the end of the text. */
export const BYTE_OUTCOMES = 257;

/** What a session of bytes has cost. `passes` is the number of model calls. */
export interface ByteCost extends Cost {
  /** Bytes pushed, those of prompts left out. */
  readonly bytes: number;
  /** Encodings carried from byte to byte, summed over bytes. */
  readonly covers: number;
  /** Answers of the validity test that had to be worked out. */
  readonly tested: number;
}

/** One text, byte by byte. */
export interface ByteSession {
  /** Totals since the session was opened. */
  readonly cost: ByteCost;
  /** Log-probability of the bytes pushed since `start`, given the prompt. */
  readonly logProbability: number;
  /**
   * Forget everything and begin behind a prompt. A new session stands behind the empty one.
   * @throws ArgumentError where no text begins with these bytes, or all their encodings have probability 0 (what they share
   * is taken as given and not looked at)
   * @throws ContextOverflowError where the prompt does not fit
   */
  start(prompt: Uint8Array): void;
  /** Probabilities of the next byte, [257], the last one of the text's end; they sum to 1. Read, do not write. */
  next(): Float64Array;
  /**
   * Go on by a byte, or end the text.
   * @throws ArgumentError on an outcome of probability 0, or behind the end
   */
  push(outcome: number): void;
  /** Give the memory back. */
  close(): void;
}

export interface ByteModel {
  openSession(): ByteSession;
}

/** Sums costs, field by field. */
export function addByteCosts(...costs: readonly ByteCost[]): ByteCost {
  const sum = { bytes: 0, covers: 0, tested: 0 };
  for (const cost of costs) {
    sum.bytes += cost.bytes;
    sum.covers += cost.covers;
    sum.tested += cost.tested;
  }
  return { ...addCosts(...costs), ...sum };
}

/**
 * Several models as one: the weighted mean of their laws. A member that gives a byte probability 0 has no opinion on texts
 * that go on with it and is left out until the next `start`.
 * @param models any mix of vocabularies, at least one
 * @param options `weights`: one positive number per model; default: even
 */
export function byteEnsemble(
  models: readonly ByteModel[],
  options: { readonly weights?: readonly number[] } = {},
): ByteModel {
  const weights = options.weights ?? models.map(() => 1);
  if (models.length === 0) throw new ArgumentError("models", "at least one model", []);
  if (weights.length !== models.length || !weights.every((w) => w > 0 && w < Number.POSITIVE_INFINITY)) {
    throw new ArgumentError("options.weights", `${models.length} positive numbers`, weights);
  }
  return {
    openSession: () =>
      new EnsembleSession(
        models.map((model) => model.openSession()),
        weights,
      ),
  };
}

class EnsembleSession implements ByteSession {
  readonly #sessions: readonly ByteSession[];
  readonly #weights: readonly number[];
  #active: number[];
  #logProbability = 0;
  #law: Float64Array | undefined;
  #bytes = 0;

  constructor(sessions: readonly ByteSession[], weights: readonly number[]) {
    this.#sessions = sessions;
    this.#weights = weights;
    this.#active = sessions.map((_, i) => i);
  }

  get cost(): ByteCost {
    return { ...addByteCosts(...this.#sessions.map((session) => session.cost)), bytes: this.#bytes };
  }

  get logProbability(): number {
    return this.#logProbability;
  }

  start(prompt: Uint8Array): void {
    for (const session of this.#sessions) session.start(prompt);
    this.#active = this.#sessions.map((_, i) => i);
    this.#logProbability = 0;
    this.#law = undefined;
  }

  next(): Float64Array {
    if (this.#law !== undefined) return this.#law;
    const law = new Float64Array(BYTE_OUTCOMES);
    const sum = this.#active.reduce((total, i) => total + this.#weights[i]!, 0);
    for (const i of this.#active) {
      const own = this.#sessions[i]!.next();
      const weight = this.#weights[i]! / sum;
      for (let outcome = 0; outcome < BYTE_OUTCOMES; outcome++) law[outcome]! += weight * own[outcome]!;
    }
    this.#law = law;
    return law;
  }

  push(outcome: number): void {
    const probability = requirePossible(this.next(), outcome);
    this.#active = this.#active.filter((i) => this.#sessions[i]!.next()[outcome]! > 0);
    for (const i of this.#active) this.#sessions[i]!.push(outcome);
    this.#logProbability += Math.log(probability);
    this.#law = undefined;
    if (outcome !== END_OF_TEXT) this.#bytes++;
  }

  close(): void {
    for (const session of this.#sessions) session.close();
  }
}

/**
 * The probability of an outcome.
 * @throws ArgumentError where it is 0 or there is no such outcome
 */
export function requirePossible(law: Float64Array, outcome: number): number {
  const probability = law[outcome];
  if (probability === undefined) throw new ArgumentError("outcome", "a byte, or 256 for the end of the text", outcome);
  if (!(probability > 0)) throw new ArgumentError("outcome", "a byte of positive probability", outcome);
  return probability;
}

/**
 * Log-probability of a text under a model of bytes, given a prompt; -Infinity where the model excludes it.
 * @param options `prompt`: default empty; `ended`: the text ends behind it, default false
 */
export function byteLogProbability(
  model: ByteModel,
  bytes: Uint8Array,
  options: { readonly prompt?: Uint8Array; readonly ended?: boolean } = {},
): number {
  const session = model.openSession();
  try {
    if (options.prompt !== undefined) session.start(options.prompt);
    for (const outcome of options.ended === true ? [...bytes, END_OF_TEXT] : bytes) {
      if (!(session.next()[outcome]! > 0)) return Number.NEGATIVE_INFINITY;
      session.push(outcome);
    }
    return session.logProbability;
  } finally {
    session.close();
  }
}

/** Temperature, top-k and top-p hold for the law over bytes. */
export interface ByteGenerationOptions extends SamplingOptions {
  /** Most bytes to generate, an integer >= 1. */
  readonly maxBytes: number;
  /** Same seed, same bytes. Default 0. */
  readonly seed?: number | string;
  /** The text is complete when it ends with one of these: what follows the gap, for filling in. Default none. */
  readonly stop?: readonly Uint8Array[];
}

export interface ByteGeneration {
  /** What was generated, the stop it ended with included. */
  readonly bytes: Uint8Array;
  readonly finish: "length" | "stop" | "end of text";
  /** Under the model's own law, temperature 1. */
  readonly logProbability: number;
  readonly cost: ByteCost;
}

/**
 * Generate bytes behind a prompt that may end anywhere, inside a token or a character too.
 * @throws ArgumentError on options out of range or a prompt that begins no text
 */
export function generateBytes(model: ByteModel, prompt: Uint8Array, options: ByteGenerationOptions): ByteGeneration {
  const { maxBytes, stop = [], seed = 0 } = options;
  if (!(Number.isSafeInteger(maxBytes) && maxBytes >= 1)) {
    throw new ArgumentError("options.maxBytes", "an integer >= 1", maxBytes);
  }
  for (const ending of stop)
    if (ending.length === 0) throw new ArgumentError("options.stop", "endings of a byte or more", []);
  const random = new Random(seed);
  const session = model.openSession();
  try {
    session.start(prompt);
    const bytes: number[] = [];
    const finished = (finish: ByteGeneration["finish"]): ByteGeneration => ({
      bytes: Uint8Array.from(bytes),
      finish,
      logProbability: session.logProbability,
      cost: session.cost,
    });
    while (bytes.length < maxBytes) {
      const outcome = random.categorical(tokenLaw(session.next().map(Math.log), options));
      session.push(outcome);
      if (outcome === END_OF_TEXT) return finished("end of text");
      bytes.push(outcome);
      if (stop.some((ending) => endsWith(bytes, ending))) return finished("stop");
    }
    return finished("length");
  } finally {
    session.close();
  }
}

function endsWith(bytes: readonly number[], ending: Uint8Array): boolean {
  const from = bytes.length - ending.length;
  return from >= 0 && ending.every((byte, i) => bytes[from + i] === byte);
}
