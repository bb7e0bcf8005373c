import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { addCosts, row, subtractCosts } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import { describeSessionConformance } from "./session-conformance.ts";

describeSessionConformance("a table of order 0", () => TableModel.fromRows([[0.2, 0.3, 0.5]], { contextLength: 16 }), {
  tolerance: 0,
});
describeSessionConformance(
  "a table of order 1 with zeros",
  () =>
    TableModel.fromRows(
      [
        [0, 1],
        [0.5, 0.5],
      ],
      { contextLength: 5 },
    ),
  { tolerance: 0 },
);
describeSessionConformance(
  "a random table of order 3",
  () => TableModel.random({ vocabularySize: 5, order: 3, seed: 3, contextLength: 32 }),
  { tolerance: 0 },
);

describe("TableModel", () => {
  // A hand-made chain: after 0 always 1; after 1 a fair coin; it starts with 0 three times out of four.
  const rows = [
    [0, 1],
    [0.5, 0.5],
  ];
  const chain = TableModel.fromRows(rows, { start: [3, 1] });

  it("gives the probabilities it was given, to float32's logarithm, and -Infinity for none", () => {
    expect(Array.from(chain.logits([0]))).toEqual([Number.NEGATIVE_INFINITY, 0]);
    expect(Array.from(chain.logits([]))).toEqual([Math.fround(Math.log(0.75)), Math.fround(Math.log(0.25))]);
    expect(Array.from(chain.law([0]))).toEqual([0, 1]);
    expect(chain.law([])[0]).toBeCloseTo(0.75, 6);
    expect(Array.from(chain.law([1, 0, 1]))).toEqual([0.5, 0.5]);
  });

  it("enumerates a joint law that can be checked by hand", () => {
    const joint = chain.enumerate([1], 3);
    expect(joint).toEqual([
      { tokens: [0, 1, 0], probability: 0.25 },
      { tokens: [0, 1, 1], probability: 0.25 },
      { tokens: [1, 0, 1], probability: 0.25 },
      { tokens: [1, 1, 0], probability: 0.125 },
      { tokens: [1, 1, 1], probability: 0.125 },
    ]);
    expect(chain.enumerate([], 0)).toEqual([{ tokens: [], probability: 1 }]);
    const greedy = (logits: Float32Array) =>
      Float64Array.of(logits[0]! >= logits[1]! ? 1 : 0, logits[0]! >= logits[1]! ? 0 : 1);
    expect(chain.enumerate([1], 3, greedy)).toEqual([{ tokens: [0, 1, 0], probability: 1 }]);
  });

  it("looks back exactly `order` tokens, fewer near the start", () => {
    const seen: string[] = [];
    const model = new TableModel({
      vocabularySize: 3,
      order: 2,
      law: (context) => {
        seen.push(context.join(""));
        return [1, 1 + context.length, 1 + (context[0] ?? 0) * 3 + (context[1] ?? 0)];
      },
    });
    const session = model.openSession();
    session.extend([2, 1, 0, 2], { logits: "all" });
    expect(seen).toEqual(["2", "21", "10", "02"]);
    expect(Array.from(model.law([2, 2, 1, 0]))).toEqual(Array.from(model.law([1, 0])));
    expect(Array.from(model.law([0]))).not.toEqual(Array.from(model.law([0, 0])));
  });

  it("walks its states as it looks contexts up: every logit row equals the row of the last tokens", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 3 }),
        fc.array(fc.nat(), { minLength: 1, maxLength: 12 }),
        (vocabularySize, order, numbers) => {
          const law = (context: readonly number[]) =>
            Array.from({ length: vocabularySize }, (_, i) => 1 + context.reduce((sum, t) => sum * 5 + t + 1, i));
          const model = new TableModel({ vocabularySize, order, law });
          const ids = numbers.map((n) => n % vocabularySize);
          const { logits } = model.openSession().extend(ids, { logits: "all" });
          ids.forEach((_, i) => {
            const weights = law(ids.slice(Math.max(0, i + 1 - order), i + 1));
            const sum = weights.reduce((a, b) => a + b, 0);
            expect(Array.from(row(logits, i))).toEqual(weights.map((w) => Math.fround(Math.log(w / sum))));
          });
        },
      ),
    );
  });

  it("draws random tables from their seed alone, whatever the order rows are met in", () => {
    const options = { vocabularySize: 4, order: 2, sharpness: 2 };
    const a = TableModel.random({ ...options, seed: 7 });
    const b = TableModel.random({ ...options, seed: 7 });
    const contexts = [[], [0], [3, 1], [2, 2]];
    const fromA = contexts.map((context) => Array.from(a.law(context)));
    const fromB = contexts.toReversed().map((context) => Array.from(b.law(context)));
    expect(fromB.toReversed()).toEqual(fromA);
    expect(Array.from(TableModel.random({ ...options, seed: 8 }).law([0]))).not.toEqual(fromA[1]);
    expect(Array.from(TableModel.random({ ...options, sharpness: 0 }).law([0]))).toEqual([0.25, 0.25, 0.25, 0.25]);
    for (const law of fromA) expect(law.reduce((x, y) => x + y, 0)).toBeCloseTo(1, 12);
  });

  it("shows the ids its sessions hold", () => {
    const session = chain.openSession();
    session.extend([1, 1]);
    session.score({ tokens: [0, 1, 1], parents: [-1, -1, 0] });
    session.accept(2);
    expect(session.committed).toEqual([1, 1, 0, 1]);
    session.committed.push(0);
    expect(session.length).toBe(4);
    session.truncate(1);
    expect(session.committed).toEqual([1]);
  });

  it("refuses what a table cannot do or be", () => {
    const session = chain.openSession();
    const embeddings = { data: new Float32Array(4), rows: 1, columns: 4 };
    expect(() => session.extend(embeddings)).toThrow(/no embedding space/);
    expect(() => session.extend([0], { taps: ["hidden"] })).toThrow(ArgumentError);
    expect(() => session.extend([0], { layers: [0] })).toThrow(ArgumentError);
    expect(() => session.score({ tokens: [0], parents: [-1] }, { taps: ["keys"] })).toThrow(ArgumentError);
    expect(session.length).toBe(0);
    session.extend([0], { taps: [] });
    const law = () => [1, 1];
    for (const bad of [
      { vocabularySize: 0, law },
      { vocabularySize: 2.5, law },
      { vocabularySize: 2, order: -1, law },
      { vocabularySize: 2, order: 60, law },
      { vocabularySize: 1, order: 1e15, law },
      { vocabularySize: 2, contextLength: 0, law },
    ]) {
      expect(() => new TableModel(bad), JSON.stringify(bad)).toThrow(ArgumentError);
    }
    for (const weights of [[1], [0, 0], [-1, 2], [Number.NaN, 1], [Number.POSITIVE_INFINITY, 1]]) {
      const model = new TableModel({ vocabularySize: 2, law: () => weights });
      expect(() => model.law([]), JSON.stringify(weights)).toThrow(ArgumentError);
    }
    expect(() => TableModel.fromRows([])).toThrow(ArgumentError);
    expect(() =>
      TableModel.fromRows([
        [1, 1],
        [1, 1],
        [1, 1],
      ]),
    ).toThrow(ArgumentError);
    expect(() => TableModel.random({ vocabularySize: 2, sharpness: -1 })).toThrow(ArgumentError);
    expect(() => chain.law([2])).toThrow(ArgumentError);
    expect(() => chain.enumerate([], -1)).toThrow(ArgumentError);
  });
});

describe("costs", () => {
  it("add and subtract field by field", () => {
    const a = { passes: 1, tokens: 2, multiplyAdds: 3, cacheBytesRead: 4 };
    const b = { passes: 10, tokens: 20, multiplyAdds: 30, cacheBytesRead: 40 };
    expect(addCosts(a, b, a)).toEqual({ passes: 12, tokens: 24, multiplyAdds: 36, cacheBytesRead: 48 });
    expect(subtractCosts(b, a)).toEqual({ passes: 9, tokens: 18, multiplyAdds: 27, cacheBytesRead: 36 });
    expect(addCosts()).toEqual({ passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 });
  });
});
