/**
 * Decoding token by token, as a model writes, without ever emitting half a character.
 *
 * A token may end inside a UTF-8 sequence. Those bytes wait here until the rest arrives. Concatenating everything that
 * `push` and `flush` return gives exactly `tokenizer.decode` of all ids.
 *
 * Example: the four bytes of an emoji in three tokens: push -> "", push -> "", push -> the emoji.
 */

import type { Tokenizer } from "./tokenizer.ts";

export class StreamingDecoder {
  readonly #tokenizer: Pick<Tokenizer, "tokenBytes" | "bytesAfter">;
  #decoder = newDecoder();
  #previous: number | undefined;

  constructor(tokenizer: Pick<Tokenizer, "tokenBytes" | "bytesAfter">) {
    this.#tokenizer = tokenizer;
  }

  /** Text that is complete with this token; often the token's text, `""` inside a character. */
  push(id: number): string {
    const bytes = this.#tokenizer.bytesAfter?.(this.#previous, id) ?? this.#tokenizer.tokenBytes(id);
    this.#previous = id;
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** What is left at the end: `""`, or U+FFFD for a character that never became whole. Ready for a new text. */
  flush(): string {
    const rest = this.#decoder.decode();
    this.#decoder = newDecoder();
    this.#previous = undefined;
    return rest;
  }
}

function newDecoder(): TextDecoder {
  return new TextDecoder("utf-8", { ignoreBOM: true });
}
