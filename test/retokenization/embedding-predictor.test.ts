import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { Matrix } from "../../src/model/language-model.ts";
import {
  columnStatistics,
  embeddingTables,
  lastPiece,
  meanOfPieces,
  randomEmbeddings,
} from "../../src/retokenization/embedding-predictor.ts";
import { tinyConfig, tinyWeights } from "../speculative/tiny-target.ts";

const matrix = (rows: readonly (readonly number[])[]): Matrix => ({
  data: Float32Array.from(rows.flat()),
  rows: rows.length,
  columns: rows[0]!.length,
});
const input = matrix([
  [1, 2],
  [3, 6],
  [5, 0],
]);
const output = matrix([
  [0, 1],
  [1, 0],
  [4, 4],
]);
const tables = { input, output };
const makers = { meanOfPieces, lastPiece, randomEmbeddings };

describe("predicting without training", () => {
  it("gives the worked example: mean [2, 4], last piece [3, 6], of both tables", () => {
    expect(Array.from(meanOfPieces(tables).predict([[0, 1]]).input.data)).toEqual([2, 4]);
    expect(Array.from(meanOfPieces(tables).predict([[0, 1]]).output.data)).toEqual([0.5, 0.5]);
    expect(Array.from(lastPiece(tables).predict([[0, 1]]).input.data)).toEqual([3, 6]);
    expect(Array.from(lastPiece(tables).predict([[0, 1]]).output.data)).toEqual([1, 0]);
    // A piece counts as often as it stands there.
    expect(Array.from(meanOfPieces(tables).predict([[0, 0, 0, 2]]).input.data)).toEqual([2, 1.5]);
  });

  it.each(Object.entries(makers))("%s keeps single pieces bit for bit, and refuses what it cannot know", (_, make) => {
    const predictor = make(tables);
    const own = predictor.predict([[0], [2], [1]]);
    expect(Array.from(own.input.data)).toEqual([1, 2, 5, 0, 3, 6]);
    expect(Array.from(own.output.data)).toEqual([0, 1, 4, 4, 1, 0]);
    expect([predictor.width, predictor.vocabularySize]).toEqual([2, 3]);
    expect(() => predictor.predict([[0], []])).toThrow(/pieces\[1\]: expected at least one id/);
    expect(() => predictor.predict([[3]])).toThrow(ArgumentError);
    expect(predictor.predict([]).input.rows).toBe(0);
    expect(make({ input, output: input }).predict([[0, 1]]).output.data).toEqual(
      make({ input, output: input }).predict([[0, 1]]).input.data,
    );
  });

  it("draws from the table's mean and deviation, the same for the same pieces and seed", () => {
    const pieces = Array.from({ length: 4000 }, (_, i) => [
      i % 3,
      Math.floor(i / 3) % 3,
      ...Array(Math.floor(i / 9)).fill(0),
    ]);
    const { input: drawn } = randomEmbeddings(tables, "seed").predict(pieces);
    const [got, wanted] = [columnStatistics(drawn), columnStatistics(input)];
    for (const i of [0, 1]) {
      expect(got.means[i]).toBeCloseTo(wanted.means[i]!, 0);
      expect(got.deviations[i]! / wanted.deviations[i]!).toBeCloseTo(1, 1);
    }
    expect(columnStatistics(input).means).toEqual(Float64Array.of(3, 8 / 3));
    const last = randomEmbeddings(tables, "seed").predict(pieces.slice(-1)).input.data;
    expect(last).toEqual(drawn.data.slice(-2));
    expect(randomEmbeddings(tables, "other").predict(pieces.slice(-1)).input.data).not.toEqual(last);
  });

  it("reads tables from a checkpoint's weights: one table where they are tied", () => {
    const tied = embeddingTables(tinyConfig, tinyWeights());
    expect(tied.output).toBe(tied.input);
    expect([tied.input.rows, tied.input.columns]).toEqual([19, 12]);
    const untied = { ...tinyConfig, tiedEmbeddings: false };
    expect(embeddingTables(untied, tinyWeights(untied)).output.data).not.toEqual(tied.input.data);
    expect(() => embeddingTables(tinyConfig, new Map())).toThrow(/a tensor model.embed_tokens.weight/);
  });
});
