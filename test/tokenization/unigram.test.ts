/**
 * Unigram: the card's numbers, every segmentation enumerated against Viterbi, n-best and sampling, training step by step,
 * lossless round trips, offsets, bad input. Files: hugging-face.test.ts.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { chiSquareFit } from "../../src/speculative/chi-square.ts";
import { StreamingDecoder, Unigram, type UnigramTrainingOptions } from "../../src/tokenization/index.ts";
import { seedPieces } from "../../src/tokenization/unigram-seeds.ts";
import { Corpus, digamma, maximise, type Piece } from "../../src/tokenization/unigram-trainer.ts";
import { adversarialStrings, declarations, FULL, messages } from "./texts.ts";

/** Unknown is id 0; pieces follow in their order. */
function ofScores(scores: Readonly<Record<string, number>>, change: Partial<Unigram["definition"]> = {}): Unigram {
  const pieces = Object.entries(scores).map(([text, score]) => ({ text, score }));
  return new Unigram({
    source: "test",
    pieces: [{ text: "<unk>", score: 0 }, ...pieces],
    unknownId: 0,
    byteFallback: false,
    prefixSpace: "never",
    split: true,
    normalizer: "none",
    specialTokens: new Map(),
    addedTokens: new Map(),
    normalizedTokens: new Set(),
    ...change,
  });
}
const spelled = (tokenizer: Unigram, ids: ArrayLike<number>): string =>
  Array.from(ids, (id) => Buffer.from(tokenizer.tokenBytes(id)).toString()).join("|");

/** Every segmentation of a text into pieces, with its score. */
function enumerated(scores: Readonly<Record<string, number>>, text: string): Map<string, number> {
  if (text === "") return new Map([["", 0]]);
  const all = new Map<string, number>();
  for (const [piece, score] of Object.entries(scores)) {
    if (!text.startsWith(piece)) continue;
    for (const [rest, sum] of enumerated(scores, text.slice(piece.length))) {
      all.set(rest === "" ? piece : `${piece}|${rest}`, score + sum);
    }
  }
  return all;
}

const CARD = { a: 0, b: 0, c: 0, d: 0, cd: 1, ab: 2, abc: 5, abcd: 10 };

test("the card's Viterbi: the best sum, unknown characters as one token", () => {
  const tokenizer = ofScores(CARD);
  expect(spelled(tokenizer, tokenizer.encode("abcdacdxx"))).toBe("abcd|a|cd|<unk>");
  expect(spelled(tokenizer, tokenizer.encode("abd"))).toBe("ab|d");
  expect([...tokenizer.encode("")]).toEqual([]);
  // Equal sums: the longer piece at the end, as the others have it.
  const tied = ofScores({ a: -1, b: -1, c: -1, ab: -1, bc: -1 });
  expect(spelled(tied, tied.encode("abc"))).toBe("a|bc");
});

test("unknown runs end with the word; bytes spell what is no piece", () => {
  const words = ofScores({ a: -1, " ": -1 });
  expect(spelled(words, words.encode("xyaxy xy"))).toBe("<unk>|a|<unk>| |<unk>");
  const bytes = Object.fromEntries(Array.from({ length: 256 }, (_, byte) => [hex(byte), 0]));
  const lossless = ofScores({ ...bytes, a: -1 }, { byteFallback: true });
  expect([...lossless.encode("aé<0x41>").slice(0, 3)]).toEqual([257, 1 + 0xc3, 1 + 0xa9]);
  expect(lossless.decode(lossless.encode("aé<0x41><unk>▁ "))).toBe("aé<0x41><unk>▁ ");
  function hex(byte: number): string {
    return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
  }
});

test("a prefix space is put in front where the scheme says, and taken off again", () => {
  const pieces = { a: -3, b: -3, " ": -2, " a": -1, " b": -1 };
  const cut = (prefixSpace: "always" | "first" | "never", text: string): string => {
    const tokenizer = ofScores(pieces, { prefixSpace, specialTokens: new Map([["<s>", 6]]) });
    const ids = tokenizer.encode(text, { allowedSpecial: "all" });
    expect(tokenizer.encodeWithOffsets(text, { allowedSpecial: "all" }).ids).toEqual(ids);
    return `${spelled(tokenizer, ids)} = ${tokenizer.decode(ids)}`;
  };
  expect(cut("always", "a b<s>a")).toBe(" a| b|<s>| a = a b<s> a");
  expect(cut("first", "a b<s>a")).toBe(" a| b|<s>|a = a b<s>a");
  expect(cut("first", "<s>a")).toBe("<s>|a = <s>a");
  expect(cut("never", "a b<s>a")).toBe("a| b|<s>|a = a b<s>a");
  expect(cut("always", " a")).toBe(" a = a"); // the one case that is lost
  const decoder = new StreamingDecoder(ofScores(pieces, { prefixSpace: "always" }));
  expect([4, 5].map((id) => decoder.push(id))).toEqual(["a", " b"]);
});

describe("against enumeration, random scores and texts", () => {
  const unit = fc.constantFrom("a", "b", "é");
  const scored = fc.dictionary(
    fc.string({ unit, minLength: 2, maxLength: 4 }),
    fc.double({ min: -9, max: -1, noNaN: true }),
    {
      maxKeys: 10,
      noNullPrototype: true,
    },
  );
  const text = fc.string({ unit, minLength: 1, maxLength: 9 });
  const withCharacters = (scores: Record<string, number>): Record<string, number> => ({
    a: -5,
    b: -4,
    é: -6,
    ...scores,
  });

  test("Viterbi is the best of all; n-best are the best n, in order, all different", () => {
    fc.assert(
      fc.property(scored, text, fc.integer({ min: 1, max: 40 }), (scores, given, count) => {
        const pieces = withCharacters(scores);
        const tokenizer = ofScores(pieces);
        const all = enumerated(pieces, given);
        const sorted = [...all.values()].sort((a, b) => b - a);
        const best = spelled(tokenizer, tokenizer.encode(given));
        expect(all.get(best)).toBeCloseTo(sorted[0]!, 9);
        const list = tokenizer.nBest(given, count);
        expect(list.length).toBe(Math.min(count, all.size));
        expect(new Set(list.map(({ ids }) => spelled(tokenizer, ids))).size).toBe(list.length);
        list.forEach(({ ids, score }, i) => {
          expect(score).toBeCloseTo(sorted[i]!, 9);
          expect(all.get(spelled(tokenizer, ids))).toBeCloseTo(score, 9);
        });
      }),
      { numRuns: FULL ? 5000 : 300 },
    );
  });

  test("expected uses and log Z are the sums over all segmentations", () => {
    fc.assert(
      fc.property(scored, text, (scores, given) => {
        const pieces = Object.entries(withCharacters(scores)).map(([piece, score]) => ({ text: piece, score }));
        const all = enumerated(withCharacters(scores), given);
        const z = [...all.values()].reduce((sum, score) => sum + Math.exp(score), 0);
        const { counts, logLikelihood } = new Corpus(new Map([[given, 3]])).expectations(pieces);
        expect(logLikelihood).toBeCloseTo(3 * Math.log(z), 9);
        pieces.forEach(({ text: piece }, id) => {
          let expected = 0;
          for (const [cut, score] of all) {
            expected += (Math.exp(score) / z) * cut.split("|").filter((part) => part === piece).length;
          }
          expect(counts[id]).toBeCloseTo(3 * expected, 9);
        });
      }),
      { numRuns: FULL ? 5000 : 200 },
    );
  });
});

describe("sampling", () => {
  // Scores of "low" and its parts, so that the three segmentations have the card's sums.
  const pieces = { low: -1.7832 - -1.5, " ": -1.5, l: -4.4722, o: -4.4722, w: -4.4722, " low": -1.7832 };
  const three = { " low": -1.7832, " |low": -1.7832, " |l|o|w": -14.9166 };
  const card = { ...pieces, low: -5.6996 + 1.5 };
  const sums = { ...three, " |low": -5.6996 };

  test.each([
    [0.5, [0.8753, 0.1235, 0.0012]],
    [0.1, [0.5142, 0.3476, 0.1383]],
    [0, [1 / 3, 1 / 3, 1 / 3]],
  ])("alpha %d: the card's law, the enumerated one, and the draws", (alpha, law) => {
    const all = enumerated(card, " low");
    expect([...all.keys()].sort()).toEqual(Object.keys(sums).sort());
    const outcomes = Object.keys(sums) as (keyof typeof sums)[];
    for (const outcome of outcomes) expect(all.get(outcome)).toBeCloseTo(sums[outcome], 9);
    const z = outcomes.reduce((sum, outcome) => sum + Math.exp(alpha * sums[outcome]), 0);
    const exact = outcomes.map((outcome) => Math.exp(alpha * sums[outcome]) / z);
    exact.forEach((p, i) => {
      expect(p).toBeCloseTo(law[i]!, 3);
    });
    const tokenizer = ofScores(card);
    const draws = FULL ? 200_000 : 10_000;
    const drawn = (nBest?: number): number[] => {
      const counts = outcomes.map(() => 0);
      for (let seed = 0; seed < draws; seed++) {
        const ids = tokenizer.sample(" low", nBest === undefined ? { alpha, seed } : { alpha, seed, nBest });
        counts[(outcomes as string[]).indexOf(spelled(tokenizer, ids))]! += 1;
      }
      return counts;
    };
    const expected = exact.map((p) => draws * p);
    expect(chiSquareFit(drawn(), expected).pValue).toBeGreaterThan(1e-4);
    expect(chiSquareFit(drawn(3), expected).pValue).toBeGreaterThan(1e-4);
    // Broken on purpose: the exponent of another law, and a draw among the two best.
    const wrong = outcomes.map((outcome) => Math.exp((alpha + 0.1) * sums[outcome]));
    const wrongZ = wrong.reduce((sum, p) => sum + p, 0);
    expect(
      chiSquareFit(
        drawn(),
        wrong.map((p) => (draws * p) / wrongZ),
      ).pValue,
    ).toBeLessThan(1e-6);
    expect(drawn(2)[2]).toBe(0);
  });

  test("large alpha gives the best, a seed one result; special tokens and text stay", () => {
    const tokenizer = ofScores(card, { specialTokens: new Map([["<s>", 7]]) });
    const options = { allowedSpecial: "all" } as const;
    const text = " low<s> low low";
    expect(tokenizer.sample(text, { ...options, alpha: 200 })).toEqual(tokenizer.encode(text, options));
    expect(tokenizer.nBest(text, 1, options)[0]!.ids).toEqual(tokenizer.encode(text, options));
    const seen = new Set<string>();
    for (let seed = 0; seed < 50; seed++) {
      const ids = tokenizer.sample(text, { ...options, seed });
      expect(tokenizer.sample(text, { ...options, seed })).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(text);
      expect([...ids].filter((id) => id === 7)).toHaveLength(1);
      seen.add(spelled(tokenizer, ids));
    }
    expect(seen.size).toBeGreaterThan(10);
  });

  test("refuses", () => {
    const tokenizer = ofScores(card);
    for (const alpha of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => tokenizer.sample("low", { alpha })).toThrow(/options.alpha/);
    }
    for (const count of [0, 1.5, -1]) expect(() => tokenizer.nBest("low", count)).toThrow(/count: expected an integer/);
    expect(() => tokenizer.sample("low", { nBest: 0 })).toThrow(ArgumentError);
  });
});

describe("training", () => {
  test("the card's E and M step", () => {
    const pieces: Piece[] = [
      { text: "a", score: Math.log(0.5) },
      { text: "b", score: Math.log(0.3) },
      { text: "ab", score: Math.log(0.2) },
    ];
    const { counts, logLikelihood } = new Corpus(new Map([["ab", 10]])).expectations(pieces);
    expect(counts[0]).toBeCloseTo(4.285714, 6);
    expect(counts[1]).toBeCloseTo(4.285714, 6);
    expect(counts[2]).toBeCloseTo(5.714286, 6);
    expect(logLikelihood).toBeCloseTo(-10.49822, 5);
    const scores = maximise(pieces, counts, "digamma").map(({ score }) => score);
    [-1.289744, -1.289744, -0.970927].forEach((score, i) => {
      expect(scores[i]).toBeCloseTo(score, 6);
    });
    const plain = maximise(pieces, counts, "relative-frequency").map(({ score }) => Math.exp(score));
    expect(plain.reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
    expect(maximise(pieces, Float64Array.of(1, 0, 0.4), "relative-frequency").map(({ text }) => text)).toEqual([
      "a",
      "b",
    ]);
  });

  test("digamma: psi(1) = -gamma, psi(1/2) = -gamma - 2 ln 2, psi(x + 1) = psi(x) + 1/x", () => {
    expect(digamma(1)).toBeCloseTo(-0.5772156649015329, 11);
    expect(digamma(0.5)).toBeCloseTo(-0.5772156649015329 - 2 * Math.LN2, 11);
    for (const x of [0.5, 3.25, 7, 100, 1e6]) expect(digamma(x + 1)).toBeCloseTo(digamma(x) + 1 / x, 11);
  });

  test("EM never makes the text less likely (with relative frequencies)", () => {
    const words = new Map(
      declarations()[1]!
        .slice(0, 4000)
        .match(/\w+/g)!
        .map((word) => [word, 1]),
    );
    let pieces: Piece[] = [
      ...new Set([...words.keys()].join("")),
      ...seedPieces(words, 16, 1000).map(({ text }) => text),
    ].map((text, _, all) => ({ text, score: -Math.log(all.length) }));
    const corpus = new Corpus(words);
    let last = Number.NEGATIVE_INFINITY;
    for (let round = 0; round < 6; round++) {
      const { counts, logLikelihood } = corpus.expectations(pieces);
      expect(logLikelihood).toBeGreaterThan(last);
      last = logLikelihood;
      const total = counts.reduce((sum, count) => sum + count, 0);
      pieces = pieces.map(({ text }, id) => ({ text, score: Math.log(counts[id]! / total) })); // nothing dropped
    }
  });

  test("pruning keeps what would cost most, characters in any case", () => {
    const pieces = ["a", "b", "ab", "ba", "abab", "bb"].map((text) => ({ text, score: -text.length / 2 }));
    const words = new Map([
      ["abab", 10],
      ["ba", 1],
    ]);
    // In use: abab (10) and ba (1). Without abab: ab ab.
    expect(new Corpus(words).prune(pieces, 6).map(({ text }) => text)).toEqual(["a", "b", "ba", "abab"]);
    expect(new Corpus(words).prune(pieces, 3).map(({ text }) => text)).toEqual(["a", "b", "abab"]);
    // A piece whose own best segmentation is another goes first.
    const split = pieces.map((piece) => (piece.text === "abab" ? { ...piece, score: -9 } : piece));
    expect(new Corpus(words).prune(split, 6).map(({ text }) => text)).toEqual(["a", "b", "ab", "ba"]);
  });

  test("seeds are the substrings that branch, each once, with its frequency", () => {
    expect(
      seedPieces(
        new Map([
          ["abab", 1],
          ["ab", 1],
        ]),
        16,
        9,
      ),
    ).toEqual([{ text: "ab", frequency: 3 }]);
    const unit = fc.constantFrom("a", "b", "😉");
    fc.assert(
      fc.property(
        fc.dictionary(fc.string({ unit, minLength: 1, maxLength: 8 }), fc.integer({ min: 1, max: 3 })),
        (made) => {
          const words = new Map(Object.entries(made));
          const following = new Map<string, Map<string, number>>();
          for (const [word, weight] of words) {
            const characters = [...word];
            for (let from = 0; from < characters.length; from++) {
              for (let to = from + 2; to <= characters.length; to++) {
                const text = characters.slice(from, to).join("");
                const next = following.get(text) ?? new Map<string, number>();
                const what = characters[to] ?? "end";
                next.set(what, (next.get(what) ?? 0) + weight);
                following.set(text, next);
              }
            }
          }
          const expected = [...following]
            .map(([text, next]) => ({ text, frequency: [...next.values()].reduce((sum, n) => sum + n, 0), next }))
            .filter(({ frequency, next }) => frequency >= 2 && (next.size > 1 || next.has("end")));
          const found = new Map(seedPieces(words, 16, 1e6).map(({ text, frequency }) => [text, frequency]));
          expect(found).toEqual(new Map(expected.map(({ text, frequency }) => [text, frequency])));
        },
      ),
      { numRuns: FULL ? 5000 : 300 },
    );
  });

  const texts = [...messages().values()].map((text) => text.slice(0, 6000));

  test("a trained tokenizer: sizes, sorted scores, probabilities, fewer tokens than characters", () => {
    const tokenizer = Unigram.train(texts, { vocabSize: 1500, specialTokens: ["<s>"] });
    const { pieces } = tokenizer.definition;
    expect(tokenizer.vocabularySize).toBe(1500);
    expect(pieces.slice(0, 3).map(({ text }) => text)).toEqual(["<unk>", "<s>", "<0x00>"]);
    const scores = pieces.slice(258).map(({ score }) => score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    expect(scores.reduce((sum, score) => sum + Math.exp(score), 0)).toBeLessThan(1.001);
    for (const { text } of pieces.slice(258)) expect(text.indexOf(" ", 1), text).toBe(-1);
    const held = [...messages().values()].map((text) => text.slice(8000, 12_000));
    for (const text of held) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      expect(tokenizer.encode(text).length).toBeLessThan(text.length);
    }
  }, 60_000);

  test("every text comes back, from the best segmentation and from drawn ones; offsets cover it", () => {
    for (const split of [true, false]) {
      const tokenizer = Unigram.train([declarations()[1]!.slice(0, 20_000)], { vocabSize: 500, split });
      for (const text of [...adversarialStrings(FULL ? 5000 : 200, 21), declarations()[3]!.slice(0, 3000)]) {
        const wellFormed = text.replace(/\p{Surrogate}/gu, "\ufffd");
        const ids = tokenizer.encode(text);
        expect(tokenizer.decode(ids)).toBe(wellFormed);
        expect(tokenizer.decode(tokenizer.sample(text))).toBe(wellFormed);
        const scoreOf = (of: Uint32Array): number =>
          of.reduce((sum, id) => sum + (id > 256 ? tokenizer.definition.pieces[id]!.score : 0), 0);
        expect(scoreOf(tokenizer.nBest(text, 1)[0]!.ids)).toBeCloseTo(scoreOf(ids), 6);
        const { ids: same, starts, ends } = tokenizer.encodeWithOffsets(text);
        expect(same).toEqual(ids);
        let covered = 0;
        for (let i = 0; i < ids.length; i++) {
          expect(starts[i]!).toBeLessThanOrEqual(covered);
          covered = Math.max(covered, ends[i]!);
        }
        expect(covered).toBe(text.length);
      }
    }
  });

  test("without a split, runs of spaces are pieces and indentation is cheaper", () => {
    const text = declarations()[1]!.slice(0, 20_000);
    const [apart, together] = [true, false].map((split) => Unigram.train([text], { vocabSize: 500, split }));
    expect(together!.encode("            x").length).toBeLessThan(apart!.encode("            x").length);
  });

  test.each<[string, Partial<UnigramTrainingOptions>, RegExp]>([
    ["too small", { vocabSize: 258 }, /options.vocabSize: expected an integer from 26\d/],
    ["too large", { vocabSize: 9999 }, /options.vocabSize: expected at most \d+, all that these texts can fill/],
    ["no coverage", { characterCoverage: 0 }, /options.characterCoverage/],
    ["no shrinking", { shrinkingFactor: 1 }, /options.shrinkingFactor/],
    ["another estimate", { estimate: "x" as "digamma" }, /options.estimate/],
    ["another pattern", { pattern: "x" as "gpt2" }, /pattern/],
    ["no piece length", { longestPiece: 0 }, /options.longestPiece/],
    ["the unknown token as special", { specialTokens: ["<unk>"] }, /options.specialTokens/],
  ])("refuses %s", (_, change, message) => {
    expect(() => Unigram.train(["hug hugs pug"], { vocabSize: 266, ...change })).toThrow(ArgumentError);
    expect(() => Unigram.train(["hug hugs pug"], { vocabSize: 266, ...change })).toThrow(message);
  });

  test("refuses no text, a single string, and ids outside", () => {
    expect(() => Unigram.train([""], { vocabSize: 300 })).toThrow(/at least one text that is not empty/);
    expect(() => Unigram.train("hug", { vocabSize: 300 })).toThrow(/Put a single text in an array/);
    const tokenizer = ofScores(CARD);
    for (const id of [-1, 9, 0.5]) expect(() => tokenizer.decode([id])).toThrow(ArgumentError);
    expect(() => tokenizer.encode(1 as unknown as string)).toThrow(ArgumentError);
  });
});

test("100,000 repeats end in time", () => {
  const tokenizer = ofScores({ a: -2, aa: -3, aaa: -4 }, { split: false });
  expect(tokenizer.encode("a".repeat(99_999)).length).toBe(33_333);
  expect(tokenizer.sample("a".repeat(100_000)).length).toBeGreaterThan(33_333);
});
