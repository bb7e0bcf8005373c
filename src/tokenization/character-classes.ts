/**
 * Character classes for the split scanners: for a character of UTF-8 text, its length in bytes and what it is.
 *
 * Classes come from JavaScript's own `\p{..}` and so follow the engine's Unicode version. Each is asked for once and
 * remembered in a table over all code points, filled as characters turn up.
 *
 * Example: "д" is `WORD_LOWER | LETTER` of 2 bytes; U+0301 (a combining accent) is `OTHER | WORD_UPPER | WORD_LOWER`.
 */

import { WHITE_SPACE } from "./split-patterns.ts";

/** `\p{L}` */
export const LETTER = 1;
/** `\p{N}` */
export const NUMBER = 2;
/** Unicode White_Space */
export const WHITE = 4;
/** Neither letter, number nor white space. */
export const OTHER = 8;
/** `\r` or `\n` */
export const NEWLINE = 16;
/** `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, o200k's first half of a word */
export const WORD_UPPER = 32;
/** `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`, o200k's second half */
export const WORD_LOWER = 64;

const KNOWN = 128;
/** A character's classes and length in one number: `classes | bytes << LENGTH_SHIFT`. */
export const LENGTH_SHIFT = 8;

const IS_WHITE = new RegExp(`[${WHITE_SPACE}]`, "u");
const CLASSES = new Uint8Array(0x110000); // by code point, 0 = not asked for yet
const ASCII = Uint16Array.from({ length: 128 }, (_, code) => classesOf(code) | (1 << LENGTH_SHIFT));

/** Classes and length of the character that starts at `bytes[at]`. The bytes must be valid UTF-8. */
export function characterAt(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  return first < 0x80 ? ASCII[first]! : wideCharacterAt(bytes, at, first);
}

function wideCharacterAt(bytes: Uint8Array, at: number, first: number): number {
  if (first < 0xe0) return classesOf(((first & 0x1f) << 6) | (bytes[at + 1]! & 0x3f)) | (2 << LENGTH_SHIFT);
  const tail = ((bytes[at + 1]! & 0x3f) << 6) | (bytes[at + 2]! & 0x3f);
  if (first < 0xf0) return classesOf(((first & 0x0f) << 12) | tail) | (3 << LENGTH_SHIFT);
  return classesOf(((first & 0x07) << 18) | (tail << 6) | (bytes[at + 3]! & 0x3f)) | (4 << LENGTH_SHIFT);
}

function classesOf(code: number): number {
  return CLASSES[code]! || classify(code);
}

function classify(code: number): number {
  const character = String.fromCodePoint(code);
  let classes = KNOWN;
  if (/\p{L}/u.test(character)) classes |= LETTER;
  else if (/\p{N}/u.test(character)) classes |= NUMBER;
  else if (IS_WHITE.test(character)) classes |= WHITE;
  else classes |= OTHER;
  if (code === 0x0a || code === 0x0d) classes |= NEWLINE;
  if (/[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]/u.test(character)) classes |= WORD_UPPER;
  if (/[\p{Ll}\p{Lm}\p{Lo}\p{M}]/u.test(character)) classes |= WORD_LOWER;
  CLASSES[code] = classes;
  return classes;
}
