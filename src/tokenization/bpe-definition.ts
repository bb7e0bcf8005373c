/**
 * What a byte-level BPE tokenizer is made of, as plain data: the trainer and the format readers produce it,
 * `Bpe` is built from it.
 */

import { FormatError } from "../errors.ts";
import { BpeMerger, type MergeTable, RANK_LIMIT } from "./bpe-merger.ts";
import type { Merge } from "./bpe-trainer.ts";
import { PairTable } from "./pair-table.ts";
import type { AddedTokens } from "./special-tokens.ts";
import type { SplitPattern } from "./split-patterns.ts";
import { concatBytes, type TokenTable } from "./token-table.ts";

export interface BpeDefinition extends AddedTokens {
  /** Where it came from, for messages. */
  readonly source: string;
  /** Bytes of each ordinary token by id; undefined for ids that special tokens take or nothing does. */
  readonly tokens: readonly (Uint8Array | undefined)[];
  /**
   * The pairs that merge, best first; or `"any-split"`, tiktoken's rule: every pair of tokens whose concatenation
   * is a token merges into it, and the lower that token's id, the sooner.
   */
  readonly merges: readonly Merge[] | "any-split";
  /**
   * Whether a piece that is a token as a whole is that token, merges or not (tiktoken; `ignore_merges` in Hugging
   * Face files). It differs from merging only for tokens that merging cannot reach.
   */
  readonly wholePieces: boolean;
  readonly pattern: SplitPattern;
}

/** Ids must be below this. */
export const ID_LIMIT = RANK_LIMIT;

/**
 * Ids of special and added tokens must be less than this beyond the ordinary ones: a small file shall not ask for much
 * memory. The widest gap in use (o200k_harmony's) is about a thousand.
 */
export const SPECIAL_ID_REACH = 65_536;

/**
 * Longest token, in bytes, of a file without a merge list: finding the merges costs the square of a token's length. The
 * longest of tiktoken's vocabularies have 128.
 */
export const TOKEN_LIMIT = 1024;

/**
 * The lookup tables of the merge loop.
 * @throws FormatError where a byte has no token or a merge gives none
 */
export function buildMergeTable(definition: BpeDefinition, table: TokenTable): MergeTable {
  const byteIds = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const id = table.find(Uint8Array.of(byte), 0, 1);
    if (id < 0) {
      throw new FormatError(
        definition.source,
        `the vocabulary has no token for the single byte ${byte}`,
        "A byte-level vocabulary holds all 256.",
      );
    }
    byteIds[byte] = id;
  }
  return definition.merges === "any-split"
    ? { byteIds, ...anySplit(table) }
    : { byteIds, ...listed(definition.source, definition.merges, table) };
}

/** Every way to cut a token in two tokens; rank and result are the token's id. */
function anySplit(table: TokenTable): Pick<MergeTable, "ranks" | "results"> {
  const ranks = new PairTable(2 * table.size);
  const { bytes, offsets } = table;
  for (let id = 0; id < table.size; id++) {
    const end = offsets[id + 1]!;
    for (let cut = offsets[id]! + 1; cut < end; cut++) {
      const left = table.find(bytes, offsets[id]!, cut);
      if (left < 0) continue;
      const right = table.find(bytes, cut, end);
      if (right >= 0) ranks.set(left, right, id);
    }
  }
  return { ranks, results: Int32Array.from({ length: table.size }, (_, id) => id) };
}

function listed(source: string, merges: readonly Merge[], table: TokenTable): Pick<MergeTable, "ranks" | "results"> {
  const ranks = new PairTable(merges.length);
  const results = new Int32Array(merges.length);
  merges.forEach(([left, right], rank) => {
    const joined = concatBytes(table.get(left), table.get(right));
    const id = table.find(joined, 0, joined.length);
    if (id < 0) throw new FormatError(source, `merge ${rank} (ids ${left} and ${right}) gives no token`);
    if (ranks.get(left, right) >= 0)
      throw new FormatError(source, `merge ${rank} (ids ${left} and ${right}) is listed twice`);
    ranks.set(left, right, rank);
    results[rank] = id;
  });
  return { ranks, results };
}

/**
 * The merge list behind a rank table: the token with id `r` is the merge of the two parts that its bytes become when
 * only merges with ids below `r` are used. Tokens that do not come down to two parts have no merge; they are emitted as
 * whole pieces only.
 */
export function recoverMerges(table: TokenTable, merges: MergeTable): Merge[] {
  const recovered: Merge[] = [];
  const merger = new BpeMerger(merges);
  for (let id = 0; id < table.size; id++) {
    if (table.length(id) < 2) continue;
    const count = merger.merge(table.bytes, table.offsets[id]!, table.offsets[id + 1]!, id);
    if (count === 2) recovered.push([merger.ids[0]!, merger.ids[1]!]);
  }
  return recovered;
}
