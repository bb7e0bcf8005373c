/** The incremental trainer against one that counts everything anew at every step, and against published values. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { BYTES_IN_ALPHABET_ORDER } from "../../src/tokenization/byte-alphabet.ts";
import { Bpe, type BpeTrainingOptions, splitText, type TieRule } from "../../src/tokenization/index.ts";
import { declarations, FULL } from "./texts.ts";

/** Merges as pairs of byte strings, learned the slow way: recount all pairs, merge, repeat. */
function slowTrainer(
  texts: readonly string[],
  mergeCount: number,
  pattern: "gpt2" | "none",
  tieRule: TieRule,
): string[][] {
  const idOfByte = (byte: number): number => (tieRule === "first-seen" ? byte : BYTES_IN_ALPHABET_ORDER.indexOf(byte));
  const names = Array.from({ length: 256 }, (_, id) =>
    String.fromCharCode(tieRule === "first-seen" ? id : BYTES_IN_ALPHABET_ORDER[id]!),
  );
  let pieces = texts.flatMap((text) => splitText(text, pattern)).map((piece) => [...Buffer.from(piece)].map(idOfByte));
  const merges: string[][] = [];
  while (merges.length < mergeCount) {
    const counts = new Map<string, { left: number; right: number; count: number }>();
    for (const ids of pieces) {
      for (let i = 0; i + 1 < ids.length; i++) {
        const entry = counts.get(`${ids[i]} ${ids[i + 1]}`) ?? { left: ids[i]!, right: ids[i + 1]!, count: 0 };
        entry.count++;
        counts.set(`${ids[i]} ${ids[i + 1]}`, entry); // keeps the place of its first insertion
      }
    }
    const ranked = [...counts.values()].sort(
      (a, b) => b.count - a.count || (tieRule === "first-seen" ? 0 : a.left - b.left || a.right - b.right),
    );
    const best = ranked[0];
    if (best === undefined) break;
    const id = 256 + merges.length;
    merges.push([names[best.left]!, names[best.right]!]);
    names.push(names[best.left]! + names[best.right]!);
    pieces = pieces.map((ids) => {
      const merged: number[] = [];
      for (let i = 0; i < ids.length; i++) {
        if (ids[i] === best.left && ids[i + 1] === best.right) {
          merged.push(id);
          i++;
        } else merged.push(ids[i]!);
      }
      return merged;
    });
  }
  return merges;
}

/** The merges a tokenizer was trained to, as pairs of byte strings. */
function mergesOf(bpe: Bpe): string[][] {
  const name = (id: number): string => String.fromCharCode(...bpe.tokenBytes(id));
  return bpe.merges().map(([left, right]) => [name(left), name(right)]);
}

describe.each(["first-seen", "lowest-ids"] as const)("tie rule %s", (tieRule) => {
  // Few letters and many repeats, so that ties and overlaps such as "aaa" are the rule.
  const texts = fc.array(
    fc.oneof(
      fc.string({ unit: fc.constantFrom("a", "b", " "), maxLength: 40 }),
      fc.string({ unit: fc.constantFrom("a", "b", "c", "é", "😉", " ", "\n"), maxLength: 30 }),
    ),
    { minLength: 1, maxLength: 4 },
  );

  test.each(["gpt2", "none"] as const)("equals the slow trainer on random texts, pattern %s", (pattern) => {
    fc.assert(
      fc.property(texts, fc.integer({ min: 0, max: 25 }), (sample, wanted) => {
        const expected = slowTrainer(sample, wanted, pattern, tieRule);
        fc.pre(sample.some((text) => text !== ""));
        const bpe = Bpe.train(sample, { vocabSize: 256 + expected.length, pattern, tieRule });
        expect(mergesOf(bpe)).toEqual(expected);
      }),
      { numRuns: FULL ? 5_000 : 120 },
    );
  });

  test("equals the slow trainer on real text", () => {
    const sample = declarations()
      .slice(0, 3)
      .map((text) => text.slice(0, 20_000));
    const count = FULL ? 400 : 60;
    const bpe = Bpe.train(sample, { vocabSize: 256 + count, tieRule });
    expect(mergesOf(bpe)).toEqual(slowTrainer(sample, count, "gpt2", tieRule));
  });
});

test("minbpe's worked example: aaabdaaabac, three merges", () => {
  const bpe = Bpe.train(["aaabdaaabac"], { vocabSize: 259 });
  expect([...bpe.encode("aaabdaaabac")]).toEqual([258, 100, 258, 97, 99]);
  expect(bpe.decode([258, 100, 258, 97, 99])).toBe("aaabdaaabac");
});

test("Hugging Face's trainer: merges, ids and offsets of tokenizers 0.23.2", () => {
  const line = [
    ...Array(5).fill("low"),
    ...Array(2).fill("lower"),
    ...Array(6).fill("newest"),
    ...Array(3).fill("widest"),
  ];
  const bpe = Bpe.train([line.join(" "), "aaabdaaabac"], {
    vocabSize: 271,
    tieRule: "lowest-ids",
    specialTokens: ["<|endoftext|>"],
  });
  const merges = "e+s es+t l+o lo+w e+w n+ew _+low _+new _new+est a+a d+est i+dest w+idest _+widest";
  expect(mergesOf(bpe).map((pair) => pair.join("+"))).toEqual(
    merges.split(" ").map((pair) => pair.replaceAll("_", " ")),
  );
  const { ids, starts, ends } = bpe.encodeWithOffsets("lowest newer");
  // There <|endoftext|> is id 0, so every id is one more.
  expect([...ids].map((id) => id + 1)).toEqual([260, 258, 264, 69, 82]);
  expect([...starts].map((start, i) => [start, ends[i]])).toEqual([
    [0, 3],
    [3, 6],
    [6, 10],
    [10, 11],
    [11, 12],
  ]);
});

test("the tie rules differ where they should: cdab, one merge", () => {
  expect(mergesOf(Bpe.train(["cdab"], { vocabSize: 257 }))).toEqual([["c", "d"]]);
  expect(mergesOf(Bpe.train(["cdab"], { vocabSize: 257, tieRule: "lowest-ids" }))).toEqual([["a", "b"]]);
});

test("limit case: no merges are the bytes, and nothing is merged across two texts", () => {
  const bpe = Bpe.train(["aa"], { vocabSize: 256 });
  expect([...bpe.encode("aé")]).toEqual([97, 0xc3, 0xa9]);
  expect(() => Bpe.train(["a", "b"], { vocabSize: 257 })).toThrow(/at most 256/);
});

test("special tokens take the last ids and are not learned from", () => {
  const bpe = Bpe.train(["abab"], { vocabSize: 259, specialTokens: ["<a>", "<b>"] });
  expect(bpe.vocabularySize).toBe(259);
  expect([...bpe.encode("ab<b><a>", { allowedSpecial: "all" })]).toEqual([256, 258, 257]);
});

test("texts may come from a generator, once", () => {
  function* twice(): Generator<string> {
    yield "abab";
    yield "abc";
  }
  expect(mergesOf(Bpe.train(twice(), { vocabSize: 258 }))).toEqual([
    ["a", "b"],
    ["ab", "ab"],
  ]);
});

test.each<[string, readonly string[], BpeTrainingOptions, RegExp]>([
  ["no text", [], { vocabSize: 300 }, /^texts: expected at least one text that is not empty/],
  ["empty text", ["", ""], { vocabSize: 300 }, /^texts: expected at least one text that is not empty/],
  ["a bare string", "abc" as unknown as string[], { vocabSize: 300 }, /^texts: .*\[text\]/],
  [
    "something that is no string",
    [1 as unknown as string],
    { vocabSize: 300 },
    /^texts: expected an iterable of strings, got 1/,
  ],
  ["too small", ["abc"], { vocabSize: 255 }, /^options\.vocabSize: expected an integer from 256 .* got 255/],
  [
    "too small with specials",
    ["abc"],
    { vocabSize: 256, specialTokens: ["x"] },
    /from 257 \(256 bytes and 1 special token/,
  ],
  ["not an integer", ["abc"], { vocabSize: 300.5 }, /got 300\.5/],
  ["not a number", ["abc"], { vocabSize: Number.NaN }, /got NaN/],
  ["huge", ["abc"], { vocabSize: 2 ** 23 }, /to 2\^22/],
  ["not reachable", ["abc"], { vocabSize: 300 }, /expected at most 258, all that these texts can fill, got 300/],
  ["an empty special token", ["abc"], { vocabSize: 300, specialTokens: [""] }, /options\.specialTokens/],
  ["a repeated special token", ["abc"], { vocabSize: 300, specialTokens: ["x", "x"] }, /distinct/],
  [
    "an unknown tie rule",
    ["abc"],
    { vocabSize: 257, tieRule: "random" as TieRule },
    /"first-seen" or "lowest-ids", got "random"/,
  ],
  ["an unknown pattern", ["abc"], { vocabSize: 257, pattern: "p50k" as "gpt2" }, /^pattern: expected "gpt2"/],
])("refuses %s", (_, texts, options, message) => {
  expect(() => Bpe.train(texts, options)).toThrow(ArgumentError);
  expect(() => Bpe.train(texts, options)).toThrow(message);
});
