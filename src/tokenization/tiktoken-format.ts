/**
 * tiktoken's rank files (https://github.com/openai/tiktoken): a vocabulary as bytes and ranks, without merges.
 *
 * Two spellings are read. The files tiktoken downloads hold one token per line, `base64(bytes) rank`. The npm packages
 * `tiktoken` and `js-tiktoken` hold them compressed, in the field `bpe_ranks`: lines `! first base64 base64 ...`,
 * whose tokens have the ranks first, first + 1, ...
 *
 * A rank is both the id and the priority: a pair merges when its concatenation is a token, lowest rank first.
 */

import { ArgumentError, FormatError } from "../errors.ts";
import { type BpeDefinition, ID_LIMIT, SPECIAL_ID_REACH, TOKEN_LIMIT } from "./bpe-definition.ts";
import { bytesToAlphabet } from "./byte-alphabet.ts";
import { checkPattern, type SplitPattern } from "./split-patterns.ts";

export interface TiktokenOptions {
  /** Split pattern the vocabulary was made for: r50k and p50k "gpt2", cl100k "cl100k", o200k "o200k". */
  readonly pattern: SplitPattern;
  /** Ids of special tokens by content. Default: none. */
  readonly specialTokens?: Readonly<Record<string, number>>;
}

const SOURCE = "tiktoken ranks";

/** What `Bpe.fromTiktoken` is built on; throws as documented there. */
export function readTiktoken(ranks: string | Uint8Array, options: TiktokenOptions): BpeDefinition {
  checkPattern(options.pattern);
  const text = typeof ranks === "string" ? ranks : new TextDecoder().decode(ranks);
  const byRank = new Map<number, Uint8Array>();
  let lineNumber = 0;
  for (const line of text.split("\n")) {
    lineNumber++;
    const fields = line.trim().split(/ +/);
    if (fields[0] === "") continue;
    const compressed = fields[0] === "!";
    if (!compressed && fields.length !== 2) {
      throw new FormatError(SOURCE, `line ${lineNumber} has ${fields.length} fields, not "base64 rank"`);
    }
    let rank = readRank(fields[1] ?? "", lineNumber);
    for (const field of compressed ? fields.slice(2) : fields.slice(0, 1)) {
      const bytes = decodeBase64(field);
      if (bytes === undefined || bytes.length === 0) {
        throw new FormatError(SOURCE, `line ${lineNumber} holds "${field.slice(0, 40)}", which is not base64`);
      }
      if (bytes.length > TOKEN_LIMIT) {
        throw new FormatError(
          SOURCE,
          `line ${lineNumber} holds a token of ${bytes.length} bytes, more than ${TOKEN_LIMIT}`,
        );
      }
      if (byRank.has(rank)) throw new FormatError(SOURCE, `rank ${rank} is given twice`);
      byRank.set(rank++, bytes);
    }
  }
  const specialTokens = new Map(Object.entries(options.specialTokens ?? {}));
  checkSpecialTokens(specialTokens, byRank);
  const tokens = inRankOrder(byRank, new Set(specialTokens.values()));
  return {
    source: SOURCE,
    tokens,
    merges: "any-split",
    wholePieces: true,
    normalizer: "none",
    pattern: options.pattern,
    specialTokens,
    addedTokens: new Map(),
    normalizedTokens: new Set(),
  };
}

function readRank(field: string, lineNumber: number): number {
  const rank = /^\d{1,15}$/.test(field) ? Number(field) : Number.NaN;
  if (!(rank < ID_LIMIT)) {
    throw new FormatError(SOURCE, `line ${lineNumber}: "${field.slice(0, 40)}" is not a rank below ${ID_LIMIT}`);
  }
  return rank;
}

function checkSpecialTokens(special: ReadonlyMap<string, number>, byRank: ReadonlyMap<number, Uint8Array>): void {
  const limit = byRank.size + SPECIAL_ID_REACH;
  const taken = new Set<number>();
  for (const [content, id] of special) {
    const argument = `options.specialTokens[${JSON.stringify(content)}]`;
    if (content === "") throw new ArgumentError(argument, "a content that is not empty", content);
    if (!Number.isInteger(id) || id < 0 || id >= limit)
      throw new ArgumentError(argument, `an integer id below ${limit}`, id);
    if (byRank.has(id) || taken.has(id)) throw new ArgumentError(argument, "an id that no other token has", id);
    taken.add(id);
  }
}

/** The tokens by rank. Bytes must be distinct, and ranks without gaps but for those that special tokens fill. */
function inRankOrder(
  byRank: ReadonlyMap<number, Uint8Array>,
  special: ReadonlySet<number>,
): (Uint8Array | undefined)[] {
  const tokens: (Uint8Array | undefined)[] = [];
  const seen = new Set<string>();
  for (let found = 0; found < byRank.size; ) {
    const rank = tokens.length;
    const bytes = byRank.get(rank);
    tokens.push(bytes);
    if (bytes === undefined) {
      if (special.has(rank)) continue;
      throw new FormatError(
        SOURCE,
        `rank ${rank} is missing`,
        "Name the special token that takes it, if there is one.",
      );
    }
    found++;
    const key = bytesToAlphabet(bytes);
    if (seen.has(key)) throw new FormatError(SOURCE, `rank ${rank} repeats the bytes of a lower rank`);
    seen.add(key);
  }
  return tokens;
}

const BASE64_VALUES: Int8Array = (() => {
  const values = new Int8Array(128).fill(-1);
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (let i = 0; i < 64; i++) values[digits.charCodeAt(i)] = i;
  return values;
})();

/** Strict base64, padding required; undefined when malformed. */
function decodeBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0) return undefined;
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const digits = text.length - padding;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  let bits = 0;
  let at = 0;
  for (let i = 0; i < digits; i++) {
    const value = BASE64_VALUES[text.charCodeAt(i)] ?? -1;
    if (value < 0) return undefined;
    bits = (bits << 6) | value;
    if (i % 4 === 1) bytes[at++] = bits >> 4;
    else if (i % 4 === 2) bytes[at++] = bits >> 2;
    else if (i % 4 === 3) bytes[at++] = bits;
  }
  return bytes;
}
