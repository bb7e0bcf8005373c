/**
 * Batch-level dynamic merging: "Retrofitting (Large) Language Models with Dynamic Tokenization" (Feher, Vulić and
 * Minixhofer, arXiv 2411.18553, section 3; loop, boundaries and ties as in the authors' released code).
 *
 * A model's vocabulary was fixed on the text it was trained on; here token boundaries follow the text at hand. The
 * batch is tokenized as ever, then BPE runs on it once more, at inference: the commonest pair of neighbours becomes one
 * token, everywhere in the batch, and so on. Nothing is learned or stored; embeddings of the new tokens are predicted from
 * their pieces (`src/retokenization`), and the model stays as it is.
 *
 *     repeat:  (x, y) = arg max count(x, y) over pairs of the batch that the boundary allows; ties: first met
 *              replace x y by xy, left to right, in every row
 *     r(M) = 100 (L_0 - L_M) / (L_0 - L_inf)        L_M: tokens of the batch after M merges
 *
 * Counts overlap ("aaa" holds (a, a) twice), and there is no least count: without a limit the loop ends where no pair is
 * allowed any more. The same text may be cut differently in other company.
 *
 * What runs is the incremental form: each position is in the list of its pair's occurrences, in order, so a merge touches
 * its own occurrences and their neighbours, and a heap has (count, first occurrence) of each pair whenever they changed.
 *
 * **Deviations**: none in what is merged from the released loop, which counts everything anew for each merge; the tests
 * hold one against the other. Special tokens never merge, under any boundary. A token is its bytes, as there; its pieces are
 * those it was first made of, where the code tokenizes its text again. `merge-boundaries.ts` has what differs in a boundary.
 *
 * **Unlike** `bpe-trainer.ts` a merge can give a token that was there before ("ab" + "c" beside "a" + "bc"), so counts
 * may rise and first occurrences move forward: entries of the heap cannot be put right when they are drawn.
 *
 * Worked example: rows a b c and a b b c, every pair allowed. (a, b) twice: ab c | ab b c. Then (ab, c), met first: abc |
 * ab b c. Then (ab, b), (abb, c): abc | abbc. Lengths 7 5 4 3 2, so two merges are r = 60 %.
 */

import { ArgumentError } from "../errors.ts";
import { type MergeBoundary, type MergeRule, mergeBoundaries, mergeRule } from "./merge-boundaries.ts";
import { MinHeap } from "./min-heap.ts";
import { PairTable } from "./pair-table.ts";
import type { SplitPattern } from "./split-patterns.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** What merging has to know of the tokenizer that made the rows. `Bpe` has all of it. */
export interface MergeableTokenizer extends Pick<Tokenizer, "vocabularySize" | "tokenBytes"> {
  readonly pattern?: SplitPattern;
  readonly specialTokens?: ReadonlyMap<string, number>;
}

export interface DynamicMergingOptions {
  /** Whose ids the rows hold. */
  readonly tokenizer: MergeableTokenizer;
  /** What a token may not grow across, see `merge-boundaries.ts`. Default `"pretokens"`. */
  readonly boundary?: MergeBoundary;
  /** Pieces of `"pretokens"`. Default: the tokenizer's own pattern. */
  readonly pattern?: SplitPattern;
  /** Merges at most, an integer >= 0; fewer are done when no pair is left. Default: to the end. */
  readonly merges?: number;
  /** Instead of `merges`: as few as reach this reduction r, in per cent from 0 (none) to 100 (to the end). */
  readonly reduction?: number;
  /** Ids that stay as they are. Default: the tokenizer's special tokens. */
  readonly protectedIds?: Iterable<number>;
}

/** One merge: `left` and `right` became `merged`, tokens of the batch all three. */
export interface DynamicMerge {
  readonly left: number;
  readonly right: number;
  readonly merged: number;
  /** Occurrences when it was chosen, overlapping ones included. */
  readonly count: number;
}

/** A row after merging; one entry per token in both. */
export interface MergedRow {
  /** Tokens of the batch. */
  readonly tokens: Uint32Array;
  /** Where in the row that was given each token's first piece stands; it goes up to where the next one's does. */
  readonly starts: Uint32Array;
}

/** What merging did, in counts. */
export interface MergingCost {
  /** Occurrences of pairs put into or taken out of the counts, the first counting included. */
  readonly countUpdates: number;
  /** The same for a loop that counts all pairs anew before each merge. */
  readonly recountingUpdates: number;
  /** Distinct pairs the boundary was asked about. */
  readonly pairsJudged: number;
}

/**
 * A batch with boundaries of its own. Its tokens are numbered: first the ids that occur in the rows, in order of first
 * appearance, then what merging made.
 */
export interface MergedBatch {
  readonly rows: readonly MergedRow[];
  readonly merges: readonly DynamicMerge[];
  /** Tokens of all rows after m merges, m = 0 .. merges.length; never grows. Up to the end where `reduction` was asked for. */
  readonly lengths: Uint32Array;
  readonly cost: MergingCost;
  /** Bytes of a token of the batch. */
  readonly bytes: (token: number) => Uint8Array;
  /** Ids it is made of: its own id alone, or the pieces that first made it. */
  readonly pieces: (token: number) => Uint32Array;
}

/**
 * Merge the commonest neighbours of a batch. The rows are not changed.
 * @param rows ids of each sequence; rows of one token or none come back as they are
 * @throws ArgumentError without rows, on an id outside the vocabulary, both or bad limits, an unknown boundary, or
 *   `"pretokens"` of a tokenizer that has no pattern
 */
export function mergeBatch(rows: readonly ArrayLike<number>[], options: DynamicMergingOptions): MergedBatch {
  const { merges: limit, reduction } = options;
  if (rows.length === 0) throw new ArgumentError("rows", "at least one sequence", []);
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit >= 0)) {
    throw new ArgumentError("options.merges", "an integer >= 0", limit);
  }
  if (reduction !== undefined && !(reduction >= 0 && reduction <= 100)) {
    throw new ArgumentError("options.reduction", "a number of per cent from 0 to 100", reduction);
  }
  if (limit !== undefined && reduction !== undefined) {
    throw new ArgumentError("options.reduction", "nothing beside options.merges", reduction, "Give one of the two.");
  }
  const loop = new MergingLoop(rows, options);
  while (loop.merges.length < (limit ?? Number.POSITIVE_INFINITY) && loop.step());
  const lengths = Uint32Array.from(loop.lengths);
  const wanted = reduction === undefined ? loop.merges.length : mergesForReduction(lengths, reduction);
  return {
    rows: loop.rowsAfter(wanted),
    merges: loop.merges.slice(0, wanted),
    lengths,
    cost: {
      countUpdates: loop.countUpdates,
      // A row of n tokens holds n - 1 pairs.
      recountingUpdates: lengths.subarray(0, -1).reduce((sum, length) => sum + length - loop.filledRows, 0),
      pairsJudged: loop.pairsJudged,
    },
    bytes: (token) => loop.bytes(token),
    pieces: (token) => loop.pieces(token),
  };
}

/**
 * r(M) in per cent: how far M merges are on the way to the fully merged batch; 0 where nothing could merge.
 * @param start L_0: tokens before merging (in all, or on average: the ratio is the same)
 * @param now L_M
 * @param end L_inf: tokens when no pair is left
 */
export function reductionOf(start: number, now: number, end: number): number {
  return start === end ? 0 : (100 * (start - now)) / (start - end);
}

/**
 * Fewest merges that reach a reduction.
 * @param lengths tokens after m merges, to the end
 */
export function mergesForReduction(lengths: ArrayLike<number>, reduction: number): number {
  const last = lengths.length - 1;
  let merges = 0;
  while (merges < last && reductionOf(lengths[0]!, lengths[merges]!, lengths[last]!) < reduction) merges++;
  return merges;
}

/** Most tokens of a batch: a heap entry packs a count and a position into one double. */
const POSITIONS = 2 ** 26;

class MergingLoop {
  readonly merges: DynamicMerge[] = [];
  readonly lengths: number[];
  countUpdates = 0;
  readonly filledRows: number;

  // The batch: rows end to end, one position per token. A merged pair lives on at its left position.
  readonly #rowStarts: Uint32Array; // [rows + 1]
  readonly #first: Int32Array; // [positions], tokens before merging
  readonly #tokens: Int32Array; // [positions], -1 = swallowed by a merge
  readonly #next: Int32Array; // [positions], -1 = last of its row
  readonly #previous: Int32Array; // [positions], -1 = first of its row
  // What was replaced, in order: the position kept and the one swallowed.
  readonly #kept: Int32Array;
  readonly #swallowed: Int32Array;
  #replaced = 0;

  // Pairs, by index. The occurrences of a pair are a list of the positions of its left half, ascending.
  readonly #pairs: PairTable;
  readonly #lefts: number[] = [];
  readonly #rights: number[] = [];
  readonly #allowed: boolean[] = [];
  readonly #counts: number[] = [];
  readonly #heads: number[] = [];
  readonly #tails: number[] = [];
  readonly #inserted: number[] = []; // where an occurrence was put last: the next one mostly goes near it
  readonly #changedIn: number[] = []; // merge in which its count or head changed last
  readonly #pairAt: Int32Array; // [positions], the allowed pair that starts there, else -1
  readonly #nextOccurrence: Int32Array;
  readonly #previousOccurrence: Int32Array;

  // (count, first occurrence), highest count first, then lowest position; stale where the pair there has other values.
  readonly #heap: MinHeap;
  readonly #changed: number[] = [];

  // Tokens of the batch. Bytes are strings of one UTF-16 unit per byte: they are keys.
  readonly #spelling: string[] = [];
  readonly #tokenOf = new Map<string, number>();
  readonly #mergeable: boolean[] = [];
  readonly #parts: (number | readonly [left: number, right: number])[] = []; // an id, or the two that made it
  readonly #rule: MergeRule;
  #scratch = new Uint8Array(64);

  constructor(rows: readonly ArrayLike<number>[], options: DynamicMergingOptions) {
    const { tokenizer, boundary = "pretokens", pattern = tokenizer.pattern } = options;
    if (!mergeBoundaries.includes(boundary)) {
      throw new ArgumentError("options.boundary", `one of ${mergeBoundaries.join(", ")}`, boundary);
    }
    if (boundary === "pretokens" && pattern === undefined) {
      throw new ArgumentError("options.pattern", "a split pattern: the tokenizer has none", pattern);
    }
    this.#rule = mergeRule(boundary, pattern);
    this.filledRows = rows.filter((row) => row.length > 0).length;
    this.#rowStarts = new Uint32Array(rows.length + 1);
    rows.forEach((row, r) => {
      this.#rowStarts[r + 1] = this.#rowStarts[r]! + row.length;
    });
    const size = rows.reduce((sum, row) => sum + row.length, 0);
    if (size > POSITIONS) throw new ArgumentError("rows", `at most ${POSITIONS} tokens in all`, size);
    this.lengths = [size];
    this.#first = this.#numberTokens(rows, size, tokenizer, options.protectedIds ?? tokenizer.specialTokens?.values());
    this.#tokens = this.#first.slice();
    this.#next = new Int32Array(size);
    this.#previous = new Int32Array(size);
    for (let r = 0; r < rows.length; r++) {
      const [start, end] = [this.#rowStarts[r]!, this.#rowStarts[r + 1]!];
      for (let at = start; at < end; at++) {
        this.#next[at] = at + 1 < end ? at + 1 : -1;
        this.#previous[at] = at > start ? at - 1 : -1;
      }
    }
    this.#kept = new Int32Array(size);
    this.#swallowed = new Int32Array(size);
    this.#pairs = new PairTable(size);
    this.#pairAt = new Int32Array(size).fill(-1);
    this.#nextOccurrence = new Int32Array(size);
    this.#previousOccurrence = new Int32Array(size);
    this.#heap = new MinHeap(2 * size);
    for (let at = 0; at < size; at++) if (this.#next[at]! >= 0) this.#add(at);
    this.#offerChanged();
  }

  get pairsJudged(): number {
    return this.#lefts.length;
  }

  /** Merge the best pair; false when none is left. */
  step(): boolean {
    const pair = this.#takeBest();
    if (pair < 0) return false;
    const left = this.#lefts[pair]!;
    const right = this.#rights[pair]!;
    const merged = this.#joined(left, right);
    const count = this.#counts[pair]!;
    this.merges.push({ left, right, merged, count });
    const tokens = this.#tokens;
    const before = this.#replaced;
    // The merged token is longer than either half, so no new occurrence of this pair comes up on the way.
    for (let at = this.#heads[pair]!; at >= 0; at = this.#heads[pair]!) {
      const second = this.#next[at]!;
      const previous = this.#previous[at]!;
      const next = this.#next[second]!;
      this.#remove(at);
      this.#remove(second);
      if (previous >= 0) this.#remove(previous);
      tokens[at] = merged;
      tokens[second] = -1;
      this.#next[at] = next;
      if (next >= 0) this.#previous[next] = at;
      this.#kept[this.#replaced] = at;
      this.#swallowed[this.#replaced++] = second;
      if (previous >= 0) this.#add(previous);
      if (next >= 0) this.#add(at);
    }
    this.lengths.push(this.lengths.at(-1)! - (this.#replaced - before));
    this.#offerChanged();
    return true;
  }

  /** The batch as it was after that many merges. */
  rowsAfter(merges: number): MergedRow[] {
    const tokens = this.#first.slice();
    let replaced = 0;
    for (let m = 0; m < merges; m++) {
      for (const end = this.lengths[0]! - this.lengths[m + 1]!; replaced < end; replaced++) {
        tokens[this.#kept[replaced]!] = this.merges[m]!.merged;
        tokens[this.#swallowed[replaced]!] = -1;
      }
    }
    return Array.from({ length: this.#rowStarts.length - 1 }, (_, r) => {
      const row = tokens.subarray(this.#rowStarts[r]!, this.#rowStarts[r + 1]!);
      const starts = Uint32Array.from(row.keys()).filter((at) => row[at]! >= 0);
      return { tokens: Uint32Array.from(starts, (at) => row[at]!), starts };
    });
  }

  bytes(token: number): Uint8Array {
    const spelling = this.#spelling[this.#known(token)]!;
    return Uint8Array.from(spelling, (unit) => unit.charCodeAt(0));
  }

  pieces(token: number): Uint32Array {
    const ids: number[] = [];
    const open = [this.#known(token)];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      const parts = this.#parts[next]!;
      if (typeof parts === "number") ids.push(parts);
      else open.push(parts[1], parts[0]);
    }
    return Uint32Array.from(ids);
  }

  #known(token: number): number {
    if (token in this.#spelling) return token;
    throw new ArgumentError("token", `a token of the batch (0..${this.#spelling.length - 1})`, token);
  }

  #numberTokens(
    rows: readonly ArrayLike<number>[],
    size: number,
    tokenizer: MergeableTokenizer,
    protectedIds: Iterable<number> = [],
  ): Int32Array {
    const apart = new Set(protectedIds);
    const numbers = new Map<number, number>(); // by id
    const tokens = new Int32Array(size);
    let at = 0;
    rows.forEach((row, r) => {
      for (let i = 0; i < row.length; i++) {
        const id = row[i]!;
        let token = numbers.get(id);
        if (token === undefined) {
          if (!(Number.isInteger(id) && id >= 0 && id < tokenizer.vocabularySize)) {
            throw new ArgumentError(`rows[${r}][${i}]`, `a token id from 0 to ${tokenizer.vocabularySize - 1}`, id);
          }
          token = this.#spelling.length;
          const bytes = String.fromCharCode(...tokenizer.tokenBytes(id));
          // What has no bytes cannot grow: merged with it a token would stay what it is.
          const mergeable = bytes !== "" && !apart.has(id);
          numbers.set(id, token);
          this.#spelling.push(bytes);
          this.#parts.push(id);
          this.#mergeable.push(mergeable);
          if (mergeable && !this.#tokenOf.has(bytes)) this.#tokenOf.set(bytes, token);
        }
        tokens[at++] = token;
      }
    });
    return tokens;
  }

  /** The token with the bytes of both, made where there is none. */
  #joined(left: number, right: number): number {
    const bytes = this.#spelling[left]! + this.#spelling[right]!;
    let token = this.#tokenOf.get(bytes);
    if (token === undefined) {
      token = this.#spelling.length;
      this.#tokenOf.set(bytes, token);
      this.#spelling.push(bytes);
      this.#parts.push([left, right]);
      this.#mergeable.push(true);
    }
    return token;
  }

  #pairOf(left: number, right: number): number {
    let pair = this.#pairs.get(left, right);
    if (pair < 0) {
      pair = this.#counts.length;
      this.#pairs.set(left, right, pair);
      this.#lefts.push(left);
      this.#rights.push(right);
      this.#allowed.push(this.#mergeable[left]! && this.#mergeable[right]! && this.#judge(left, right));
      this.#counts.push(0);
      this.#heads.push(-1);
      this.#tails.push(-1);
      this.#inserted.push(-1);
      this.#changedIn.push(-1);
    }
    return pair;
  }

  #judge(left: number, right: number): boolean {
    const [x, y] = [this.#spelling[left]!, this.#spelling[right]!];
    const size = x.length + y.length;
    if (size > this.#scratch.length) this.#scratch = new Uint8Array(2 * size);
    const bytes = this.#scratch;
    for (let i = 0; i < x.length; i++) bytes[i] = x.charCodeAt(i);
    for (let i = 0; i < y.length; i++) bytes[x.length + i] = y.charCodeAt(i);
    return this.#rule(bytes, x.length, size);
  }

  /** Count the pair that starts at a position, unless it is not allowed. */
  #add(at: number): void {
    this.countUpdates++;
    const pair = this.#pairOf(this.#tokens[at]!, this.#tokens[this.#next[at]!]!);
    if (!this.#allowed[pair]) return;
    // Behind the last one, or else from where the last went in: positions come in order within a merge.
    let before = this.#tails[pair]!;
    if (before > at) {
      const near = this.#inserted[pair]!;
      before = this.#pairAt[near] === pair ? near : this.#heads[pair]!;
      while (before > at) before = this.#previousOccurrence[before]!;
      if (before >= 0) {
        for (let next = this.#nextOccurrence[before]!; next < at; next = this.#nextOccurrence[before]!) before = next;
      }
    }
    const after = before < 0 ? this.#heads[pair]! : this.#nextOccurrence[before]!;
    this.#link(pair, before, at);
    this.#link(pair, at, after);
    this.#inserted[pair] = at;
    this.#pairAt[at] = pair;
    this.#counts[pair]!++;
    this.#noteChange(pair);
  }

  #remove(at: number): void {
    const pair = this.#pairAt[at]!;
    if (pair < 0) return;
    this.countUpdates++;
    this.#link(pair, this.#previousOccurrence[at]!, this.#nextOccurrence[at]!);
    this.#pairAt[at] = -1;
    this.#counts[pair]!--;
    this.#noteChange(pair);
  }

  /** Make two occurrences neighbours in their list; -1 is its end on that side. */
  #link(pair: number, before: number, after: number): void {
    if (before < 0) this.#heads[pair] = after;
    else this.#nextOccurrence[before] = after;
    if (after < 0) this.#tails[pair] = before;
    else this.#previousOccurrence[after] = before;
  }

  #noteChange(pair: number): void {
    if (this.#changedIn[pair] === this.merges.length) return;
    this.#changedIn[pair] = this.merges.length;
    this.#changed.push(pair);
  }

  #offerChanged(): void {
    for (const pair of this.#changed) {
      const count = this.#counts[pair]!;
      if (count > 0) this.#heap.push((POSITIONS - count) * POSITIONS + this.#heads[pair]!);
    }
    this.#changed.length = 0;
  }

  #takeBest(): number {
    while (this.#heap.size > 0) {
      const entry = this.#heap.pop();
      const rest = Math.floor(entry / POSITIONS);
      const first = entry - rest * POSITIONS;
      const pair = this.#pairAt[first]!;
      if (pair >= 0 && this.#heads[pair] === first && this.#counts[pair] === POSITIONS - rest) return pair;
    }
    return -1;
  }
}
