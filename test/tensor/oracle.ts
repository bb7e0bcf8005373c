/**
 * Every differentiable operation of `src/tensor/ops.ts` in float64, as plain loops: what the tensor layer is measured
 * against. Written for being read, from the formulas; shares no code with the layer. Inputs are taken to be valid.
 */

/** A row-major float64 array with a shape. */
export interface Array64 {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** The operations under test, over any kind of array: the layer has them over `Tensor`, this file over `Array64`. */
export interface Operations<T> {
  tensor(data: Float32Array, shape: readonly number[]): T;
  integers(data: Int32Array, shape: readonly number[]): T;
  matMul(a: T, b: T): T;
  add(x: T, y: T): T;
  subtract(x: T, y: T): T;
  multiply(x: T, y: T): T;
  divide(x: T, y: T): T;
  scale(x: T, factor: number): T;
  negate(x: T): T;
  exp(x: T): T;
  log(x: T): T;
  sqrt(x: T): T;
  square(x: T): T;
  tanh(x: T): T;
  sigmoid(x: T): T;
  relu(x: T): T;
  silu(x: T): T;
  gelu(x: T): T;
  geluErf(x: T): T;
  select(mask: T, x: T, y: T): T;
  sum(x: T, axis?: number, keepDims?: boolean): T;
  mean(x: T, axis?: number, keepDims?: boolean): T;
  max(x: T, axis?: number, keepDims?: boolean): T;
  softmax(x: T): T;
  reshape(x: T, shape: readonly number[]): T;
  transpose(x: T, axes?: readonly number[]): T;
  concat(xs: readonly T[], axis: number): T;
  slice(x: T, begin: readonly number[], size: readonly number[]): T;
  gather(table: T, ids: T): T;
  rmsNorm(x: T, weight: T, epsilon: number): T;
  layerNorm(x: T, weight: T, bias: T, epsilon: number): T;
  crossEntropy(logits: T, targets: Int32Array): T;
  softCrossEntropy(logits: T, laws: T): T;
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function build(shape: readonly number[], value: (index: number[], at: number) => number): Array64 {
  const data = new Float64Array(sizeOf(shape));
  for (let at = 0; at < data.length; at++) data[at] = value(indexOf(at, shape), at);
  return { shape: [...shape], data };
}

/** Flat position -> one index an axis. */
function indexOf(at: number, shape: readonly number[]): number[] {
  const index: number[] = new Array(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = at % shape[axis]!;
    at = Math.floor(at / shape[axis]!);
  }
  return index;
}

function element(x: Array64, index: readonly number[]): number {
  let at = 0;
  for (let axis = 0; axis < x.shape.length; axis++) at = at * x.shape[axis]! + index[axis]!;
  return x.data[at]!;
}

const each = (x: Array64, f: (value: number) => number): Array64 => build(x.shape, (_, at) => f(x.data[at]!));

/** Axes are aligned from the right; an axis of size one repeats. */
function both(x: Array64, y: Array64, f: (a: number, b: number) => number): Array64 {
  const rank = Math.max(x.shape.length, y.shape.length);
  const sizeAt = (a: Array64, axis: number): number => a.shape[axis - rank + a.shape.length] ?? 1;
  const shape = Array.from({ length: rank }, (_, axis) => Math.max(sizeAt(x, axis), sizeAt(y, axis)));
  const pick = (a: Array64, index: number[]): number =>
    element(
      a,
      index.slice(rank - a.shape.length).map((i, axis) => (a.shape[axis] === 1 ? 0 : i)),
    );
  return build(shape, (index) => f(pick(x, index), pick(y, index)));
}

/** Fold the values along `axis` (all of them when undefined) to one. */
function reduce(x: Array64, axis: number | undefined, keepDims: boolean, fold: (values: number[]) => number): Array64 {
  if (axis === undefined) {
    return { shape: keepDims ? x.shape.map(() => 1) : [], data: Float64Array.of(fold([...x.data])) };
  }
  const along = axis < 0 ? axis + x.shape.length : axis;
  const kept = build(
    x.shape.map((size, a) => (a === along ? 1 : size)),
    (index) => fold(Array.from({ length: x.shape[along]! }, (_, i) => element(x, index.with(along, i)))),
  );
  return keepDims ? kept : { shape: kept.shape.filter((_, a) => a !== along), data: kept.data };
}

const total = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const average = (values: readonly number[]): number => total(values) / values.length;
const logistic = (v: number): number => 1 / (1 + Math.exp(-v));

/** The standard normal's distribution function, by its Taylor series about 0: exact to rounding for |v| < 6. */
export function normalDistribution(v: number): number {
  // Phi(v) = 1/2 + phi(v) (v + v^3/3 + v^5/(3 5) + ...), all terms of one sign: no cancellation.
  let term = v;
  let sum = v;
  for (let n = 3; Math.abs(term) > 1e-18 * Math.abs(sum); n += 2) {
    term *= (v * v) / n;
    sum += term;
  }
  return 0.5 + (sum * Math.exp(-v * v * 0.5)) / Math.sqrt(2 * Math.PI);
}

/** Rows of the last axis, each replaced by `f` of it. */
function perRow(x: Array64, f: (row: number[]) => number[]): Array64 {
  const width = x.shape.at(-1)!;
  const data = new Float64Array(x.data.length);
  for (let start = 0; start < data.length; start += width) {
    data.set(f([...x.data.subarray(start, start + width)]), start);
  }
  return { shape: x.shape, data };
}

export const oracle: Operations<Array64> = {
  tensor: (data, shape) => ({ shape, data: Float64Array.from(data) }),
  integers: (data, shape) => ({ shape, data: Float64Array.from(data) }),

  matMul(a, b) {
    const k = a.shape.at(-1)!;
    return build([...a.shape.slice(0, -1), b.shape.at(-1)!], (index) => {
      const left = index.slice(0, -1);
      const batch = b.shape.length === 2 ? [] : index.slice(0, -2);
      return total(
        Array.from({ length: k }, (_, i) => element(a, [...left, i]) * element(b, [...batch, i, index.at(-1)!])),
      );
    });
  },

  add: (x, y) => both(x, y, (a, b) => a + b),
  subtract: (x, y) => both(x, y, (a, b) => a - b),
  multiply: (x, y) => both(x, y, (a, b) => a * b),
  divide: (x, y) => both(x, y, (a, b) => a / b),
  scale: (x, factor) => each(x, (v) => v * factor),
  negate: (x) => each(x, (v) => -v),
  exp: (x) => each(x, Math.exp),
  log: (x) => each(x, Math.log),
  sqrt: (x) => each(x, Math.sqrt),
  square: (x) => each(x, (v) => v * v),
  tanh: (x) => each(x, Math.tanh),
  sigmoid: (x) => each(x, logistic),
  relu: (x) => each(x, (v) => Math.max(0, v)),
  silu: (x) => each(x, (v) => v * logistic(v)),
  gelu: (x) => each(x, (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)))),
  geluErf: (x) => each(x, (v) => v * normalDistribution(v)),
  select: (mask, x, y) => build(x.shape, (_, at) => (mask.data[at] === 0 ? y.data[at]! : x.data[at]!)),

  sum: (x, axis, keepDims = false) => reduce(x, axis, keepDims, total),
  mean: (x, axis, keepDims = false) => reduce(x, axis, keepDims, average),
  max: (x, axis, keepDims = false) => reduce(x, axis, keepDims, (values) => Math.max(...values)),
  softmax: (x) =>
    perRow(x, (row) => {
      const top = Math.max(...row);
      const powers = row.map((v) => Math.exp(v - top));
      return powers.map((v) => v / total(powers));
    }),

  reshape(x, shape) {
    const known = shape.reduce((a, b) => (b < 0 ? a : a * b), 1);
    return { shape: shape.map((size) => (size < 0 ? x.data.length / known : size)), data: x.data.slice() };
  },
  transpose(x, axes = x.shape.map((_, axis) => x.shape.length - 1 - axis)) {
    return build(
      axes.map((axis) => x.shape[axis]!),
      (index) => {
        const source: number[] = new Array(index.length);
        axes.forEach((axis, at) => {
          source[axis] = index[at]!;
        });
        return element(x, source);
      },
    );
  },
  concat(xs, axis) {
    const first = xs[0]!;
    const along = axis < 0 ? axis + first.shape.length : axis;
    const shape = first.shape.with(along, total(xs.map((x) => x.shape[along]!)));
    return build(shape, (index) => {
      let i = index[along]!;
      let x = first;
      for (x of xs) {
        if (i < x.shape[along]!) break;
        i -= x.shape[along]!;
      }
      return element(x, index.with(along, i));
    });
  },
  slice(x, begin, size) {
    const shape = size.map((s, axis) => (s < 0 ? x.shape[axis]! - begin[axis]! : s));
    return build(shape, (index) =>
      element(
        x,
        index.map((i, axis) => i + begin[axis]!),
      ),
    );
  },
  gather(table, ids) {
    const width = table.shape[1]!;
    return build([...ids.shape, width], (index, at) =>
      element(table, [ids.data[Math.floor(at / width)]!, index.at(-1)!]),
    );
  },

  rmsNorm: (x, weight, epsilon) =>
    perRow(x, (row) => {
      const root = Math.sqrt(average(row.map((v) => v * v)) + epsilon);
      return row.map((v, i) => (v / root) * weight.data[i]!);
    }),
  layerNorm: (x, weight, bias, epsilon) =>
    perRow(x, (row) => {
      const center = average(row);
      const deviation = Math.sqrt(average(row.map((v) => (v - center) ** 2)) + epsilon);
      return row.map((v, i) => ((v - center) / deviation) * weight.data[i]! + bias.data[i]!);
    }),
  crossEntropy(logits, targets) {
    const classes = logits.shape[1]!;
    const losses: number[] = [];
    targets.forEach((target, r) => {
      if (target < 0) return;
      const row = [...logits.data.subarray(r * classes, (r + 1) * classes)];
      const top = Math.max(...row);
      losses.push(top + Math.log(total(row.map((v) => Math.exp(v - top)))) - row[target]!);
    });
    return { shape: [], data: Float64Array.of(average(losses)) };
  },

  softCrossEntropy(logits, laws) {
    const classes = logits.shape[1]!;
    const losses = Array.from({ length: logits.shape[0]! }, (_, r) => {
      const row = [...logits.data.subarray(r * classes, (r + 1) * classes)];
      const top = Math.max(...row);
      const logSum = top + Math.log(total(row.map((v) => Math.exp(v - top))));
      return total(row.map((v, c) => laws.data[r * classes + c]! * (logSum - v)));
    });
    return { shape: [], data: Float64Array.of(average(losses)) };
  },
};

/**
 * The gradient of a scalar function of float64 arrays, by central differences: (f(x + h) - f(x - h)) / 2h with
 * h = 1e-5 max(1, |x|). In float64 the error is about 1e-10 of f's size, far below what float32 can show.
 */
export function finiteDifferences(f: (inputs: readonly Array64[]) => number, inputs: readonly Array64[]): Array64[] {
  return inputs.map((input, which) =>
    build(input.shape, (_, at) => {
      const h = 1e-5 * Math.max(1, Math.abs(input.data[at]!));
      const shifted = (by: number): number => {
        const data = input.data.slice();
        data[at]! += by;
        return f(inputs.with(which, { shape: input.shape, data }));
      };
      return (shifted(h) - shifted(-h)) / (2 * h);
    }),
  );
}
