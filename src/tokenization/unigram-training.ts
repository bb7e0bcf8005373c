/**
 * From texts and options to a unigram vocabulary: checks the arguments, cuts the texts into words, trains, numbers the ids.
 *
 * Ids: the unknown token, the special tokens in the order given, the 256 bytes, then the pieces by falling score.
 */

import { ArgumentError } from "../errors.ts";
import { ID_LIMIT } from "./bpe-definition.ts";
import { checkPattern, type SplitPattern, splitText } from "./split-patterns.ts";
import { byteName, type UnigramDefinition } from "./unigram-definition.ts";
import { trainUnigram, type UnigramTrainerOptions } from "./unigram-trainer.ts";

export interface UnigramTrainingOptions extends Partial<UnigramTrainerOptions> {
  /** Ids in all: the unknown token, special tokens, bytes and pieces. */
  readonly vocabSize: number;
  /** Contents of special tokens. They are not learned from. Default: none. */
  readonly specialTokens?: readonly string[];
  /** Spell characters that are no piece in bytes, so that every text comes back. Default true. */
  readonly byteFallback?: boolean;
  /**
   * Put a space in front of the text, so that its first word looks like the others; decoding takes it off, and with it a
   * space the text began with. Default false, which loses nothing.
   */
  readonly prefixSpace?: boolean;
  /**
   * How texts fall into the parts that pieces are learned from. It is not needed for encoding. Default `"gpt2"`.
   * (SentencePiece cuts where the script changes, which is much the same.)
   */
  readonly pattern?: SplitPattern;
  /**
   * Whether a space always begins a new piece, as SentencePiece has it. Without it runs of spaces can be pieces, which
   * saves much on code; encoding is slower, for what was met lately is not remembered. Default true.
   */
  readonly split?: boolean;
  /** What happens to a text before it is split. Default `"none"`. */
  readonly normalizer?: "none" | "NFC" | "NFKC";
  /** Share of the texts' characters that get a piece of their own; the rarest do not. Default 0.9995. */
  readonly characterCoverage?: number;
  /** Longest piece, in characters. Default 16. */
  readonly longestPiece?: number;
  /** Most candidates to begin with. Default 1,000,000. */
  readonly seedSize?: number;
  /** Share of the pieces that a pruning keeps. Default 0.75. */
  readonly shrinkingFactor?: number;
  /** How counts become probabilities. Default `"digamma"`, as SentencePiece. */
  readonly estimate?: "digamma" | "relative-frequency";
}

/** What `Unigram.train` is built on; throws as documented there. */
export function trainUnigramDefinition(texts: Iterable<string>, options: UnigramTrainingOptions): UnigramDefinition {
  const {
    vocabSize,
    specialTokens = [],
    byteFallback = true,
    prefixSpace = false,
    pattern = "gpt2",
    split = true,
    normalizer = "none",
    characterCoverage = 0.9995,
    longestPiece = 16,
    seedSize = 1_000_000,
    shrinkingFactor = 0.75,
    estimate = "digamma",
  } = options;
  if (!(characterCoverage > 0 && characterCoverage <= 1)) {
    throw new ArgumentError("options.characterCoverage", "a number in (0, 1]", characterCoverage);
  }
  if (!(shrinkingFactor > 0 && shrinkingFactor < 1)) {
    throw new ArgumentError("options.shrinkingFactor", "a number in (0, 1)", shrinkingFactor);
  }
  if (estimate !== "digamma" && estimate !== "relative-frequency") {
    throw new ArgumentError("options.estimate", '"digamma" or "relative-frequency"', estimate);
  }
  for (const [name, value] of Object.entries({ longestPiece, seedSize })) {
    if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`options.${name}`, "an integer >= 1", value);
  }
  const control = ["<unk>", ...specialTokens];
  if (specialTokens.includes("") || new Set(control).size < control.length) {
    throw new ArgumentError("options.specialTokens", 'distinct, non-empty strings other than "<unk>"', specialTokens);
  }
  checkPattern(pattern);
  const bytes = byteFallback ? Array.from({ length: 256 }, (_, byte) => byteName(byte)) : [];

  const whole = countWords(texts, pattern, split, (text) => {
    const normal = normalizer === "none" ? text : text.normalize(normalizer);
    return prefixSpace && !normal.startsWith(" ") ? ` ${normal}` : normal;
  });
  const { words, characters } = withCommonCharacters(whole, characterCoverage);
  const smallest = control.length + bytes.length + characters;
  if (!Number.isInteger(vocabSize) || vocabSize < smallest || vocabSize > ID_LIMIT) {
    throw new ArgumentError(
      "options.vocabSize",
      `an integer from ${smallest} (unknown, ${specialTokens.length} special tokens, ${bytes.length} bytes and ` +
        `${characters} characters) to 2^22`,
      vocabSize,
    );
  }
  const wanted = vocabSize - control.length - bytes.length;
  const pieces = trainUnigram(words, wanted, { longestPiece, seedSize, shrinkingFactor, estimate });
  if (pieces.length < wanted) {
    throw new ArgumentError(
      "options.vocabSize",
      `at most ${vocabSize - wanted + pieces.length}, all that these texts can fill`,
      vocabSize,
      "Train on more text or ask for a smaller vocabulary.",
    );
  }
  return {
    source: "trained vocabulary",
    pieces: [...[...control, ...bytes].map((text) => ({ text, score: 0 })), ...pieces],
    unknownId: 0,
    byteFallback,
    prefixSpace: prefixSpace ? "always" : "never",
    split,
    normalizer,
    specialTokens: new Map(specialTokens.map((content, i) => [content, 1 + i])),
    addedTokens: new Map(),
    normalizedTokens: new Set(),
  };
}

/** Words (each with the space before it) and their like in order of first appearance, with their frequency. */
function countWords(
  texts: Iterable<string>,
  pattern: SplitPattern,
  split: boolean,
  prepare: (text: string) => string,
): Map<string, number> {
  if (typeof texts === "string") {
    throw new ArgumentError("texts", "an iterable of strings", texts, "Put a single text in an array: [text].");
  }
  const counts = new Map<string, number>();
  for (const text of texts) {
    if (typeof text !== "string") throw new ArgumentError("texts", "an iterable of strings", text);
    for (const part of splitText(prepare(text.replace(/\p{Surrogate}/gu, "\ufffd")), pattern)) {
      for (const word of split ? part.split(/(?= )/) : [part]) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  if (counts.size === 0) throw new ArgumentError("texts", "at least one text that is not empty", []);
  return counts;
}

/** The words cut at the characters that are too rare, and how many different characters are left. */
function withCommonCharacters(
  words: ReadonlyMap<string, number>,
  coverage: number,
): { words: Map<string, number>; characters: number } {
  const frequencies = new Map<string, number>();
  let total = 0;
  for (const [word, frequency] of words) {
    for (const character of word) {
      frequencies.set(character, (frequencies.get(character) ?? 0) + frequency);
      total += frequency;
    }
  }
  const common = new Set<string>();
  let covered = 0;
  for (const [character, frequency] of [...frequencies].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
    if (covered >= coverage * total) break;
    common.add(character);
    covered += frequency;
  }
  const kept = new Map<string, number>();
  for (const [word, frequency] of words) {
    let part = "";
    const keep = (): void => {
      if (part !== "") kept.set(part, (kept.get(part) ?? 0) + frequency);
      part = "";
    };
    for (const character of word) {
      if (common.has(character)) part += character;
      else keep();
    }
    keep();
  }
  return { words: kept, characters: common.size };
}
