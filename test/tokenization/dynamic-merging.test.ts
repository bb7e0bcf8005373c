/** Merging with incremental counts against a loop that counts everything anew, the card's worked example, its limits. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parallelMessages } from "../../src/corpus.ts";
import { ArgumentError } from "../../src/errors.ts";
import { bytesToAlphabet } from "../../src/tokenization/byte-alphabet.ts";
import {
  Bpe,
  type DynamicMergingOptions,
  type MergeableTokenizer,
  type MergedBatch,
  mergeBatch,
  mergesForReduction,
  reductionOf,
  splitText,
} from "../../src/tokenization/index.ts";
import { isUtf8, mergeBoundaries } from "../../src/tokenization/merge-boundaries.ts";
import { recountingMerging } from "./recounting-merging.ts";
import { declarations, FULL } from "./texts.ts";

/** A vocabulary of given strings of bytes; those that begin with "special:" are special. */
function vocabularyOf(
  entries: readonly string[],
): MergeableTokenizer & { encode: (tokens: readonly string[]) => number[] } {
  return {
    vocabularySize: entries.length,
    pattern: "gpt2",
    specialTokens: new Map(
      [...entries.entries()].filter(([, entry]) => entry.startsWith("special:")).map(([id, entry]) => [entry, id]),
    ),
    tokenBytes: (id) => Uint8Array.from(Buffer.from(entries[id]!, "latin1")),
    encode: (tokens) => tokens.map((token) => entries.indexOf(token)),
  };
}

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

/** Rows, merges and lengths in the form the slow loop gives them. */
function written(batch: MergedBatch): ReturnType<typeof recountingMerging> {
  const name = (token: number): string => latin1(batch.bytes(token));
  return {
    rows: batch.rows.map(({ tokens }) => Array.from(tokens, name)),
    merges: batch.merges.map(({ left, right, count }) => ({ left: name(left), right: name(right), count })),
    lengths: [...batch.lengths],
  };
}

const onePiece = (text: string): boolean => splitText(text, "gpt2").length === 1;

// The authors' printed example; "Ġ" is a space.
const example = [
  "<s> ĠR ib on uc le op rote in Ġparticles Ġreg ulate Ġm R NA Ġstability . </s>",
  "<s> Ġm R NA Ġstability Ġis Ġmod ulated Ġby Ġrib on uc le op rote in Ġfactors . </s>",
].map((row) => row.split(" ").map((token) => token.replace("Ġ", " ").replace(/^<.*>$/, "special:$&")));
const exampleVocabulary = vocabularyOf([...new Set(example.flat())]);
const exampleRows = example.map(exampleVocabulary.encode);

describe("the card's worked example", () => {
  test("37 tokens become 20 by ten merges, in this order", () => {
    const batch = mergeBatch(exampleRows, { tokenizer: exampleVocabulary });
    const { rows, merges } = written(batch);
    expect(merges.slice(0, 10).map(({ left, right }) => `${left}+${right}`.replaceAll(" ", "Ġ"))).toEqual([
      ..."on+uc onuc+le onucle+op onucleop+rote onucleoprote+in Ġm+R ĠmR+NA".split(" "),
      ..."ĠR+ib ĠRib+onucleoprotein Ġreg+ulate".split(" "),
    ]);
    expect(merges.slice(0, 10).map(({ count }) => count)).toEqual([2, 2, 2, 2, 2, 2, 2, 1, 1, 1]);
    const ten = mergeBatch(exampleRows, { tokenizer: exampleVocabulary, merges: 10 });
    expect([ten.lengths[0], ten.lengths[10]]).toEqual([37, 20]);
    expect(written(ten).rows.map((row) => row.join("|").replaceAll("special:", "").replaceAll(" ", "Ġ"))).toEqual([
      "<s>|ĠRibonucleoprotein|Ġparticles|Ġregulate|ĠmRNA|Ġstability|.|</s>",
      "<s>|ĠmRNA|Ġstability|Ġis|Ġmod|ulated|Ġby|Ġrib|onucleoprotein|Ġfactors|.|</s>",
    ]);
    // Without a limit words are finished: "Ġmod" + "ulated", "Ġrib" + "onucleoprotein".
    expect(rows[1]!.join("|")).toContain("| modulated| by| ribonucleoprotein|");
    expect(batch.lengths.at(-1)).toBe(18);
  });

  test("pieces and places of a merged token", () => {
    const { rows, pieces, bytes } = mergeBatch(exampleRows, { tokenizer: exampleVocabulary, merges: 10 });
    const token = rows[0]!.tokens[1]!;
    expect(latin1(bytes(token))).toBe(" Ribonucleoprotein");
    expect([...pieces(token)]).toEqual(exampleRows[0]!.slice(1, 9));
    expect([...rows[0]!.starts]).toEqual([0, 1, 9, 10, 12, 15, 16, 17]);
  });

  test("r(M)", () => {
    expect(reductionOf(42.1426, 39.141, 35.9357)).toBeCloseTo(48.36, 2);
    expect(reductionOf(5, 5, 5)).toBe(0);
    expect([0, 1, 40, 60, 60.1, 100].map((r) => mergesForReduction([7, 5, 4, 3, 2], r))).toEqual([0, 1, 1, 2, 3, 4]);
  });
});

describe.each(mergeBoundaries)("boundary %s", (boundary) => {
  // Few tokens and many repeats, so that ties, overlaps such as "aaa" and one text spelled in several ways are the rule.
  const entries = [
    "a",
    "b",
    "aa",
    "ab",
    "ba",
    "aba",
    " ",
    " a",
    "\n",
    "-",
    ",",
    "1",
    "special:s",
    "\xc3",
    "\xa9",
    "\xc3\xa9",
  ];
  const few = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 40 });
  const many = fc.array(fc.nat({ max: entries.length - 1 }), { maxLength: 25 });
  const batches = fc.array(fc.oneof(few, many), { minLength: 1, maxLength: 5 });
  const vocabulary = vocabularyOf(entries);
  const spelled = (rows: readonly (readonly number[])[]): string[][] =>
    rows.map((row) => row.map((id) => entries[id]!));

  test("is the slow loop, on random batches, for any number of merges", () => {
    fc.assert(
      fc.property(batches, fc.option(fc.nat({ max: 12 }), { nil: undefined }), (rows, merges) => {
        const given = structuredClone(rows);
        const batch = mergeBatch(rows, { tokenizer: vocabulary, boundary, ...(merges !== undefined && { merges }) });
        expect(written(batch)).toEqual(recountingMerging(spelled(rows), boundary, onePiece, merges));
        expect(rows).toEqual(given);
      }),
      { numRuns: FULL ? 20_000 : 150 },
    );
  });

  test("tokens concatenate to the input, special ones stay, places and pieces are right", () => {
    fc.assert(
      fc.property(batches, fc.nat({ max: 100 }), (rows, reduction) => {
        const {
          rows: merged,
          merges,
          lengths,
          pieces,
          bytes,
        } = mergeBatch(rows, { tokenizer: vocabulary, boundary, reduction });
        merged.forEach(({ tokens, starts }, r) => {
          const row = spelled([rows[r]!])[0]!;
          expect(Array.from(tokens, (token) => latin1(bytes(token))).join("")).toBe(row.join(""));
          tokens.forEach((token, i) => {
            const covered = row.slice(starts[i], starts[i + 1]);
            expect(covered.join("")).toBe(latin1(bytes(token)));
            if (covered.length > 1) expect(covered).not.toContain("special:s");
            expect(Array.from(pieces(token), (id) => entries[id]).join("")).toBe(latin1(bytes(token)));
          });
        });
        const total = merged.reduce((sum, { tokens }) => sum + tokens.length, 0);
        expect(total).toBe(lengths[merges.length]);
        merges.forEach(({ left, right, count }, m) => {
          const saved = lengths[m]! - lengths[m + 1]!;
          expect(saved).toBeGreaterThan(0);
          // A count without overlaps is what the merge saves.
          if (left !== right) expect(saved).toBe(count);
          else expect(saved).toBeLessThanOrEqual(count);
        });
        const end = lengths.at(-1)!;
        expect(reductionOf(lengths[0]!, total, end)).toBeGreaterThanOrEqual(lengths[0] === end ? 0 : reduction);
        if (merges.length > 0)
          expect(reductionOf(lengths[0]!, lengths[merges.length - 1]!, end)).toBeLessThan(reduction);
      }),
      { numRuns: FULL ? 5_000 : 100 },
    );
  });
});

describe("on real text", () => {
  const texts = declarations()
    .filter((text) => text.length > 30_000)
    .slice(0, 4);
  const bpe = Bpe.train(texts, { vocabSize: 700, specialTokens: ["<|endoftext|>"] });
  const strings = (ids: ArrayLike<number>): string[] => Array.from(ids, (id) => latin1(bpe.tokenBytes(id)));

  test.each(mergeBoundaries)("is the slow loop, boundary %s", (boundary) => {
    const size = FULL ? 6000 : 1300;
    const rows = texts.map((text) => bpe.encode(text.slice(20_000, 20_000 + size)));
    const batch = mergeBatch(rows, { tokenizer: bpe, boundary });
    expect(batch.merges.length).toBeGreaterThan(100);
    expect(written(batch)).toEqual(recountingMerging(rows.map(strings), boundary, onePiece));
    expect(batch.cost.countUpdates).toBeLessThan(batch.cost.recountingUpdates / 10);
  });

  test("is the slow loop where characters are cut, and makes nearly all of them whole again", async () => {
    const { ja, ru, "zh-cn": zh } = await parallelMessages();
    const rows = [...ja.slice(0, 6), ...ru.slice(0, 6), ...zh.slice(0, 6)].map((text) => bpe.encode(text));
    const batch = mergeBatch(rows, { tokenizer: bpe });
    expect(written(batch)).toEqual(recountingMerging(rows.map(strings), "pretokens", onePiece));
    const before = rows.flatMap((row) => Array.from(row, (id) => bpe.tokenBytes(id)));
    const after = batch.rows.flatMap(({ tokens }) => Array.from(tokens, batch.bytes));
    const cut = (tokens: Uint8Array[]): number => tokens.filter((bytes) => !isUtf8(bytes, bytes.length)).length;
    expect(cut(before)).toBeGreaterThan(500);
    // What stays joined a cut character to a whole one before the rest came.
    expect(cut(after)).toBeLessThan(cut(before) / 25);
  });

  test("M = 0 is the base tokenizer, and one row is enough", () => {
    const row = bpe.encode(texts[0]!.slice(0, 300));
    const { rows, merges, pieces, lengths } = mergeBatch([row], { tokenizer: bpe, merges: 0 });
    expect(merges).toEqual([]);
    expect([...lengths]).toEqual([row.length]);
    expect(Array.from(rows[0]!.tokens).flatMap((token) => [...pieces(token)])).toEqual([...row]);
    expect([...rows[0]!.starts]).toEqual([...row.keys()]);
    expect(mergeBatch([row], { tokenizer: bpe }).lengths.at(-1)).toBe(
      splitText(texts[0]!.slice(0, 300), "gpt2").length,
    );
  });

  test("a pattern of one's own", () => {
    const text = "wobbleGrommet unwobbleGrommet";
    const { rows, bytes } = mergeBatch([bpe.encode(text)], { tokenizer: bpe, pattern: / ?[A-Za-z][a-z]+/ });
    expect(Array.from(rows[0]!.tokens, (token) => latin1(bytes(token)))).toEqual(
      "wobble|Grommet| unwobble|Grommet".split("|"),
    );
  });
});

describe("the loop the authors released", () => {
  const read = (path: string) => JSON.parse(readFileSync(join(import.meta.dirname, path), "utf8"));
  const bpe = Bpe.fromHuggingFace(read("../../models/declarations-target/tokenizer.json"));
  const batches: {
    name: string;
    boundary: "pretokens" | "word" | "sentence";
    rows: number[][];
    merges: [string, string][];
    merged: string[][];
  }[] = read("../fixtures/dynamic-merging/merges.json");

  test.each(batches.map((batch) => [batch.name, batch.boundary, batch] as const))(
    "%s, boundary %s",
    (_, boundary, expected) => {
      const { rows, merges, bytes } = mergeBatch(expected.rows, { tokenizer: bpe, boundary });
      const name = (token: number): string => bytesToAlphabet(bytes(token));
      expect(merges.map(({ left, right }) => [name(left), name(right)])).toEqual(expected.merges);
      expect(rows.map(({ tokens }) => Array.from(tokens, name))).toEqual(expected.merged);
    },
  );
});

test("a token made in two ways is one token, and one of the vocabulary too", () => {
  const vocabulary = vocabularyOf(["a", "b", "c", "ab", "bc", "abc"]);
  const { rows, pieces } = mergeBatch([[0, 4], [3, 2], [5]], { tokenizer: vocabulary });
  const tokens = rows.map((row) => [...row.tokens]);
  expect(tokens).toEqual([tokens[2], tokens[2], tokens[2]]);
  // In the batch as it stands "abc" is an id, and keeps that id's embedding.
  expect([...pieces(tokens[0]![0]!)]).toEqual([5]);
});

test("a merge that makes a known token raises the count of pairs it stands in", () => {
  // "ab c" is there once; b+c twice makes "bc", and a+bc gives "abc" a second time before "d".
  const vocabulary = vocabularyOf(["a", "bc", "abc", "d"]);
  const rows = [
    [0, 1, 3],
    [0, 1],
    [2, 3],
    [2, 3],
  ];
  const batch = mergeBatch(rows, { tokenizer: vocabulary });
  expect(batch.merges.map(({ count }) => count)).toEqual([2, 3]);
  expect(batch.rows.map(({ tokens }) => tokens.length)).toEqual([1, 1, 1, 1]);
});

test("isUtf8 is the decoder's verdict", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 6 }),
    fc.string({ unit: "binary", maxLength: 5 }).map((text) => new TextEncoder().encode(text)),
    fc.array(fc.constantFrom(0xe0, 0xed, 0xf0, 0xf4, 0x80, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0x61), { maxLength: 5 }),
  );
  fc.assert(
    fc.property(bytes, (sample) => {
      const array = Uint8Array.from(sample);
      let valid = true;
      try {
        new TextDecoder("utf-8", { fatal: true }).decode(array);
      } catch {
        valid = false;
      }
      expect(isUtf8(array, array.length)).toBe(valid);
    }),
    { numRuns: FULL ? 100_000 : 1000 },
  );
});

const tokenizer = exampleVocabulary;
test.each<[string, readonly ArrayLike<number>[], DynamicMergingOptions, RegExp]>([
  ["an empty batch", [], { tokenizer }, /^rows: expected at least one sequence/],
  [
    "an id outside the vocabulary",
    [[0], [1, 99]],
    { tokenizer },
    /^rows\[1\]\[1\]: expected a token id from 0 to \d+, got 99/,
  ],
  ["an id that is no integer", [[0.5]], { tokenizer }, /^rows\[0\]\[0\]: /],
  ["a negative number of merges", exampleRows, { tokenizer, merges: -1 }, /^options\.merges: expected an integer >= 0/],
  ["half a merge", exampleRows, { tokenizer, merges: 1.5 }, /^options\.merges/],
  ["a reduction beyond the end", exampleRows, { tokenizer, reduction: 101 }, /^options\.reduction: .* from 0 to 100/],
  ["a reduction that is no number", exampleRows, { tokenizer, reduction: Number.NaN }, /^options\.reduction/],
  ["two limits", exampleRows, { tokenizer, merges: 1, reduction: 50 }, /^options\.reduction: expected nothing beside/],
  [
    "an unknown boundary",
    exampleRows,
    { tokenizer, boundary: "line" as "word" },
    /^options\.boundary: expected one of pretokens/,
  ],
  [
    "pretokens without a pattern",
    exampleRows,
    { tokenizer: { vocabularySize: tokenizer.vocabularySize, tokenBytes: tokenizer.tokenBytes } },
    /^options\.pattern: expected a split pattern/,
  ],
])("refuses %s", (_, rows, options, message) => {
  expect(() => mergeBatch(rows, options)).toThrow(ArgumentError);
  expect(() => mergeBatch(rows, options)).toThrow(message);
});

test("takes what is no error: rows of one token or none, more merges than possible, nothing but special tokens", () => {
  const [special] = exampleVocabulary.specialTokens!.values();
  const batch = mergeBatch([[3], [], [special!, special!]], { tokenizer, merges: 1000 });
  expect(batch.rows.map(({ tokens }) => tokens.length)).toEqual([1, 0, 2]);
  expect(batch.merges).toEqual([]);
  expect(mergeBatch([[], []], { tokenizer, reduction: 50 }).lengths).toEqual(Uint32Array.of(0));
  expect(() => batch.bytes(99)).toThrow(/^token: expected a token of the batch \(0\.\.1\), got 99/);
});

test("ids named as protected stay, wherever they stand", () => {
  const [on, uc] = exampleVocabulary.encode(["on", "uc"]);
  const { rows, bytes } = mergeBatch(exampleRows, { tokenizer, protectedIds: [on!, uc!] });
  const names = rows.flatMap(({ tokens }) => Array.from(tokens, (token) => latin1(bytes(token))));
  expect(names.filter((name) => name === "on" || name === "uc")).toHaveLength(4);
  expect(names).toContain("leoprotein");
});
