/**
 * The merge loop of byte-pair encoding: the pair of lowest rank first, the leftmost of equals, until no pair is left.
 *
 * Short pieces (nearly all) take a linear scan per merge; long ones a heap over a linked list, so that 100,000 repeats
 * of one character cost n log n and not n^2. Both give the same ids.
 *
 * Example: merges (a, a), (aa, a): "aaaa" -> aa a a -> aa aa; "aaa" -> aa a -> aaa.
 */

import type { PairTable } from "./pair-table.ts";

/** Which pairs merge, in which order, into what. */
export interface MergeTable {
  /** Id of each of the 256 bytes. */
  readonly byteIds: Int32Array;
  /** Rank of each pair that merges. */
  readonly ranks: PairTable;
  /** Id that a merge of each rank gives. */
  readonly results: Int32Array;
}

/** Longest piece merged by scanning, in bytes. */
const SCAN_LIMIT = 64;
const NO_RANK = 0x7fffffff;
/** A heap entry is `rank * POSITIONS + position`, exact in a double while ranks stay below 2^22. */
const POSITIONS = 2 ** 31;

/** Ranks must be below this. */
export const RANK_LIMIT = 2 ** 22;

/** Merges one piece at a time into its own scratch memory. */
export class BpeMerger {
  /** The ids of the last piece: the first `merge(..)` entries. */
  ids: Int32Array = new Int32Array(SCAN_LIMIT);
  readonly #table: MergeTable;
  readonly #byteRanks = new Int32Array(256 * 256).fill(NO_RANK);
  readonly #pairRanks = new Int32Array(SCAN_LIMIT);

  constructor(table: MergeTable) {
    this.#table = table;
    for (let left = 0; left < 256; left++) {
      for (let right = 0; right < 256; right++) {
        const rank = table.ranks.get(table.byteIds[left]!, table.byteIds[right]!);
        if (rank >= 0) this.#byteRanks[(left << 8) | right] = rank;
      }
    }
  }

  /**
   * Encode `bytes[start .. end]`, `end > start`.
   * @param below only merges with a rank below this; default: all
   * @returns how many ids it became; they stand in `this.ids` until the next call
   */
  merge(bytes: Uint8Array, start: number, end: number, below = NO_RANK): number {
    return end - start <= SCAN_LIMIT
      ? this.#mergeByScan(bytes, start, end, below)
      : this.#mergeByHeap(bytes, start, end, below);
  }

  #mergeByScan(bytes: Uint8Array, start: number, end: number, below: number): number {
    const ids = this.ids;
    const pairRanks = this.#pairRanks; // [count - 1], rank of the pair that starts at each id
    const { byteIds, ranks, results } = this.#table;
    let count = end - start;
    for (let i = 0; i < count; i++) ids[i] = byteIds[bytes[start + i]!]!;
    for (let i = 0; i + 1 < count; i++) {
      pairRanks[i] = this.#byteRanks[(bytes[start + i]! << 8) | bytes[start + i + 1]!]!;
    }
    while (count > 1) {
      let best = below;
      let at = -1;
      for (let i = 0; i + 1 < count; i++) {
        if (pairRanks[i]! < best) {
          best = pairRanks[i]!;
          at = i;
        }
      }
      if (at < 0) break;
      ids[at] = results[best]!;
      count--;
      for (let i = at + 1; i < count; i++) {
        ids[i] = ids[i + 1]!;
        pairRanks[i - 1] = pairRanks[i]!;
      }
      if (at > 0) pairRanks[at - 1] = rankOf(ranks, ids[at - 1]!, ids[at]!);
      if (at + 1 < count) pairRanks[at] = rankOf(ranks, ids[at]!, ids[at + 1]!);
    }
    return count;
  }

  #mergeByHeap(bytes: Uint8Array, start: number, end: number, below: number): number {
    const size = end - start;
    if (this.ids.length < size) this.ids = new Int32Array(2 * size);
    const ids = this.ids;
    const { byteIds, ranks, results } = this.#table;
    const next = new Int32Array(size);
    const previous = new Int32Array(size);
    const pairRanks = new Int32Array(size).fill(NO_RANK); // present rank of the pair at each position
    const heap = new MinHeap(size);
    for (let i = 0; i < size; i++) {
      ids[i] = byteIds[bytes[start + i]!]!;
      next[i] = i + 1 < size ? i + 1 : -1;
      previous[i] = i - 1;
      if (i + 1 < size) {
        const rank = this.#byteRanks[(bytes[start + i]! << 8) | bytes[start + i + 1]!]!;
        pairRanks[i] = rank;
        if (rank < below) heap.push(rank * POSITIONS + i);
      }
    }
    while (heap.size > 0) {
      const entry = heap.pop();
      const rank = Math.floor(entry / POSITIONS);
      const at = entry - rank * POSITIONS;
      if (pairRanks[at] !== rank) continue; // the pair changed since
      const second = next[at]!;
      const after = next[second]!;
      ids[at] = results[rank]!;
      pairRanks[second] = NO_RANK;
      next[at] = after;
      pairRanks[at] = NO_RANK;
      if (after >= 0) {
        previous[after] = at;
        const right = rankOf(ranks, ids[at]!, ids[after]!);
        pairRanks[at] = right;
        if (right < below) heap.push(right * POSITIONS + at);
      }
      const before = previous[at]!;
      if (before >= 0) {
        const left = rankOf(ranks, ids[before]!, ids[at]!);
        pairRanks[before] = left;
        if (left < below) heap.push(left * POSITIONS + before);
      }
    }
    let count = 0;
    for (let i = 0; i >= 0; i = next[i]!) ids[count++] = ids[i]!;
    return count;
  }
}

function rankOf(ranks: PairTable, left: number, right: number): number {
  const rank = ranks.get(left, right);
  return rank < 0 ? NO_RANK : rank;
}

/** A binary heap of doubles, smallest first. */
class MinHeap {
  #values: Float64Array;
  size = 0;

  constructor(capacity: number) {
    this.#values = new Float64Array(Math.max(16, capacity));
  }

  push(value: number): void {
    if (this.size === this.#values.length) {
      const grown = new Float64Array(2 * this.size);
      grown.set(this.#values);
      this.#values = grown;
    }
    const values = this.#values;
    let hole = this.size++;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (values[parent]! <= value) break;
      values[hole] = values[parent]!;
      hole = parent;
    }
    values[hole] = value;
  }

  pop(): number {
    const values = this.#values;
    const smallest = values[0]!;
    const last = values[--this.size]!;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && values[child + 1]! < values[child]!) child++;
      if (values[child]! >= last) break;
      values[hole] = values[child]!;
      hole = child;
    }
    values[hole] = last;
    return smallest;
  }
}
