/**
 * Every differentiable operation, on every backend that loads: its value against the float64 oracle, its gradient
 * against central differences of the oracle, no leaked tensor, no changed input, and a typed error on bad shapes.
 *
 * Tolerances, relative to the largest expected number of a tensor (but at least 1): 3e-6 for values, 1e-5 for gradients.
 * Float32 carries 6e-8 a rounding; the sums here are over at most 70 terms.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, TokenthriftError } from "../../src/errors.ts";
import { type BackendName, backendNames, useBackend } from "../../src/tensor/backend.ts";
import * as ops from "../../src/tensor/ops.ts";
import { Random } from "../../src/tensor/random.ts";
import { type Tensor, tf } from "../../src/tensor/tf.ts";
import { type Array64, finiteDifferences, normalDistribution, type Operations, oracle } from "./oracle.ts";

const layer: Operations<Tensor> = ops;

const valueTolerance = 3e-6;
const gradientTolerance = 1e-5;

/** What `ops.ts` exports beside differentiable operations. */
const notOperations = [
  "tensor",
  "integers",
  "scalar",
  "zeros",
  "ones",
  "read",
  "tidy",
  "aliveTensors",
  "valueAndGradients",
];

interface Case {
  readonly op: keyof Operations<never>;
  readonly name: string;
  /** Shapes of the inputs to differentiate by, filled with normal deviates unless `values` says otherwise. */
  readonly inputs: readonly (readonly number[])[];
  readonly values?: (random: Random, input: number) => number;
  /** Masks and ids: inputs without a gradient. */
  readonly constants?: <T>(o: Operations<T>) => T[];
  readonly run: <T>(o: Operations<T>, inputs: readonly T[], constants: readonly T[]) => T;
  /** Operations that `run` calls. Default 1. */
  readonly calls?: number;
}

// Cases by operation, with the shapes a decoder (D), an encoder (E) and a ViT (V) use it on. "7x5, 5x3" is one input
// of shape [7, 5] and one of [5, 3].
const cases: Case[] = [];
type Run = Case["run"];
function define(
  op: Case["op"],
  name: string,
  shapes: string,
  run: Run,
  more: Partial<Pick<Case, "values" | "constants" | "calls">> = {},
): void {
  const inputs = shapes.split(", ").map((shape) => (shape === "scalar" ? [] : shape.split("x").map(Number)));
  cases.push({ op, name, inputs, run, ...more });
}

const positive = (random: Random): number => 0.2 + 2 * random.uniform();
/** Away from zero by 0.1 or more: relu has a corner there. */
const awayFromZero = (random: Random): number => (random.uniform() < 0.5 ? -1 : 1) * (0.1 + random.uniform());

define("matMul", "D: rows by weight", "7x5, 5x3", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "one row (decoding)", "1x16, 16x9", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "one column and one inner element", "4x1, 1x1", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "D: batched scores, not square", "3x5x4, 3x4x6", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "E: batch and heads, rank 4", "2x3x4x5, 2x3x5x2", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "rank 5", "1x2x2x3x4, 1x2x2x4x2", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "E: rank 3 by a shared weight", "2x5x4, 4x3", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "V: rank 4 by a shared weight", "2x3x2x4, 4x3", (o, [a, b]) => o.matMul(a!, b!));
define("matMul", "both sides the same tensor", "4x4", (o, [a]) => o.matMul(a!, a!));
define("matMul", "inner width 64", "3x64, 64x3", (o, [a, b]) => o.matMul(a!, b!));

for (const op of ["add", "subtract", "multiply", "divide"] as const) {
  const values = op === "divide" ? awayFromZero : (random: Random): number => random.normal();
  const pairs = {
    "equal shapes, rank 2": "4x3, 4x3",
    "D: row bias": "4x3, 3",
    "scalar right": "4x3, scalar",
    "scalar left": "scalar, 4x3",
    "column by row": "4x1, 1x3",
    "E: attention mask over heads": "2x3x4x4, 2x1x1x4",
    "causal mask over batch": "6x4x4, 4x4",
    "V: rank 5 by rank 3": "2x1x3x2x2, 3x1x2",
    "rank 1": "5, 5",
    "both broadcast, ranks differ": "2x1x3, 4x1",
  };
  for (const [name, shapes] of Object.entries(pairs)) {
    define(op, name, shapes, (o, [x, y]) => o[op](x!, y!), { values });
  }
  define(op, "both sides the same tensor", "3x2", (o, [x]) => o[op](x!, x!), { values });
}

define("scale", "rank 3", "2x3x4", (o, [x]) => o.scale(x!, -0.37));
define("scale", "by zero", "3", (o, [x]) => o.scale(x!, 0));
for (const op of ["negate", "exp", "square", "tanh", "sigmoid", "silu", "gelu", "geluErf"] as const) {
  define(op, "rank 1", "6", (o, [x]) => o[op](x!));
  define(op, "D: rank 2", "5x7", (o, [x]) => o[op](x!));
  define(op, "V: rank 4", "2x2x3x2", (o, [x]) => o[op](x!));
  if (op !== "exp") {
    define(op, "far from zero", "8", (o, [x]) => o[op](x!), { values: (random) => 5 * (2 * random.uniform() - 1) });
  }
}
define("exp", "negative, as in a softmax", "8", (o, [x]) => o.exp(x!), {
  values: (random) => -20 * random.uniform(),
});
for (const op of ["log", "sqrt"] as const) {
  define(op, "rank 2", "4x5", (o, [x]) => o[op](x!), { values: positive });
  define(op, "rank 5", "1x2x1x2x3", (o, [x]) => o[op](x!), { values: positive });
}
define("relu", "rank 3", "2x3x4", (o, [x]) => o.relu(x!), { values: awayFromZero });

const someMask = (shape: readonly number[]): NonNullable<Case["constants"]> => {
  const size = shape.reduce((a, b) => a * b, 1);
  return (o) => [
    o.tensor(
      Float32Array.from({ length: size }, (_, i) => ((i * 7) % 3) % 2),
      shape,
    ),
  ];
};
for (const shape of [[6], [3, 4], [2, 2, 3, 2]]) {
  const both = `${shape.join("x")}, ${shape.join("x")}`;
  const constants = someMask(shape);
  define("select", `rank ${shape.length}`, both, (o, [x, y], [mask]) => o.select(mask!, x!, y!), { constants });
}
define("select", "x on both sides", "4", (o, [x], [mask]) => o.select(mask!, x!, o.square(x!)), {
  constants: someMask([4]),
  calls: 2,
});

/** Distinct by 0.05 or more, so that a step of the finite differences never changes which is highest. */
const distinct = (count: number): NonNullable<Case["values"]> => {
  let at = 0;
  let order: Uint32Array | undefined;
  return (random) => {
    order ??= random.permutation(count);
    return order[at++ % count]! * 0.05 - 1;
  };
};
for (const op of ["sum", "mean", "max"] as const) {
  const values = (count: number): Pick<Case, "values"> => (op === "max" ? { values: distinct(count) } : {});
  define(op, "all axes", "3x4", (o, [x]) => o[op](x!), values(12));
  define(op, "all axes of rank 1", "5", (o, [x]) => o[op](x!), values(5));
  define(op, "last axis by -1", "3x4", (o, [x]) => o[op](x!, -1), values(12));
  define(op, "last axis, kept", "2x3x4", (o, [x]) => o[op](x!, -1, true), values(24));
  define(op, "first axis", "4x3", (o, [x]) => o[op](x!, 0), values(12));
  define(op, "V: pooling, middle axis of rank 3", "2x5x3", (o, [x]) => o[op](x!, 1), values(30));
  define(op, "axis 1 of rank 4, kept", "2x3x2x2", (o, [x]) => o[op](x!, 1, true), values(24));
  define(op, "axis 2 of rank 5", "2x1x3x2x2", (o, [x]) => o[op](x!, 2), values(24));
  define(op, "axis of size one", "3x1", (o, [x]) => o[op](x!, 1), values(3));
  define(op, "all axes, kept", "2x3", (o, [x]) => o[op](x!, undefined, true), values(6));
}

define("softmax", "rank 1", "5", (o, [x]) => o.softmax(x!));
define("softmax", "D: rank 3", "2x3x5", (o, [x]) => o.softmax(x!));
define("softmax", "E: rank 4", "2x2x3x4", (o, [x]) => o.softmax(x!));
define("softmax", "one column", "4x1", (o, [x]) => o.softmax(x!));
define("softmax", "large logits", "3x4", (o, [x]) => o.softmax(x!), {
  values: (random) => 300 + 3 * random.normal(),
});
define("softmax", "D: masked with -1e9", "2x4x4", (o, [x], [mask]) => o.softmax(o.add(x!, mask!)), {
  constants: (o) => [
    o.tensor(
      Float32Array.from({ length: 16 }, (_, i) => (i % 4 > Math.floor(i / 4) ? -1e9 : 0)),
      [4, 4],
    ),
  ],
  calls: 2,
});

define("reshape", "V: split heads", "4x6", (o, [x]) => o.reshape(x!, [2, 2, 3, 2]));
define("reshape", "one axis left to be found", "2x3x4", (o, [x]) => o.reshape(x!, [-1, 4]));
define("reshape", "to rank 0", "1x1", (o, [x]) => o.reshape(x!, []));
define("reshape", "to rank 5", "12", (o, [x]) => o.reshape(x!, [1, 2, 3, 2, 1]));
define("transpose", "D: tied head", "5x3", (o, [x]) => o.transpose(x!));
define("transpose", "rank 3, batch kept", "2x3x4", (o, [x]) => o.transpose(x!, [0, 2, 1]));
define("transpose", "rank 3, a cycle", "2x3x4", (o, [x]) => o.transpose(x!, [1, 2, 0]));
define("transpose", "D: heads first", "2x3x4x2", (o, [x]) => o.transpose(x!, [0, 2, 1, 3]));
define("transpose", "D: keys, rank 4", "2x3x2x4", (o, [x]) => o.transpose(x!, [0, 2, 3, 1]));
define("transpose", "rank 4 reversed", "2x3x1x4", (o, [x]) => o.transpose(x!));
define("transpose", "rank 5", "2x1x3x2x2", (o, [x]) => o.transpose(x!, [3, 0, 4, 1, 2]));
define("transpose", "rank 1", "4", (o, [x]) => o.transpose(x!));
define(
  "transpose",
  "V: 2 images of 4x4x2 into patches of 2x2",
  "2x4x4x2",
  // [images, height, width, channels] -> [images * down, patch, across, patch * channels] -> [images, patches, values]
  (o, [x]) => o.reshape(o.transpose(o.reshape(x!, [4, 2, 2, 4]), [0, 2, 1, 3]), [2, 4, 8]),
  { calls: 3 },
);
define("concat", "rows", "2x3, 4x3", (o, [x, y]) => o.concat([x!, y!], 0));
define("concat", "D: rotary halves, last axis", "3x2x2, 3x2x1", (o, [x, y]) => o.concat([x!, y!], -1));
define("concat", "V: class token before patches", "2x1x3, 2x4x3", (o, [x, y]) => o.concat([x!, y!], 1));
define("concat", "three of rank 4", "1x2x2x2, 1x2x1x2, 1x2x3x2", (o, [x, y, z]) => o.concat([x!, y!, z!], 2));
define("concat", "one", "3", (o, [x]) => o.concat([x!], 0));
define("concat", "a tensor with itself", "2x2", (o, [x]) => o.concat([x!, x!], 0));
define("slice", "rank 1", "6", (o, [x]) => o.slice(x!, [2], [3]));
define("slice", "D: half of a head", "3x4", (o, [x]) => o.slice(x!, [0, 2], [3, 2]));
define("slice", "V: class token", "2x5x3", (o, [x]) => o.slice(x!, [0, 0, 0], [2, 1, 3]));
define("slice", "rank 4, size -1 to the end", "2x3x2x4", (o, [x]) => o.slice(x!, [0, 1, 0, 1], [1, -1, 2, -1]));
define("slice", "rank 5", "2x1x3x2x2", (o, [x]) => o.slice(x!, [1, 0, 1, 0, 0], [1, 1, 2, 2, 1]));
define("gather", "D: repeated ids", "5x3", (o, [x], [ids]) => o.gather(x!, ids!), {
  constants: (o) => [o.integers(Int32Array.of(4, 0, 4, 4, 2), [5])],
});
define("gather", "E: ids of rank 2", "6x2", (o, [x], [ids]) => o.gather(x!, ids!), {
  constants: (o) => [o.integers(Int32Array.of(1, 5, 1, 0, 0, 3), [2, 3])],
});
define("gather", "one row, table of width one", "4x1", (o, [x], [ids]) => o.gather(x!, ids!), {
  constants: (o) => [o.integers(Int32Array.of(3), [1])],
});

define("rmsNorm", "D: rank 2", "4x6, 6", (o, [x, w]) => o.rmsNorm(x!, w!, 1e-5));
define("rmsNorm", "rank 3, large epsilon", "2x3x4, 4", (o, [x, w]) => o.rmsNorm(x!, w!, 0.5));
define("rmsNorm", "rank 1", "5, 5", (o, [x, w]) => o.rmsNorm(x!, w!, 1e-6));
define("rmsNorm", "rank 4", "2x2x2x3, 3", (o, [x, w]) => o.rmsNorm(x!, w!, 1e-5));
define("layerNorm", "E: rank 2", "4x6, 6, 6", (o, [x, w, b]) => o.layerNorm(x!, w!, b!, 1e-5));
define("layerNorm", "V: rank 3", "2x3x8, 8, 8", (o, [x, w, b]) => o.layerNorm(x!, w!, b!, 1e-6));
define("layerNorm", "rank 4, off centre", "1x2x2x5, 5, 5", (o, [x, w, b]) => o.layerNorm(x!, w!, b!, 1e-5), {
  values: (random, input) => random.normal() + (input === 0 ? 4 : 0),
});

define("crossEntropy", "rows", "4x5", (o, [x]) => o.crossEntropy(x!, Int32Array.of(0, 4, 2, 2)));
define("crossEntropy", "E: masked rows left out", "5x4", (o, [x]) =>
  o.crossEntropy(x!, Int32Array.of(-1, 3, -100, 0, -1)),
);
define("crossEntropy", "one row", "1x3", (o, [x]) => o.crossEntropy(x!, Int32Array.of(1)));
define(
  "crossEntropy",
  "logits hundreds of nats apart",
  "4x5",
  (o, [x]) => o.crossEntropy(x!, Int32Array.of(0, 1, 2, 3)),
  {
    values: (random) => 150 * random.normal(),
  },
);
define("crossEntropy", "one class", "3x1", (o, [x]) => o.crossEntropy(x!, Int32Array.of(0, 0, 0)));

const laws = <T>(o: Operations<T>): T[] => [
  o.tensor(Float32Array.of(0.5, 0.25, 0.25, 0, 0, 0, 0, 1, 0.125, 0.125, 0.25, 0.5), [3, 4]),
];
define("softCrossEntropy", "a flat law, a sure one", "3x4", (o, [x], [law]) => o.softCrossEntropy(x!, law!), {
  constants: laws,
});
define("softCrossEntropy", "logits hundreds of nats apart", "3x4", (o, [x], [law]) => o.softCrossEntropy(x!, law!), {
  constants: laws,
  values: (random) => 150 * random.normal(),
});

/** Numbers of a case's inputs: float32, the same on every backend. */
function inputsOf(testCase: Case): { shape: readonly number[]; data: Float32Array }[] {
  const random = new Random(`${testCase.op}: ${testCase.name}`);
  return testCase.inputs.map((shape, input) => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () =>
      testCase.values === undefined ? random.normal() : testCase.values(random, input),
    ),
  }));
}

/** Largest difference over the largest expected number (at least 1). NaN and infinities count as infinite. */
function relativeError(got: Float32Array, expected: Float64Array): number {
  if (got.length !== expected.length) return Number.POSITIVE_INFINITY;
  const size = expected.reduce((a, b) => Math.max(a, Math.abs(b)), 1);
  let worst = 0;
  got.forEach((value, i) => {
    const error = Math.abs(value - expected[i]!) / size;
    worst = Number.isFinite(error) ? Math.max(worst, error) : Number.POSITIVE_INFINITY;
  });
  return worst;
}

interface Errors {
  readonly shape: readonly number[];
  readonly expectedShape: readonly number[];
  readonly value: number;
  readonly gradients: readonly number[];
}

/**
 * The checker: how far `operations` are from the oracle on one case. The gradient is that of sum(random * output), so
 * that every element of every output weighs in.
 */
function errorsOf(operations: Operations<Tensor>, testCase: Case): Errors {
  const inputs = inputsOf(testCase);
  const constants64 = testCase.constants?.(oracle) ?? [];
  const exact = (xs: readonly Array64[]): Array64 => testCase.run(oracle, xs, constants64);
  const inputs64 = inputs.map(({ shape, data }) => ({ shape, data: Float64Array.from(data) }));
  const expected = exact(inputs64);
  const random = new Random("weights of the outputs");
  const weights = Float32Array.from(expected.data, () => random.normal());
  const expectedGradients = finiteDifferences(
    (xs) => exact(xs).data.reduce((sum, value, i) => sum + value * weights[i]!, 0),
    inputs64,
  );

  const parameters = Object.fromEntries(inputs.map(({ shape, data }, i) => [`${i}`, ops.tensor(data, shape)]));
  const values = Object.values(parameters);
  const constants = testCase.constants?.(operations) ?? [];
  const output = ops.tidy(() => testCase.run(operations, values, constants));
  const weightTensor = ops.tensor(weights, output.shape);
  const { value, gradients } = ops.valueAndGradients(
    (p) => tf.sum(tf.mul(testCase.run(operations, Object.values(p), constants), weightTensor)),
    parameters,
  );
  const errors: Errors = {
    shape: output.shape,
    expectedShape: expected.shape,
    value: relativeError(ops.read(output), expected.data),
    gradients: inputs.map((input, i) => {
      const gradient = gradients[`${i}`]!;
      if (gradient.shape.join() !== input.shape.join()) return Number.POSITIVE_INFINITY;
      return relativeError(ops.read(gradient), expectedGradients[i]!.data);
    }),
  };
  for (const t of [...values, ...constants, output, weightTensor, value, ...Object.values(gradients)]) t.dispose();
  return errors;
}

const passes = ({ shape, expectedShape, value, gradients }: Errors): boolean =>
  shape.join() === expectedShape.join() &&
  value <= valueTolerance &&
  gradients.every((gradient) => gradient <= gradientTolerance);

describe("the table", () => {
  it("has a case for each exported operation, and no other", () => {
    const exported = Object.keys(ops).filter((name) => !notOperations.includes(name));
    expect(new Set(cases.map(({ op }) => op))).toEqual(new Set(exported));
  });

  it("names each case once", () => {
    const names = cases.map(({ op, name }) => `${op}: ${name}`);
    expect(new Set(names).size).toBe(names.length);
  });

  it("runs in each case the operation it is named after", () => {
    for (const testCase of cases) {
      const called = new Set<string | symbol>();
      const recorded = new Proxy(oracle, {
        get(target, name: keyof Operations<Array64>) {
          called.add(name);
          return target[name];
        },
      });
      const inputs = inputsOf(testCase).map(({ shape, data }) => ({ shape, data: Float64Array.from(data) }));
      testCase.run(recorded, inputs, testCase.constants?.(oracle) ?? []);
      expect(called, testCase.name).toContain(testCase.op);
    }
  });
});

describe("the oracle", () => {
  it("knows the normal distribution to 1e-15", () => {
    // Values of the distribution function to 16 digits (Abramowitz and Stegun, table 26.1).
    expect(normalDistribution(0)).toBe(0.5);
    expect(Math.abs(normalDistribution(1) - 0.8413447460685429)).toBeLessThan(1e-15);
    expect(Math.abs(normalDistribution(-2) - 0.0227501319481792)).toBeLessThan(1e-15);
  });

  it("multiplies, normalizes and differentiates as by hand", () => {
    const a = oracle.tensor(Float32Array.of(1, 2, 3, 4), [2, 2]);
    expect([...oracle.matMul(a, a).data]).toEqual([7, 10, 15, 22]);
    expect([...oracle.transpose(a).data]).toEqual([1, 3, 2, 4]);
    expect([...oracle.concat([a, a], 1).data]).toEqual([1, 2, 1, 2, 3, 4, 3, 4]);
    expect([...oracle.add(a, oracle.tensor(Float32Array.of(10, 20), [2])).data]).toEqual([11, 22, 13, 24]);
    expect([...oracle.sum(a, 0).data]).toEqual([4, 6]);
    const [gradient] = finiteDifferences((xs) => xs[0]!.data.reduce((sum, v) => sum + v * v, 0), [a]);
    gradient!.data.forEach((value, i) => {
      expect(Math.abs(value - 2 * a.data[i]!)).toBeLessThan(1e-8);
    });
  });
});

const loads = new Map<BackendName, string>();
for (const name of backendNames) {
  try {
    loads.set(name, await useBackend(name));
  } catch (error) {
    if (name !== "tensorflow") throw error;
  }
}

describe.each(backendNames)("on the %s backend", (backend) => {
  const absent = !loads.has(backend);
  let before = 0;
  beforeAll(async () => {
    if (absent) return;
    await useBackend(backend);
    before = ops.aliveTensors();
  });
  afterAll(() => {
    if (!absent) expect(ops.aliveTensors()).toBe(before);
  });

  describe("value and gradient", () => {
    for (const testCase of cases) {
      it.skipIf(absent)(`${testCase.op}: ${testCase.name}`, () => {
        expect(tf.getBackend()).toBe(backend);
        const errors = errorsOf(layer, testCase);
        expect(errors.shape).toEqual(errors.expectedShape);
        expect(errors.value).toBeLessThanOrEqual(valueTolerance);
        for (const gradient of errors.gradients) expect(gradient).toBeLessThanOrEqual(gradientTolerance);
      });
    }
  });

  it.skipIf(absent)("leaks no tensor and changes no input, with and without gradient, outside a tidy", () => {
    for (const testCase of cases) {
      const what = `${testCase.op}: ${testCase.name}`;
      const inputs = inputsOf(testCase);
      const start = [tf.memory().numTensors, tf.memory().numDataBuffers];
      const tensors = inputs.map(({ shape, data }) => ops.tensor(data, shape));
      const constants = testCase.constants?.(layer) ?? [];
      const constantsBefore = constants.map(ops.read);
      const made = ops.aliveTensors();

      // The scope frees what the calls return; inside it, nothing but one result a call may be alive.
      const calls = testCase.calls ?? 1;
      tf.tidy(() => {
        testCase.run(layer, tensors, constants);
        expect(ops.aliveTensors() - made, `${what}, value`).toBe(calls);
      });

      const beforeGradient = ops.aliveTensors();
      const { value, gradients } = ops.valueAndGradients(
        (p) => tf.sum(testCase.run(layer, Object.values(p), constants)),
        Object.fromEntries(tensors.map((t, i) => [`${i}`, t])),
      );
      expect(ops.aliveTensors() - beforeGradient, `${what}, gradient`).toBe(1 + tensors.length);
      tensors.forEach((t, i) => {
        expect(ops.read(t), `${what}, input ${i}`).toEqual(inputs[i]!.data);
      });
      constants.forEach((t, i) => {
        expect(ops.read(t), `${what}, constant ${i}`).toEqual(constantsBefore[i]!);
      });
      for (const t of [...tensors, ...constants, value, ...Object.values(gradients)]) t.dispose();
      expect([tf.memory().numTensors, tf.memory().numDataBuffers], what).toEqual(start);
    }
  });

  it.skipIf(absent)("refuses bad shapes, ids and axes with an ArgumentError, and leaves nothing behind", () => {
    const filled = (...shape: number[]): Tensor => ops.ones(shape);
    const ids = (...values: number[]): Tensor => ops.integers(Int32Array.from(values), [values.length]);
    const bad: Record<string, () => Tensor> = {
      "tensor: too few values": () => ops.tensor(new Float32Array(5), [2, 3]),
      "tensor: negative sizes": () => ops.tensor(new Float32Array(6), [-2, -3]),
      "integers: too many values": () => ops.integers(new Int32Array(7), [2, 3]),
      "matMul: inner widths": () => ops.matMul(filled(2, 3), filled(2, 3)),
      "matMul: a vector": () => ops.matMul(filled(3), filled(3, 2)),
      "matMul: a vector on the right": () => ops.matMul(filled(2, 3), filled(3)),
      "matMul: batches": () => ops.matMul(filled(2, 3, 4), filled(3, 4, 5)),
      "matMul: ranks": () => ops.matMul(filled(2, 3), filled(1, 3, 4)),
      "select: shapes": () => ops.select(filled(2, 3), filled(2, 3), filled(3)),
      "select: mask": () => ops.select(filled(3), filled(2, 3), filled(2, 3)),
      "softmax: scalar": () => ops.softmax(ops.scalar(1)),
      "reshape: sizes": () => ops.reshape(filled(2, 3), [4]),
      "reshape: two axes to be found": () => ops.reshape(filled(2, 3), [-1, -1]),
      "reshape: no whole number": () => ops.reshape(filled(2, 3), [-1, 4]),
      "transpose: too few axes": () => ops.transpose(filled(2, 3), [0]),
      "transpose: an axis twice": () => ops.transpose(filled(2, 3), [0, 0]),
      "transpose: no such axis": () => ops.transpose(filled(2, 3), [0, 2]),
      "concat: nothing": () => ops.concat([], 0),
      "concat: ranks": () => ops.concat([filled(2, 3), filled(2)], 0),
      "concat: other axes": () => ops.concat([filled(2, 3), filled(2, 4)], 0),
      "concat: no such axis": () => ops.concat([filled(2, 3), filled(2, 3)], 2),
      "slice: past the end": () => ops.slice(filled(4), [2], [3]),
      "slice: before the start": () => ops.slice(filled(4), [-1], [2]),
      "slice: ranks": () => ops.slice(filled(4, 2), [1], [2]),
      "gather: id too large": () => ops.gather(filled(4, 2), ids(0, 4)),
      "gather: id negative": () => ops.gather(filled(4, 2), ids(-1)),
      "gather: ids not integers": () => ops.gather(filled(4, 2), filled(2)),
      "gather: table of rank 1": () => ops.gather(filled(4), ids(0)),
      "rmsNorm: weight": () => ops.rmsNorm(filled(2, 3), filled(2), 1e-5),
      "rmsNorm: weight of rank 2": () => ops.rmsNorm(filled(2, 3), filled(1, 3), 1e-5),
      "layerNorm: weight": () => ops.layerNorm(filled(2, 3), filled(1), filled(3), 1e-5),
      "layerNorm: bias": () => ops.layerNorm(filled(2, 3), filled(3), filled(2), 1e-5),
      "crossEntropy: rows": () => ops.crossEntropy(filled(2, 3), Int32Array.of(0)),
      "crossEntropy: rank": () => ops.crossEntropy(filled(2, 3, 1), Int32Array.of(0, 1)),
      "crossEntropy: class": () => ops.crossEntropy(filled(2, 3), Int32Array.of(0, 3)),
      "crossEntropy: no row counts": () => ops.crossEntropy(filled(2, 3), Int32Array.of(-1, -1)),
      "softCrossEntropy: classes": () => ops.softCrossEntropy(filled(2, 3), filled(2, 4)),
      "softCrossEntropy: rank": () => ops.softCrossEntropy(filled(3), filled(3)),
      "valueAndGradients: not a scalar": () => ops.valueAndGradients(({ x }) => ops.square(x!), { x: filled(2) }).value,
      "valueAndGradients: no use of a parameter": () =>
        ops.valueAndGradients(({ x }) => ops.sum(ops.square(x!)), { x: filled(2), y: filled(2) }).value,
      "valueAndGradients: no use of any parameter": () =>
        ops.valueAndGradients(() => ops.scalar(1), { x: filled(2) }).value,
    };
    for (const op of ["add", "subtract", "multiply", "divide"] as const) {
      bad[`${op}: widths`] = () => layer[op](filled(2, 3), filled(2, 4));
      bad[`${op}: ranks`] = () => layer[op](filled(2, 3), filled(2));
    }
    for (const op of ["sum", "mean", "max"] as const) {
      bad[`${op}: no such axis`] = () => layer[op](filled(2, 3), 2);
      bad[`${op}: no such axis from the end`] = () => layer[op](filled(2, 3), -3);
    }
    for (const [what, f] of Object.entries(bad)) {
      const alive = ops.aliveTensors();
      let thrown: unknown;
      try {
        ops.tidy(f);
      } catch (error) {
        thrown = error;
      }
      expect(thrown, what).toBeInstanceOf(ArgumentError);
      expect(thrown, what).toBeInstanceOf(TokenthriftError);
      const name = what.slice(0, what.indexOf(":"));
      if (!["tensor", "integers", "crossEntropy", "valueAndGradients"].includes(name)) {
        expect((thrown as ArgumentError).message, what).toContain(name);
      }
      expect((thrown as ArgumentError).message, what).toMatch(/expected .+, got /);
      expect(ops.aliveTensors(), what).toBe(alive);
    }
  });

  it.skipIf(absent)("lets NaN through instead of hiding it", () => {
    const nan = ops.tensor(Float32Array.of(1, Number.NaN, 2, 3), [2, 2]);
    const one = ops.ones([2]);
    const results = ops.tidy(() => [
      ops.matMul(nan, nan),
      ops.rmsNorm(nan, one, 1e-5),
      ops.layerNorm(nan, one, one, 1e-5),
      ops.silu(nan),
      ops.gelu(nan),
      ops.crossEntropy(nan, Int32Array.of(0, 0)),
      ops.sum(nan),
    ]);
    for (const result of results) expect([...ops.read(result)].some(Number.isNaN)).toBe(true);
    for (const t of [nan, one, ...results]) t.dispose();
  });

  it.skipIf(absent)("differentiates a whole attention block with a shared weight used twice", () => {
    const block: Case = {
      op: "matMul",
      name: "attention block",
      inputs: [[6, 8], [8], [8, 8], [8, 8], [8, 3]],
      constants: (o) => [
        o.tensor(
          Float32Array.from({ length: 9 }, (_, i) => (i % 3 > i / 3 ? -1e9 : 0)),
          [3, 3],
        ),
      ],
      // 2 sequences of 3, 2 heads of 4; keys and values share a weight.
      run: (o, [x, norm, query, key, head], [mask]) => {
        const rows = o.rmsNorm(x!, norm!, 1e-5);
        const split = <T>(p: Operations<T>, y: T, axes: readonly number[]): T =>
          p.transpose(p.reshape(y, [2, 3, 2, 4]), axes);
        const q = split(o, o.matMul(rows, query!), [0, 2, 1, 3]); // -> [2, 2, 3, 4]
        const k = split(o, o.matMul(rows, key!), [0, 2, 3, 1]); // -> [2, 2, 4, 3]
        const v = split(o, o.matMul(rows, key!), [0, 2, 1, 3]);
        const attention = o.softmax(o.add(o.scale(o.matMul(q, k), 0.5), mask!)); // -> [2, 2, 3, 3]
        const mixed = o.reshape(o.transpose(o.matMul(attention, v), [0, 2, 1, 3]), [6, 8]);
        const out = o.add(x!, o.silu(mixed));
        return o.crossEntropy(o.matMul(out, head!), Int32Array.of(0, 1, 2, -1, 1, 0));
      },
    };
    const errors = errorsOf(layer, block);
    expect(passes(errors), JSON.stringify(errors)).toBe(true);
  });

  // Negative controls: an operation made wrong on purpose, which the same checker must turn down.
  const wrong: { name: string; like: string; operations: Partial<Operations<Tensor>> }[] = [
    {
      name: "square whose gradient forgets the factor 2",
      like: "square: rank 1",
      operations: { square: withGradient(tf.square, (dy, x) => tf.mul(dy, x)) },
    },
    {
      name: "square whose gradient is 0.01 % too large",
      like: "square: D: rank 2",
      operations: { square: withGradient(tf.square, (dy, x) => tf.mul(dy, tf.mul(x, 2.0002))) },
    },
    {
      name: "softmax whose gradient forgets the rows' sum",
      like: "softmax: D: rank 3",
      operations: { softmax: withGradient(tf.softmax, (dy, x) => tf.mul(dy, tf.softmax(x))) },
    },
    {
      name: "tanh that is right to four digits only",
      like: "tanh: rank 1",
      operations: { tanh: (x) => tf.mul(tf.tanh(x), 1.0001) },
    },
    {
      name: "gelu in the other form",
      like: "gelu: far from zero",
      operations: { gelu: ops.geluErf },
    },
    {
      name: "layerNorm over width - 1",
      like: "layerNorm: E: rank 2",
      operations: { layerNorm: (x, w, b, epsilon) => ops.layerNorm(x, ops.scale(w, Math.sqrt(5 / 6)), b, epsilon) },
    },
    {
      name: "crossEntropy that divides by all rows",
      like: "crossEntropy: E: masked rows left out",
      operations: { crossEntropy: (x, targets) => ops.scale(ops.crossEntropy(x, targets), 2 / 5) },
    },
    {
      name: "transpose that only reshapes",
      like: "transpose: D: tied head",
      operations: { transpose: (x) => tf.reshape(x, [...x.shape].reverse()) },
    },
    { name: "a result of another shape", like: "sum: last axis, kept", operations: { sum: (x) => tf.sum(x, -1) } },
    { name: "a NaN", like: "log: rank 2", operations: { log: (x) => tf.log(tf.neg(x)) } },
  ];
  for (const { name, like, operations } of wrong) {
    it.skipIf(absent)(`the checker turns down ${name}`, () => {
      const testCase = cases.find(({ op, name }) => `${op}: ${name}` === like)!;
      expect(passes(errorsOf(layer, testCase))).toBe(true);
      expect(passes(errorsOf({ ...layer, ...operations }, testCase))).toBe(false);
    });
  }
});

/** `f` with a gradient of the test's own. */
function withGradient(f: (x: Tensor) => Tensor, gradient: (dy: Tensor, x: Tensor) => Tensor): (x: Tensor) => Tensor {
  return tf.customGrad((x, save) => {
    (save as tf.GradSaveFunc)([x as Tensor]);
    return {
      value: f(x as Tensor),
      gradFunc: (dy: Tensor, saved: Tensor[]) => gradient(dy, saved[0]!),
    };
  }) as (x: Tensor) => Tensor;
}
