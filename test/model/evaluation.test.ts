import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { surprise, totalBits } from "../../src/model/evaluation.ts";
import { KneserNey } from "../../src/model/kneser-ney.ts";
import { TableModel } from "../../src/model/table-model.ts";

describe("totalBits", () => {
  it("is the information of the stream under the model's law, whatever the stride", () => {
    const rows = [
      [0.5, 0.25, 0.25],
      [0.125, 0.75, 0.125],
      [0.25, 0.5, 0.25],
    ];
    const model = TableModel.fromRows(rows, { contextLength: 5 });
    const stream = [0, 1, 1, 2, 0, 0, 2, 1, 1, 0, 1, 2];
    let bits = 0;
    for (let i = 1; i < stream.length; i++) bits -= Math.log2(rows[stream[i - 1]!]![stream[i]!]!);
    for (const stride of [1, 2, 3, 4, 5]) expect(totalBits(model, stream, { stride })).toBeCloseTo(bits, 4);
    for (const length of [2, 5, 6, 7]) {
      expect(totalBits(model, stream.slice(0, length))).toBeCloseTo(
        stream.slice(1, length).reduce((sum, id, i) => sum - Math.log2(rows[stream[i]!]![id]!), 0),
        4,
      );
    }
  });

  it("refuses a stream of one token and a stride beyond the context", () => {
    const model = TableModel.fromRows([[0.5, 0.5]], { contextLength: 4 });
    expect(() => totalBits(model, [1])).toThrow(ArgumentError);
    expect(() => totalBits(model, [1, 0], { stride: 5 })).toThrow(/stride/);
    expect(() => totalBits(model, [1, 0], { stride: 0 })).toThrow(/stride/);
  });

  it("measures surprise without overflow", () => {
    expect(surprise(Float32Array.of(1e30, 1e30), 0)).toBeCloseTo(1, 10);
    expect(surprise(Float32Array.of(0, Math.log(3)), 0)).toBeCloseTo(2, 6);
  });
});

describe("Kneser-Ney", () => {
  // a b a c: bigrams ab, ba, ac. Left neighbours: of a, the start and b; of b, a; of c, a.
  const model = new KneserNey([0, 1, 0, 2], { vocabularySize: 3, order: 2 });

  it("gives the values worked by hand", () => {
    // Unigrams count left neighbours (a once at the start, once after b): a 2, b 1, c 1.
    const unigram = (count: number) => (count - 0.75) / 4 + ((0.75 * 3) / 4) * (1 / 3);
    expect(model.probability([], 0)).toBeCloseTo(unigram(2), 12);
    expect(model.probability([], 1)).toBeCloseTo(unigram(1), 12);
    expect(model.probability([0], 1)).toBeCloseTo(0.25 / 2 + ((0.75 * 2) / 2) * unigram(1), 12);
    expect(model.probability([1], 0)).toBeCloseTo(0.25 + 0.75 * unigram(2), 12);
    // An unseen context (c ends the stream) leaves the word to the shorter one.
    expect(model.probability([2], 1)).toBeCloseTo(unigram(1), 12);
  });

  it("sums to one in every context, seen or not", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(5), { minLength: 1, maxLength: 60 }),
        fc.array(fc.nat(5), { maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        (stream, context, order) => {
          const kn = new KneserNey(stream, { vocabularySize: 6, order });
          let sum = 0;
          for (let token = 0; token < 6; token++) sum += kn.probability(context, token);
          expect(sum).toBeCloseTo(1, 10);
        },
      ),
    );
  });

  it("refuses what it cannot count", () => {
    expect(() => new KneserNey([], { vocabularySize: 3 })).toThrow(/stream/);
    expect(() => new KneserNey([3], { vocabularySize: 3 })).toThrow(/stream\[0\]/);
    expect(() => new KneserNey([1], { vocabularySize: 100_000, order: 5 })).toThrow(/order/);
    expect(() => new KneserNey([1], { vocabularySize: 3, discount: 1 })).toThrow(/discount/);
  });
});
