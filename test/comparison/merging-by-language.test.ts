/** Reductions by language on words whose pieces are known, and on the real parallel messages. */
import { expect, it } from "vitest";
import { measureMergingByLanguage } from "../../src/comparison/merging-by-language.ts";
import { parallelMessages } from "../../src/corpus.ts";
import { Bpe } from "../../src/tokenization/index.ts";

const english = Bpe.train(["one two one two"], { vocabSize: 262 }); // " two", "one" and what they are made of

it("by hand: a language in whole words has nothing to merge, one in letters pays no more at the end", () => {
  const messages = { known: ["one two", "one"], other: ["eno owt", "eno"] };
  const pieces = messages.known.map((text) => english.encode(text).length);
  const { languages, spread } = measureMergingByLanguage(messages, english, { batchSize: 2 });
  expect(languages[0]!.before).toBe(pieces[0]! + pieces[1]!);
  expect(languages.map(({ after }) => after)).toEqual([3, 3]);
  expect(languages[1]).toMatchObject({ before: 10, messages: 2, relativeAfter: 1, shorter: 0.7 });
  expect(languages[1]!.relativeBefore).toBe(10 / languages[0]!.before);
  expect(spread).toEqual({ before: 10 / languages[0]!.before, after: 1 });
});

it("brings 14 real languages closer together, by merging those most that paid most", async () => {
  const messages = await parallelMessages();
  const tokenizer = Bpe.train(messages.en, { vocabSize: 1024 });
  const none = measureMergingByLanguage(messages, tokenizer, { batches: 2, merges: 0 });
  expect(none.spread.before).toBe(none.spread.after);
  const { languages, spread, variation } = measureMergingByLanguage(messages, tokenizer, { batches: 2 });
  expect(languages).toHaveLength(14);
  const byName = Object.fromEntries(languages.map((one) => [one.language, one]));
  for (const { language, shorter } of languages) {
    if (language !== "en") expect(shorter, language).toBeGreaterThan(byName["en"]!.shorter);
  }
  expect(spread.after).toBeLessThan(spread.before);
  expect(variation.after).toBeLessThan(variation.before);
});

it("refuses languages that are not parallel, too few messages, and an unknown reference", () => {
  const messages = { a: ["x", "y"], b: ["x"] };
  expect(() => measureMergingByLanguage(messages, english, { batchSize: 1 })).toThrow(
    /^messages\.b: expected 2 messages/,
  );
  expect(() => measureMergingByLanguage({ a: ["x"] }, english)).toThrow(
    /^messages: expected at least 32 of each language/,
  );
  expect(() => measureMergingByLanguage(messages, english, { reference: "c" })).toThrow(/^reference: /);
  expect(() => measureMergingByLanguage({}, english)).toThrow(/^reference: /);
  expect(() => measureMergingByLanguage(messages, english, { batches: 0 })).toThrow(/^batches: /);
});
