import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { chiSquareFit, chiSquarePoint, chiSquareTail } from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const golden = JSON.parse(
  readFileSync(new URL("../fixtures/chi-square/tails.json", import.meta.url), "utf8"),
) as readonly (readonly [degrees: number, x: number, tail: number])[];

describe("the tail", () => {
  it("agrees with 50-digit arithmetic to 12 digits, from 1 down to 1e-300", () => {
    expect(Math.min(...golden.map(([, , tail]) => tail))).toBeLessThan(1e-200);
    for (const [degrees, x, tail] of golden) {
      expect(Math.abs(chiSquareTail(x, degrees) / tail - 1), `${degrees} degrees, ${x}`).toBeLessThan(1e-12);
    }
  });

  it("is exp(-x / 2) for 2 degrees of freedom, and that times 1 + x / 2 for 4", () => {
    for (const x of [0, 0.1, 1, 3.9, 4.1, 50, 700]) {
      expect(chiSquareTail(x, 2) / Math.exp(-x / 2)).toBeCloseTo(1, 12);
      expect(chiSquareTail(x, 4) / (Math.exp(-x / 2) * (1 + x / 2))).toBeCloseTo(1, 12);
    }
  });

  it("falls from 1 to 0 and never rises", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.double({ min: 0, max: 2000, noNaN: true }),
        fc.double({ min: 0, max: 100, noNaN: true }),
        (degrees, x, step) => {
          const tail = chiSquareTail(x, degrees);
          expect(tail).toBeGreaterThanOrEqual(0);
          expect(tail).toBeLessThanOrEqual(1);
          // Where the series meets the continued fraction they agree but for the last digits.
          expect(chiSquareTail(x + step, degrees)).toBeLessThanOrEqual(tail * (1 + 1e-12));
        },
      ),
    );
    expect([chiSquareTail(0, 7), chiSquareTail(Number.POSITIVE_INFINITY, 7), chiSquareTail(1e6, 7)]).toEqual([1, 0, 0]);
  });

  it("gives the points statisticians print", () => {
    for (const [tail, degrees, point] of [
      [0.05, 1, 3.841],
      [0.001, 3, 16.266],
      [0.001, 15, 37.697],
      [0.95, 10, 3.94],
      [0.5, 2, 1.386],
    ] as const) {
      expect(chiSquarePoint(tail, degrees)).toBeCloseTo(point, 3);
      expect(chiSquareTail(chiSquarePoint(tail, degrees), degrees) / tail).toBeCloseTo(1, 10);
    }
    expect(chiSquarePoint(1, 5)).toBeLessThan(1e-300);
    expect(chiSquareTail(chiSquarePoint(1e-200, 15), 15) / 1e-200).toBeCloseTo(1, 10);
  });
});

describe("the fit", () => {
  it("of a die that likes six: [5, 8, 9, 8, 10, 20] has 13.4, beyond the 5 % point", () => {
    const fit = chiSquareFit([5, 8, 9, 8, 10, 20], new Array(6).fill(10), { leastExpected: 5 });
    expect(fit).toMatchObject({ chiSquare: 13.4, degrees: 5 });
    expect(fit.pValue).toBeCloseTo(0.01991, 5);
  });

  it("pools rare cells until they hold enough, taking the smallest of the others where they do not", () => {
    // 3 + 4 are 7 expected draws, too few: 15 joins them.
    const fit = chiSquareFit([4, 70, 20, 2, 4], [3, 60, 15, 4, 18], { leastExpected: 10 });
    expect(fit.degrees).toBe(2);
    expect(fit.chiSquare).toBeCloseTo((26 - 22) ** 2 / 22 + (4 - 18) ** 2 / 18 + (70 - 60) ** 2 / 60, 12);
    expect(chiSquareFit([1, 2], [2, 1])).toEqual({ chiSquare: 0, degrees: 0, pValue: 1 });
  });

  it("is hopeless once something impossible was seen, and untouched by impossible things that were not", () => {
    expect(chiSquareFit([1, 99], [0, 100])).toEqual({ chiSquare: Number.POSITIVE_INFINITY, degrees: 0, pValue: 0 });
    const kept = chiSquareFit([50, 0, 50], [40, 0, 60]);
    expect(kept).toEqual(chiSquareFit([50, 50], [40, 60]));
  });

  it("of the right law has p-values spread evenly, and of a wrong law has none", () => {
    const law = [0.4, 0.3, 0.15, 0.1, 0.03, 0.01, 0.006, 0.004];
    const draws = 1000;
    const random = new Random("p-values");
    const pValue = (weights: readonly number[]) => {
      const counts = new Float64Array(law.length);
      for (let i = 0; i < draws; i++) counts[random.categorical(weights)]! += 1;
      const expected = law.map((p) => p * draws);
      return chiSquareFit(counts, expected).pValue;
    };
    const deciles = new Array<number>(10).fill(0);
    for (let i = 0; i < 2000; i++) deciles[Math.min(9, Math.floor(10 * pValue(law)))]! += 1;
    // 200 a decile, give or take 13; a chi-square of those below the 99.9 % point.
    expect(chiSquareFit(deciles, new Array(10).fill(200)).pValue).toBeGreaterThan(0.001);
    expect(pValue([0.3, 0.4, 0.15, 0.1, 0.03, 0.01, 0.006, 0.004])).toBeLessThan(1e-9);
  });

  it("refuses what is not a table", () => {
    expect(() => chiSquareFit([1], [1, 2])).toThrow(ArgumentError);
    expect(() => chiSquareFit([0], [0])).toThrow(ArgumentError);
    for (const x of [-1, Number.NaN]) expect(() => chiSquareTail(x, 1)).toThrow(ArgumentError);
    for (const degrees of [0, 1.5, Number.NaN]) expect(() => chiSquareTail(1, degrees)).toThrow(ArgumentError);
    for (const tail of [0, 1.1, Number.NaN]) expect(() => chiSquarePoint(tail, 1)).toThrow(ArgumentError);
  });
});
