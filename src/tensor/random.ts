/**
 * Seeded randomness: one generator for initial weights, data order, sampling and tests.
 *
 * The generator is Baagøe's Alea (npm `seedrandom`): a lagged multiply-with-carry over three 32-bit fractions, period
 * about 2^116, computed with additions and multiplications alone. Everything derived from it here uses only the
 * operations IEEE 754 rounds exactly (+ - * / sqrt), the logarithm included, so a seed gives the same numbers, to the
 * last bit, on every engine and platform and on every tensor backend.
 *
 *     uniform      u = k / 2^53
 *     gumbel       g = -ln(-ln u)                        argmax(logits + g) is one draw from softmax(logits)
 *     normal       z = a * sqrt(-2 ln s / s),  s = a^2 + b^2 < 1   (Marsaglia's polar method, 1964)
 *     categorical  smallest i with w_0 + ... + w_i > u * sum(w)
 *     permutation  Fisher-Yates from the end
 *
 * **Deviations**: the polar method's second normal is thrown away, so that the state is the generator's and nothing else.
 *
 * Not for secrets. Worked example: `new Random(1).fork("data").permutation(4)` is the same whatever else `Random(1)` drew.
 */
import seedrandom from "seedrandom";
import { ArgumentError, FormatError } from "../errors.ts";

/** Everything a `Random` is, as plain JSON: `Random.fromState(JSON.parse(JSON.stringify(r.state())))` goes on exactly. */
export interface RandomState {
  /** The seed, then the labels of the forks that led here. */
  readonly path: readonly (number | string)[];
  /** Alea's carry, an integer in [0, 2091639]. */
  readonly c: number;
  /** Alea's three lags, multiples of 2^-32 in [0, 1). */
  readonly s0: number;
  readonly s1: number;
  readonly s2: number;
}

export class Random {
  #path: readonly (number | string)[];
  #next: seedrandom.StatefulPRNG<seedrandom.State.Alea>;

  /**
   * @param seed any finite number or any string; `1` and `"1"` are different seeds
   * @throws ArgumentError when the seed is NaN, infinite or of another type
   */
  constructor(seed: number | string) {
    if (typeof seed !== "string" && !Number.isFinite(seed)) {
      throw new ArgumentError("seed", "a finite number or a string", seed);
    }
    this.#path = [seed];
    this.#next = seedrandom.alea(keyOf(this.#path), { state: true });
  }

  /** A number in [0, 1), a multiple of 2^-53. */
  uniform(): number {
    return this.#next.double();
  }

  /** A draw from the standard normal law (mean 0, variance 1). */
  normal(): number {
    for (;;) {
      const a = 2 * this.uniform() - 1;
      const b = 2 * this.uniform() - 1;
      const s = a * a + b * b;
      if (s > 0 && s < 1) return a * Math.sqrt((-2 * ln(s)) / s);
    }
  }

  /** A draw from the standard Gumbel law (location 0, scale 1; mean 0.5772...). Always finite. */
  gumbel(): number {
    let u = this.uniform();
    while (u === 0) u = this.uniform();
    return -ln(-ln(u));
  }

  /**
   * An index drawn with probability proportional to its weight. Zero weights are never drawn.
   * @param weights non-negative and finite, [n]; they need not sum to 1
   * @throws ArgumentError on NaN, a negative or infinite weight, or when no weight is positive; nothing is drawn then
   */
  categorical(weights: ArrayLike<number>): number {
    let sum = 0;
    let last = -1;
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i]!;
      if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY)) {
        throw new ArgumentError(`weights[${i}]`, "a finite number >= 0", weight);
      }
      if (weight > 0) last = i;
      sum += weight;
    }
    if (last < 0) throw new ArgumentError("weights", "at least one positive weight", weights);
    if (sum === Number.POSITIVE_INFINITY) {
      throw new ArgumentError("weights", "a finite sum", sum, "Divide the weights by their maximum first.");
    }
    const threshold = this.uniform() * sum;
    let cumulative = 0;
    for (let i = 0; i < last; i++) {
      cumulative += weights[i]!;
      if (cumulative > threshold) return i;
    }
    return last;
  }

  /**
   * An integer in [0, n). Its probabilities differ from 1/n by less than 2^-53 each.
   * @param n an integer in [1, 2^32]
   */
  integer(n: number): number {
    if (!(Number.isInteger(n) && n >= 1 && n <= 2 ** 32)) {
      throw new ArgumentError("n", "an integer from 1 to 2^32", n);
    }
    return Math.floor(this.uniform() * n);
  }

  /**
   * The numbers 0 .. n - 1 in random order, [n].
   * @param n an integer in [0, 2^32 - 1]
   */
  permutation(n: number): Uint32Array {
    if (!(Number.isInteger(n) && n >= 0 && n < 2 ** 32)) {
      throw new ArgumentError("n", "an integer from 0 to 2^32 - 1", n);
    }
    const order = new Uint32Array(n);
    for (let i = 0; i < n; i++) order[i] = i;
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const swapped = order[i]!;
      order[i] = order[j]!;
      order[j] = swapped;
    }
    return order;
  }

  /**
   * An independent stream, determined by this one's seed and labels and by `label`, not by how much either has drawn:
   * adding a draw in one place changes nothing elsewhere. Forking twice with one label gives the same stream twice.
   */
  fork(label: string): Random {
    if (typeof label !== "string") throw new ArgumentError("label", "a string", label);
    const path = [...this.#path, label];
    return Random.#resume(path, seedrandom.alea(keyOf(path), { state: true }).state());
  }

  /** The exact state, as plain JSON. */
  state(): RandomState {
    const { c, s0, s1, s2 } = this.#next.state();
    return { path: this.#path, c, s0, s1, s2 };
  }

  /**
   * The generator that `state()` described; draws what that one would have drawn next, and forks alike.
   * @throws FormatError when the value is not such a state
   */
  static fromState(state: RandomState): Random {
    const path: unknown = state?.path;
    if (!Array.isArray(path) || path.length === 0 || !path.every((part, i) => isPathPart(part, i))) {
      throw new FormatError("random state", "path must hold a seed and then the labels of the forks, as strings");
    }
    const { c, s0, s1, s2 } = state;
    if (!(Number.isInteger(c) && c >= 0 && c <= 2091639)) {
      throw new FormatError("random state", `c must be an integer from 0 to 2091639`);
    }
    for (const [name, lag] of Object.entries({ s0, s1, s2 })) {
      if (!(typeof lag === "number" && lag >= 0 && lag < 1 && Number.isInteger(lag * 2 ** 32))) {
        throw new FormatError("random state", `${name} must be a multiple of 2^-32 in [0, 1)`);
      }
    }
    if (c === 0 && s0 === 0 && s1 === 0 && s2 === 0) {
      throw new FormatError("random state", "all lags are zero, a state the generator never leaves or reaches");
    }
    return Random.#resume([...path], { c, s0, s1, s2 });
  }

  static #resume(path: readonly (number | string)[], state: seedrandom.State.Alea): Random {
    const random = new Random("");
    random.#path = path;
    random.#next = seedrandom.alea("", { state });
    return random;
  }
}

function isPathPart(part: unknown, index: number): boolean {
  return typeof part === "string" || (index === 0 && typeof part === "number" && Number.isFinite(part));
}

/** JSON keeps the parts of a path apart, and the number 1 from the string "1". */
function keyOf(path: readonly (number | string)[]): string {
  return JSON.stringify(path);
}

const bits = new DataView(new ArrayBuffer(8));

/**
 * Natural logarithm of a positive normal double, within 2 units in the last place. `Math.log` may differ in the last
 * bit between engines; this does not. With x = 2^e m, m in [0.707, 1.414] and r = (m - 1) / (m + 1):
 * ln x = e ln 2 + 2 r (1 + r^2/3 + r^4/5 + ... + r^20/21); the terms left out are below 10^-18 of the sum.
 */
function ln(x: number): number {
  bits.setFloat64(0, x);
  const high = bits.getUint32(0);
  let exponent = (high >>> 20) - 1023;
  bits.setUint32(0, (high & 0xfffff) | 0x3ff00000);
  let mantissa = bits.getFloat64(0);
  if (mantissa > Math.SQRT2) {
    mantissa /= 2;
    exponent += 1;
  }
  const r = (mantissa - 1) / (mantissa + 1);
  const z = r * r;
  let series = 0;
  for (let divisor = 21; divisor >= 3; divisor -= 2) series = z * (1 / divisor + series);
  return exponent * Math.LN2 + 2 * r * (1 + series);
}
