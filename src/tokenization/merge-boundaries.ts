/**
 * Where dynamic merging stops: which two neighbours may become one token (arXiv 2411.18553 and its released code).
 *
 * A rule looks at the joined bytes z = x ++ y. Under each of them z is refused
 *
 *     where a space, tab or newline stands behind its first byte, unless z is nothing but those;
 *     where it is exactly two newlines;
 *
 * and then, by the boundary,
 *
 *     "pretokens"     unless the split pattern leaves z in one piece
 *     "word"          unless z holds exactly one run of characters that are not white space
 *     "word-hyphen"   as "word"; and y, if it holds punctuation, joins an x without any only as "-"
 *     "sentence"      never
 *
 * Bytes that are no UTF-8 (a character was cut) cannot be split by a pattern: such a z is allowed, so that characters
 * grow whole again.
 *
 * **Deviations**: the released code calls those tokens punctuation that are in the vocabulary and hold such a character
 * and no digit; here a merged token is judged by its characters too, so ")" and "," stay apart from a word one by one or
 * merged. Its "sentence" refuses spaces too, by the first rule, so no boundary lets a token span two words: "sentence" is
 * wider than "word" only in runs of blanks and at white space other than those three.
 */

import { scannerOf } from "./bpe-encoder.ts";
import { characterAt, LENGTH_SHIFT, WHITE } from "./character-classes.ts";
import { pieceEnds, type SplitPattern } from "./split-patterns.ts";

export const mergeBoundaries = ["pretokens", "word", "word-hyphen", "sentence"] as const;
export type MergeBoundary = (typeof mergeBoundaries)[number];

/** Whether `bytes[0 .. middle]` and `bytes[middle .. size]` may become one token; neither is empty. */
export type MergeRule = (bytes: Uint8Array, middle: number, size: number) => boolean;

/** @param pattern what `"pretokens"` splits by; the others do without */
export function mergeRule(boundary: MergeBoundary, pattern: SplitPattern | undefined): MergeRule {
  const inOnePiece = boundary === "pretokens" ? onePieceOf(pattern!) : undefined;
  return (bytes, middle, size) => {
    if (crossesSpace(bytes, size)) return false;
    if (boundary === "sentence" || !isUtf8(bytes, size)) return true;
    if (inOnePiece !== undefined) return inOnePiece(bytes, size);
    if (words(bytes, size) !== 1) return false;
    if (boundary === "word" || holdsPunctuation(bytes, 0, middle) || !holdsPunctuation(bytes, middle, size))
      return true;
    return size === middle + 1 && bytes[middle] === HYPHEN;
  };
}

const NEWLINE = 0x0a;
const HYPHEN = 0x2d;

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === NEWLINE || byte === 0x09;
}

function crossesSpace(bytes: Uint8Array, size: number): boolean {
  let spaces = 0; // behind the first byte
  for (let at = 1; at < size; at++) if (isSpace(bytes[at]!)) spaces++;
  if (spaces === 0) return false;
  if (spaces < size - 1 || !isSpace(bytes[0]!)) return true;
  return size === 2 && bytes[0] === NEWLINE && bytes[1] === NEWLINE;
}

function onePieceOf(pattern: SplitPattern): (bytes: Uint8Array, size: number) => boolean {
  const scan = scannerOf(pattern);
  if (scan !== undefined) return (bytes, size) => scan(bytes, 0, size) === size;
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  return (bytes, size) => {
    const text = utf8.decode(bytes.subarray(0, size));
    return pieceEnds(text, pattern).next().value === text.length;
  };
}

/** Runs of characters that are not white space. */
function words(bytes: Uint8Array, size: number): number {
  let runs = 0;
  let inWord = false;
  for (let at = 0; at < size; ) {
    const character = characterAt(bytes, at);
    const white = (character & WHITE) !== 0;
    if (!white && !inWord) runs++;
    inWord = !white;
    at += character >> LENGTH_SHIFT;
  }
  return runs;
}

/** By ASCII code: 1 for the released code's list, which has no "#". */
const PUNCTUATION = new Uint8Array(256);
for (const character of ".,!?;:()-\"'\\/`$%&*+<=>@[]^_{|}~") PUNCTUATION[character.charCodeAt(0)] = 1;

function holdsPunctuation(bytes: Uint8Array, start: number, end: number): boolean {
  let found = false;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    if (byte >= 0x30 && byte <= 0x39) return false;
    found ||= PUNCTUATION[byte] === 1;
  }
  return found;
}

/** Whether `bytes[0 .. size]` is well-formed UTF-8. A decoder would say so by throwing, which is slow where much is cut. */
export function isUtf8(bytes: Uint8Array, size: number): boolean {
  for (let at = 0; at < size; ) {
    const first = bytes[at]!;
    if (first < 0x80) {
      at++;
      continue;
    }
    const length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length === 0 || at + length > size) return false;
    const second = bytes[at + 1]!;
    // Overlong forms, surrogates, and what lies above U+10FFFF show in the second byte.
    const lowest = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
    const highest = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
    if (second < lowest || second > highest) return false;
    for (let i = 2; i < length; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return false;
    at += length;
  }
  return true;
}
