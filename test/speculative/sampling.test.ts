import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { resolveSampling, tokenLaw } from "../../src/speculative/index.ts";

const logs = (...law: number[]) => Float64Array.from(law, Math.log);
const rounded = (law: Float64Array) => Array.from(law, (p) => Math.round(p * 1e12) / 1e12);

describe("tokenLaw", () => {
  it("is softmax at temperature 1, and the largest logit alone at temperature 0", () => {
    expect(rounded(tokenLaw(logs(0.5, 0.3, 0.2), { temperature: 1 }))).toEqual([0.5, 0.3, 0.2]);
    expect(rounded(tokenLaw(logs(0.3, 0.5, 0.2)))).toEqual([0, 1, 0]);
    // T = 1/2 squares the probabilities: .25, .09, .04 over .38.
    expect(rounded(tokenLaw(logs(0.5, 0.3, 0.2), { temperature: 0.5 }))).toEqual(
      [25 / 38, 9 / 38, 4 / 38].map((p) => Math.round(p * 1e12) / 1e12),
    );
  });

  it("keeps the k largest, and the fewest whose mass reaches p", () => {
    const logits = logs(0.2, 0.5, 0.3);
    expect(rounded(tokenLaw(logits, { temperature: 1, topK: 2 }))).toEqual([0, 0.625, 0.375]);
    expect(rounded(tokenLaw(logits, { temperature: 1, topK: 1 }))).toEqual([0, 1, 0]);
    expect(rounded(tokenLaw(logits, { temperature: 1, topP: 0.7 }))).toEqual([0, 0.625, 0.375]);
    expect(rounded(tokenLaw(logits, { temperature: 1, topP: 0.49 }))).toEqual([0, 1, 0]);
    expect(rounded(tokenLaw(logits, { temperature: 1, topP: 0.81 }))).toEqual([0.2, 0.5, 0.3]);
    expect(rounded(tokenLaw(logits, { temperature: 1, topK: 99 }))).toEqual([0.2, 0.5, 0.3]);
  });

  it("cuts in the order temperature, top-k, top-p", () => {
    const logits = logs(0.4, 0.3, 0.2, 0.1);
    // Top-k first leaves [4/7, 3/7]: .55 of that mass is reached by the first alone. Top-p first would keep two.
    expect(rounded(tokenLaw(logits, { temperature: 1, topK: 2, topP: 0.55 }))).toEqual([1, 0, 0, 0]);
    expect(rounded(tokenLaw(logits, { temperature: 1, topP: 0.55 })).filter((p) => p > 0)).toHaveLength(2);
    // A cold law has .53 on the first token (16/30), a warm one .4: temperature comes before top-p.
    expect(rounded(tokenLaw(logits, { temperature: 0.5, topP: 0.5 }))).toEqual([1, 0, 0, 0]);
    expect(rounded(tokenLaw(logits, { temperature: 1, topP: 0.5 })).filter((p) => p > 0)).toHaveLength(2);
  });

  it("settles ties by the lower id", () => {
    const flat = Float32Array.of(1, 1, 1, 1);
    expect(Array.from(tokenLaw(flat))).toEqual([1, 0, 0, 0]);
    expect(Array.from(tokenLaw(flat, { temperature: 1, topK: 2 }))).toEqual([0.5, 0.5, 0, 0]);
    expect(Array.from(tokenLaw(flat, { temperature: 1, topP: 0.75 })).map((p) => p > 0)).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });

  it("never gives mass to -Infinity, and survives extremes of logit and temperature", () => {
    const never = Number.NEGATIVE_INFINITY;
    expect(Array.from(tokenLaw([never, 0, never, 0], { temperature: 2 }))).toEqual([0, 0.5, 0, 0.5]);
    expect(Array.from(tokenLaw([never, 0, never], { temperature: 1, topK: 2, topP: 0.99 }))).toEqual([0, 1, 0]);
    expect(Array.from(tokenLaw([3e38, -3e38], { temperature: 1 }))).toEqual([1, 0]);
    expect(Array.from(tokenLaw([1, 2, 3], { temperature: 1e-300 }))).toEqual([0, 0, 1]);
    expect(rounded(tokenLaw([1, 2], { temperature: 1e300 }))).toEqual([0.5, 0.5]);
  });

  it("sums to 1, grows with the logit, keeps what it should, and reads without writing", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 12 }),
        fc.double({ min: 0.05, max: 5, noNaN: true }),
        fc.integer({ min: 1, max: 14 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (values, temperature, topK, topP) => {
          const logits = Float32Array.from(values);
          const law = tokenLaw(logits, { temperature, topK, topP });
          expect(Array.from(logits)).toEqual(values.map(Math.fround));
          expect(law.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
          const kept = Array.from(law.keys()).filter((i) => law[i]! > 0);
          expect(kept.length).toBeLessThanOrEqual(topK);
          // What was kept is a prefix of the ranking, and its mass before the last one was short of top-p.
          const full = tokenLaw(logits, { temperature, topK });
          const ranking = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
          expect(new Set(ranking.slice(0, kept.length))).toEqual(new Set(kept));
          const mass = (ids: readonly number[]) => ids.reduce((sum, i) => sum + full[i]!, 0);
          expect(mass(ranking.slice(0, kept.length))).toBeGreaterThan(topP - 1e-9);
          expect(mass(ranking.slice(0, kept.length - 1))).toBeLessThan(topP + 1e-9);
        },
      ),
    );
  });

  it("refuses options and logits that make no law, naming them", () => {
    for (const options of [
      { temperature: -0.1 },
      { temperature: Number.NaN },
      { temperature: Number.POSITIVE_INFINITY },
      { topK: 0 },
      { topK: -1 },
      { topK: 1.5 },
      { topK: Number.NaN },
      { topP: 0 },
      { topP: -0.5 },
      { topP: 1.01 },
      { topP: Number.NaN },
    ]) {
      const argument = Object.keys(options)[0]!;
      expect(() => tokenLaw([0, 1], options), JSON.stringify(options)).toThrow(ArgumentError);
      expect(() => resolveSampling(options)).toThrow(new RegExp(`^${argument}: expected`));
    }
    for (const temperature of [0, 1]) {
      expect(() => tokenLaw([0, Number.NaN], { temperature })).toThrow(/logits\[1\].*NaN/);
      expect(() => tokenLaw([Number.POSITIVE_INFINITY, 0], { temperature })).toThrow(ArgumentError);
      expect(() => tokenLaw([Number.NEGATIVE_INFINITY], { temperature })).toThrow(ArgumentError);
      expect(() => tokenLaw([], { temperature })).toThrow(ArgumentError);
    }
    expect(resolveSampling()).toEqual({ temperature: 0, topK: Number.POSITIVE_INFINITY, topP: 1 });
  });
});
