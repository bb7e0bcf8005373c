/**
 * Which sequences of tokens an encoder begins a text with: the ground that exact byte probabilities stand on.
 *
 * A sequence is valid when `encode(decode(t)) = t`; a model trained on encoder output gives the others probability 0. A
 * text that goes on may be encoded otherwise, so what is asked here is wider: is there a text whose encoding begins with
 * these tokens? Two spaces at the end are one token, before a letter they are two: both begin an encoding.
 *
 * Rules answer one token at a time. A state is what they remember of a sequence; equal states are one object.
 *
 * **Which tokenizers**: `Bpe` with a named split pattern (`bpe-encoding-rules.ts`: decided by pairs of tokens and by how the
 * pattern can split, not by encoding anew). Others by encoding anew (`RoundTripRules`, slow): `Unigram` with byte fallback and
 * no prefix space, and what a caller wrote, where every beginning of an encoding is the encoding of its bytes.
 * Refused: those that forget or change text (WordPiece, normalizers), that draw at random (BPE-dropout), or whose tokens
 * have other bytes at the start of a text (SentencePiece's prefix space).
 *
 * Example: with the merges b c, a b, the sequence [a, b] is invalid ("ab" is one token), [a, bc] is valid, and [ab] begins
 * "ab" but not "abc".
 */

import { ArgumentError } from "../errors.ts";
import { Bpe } from "../tokenization/bpe.ts";
import { BpeDropout } from "../tokenization/bpe-dropout.ts";
import type { Tokenizer } from "../tokenization/tokenizer.ts";
import { Unigram } from "../tokenization/unigram.ts";
import { WordPiece } from "../tokenization/word-piece.ts";
import { BpeEncodingRules } from "./bpe-encoding-rules.ts";
import { RoundTripRules } from "./round-trip-rules.ts";

/** What rules remember of a sequence. Opaque: each kind of rules has its own. */
export type EncodingState = object;

export interface EncodingRules {
  readonly vocabularySize: number;
  /** Bytes by id; undefined for ids that no text is encoded with (special, unused). */
  readonly tokens: readonly (Uint8Array | undefined)[];
  /** Ids of special tokens. */
  readonly special: readonly number[];
  /** The state of an empty sequence. */
  readonly start: EncodingState;
  /** How many answers had to be worked out, those from the cache left out. */
  readonly tested: number;
  /** Whether some text's encoding begins with the sequence and this token. */
  admits(state: EncodingState, id: number): boolean;
  /** The state behind a token that is admitted. */
  advance(state: EncodingState, id: number): EncodingState;
  /** Whether a text may end here: the sequence is the encoding of its bytes. */
  mayEnd(state: EncodingState): boolean;
  /** Ids of a text, special tokens read as text. */
  encode(text: string): Uint32Array;
}

const rulesOf = new WeakMap<Tokenizer, EncodingRules>();

/**
 * The rules of a tokenizer; the same object for the same tokenizer, so that its cache serves all.
 * @throws ArgumentError on a tokenizer for which byte probabilities cannot be exact
 */
export function encodingRules(tokenizer: Tokenizer): EncodingRules {
  let rules = rulesOf.get(tokenizer);
  if (rules === undefined) {
    rules = rulesFor(tokenizer);
    rulesOf.set(tokenizer, rules);
  }
  return rules;
}

function rulesFor(tokenizer: Tokenizer): EncodingRules {
  if (tokenizer instanceof Bpe) return new BpeEncodingRules(tokenizer);
  if (tokenizer instanceof BpeDropout) {
    if (tokenizer.dropout === 0) return encodingRules(tokenizer.bpe);
    throw refused("BPE-dropout of probability " + tokenizer.dropout, "Use the Bpe it wraps.");
  }
  if (tokenizer instanceof WordPiece) throw refused("WordPiece, which forgets white space");
  if (tokenizer instanceof Unigram) {
    const { byteFallback, prefixSpace, normalizer, addedTokens, unknownId } = tokenizer.definition;
    if (!byteFallback) throw refused("Unigram without byte fallback, which loses characters");
    if (prefixSpace !== "never") throw refused("Unigram with a prefix space");
    if (normalizer !== "none") throw refused(`Unigram with the normalizer ${normalizer}`);
    if (addedTokens.size > 0) throw refused("Unigram with added tokens");
    const unknown = unknownId === undefined ? [] : [unknownId];
    return new RoundTripRules(tokenizer, [...tokenizer.specialTokens.values()], unknown);
  }
  if (tokenizer.bytesAfter !== undefined) {
    throw refused("one whose tokens have other bytes at the start of a text", "Byte-level BPE does not.");
  }
  return new RoundTripRules(tokenizer, [], []);
}

function refused(got: string, advice?: string): ArgumentError {
  return new ArgumentError("tokenizer", "one that gives every text exactly one encoding and back", got, advice);
}
