/**
 * The contract of the tokenization family: text to ids and back, byte for byte.
 *
 * A tokenizer owns a table from id to bytes. `encode` chooses ids whose bytes concatenate to the text's UTF-8;
 * `decode` concatenates them again, so `decode(encode(text)) === text` for every well-formed string. A tokenizer that
 * normalizes (`Bpe` where its file says NFC) gives `text.normalize("NFC")` back, special and added tokens found in the text
 * keeping their own spelling and the stretches between them normalized each by itself.
 *
 * That holds for `Bpe`, `BpeDropout`, `SentencePieceBpe` and for `Unigram` with byte fallback and no prefix space (the
 * defaults of its training). `WordPiece` forgets white space, and it and a `Unigram` without byte fallback lose characters
 * they do not know: their files say what comes back.
 */

/**
 * What to do with the text of a special token (`"<|endoftext|>"`) met inside a text. As in tiktoken: a special token in
 * `allowedSpecial` becomes its id; one in `disallowedSpecial` and not allowed is an error; any other is ordinary text.
 *
 * The default, `{}`, refuses all of them: text from users must not be able to end a document.
 * `{ disallowedSpecial: [] }` reads all of them as ordinary text, `{ allowedSpecial: "all" }` as their ids.
 */
export interface EncodeOptions {
  /** Special tokens that become their id. Default: none. */
  readonly allowedSpecial?: "all" | readonly string[];
  /** Special tokens that are an error where they are not allowed. Default: `"all"`. */
  readonly disallowedSpecial?: "all" | readonly string[];
}

/**
 * Ids with the stretch of text each one came from, in the text that was given. The three arrays have one entry per token.
 *
 * Where normalization changed the text, what counts as one character is the whole run that changed (a letter with all its
 * marks, the jamo of a syllable): a token that touches any of it covers all of it.
 */
export interface EncodingWithOffsets {
  readonly ids: Uint32Array;
  /** First UTF-16 unit of the first character the token touches. */
  readonly starts: Uint32Array;
  /** One past the last UTF-16 unit of the last character the token touches. */
  readonly ends: Uint32Array;
}

export interface Tokenizer {
  /** Ids are below this number. A few may be unused (gaps between ordinary and special tokens). */
  readonly vocabularySize: number;

  /**
   * Ids of `text`; empty for an empty text. Lone surrogates are read as U+FFFD.
   * @throws ArgumentError where the text holds a refused special token, or an option names an unknown one
   */
  encode(text: string, options?: EncodeOptions): Uint32Array;

  /**
   * Text of `ids`. Bytes that are not UTF-8 (a cut character) become U+FFFD; a leading U+FEFF is kept.
   * @throws ArgumentError on an id that is not in the vocabulary
   */
  decode(ids: ArrayLike<number>): string;

  /** Bytes of `ids`, exact also where they cut a character. Throws like `decode`. */
  decodeBytes(ids: ArrayLike<number>): Uint8Array;

  /** Bytes of one token, a copy. Throws like `decode`. */
  tokenBytes(id: number): Uint8Array;

  /**
   * Bytes that a token adds behind `previous` (undefined at the start of a text). Only tokenizers whose decoding depends
   * on it have this; for the others it is `tokenBytes(id)`.
   */
  bytesAfter?(previous: number | undefined, id: number): Uint8Array;
}
