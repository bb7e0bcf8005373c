/** BPE-dropout: exact laws of small cases by enumeration, the two ends p = 0 and p = 1, and what always holds. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { chiSquareFit } from "../../src/speculative/chi-square.ts";
import { Bpe, BpeDropout } from "../../src/tokenization/index.ts";
import { adversarialStrings, declarations, FULL } from "./texts.ts";

/** A byte-level tokenizer with these merges, written with a bar: "a|b". */
function withMerges(...merges: readonly string[]): Bpe {
  const file = Bpe.train(["x"], { vocabSize: 256 }).toHuggingFace();
  const pairs = merges.map((merge) => merge.split("|") as [string, string]);
  const joined = [...new Set(pairs.map((pair) => pair.join("")))].map((token, i) => [token, 256 + i] as const);
  const vocab = { ...file.model.vocab, ...Object.fromEntries(joined) };
  return Bpe.fromHuggingFace({ ...file, model: { ...file.model, vocab, merges: pairs } });
}

const spelled = (bpe: Bpe, ids: ArrayLike<number>): string => Array.from(ids, (id) => bpe.decode([id])).join("|");

/** The paper's law by enumeration: at every step every merge that applies is kept or dropped, the best kept one is done. */
function enumerated(merges: readonly string[], text: string, p: number): Map<string, number> {
  const ranks = new Map(merges.map((merge, rank) => [merge, rank]));
  const law = new Map<string, number>();
  const walk = (parts: readonly string[], probability: number): void => {
    const applying = parts
      .slice(1)
      .map((part, i) => ({ at: i, rank: ranks.get(`${parts[i]}|${part}`) ?? -1 }))
      .filter(({ rank }) => rank >= 0);
    for (let kept = 0; kept < 2 ** applying.length; kept++) {
      const survivors = applying.filter((_, i) => (kept >> i) & 1);
      const chance = probability * p ** (applying.length - survivors.length) * (1 - p) ** survivors.length;
      if (survivors.length === 0) {
        law.set(parts.join("|"), (law.get(parts.join("|")) ?? 0) + chance);
        continue;
      }
      const { at } = survivors.reduce((best, next) => (next.rank < best.rank ? next : best));
      walk([...parts.slice(0, at), parts[at]! + parts[at + 1]!, ...parts.slice(at + 2)], chance);
    }
  };
  walk([...text], 1);
  return law;
}

const CASES: [text: string, p: number, merges: string[], law: Record<string, number>][] = [
  ["abcd", 0.1, ["c|d", "a|b"], { "ab|cd": 0.891, "a|b|cd": 0.09, "ab|c|d": 0.009, "a|b|c|d": 0.01 }],
  ["abc", 0.1, ["a|b", "b|c", "ab|c", "a|bc"], { abc: 0.891, "ab|c": 0.09, "a|bc": 0.009, "a|b|c": 0.01 }],
  [
    "aaab",
    0.5,
    ["a|a", "a|b"],
    { "a|a|a|b": 0.125, "a|a|ab": 0.0625, "a|aa|b": 0.25, "aa|a|b": 0.25, "aa|ab": 0.3125 },
  ],
];

describe.each(CASES)("%s with p = %d", (text, p, merges, law) => {
  const bpe = withMerges(...merges);
  const dropping = new BpeDropout(bpe, { dropout: p });
  const draws = FULL ? 200_000 : 20_000;
  const outcomes = Object.keys(law);
  const drawn = (encode: (seed: number) => string): number[] => {
    const counts = outcomes.map(() => 0);
    for (let seed = 0; seed < draws; seed++) counts[outcomes.indexOf(encode(seed))]! += 1;
    return counts;
  };
  const expected = outcomes.map((outcome) => draws * law[outcome]!);

  test("the law on the card is the paper's, enumerated", () => {
    const exact = enumerated(merges, text, p);
    expect([...exact.keys()].sort()).toEqual([...outcomes].sort());
    for (const outcome of outcomes) expect(exact.get(outcome)).toBeCloseTo(law[outcome]!, 12);
  });

  test("draws follow it", () => {
    const counts = drawn((seed) => spelled(bpe, dropping.encode(text, { seed })));
    expect(chiSquareFit(counts, expected).pValue).toBeGreaterThan(1e-4);
  });
});

test("a law with merges dropped once and for all is told apart", () => {
  // As if each place were asked once: "abcd" would be ab|c|d with probability 0.09, not 0.009.
  const [text, p, , law] = CASES[0]!;
  const outcomes = Object.keys(law);
  const bpe = withMerges("c|d", "a|b");
  const [noFirst, noSecond] = [withMerges("a|b"), withMerges("c|d")];
  const [never, counts] = [withMerges("x|y"), outcomes.map(() => 0)];
  const random = new BpeDropout(withMerges("a|b"), { dropout: p });
  for (let seed = 0; seed < 20_000; seed++) {
    const keeps = [random.encode("ab", { seed }).length === 1, random.encode("ab", { seed: `${seed}` }).length === 1];
    const broken = keeps[0] ? (keeps[1] ? bpe : noSecond) : keeps[1] ? noFirst : never;
    counts[outcomes.indexOf(spelled(broken, broken.encode(text)))]! += 1;
  }
  const expected = outcomes.map((outcome) => 20_000 * law[outcome]!);
  expect(chiSquareFit(counts, expected).pValue).toBeLessThan(1e-9);
});

const trained = Bpe.train(
  declarations()
    .slice(0, 3)
    .map((text) => text.slice(0, 20_000)),
  { vocabSize: 500, specialTokens: ["<|end|>"] },
);
const anything = { disallowedSpecial: [] } as const;

test("p = 0 is Bpe, p = 1 leaves bytes", () => {
  const [none, all] = [new BpeDropout(trained, { dropout: 0 }), new BpeDropout(trained, { dropout: 1 })];
  for (const text of adversarialStrings(FULL ? 5000 : 300, 12)) {
    expect(none.encode(text, anything)).toEqual(trained.encode(text, anything));
    expect([...all.encode(text, anything)]).toEqual([...new TextEncoder().encode(text)]);
  }
});

test("p a little above 0 is Bpe too: the merge loop itself, without a draw that drops", () => {
  const hardly = new BpeDropout(trained, { dropout: 1e-12 });
  for (const text of [
    ...adversarialStrings(FULL ? 5000 : 300, 13),
    "ab".repeat(500),
    declarations()[4]!.slice(0, 5000),
  ]) {
    expect(hardly.encode(text, anything)).toEqual(trained.encode(text, anything));
  }
});

test("any p: the text comes back, a seed gives one result, more is dropped with larger p", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: "binary" }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.nat(),
      (text, p, seed) => {
        const dropping = new BpeDropout(trained, { dropout: p });
        const ids = dropping.encode(text, { ...anything, seed });
        expect(dropping.decode(ids)).toBe(text.replace(/\p{Surrogate}/gu, "\ufffd"));
        expect(dropping.encode(text, { ...anything, seed })).toEqual(ids);
      },
    ),
    { numRuns: FULL ? 3000 : 100 },
  );
  const text = declarations()[4]!.slice(0, 5000);
  const lengths = [0, 0.1, 0.3, 0.6, 0.9, 1].map((dropout) => new BpeDropout(trained, { dropout }).encode(text).length);
  expect(lengths).toEqual([...lengths].sort((a, b) => a - b));
  expect(new Set(lengths).size).toBe(6);
});

test("special tokens stay whole; long pieces end in time", () => {
  const dropping = new BpeDropout(trained, { dropout: 0.5 });
  const end = trained.specialTokens.get("<|end|>")!;
  expect([...dropping.encode("a<|end|>", { allowedSpecial: "all" })].at(-1)).toBe(end);
  expect(() => dropping.encode("<|end|>")).toThrow(ArgumentError);
  expect(dropping.decode(dropping.encode("e".repeat(30_000)))).toBe("e".repeat(30_000));
  expect([...dropping.encode("")]).toEqual([]);
  expect(dropping.tokenBytes(97)).toEqual(trained.tokenBytes(97));
});

test("refuses", () => {
  for (const dropout of [-0.1, 1.5, Number.NaN]) {
    expect(() => new BpeDropout(trained, { dropout })).toThrow(/options.dropout: expected a number from 0 to 1/);
  }
  expect(() => new BpeDropout(trained).encode(5 as unknown as string)).toThrow(ArgumentError);
  expect(() => new BpeDropout(trained).decode([-1])).toThrow(ArgumentError);
});
