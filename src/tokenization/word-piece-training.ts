/**
 * From texts and options to a WordPiece vocabulary: checks the arguments, cuts the texts into words, trains, numbers the ids.
 *
 * Ids: the unknown token, the special tokens in the order given, the characters, then the joined tokens in their order.
 */

import { ArgumentError } from "../errors.ts";
import { ID_LIMIT } from "./bpe-definition.ts";
import { type Normalizer, normalize } from "./unicode-normalization.ts";
import type { WordPieceDefinition } from "./word-piece-definition.ts";
import { trainWordPieces, type WordPieceScore, wordPieceAlphabet } from "./word-piece-trainer.ts";
import { type WordSplit, wordExpression } from "./word-split.ts";

export interface WordPieceTrainingOptions {
  /** Ids in all: the unknown token, special tokens, characters and joined tokens. */
  readonly vocabSize: number;
  /** Contents of special tokens. They are not learned from. Default: none. */
  readonly specialTokens?: readonly string[];
  /** The token of words that cannot be spelled. Default `"[UNK]"`. */
  readonly unknownToken?: string;
  /** Marks tokens that continue a word. Default `"##"`. */
  readonly prefix?: string;
  /** Words of more characters are unknown, and not learned from. Default 100. */
  readonly longestWord?: number;
  /** What happens to a text before it is split. Default `"none"`; `BERT_UNCASED` is BERT's. */
  readonly normalizer?: Normalizer;
  /** How a text falls into words. Default `"bert"`. */
  readonly split?: WordSplit;
  /** Which pair is joined next. Default `"likelihood"`. */
  readonly score?: WordPieceScore;
  /** Pairs that occur less often are not joined. Default 2. */
  readonly leastCount?: number;
}

/** What `WordPiece.train` is built on; throws as documented there. */
export function trainWordPieceDefinition(
  texts: Iterable<string>,
  options: WordPieceTrainingOptions,
): WordPieceDefinition {
  const {
    vocabSize,
    specialTokens = [],
    unknownToken = "[UNK]",
    prefix = "##",
    longestWord = 100,
    normalizer = "none",
    split = "bert",
    score = "likelihood",
    leastCount = 2,
  } = options;
  if (score !== "likelihood" && score !== "frequency") {
    throw new ArgumentError("options.score", '"likelihood" or "frequency"', score);
  }
  for (const [name, value] of Object.entries({ longestWord, leastCount })) {
    if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`options.${name}`, "an integer >= 1", value);
  }
  if (typeof prefix !== "string" || prefix === "") {
    throw new ArgumentError("options.prefix", "a string that is not empty", prefix);
  }
  const control = [unknownToken, ...specialTokens];
  if (control.includes("") || new Set(control).size < control.length) {
    throw new ArgumentError("options.specialTokens", "distinct, non-empty strings", control);
  }

  const words = countWords(texts, normalizer, split, longestWord);
  for (const content of control) words.delete(content);
  const alphabet = wordPieceAlphabet(words, prefix);
  const smallest = control.length + alphabet.length;
  if (!Number.isInteger(vocabSize) || vocabSize < smallest || vocabSize > ID_LIMIT) {
    throw new ArgumentError(
      "options.vocabSize",
      `an integer from ${smallest} (unknown, ${specialTokens.length} special tokens, ${alphabet.length} characters) to 2^22`,
      vocabSize,
    );
  }
  const joined = trainWordPieces(words, vocabSize - smallest, { prefix, score, leastCount });
  if (smallest + joined.length < vocabSize) {
    throw new ArgumentError(
      "options.vocabSize",
      `at most ${smallest + joined.length}, all that these texts can fill`,
      vocabSize,
      "Train on more text or ask for a smaller vocabulary.",
    );
  }
  const tokens: (string | undefined)[] = [unknownToken, ...specialTokens.map(() => undefined), ...alphabet, ...joined];
  return {
    source: "trained vocabulary",
    tokens,
    unknownId: 0,
    prefix,
    longestWord,
    split,
    cleanUp: true,
    normalizer,
    specialTokens: new Map(specialTokens.map((content, i) => [content, 1 + i])),
    addedTokens: new Map(),
    normalizedTokens: new Set(),
  };
}

/** Distinct words in order of first appearance, with their frequency. */
function countWords(
  texts: Iterable<string>,
  normalizer: Normalizer,
  split: WordSplit,
  longest: number,
): Map<string, number> {
  if (typeof texts === "string") {
    throw new ArgumentError("texts", "an iterable of strings", texts, "Put a single text in an array: [text].");
  }
  const expression = wordExpression(split);
  const counts = new Map<string, number>();
  for (const text of texts) {
    if (typeof text !== "string") throw new ArgumentError("texts", "an iterable of strings", text);
    const normal = normalize(text.replace(/\p{Surrogate}/gu, "\ufffd"), normalizer);
    for (const word of normal.match(expression) ?? []) {
      if (Array.from(word).length <= longest) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  if (counts.size === 0) throw new ArgumentError("texts", "at least one text that has a word", []);
  return counts;
}
