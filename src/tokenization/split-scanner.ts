/**
 * The named split patterns as hand-written scanners over UTF-8: from where a piece starts to where it ends.
 *
 * A regular expression tries its alternatives one by one and makes a string of each match. Knowing the class of the
 * first characters, a scanner goes straight to the alternative that will match and runs to its end. Each function below
 * follows the order of its pattern's alternatives (`split-patterns.ts`), which is spelled out beside it; `W`, `L` and
 * `N` are white space, letters and numbers.
 *
 * **Unlike** `split-patterns.ts`: the same pieces, an order of magnitude sooner; the tests hold one against the other.
 */

import {
  characterAt,
  LENGTH_SHIFT,
  LETTER,
  NEWLINE,
  NUMBER,
  OTHER,
  WHITE,
  WORD_LOWER,
  WORD_UPPER,
} from "./character-classes.ts";

/** End of the piece that starts at `start < end`. `bytes[0 .. end]` is valid UTF-8 and `start` begins a character. */
export type Scanner = (bytes: Uint8Array, start: number, end: number) => number;

const SPACE = 0x20;
const APOSTROPHE = 0x27;
const SLASH = 0x2f;

/** `'(?:[sdmt]|ll|ve|re) | ␣?L+ | ␣?N+ | ␣?[^WLN]+ | W+(?!\S) | W+` */
export function scanGpt2(bytes: Uint8Array, start: number, end: number): number {
  const byte = bytes[start]!;
  if (byte === APOSTROPHE) {
    const contracted = contractionEnd(bytes, start, end, 0);
    if (contracted > start) return contracted;
  }
  const body = byte === SPACE && start + 1 < end ? start + 1 : start;
  const character = characterAt(bytes, body);
  const kind = character & (LETTER | NUMBER | OTHER);
  if (kind === 0) return whiteSpaceEnd(bytes, start, end, false);
  return runEnd(bytes, body + (character >> LENGTH_SHIFT), end, kind);
}

/** `(?i:'(?:[sdmt]|ll|ve|re)) | [^\r\nLN]?L+ | N{1,3} | ␣?[^WLN]+[\r\n]* | W*[\r\n]+ | W+(?!\S) | W+` */
export function scanCl100k(bytes: Uint8Array, start: number, end: number): number {
  const byte = bytes[start]!;
  if (byte === APOSTROPHE) {
    const contracted = contractionEnd(bytes, start, end, FOLD_CASE);
    if (contracted > start) return contracted;
  }
  const character = characterAt(bytes, start);
  const next = start + (character >> LENGTH_SHIFT);
  if (character & LETTER) return runEnd(bytes, next, end, LETTER);
  if (character & NUMBER) return numberEnd(bytes, next, end);
  const following = next < end ? characterAt(bytes, next) : 0;
  if (following & LETTER && !(character & NEWLINE)) {
    return runEnd(bytes, next + (following >> LENGTH_SHIFT), end, LETTER);
  }
  if (character & OTHER || (byte === SPACE && following & OTHER)) {
    return runEnd(bytes, runEnd(bytes, next, end, OTHER), end, NEWLINE);
  }
  return whiteSpaceEnd(bytes, start, end, true);
}

/**
 * `[^\r\nLN]?U*V+C? | [^\r\nLN]?U+V*C? | N{1,3} | ␣?[^WLN]+[\r\n/]* | W*[\r\n]+ | W+(?!\S) | W+` with U and V the upper
 * and lower halves of a word (letters without case and marks are in both) and C a contraction.
 */
export function scanO200k(bytes: Uint8Array, start: number, end: number): number {
  const character = characterAt(bytes, start);
  const next = start + (character >> LENGTH_SHIFT);
  if (character & NUMBER) return numberEnd(bytes, next, end);
  const following = next < end ? characterAt(bytes, next) : 0;
  const mayLead = (character & (LETTER | NEWLINE)) === 0 && (following & (WORD_UPPER | WORD_LOWER)) !== 0;
  const isWord = (character & (WORD_UPPER | WORD_LOWER)) !== 0;
  if (mayLead || isWord) {
    // In the order a backtracking matcher tries them: first half optional with and without the leading character,
    // then second half optional likewise. Where the first form fails, the second is a run of the upper half alone.
    let word = mayLead ? upperLowerEnd(bytes, next, end) : -1;
    if (word < 0 && isWord) word = upperLowerEnd(bytes, start, end);
    if (word < 0) word = runEnd(bytes, mayLead ? next : start, end, WORD_UPPER);
    return word < end && bytes[word] === APOSTROPHE ? contractionEnd(bytes, word, end, FOLD_CASE) : word;
  }
  if (character & OTHER || (bytes[start] === SPACE && following & OTHER)) {
    let at = runEnd(bytes, next, end, OTHER);
    while (at < end && (bytes[at] === SLASH || characterAt(bytes, at) & NEWLINE)) at++;
    return at;
  }
  return whiteSpaceEnd(bytes, start, end, true);
}

/** `U*V+`: past the lower half that follows the upper one; else up to the last character that is in both; else -1. */
function upperLowerEnd(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  let lastInBoth = -1;
  while (at < end) {
    const character = characterAt(bytes, at);
    if (!(character & WORD_UPPER)) return character & WORD_LOWER ? runEnd(bytes, at, end, WORD_LOWER) : lastInBoth;
    at += character >> LENGTH_SHIFT;
    if (character & WORD_LOWER) lastInBoth = at;
  }
  return lastInBoth;
}

/** First character from `at` on that has none of the wanted classes. */
function runEnd(bytes: Uint8Array, at: number, end: number, wanted: number): number {
  while (at < end) {
    const character = characterAt(bytes, at);
    if (!(character & wanted)) break;
    at += character >> LENGTH_SHIFT;
  }
  return at;
}

/** `N{1,3}` whose first number ends at `at`. */
function numberEnd(bytes: Uint8Array, at: number, end: number): number {
  for (let more = 2; more > 0 && at < end; more--) {
    const character = characterAt(bytes, at);
    if (!(character & NUMBER)) break;
    at += character >> LENGTH_SHIFT;
  }
  return at;
}

/**
 * `W+(?!\S) | W+`: a run of white space, but for its last character where something follows, for that one leads the
 * next piece. With `newlines`, before that `W*[\r\n]+`: up to the last line end in the run.
 */
function whiteSpaceEnd(bytes: Uint8Array, start: number, end: number, newlines: boolean): number {
  let at = start;
  let last = start;
  let lineEnd = -1;
  while (at < end) {
    const character = characterAt(bytes, at);
    if (!(character & WHITE)) break;
    last = at;
    at += character >> LENGTH_SHIFT;
    if (character & NEWLINE) lineEnd = at;
  }
  if (newlines && lineEnd > 0) return lineEnd;
  return at === end || last === start ? at : last;
}

/** Bit that turns ASCII capitals into small letters; its presence asks for case-insensitive contractions. */
const FOLD_CASE = 0x20;

/** `'(?:[sdmt]|ll|ve|re)` at an apostrophe: its end, or `start` where there is none. The long s folds to s. */
function contractionEnd(bytes: Uint8Array, start: number, end: number, fold: 0 | typeof FOLD_CASE): number {
  if (start + 1 >= end) return start;
  const first = bytes[start + 1]! | fold;
  if (first === 0x73 || first === 0x64 || first === 0x6d || first === 0x74) return start + 2; // s d m t
  if (start + 2 >= end) return start;
  if (fold !== 0 && bytes[start + 1] === 0xc5 && bytes[start + 2] === 0xbf) return start + 3; // U+017F
  const second = bytes[start + 2]! | fold;
  const isLong = first === 0x6c ? second === 0x6c : (first === 0x76 || first === 0x72) && second === 0x65; // ll ve re
  return isLong ? start + 3 : start;
}
