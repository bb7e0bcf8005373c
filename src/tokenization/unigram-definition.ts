/** What a unigram tokenizer is made of, as plain data: the trainer and the format reader produce it. */

import type { AddedTokens } from "./special-tokens.ts";
import type { Piece } from "./unigram-trainer.ts";

/** Where a space is put in front: of every stretch of text between special tokens, of the text, or nowhere. */
export type PrefixSpace = "always" | "first" | "never";

export interface UnigramDefinition extends AddedTokens {
  /** Where it came from, for messages. */
  readonly source: string;
  /** Piece of each id. Spaces are spaces here; files write them as U+2581. */
  readonly pieces: readonly Piece[];
  /** What characters become that are no piece; undefined where bytes stand for all of them. */
  readonly unknownId: number | undefined;
  /** Whether such characters are spelled in the byte pieces `<0x00>`..`<0xFF>`. */
  readonly byteFallback: boolean;
  readonly prefixSpace: PrefixSpace;
  /** Whether pieces stop before a space inside them (they may begin with one). */
  readonly split: boolean;
}

/** How a byte piece is written. */
export function byteName(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}
