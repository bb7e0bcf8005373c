import { beforeAll, describe, expect, it } from "vitest";
import { useBackend } from "../../src/tensor/backend.ts";
import {
  aliveTensors,
  concat,
  matMul,
  multiply,
  read,
  reshape,
  scale,
  slice,
  softmax,
  sum,
  tensor,
  tidy,
  transpose,
  valueAndGradients,
} from "../../src/tensor/ops.ts";
import { Random } from "../../src/tensor/random.ts";
import { segmentAttention } from "../../src/tensor/segment-attention.ts";
import type { Tensor } from "../../src/tensor/tf.ts";

const lengths = [1, 3, 2, 1, 7];
const [rows, heads, headWidth] = [14, 3, 4];
const width = heads * headWidth;
const random = new Random("segments");
const draw = (): Float32Array => Float32Array.from({ length: rows * width }, () => random.normal());
const data = { queries: draw(), keys: draw(), values: draw(), weight: draw() };

/** The same, segment by segment and head by head, of the library's own operations. */
function composed(queries: Tensor, keys: Tensor, values: Tensor): Tensor {
  let first = 0;
  const segments = lengths.map((n) => {
    const mixed = Array.from({ length: heads }, (_, head) => {
      const [q, k, v] = [queries, keys, values].map((x) => slice(x, [first, head * headWidth], [n, headWidth])) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      return matMul(softmax(scale(matMul(q, transpose(k)), 1 / Math.sqrt(headWidth))), v);
    });
    first += n;
    return concat(mixed, 1);
  });
  return concat(segments, 0);
}

const gradientsOf = (attend: (queries: Tensor, keys: Tensor, values: Tensor) => Tensor) => {
  const shape = [rows, width];
  const parameters = {
    queries: tensor(data.queries, shape),
    keys: tensor(data.keys, shape),
    values: tensor(data.values, shape),
  };
  const weight = tensor(data.weight, shape);
  const { value, gradients } = valueAndGradients(
    (p) => sum(multiply(attend(p["queries"]!, p["keys"]!, p["values"]!), weight)),
    parameters,
  );
  const result = { value: read(value), ...Object.fromEntries(Object.entries(gradients).map(([n, g]) => [n, read(g)])) };
  for (const used of [value, weight, ...Object.values(gradients), ...Object.values(parameters)]) used.dispose();
  return result as Record<string, Float32Array>;
};

beforeAll(async () => {
  await useBackend("wasm");
});

describe("attention within segments", () => {
  it("gives values and gradients of the same thing composed, and leaves no tensors behind", () => {
    const before = aliveTensors();
    const got = gradientsOf((q, k, v) => segmentAttention(q, k, v, lengths, heads));
    const wanted = gradientsOf(composed);
    expect(Object.keys(got)).toEqual(["value", "queries", "keys", "values"]);
    for (const name of Object.keys(wanted)) {
      got[name]!.forEach((value, i) => {
        expect(value).toBeCloseTo(wanted[name]![i]!, 4);
      });
    }
    expect(aliveTensors()).toBe(before);
  });

  it("by hand: one row is its own value; two rows of equal keys are the mean of their values", () => {
    const mixed = tidy(() => {
      const q = tensor(Float32Array.of(1, 2, 3), [3, 1]);
      const k = tensor(Float32Array.of(5, 4, 4), [3, 1]);
      return segmentAttention(q, k, tensor(Float32Array.of(7, 1, 3), [3, 1]), [1, 2], 1);
    });
    expect(Array.from(read(mixed))).toEqual([7, 2, 2]);
    mixed.dispose();
  });

  it("refuses lengths that do not cover the rows, shapes and heads that do not fit", () => {
    const x = tensor(data.queries, [rows, width]);
    expect(() => segmentAttention(x, x, x, [1, 3], heads)).toThrow(/lengths/);
    expect(() => segmentAttention(x, x, x, [0, 14], heads)).toThrow(/lengths\[0\]/);
    expect(() => segmentAttention(x, x, x, lengths, 5)).toThrow(/heads/);
    const y = reshape(x, [rows * 2, width / 2]);
    expect(() => segmentAttention(x, y, x, lengths, heads)).toThrow(/one shape/);
    x.dispose();
    y.dispose();
  });
});
