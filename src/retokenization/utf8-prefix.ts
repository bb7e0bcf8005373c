/**
 * Bytes that begin a text: UTF-8, but for a last character that may be cut. Which characters could stand there?
 *
 * Where a split pattern is to be asked how a text goes on, all that counts of a character is its class (letter, number,
 * white space, ...), so one character of each class stands for all.
 *
 * Example: 63 61 66 C3 begins "café", "cafÿ" and 62 other texts; 63 C3 63 begins none.
 */

import { characterAt } from "../tokenization/character-classes.ts";

/** Length of the character that a byte leads, 0 where none begins with it. */
export function characterLength(first: number): number {
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/** Whether `bytes[start .. end]`, at most one character's worth, begins a character. */
function beginsCharacter(bytes: Uint8Array, start: number, end: number): boolean {
  const first = bytes[start]!;
  if (characterLength(first) < end - start) return false;
  if (end - start > 1) {
    // The second byte's range keeps out overlong forms, surrogates and what lies beyond U+10FFFF.
    const second = bytes[start + 1]!;
    const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
    const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) return false;
  }
  for (let i = start + 2; i < end; i++) if (bytes[i]! < 0x80 || bytes[i]! > 0xbf) return false;
  return characterLength(first) > 0;
}

/** How many of the bytes make up whole characters; -1 where no text begins with them. */
export function wholeCharacters(bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const end = at + characterLength(bytes[at]!);
    if (!beginsCharacter(bytes, at, Math.min(end, bytes.length))) return -1;
    if (end > bytes.length) return at;
    at = end;
  }
  return at;
}

/** All characters that begin with the bytes of a cut one, in order of code points. */
export function* completions(cut: Uint8Array): Generator<Uint8Array, void> {
  if (cut.length === characterLength(cut[0]!)) {
    yield cut;
    return;
  }
  for (let byte = 0x80; byte <= 0xbf; byte++) {
    const longer = Uint8Array.of(...cut, byte);
    if (beginsCharacter(longer, 0, longer.length)) yield* completions(longer);
  }
}

const UTF8 = new TextEncoder();
/** Small, capital and other letter, modifier letter, mark, number, white space and symbol, of three and of four bytes. */
const ofLength: Readonly<Record<3 | 4, readonly Uint8Array[]>> = {
  3: ["\u1d00", "\u1e00", "\u4e00", "\u3005", "\u20d0", "\u2460", "\u3000", "\u2030"].map((c) => UTF8.encode(c)),
  4: ["\u{10428}", "\u{10400}", "\u{10300}", "\u{16b40}", "\u{1d165}", "\u{1d7ce}", "\u{1f600}"].map((c) =>
    UTF8.encode(c),
  ),
};
const known = new Map<string, readonly Uint8Array[]>();

/**
 * A character of each class that may stand where one is cut; where two bytes or more are missing, of each class there is
 * among characters of its length.
 */
export function completionsByClass(cut: Uint8Array): readonly Uint8Array[] {
  const length = characterLength(cut[0]!);
  if (length - cut.length > 1) return ofLength[length as 3 | 4];
  const key = cut.join();
  let found = known.get(key);
  if (found === undefined) {
    const byClass = new Map<number, Uint8Array>();
    for (const character of completions(cut)) {
      const classes = characterAt(character, 0);
      if (!byClass.has(classes)) byClass.set(classes, character);
    }
    found = [...byClass.values()];
    known.set(key, found);
  }
  return found;
}
