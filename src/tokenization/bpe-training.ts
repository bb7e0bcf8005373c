/**
 * From texts and options to a vocabulary: checks the arguments, splits and counts the pieces, trains, numbers the ids.
 *
 * Ids: the 256 bytes, then one per merge, then the special tokens in the order given.
 */

import { ArgumentError } from "../errors.ts";
import type { BpeDefinition } from "./bpe-definition.ts";
import { RANK_LIMIT } from "./bpe-merger.ts";
import { type TieRule, trainMerges } from "./bpe-trainer.ts";
import { BYTES_IN_ALPHABET_ORDER } from "./byte-alphabet.ts";
import { checkPattern, pieceEnds, type SplitPattern } from "./split-patterns.ts";
import { concatBytes } from "./token-table.ts";

export interface BpeTrainingOptions {
  /** Ids in all: 256 bytes, merges and special tokens. */
  readonly vocabSize: number;
  /** How texts fall into pieces. Default `"gpt2"`. */
  readonly pattern?: SplitPattern;
  /** Contents of special tokens. They get the last ids and are not learned from. Default: none. */
  readonly specialTokens?: readonly string[];
  /**
   * What decides between equally frequent pairs. `"first-seen"` (default): the pair that occurs first in the text, as
   * minbpe; the id of a byte is its value. `"lowest-ids"`: the smallest ids, as Hugging Face's trainer; bytes are
   * numbered in the order of the byte alphabet ("!" is 0), as there. (Its trainer puts special tokens first, so its
   * ids are these plus the number of special tokens.)
   */
  readonly tieRule?: TieRule;
}

/** What `Bpe.train` is built on; throws as documented there. */
export function trainDefinition(texts: Iterable<string>, options: BpeTrainingOptions): BpeDefinition {
  const { vocabSize, pattern = "gpt2", specialTokens = [], tieRule = "first-seen" } = options;
  checkPattern(pattern);
  if (tieRule !== "first-seen" && tieRule !== "lowest-ids") {
    throw new ArgumentError("options.tieRule", '"first-seen" or "lowest-ids"', tieRule);
  }
  const smallest = 256 + specialTokens.length;
  if (!Number.isInteger(vocabSize) || vocabSize < smallest || vocabSize > RANK_LIMIT) {
    const special = specialTokens.length === 0 ? "" : ` and ${specialTokens.length} special token(s)`;
    throw new ArgumentError(
      "options.vocabSize",
      `an integer from ${smallest} (256 bytes${special}) to 2^22`,
      vocabSize,
    );
  }
  if (specialTokens.includes("") || new Set(specialTokens).size < specialTokens.length) {
    throw new ArgumentError("options.specialTokens", "distinct, non-empty strings", specialTokens);
  }

  const byteIds = new Int32Array(256);
  for (let id = 0; id < 256; id++) byteIds[tieRule === "first-seen" ? id : BYTES_IN_ALPHABET_ORDER[id]!] = id;

  const wanted = vocabSize - smallest;
  const merges = trainMerges(countPieces(texts, pattern), wanted, byteIds, tieRule);
  if (merges.length < wanted) {
    throw new ArgumentError(
      "options.vocabSize",
      `at most ${smallest + merges.length}, all that these texts can fill`,
      vocabSize,
      "Train on more text or ask for a smaller vocabulary.",
    );
  }

  const tokens: Uint8Array[] = [];
  byteIds.forEach((id, byte) => {
    tokens[id] = Uint8Array.of(byte);
  });
  for (const [left, right] of merges) tokens.push(concatBytes(tokens[left]!, tokens[right]!));
  return {
    source: "trained vocabulary",
    tokens,
    merges,
    wholePieces: false,
    normalizer: "none",
    pattern,
    specialTokens: new Map(specialTokens.map((content, i) => [content, tokens.length + i])),
    addedTokens: new Map(),
    normalizedTokens: new Set(),
  };
}

/** Distinct pieces in order of first appearance, with their frequency. */
function countPieces(texts: Iterable<string>, pattern: SplitPattern): Map<string, number> {
  if (typeof texts === "string") {
    throw new ArgumentError("texts", "an iterable of strings", texts, "Put a single text in an array: [text].");
  }
  const counts = new Map<string, number>();
  for (const text of texts) {
    if (typeof text !== "string") throw new ArgumentError("texts", "an iterable of strings", text);
    let start = 0;
    for (const end of pieceEnds(text, pattern)) {
      const piece = text.slice(start, end);
      counts.set(piece, (counts.get(piece) ?? 0) + 1);
      start = end;
    }
  }
  if (counts.size === 0) throw new ArgumentError("texts", "at least one text that is not empty", []);
  return counts;
}
