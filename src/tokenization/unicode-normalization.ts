/**
 * Unicode normalization form C (Unicode Standard Annex #15) in front of a tokenizer, and the way from the normalized text
 * back to the text it came from.
 *
 * The form is JavaScript's own (`String.prototype.normalize`). It does not tell which characters became which; that is
 * found by cutting the text into runs that normalize each by itself:
 *
 *     NFC(text) = concat over runs r of NFC(r),  NFKC alike; BERT's rules (`bert-normalizer.ts`) act on single characters
 *
 * A run is a character with the marks behind it (those with a combining class, which normalization puts in order) and
 * whatever else composes with it: some vowel signs, Hangul jamo. Which characters these are is asked of JavaScript
 * rather than of a table, so that the answer belongs to the Unicode version that normalizes.
 *
 * **Deviations**: Hugging Face's tokenizers normalize as of Unicode 9, JavaScript as of `process.versions.unicode`; marks
 * and letters assigned in between are composed and put in order only here. Marks in falling order take JavaScript
 * quadratic time: 10,000 of them 0.1 s.
 *
 * Example: "e" + U+0301 + "x" has the runs "e" + U+0301 and "x", which become "é" and "x".
 */

import { type BertNormalizer, bertNormalize } from "./bert-normalizer.ts";
import type { Stretch } from "./special-tokens.ts";

/** What is done to a text before it is split: nothing, Unicode normalization form C or KC, or BERT's rules. */
export type Normalizer = "none" | "NFC" | "NFKC" | BertNormalizer;

export function normalize(text: string, normalizer: Normalizer): string {
  if (normalizer === "none") return text;
  return typeof normalizer === "string" ? text.normalize(normalizer) : bertNormalize(text, normalizer);
}

/** A normalized text and, for each of its UTF-16 units, the part of the original that the unit stands for. */
export interface Alignment {
  readonly text: string;
  /** First unit of that part: [text.length]. */
  readonly starts: Uint32Array;
  /** One past its last unit: [text.length]. */
  readonly ends: Uint32Array;
}

/**
 * The text of `stretches` with the ordinary ones normalized, each by itself. A unit stands for the unit it came from, but in
 * a run that normalization changed every unit stands for the whole run.
 */
export function alignNormalized(stretches: readonly Stretch[], normalizer: Normalizer): Alignment {
  const texts = stretches.map(({ id, text }) => (id >= 0 ? text : normalize(text, normalizer)));
  const text = texts.join("");
  const starts = new Uint32Array(text.length);
  const ends = new Uint32Array(text.length);
  let at = 0;
  const form = normalizer === "NFKC" ? "NFKC" : "NFC";
  const put = (before: string, after: string, start: number): void => {
    const changed = before !== after;
    for (let i = 0; i < after.length; i++, at++) {
      starts[at] = changed ? start : start + i;
      ends[at] = changed ? start + before.length : start + i + 1;
    }
  };
  for (const [i, { text: before, start }] of stretches.entries()) {
    if (before === texts[i]) put(before, before, start);
    else for (const [run, unit] of runs(before, form)) put(run, normalize(run, normalizer), start + unit);
  }
  return { text, starts, ends };
}

/** The runs of `text` in order, each with its first unit. */
function* runs(text: string, form: "NFC" | "NFKC"): Generator<[run: string, start: number], void> {
  let start = 0;
  let at = 0;
  for (const character of text) {
    if (at > start && !joins(text, start, at, character, form)) {
      yield [text.slice(start, at), start];
      start = at;
    }
    at += character.length;
  }
  if (at > start) yield [text.slice(start), start];
}

/** The first character that joins those before it. None will ever be found below: Unicode's stability policy. */
const FIRST_JOINING = "\u0300";
/** The mark with the highest combining class there is: any other that follows is moved in front of it. */
const LAST_MARK = "\u0345";

/** Whether `character` belongs to the run `text[start .. at]` that it stands behind. */
function joins(text: string, start: number, at: number, character: string, form: "NFC" | "NFKC"): boolean {
  if (character < FIRST_JOINING) return false;
  if (character === LAST_MARK || !(LAST_MARK + character).normalize("NFD").startsWith(LAST_MARK)) return true;
  const run = text.slice(start, at);
  return (run + character).normalize(form) !== run.normalize(form) + character.normalize(form);
}
