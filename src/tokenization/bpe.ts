/**
 * Byte-level byte-pair encoding (Sennrich et al., arXiv 1508.07909; on bytes as in GPT-2): the tokenizer.
 *
 * The text falls into pieces by a split pattern; the bytes of each piece are merged, lowest rank first, until no pair
 * that merges is left. All 256 bytes are tokens, so every text has an encoding and decoding is exact.
 *
 *     encode(text) = concat over pieces p of merge(utf8(p))
 *
 * **Deviations**: none from tiktoken, on ill-formed text neither (identical ids for r50k, cl100k and o200k, see the
 * tests), but for letters, numbers and marks assigned in a Unicode version that only one of the two engines knows:
 * tiktoken 1.0.22 has Unicode 16, JavaScript engines what `process.versions.unicode` says.
 *
 * Example: trained on "aaabdaaabac" with three merges, the same text becomes 258 100 258 97 99.
 */

import { ArgumentError } from "../errors.ts";
import { type BpeDefinition, buildMergeTable, recoverMerges } from "./bpe-definition.ts";
import { BpeEncoder } from "./bpe-encoder.ts";
import type { MergeTable } from "./bpe-merger.ts";
import type { Merge } from "./bpe-trainer.ts";
import { type BpeTrainingOptions, trainDefinition } from "./bpe-training.ts";
import { readBpe, writeBpe } from "./hugging-face-bpe.ts";
import type { HuggingFaceTokenizer } from "./hugging-face-format.ts";
import { IdBuffer } from "./id-buffer.ts";
import { SpecialTokens } from "./special-tokens.ts";
import type { SplitPattern } from "./split-patterns.ts";
import { readTiktoken, type TiktokenOptions } from "./tiktoken-format.ts";
import { TokenTable } from "./token-table.ts";
import type { EncodeOptions, EncodingWithOffsets, Tokenizer } from "./tokenizer.ts";
import { alignNormalized, type Normalizer, normalize } from "./unicode-normalization.ts";

export class Bpe implements Tokenizer {
  readonly vocabularySize: number;
  readonly pattern: SplitPattern;
  /** What happens to a text before it is split. Anything but `"none"` only in a tokenizer read from a file. */
  readonly normalizer: Normalizer;
  /** Id of each special token by content. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /** What it is made of. */
  readonly definition: BpeDefinition;
  readonly #tokens: TokenTable; // special tokens included
  readonly #mergeTable: MergeTable;
  readonly #encoder: BpeEncoder;
  readonly #special: SpecialTokens;

  /** Prefer `Bpe.train`, `Bpe.fromTiktoken` or `Bpe.fromHuggingFace`. */
  constructor(definition: BpeDefinition) {
    this.definition = definition;
    this.pattern = definition.pattern;
    this.normalizer = definition.normalizer;
    this.specialTokens = definition.specialTokens;
    const ordinary = new TokenTable(definition.tokens);
    this.#mergeTable = buildMergeTable(definition, ordinary);
    this.#encoder = new BpeEncoder(ordinary, this.#mergeTable, definition.pattern, definition.wholePieces);
    this.#special = new SpecialTokens(definition);
    const all = [...definition.tokens];
    const utf8 = new TextEncoder();
    for (const [content, id] of [...definition.specialTokens, ...definition.addedTokens]) {
      while (all.length <= id) all.push(undefined);
      all[id] = utf8.encode(content);
    }
    this.#tokens = new TokenTable(all);
    this.vocabularySize = all.length;
  }

  /**
   * Learn a vocabulary from texts. Nothing is merged across two texts.
   * @throws ArgumentError where there is no text, `vocabSize` is below 256 plus the special tokens, or the texts have
   * too few pairs to reach it (the message says how far they reach)
   */
  static train(texts: Iterable<string>, options: BpeTrainingOptions): Bpe {
    return new Bpe(trainDefinition(texts, options));
  }

  /**
   * Read a tiktoken rank file: lines `base64(bytes) rank`, or the compressed form of the npm packages (`bpe_ranks`).
   * @throws FormatError on anything else, on missing bytes, duplicates, gaps and ids beyond 2^22
   */
  static fromTiktoken(ranks: string | Uint8Array, options: TiktokenOptions): Bpe {
    return new Bpe(readTiktoken(ranks, options));
  }

  /**
   * Read a Hugging Face `tokenizer.json`, as text or parsed. Templates of its post-processor are not applied: ids are
   * those of `add_special_tokens = false`.
   * @throws FormatError on what this tokenizer would not reproduce exactly: another model type, a normalizer other than
   * NFC, a pre-tokenizer that is not byte-level, dropout, truncation, bad merges, duplicate or missing ids, ...
   */
  static fromHuggingFace(json: string | object): Bpe {
    return new Bpe(readBpe(json));
  }

  /**
   * The content of a `tokenizer.json`; write it with `JSON.stringify`. Hugging Face's tokenizers open it.
   * @throws ArgumentError where the split pattern is a RegExp that they would read differently
   */
  toHuggingFace(): HuggingFaceTokenizer {
    return writeBpe(this.definition, this.merges());
  }

  /** The pairs that merge, as ids, best first. Those behind a tiktoken rank file are recovered from the ranks. */
  merges(): readonly Merge[] {
    const { merges, tokens } = this.definition;
    return merges === "any-split" ? recoverMerges(new TokenTable(tokens), this.#mergeTable) : merges;
  }

  encode(text: string, options: EncodeOptions = {}): Uint32Array {
    if (typeof text !== "string") throw new ArgumentError("text", "a string", text);
    const ids = new IdBuffer(16 + (text.length >> 2));
    for (const segment of this.#special.split(text, options)) {
      if (segment.id >= 0) ids.push(segment.id);
      else this.#encoder.encode(segment.text, ids);
    }
    return ids.toArray();
  }

  /**
   * `encode`, with the stretch of text behind each token, in UTF-16 units of `text`. A token that begins or ends inside
   * a character covers that whole character, so neighbours may overlap: the pieces of one emoji all have its range.
   * Where a normalizer changed the text, see `EncodingWithOffsets`.
   */
  encodeWithOffsets(text: string, options: EncodeOptions = {}): EncodingWithOffsets {
    const ids = this.encode(text, options);
    // What is in form C stays so wherever it is cut.
    const changes = normalize(text, this.normalizer) !== text;
    const aligned = changes ? alignNormalized(this.#special.stretches(text, options), this.normalizer) : undefined;
    const encoded = aligned?.text ?? text;
    const starts = new Uint32Array(ids.length);
    const ends = new Uint32Array(ids.length);
    let unit = 0; // start of the character that holds the next byte
    let into = 0; // bytes of that character already consumed
    for (let token = 0; token < ids.length; token++) {
      starts[token] = unit;
      let left = this.#tokens.length(ids[token]!);
      while (left > 0) {
        const code = encoded.codePointAt(unit)!;
        const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        const taken = Math.min(left, size - into);
        left -= taken;
        into += taken;
        ends[token] = unit + (size === 4 ? 2 : 1);
        if (into === size) {
          unit = ends[token]!;
          into = 0;
        }
      }
    }
    if (aligned === undefined) return { ids, starts, ends };
    return { ids, starts: starts.map((at) => aligned.starts[at]!), ends: ends.map((at) => aligned.ends[at - 1]!) };
  }

  decode(ids: ArrayLike<number>): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.decodeBytes(ids));
  }

  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    let size = 0;
    for (let i = 0; i < ids.length; i++) size += this.#lengthOf(ids[i]!, `ids[${i}]`);
    const bytes = new Uint8Array(size);
    let at = 0;
    for (let i = 0; i < ids.length; i++) {
      bytes.set(this.#tokens.get(ids[i]!), at);
      at += this.#tokens.length(ids[i]!);
    }
    return bytes;
  }

  tokenBytes(id: number): Uint8Array {
    this.#lengthOf(id, "id");
    return this.#tokens.get(id).slice();
  }

  #lengthOf(id: number, argument: string): number {
    const length = Number.isInteger(id) && id >= 0 && id < this.vocabularySize ? this.#tokens.length(id) : 0;
    if (length === 0)
      throw new ArgumentError(argument, `a token id of this vocabulary (0..${this.vocabularySize - 1})`, id);
    return length;
  }
}
