/**
 * Sampling: from a row of logits to the law the next token is drawn from, in double precision.
 *
 * Exact verification compares two laws, so both sides must build theirs with the same function from the same options.
 * Steps, in this order (the order Hugging Face transformers uses):
 *
 *     1. temperature   p_i = exp(logit_i / T) / sum_j exp(logit_j / T);   T = 0: all mass on the largest logit
 *     2. top-k         keep the k largest, renormalise                    (Fan et al., 1805.04833)
 *     3. top-p         keep the fewest largest whose mass reaches p, renormalise   (Holtzman et al., 1904.09751)
 *
 * Ties are settled by id: of equal logits the lower id is the larger. So top-k keeps exactly k, and T = 0 is one token.
 *
 * **Deviations**: transformers keeps every token that ties with the k-th, which makes k a lower bound.
 *
 * Worked example: logits ln [.5, .3, .2], topP .7 -> [.625, .375, 0]: .5 is not enough, .5 + .3 is.
 */
import { ArgumentError } from "../errors.ts";

export interface SamplingOptions {
  /** 0 takes the most probable token; 1 is the model's own law; finite, >= 0. Default 0. */
  readonly temperature?: number;
  /** Keep only the k most probable tokens; an integer >= 1, or Infinity for all. Default Infinity. */
  readonly topK?: number;
  /** Keep the fewest most probable tokens whose mass reaches this; in (0, 1]. Default 1, all. */
  readonly topP?: number;
}

/** Sampling options with every default filled in. */
export type Sampling = Required<SamplingOptions>;

/**
 * Checks sampling options and fills in the defaults.
 * @throws ArgumentError on a temperature below 0, a top-k below 1, a top-p outside (0, 1]
 */
export function resolveSampling(options: SamplingOptions = {}): Sampling {
  const { temperature = 0, topK = Number.POSITIVE_INFINITY, topP = 1 } = options;
  if (!(temperature >= 0 && temperature < Number.POSITIVE_INFINITY)) {
    throw new ArgumentError("temperature", "a finite number >= 0", temperature, "0 takes the most probable token.");
  }
  if (!(topK >= 1 && (Number.isInteger(topK) || topK === Number.POSITIVE_INFINITY))) {
    throw new ArgumentError("topK", "an integer >= 1", topK, "Leave it out to keep every token.");
  }
  if (!(topP > 0 && topP <= 1)) {
    throw new ArgumentError("topP", "a number in (0, 1]", topP, "1 keeps every token.");
  }
  return { temperature, topK, topP };
}

/**
 * The most probable token, of equal ones the lowest id: all that is left of the law at temperature 0.
 * @param logits [vocabularySize], finite or -Infinity
 * @throws ArgumentError on no logits, a NaN, a +Infinity, or -Infinity everywhere
 */
export function mostProbableToken(logits: ArrayLike<number>): number {
  let best = -1;
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i]!;
    if (!(logit < Number.POSITIVE_INFINITY)) {
      throw new ArgumentError(`logits[${i}]`, "a number below +Infinity", logit, "The model's weights may be damaged.");
    }
    if (logit > max) {
      max = logit;
      best = i;
    }
  }
  if (best < 0) throw new ArgumentError("logits", "at least one finite value", Array.from(logits));
  return best;
}

/**
 * The law of the next token.
 * @param logits [vocabularySize], finite or -Infinity (never drawn)
 * @returns probabilities, [vocabularySize], summing to 1 within rounding; a fresh array
 * @throws ArgumentError on options out of range, no logits, a NaN, a +Infinity, or -Infinity everywhere
 */
export function tokenLaw(logits: ArrayLike<number>, options: SamplingOptions = {}): Float64Array {
  const { temperature, topK, topP } = resolveSampling(options);
  const size = logits.length;
  const best = mostProbableToken(logits);
  const max = logits[best]!;
  const law = new Float64Array(size);
  if (temperature === 0) {
    law[best] = 1;
    return law;
  }
  let sum = 0;
  for (let i = 0; i < size; i++) {
    const weight = Math.exp((logits[i]! - max) / temperature);
    law[i] = weight;
    sum += weight;
  }
  if (topK < size || topP < 1) sum = keepLargest(logits, law, topK, topP);
  for (let i = 0; i < size; i++) law[i] = law[i]! / sum;
  return law;
}

/** Sets what top-k and top-p drop to zero; returns the sum of what stays. */
function keepLargest(logits: ArrayLike<number>, weights: Float64Array, topK: number, topP: number): number {
  // Ordered by logit, not by weight: weights that underflow to 0 still have an order.
  const order = Uint32Array.from(weights, (_, i) => i).sort((a, b) => logits[b]! - logits[a]! || a - b);
  const kept = Math.min(topK, order.length);
  let mass = 0;
  for (let rank = 0; rank < kept; rank++) mass += weights[order[rank]!]!;
  let sum = 0;
  for (let rank = 0; rank < order.length; rank++) {
    const i = order[rank]!;
    if (rank < kept && (topP === 1 || sum < topP * mass)) sum += weights[i]!;
    else weights[i] = 0;
  }
  return sum;
}
