/**
 * Training byte-level BPE (Sennrich et al., arXiv 1508.07909; on bytes: GPT-2), incrementally.
 *
 * Repeat: take the most frequent pair of adjacent ids, give it the next id, replace it everywhere from left to right.
 * Counting anew each time costs merges x text. Here each distinct piece of the text is kept once, with its frequency,
 * as a doubly linked list of ids; every pair remembers its count and where it occurs, so that a merge touches only its
 * own occurrences and their neighbours. The best pair comes from a heap whose entries may be stale: a pair's count and
 * first occurrence only ever get worse once it exists (new adjacencies always involve the newest id), so an entry that
 * is out of date when it is drawn goes back with its present value.
 *
 * Counts are overlapping: "aaa" holds the pair (a, a) twice. They are doubles, exact up to 2^53.
 *
 * **Tie rule**, among pairs of equal count: `"first-seen"`, the pair that occurs first in the text as it then is
 * (minbpe), or `"lowest-ids"`, the smallest left id, then the smallest right id (Hugging Face).
 *
 * Example: "aaabdaaabac", three merges: (a, a), (aa, a), (aaa, b).
 */

import { PairTable } from "./pair-table.ts";

/** Which of several equally frequent pairs is merged first. */
export type TieRule = "first-seen" | "lowest-ids";

/** One merge: the pair with these ids becomes the next id. */
export type Merge = readonly [left: number, right: number];

/**
 * Learn up to `mergeCount` merges.
 * @param pieces distinct pieces of the text in order of first appearance, with their frequency
 * @param byteIds id of each byte, a permutation of 0..255; merge `k` creates id `256 + k`
 * @returns the merges in order; fewer than asked for when no pair is left
 */
export function trainMerges(
  pieces: ReadonlyMap<string, number>,
  mergeCount: number,
  byteIds: ArrayLike<number>,
  tieRule: TieRule,
): Merge[] {
  const state = new TrainerState(pieces, byteIds, tieRule);
  const merges: Merge[] = [];
  while (merges.length < mergeCount) {
    const pair = state.takeBest();
    if (pair < 0) break;
    merges.push([state.lefts[pair]!, state.rights[pair]!]);
    state.merge(pair, 255 + merges.length);
  }
  return merges;
}

class TrainerState {
  // The text: distinct pieces end to end, one position per byte. A merged pair lives on at its left position.
  readonly #ids: Int32Array; // [positions], -1 = swallowed by a merge
  readonly #next: Int32Array; // [positions], -1 = last of its piece
  readonly #previous: Int32Array; // [positions], -1 = first of its piece
  readonly #weights: Float64Array; // [positions], frequency of the piece

  // Pairs, by index.
  readonly #pairs = new PairTable(1 << 14);
  readonly lefts: number[] = [];
  readonly rights: number[] = [];
  readonly #counts: number[] = [];
  readonly #firstOccurrence: number[] = []; // head of a linked list into #positions, -1 = none
  readonly #lastOccurrence: number[] = [];

  // Occurrences, each pair's in ascending position; may be stale.
  readonly #positions: Int32Array;
  readonly #nextOccurrence: Int32Array;
  #occurrences = 0;

  // A binary heap of (count, tie, pair) as the pair stood when it was put in.
  readonly #heapCounts: number[] = [];
  readonly #heapTies: number[] = [];
  readonly #heapPairs: number[] = [];
  readonly #firstSeen: boolean;

  constructor(pieces: ReadonlyMap<string, number>, byteIds: ArrayLike<number>, tieRule: TieRule) {
    this.#firstSeen = tieRule === "first-seen";
    const encoder = new TextEncoder();
    const encoded: Uint8Array[] = [];
    let size = 0;
    for (const piece of pieces.keys()) {
      const bytes = encoder.encode(piece);
      encoded.push(bytes);
      size += bytes.length;
    }
    this.#ids = new Int32Array(size);
    this.#next = new Int32Array(size).fill(-1);
    this.#previous = new Int32Array(size).fill(-1);
    this.#weights = new Float64Array(size);
    // Each merge of an occurrence removes one position and adds at most two occurrences.
    this.#positions = new Int32Array(3 * size);
    this.#nextOccurrence = new Int32Array(3 * size);

    let start = 0;
    let piece = 0;
    for (const frequency of pieces.values()) {
      const bytes = encoded[piece++]!;
      for (let i = 0; i < bytes.length; i++) {
        this.#ids[start + i] = byteIds[bytes[i]!]!;
        this.#weights[start + i] = frequency;
        if (i > 0) {
          this.#previous[start + i] = start + i - 1;
          this.#next[start + i - 1] = start + i;
        }
      }
      for (let i = 0; i + 1 < bytes.length; i++) this.#addOccurrence(start + i);
      start += bytes.length;
    }
    for (let pair = 0; pair < this.#counts.length; pair++) this.#push(pair);
  }

  /** The best pair, taken off the heap; -1 when none occurs any more. */
  takeBest(): number {
    while (this.#heapPairs.length > 0) {
      const count = this.#heapCounts[0]!;
      const tie = this.#heapTies[0]!;
      const pair = this.#pop();
      if (this.#counts[pair]! <= 0) continue;
      if (count === this.#counts[pair] && tie === this.#tie(pair)) return pair;
      this.#push(pair);
    }
    return -1;
  }

  /** Replace every occurrence of a pair by a new id, left to right. */
  merge(pair: number, id: number): void {
    const left = this.lefts[pair]!;
    const right = this.rights[pair]!;
    const firstNew = this.#counts.length;
    for (let at = this.#firstOccurrence[pair]!; at >= 0; at = this.#nextOccurrence[at]!) {
      const position = this.#positions[at]!;
      const second = this.#next[position]!;
      if (this.#ids[position] !== left || second < 0 || this.#ids[second] !== right) continue;
      const before = this.#previous[position]!;
      const after = this.#next[second]!;
      const weight = this.#weights[position]!;
      if (before >= 0) this.#removeCount(this.#ids[before]!, left, weight);
      if (after >= 0) this.#removeCount(right, this.#ids[after]!, weight);
      this.#ids[position] = id;
      this.#ids[second] = -1;
      this.#next[position] = after;
      if (after >= 0) this.#previous[after] = position;
      if (before >= 0) this.#addOccurrence(before);
      if (after >= 0) this.#addOccurrence(position);
    }
    this.#counts[pair] = 0;
    this.#firstOccurrence[pair] = -1;
    // A pair born and used up within this merge, such as (aa, a) in the middle of "aaaa", has no count left.
    for (let born = firstNew; born < this.#counts.length; born++) if (this.#counts[born]! > 0) this.#push(born);
  }

  #addOccurrence(position: number): void {
    const left = this.#ids[position]!;
    const right = this.#ids[this.#next[position]!]!;
    let pair = this.#pairs.get(left, right);
    if (pair < 0) {
      pair = this.#counts.length;
      this.#pairs.set(left, right, pair);
      this.lefts.push(left);
      this.rights.push(right);
      this.#counts.push(0);
      this.#firstOccurrence.push(-1);
      this.#lastOccurrence.push(-1);
    }
    this.#counts[pair]! += this.#weights[position]!;
    const at = this.#occurrences++;
    this.#positions[at] = position;
    this.#nextOccurrence[at] = -1;
    if (this.#firstOccurrence[pair]! < 0) this.#firstOccurrence[pair] = at;
    else this.#nextOccurrence[this.#lastOccurrence[pair]!] = at;
    this.#lastOccurrence[pair] = at;
  }

  #removeCount(left: number, right: number, weight: number): void {
    this.#counts[this.#pairs.get(left, right)]! -= weight;
  }

  /** What decides between equal counts, smaller first. */
  #tie(pair: number): number {
    const left = this.lefts[pair]!;
    const right = this.rights[pair]!;
    if (!this.#firstSeen) return left * 2 ** 26 + right;
    // Pieces lie in order of first appearance, so the first live occurrence here is the first one in the text.
    let at = this.#firstOccurrence[pair]!;
    while (at >= 0) {
      const position = this.#positions[at]!;
      const second = this.#next[position]!;
      if (this.#ids[position] === left && second >= 0 && this.#ids[second] === right) break;
      at = this.#nextOccurrence[at]!;
    }
    this.#firstOccurrence[pair] = at;
    return at < 0 ? Number.POSITIVE_INFINITY : this.#positions[at]!;
  }

  #push(pair: number): void {
    const count = this.#counts[pair]!;
    const tie = this.#tie(pair);
    let hole = this.#heapPairs.length;
    this.#heapCounts.push(count);
    this.#heapTies.push(tie);
    this.#heapPairs.push(pair);
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (!better(count, tie, this.#heapCounts[parent]!, this.#heapTies[parent]!)) break;
      this.#place(hole, this.#heapCounts[parent]!, this.#heapTies[parent]!, this.#heapPairs[parent]!);
      hole = parent;
    }
    this.#place(hole, count, tie, pair);
  }

  #pop(): number {
    const best = this.#heapPairs[0]!;
    const count = this.#heapCounts.pop()!;
    const tie = this.#heapTies.pop()!;
    const pair = this.#heapPairs.pop()!;
    const size = this.#heapPairs.length;
    if (size === 0) return best;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= size) break;
      const sibling = child + 1;
      if (
        sibling < size &&
        better(this.#heapCounts[sibling]!, this.#heapTies[sibling]!, this.#heapCounts[child]!, this.#heapTies[child]!)
      ) {
        child = sibling;
      }
      if (!better(this.#heapCounts[child]!, this.#heapTies[child]!, count, tie)) break;
      this.#place(hole, this.#heapCounts[child]!, this.#heapTies[child]!, this.#heapPairs[child]!);
      hole = child;
    }
    this.#place(hole, count, tie, pair);
    return best;
  }

  #place(slot: number, count: number, tie: number, pair: number): void {
    this.#heapCounts[slot] = count;
    this.#heapTies[slot] = tie;
    this.#heapPairs[slot] = pair;
  }
}

function better(count: number, tie: number, otherCount: number, otherTie: number): boolean {
  return count > otherCount || (count === otherCount && tie < otherTie);
}
