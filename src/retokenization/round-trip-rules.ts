/**
 * Encoding rules by encoding anew: a sequence is admitted where the encoder gives it back.
 *
 * For tokenizers that look no further than the text's end: every beginning of an encoding is then the encoding of its bytes.
 * Greedy longest match and Unigram's best path are such. Where the bytes end inside a character, all characters are tried
 * that begin so.
 *
 * **Unlike** `bpe-encoding-rules.ts`: the whole text is encoded for every token asked about. Right for small vocabularies and
 * short texts.
 *
 * Example: tokens A, B, AA, the longest first: [AA, A] is admitted, [A, AA] is not.
 */

import { joinBytes } from "../tokenization/token-table.ts";
import type { Tokenizer } from "../tokenization/tokenizer.ts";
import type { EncodingRules } from "./encoding-rules.ts";
import { completions, wholeCharacters } from "./utf8-prefix.ts";

class Sequence {
  readonly ids: readonly number[];
  readonly bytes: Uint8Array;
  /** Answers, by id. */
  readonly admitted = new Map<number, boolean>();

  constructor(ids: readonly number[], bytes: Uint8Array) {
    this.ids = ids;
    this.bytes = bytes;
  }
}

/** Texts tried for a cut character: all there are, but of the 4-byte ones whose first byte alone is known. */
const MOST_COMPLETIONS = 4096;

export class RoundTripRules implements EncodingRules {
  readonly vocabularySize: number;
  readonly tokens: readonly (Uint8Array | undefined)[];
  readonly special: readonly number[];
  readonly start = new Sequence([], new Uint8Array(0));
  tested = 0;
  readonly #tokenizer: Tokenizer;

  /** @param unused ids that stand for no text */
  constructor(tokenizer: Tokenizer, special: readonly number[], unused: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.vocabularySize = tokenizer.vocabularySize;
    this.special = special;
    const not = new Set([...special, ...unused]);
    this.tokens = Array.from({ length: tokenizer.vocabularySize }, (_, id) => {
      const bytes = not.has(id) ? new Uint8Array(0) : tokenizer.tokenBytes(id);
      return bytes.length === 0 ? undefined : bytes;
    });
  }

  encode(text: string): Uint32Array {
    return this.#tokenizer.encode(text, { disallowedSpecial: [] });
  }

  admits(state: Sequence, id: number): boolean {
    let answer = state.admitted.get(id);
    if (answer === undefined) {
      const token = this.tokens[id];
      answer = token !== undefined && this.#begins([...state.ids, id], joinBytes([state.bytes, token]));
      state.admitted.set(id, answer);
      this.tested++;
    }
    return answer;
  }

  advance(state: Sequence, id: number): Sequence {
    return new Sequence([...state.ids, id], joinBytes([state.bytes, this.tokens[id]!]));
  }

  mayEnd({ ids, bytes }: Sequence): boolean {
    return wholeCharacters(bytes) === bytes.length && this.#startsWith(bytes, ids, true);
  }

  #begins(ids: readonly number[], bytes: Uint8Array): boolean {
    const whole = wholeCharacters(bytes);
    if (whole < 0) return false;
    if (whole === bytes.length) return this.#startsWith(bytes, ids, true);
    let tried = 0;
    for (const character of completions(bytes.subarray(whole))) {
      if (this.#startsWith(joinBytes([bytes.subarray(0, whole), character]), ids, false)) return true;
      if (++tried === MOST_COMPLETIONS) return false;
    }
    return false;
  }

  #startsWith(bytes: Uint8Array, ids: readonly number[], exactly: boolean): boolean {
    const encoded = this.encode(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
    return (!exactly || encoded.length === ids.length) && ids.every((id, i) => encoded[i] === id);
  }
}
