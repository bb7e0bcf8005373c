/** The cache gives what the predictor gives, and forgets in order; what a batch needs is never forgotten under it. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { row } from "../../src/model/language-model.ts";
import {
  EmbeddingCache,
  type EmbeddingPredictor,
  type EmbeddingTables,
  meanOfPieces,
  randomEmbeddings,
} from "../../src/retokenization/index.ts";
import { Random } from "../../src/tensor/random.ts";

function tablesOf(seed: number, tied: boolean): EmbeddingTables {
  const random = new Random(seed);
  const table = () => ({ data: Float32Array.from({ length: 60 }, () => random.normal()), rows: 12, columns: 5 });
  const input = table();
  return { input, output: tied ? input : table() };
}

/** Counts what reaches the predictor behind a cache. */
function watched(predictor: EmbeddingPredictor): { predictor: EmbeddingPredictor; asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    predictor: {
      name: predictor.name,
      width: predictor.width,
      vocabularySize: predictor.vocabularySize,
      predict(pieces) {
        asked.push(...pieces.map((ids) => Array.from(ids).join(" ")));
        return predictor.predict(pieces);
      },
    },
  };
}

it("pushes out the one not used for longest: a b, a, c", () => {
  const { predictor, asked } = watched(meanOfPieces(tablesOf(1, true)));
  const cache = new EmbeddingCache(predictor, 2);
  const [a, b, c] = [[0, 1], [2, 3], [4]];
  cache.predict([a!, b!]);
  cache.predict([a!]);
  cache.predict([c!]);
  expect([a, b, c].map((pieces) => cache.has(pieces!))).toEqual([true, false, true]);
  expect(cache.statistics).toEqual({ hits: 1, misses: 3, evictions: 1, size: 2 });
  expect(asked).toEqual(["0 1", "2 3", "4"]);
});

it("keeps all that a batch needs until it is served, and its capacity afterwards", () => {
  const { predictor, asked } = watched(meanOfPieces(tablesOf(2, false)));
  const cache = new EmbeddingCache(predictor, 3);
  const batch = Array.from({ length: 6 }, (_, i) => [i, i + 1]);
  expect(cache.predict(batch)).toEqual(predictor.predict(batch));
  expect(cache.statistics.size).toBe(3);
  // The old "0 1" is used by this call, so of the four it needs none is lost to the three new ones.
  const small = new EmbeddingCache(predictor, 4);
  small.predict([
    [0, 1],
    [5, 5],
    [6, 6],
  ]);
  small.predict([
    [7, 7],
    [8, 8],
    [9, 9],
    [0, 1],
  ]);
  asked.length = 0;
  small.predict([
    [0, 1],
    [7, 7],
    [8, 8],
    [9, 9],
  ]);
  expect(asked).toEqual([]);
});

it("gives the predictor's numbers bit for bit, whatever was asked before", () => {
  const pieces = fc.array(fc.nat({ max: 11 }), { minLength: 1, maxLength: 3 });
  const calls = fc.array(fc.array(pieces, { maxLength: 6 }), { maxLength: 6 });
  fc.assert(
    fc.property(calls, fc.integer({ min: 1, max: 5 }), fc.boolean(), (batches, capacity, tied) => {
      for (const predictor of [meanOfPieces(tablesOf(3, tied)), randomEmbeddings(tablesOf(3, tied), 7)]) {
        const cache = new EmbeddingCache(predictor, capacity);
        let asked = 0;
        for (const batch of batches) {
          expect(cache.predict(batch)).toEqual(predictor.predict(batch));
          asked += batch.length;
          const { hits, misses, evictions, size } = cache.statistics;
          expect(hits + misses).toBe(asked);
          expect(misses - evictions).toBe(size);
          expect(size).toBeLessThanOrEqual(capacity);
        }
      }
    }),
    { numRuns: 150 },
  );
});

it("hands out copies: what a caller writes does not reach the cache", () => {
  const cache = new EmbeddingCache(meanOfPieces(tablesOf(4, true)));
  const first = row(cache.predict([[1, 2]]).input, 0);
  const kept = first.slice();
  first.fill(0);
  expect(row(cache.predict([[1, 2]]).input, 0)).toEqual(kept);
  expect(cache.capacity).toBe(5000);
});

it("refuses a capacity of nothing, tokens without pieces, and ids of another vocabulary", () => {
  const predictor = meanOfPieces(tablesOf(5, true));
  for (const capacity of [0, 1.5, Number.NaN, -1]) {
    expect(() => new EmbeddingCache(predictor, capacity)).toThrow(ArgumentError);
  }
  const cache = new EmbeddingCache(predictor, 2);
  expect(() => cache.predict([[1], []])).toThrow(/^pieces\[1\]: expected at least one id/);
  expect(() => cache.predict([[12]])).toThrow(/^pieces\[0\]\[0\]: expected a token id from 0 to 11, got 12/);
  expect(cache.statistics).toEqual({ hits: 0, misses: 0, evictions: 0, size: 0 });
});
