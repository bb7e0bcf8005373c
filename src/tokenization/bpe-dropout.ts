/**
 * BPE-dropout (Provilkov, Emelianenko, Voita, arXiv 1910.13267, algorithm 1): byte-pair encoding that forgets merges.
 *
 * A model trained on the one best segmentation of each word never sees how its parts spell it. Here every merge that
 * applies is left out with probability p, at every step afresh, and the best of the others is done; when all are left out
 * the word stays as it is. The vocabulary is that of the tokenizer it wraps, and so is decoding: every segmentation
 * spells the same bytes.
 *
 *     P(next merge is the k-th best of those that apply) = p^(k - 1) (1 - p),      P(stop) = p^n with n that apply
 *
 * p = 0 is `Bpe`, p = 1 leaves bytes. Merges that apply are asked in order of rank (of equals the leftmost first), so a
 * step draws 1 / (1 - p) numbers in the mean however long the piece; a heap holds what is asked later.
 *
 * **Deviations**: none from the paper. Published implementations have other laws: Hugging Face's asks pairs again that are
 * already gone, SentencePiece's forgets a pair once it was left out, until a neighbour changes. With p > 0 a piece that is
 * a token as a whole, but that merging cannot reach (tiktoken's rule), is merged like any other.
 *
 * **Unlike** `bpe.ts`: a law over segmentations instead of one, a function of text and seed.
 *
 * Example: merges cd, ab and p = 0.1: "abcd" is ab|cd with probability 0.891, a|b|cd 0.09, ab|c|d 0.009, a|b|c|d 0.01.
 */

import { ArgumentError, FormatError } from "../errors.ts";
import { Random } from "../tensor/random.ts";
import { Bpe } from "./bpe.ts";
import { buildMergeTable } from "./bpe-definition.ts";
import type { MergeTable } from "./bpe-merger.ts";
import { type HuggingFaceTokenizer, modelType, parseFile, SOURCE } from "./hugging-face-format.ts";
import { IdBuffer } from "./id-buffer.ts";
import { MinHeap } from "./min-heap.ts";
import { SpecialTokens } from "./special-tokens.ts";
import { pieceEnds } from "./split-patterns.ts";
import { TokenTable } from "./token-table.ts";
import type { EncodeOptions, Tokenizer } from "./tokenizer.ts";

export interface BpeDropoutEncodeOptions extends EncodeOptions {
  /** Where the draws begin. The same text, seed and options give the same ids. Default 0. */
  readonly seed?: number | string;
}

/** A heap entry is `rank * POSITIONS + position`, exact in a double: ranks stay below 2^22. */
const POSITIONS = 2 ** 31;

export class BpeDropout implements Tokenizer {
  readonly vocabularySize: number;
  /** Probability of leaving out a merge. */
  readonly dropout: number;
  /** What it is without dropout. */
  readonly bpe: Bpe;
  readonly #merges: MergeTable;
  readonly #special: SpecialTokens;

  /**
   * @param dropout probability of leaving out a merge, in [0, 1]. Default 0.1, the paper's
   * @throws ArgumentError when it is not
   */
  constructor(bpe: Bpe, { dropout = 0.1 }: { readonly dropout?: number } = {}) {
    if (!(dropout >= 0 && dropout <= 1)) throw new ArgumentError("options.dropout", "a number from 0 to 1", dropout);
    this.bpe = bpe;
    this.dropout = dropout;
    this.vocabularySize = bpe.vocabularySize;
    this.#merges = buildMergeTable(bpe.definition, new TokenTable(bpe.definition.tokens));
    this.#special = new SpecialTokens(bpe.definition);
  }

  /**
   * Read a `tokenizer.json` whose BPE model has a `dropout` (absent or null is 0).
   * @throws FormatError where `Bpe.fromHuggingFace` throws, or the dropout is not a number from 0 to 1
   */
  static fromHuggingFace(json: string | object): BpeDropout {
    const file = parseFile(json);
    if (modelType(file) !== "BPE") return new BpeDropout(Bpe.fromHuggingFace(file)); // throws
    const model = file["model"] as Record<string, unknown>;
    const dropout = model["dropout"] ?? 0;
    if (typeof dropout !== "number" || !(dropout >= 0 && dropout <= 1)) {
      throw new FormatError(SOURCE, "model.dropout is not a number from 0 to 1");
    }
    return new BpeDropout(Bpe.fromHuggingFace({ ...file, model: { ...model, dropout: null } }), { dropout });
  }

  /** The content of a `tokenizer.json`. Hugging Face's tokenizers open it and drop merges too, by their own law. */
  toHuggingFace(): HuggingFaceTokenizer {
    const file = this.bpe.toHuggingFace();
    return { ...file, model: { ...file.model, dropout: this.dropout } };
  }

  /** One draw from the law over segmentations. */
  encode(text: string, options: BpeDropoutEncodeOptions = {}): Uint32Array {
    if (this.dropout === 0) return this.bpe.encode(text, options);
    if (typeof text !== "string") throw new ArgumentError("text", "a string", text);
    const random = new Random(options.seed ?? 0);
    const ids = new IdBuffer(16 + (text.length >> 1));
    const utf8 = new TextEncoder();
    for (const segment of this.#special.split(text, options)) {
      if (segment.id >= 0) {
        ids.push(segment.id);
        continue;
      }
      let start = 0;
      for (const end of pieceEnds(segment.text, this.bpe.pattern)) {
        this.#encodePiece(utf8.encode(segment.text.slice(start, end)), random, ids);
        start = end;
      }
    }
    return ids.toArray();
  }

  decode(ids: ArrayLike<number>): string {
    return this.bpe.decode(ids);
  }

  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    return this.bpe.decodeBytes(ids);
  }

  tokenBytes(id: number): Uint8Array {
    return this.bpe.tokenBytes(id);
  }

  #encodePiece(bytes: Uint8Array, random: Random, into: IdBuffer): void {
    const { byteIds, ranks, results } = this.#merges;
    const size = bytes.length;
    const ids = Int32Array.from(bytes, (byte) => byteIds[byte]!);
    const next = Int32Array.from(bytes, (_, i) => (i + 1 < size ? i + 1 : -1));
    const previous = Int32Array.from(bytes, (_, i) => i - 1);
    const pairRanks = new Int32Array(size).fill(-1); // of the pair that starts at each position, -1 = none merges
    const heap = new MinHeap(size);
    const enter = (at: number): void => {
      pairRanks[at] = next[at]! >= 0 ? ranks.get(ids[at]!, ids[next[at]!]!) : -1;
      if (pairRanks[at]! >= 0) heap.push(pairRanks[at]! * POSITIONS + at);
    };
    if (this.dropout < 1) for (let at = 0; at < size; at++) enter(at);
    const dropped: number[] = []; // at this step
    while (heap.size > 0) {
      const entry = heap.pop();
      const rank = Math.floor(entry / POSITIONS);
      const at = entry - rank * POSITIONS;
      if (pairRanks[at] !== rank) continue; // that pair is gone
      if (random.uniform() < this.dropout) {
        dropped.push(entry);
        continue;
      }
      const second = next[at]!;
      ids[at] = results[rank]!;
      pairRanks[second] = -1;
      next[at] = next[second]!;
      if (next[at]! >= 0) previous[next[at]!] = at;
      for (const waiting of dropped) heap.push(waiting);
      dropped.length = 0;
      enter(at);
      if (previous[at]! >= 0) enter(previous[at]!);
    }
    for (let at = 0; at >= 0; at = next[at]!) into.push(ids[at]!);
  }
}
