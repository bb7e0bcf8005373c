/** What a WordPiece tokenizer is made of, as plain data: the trainer and the format reader produce it. */

import type { AddedTokens } from "./special-tokens.ts";
import type { WordSplit } from "./word-split.ts";

export interface WordPieceDefinition extends AddedTokens {
  /** Where it came from, for messages. */
  readonly source: string;
  /** Each id's token, with the prefix where it continues a word; undefined for ids that added tokens take or nothing does. */
  readonly tokens: readonly (string | undefined)[];
  /** What a word becomes that cannot be spelled. It may be a special token too. */
  readonly unknownId: number;
  /** Marks tokens that continue a word. */
  readonly prefix: string;
  /** Words of more characters are unknown. */
  readonly longestWord: number;
  readonly split: WordSplit;
  /** Whether decoding takes away the spaces before punctuation and inside English contractions. */
  readonly cleanUp: boolean;
}
