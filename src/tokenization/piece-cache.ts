/**
 * What pieces became when they were last merged: a bounded memory of the words that are not one token.
 *
 * Direct-mapped: the hash of a piece names its one slot, a newer piece takes an older one's place, and a hit is a hit
 * only when the bytes agree. Pieces that would not fit in a slot are not kept. 5 MB of address space, touched as used.
 */

const SLOTS = 1 << 16;
const MAX_BYTES = 40;
const MAX_IDS = 10;

export class PieceCache {
  readonly #lengths = new Uint8Array(SLOTS); // bytes of the piece, 0 = empty slot
  readonly #counts = new Uint8Array(SLOTS); // ids of the piece
  readonly #bytes = new Uint8Array(SLOTS * MAX_BYTES);
  readonly #ids = new Uint32Array(SLOTS * MAX_IDS);

  /** Copy the ids of `source[start .. end]` to `into[at ..]`; their number, or 0 when the piece is not known. */
  read(hash: number, source: Uint8Array, start: number, end: number, into: Uint32Array, at: number): number {
    const slot = slotOf(hash);
    if (this.#lengths[slot] !== end - start) return 0;
    const from = slot * MAX_BYTES - start;
    for (let i = start; i < end; i++) if (this.#bytes[from + i] !== source[i]) return 0;
    const ids = slot * MAX_IDS;
    const count = this.#counts[slot]!;
    for (let i = 0; i < count; i++) into[at + i] = this.#ids[ids + i]!;
    return count;
  }

  /** Remember that `source[start .. end]` became the first `count` of `ids`. */
  write(
    hash: number,
    source: Uint8Array,
    start: number,
    end: number,
    ids: Int32Array | Uint32Array,
    count: number,
  ): void {
    if (end - start > MAX_BYTES || count > MAX_IDS) return;
    const slot = slotOf(hash);
    this.#lengths[slot] = end - start;
    this.#counts[slot] = count;
    const into = slot * MAX_BYTES - start;
    for (let i = start; i < end; i++) this.#bytes[into + i] = source[i]!;
    for (let i = 0; i < count; i++) this.#ids[slot * MAX_IDS + i] = ids[i]!;
  }

  /** Most ids that `read` writes. */
  static readonly MAX_IDS = MAX_IDS;
}

function slotOf(hash: number): number {
  return hash & (SLOTS - 1);
}
