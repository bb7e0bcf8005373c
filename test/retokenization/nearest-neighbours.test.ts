import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { type Matrix, row } from "../../src/model/language-model.ts";
import { HnswIndex } from "../../src/retokenization/hnsw.ts";
import { exactNeighbours, type NeighbourIndex, recall } from "../../src/retokenization/nearest-neighbours.ts";
import { Random } from "../../src/tensor/random.ts";

/** Rows around a few middles, of different lengths: what embeddings look like. */
function clustered(rows: number, columns: number, seed: string): Matrix {
  const random = new Random(seed);
  const centres = new Random("middles");
  const middles = Array.from({ length: 12 }, () => Float64Array.from({ length: columns }, () => centres.normal()));
  const data = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const middle = middles[random.integer(12)]!;
    const size = Math.exp(0.3 * random.normal());
    for (let i = 0; i < columns; i++) data[r * columns + i] = size * (middle[i]! + 0.7 * random.normal());
  }
  return { data, rows, columns };
}

/** By sorting, in doubles. */
function sorted({ data, rows, columns }: Matrix, query: Float32Array, count: number): number[] {
  const products = Array.from({ length: rows }, (_, r) => {
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += data[r * columns + i]! * query[i]!;
    return sum;
  });
  return products
    .map((product, r) => ({ product, r }))
    .sort((a, b) => b.product - a.product || a.r - b.r)
    .slice(0, count)
    .map(({ r }) => r);
}

const kinds: [string, (table: Matrix) => Promise<NeighbourIndex>][] = [
  ["exact", exactNeighbours],
  ["HNSW", async (table) => new HnswIndex(table)],
];

describe.each(kinds)("%s", (_, open) => {
  it("by hand: the longer row wins where its product is larger, not the one in the query's direction", async () => {
    const index = await open({ data: Float32Array.of(3, 0, 0, 1, 5, 5), rows: 3, columns: 2 });
    expect({ size: index.size, width: index.width }).toEqual({ size: 3, width: 2 });
    const { rows, products } = index.search(Float32Array.of(1, 4), 2);
    expect([...rows]).toEqual([2, 1]);
    expect([...products]).toEqual([25, 4]);
    expect([...index.search(Float32Array.of(1, -4), 9).rows]).toEqual([0, 1, 2]);
  });

  it("finds all rows of a small table, in order, equal ones by number, and leaves table and query alone", async () => {
    const value = fc.integer({ min: -3, max: 3 });
    const tables = fc
      .integer({ min: 1, max: 4 })
      .chain((columns) =>
        fc.tuple(
          fc.array(fc.array(value, { minLength: columns, maxLength: columns }), { minLength: 1, maxLength: 24 }),
          fc.array(value, { minLength: columns, maxLength: columns }),
        ),
      );
    await fc.assert(
      fc.asyncProperty(tables, fc.integer({ min: 1, max: 30 }), async ([lines, point], count) => {
        const table = { data: Float32Array.from(lines.flat()), rows: lines.length, columns: point.length };
        const query = Float32Array.from(point);
        const index = await open(table);
        expect([...index.search(query, count).rows]).toEqual(sorted(table, query, count));
        expect([...table.data]).toEqual(lines.flat());
        expect([...query]).toEqual(point);
      }),
      { numRuns: 60 },
    );
  });

  it("refuses tables, queries and counts that mean nothing", async () => {
    await expect(open({ data: new Float32Array(0), rows: 0, columns: 2 })).rejects.toThrow(ArgumentError);
    await expect(open({ data: Float32Array.of(1, Number.NaN), rows: 1, columns: 2 })).rejects.toThrow(/finite/);
    const index = await open({ data: Float32Array.of(1, 2), rows: 1, columns: 2 });
    expect(() => index.search(Float32Array.of(1), 1)).toThrow(/query/);
    for (const count of [0, 1.5]) expect(() => index.search(Float32Array.of(1, 2), count)).toThrow(/count/);
  });
});

describe("HNSW", () => {
  const table = clustered(1500, 24, "table");
  const points = clustered(40, 24, "queries");
  const queries = Array.from({ length: points.rows }, (_, r) => row(points, r));

  it("finds nearly all true neighbours while it looks at a small part of the rows; a wider beam finds more", async () => {
    const exact = await exactNeighbours(table);
    const found = [4, 64, 200].map((searchBeam) => {
      const index = new HnswIndex(table, { searchBeam });
      const compared = queries.reduce((sum, query) => sum + index.search(query, 1).compared, 0) / queries.length;
      return { first: recall(index, exact, queries, 1), ten: recall(index, exact, queries, 10), compared };
    });
    expect(found[1]!.first).toBeGreaterThan(0.97);
    expect(found[1]!.ten).toBeGreaterThan(0.95);
    expect(found[1]!.compared).toBeLessThan(table.rows / 3);
    for (let i = 1; i < found.length; i++) {
      expect(found[i]!.compared).toBeGreaterThan(found[i - 1]!.compared);
      expect(found[i]!.ten).toBeGreaterThanOrEqual(found[i - 1]!.ten - 0.01);
    }
  });

  it("is the same graph for the same seed, and finds a row by itself", () => {
    const [one, again] = [new HnswIndex(table), new HnswIndex(table)];
    for (const query of queries) expect(one.search(query, 5)).toEqual(again.search(query, 5));
  });

  it("refuses options out of range", () => {
    for (const bad of [{ links: 1 }, { constructionBeam: 0 }, { searchBeam: 1.5 }]) {
      expect(() => new HnswIndex(table, bad)).toThrow(ArgumentError);
    }
  });
});

describe("recall", () => {
  it("is the share of true neighbours found", async () => {
    const exact = await exactNeighbours({ data: Float32Array.of(1, 2, 3, 4), rows: 4, columns: 1 });
    const blind: NeighbourIndex = {
      ...exact,
      size: 4,
      width: 1,
      search: () => ({ rows: Int32Array.of(3, 0), products: new Float32Array(2), compared: 2 }),
    };
    expect(recall(exact, exact, [Float32Array.of(1)], 2)).toBe(1);
    expect(recall(blind, exact, [Float32Array.of(1)], 2)).toBe(0.5);
  });
});
