/**
 * Tokens in the order of their bytes: all that begin with given bytes stand side by side.
 *
 * Example: a, ab, abc, b: those that begin with "ab" are places 1 to 3.
 */
export class TokenOrder {
  readonly #tokens: readonly (Uint8Array | undefined)[];
  /** Ids, by bytes. */
  readonly #ids: Int32Array;
  readonly #firstBytes: readonly Int32Array[];
  static readonly #known = new WeakMap<object, TokenOrder>();

  private constructor(tokens: readonly (Uint8Array | undefined)[]) {
    this.#tokens = tokens;
    const used = Int32Array.from(tokens.keys()).filter((id) => tokens[id] !== undefined);
    this.#ids = used.sort((a, b) => compareBytes(tokens[a]!, tokens[b]!) || a - b);
    this.#firstBytes = Array.from({ length: 256 }, (_, byte) => {
      const [low, high] = this.narrow(this.all, 0, byte);
      return this.#ids.subarray(low, high);
    });
  }

  /** @param tokens bytes by id, none of them empty; undefined for ids left out */
  static of(tokens: readonly (Uint8Array | undefined)[]): TokenOrder {
    let order = TokenOrder.#known.get(tokens);
    if (order === undefined) {
      order = new TokenOrder(tokens);
      TokenOrder.#known.set(tokens, order);
    }
    return order;
  }

  /** All places. */
  get all(): readonly [number, number] {
    return [0, this.#ids.length];
  }

  /** Ids of tokens whose first byte this is. */
  startingWith(byte: number): Int32Array {
    return this.#firstBytes[byte]!;
  }

  idAt(place: number): number {
    return this.#ids[place]!;
  }

  /** Of places whose tokens share `depth` bytes, those whose tokens go on with `byte`. */
  narrow([low, high]: readonly [number, number], depth: number, byte: number): readonly [number, number] {
    const first = this.#firstNotBelow(low, high, depth, byte);
    return [first, this.#firstNotBelow(first, high, depth, byte + 1)];
  }

  /** The shortest tokens come first, as if they went on with -1. */
  #firstNotBelow(low: number, high: number, depth: number, byte: number): number {
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#tokens[this.#ids[middle]!]![depth] ?? -1) < byte) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}
