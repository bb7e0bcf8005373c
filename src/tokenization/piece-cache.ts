/**
 * What pieces became when they were last merged: a bounded memory of the words that are not one token.
 *
 * Direct-mapped: the hash of a piece names its one slot, a newer piece takes an older one's place, and a hit is a hit
 * only when the bytes agree. Pieces that would not fit in a slot are not kept. About 1.6 MB at most.
 */

const SLOTS = 1 << 14;
const MAX_BYTES = 32;
const MAX_IDS = 15;
const STRIDE = 1 + MAX_IDS;

export class PieceCache {
  readonly #lengths = new Uint8Array(SLOTS); // bytes of the piece, 0 = empty slot
  readonly #bytes = new Uint8Array(SLOTS * MAX_BYTES);
  readonly #ids = new Int32Array(SLOTS * STRIDE); // count, then ids

  /** Copy the ids of `source[start .. end]` to `into[at ..]`; their number, or 0 when the piece is not known. */
  read(hash: number, source: Uint8Array, start: number, end: number, into: Uint32Array, at: number): number {
    const slot = hash & (SLOTS - 1);
    const length = end - start;
    if (this.#lengths[slot] !== length) return 0;
    const from = slot * MAX_BYTES - start;
    for (let i = start; i < end; i++) if (this.#bytes[from + i] !== source[i]) return 0;
    const ids = slot * STRIDE;
    const count = this.#ids[ids]!;
    for (let i = 0; i < count; i++) into[at + i] = this.#ids[ids + 1 + i]!;
    return count;
  }

  /** Remember that `source[start .. end]` became the first `count` of `ids`. */
  write(hash: number, source: Uint8Array, start: number, end: number, ids: Int32Array, count: number): void {
    if (end - start > MAX_BYTES || count > MAX_IDS) return;
    const slot = hash & (SLOTS - 1);
    this.#lengths[slot] = end - start;
    for (let i = start; i < end; i++) this.#bytes[slot * MAX_BYTES + i - start] = source[i]!;
    this.#ids[slot * STRIDE] = count;
    for (let i = 0; i < count; i++) this.#ids[slot * STRIDE + 1 + i] = ids[i]!;
  }

  /** Most ids that `read` writes. */
  static readonly MAX_IDS = MAX_IDS;
}
