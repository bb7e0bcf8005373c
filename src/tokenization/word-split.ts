/**
 * How a text falls into words before WordPiece. White space is dropped, so the words do not concatenate to the text.
 *
 * Example: "don't stop" is don|'|t|stop for BERT, don|'|t|stop by words, don't|stop by white space.
 */

import { ArgumentError } from "../errors.ts";
import { WHITE_SPACE } from "./split-patterns.ts";

/**
 * `"bert"`: at white space, every punctuation character a word of its own (ASCII symbols count as punctuation);
 * `"words"`: runs of word characters and runs of others (Hugging Face's `Whitespace`);
 * `"white-space"`: at white space only (Hugging Face's `WhitespaceSplit`).
 */
export type WordSplit = "bert" | "words" | "white-space";

const PUNCTUATION = "\\p{P}!-/:-@\\[-`{-~";
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}";

const SOURCES: Record<WordSplit, string> = {
  bert: `[^${WHITE_SPACE}${PUNCTUATION}]+|[${PUNCTUATION}]`,
  words: `[${WORD}]+|[^${WORD}${WHITE_SPACE}]+`,
  "white-space": `[^${WHITE_SPACE}]+`,
};

/** An expression whose matches are the words, with the flags `g` and `u`. */
export function wordExpression(split: WordSplit): RegExp {
  if (!Object.hasOwn(SOURCES, split)) {
    throw new ArgumentError("split", Object.keys(SOURCES).join(", "), split);
  }
  return new RegExp(SOURCES[split], "gu");
}
