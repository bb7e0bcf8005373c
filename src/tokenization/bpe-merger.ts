/**
 * The merge loop of byte-pair encoding: the pair of lowest rank first, the leftmost of equals, until no pair is left.
 *
 * Short pieces (nearly all) take a linear scan per merge; long ones a heap over a linked list, so that 100,000 repeats
 * of one character cost n log n and not n^2. Both give the same ids.
 *
 * Example: merges (a, a), (aa, a): "aaaa" -> aa a a -> aa aa; "aaa" -> aa a -> aaa.
 */

import { MinHeap } from "./min-heap.ts";
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

/** Merges one piece at a time in its own scratch memory. */
export class BpeMerger {
  /** The ids of the last piece: as many entries as `merge` or `mergeIds` returned. */
  ids: Int32Array = new Int32Array(SCAN_LIMIT);
  #pairRanks = new Int32Array(SCAN_LIMIT); // rank of the pair that starts at each id, NO_RANK where it does not merge
  readonly #ranks: PairTable;
  readonly #results: Int32Array;
  readonly #byteIds: Int32Array;
  readonly #byteRanks = new Int32Array(256 * 256).fill(NO_RANK); // first ranks of a piece, without hashing

  constructor({ byteIds, ranks, results }: MergeTable) {
    this.#ranks = ranks;
    this.#results = results;
    this.#byteIds = byteIds;
    for (let left = 0; left < 256; left++) {
      for (let right = 0; right < 256; right++) {
        this.#byteRanks[(left << 8) | right] = this.#rankOf(byteIds[left]!, byteIds[right]!);
      }
    }
  }

  /**
   * Encode `bytes[start .. end]`, `end > start`.
   * @param below only merges with a rank below this; default: all
   * @returns how many ids it became; they stand in `this.ids` until the next call
   */
  merge(bytes: Uint8Array, start: number, end: number, below = NO_RANK): number {
    const count = end - start;
    this.#reserve(count);
    let byte = bytes[start]!;
    this.ids[0] = this.#byteIds[byte]!;
    for (let i = 1; i < count; i++) {
      const following = bytes[start + i]!;
      this.ids[i] = this.#byteIds[following]!;
      this.#pairRanks[i - 1] = this.#byteRanks[(byte << 8) | following]!;
      byte = following;
    }
    return this.#merge(count, below);
  }

  /** The same from a sequence of ids, not empty. */
  mergeIds(source: ArrayLike<number>): number {
    this.#reserve(source.length);
    for (let i = 0; i < source.length; i++) this.ids[i] = source[i]!;
    for (let i = 0; i + 1 < source.length; i++) this.#pairRanks[i] = this.#rankOf(source[i]!, source[i + 1]!);
    return this.#merge(source.length, NO_RANK);
  }

  #merge(count: number, below: number): number {
    return count <= SCAN_LIMIT ? this.#mergeByScan(count, below) : this.#mergeByHeap(count, below);
  }

  #mergeByScan(count: number, below: number): number {
    const ids = this.ids;
    const pairRanks = this.#pairRanks;
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
      ids[at] = this.#results[best]!;
      count--;
      for (let i = at + 1; i < count; i++) {
        ids[i] = ids[i + 1]!;
        pairRanks[i - 1] = pairRanks[i]!;
      }
      if (at > 0) pairRanks[at - 1] = this.#rankOf(ids[at - 1]!, ids[at]!);
      if (at + 1 < count) pairRanks[at] = this.#rankOf(ids[at]!, ids[at + 1]!);
    }
    return count;
  }

  #mergeByHeap(size: number, below: number): number {
    const ids = this.ids;
    const pairRanks = this.#pairRanks;
    const next = new Int32Array(size);
    const previous = new Int32Array(size);
    const heap = new MinHeap(size);
    const enter = (at: number, rank: number): void => {
      pairRanks[at] = rank;
      if (rank < below) heap.push(rank * POSITIONS + at);
    };
    pairRanks[size - 1] = NO_RANK;
    for (let i = 0; i < size; i++) {
      next[i] = i + 1 < size ? i + 1 : -1;
      previous[i] = i - 1;
      enter(i, pairRanks[i]!);
    }
    while (heap.size > 0) {
      const entry = heap.pop();
      const rank = Math.floor(entry / POSITIONS);
      const at = entry - rank * POSITIONS;
      if (pairRanks[at] !== rank) continue; // that pair is gone
      const second = next[at]!;
      const after = next[second]!;
      const before = previous[at]!;
      ids[at] = this.#results[rank]!;
      pairRanks[at] = NO_RANK;
      pairRanks[second] = NO_RANK;
      next[at] = after;
      if (after >= 0) {
        previous[after] = at;
        enter(at, this.#rankOf(ids[at]!, ids[after]!));
      }
      if (before >= 0) enter(before, this.#rankOf(ids[before]!, ids[at]!));
    }
    let count = 0;
    for (let i = 0; i >= 0; i = next[i]!) ids[count++] = ids[i]!;
    return count;
  }

  #rankOf(left: number, right: number): number {
    const rank = this.#ranks.get(left, right);
    return rank < 0 ? NO_RANK : rank;
  }

  #reserve(count: number): void {
    if (count <= this.ids.length) return;
    this.ids = new Int32Array(2 * count);
    this.#pairRanks = new Int32Array(2 * count);
  }
}
