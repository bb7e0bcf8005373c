/**
 * Learning a unigram language model of pieces (Kudo, arXiv 1804.10959, section 3.2; the numbers are SentencePiece's).
 *
 * Begin with far too many pieces. Then, until few enough are left: two rounds of expectation and maximisation, and drop
 * those pieces that the text would miss least.
 *
 *     E    c(x) = sum over words w of frequency(w) * E[uses of x in a segmentation of w]       forward-backward
 *     M    log p(x) = psi(c(x)) - psi(sum of c)      (digamma: a Dirichlet prior that favours few pieces; or log c / sum c)
 *     loss(x) = F (log p(x) - sum over y of log p'(y)),   y the best segmentation of x without x itself
 *
 * F is the share of x in the best segmentations and p' the law once x's uses are given to the y. A piece whose own best
 * segmentation is not itself goes; one whose expectation falls below 0.5 goes.
 *
 * **Deviations** from SentencePiece: single characters are never dropped (there they may be and come back at the end, with
 * the lowest score): one that the pieces above it make needless keeps an expectation of 0.5. Seeds count words by their
 * frequency (there each distinct word once), and candidates longer than the limit are cut (there left out).
 *
 * Example: p(a) = 0.5, p(b) = 0.3, p(ab) = 0.2 on ten times "ab": c(a) = c(b) = 4.2857, c(ab) = 5.7143.
 */

import { ByteTrie } from "./byte-trie.ts";
import { TokenTable } from "./token-table.ts";
import { UnigramLattice } from "./unigram-lattice.ts";
import { seedPieces } from "./unigram-seeds.ts";

export interface Piece {
  readonly text: string;
  /** Log-probability. */
  readonly score: number;
}

export interface UnigramTrainerOptions {
  /** Longest piece, in characters. */
  readonly longestPiece: number;
  /** Most candidates to begin with. */
  readonly seedSize: number;
  /** Share of the pieces that a pruning keeps, in (0, 1). */
  readonly shrinkingFactor: number;
  /** `"digamma"` or `"relative-frequency"`. */
  readonly estimate: "digamma" | "relative-frequency";
}

/** Pieces drop out below this expectation. */
const LEAST_EXPECTATION = 0.5;
const ROUNDS = 2;
/** Pruning stops at this multiple of the wanted size; the last step picks by score. */
const SLACK = 1.1;

/**
 * The best `wanted` pieces for the words, by falling score; fewer where the words do not have so many.
 * @param words frequency by word, not empty
 * @param wanted at least the number of different characters, all of which are kept
 */
export function trainUnigram(
  words: ReadonlyMap<string, number>,
  wanted: number,
  options: UnigramTrainerOptions,
): Piece[] {
  const corpus = new Corpus(words);
  let pieces = firstPieces(words, options);
  for (;;) {
    for (let round = 0; round < ROUNDS; round++) {
      pieces = maximise(pieces, corpus.expectations(pieces).counts, options.estimate);
    }
    if (pieces.length <= SLACK * wanted) break;
    const keep = Math.max(Math.floor(SLACK * wanted), Math.floor(options.shrinkingFactor * pieces.length));
    const pruned = corpus.prune(pieces, keep);
    if (pruned.length === pieces.length) break;
    pieces = pruned;
  }
  const byScore = (a: Piece, b: Piece): number => b.score - a.score || (a.text < b.text ? -1 : 1);
  const required = pieces.filter(isCharacter);
  const others = pieces.filter((piece) => !isCharacter(piece)).sort(byScore);
  return [...required, ...others.slice(0, Math.max(0, wanted - required.length))].sort(byScore);
}

/** The M step. Single characters stay. */
export function maximise(
  pieces: readonly Piece[],
  counts: Float64Array,
  estimate: UnigramTrainerOptions["estimate"],
): Piece[] {
  const kept: { text: string; count: number }[] = [];
  pieces.forEach((piece, id) => {
    if (counts[id]! >= LEAST_EXPECTATION || isCharacter(piece)) {
      kept.push({ text: piece.text, count: Math.max(counts[id]!, LEAST_EXPECTATION) });
    }
  });
  const log = estimate === "digamma" ? digamma : Math.log;
  const total = log(kept.reduce((sum, { count }) => sum + count, 0));
  return kept.map(({ text, count }) => ({ text, score: log(count) - total }));
}

/** Words with their frequencies, and what pieces make of them. */
export class Corpus {
  readonly #words: TokenTable;
  readonly #frequencies: Float64Array;

  constructor(words: ReadonlyMap<string, number>) {
    const utf8 = new TextEncoder();
    this.#words = new TokenTable([...words.keys()].map((word) => utf8.encode(word)));
    this.#frequencies = Float64Array.from(words.values());
  }

  /** The E step: expected uses of each piece, and the log-probability of all words. */
  expectations(pieces: readonly Piece[]): { counts: Float64Array; logLikelihood: number } {
    const lattice = latticeOf(pieces);
    const counts = new Float64Array(pieces.length);
    let logLikelihood = 0;
    this.#frequencies.forEach((frequency, word) => {
      lattice.build(this.#words.bytes, this.#words.offsets[word]!, this.#words.offsets[word + 1]!);
      logLikelihood += frequency * lattice.addExpectations(frequency, counts);
    });
    return { counts, logLikelihood };
  }

  /** Keep the `keep` pieces whose loss would cost most, single characters among them in any case. */
  prune(pieces: readonly Piece[], keep: number): Piece[] {
    const lattice = latticeOf(pieces);
    const uses = new Float64Array(pieces.length);
    let sum = 0;
    this.#frequencies.forEach((frequency, word) => {
      lattice.build(this.#words.bytes, this.#words.offsets[word]!, this.#words.offsets[word + 1]!);
      for (const id of lattice.best().ids) {
        uses[id]! += frequency;
        sum += frequency;
      }
    });
    const words = this.#frequencies.reduce((total, frequency) => total + frequency, 0);
    const utf8 = new TextEncoder();
    const candidates: { id: number; loss: number }[] = [];
    let kept = 0;
    const isKept = new Uint8Array(pieces.length);
    pieces.forEach((piece, id) => {
      if (isCharacter(piece)) {
        isKept[id] = 1;
        kept++;
      } else if (uses[id]! > 0) {
        const bytes = utf8.encode(piece.text);
        lattice.build(bytes, 0, bytes.length);
        const alternative = lattice.best(id);
        if (alternative.score > piece.score) return; // its own best segmentation is another
        const sumThen = Math.log(sum + uses[id]! * (alternative.ids.length - 1));
        let scoreThen = 0;
        for (const other of alternative.ids) scoreThen += Math.log(uses[other]! + uses[id]!) - sumThen;
        candidates.push({ id, loss: (uses[id]! / words) * (Math.log(uses[id]!) - Math.log(sum) - scoreThen) });
      }
    });
    candidates.sort((a, b) => b.loss - a.loss || a.id - b.id);
    for (const { id } of candidates.slice(0, Math.max(0, keep - kept))) isKept[id] = 1;
    return pieces.filter((_, id) => isKept[id] === 1);
  }
}

/** Characters and seeds, with the score that their frequencies give. */
function firstPieces(words: ReadonlyMap<string, number>, options: UnigramTrainerOptions): Piece[] {
  const weights = new Map<string, number>();
  for (const [word, frequency] of words) {
    for (const character of word) weights.set(character, (weights.get(character) ?? 0) + frequency);
  }
  for (const { text, frequency } of seedPieces(words, options.longestPiece, options.seedSize)) {
    weights.set(text, frequency * Array.from(text).length);
  }
  const total = Math.log([...weights.values()].reduce((sum, weight) => sum + weight, 0));
  return Array.from(weights, ([text, weight]) => ({ text, score: Math.log(weight) - total }));
}

function latticeOf(pieces: readonly Piece[]): UnigramLattice {
  const trie = new ByteTrie(8 * pieces.length);
  const utf8 = new TextEncoder();
  pieces.forEach(({ text }, id) => {
    trie.add(utf8.encode(text), id);
  });
  const scores = Float64Array.from(pieces, ({ score }) => score);
  // Every character of the words is a piece, so the unknown score is never used.
  return new UnigramLattice(trie, scores, { unknownScore: Number.NEGATIVE_INFINITY, split: false });
}

function isCharacter({ text }: Piece): boolean {
  return text.length === (text.codePointAt(0)! > 0xffff ? 2 : 1);
}

/**
 * The digamma function psi, the derivative of log Gamma, for x > 0: the recurrence psi(x) = psi(x + 1) - 1 / x up to 7,
 * then the asymptotic series at x - 1/2, good to 10^-12.
 */
export function digamma(x: number): number {
  let at = x;
  let result = 0;
  for (; at < 7; at++) result -= 1 / at;
  at -= 0.5;
  const inverse = 1 / (at * at);
  return (
    result +
    Math.log(at) +
    inverse * (1 / 24 - inverse * (7 / 960 - inverse * (31 / 8064 - inverse * (127 / 30720 - (inverse * 511) / 67584))))
  );
}
