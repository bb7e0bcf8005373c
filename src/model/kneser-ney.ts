/**
 * Back-off n-gram model with interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999, section 2.8):
 * the baseline a trained network has to beat on the same tokens.
 *
 * The longest known context speaks first; the mass it holds back (a fixed discount per kind of continuation) goes to
 * the context shorter by one token, where a token counts by how many different contexts it followed, not how often.
 *
 *     p(w | h) = max(c(h w) - d, 0) / c(h .) + d kinds(h) / c(h .) p(w | h without its first token)
 *
 * c is the raw count at the highest order and the number of different left neighbours below it; below order 1 stands
 * the uniform law. So every law sums to 1 and no token is impossible.
 *
 * **Deviations**: one discount for all orders and counts ("modified" Kneser-Ney has three per order).
 *
 * Worked example: from a b a c with order 2, d = 0.75: c(a b) = c(a c) = 1, so p(b | a) = 0.25 / 2 + 0.75 p(b).
 */
import { ArgumentError } from "../errors.ts";

export interface KneserNeyOptions {
  readonly vocabularySize: number;
  /** Longest n-gram. Default 5. vocabularySize^order must stay below 2^53. */
  readonly order?: number;
  /** Taken from every count, in (0, 1). Default 0.75. */
  readonly discount?: number;
}

export class KneserNey {
  readonly vocabularySize: number;
  readonly order: number;
  readonly discount: number;
  /** By length n: count of each n-gram, keyed by its tokens read as digits in base vocabularySize. */
  readonly #counts: Map<number, number>[];
  /** By length n - 1 of a context: sum of its continuations' counts, and how many kinds there are. */
  readonly #totals: Map<number, number>[];
  readonly #kinds: Map<number, number>[];

  /** Count a stream of token ids. @throws ArgumentError on an empty stream, ids or options out of range */
  constructor(stream: ArrayLike<number>, { vocabularySize, order = 5, discount = 0.75 }: KneserNeyOptions) {
    if (!Number.isSafeInteger(order) || order < 1 || vocabularySize ** order >= 2 ** 53) {
      throw new ArgumentError("order", "an integer >= 1 with vocabularySize^order < 2^53", order);
    }
    if (!(discount > 0 && discount < 1)) throw new ArgumentError("discount", "a number between 0 and 1", discount);
    if (stream.length === 0) throw new ArgumentError("stream", "at least one token", "none");
    this.vocabularySize = vocabularySize;
    this.order = order;
    this.discount = discount;
    const tables = () => Array.from({ length: order + 1 }, () => new Map<number, number>());
    this.#counts = tables();
    this.#totals = tables();
    this.#kinds = tables();
    for (let i = 0; i < stream.length; i++) {
      const id = stream[i]!;
      if (!Number.isInteger(id) || id < 0 || id >= vocabularySize) {
        throw new ArgumentError(`stream[${i}]`, `an id from 0 to ${vocabularySize - 1}`, id);
      }
      this.#count(this.#key(stream, i - Math.min(order, i + 1) + 1, i + 1), Math.min(order, i + 1));
    }
  }

  /** p(token | context). Only the last `order - 1` tokens of the context matter. */
  probability(context: ArrayLike<number>, token: number): number {
    let p = 1 / this.vocabularySize;
    for (let n = 1; n <= Math.min(this.order, context.length + 1); n++) {
      const history = this.#key(context, context.length - n + 1, context.length);
      const total = this.#totals[n]!.get(history);
      if (total === undefined) break;
      const count = this.#counts[n]!.get(history * this.vocabularySize + token) ?? 0;
      const held = (this.discount * this.#kinds[n]!.get(history)!) / total;
      p = Math.max(count - this.discount, 0) / total + held * p;
    }
    return p;
  }

  /** One more of an n-gram; when it is the first, its suffix has one more left neighbour. */
  #count(gram: number, length: number): void {
    let key = gram;
    for (let n = length; n >= 1; n--) {
      const count = this.#counts[n]!.get(key) ?? 0;
      const history = Math.floor(key / this.vocabularySize);
      this.#counts[n]!.set(key, count + 1);
      this.#totals[n]!.set(history, (this.#totals[n]!.get(history) ?? 0) + 1);
      if (count > 0) return;
      this.#kinds[n]!.set(history, (this.#kinds[n]!.get(history) ?? 0) + 1);
      key %= this.vocabularySize ** (n - 1);
    }
  }

  #key(ids: ArrayLike<number>, from: number, to: number): number {
    let key = 0;
    for (let i = from; i < to; i++) key = key * this.vocabularySize + ids[i]!;
    return key;
  }
}
