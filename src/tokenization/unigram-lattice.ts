/**
 * All segmentations of a text into pieces, as a graph, and what is asked of it: the best, the n best, one at random, how
 * often each piece is expected (Kudo, arXiv 1804.10959, section 3).
 *
 * Nodes are byte positions, edges the pieces that fit between two; a path from 0 to the end is a segmentation and its
 * score is the sum of the pieces' log-probabilities. With best(i), all(i) over the paths from i to the end:
 *
 *     best(i) = max over edges i -> j of score + best(j)              Viterbi
 *     all(i)  = log sum over edges i -> j of e^(score + all(j))       backward filtering; all(0) = log Z
 *     P(edge i -> j | at i) = e^(score + all(j) - all(i))             forward sampling
 *
 * A character that is no piece by itself also has an unknown edge, so that there always is a path.
 *
 * One lattice serves many texts in the same memory. Example: pieces a, b, ab on "ab": edges 0-1 (a), 0-2 (ab), 1-2 (b).
 */

import type { Random } from "../tensor/random.ts";
import type { ByteTrie } from "./byte-trie.ts";
import { MinHeap } from "./min-heap.ts";

/** The id of unknown edges. */
export const UNKNOWN = -1;

/** A byte that UTF-8 never holds: it stands for one token put into the text by hand, see `build`. */
export const PLACEHOLDER = 0xff;

const SPACE = 0x20;

/** A way through a lattice. */
export interface Path {
  /** Ids of its edges, `UNKNOWN` among them. */
  readonly ids: readonly number[];
  /** Where each ends, in bytes from the lattice's start. */
  readonly ends: readonly number[];
  /** Sum of the scores. */
  readonly score: number;
}

export interface LatticeOptions {
  /** Score of an unknown character. */
  readonly unknownScore: number;
  /** Whether pieces stop before a space inside them (they may begin with one). */
  readonly split: boolean;
}

export class UnigramLattice {
  readonly #trie: ByteTrie;
  readonly #scores: Float64Array;
  readonly #options: LatticeOptions;
  #size = 0;
  /** Edges of position i are those from first[i] up to first[i + 1]. */
  #first = new Int32Array(64);
  #edgeIds = new Int32Array(256);
  #edgeEnds = new Int32Array(256);
  #edgeScores = new Float64Array(256);
  #edges = 0;
  // Scratch of one value per position.
  #values = new Float64Array(64);
  #others = new Float64Array(64);
  #back = new Int32Array(64);

  /** @param scores log-probability of each id in the trie */
  constructor(trie: ByteTrie, scores: Float64Array, options: LatticeOptions) {
    this.#trie = trie;
    this.#scores = scores;
    this.#options = options;
  }

  /**
   * Lay out `bytes[start .. end]`, whole characters of UTF-8.
   * @param placed ids of the placeholders among the bytes, by position in `bytes`; no piece crosses one
   */
  build(bytes: Uint8Array, start: number, end: number, placed?: ReadonlyMap<number, number>): void {
    const { unknownScore, split } = this.#options;
    this.#reserve(end - start + 2);
    this.#size = end - start;
    this.#edges = 0;
    for (let from = start; from < end; ) {
      const length = bytes[from] === PLACEHOLDER ? 1 : characterLength(bytes[from]!);
      this.#first[from - start] = this.#edges;
      if (bytes[from] === PLACEHOLDER) {
        this.#push(placed!.get(from)!, from + 1 - start, 0);
      } else {
        let known = false;
        let node = 0;
        for (let at = from; at < end; ) {
          if (split && at > from && bytes[at] === SPACE) break;
          node = this.#trie.child(node, bytes[at]!);
          if (node < 0) break;
          at++;
          const id = this.#trie.tokenAt(node);
          if (id < 0) continue;
          this.#push(id, at - start, this.#scores[id]!);
          if (at === from + length) known = true;
        }
        if (!known) this.#push(UNKNOWN, from + length - start, unknownScore);
      }
      // Positions inside the character have no edges: they begin where the next character's do.
      for (let i = 1; i < length; i++) this.#first[from - start + i] = this.#edges;
      from += length;
    }
    this.#first[this.#size] = this.#edges;
    this.#first[this.#size + 1] = this.#edges;
  }

  /**
   * The path of the highest score; of equals the one found first, that with the longer last piece (as Hugging Face and
   * SentencePiece have it).
   * @param except an id to do without; the score is -Infinity where there is no other way
   */
  best(except = -2): Path {
    const size = this.#size;
    const scores = this.#values.fill(Number.NEGATIVE_INFINITY, 0, size + 1);
    scores[0] = 0;
    for (let from = 0; from < size; from++) {
      if (scores[from] === Number.NEGATIVE_INFINITY) continue;
      for (let edge = this.#first[from]!; edge < this.#first[from + 1]!; edge++) {
        if (this.#edgeIds[edge] === except) continue;
        const end = this.#edgeEnds[edge]!;
        const score = this.#edgeScores[edge]! + scores[from]!;
        if (!(score > scores[end]!)) continue;
        scores[end] = score;
        this.#others[end] = from;
        this.#back[end] = edge;
      }
    }
    const ids: number[] = [];
    const ends: number[] = [];
    if (scores[size] === Number.NEGATIVE_INFINITY) return { ids, ends, score: Number.NEGATIVE_INFINITY };
    for (let end = size; end > 0; end = this.#others[end]!) {
      ids.push(this.#edgeIds[this.#back[end]!]!);
      ends.push(end);
    }
    return { ids: ids.reverse(), ends: ends.reverse(), score: scores[size]! };
  }

  /**
   * The `count` best paths, best first, all different; fewer where there are fewer. A* from the front: a partial path waits
   * with its score plus the best that can follow, so paths arrive complete in order of their score.
   */
  nBest(count: number): Path[] {
    const size = this.#size;
    const rest = this.#values;
    rest[size] = 0;
    for (let from = size - 1; from >= 0; from--) {
      rest[from] = Number.NEGATIVE_INFINITY;
      for (let edge = this.#first[from]!; edge < this.#first[from + 1]!; edge++) {
        rest[from] = Math.max(rest[from]!, this.#edgeScores[edge]! + rest[this.#edgeEnds[edge]!]!);
      }
    }
    // A partial path: the edge it ends with and the partial path before that.
    const lastEdges = [-1];
    const before = [-1];
    const scores = [0];
    const waiting = new OrderedQueue();
    waiting.push(0, 0);
    const found: Path[] = [];
    while (waiting.size > 0 && found.length < count) {
      const partial = waiting.pop();
      const from = partial === 0 ? 0 : this.#edgeEnds[lastEdges[partial]!]!;
      if (from === size) {
        const ids: number[] = [];
        const ends: number[] = [];
        for (let at = partial; at > 0; at = before[at]!) {
          ids.push(this.#edgeIds[lastEdges[at]!]!);
          ends.push(this.#edgeEnds[lastEdges[at]!]!);
        }
        found.push({ ids: ids.reverse(), ends: ends.reverse(), score: scores[partial]! });
        continue;
      }
      for (let edge = this.#first[from]!; edge < this.#first[from + 1]!; edge++) {
        const score = scores[partial]! + this.#edgeScores[edge]!;
        lastEdges.push(edge);
        before.push(partial);
        scores.push(score);
        waiting.push(-(score + rest[this.#edgeEnds[edge]!]!), scores.length - 1);
      }
    }
    return found;
  }

  /** One path drawn with probability proportional to e^(alpha score). */
  sample(alpha: number, random: Random): Path {
    const all = this.#sumsToEnd(alpha);
    const ids: number[] = [];
    const ends: number[] = [];
    let score = 0;
    for (let from = 0; from < this.#size; ) {
      const last = this.#first[from + 1]! - 1;
      let edge = this.#first[from]!;
      let left = random.uniform();
      for (; edge < last; edge++) {
        left -= Math.exp(alpha * this.#edgeScores[edge]! + all[this.#edgeEnds[edge]!]! - all[from]!);
        if (left < 0) break;
      }
      ids.push(this.#edgeIds[edge]!);
      from = this.#edgeEnds[edge]!;
      ends.push(from);
      score += this.#edgeScores[edge]!;
    }
    return { ids, ends, score };
  }

  /**
   * Add `weight` times the expected number of uses of each id, over all paths by their probability, to `into`.
   * @returns log Z, the log-probability of the text
   */
  addExpectations(weight: number, into: Float64Array): number {
    const size = this.#size;
    const after = this.#sumsToEnd(1);
    const total = after[0]!;
    const until = this.#others.fill(Number.NEGATIVE_INFINITY, 0, size + 1);
    until[0] = 0;
    for (let from = 0; from < size; from++) {
      if (until[from] === Number.NEGATIVE_INFINITY) continue;
      for (let edge = this.#first[from]!; edge < this.#first[from + 1]!; edge++) {
        const end = this.#edgeEnds[edge]!;
        const score = until[from]! + this.#edgeScores[edge]!;
        until[end] = logSum(until[end]!, score);
        const id = this.#edgeIds[edge]!;
        if (id >= 0) into[id]! += weight * Math.exp(score + after[end]! - total);
      }
    }
    return total;
  }

  /** Log of the sum over the paths from each position to the end, [size + 1]. */
  #sumsToEnd(alpha: number): Float64Array {
    const all = this.#values;
    all[this.#size] = 0;
    for (let from = this.#size - 1; from >= 0; from--) {
      let sum = Number.NEGATIVE_INFINITY;
      for (let edge = this.#first[from]!; edge < this.#first[from + 1]!; edge++) {
        sum = logSum(sum, alpha * this.#edgeScores[edge]! + all[this.#edgeEnds[edge]!]!);
      }
      all[from] = sum;
    }
    return all;
  }

  #push(id: number, end: number, score: number): void {
    if (this.#edges === this.#edgeIds.length) {
      this.#edgeIds = grown(this.#edgeIds, new Int32Array(2 * this.#edges));
      this.#edgeEnds = grown(this.#edgeEnds, new Int32Array(2 * this.#edges));
      this.#edgeScores = grown(this.#edgeScores, new Float64Array(2 * this.#edges));
    }
    this.#edgeIds[this.#edges] = id;
    this.#edgeEnds[this.#edges] = end;
    this.#edgeScores[this.#edges++] = score;
  }

  #reserve(positions: number): void {
    if (positions <= this.#first.length) return;
    this.#first = new Int32Array(2 * positions);
    this.#values = new Float64Array(2 * positions);
    this.#others = new Float64Array(2 * positions);
    this.#back = new Int32Array(2 * positions);
  }
}

/** Numbers by priority, the lowest first, of equals the one that came first. */
class OrderedQueue {
  readonly #priorities = new MinHeap(64);
  readonly #waiting = new Map<number, number[]>();
  size = 0;

  push(priority: number, item: number): void {
    const equals = this.#waiting.get(priority);
    if (equals === undefined) {
      this.#waiting.set(priority, [item]);
      this.#priorities.push(priority);
    } else {
      equals.push(item);
    }
    this.size++;
  }

  pop(): number {
    const priority = this.#priorities.pop();
    const equals = this.#waiting.get(priority)!;
    const item = equals.shift()!;
    if (equals.length === 0) this.#waiting.delete(priority);
    else this.#priorities.push(priority);
    this.size--;
    return item;
  }
}

/** Bytes of the UTF-8 character that begins with `first`. */
export function characterLength(first: number): number {
  return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/** log(e^a + e^b). */
function logSum(a: number, b: number): number {
  if (a === Number.NEGATIVE_INFINITY) return b;
  if (b === Number.NEGATIVE_INFINITY) return a;
  return a > b ? a + Math.log1p(Math.exp(b - a)) : b + Math.log1p(Math.exp(a - b));
}

function grown<T extends Int32Array | Float64Array>(values: T, into: T): T {
  into.set(values);
  return into;
}
