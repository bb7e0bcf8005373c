/**
 * What dynamic merging does for fairness: how much shorter the same messages get in each language, and whether languages
 * that paid more tokens before still do.
 *
 * Parallel messages, the same 32 of each language a batch; each language is merged by itself. A vocabulary that knows one
 * language best writes the others in many small tokens, and those have most to merge: at the end, where words stand between
 * spaces, all pay about one token per word. Chinese and Japanese have no such spaces; there a whole phrase becomes one token,
 * so over all languages the spread is between two ways of writing rather than of paying. Leave them out to see the latter.
 */
import { ArgumentError } from "../errors.ts";
import { type DynamicMergingOptions, mergeBatch } from "../tokenization/dynamic-merging.ts";
import type { Tokenizer } from "../tokenization/tokenizer.ts";

export interface LanguageMerging {
  readonly language: string;
  readonly messages: number;
  /** Tokens of all messages before merging and after. */
  readonly before: number;
  readonly after: number;
  /** 1 - after / before */
  readonly shorter: number;
  /** Tokens over those of the same messages in the reference language, before and after. */
  readonly relativeBefore: number;
  readonly relativeAfter: number;
}

export interface MergingByLanguage {
  /** In the order of the messages given. */
  readonly languages: readonly LanguageMerging[];
  /** Most tokens of a language over fewest, before merging and after: 1 is the same price for all. */
  readonly spread: { readonly before: number; readonly after: number };
  /** Standard deviation of the languages' tokens over their mean, before and after. */
  readonly variation: { readonly before: number; readonly after: number };
}

export interface MergingByLanguageOptions extends Omit<DynamicMergingOptions, "tokenizer" | "protectedIds"> {
  /** Messages merged together. Default 32. */
  readonly batchSize?: number;
  /** Batches, from the first messages on; fewer where there are not so many. Default 8. */
  readonly batches?: number;
  /** What `relative` is relative to. Default: the first language. */
  readonly reference?: string;
}

/**
 * @param messages by language; entry i says the same in each (`parallelMessages` of `src/corpus.ts`)
 * @throws ArgumentError without languages, where they have not equally many messages, or too few for one batch
 */
export function measureMergingByLanguage(
  messages: Readonly<Record<string, readonly string[]>>,
  tokenizer: Tokenizer & DynamicMergingOptions["tokenizer"],
  options: MergingByLanguageOptions = {},
): MergingByLanguage {
  const { batchSize = 32, batches = 8, reference = Object.keys(messages)[0], ...merging } = options;
  for (const [name, value] of Object.entries({ batchSize, batches })) {
    if (!(Number.isSafeInteger(value) && value >= 1)) throw new ArgumentError(name, "an integer >= 1", value);
  }
  const available = messages[reference ?? ""]?.length;
  if (available === undefined) throw new ArgumentError("reference", "a language of the messages", reference);
  if (available < batchSize) throw new ArgumentError("messages", `at least ${batchSize} of each language`, available);
  const count = Math.min(batches, Math.floor(available / batchSize));

  const measured = Object.entries(messages).map(([language, texts]) => {
    if (texts.length !== available) {
      throw new ArgumentError(`messages.${language}`, `${available} messages, as in ${reference}`, texts.length);
    }
    let [before, after] = [0, 0];
    for (let b = 0; b < count; b++) {
      const batch = texts.slice(b * batchSize, (b + 1) * batchSize);
      const rows = batch.map((text) => tokenizer.encode(text, { disallowedSpecial: [] }));
      const { lengths, merges } = mergeBatch(rows, { ...merging, tokenizer });
      before += lengths[0]!;
      after += lengths[merges.length]!;
    }
    return { language, messages: count * batchSize, before, after, shorter: 1 - after / before };
  });
  const base = measured.find(({ language }) => language === reference)!;
  const each = (pick: (one: (typeof measured)[number]) => number, law: (values: number[]) => number): number =>
    law(measured.map(pick));
  return {
    languages: measured.map((one) => ({
      ...one,
      relativeBefore: one.before / base.before,
      relativeAfter: one.after / base.after,
    })),
    spread: { before: each((one) => one.before, spread), after: each((one) => one.after, spread) },
    variation: { before: each((one) => one.before, variation), after: each((one) => one.after, variation) },
  };
}

function spread(values: readonly number[]): number {
  return Math.max(...values) / Math.min(...values);
}

function variation(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value / values.length, 0);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2 / values.length, 0)) / mean;
}
