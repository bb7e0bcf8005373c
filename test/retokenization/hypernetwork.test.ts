import { readFileSync } from "node:fs";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { bestKernels, openKernels } from "../../src/kernels/kernels.ts";
import { type Matrix, row } from "../../src/model/language-model.ts";
import type { Weights } from "../../src/model/weights.ts";
import { columnStatistics, type EmbeddingTables, meanOfPieces } from "../../src/retokenization/embedding-predictor.ts";
import {
  Hypernetwork,
  type HypernetworkConfig,
  hypernetworkShapes,
  predicted,
  scalerShapes,
} from "../../src/retokenization/hypernetwork.ts";
import {
  HypernetworkDefinition,
  initialHypernetwork,
  scalersOf,
} from "../../src/retokenization/training/hypernetwork-definition.ts";
import { useBackend } from "../../src/tensor/backend.ts";
import { aliveTensors, read, tensor, tidy } from "../../src/tensor/ops.ts";
import { Random } from "../../src/tensor/random.ts";
import { livelyWeights } from "../speculative/tiny-target.ts";

const config: HypernetworkConfig = {
  width: 12,
  vocabularySize: 19,
  tied: true,
  layers: 2,
  heads: 3,
  hiddenWidth: 20,
  longest: 4,
};
const matrix = (rows: number, columns: number, next: () => number): Matrix => ({
  data: Float32Array.from({ length: rows * columns }, next),
  rows,
  columns,
});
function randomTables(seed: string, { width, vocabularySize, tied }: HypernetworkConfig): EmbeddingTables {
  const random = new Random(seed);
  const input = matrix(vocabularySize, width, () => 0.3 * random.normal() + 0.1);
  return { input, output: tied ? input : matrix(vocabularySize, width, () => 0.2 * random.normal()) };
}
const randomWeights = (config: HypernetworkConfig) =>
  livelyWeights(new Map([...hypernetworkShapes(config), ...scalerShapes(config)]), "hypernetwork");
const tables = randomTables("tables", config);
const weights = randomWeights(config);
const space = await openKernels();
const network = new Hypernetwork(tables, config, weights, space);
const pieces = fc.array(fc.array(fc.nat(config.vocabularySize - 1), { minLength: 1, maxLength: config.longest }), {
  minLength: 1,
  maxLength: 30,
});

function difference(a: Matrix, b: Matrix): number {
  expect([a.rows, a.columns]).toEqual([b.rows, b.columns]);
  return a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i]!)), 0);
}

function defined(
  tables: EmbeddingTables,
  config: HypernetworkConfig,
  weights: ReadonlyMap<string, Weights>,
  pieces: number[][],
): Record<(typeof predicted)[number], Matrix> {
  const definition = new HypernetworkDefinition(tables, config, scalersOf(weights));
  const said = tidy(() => {
    const names = [...hypernetworkShapes(config).keys()];
    const parameters = Object.fromEntries(
      names.map((name) => [name, tensor(weights.get(name)!.data, weights.get(name)!.shape)]),
    );
    return definition.run(parameters, pieces) as Record<string, ReturnType<typeof tensor>>;
  });
  const [input, output] = predicted.map((name) => {
    const data = read(said[name]!);
    said[name]!.dispose();
    return { data, rows: pieces.length, columns: config.width };
  });
  definition.close();
  return { input: input!, output: output! };
}

beforeAll(async () => {
  await useBackend("wasm");
});

describe("the hypernetwork", () => {
  it.each([true, false])("agrees with PyTorch's, padded and masked there (tied: %s)", async (tied) => {
    const golden = JSON.parse(
      readFileSync(new URL("../fixtures/hypernetwork/predictions.json", import.meta.url), "utf8"),
    );
    const small = { width: 8, vocabularySize: 11, tied, layers: 2, heads: 2, hiddenWidth: 16, longest: 3 };
    let state = tied ? 11n : 12n;
    const next = (): number => {
      state = (1103515245n * state + 12345n) % 2n ** 31n;
      return Number((state >> 16n) % 8192n) / 4096 - 1;
    };
    const input = matrix(11, 8, next);
    const ownTables = { input, output: tied ? input : matrix(11, 8, next) };
    const drawn = new Map<string, Weights>();
    for (const [name, shape] of [...hypernetworkShapes(small), ...scalerShapes(small)]) {
      drawn.set(name, { shape, data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, next) });
    }
    const expected = golden[tied ? "tied" : "untied"];
    for (const kind of new Set([bestKernels(), "plain" as const])) {
      const said = new Hypernetwork(ownTables, small, drawn, await openKernels({ kernels: kind })).corrections(
        golden.pieces,
      );
      const bound = defined(ownTables, small, drawn, golden.pieces);
      for (const name of predicted) {
        const flat = Float32Array.from(expected[name].flat());
        const rows = { data: flat, rows: golden.pieces.length, columns: 8 };
        expect(difference(said[name], rows)).toBeLessThan(1e-4);
        expect(difference(bound[name], rows)).toBeLessThan(1e-4);
      }
    }
  });

  it("says on kernels what its definition says", () => {
    fc.assert(
      fc.property(pieces, (pieces) => {
        const said = network.corrections(pieces);
        const expected = defined(tables, config, weights, pieces);
        for (const name of predicted) expect(difference(said[name], expected[name])).toBeLessThan(1e-4);
      }),
      { numRuns: 20 },
    );
  });

  it("leaves no tensors behind", () => {
    const before = aliveTensors();
    defined(tables, config, weights, [[1], [2, 3]]);
    initialHypernetwork(tables, config, new Random(1));
    expect(aliveTensors()).toBe(before);
  });

  it("keeps single pieces bit for bit, and predicts all others", () => {
    const all = Array.from({ length: config.vocabularySize }, (_, id) => [id]);
    const { input, output } = network.predict(all);
    expect(input.data).toEqual(tables.input.data);
    expect(output.data).toEqual(tables.output.data);
    const two = network.predict([[3, 4]]);
    const [mean, correction] = [meanOfPieces(tables).predict([[3, 4]]), network.corrections([[3, 4]])];
    for (const name of predicted) {
      expect(two[name].data).toEqual(mean[name].data.map((value, i) => value + correction[name].data[i]!));
    }
    expect(two.input.data).not.toEqual(two.output.data);
  });

  it("predicts each token from its pieces alone: in any order, company and number", () => {
    fc.assert(
      fc.property(pieces, fc.nat(), (pieces, seed) => {
        const order = Array.from(new Random(seed).permutation(pieces.length));
        const said = network.predict(pieces);
        const permuted = network.predict(order.map((token) => pieces[token]!));
        order.forEach((token, at) => {
          for (const name of predicted) expect(row(permuted[name], at)).toEqual(row(said[name], token));
        });
      }),
      { numRuns: 30 },
    );
    // More pieces than one pass takes.
    const many = Array.from({ length: 400 }, (_, i) => [i % 19, (3 * i) % 19, (7 * i) % 19]);
    const said = network.predict(many);
    for (const i of [0, 170, 171, 399]) {
      for (const name of predicted) expect(row(said[name], i)).toEqual(row(network.predict([many[i]!])[name], 0));
    }
  });

  it("tells the order of pieces, and does not look beyond the last it knows", () => {
    const said = network.predict([
      [1, 2],
      [2, 1],
      [1, 2, 3, 4],
      [1, 2, 3, 4, 5, 6],
    ]);
    expect(row(said.input, 0)).not.toEqual(row(said.input, 1));
    expect(row(said.input, 2)).toEqual(row(said.input, 3));
    const bound = defined(tables, config, weights, [
      [1, 2, 3, 4],
      [1, 2, 3, 4, 5, 6],
    ]);
    expect(row(bound.output, 0)).toEqual(row(bound.output, 1));
  });

  it.each([true, false])("begins as the mean of the pieces, bit for bit (tied: %s)", (tied) => {
    const shape = { ...config, tied };
    const own = randomTables("own", shape);
    const { weights, scalers } = initialHypernetwork(own, shape, new Random(3));
    const untrained = new Hypernetwork(own, shape, new Map([...weights, ...scalers]), space);
    fc.assert(
      fc.property(pieces, (pieces) => {
        expect(untrained.predict(pieces)).toEqual(meanOfPieces(own).predict(pieces));
      }),
      { numRuns: 20 },
    );
    // Corrections come in units of the embeddings' deviations.
    for (const name of predicted) {
      const { deviations } = columnStatistics(own[name]);
      expect(scalers.get(`scalers.${name}.weight`)!.data).toEqual(Float32Array.from(deviations));
    }
  });

  it("refuses tables of another model, tokens without pieces, foreign ids and weights that are not its own", () => {
    const other = randomTables("tables", { ...config, vocabularySize: 20 });
    expect(() => new Hypernetwork(other, config, weights, space)).toThrow(
      /tables.input: expected \[19, 12\].*another model/,
    );
    expect(() => new Hypernetwork(randomTables("t", { ...config, tied: false }), config, weights, space)).toThrow(
      /one table/,
    );
    expect(() => network.predict([[1], []])).toThrow(/pieces\[1\]: expected at least one id/);
    expect(() => network.predict([[19, 1]])).toThrow(/pieces\[0\]\[0\]/);
    expect(() => network.predict([[1, -1]])).toThrow(ArgumentError);
    expect(() => new Hypernetwork(tables, { ...config, heads: 5 }, weights, space)).toThrow(/config.heads/);
    const { "layers.0.query.weight": _, ...rest } = Object.fromEntries(weights);
    expect(() => new Hypernetwork(tables, config, new Map(Object.entries(rest)), space)).toThrow(
      /layers.0.query.weight/,
    );
  });
});
