import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { editDistance, nearest } from "../../src/cli/nearest.ts";

describe("editDistance", () => {
  it.each([
    ["kitten", "sitting", 3],
    ["", "abc", 3],
    ["abc", "abc", 0],
    ["rnu", "run", 1], // a swap of neighbours is one edit
    ["ca", "abc", 3], // and the swapped pair is not edited again (optimal string alignment)
  ])("%s -> %s: %i", (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
  });

  it("is symmetric, zero only for equal words, at most the longer length, at least the difference", () => {
    const word = fc.string({ maxLength: 8 });
    fc.assert(
      fc.property(word, word, (a, b) => {
        const distance = editDistance(a, b);
        expect(distance).toBe(editDistance(b, a));
        expect(distance === 0).toBe(a === b);
        expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
        expect(distance).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
      }),
    );
  });
});

describe("nearest", () => {
  const names = ["bpe", "plain-decoding", "random-drafter", "speculative-sampling"];

  it.each([
    ["speculativ-samping", "speculative-sampling"],
    ["Speculative-Sampling", "speculative-sampling"],
    ["bep", "bpe"],
    ["spec", "speculative-sampling"], // how it begins
    ["specullative", "speculative-sampling"], // nearly how it begins
    ["plain", "plain-decoding"],
    ["xyz", undefined], // three edits turn it into "bpe", and into anything
    ["ab", undefined],
    ["", undefined],
  ])("%j -> %j", (word, expected) => {
    expect(nearest(word, names)).toBe(expected);
  });

  it("finds every name with one letter wrong, wherever it is", () => {
    for (const name of names) {
      for (let i = 0; i < name.length; i++) {
        expect(nearest(`${name.slice(0, i)}#${name.slice(i + 1)}`, names)).toBe(name);
        expect(nearest(`${name.slice(0, i)}#${name.slice(i)}`, names)).toBe(name);
      }
    }
  });
});
