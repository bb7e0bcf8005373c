/**
 * The byte alphabet of GPT-2: 256 printable characters that stand for the 256 bytes in `tokenizer.json` files.
 *
 * Bytes 33-126, 161-172 and 174-255 are their own Latin-1 character; the other 68, in ascending order, are U+0100,
 * U+0101, ... So a space (32, the 33rd of the others) is U+0120: " the" is written "Ġthe".
 */

/** Character (one UTF-16 unit) of each byte. */
export const BYTE_TO_CHARACTER: readonly string[] = alphabet();

/** Byte of each character's code unit, -1 for units outside the alphabet. Length 324: the last character is U+0143. */
const UNIT_TO_BYTE: Int16Array = (() => {
  const table = new Int16Array(256 + 68).fill(-1);
  BYTE_TO_CHARACTER.forEach((character, byte) => {
    table[character.charCodeAt(0)] = byte;
  });
  return table;
})();

/**
 * The bytes in the order of their characters' code points: the order in which GPT-2, tiktoken and Hugging Face number
 * them, so that "!" (33) comes first and NUL (0) is number 188.
 */
export const BYTES_IN_ALPHABET_ORDER: Uint8Array = Uint8Array.from({ length: 256 }, (_, byte) => byte).sort(
  (a, b) => BYTE_TO_CHARACTER[a]!.charCodeAt(0) - BYTE_TO_CHARACTER[b]!.charCodeAt(0),
);

/** `[0x20, 0x61]` -> `"Ġa"`. */
export function bytesToAlphabet(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += BYTE_TO_CHARACTER[byte]!;
  return text;
}

/** `"Ġa"` -> `[0x20, 0x61]`; undefined where a character is outside the alphabet. */
export function alphabetToBytes(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) {
    const byte = UNIT_TO_BYTE[text.charCodeAt(i)] ?? -1;
    if (byte < 0) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

function alphabet(): string[] {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const own = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCharCode(own ? byte : 256 + others++);
  });
}
