import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { sampleTokenizer, substringScores } from "../../src/retokenization/tokenizer-sampler.ts";
import { Random } from "../../src/tensor/random.ts";

const words = new Map([
  [" low", 1],
  [" lower", 1],
]);
const exact = { noise: 0, stride: 1 };
const utf8 = new TextDecoder();

describe("sampling a tokenizer", () => {
  it("gives the worked numbers: 76 in all, ' low' 8, ' lo', 'low' and ' lower' 6, ' lowe' and 'lower' 5", () => {
    const { scores, sum } = substringScores(words, { stride: 1 });
    expect(sum).toBe(76);
    expect(
      Object.fromEntries([" low", " lo", "low", " lower", " lowe", "lower"].map((t) => [t, scores.get(t)])),
    ).toEqual({
      " low": 8,
      " lo": 6,
      low: 6,
      " lower": 6,
      " lowe": 5,
      lower: 5,
    });
    const sampled = sampleTokenizer(words, new Random(1), { size: 262, ...exact });
    expect(sampled.tokens.slice(256).map((bytes) => utf8.decode(bytes))).toEqual([
      " low",
      " lo",
      " lower",
      "low",
      " lowe",
      "lower",
    ]);
    expect(sampled.scores[256]).toBeCloseTo(-2.2513, 4);
    expect(sampled.scores[257]).toBeCloseTo(-2.539, 4);
    // Bytes cost what the worst token kept costs.
    expect(new Set(sampled.scores.subarray(0, 256))).toEqual(new Set([Math.log(5 / 76)]));
  });

  it("begins substrings at every fourth character and ends them at 15 bytes", () => {
    const { scores } = substringScores(new Map([["abcdefghijklmnopqrs", 2]]));
    const starts = new Set([...scores.keys()].map((token) => token[0]));
    expect(starts).toEqual(new Set(["a", "e", "i", "m", "q"]));
    expect(Math.max(...[...scores.keys()].map((token) => token.length))).toBe(15);
    expect(scores.get("abc")).toBe(6);
    // Bytes count, characters stay whole: three of these are 9 bytes.
    const wide = substringScores(new Map([["的的的的的的", 1]]), { stride: 1, longest: 10 }).scores;
    expect(Object.fromEntries(wide)).toEqual({ 的: 18, 的的: 30, 的的的: 36 });
  });

  it("cuts words by the best sum of scores, as enumeration does, and spells what is no token in bytes", () => {
    const counts = new Map([
      ["abab", 3],
      ["aba", 1],
      ["bé", 2],
    ]);
    const sampled = sampleTokenizer(counts, new Random("cut"), { size: 262, stride: 1, noise: 0.05 });
    const best = (text: string): number => {
      if (text === "") return 0;
      return Math.max(
        ...sampled.tokens.map((bytes, id) => {
          const token = utf8.decode(bytes);
          return bytes.length > 0 && text.startsWith(token)
            ? sampled.scores[id]! + best(text.slice(token.length))
            : -1e9;
        }),
      );
    };
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom("a", "b"), minLength: 1, maxLength: 9 }), (text) => {
        const ids = sampled.encode(text);
        expect(ids.map((id) => utf8.decode(sampled.tokens[id])).join("")).toBe(text);
        expect(ids.reduce((sum, id) => sum + sampled.scores[id]!, 0)).toBeCloseTo(best(text), 6);
      }),
      { numRuns: 50 },
    );
    const plain = sampleTokenizer(new Map([["ab", 1]]), new Random(1), { size: 257, ...exact });
    expect(plain.encode("aébab")).toEqual([97, 0xc3, 0xa9, 98, 256]);
  });

  it("differs from draw to draw, and is the same for the same seed", () => {
    const counts = new Map(Array.from({ length: 200 }, (_, i) => [`word${i * 7919}`, 1 + (i % 9)] as const));
    const draw = (seed: number) =>
      sampleTokenizer(counts, new Random(seed), { size: 400 }).tokens.map((t) => utf8.decode(t));
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });

  it("refuses sizes below the bytes, strides, noise and texts it cannot use", () => {
    const sample = (options: object) => () => sampleTokenizer(words, new Random(1), { size: 300, ...options });
    expect(sample({ size: 256 })).toThrow(/options.size/);
    expect(sample({ stride: 0 })).toThrow(/options.stride/);
    expect(sample({ longest: 1.5 })).toThrow(/options.longest/);
    expect(sample({ noise: -1 })).toThrow(/options.noise/);
    expect(sample({ noiseSpread: Number.NaN })).toThrow(ArgumentError);
    expect(() => sampleTokenizer(new Map(), new Random(1), { size: 300 })).toThrow(/words/);
  });
});
