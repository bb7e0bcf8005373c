/**
 * SentencePiece BPE (Kudo & Richardson, arXiv 1808.06226) as llama2.c reads and prints it.
 *
 * A piece is a string with a score. The text, behind one extra space, starts as characters; characters that are no piece
 * become the byte pieces `<0x00>`..`<0xFF>`. Any two neighbours whose concatenation is a piece may merge; the best score
 * goes first, the leftmost of equals. There is no split into words: a space is a character like any other.
 *
 * Ids 0, 1, 2 are unknown, begin and end of text; 3..258 the bytes; then the pieces.
 *
 * **Deviations**: of two different pieces with the same score the lower id merges first (trained files have none).
 * llama2.c's terminal output hides control bytes; decoding here keeps every byte.
 *
 * **Unlike** `bpe.ts`: characters instead of bytes, any pair with a known concatenation instead of listed merges, and a
 * decoder that drops the extra space at the start of a text.
 *
 * Example: "Once" becomes " Once"; behind the begin token, decoding prints "Once" again.
 */

import { ArgumentError, FormatError } from "../errors.ts";
import { TOKEN_LIMIT } from "./bpe-definition.ts";
import { BpeMerger } from "./bpe-merger.ts";
import { PairTable } from "./pair-table.ts";
import { TokenTable } from "./token-table.ts";
import type { EncodeOptions, Tokenizer } from "./tokenizer.ts";
import { byteName } from "./unigram-definition.ts";

const SOURCE = "llama2.c tokenizer";
const FIRST_BYTE = 3;
const FIRST_PIECE = FIRST_BYTE + 256;

/** The text of control tokens is always ordinary text here, so that naming one as special is an error. */
export interface SentencePieceEncodeOptions extends EncodeOptions {
  /** Put the begin token first, as llama2.c does with a prompt. Default false. */
  readonly begin?: boolean;
}

export class SentencePieceBpe implements Tokenizer {
  readonly vocabularySize: number;
  /** Id of the token that begins a text. */
  readonly beginId = 1;
  /** Id of the token that ends a text. */
  readonly endId = 2;
  readonly #pieces: TokenTable; // empty for control and byte tokens
  readonly #merger: BpeMerger;
  readonly #utf8 = new TextEncoder();

  /**
   * @param pieces UTF-8 of each id's piece; ids below 259 are control and byte tokens and their text is ignored
   * @param scores one per piece
   */
  private constructor(pieces: readonly Uint8Array[], scores: Float32Array) {
    this.vocabularySize = pieces.length;
    this.#pieces = new TokenTable(pieces.map((piece, id) => (id < FIRST_PIECE ? undefined : piece)));
    if (this.#pieces.find(Uint8Array.of(0x20), 0, 1) < 0) {
      throw new FormatError(SOURCE, "there is no piece for a space, which every text begins with");
    }
    this.#merger = new BpeMerger({ byteIds: new Int32Array(256), ...rankByScore(this.#pieces, scores) });
  }

  /**
   * Read a `tokenizer.bin`: int32 longest piece, then per id float32 score, int32 length, bytes; little-endian.
   * @param bytes the file
   * @param vocabSize number of ids; the format does not say, the model's header does
   * @throws FormatError where the file is too short, too long or its pieces are malformed or repeat
   */
  static fromLlama2c(bytes: Uint8Array, vocabSize: number): SentencePieceBpe {
    if (!Number.isInteger(vocabSize) || vocabSize < FIRST_PIECE) {
      throw new ArgumentError("vocabSize", `an integer >= ${FIRST_PIECE} (3 control tokens and 256 bytes)`, vocabSize);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (4 + 9 * vocabSize > bytes.length) {
      throw new FormatError(
        SOURCE,
        `${bytes.length} bytes cannot hold ${vocabSize} pieces`,
        "Check that the file is whole and belongs to this model.",
      );
    }
    const longest = view.getInt32(0, true);
    const pieces: Uint8Array[] = [];
    const scores = new Float32Array(vocabSize);
    const strict = new TextDecoder("utf-8", { fatal: true });
    let at = 4;
    for (let id = 0; id < vocabSize; id++) {
      if (at + 8 > bytes.length) throw new FormatError(SOURCE, `the file ends before piece ${id} of ${vocabSize}`);
      const score = view.getFloat32(at, true);
      const length = view.getInt32(at + 4, true);
      at += 8;
      if (Number.isNaN(score)) throw new FormatError(SOURCE, `piece ${id} has a score that is not a number`);
      if (length < 1 || length > longest)
        throw new FormatError(SOURCE, `piece ${id} has the length ${length}, not 1..${longest}`);
      if (at + length > bytes.length) throw new FormatError(SOURCE, `the file ends inside piece ${id} of ${vocabSize}`);
      if (length > TOKEN_LIMIT)
        throw new FormatError(SOURCE, `piece ${id} has ${length} bytes, more than ${TOKEN_LIMIT}`);
      const piece = bytes.slice(at, at + length);
      at += length;
      let text: string;
      try {
        text = strict.decode(piece);
      } catch {
        throw new FormatError(SOURCE, `piece ${id} is not UTF-8`);
      }
      if (id >= FIRST_BYTE && id < FIRST_PIECE && text !== byteName(id - FIRST_BYTE)) {
        throw new FormatError(SOURCE, `piece ${id} is ${JSON.stringify(text)}, expected ${byteName(id - FIRST_BYTE)}`);
      }
      scores[id] = score;
      pieces.push(piece);
    }
    if (at !== bytes.length) {
      throw new FormatError(
        SOURCE,
        `${bytes.length - at} bytes are left after ${vocabSize} pieces`,
        "Check the vocabulary size.",
      );
    }
    return new SentencePieceBpe(pieces, scores);
  }

  /** Ids of `text`; empty for an empty text, but for the begin token where it is asked for. */
  encode(text: string, options: SentencePieceEncodeOptions = {}): Uint32Array {
    if (typeof text !== "string") throw new ArgumentError("text", "a string", text);
    for (const option of ["allowedSpecial", "disallowedSpecial"] as const) {
      const named = options[option];
      if (named !== undefined && named !== "all" && named.length > 0) {
        throw new ArgumentError(`options.${option}`, "special tokens of this vocabulary (it has none)", named);
      }
    }
    const begin = options.begin === true ? [this.beginId] : [];
    if (text === "") return Uint32Array.from(begin);
    const characters: number[] = [];
    for (const character of ` ${text}`) {
      const bytes = this.#utf8.encode(character);
      const id = this.#pieces.find(bytes, 0, bytes.length);
      if (id >= 0) characters.push(id);
      else for (const byte of bytes) characters.push(FIRST_BYTE + byte);
    }
    const count = this.#merger.mergeIds(characters);
    const ids = new Uint32Array(begin.length + count);
    ids.set(begin);
    ids.set(this.#merger.ids.subarray(0, count), begin.length);
    return ids;
  }

  decode(ids: ArrayLike<number>): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.decodeBytes(ids));
  }

  /** Control tokens have no bytes; the token at the start, or behind the begin token, loses its leading space. */
  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    const parts: Uint8Array[] = [];
    let size = 0;
    for (let i = 0; i < ids.length; i++) {
      const part = this.bytesAfter(i === 0 ? undefined : ids[i - 1], ids[i]!);
      parts.push(part);
      size += part.length;
    }
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }

  tokenBytes(id: number): Uint8Array {
    if (!Number.isInteger(id) || id < 0 || id >= this.vocabularySize) {
      throw new ArgumentError("id", `a token id of this vocabulary (0..${this.vocabularySize - 1})`, id);
    }
    if (id < FIRST_BYTE) return new Uint8Array(0);
    return id < FIRST_PIECE ? Uint8Array.of(id - FIRST_BYTE) : this.#pieces.get(id).slice();
  }

  bytesAfter(previous: number | undefined, id: number): Uint8Array {
    const bytes = this.tokenBytes(id);
    const starts = previous === undefined || previous === this.beginId;
    return starts && id >= FIRST_PIECE && bytes[0] === 0x20 ? bytes.subarray(1) : bytes;
  }
}

/** Every way to cut a piece in two pieces. Ranks follow the score, best first; the lower id of equals. */
function rankByScore(pieces: TokenTable, scores: Float32Array): { ranks: PairTable; results: Int32Array } {
  const results = Int32Array.from({ length: pieces.size - FIRST_PIECE }, (_, i) => FIRST_PIECE + i);
  results.sort((a, b) => scores[b]! - scores[a]! || a - b);
  const ranks = new PairTable(pieces.size);
  const { bytes, offsets } = pieces;
  results.forEach((id, rank) => {
    const end = offsets[id + 1]!;
    if (pieces.find(bytes, offsets[id]!, end) !== id)
      throw new FormatError(SOURCE, `piece ${id} repeats another piece`);
    for (let cut = offsets[id]! + 1; cut < end; cut++) {
      const left = pieces.find(bytes, offsets[id]!, cut);
      const right = left < 0 ? -1 : pieces.find(bytes, cut, end);
      if (right >= 0) ranks.set(left, right, rank);
    }
  });
  return { ranks, results };
}
