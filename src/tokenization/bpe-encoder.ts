/**
 * From text to ids: scan the next piece, look it up whole, and merge only what is no token.
 *
 * Everything happens on UTF-8 in typed arrays; no string is made of a piece. Most pieces of ordinary text are tokens and
 * cost one hash lookup; of the others, those met lately are in a small cache.
 */

import { BpeMerger, type MergeTable } from "./bpe-merger.ts";
import type { IdBuffer } from "./id-buffer.ts";
import { PieceCache } from "./piece-cache.ts";
import { pieceEnds, type SplitPattern } from "./split-patterns.ts";
import { type Scanner, scanCl100k, scanGpt2, scanO200k } from "./split-scanner.ts";
import { hashBytes, type TokenTable } from "./token-table.ts";

/** Texts up to this many UTF-16 units share one scratch buffer. */
const SCRATCH_UNITS = 1 << 14;

const UTF8 = new TextEncoder();

export class BpeEncoder {
  readonly #tokens: TokenTable;
  readonly #merger: BpeMerger;
  readonly #pattern: SplitPattern;
  readonly #scan: Scanner | undefined;
  readonly #cache = new PieceCache();
  readonly #scratch = new Uint8Array(3 * SCRATCH_UNITS);
  /** Per id: 1 when its bytes as a piece become that one id, 2 when not, 0 when not yet known. */
  readonly #whole: Uint8Array;

  /** @param wholePieces see `BpeDefinition` */
  constructor(tokens: TokenTable, merges: MergeTable, pattern: SplitPattern, wholePieces: boolean) {
    this.#tokens = tokens;
    this.#merger = new BpeMerger(merges);
    this.#pattern = pattern;
    this.#scan = scannerOf(pattern);
    this.#whole = new Uint8Array(tokens.size).fill(wholePieces ? 1 : 0);
  }

  /** Append the ids of a text that holds no special token. */
  encode(text: string, ids: IdBuffer): void {
    if (this.#scan !== undefined) {
      let bytes = this.#scratch;
      let size = 0;
      if (text.length <= SCRATCH_UNITS) {
        size = UTF8.encodeInto(text, bytes).written;
      } else {
        bytes = UTF8.encode(text);
        size = bytes.length;
      }
      this.#encodeBytes(bytes, size, this.#scan, ids);
      return;
    }
    let start = 0;
    for (const end of pieceEnds(text, this.#pattern)) {
      const bytes = UTF8.encode(text.slice(start, end));
      this.#encodePiece(bytes, 0, bytes.length, ids);
      start = end;
    }
  }

  #encodeBytes(bytes: Uint8Array, size: number, scan: Scanner, ids: IdBuffer): void {
    let start = 0;
    while (start < size) {
      const end = scan(bytes, start, size);
      this.#encodePiece(bytes, start, end, ids);
      start = end;
    }
  }

  #encodePiece(bytes: Uint8Array, start: number, end: number, ids: IdBuffer): void {
    const hash = hashBytes(bytes, start, end);
    const id = this.#tokens.findHashed(hash, bytes, start, end);
    if (id >= 0 && (this.#whole[id] === 1 || this.#becomesWhole(id))) {
      ids.push(id);
      return;
    }
    ids.reserve(PieceCache.MAX_IDS);
    let count = this.#cache.read(hash, bytes, start, end, ids.values, ids.length);
    if (count === 0) {
      count = this.#merger.merge(bytes, start, end);
      const merged = this.#merger.ids;
      this.#cache.write(hash, bytes, start, end, merged, count);
      ids.reserve(count);
      for (let i = 0; i < count; i++) ids.values[ids.length + i] = merged[i]!;
    }
    ids.length += count;
  }

  #becomesWhole(id: number): boolean {
    if (this.#whole[id] === 0) {
      const { bytes, offsets } = this.#tokens;
      const count = this.#merger.merge(bytes, offsets[id]!, offsets[id + 1]!);
      this.#whole[id] = count === 1 && this.#merger.ids[0] === id ? 1 : 2;
    }
    return this.#whole[id] === 1;
  }
}

/** Where the named patterns end a piece; undefined for an expression of the caller's. */
export function scannerOf(pattern: SplitPattern): Scanner | undefined {
  if (pattern === "gpt2") return scanGpt2;
  if (pattern === "cl100k") return scanCl100k;
  if (pattern === "o200k") return scanO200k;
  return pattern === "none" ? (_bytes, _start, end) => end : undefined;
}
