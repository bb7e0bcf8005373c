/**
 * Unigram language model tokenization (Kudo, arXiv 1804.10959; SentencePiece, Kudo & Richardson, arXiv 1808.06226).
 *
 * Every piece has a probability, and a segmentation has the product of its pieces'. Encoding takes the segmentation of
 * the highest probability; training finds pieces and probabilities under which the text is likely
 * (`unigram-trainer.ts`). Since all segmentations have a probability, the n best can be listed and one can be drawn:
 * models trained on drawn ones ("subword regularization") know words by their parts as well.
 *
 *     encode(text) = argmax over segmentations x of sum log p(x_i)
 *     sample(text) = x with probability proportional to P(x)^alpha
 *
 * Characters that are no piece are spelled in bytes, or become the unknown token (a run of them one token). Spaces belong
 * to the piece behind them.
 *
 * **Deviations** from Hugging Face's Unigram, whose ids it otherwise gives: byte, control and unknown pieces never match
 * the text that spells them ("<0x41>" is six characters here, as in SentencePiece), and U+2581, which stands for the space
 * in files, is an ordinary character in texts: both for the sake of exact round trips. Sampling is SentencePiece's law;
 * Hugging Face's compounds alpha. Decoding turns cut characters into one U+FFFD, there one for each byte.
 * Of segmentations with exactly the same score (the same pieces in another order) the choice is that of Hugging Face's
 * library in Rust; its npm package sums over the whole text and there rounding decides.
 *
 * **Unlike** `bpe.ts`: a law over all segmentations instead of a list of merges, and characters instead of bytes; with
 * `prefixSpace` decoding drops the leading space, whoever put it there; without byte fallback unknown text is lost.
 *
 * Example: a = b = c = d = 0, cd = 1, ab = 2, abc = 5, abcd = 10: "abcdacdxx" becomes abcd|a|cd|unknown.
 */

import { ArgumentError, FormatError } from "../errors.ts";
import { Random } from "../tensor/random.ts";
import { ByteTrie } from "./byte-trie.ts";
import type { HuggingFaceTokenizer } from "./hugging-face-format.ts";
import { type HuggingFaceUnigram, readUnigram, writeUnigram } from "./hugging-face-unigram.ts";
import { IdBuffer } from "./id-buffer.ts";
import { encodeWithOffsets, type StretchEncoding, unitsOfBytes } from "./offsets.ts";
import { PieceCache } from "./piece-cache.ts";
import { SpecialTokens } from "./special-tokens.ts";
import { hashBytes, joinBytes, TokenTable } from "./token-table.ts";
import type { EncodeOptions, EncodingWithOffsets, Tokenizer } from "./tokenizer.ts";
import { byteName, type UnigramDefinition } from "./unigram-definition.ts";
import { type Path, PLACEHOLDER, UNKNOWN, UnigramLattice } from "./unigram-lattice.ts";
import { trainUnigramDefinition, type UnigramTrainingOptions } from "./unigram-training.ts";

export interface UnigramSampleOptions extends EncodeOptions {
  /** Exponent of the probabilities: 1 draws by the model's own law, 0 evenly, large ones the best. Default 0.1. */
  readonly alpha?: number;
  /** Draw among this many best segmentations only. Default: among all. */
  readonly nBest?: number;
  /** Where the draws begin. The same text, seed and options give the same ids. Default 0. */
  readonly seed?: number | string;
}

/** One of several segmentations of a text. */
export interface ScoredEncoding {
  readonly ids: Uint32Array;
  /** Log-probability: the sum over its pieces. */
  readonly score: number;
}

const UTF8 = new TextEncoder();
const SPACE = 0x20;
/** Below the worst piece: what a character costs that is no piece. As in SentencePiece. */
const UNKNOWN_PENALTY = 10;

export class Unigram implements Tokenizer {
  readonly vocabularySize: number;
  /** Id of each special token by content. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /** What it is made of. */
  readonly definition: UnigramDefinition;
  readonly #tokens: TokenTable; // what each id decodes to
  readonly #spelled: Uint8Array; // per id: 1 where its leading space is the text's, as for bytes and special tokens
  readonly #byteIds: Int32Array | undefined;
  readonly #special: SpecialTokens;
  readonly #lattice: UnigramLattice;
  readonly #cache = new PieceCache();

  /** Prefer `Unigram.train` or `Unigram.fromHuggingFace`. */
  constructor(definition: UnigramDefinition) {
    const { source, pieces, unknownId, byteFallback, split } = definition;
    this.definition = definition;
    this.specialTokens = definition.specialTokens;
    this.#special = new SpecialTokens(definition);
    const bytes: (Uint8Array | undefined)[] = pieces.map(({ text }) => UTF8.encode(text));
    const isControl = new Set<number>(unknownId === undefined ? [] : [unknownId]);
    for (const [content, id] of [...definition.specialTokens, ...definition.addedTokens]) {
      while (bytes.length <= id) bytes.push(undefined);
      bytes[id] = UTF8.encode(content);
      isControl.add(id);
    }
    this.#byteIds = byteFallback ? findBytePieces(definition) : undefined;
    this.#byteIds?.forEach((id, byte) => {
      bytes[id] = Uint8Array.of(byte);
      isControl.add(id);
    });
    this.#tokens = new TokenTable(bytes);
    this.vocabularySize = bytes.length;
    this.#spelled = Uint8Array.from(bytes, (_, id) => (isControl.has(id) ? 1 : 0));

    const trie = new ByteTrie(8 * pieces.length);
    const seen = new Set<string>();
    pieces.forEach(({ text }, id) => {
      if (isControl.has(id)) return;
      if (seen.has(text)) throw new FormatError(source, `piece ${id} repeats another piece`);
      seen.add(text);
      trie.add(bytes[id]!, id);
    });
    const worst = pieces.reduce((least, { score }) => Math.min(least, score), Number.POSITIVE_INFINITY);
    this.#lattice = new UnigramLattice(
      trie,
      Float64Array.from(pieces, ({ score }) => score),
      { unknownScore: worst - UNKNOWN_PENALTY, split },
    );
  }

  /**
   * Learn a vocabulary from texts. Nothing crosses from one word to the next: a piece has a space at most in front.
   * @throws ArgumentError where there is no text, `vocabSize` does not hold all characters, or the texts have too few
   * pieces to reach it (the message says how far they reach)
   */
  static train(texts: Iterable<string>, options: UnigramTrainingOptions): Unigram {
    return new Unigram(trainUnigramDefinition(texts, options));
  }

  /**
   * Read a Hugging Face `tokenizer.json`, as text or parsed. Templates of its post-processor are not applied.
   * @throws FormatError on what this tokenizer would not reproduce exactly: another model type, a normalizer other than NFC
   * or NFKC (SentencePiece's `Precompiled` among them), a pre-tokenizer or decoder that is not Metaspace, ...
   */
  static fromHuggingFace(json: string | object): Unigram {
    return new Unigram(readUnigram(json));
  }

  /** The content of a `tokenizer.json`; write it with `JSON.stringify`. Hugging Face's tokenizers open it. */
  toHuggingFace(): HuggingFaceTokenizer<HuggingFaceUnigram> {
    return writeUnigram(this.definition);
  }

  encode(text: string, options: EncodeOptions = {}): Uint32Array {
    if (typeof text !== "string") throw new ArgumentError("text", "a string", text);
    const ids = new IdBuffer(16 + (text.length >> 2));
    let isFirst = true;
    for (const segment of this.#special.split(text, options)) {
      if (segment.id >= 0) ids.push(segment.id);
      else this.#encodeStretch(this.#bytesOf(segment.text, isFirst), ids);
      isFirst = false;
    }
    return ids.toArray();
  }

  /** `encode`, with the stretch of text behind each token; see `EncodingWithOffsets`. A prefix space has no stretch. */
  encodeWithOffsets(text: string, options: EncodeOptions = {}): EncodingWithOffsets {
    return encodeWithOffsets(text, options, this.#special, this.definition, (stretch, isFirst) =>
      this.#stretchWithOffsets(stretch, isFirst),
    );
  }

  /**
   * The `count` best segmentations of the whole text, best first, all different; fewer where there are fewer. The first
   * is `encode`'s or of the same score. Time and memory grow with `count` times the length of the text.
   */
  nBest(text: string, count: number, options: EncodeOptions = {}): ScoredEncoding[] {
    if (!Number.isInteger(count) || count < 1) throw new ArgumentError("count", "an integer >= 1", count);
    const bytes = this.#layOut(text, options);
    return this.#lattice.nBest(count).map((path) => this.#scored(path, bytes));
  }

  /** One segmentation drawn by probability. */
  sample(text: string, { alpha = 0.1, nBest, seed = 0, ...options }: UnigramSampleOptions = {}): Uint32Array {
    if (!(alpha >= 0 && alpha < Number.POSITIVE_INFINITY)) {
      throw new ArgumentError("options.alpha", "a finite number >= 0", alpha);
    }
    const random = new Random(seed);
    if (nBest !== undefined) {
      const best = this.nBest(text, nBest, options);
      return best[random.categorical(best.map(({ score }) => Math.exp(alpha * (score - best[0]!.score))))]!.ids;
    }
    const bytes = this.#layOut(text, options);
    return this.#scored(this.#lattice.sample(alpha, random), bytes).ids;
  }

  decode(ids: ArrayLike<number>): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.decodeBytes(ids));
  }

  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    const parts = Array.from(ids, (id, i) => this.#checked(id, `ids[${i}]`));
    if (parts.length > 0) parts[0] = this.bytesAfter(undefined, ids[0]!);
    return joinBytes(parts);
  }

  tokenBytes(id: number): Uint8Array {
    return this.#checked(id, "id").slice();
  }

  /** At the start of a text, a piece of a tokenizer with a prefix space loses its leading spaces. */
  bytesAfter(previous: number | undefined, id: number): Uint8Array {
    const bytes = this.tokenBytes(id);
    if (previous !== undefined || this.definition.prefixSpace === "never" || this.#spelled[id] === 1) return bytes;
    const start = bytes.findIndex((byte) => byte !== SPACE);
    return bytes.subarray(start < 0 ? bytes.length : start);
  }

  #checked(id: number, argument: string): Uint8Array {
    const isId = Number.isInteger(id) && id >= 0 && id < this.vocabularySize && this.#tokens.length(id) > 0;
    if (!isId) throw new ArgumentError(argument, `a token id of this vocabulary (0..${this.vocabularySize - 1})`, id);
    return this.#tokens.get(id);
  }

  /** UTF-8 of a stretch behind its prefix space, if it gets one. */
  #bytesOf(stretch: string, isFirst: boolean): Uint8Array {
    return UTF8.encode(this.#prefixed(stretch, isFirst) ? ` ${stretch}` : stretch);
  }

  #prefixed(stretch: string, isFirst: boolean): boolean {
    const { prefixSpace } = this.definition;
    return (prefixSpace === "always" || (prefixSpace === "first" && isFirst)) && !stretch.startsWith(" ");
  }

  /** Word by word: words met lately are in a small cache. */
  #encodeStretch(bytes: Uint8Array, into: IdBuffer): void {
    for (let start = 0; start < bytes.length; ) {
      const end = this.#wordEnd(bytes, start);
      const hash = hashBytes(bytes, start, end);
      into.reserve(PieceCache.MAX_IDS);
      const count = this.#cache.read(hash, bytes, start, end, into.values, into.length);
      if (count === 0) {
        const before = into.length;
        this.#lattice.build(bytes, start, end);
        this.#spell(this.#lattice.best(), bytes.subarray(start, end), into);
        this.#cache.write(hash, bytes, start, end, into.values.subarray(before, into.length), into.length - before);
      } else {
        into.length += count;
      }
      start = end;
    }
  }

  #stretchWithOffsets(stretch: string, isFirst: boolean): StretchEncoding {
    const bytes = this.#bytesOf(stretch, isFirst);
    const ids = new IdBuffer();
    const byteEnds = new IdBuffer();
    for (let start = 0; start < bytes.length; ) {
      const end = this.#wordEnd(bytes, start);
      this.#lattice.build(bytes, start, end);
      this.#spell(this.#lattice.best(), bytes.subarray(start, end), ids, byteEnds, start);
      start = end;
    }
    const added = this.#prefixed(stretch, isFirst) ? 1 : 0;
    const units = unitsOfBytes(stretch);
    const starts: number[] = [];
    const ends: number[] = [];
    for (let i = 0, start = 0; i < ids.length; i++) {
      const end = byteEnds.values[i]!;
      starts.push(end <= added ? 0 : units.starts[Math.max(0, start - added)]!);
      ends.push(end <= added ? 0 : units.ends[end - added - 1]!);
      start = end;
    }
    return { ids: ids.values.subarray(0, ids.length), starts, ends };
  }

  #wordEnd(bytes: Uint8Array, start: number): number {
    if (!this.definition.split) return bytes.length;
    const end = bytes.indexOf(SPACE, start + 1);
    return end < 0 ? bytes.length : end;
  }

  /** The whole text as one lattice, special tokens as edges of their own; its bytes, with placeholders for those. */
  #layOut(text: string, options: EncodeOptions): Uint8Array {
    if (typeof text !== "string") throw new ArgumentError("text", "a string", text);
    const placed = new Map<number, number>();
    const parts: Uint8Array[] = [];
    let size = 0;
    for (const segment of this.#special.split(text, options)) {
      const part = segment.id >= 0 ? Uint8Array.of(PLACEHOLDER) : this.#bytesOf(segment.text, parts.length === 0);
      if (segment.id >= 0) placed.set(size, segment.id);
      parts.push(part);
      size += part.length;
    }
    const bytes = joinBytes(parts);
    this.#lattice.build(bytes, 0, size, placed);
    return bytes;
  }

  #scored(path: Path, bytes: Uint8Array): ScoredEncoding {
    const ids = new IdBuffer();
    this.#spell(path, bytes, ids);
    return { ids: ids.toArray(), score: path.score };
  }

  /**
   * Append the ids of a path through `bytes`: unknown characters as bytes, or a run of them within a word as one token.
   * @param byteEnds where each id ends, counted from `base`
   */
  #spell({ ids, ends }: Path, bytes: Uint8Array, into: IdBuffer, byteEnds?: IdBuffer, base = 0): void {
    let start = 0;
    let inUnknown = false;
    for (let i = 0; i < ids.length; i++) {
      const end = ends[i]!;
      const id = ids[i]!;
      if (id !== UNKNOWN) {
        into.push(id);
        byteEnds?.push(base + end);
      } else if (this.#byteIds !== undefined) {
        for (let at = start; at < end; at++) {
          into.push(this.#byteIds[bytes[at]!]!);
          byteEnds?.push(base + at + 1);
        }
      } else if (inUnknown && !(this.definition.split && bytes[start] === SPACE)) {
        if (byteEnds !== undefined) byteEnds.values[byteEnds.length - 1] = base + end;
      } else {
        into.push(this.definition.unknownId!);
        byteEnds?.push(base + end);
      }
      inUnknown = id === UNKNOWN;
      start = end;
    }
  }
}

/** @throws FormatError where a byte has no piece */
function findBytePieces({ source, pieces }: UnigramDefinition): Int32Array {
  const idOf = new Map(pieces.map(({ text }, id) => [text, id]));
  return Int32Array.from({ length: 256 }, (_, byte) => {
    const id = idOf.get(byteName(byte));
    if (id === undefined) throw new FormatError(source, `byte fallback has no piece ${byteName(byte)}`);
    return id;
  });
}
