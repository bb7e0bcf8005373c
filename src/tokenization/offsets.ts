/** From where tokens end in bytes to where they stand in the text that was given. */

import { ArgumentError } from "../errors.ts";
import { IdBuffer } from "./id-buffer.ts";
import type { AddedTokens, SpecialTokens } from "./special-tokens.ts";
import type { EncodeOptions, EncodingWithOffsets } from "./tokenizer.ts";
import { alignNormalized, normalize } from "./unicode-normalization.ts";

/** Tokens of one stretch of ordinary text, each with its range in UTF-16 units of that stretch. */
export interface StretchEncoding {
  readonly ids: ArrayLike<number>;
  readonly starts: ArrayLike<number>;
  readonly ends: ArrayLike<number>;
}

/**
 * Encode a text with offsets, given how to encode a stretch of it that is normalized and holds no special token.
 * A token that stands for nothing in the text has an empty range where it was put in.
 */
export function encodeWithOffsets(
  text: string,
  options: EncodeOptions,
  special: SpecialTokens,
  { normalizer }: AddedTokens,
  encodeStretch: (stretch: string, isFirst: boolean) => StretchEncoding,
): EncodingWithOffsets {
  if (typeof text !== "string") throw new ArgumentError("text", "a string", text);
  const ids = new IdBuffer();
  const starts = new IdBuffer();
  const ends = new IdBuffer();
  let base = 0; // of the stretch, in the normalized text
  for (const { id, text: stretch } of special.split(text, options)) {
    const tokens = id >= 0 ? { ids: [id], starts: [0], ends: [stretch.length] } : encodeStretch(stretch, base === 0);
    for (let i = 0; i < tokens.ids.length; i++) {
      ids.push(tokens.ids[i]!);
      starts.push(base + tokens.starts[i]!);
      ends.push(base + tokens.ends[i]!);
    }
    base += stretch.length;
  }
  const result = { ids: ids.toArray(), starts: starts.toArray(), ends: ends.toArray() };
  if (normalize(text, normalizer) === text) return result;
  const aligned = alignNormalized(special.stretches(text, options), normalizer);
  for (let i = 0; i < result.ids.length; i++) {
    const isEmpty = result.starts[i] === result.ends[i];
    result.starts[i] = aligned.starts[result.starts[i]!] ?? text.length;
    result.ends[i] = isEmpty ? result.starts[i]! : aligned.ends[result.ends[i]! - 1]!;
  }
  return result;
}

/** For each byte of the text's UTF-8, the UTF-16 units where its character begins and ends. */
export function unitsOfBytes(text: string): { starts: Uint32Array; ends: Uint32Array } {
  const starts = new IdBuffer(text.length);
  const ends = new IdBuffer(text.length);
  let unit = 0;
  for (const character of text) {
    const code = character.codePointAt(0)!;
    const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (let byte = 0; byte < size; byte++) {
      starts.push(unit);
      ends.push(unit + character.length);
    }
    unit += character.length;
  }
  return { starts: starts.toArray(), ends: ends.toArray() };
}
