/** Text to ids: split into pieces, look each up, merge those that are not a token. */

import { BpeMerger, type MergeTable } from "./bpe-merger.ts";
import type { IdBuffer } from "./id-buffer.ts";
import { type SplitPattern, splitText } from "./split-patterns.ts";
import type { TokenTable } from "./token-table.ts";

export class BpeEncoder {
  readonly #tokens: TokenTable;
  readonly #merger: BpeMerger;
  readonly #pattern: SplitPattern;
  readonly #wholePieces: boolean;

  constructor(tokens: TokenTable, merges: MergeTable, pattern: SplitPattern, wholePieces: boolean) {
    this.#tokens = tokens;
    this.#merger = new BpeMerger(merges);
    this.#pattern = pattern;
    this.#wholePieces = wholePieces;
  }

  /** Append the ids of `text[start .. end]`, which holds no special token. */
  encode(text: string, start: number, end: number, ids: IdBuffer): void {
    const utf8 = new TextEncoder();
    for (const piece of splitText(text.slice(start, end), this.#pattern)) {
      const bytes = utf8.encode(piece);
      const whole = this.#wholePieces ? this.#tokens.find(bytes, 0, bytes.length) : -1;
      if (whole >= 0) {
        ids.push(whole);
        continue;
      }
      const count = this.#merger.merge(bytes, 0, bytes.length);
      for (let i = 0; i < count; i++) ids.push(this.#merger.ids[i]!);
    }
  }
}
