/**
 * WordPiece (Wu et al., "Google's Neural Machine Translation System", arXiv 1609.08144, section 4.1; as BERT uses it).
 *
 * The text falls into words. A word is spelled from the left, each time with the longest token that fits; tokens that
 * continue a word are marked with a prefix. A word that cannot be spelled to its end is unknown as a whole.
 *
 *     encode(word) = t1 ++ encode(rest),   t1 = the longest token that word begins with
 *
 * **Deviations**: none from Hugging Face's WordPiece, whose ids it gives; from BERT's own code, that special tokens are
 * found in the text where `EncodeOptions` allow them. Training: see `word-piece-trainer.ts`.
 *
 * **Unlike** `bpe.ts`: not lossless. White space is forgotten (decoding puts one space between words, but before
 * punctuation none), BERT's normalizer changes letters, and unknown words come back as the unknown token. What decoding
 * gives back does encode to the same ids again, if every word was known and none lost a space it needs.
 *
 * Example: tokens un, ##aff, ##able: "unaffable" is un|##aff|##able; "unaffablex" is unknown.
 */

import { ArgumentError, FormatError } from "../errors.ts";
import { ByteTrie } from "./byte-trie.ts";
import type { HuggingFaceTokenizer } from "./hugging-face-format.ts";
import { type HuggingFaceWordPiece, readWordPiece, writeWordPiece } from "./hugging-face-word-piece.ts";
import { IdBuffer } from "./id-buffer.ts";
import { encodeWithOffsets, type StretchEncoding } from "./offsets.ts";
import { SpecialTokens } from "./special-tokens.ts";
import { joinBytes } from "./token-table.ts";
import type { EncodeOptions, EncodingWithOffsets, Tokenizer } from "./tokenizer.ts";
import type { WordPieceDefinition } from "./word-piece-definition.ts";
import { trainWordPieceDefinition, type WordPieceTrainingOptions } from "./word-piece-training.ts";
import { wordExpression } from "./word-split.ts";

const UTF8 = new TextEncoder();

/** Ids of one word, and where each ends in the word's UTF-8. */
interface Spelling {
  readonly ids: readonly number[];
  readonly ends: readonly number[];
}

/** Words kept with their spelling, at most. */
const CACHED_WORDS = 1 << 16;

export class WordPiece implements Tokenizer {
  readonly vocabularySize: number;
  /** Id of each special token by content. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /** What it is made of. */
  readonly definition: WordPieceDefinition;
  readonly #contents: readonly (string | undefined)[]; // special and added tokens included
  readonly #special: SpecialTokens;
  readonly #beginning = new ByteTrie();
  readonly #continuing = new ByteTrie();
  readonly #words: RegExp;
  readonly #cache = new Map<string, Spelling>();

  /** Prefer `WordPiece.train` or `WordPiece.fromHuggingFace`. */
  constructor(definition: WordPieceDefinition) {
    const { source, tokens, prefix, unknownId, split } = definition;
    this.definition = definition;
    this.specialTokens = definition.specialTokens;
    this.#special = new SpecialTokens(definition);
    this.#words = wordExpression(split);
    const contents = [...tokens];
    for (const [content, id] of [...definition.specialTokens, ...definition.addedTokens]) {
      while (contents.length <= id) contents.push(undefined);
      contents[id] = content;
    }
    this.#contents = contents;
    this.vocabularySize = contents.length;
    if (contents[unknownId] === undefined) throw new FormatError(source, "the unknown token is not in the vocabulary");
    tokens.forEach((token, id) => {
      if (token === undefined) return;
      // A word may also begin with the letters of the prefix.
      this.#beginning.add(UTF8.encode(token), id);
      if (token.startsWith(prefix) && token !== prefix) {
        this.#continuing.add(UTF8.encode(token.slice(prefix.length)), id);
      }
    });
  }

  /**
   * Learn a vocabulary from texts.
   * @throws ArgumentError where there is no word, `vocabSize` does not hold all characters, or the texts have too few pairs
   * to reach it (the message says how far they reach)
   */
  static train(texts: Iterable<string>, options: WordPieceTrainingOptions): WordPiece {
    return new WordPiece(trainWordPieceDefinition(texts, options));
  }

  /**
   * Read a Hugging Face `tokenizer.json`, as text or parsed. Templates of its post-processor are not applied.
   * @throws FormatError on what this tokenizer would not reproduce exactly: another model type, a normalizer other than
   * BertNormalizer, NFC or NFKC, a pre-tokenizer other than BertPreTokenizer, Whitespace or WhitespaceSplit, ...
   */
  static fromHuggingFace(json: string | object): WordPiece {
    return new WordPiece(readWordPiece(json));
  }

  /** The content of a `tokenizer.json`; write it with `JSON.stringify`. Hugging Face's tokenizers open it. */
  toHuggingFace(): HuggingFaceTokenizer<HuggingFaceWordPiece> {
    return writeWordPiece(this.definition);
  }

  encode(text: string, options: EncodeOptions = {}): Uint32Array {
    if (typeof text !== "string") throw new ArgumentError("text", "a string", text);
    const ids = new IdBuffer(16 + (text.length >> 2));
    for (const segment of this.#special.split(text, options)) {
      if (segment.id >= 0) ids.push(segment.id);
      else {
        for (const word of segment.text.match(this.#words) ?? []) {
          for (const id of this.#spell(word).ids) ids.push(id);
        }
      }
    }
    return ids.toArray();
  }

  /** `encode`, with the stretch of text behind each token; see `EncodingWithOffsets`. White space lies between them. */
  encodeWithOffsets(text: string, options: EncodeOptions = {}): EncodingWithOffsets {
    return encodeWithOffsets(text, options, this.#special, this.definition, (stretch) =>
      this.#stretchWithOffsets(stretch),
    );
  }

  decode(ids: ArrayLike<number>): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.decodeBytes(ids));
  }

  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    return joinBytes(
      Array.from(ids, (id, i) => UTF8.encode(this.#textAfter(i === 0 ? undefined : ids[i - 1], id, `ids[${i}]`))),
    );
  }

  /** Bytes of the token as it begins a text: with its prefix, if it has one. */
  tokenBytes(id: number): Uint8Array {
    return UTF8.encode(this.#contentOf(id, "id"));
  }

  /** What the token adds behind another: without its prefix, or behind a space. */
  bytesAfter(previous: number | undefined, id: number): Uint8Array {
    return UTF8.encode(this.#textAfter(previous, id, "id"));
  }

  #textAfter(previous: number | undefined, id: number, argument: string): string {
    const { prefix, cleanUp } = this.definition;
    const token = this.#contentOf(id, argument);
    let text = token;
    if (previous !== undefined) text = token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
    return cleanUp ? cleanedUp(text) : text;
  }

  #contentOf(id: number, argument: string): string {
    const content = Number.isInteger(id) ? this.#contents[id] : undefined;
    if (content === undefined) {
      throw new ArgumentError(argument, `a token id of this vocabulary (0..${this.vocabularySize - 1})`, id);
    }
    return content;
  }

  #stretchWithOffsets(stretch: string): StretchEncoding {
    const ids: number[] = [];
    const starts: number[] = [];
    const ends: number[] = [];
    for (const { 0: word, index } of stretch.matchAll(this.#words)) {
      const spelling = this.#spell(word);
      let unit = index;
      let byte = 0;
      spelling.ids.forEach((id, i) => {
        ids.push(id);
        starts.push(unit);
        while (byte < spelling.ends[i]!) {
          const code = stretch.codePointAt(unit)!;
          byte += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
          unit += code < 0x10000 ? 1 : 2;
        }
        ends.push(unit);
      });
    }
    return { ids, starts, ends };
  }

  #spell(word: string): Spelling {
    if (word.length > 2 * this.definition.longestWord) return this.#longestFirst(word);
    const known = this.#cache.get(word);
    if (known !== undefined) return known;
    if (this.#cache.size >= CACHED_WORDS) this.#cache.clear();
    const spelling = this.#longestFirst(word);
    this.#cache.set(word, spelling);
    return spelling;
  }

  #longestFirst(word: string): Spelling {
    const { unknownId, longestWord } = this.definition;
    const bytes = UTF8.encode(word);
    const unknown = { ids: [unknownId], ends: [bytes.length] };
    if (word.length > longestWord && Array.from(word).length > longestWord) return unknown;
    const ids: number[] = [];
    const ends: number[] = [];
    for (let start = 0; start < bytes.length; start = ends.at(-1)!) {
      const trie = start === 0 ? this.#beginning : this.#continuing;
      let id = -1;
      let end = start;
      let node = 0;
      for (let at = start; at < bytes.length; ) {
        node = trie.child(node, bytes[at++]!);
        if (node < 0) break;
        if (trie.tokenAt(node) < 0) continue;
        id = trie.tokenAt(node);
        end = at;
      }
      if (id < 0) return unknown;
      ids.push(id);
      ends.push(end);
    }
    return { ids, ends };
  }
}

/** Hugging Face's clean-up of one token's text. */
function cleanedUp(text: string): string {
  return text
    .replaceAll(" .", ".")
    .replaceAll(" ?", "?")
    .replaceAll(" !", "!")
    .replaceAll(" ,", ",")
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" do not", " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
