/**
 * The differentiable operations of the library, under our own names. About thirty: what a Llama-style decoder, a text
 * encoder and a ViT need. Each is checked for value against a float64 oracle and for gradient against finite
 * differences, on every backend that loads.
 *
 * All are functional: inputs are not changed, results are new tensors. Wrap loops in `tidy`.
 */
import { ArgumentError } from "../errors.ts";
import { type Tensor, tf } from "./tf.ts";

export { matMul } from "./matmul.ts";

// ---------------------------------------------------------------------------------------------- making and reading

/** A float32 tensor over a copy of `data`, row-major. @throws ArgumentError when the sizes differ */
export function tensor(data: Float32Array, shape: readonly number[]): Tensor {
  checkSize(data.length, shape);
  return tf.tensor(data, [...shape], "float32");
}

/** An int32 tensor: token ids, positions, targets. */
export function integers(data: Int32Array, shape: readonly number[]): Tensor {
  checkSize(data.length, shape);
  return tf.tensor(data, [...shape], "int32");
}

export function scalar(value: number): Tensor {
  return tf.scalar(value);
}

export function zeros(shape: readonly number[]): Tensor {
  return tf.zeros([...shape]);
}

export function ones(shape: readonly number[]): Tensor {
  return tf.ones([...shape]);
}

/** A copy of a tensor's values, row-major. Blocks until they are computed. */
export function read(x: Tensor): Float32Array {
  return Float32Array.from(x.dataSync() as Float32Array);
}

/** Run `f` and free every tensor it made but those it returns. */
export function tidy<T extends Tensor | Tensor[] | Record<string, Tensor> | undefined>(f: () => T): T {
  return tf.tidy(f as () => tf.TensorContainer) as T;
}

/** Tensors alive now: what a leak test counts. */
export function aliveTensors(): number {
  return tf.memory().numTensors;
}

// ------------------------------------------------------------------------------------------------- element by element

/** x + y, with broadcasting (as all two-sided operations here). */
export const add = (x: Tensor, y: Tensor): Tensor => tf.add(...broadcastable("add", x, y));
export const subtract = (x: Tensor, y: Tensor): Tensor => tf.sub(...broadcastable("subtract", x, y));
export const multiply = (x: Tensor, y: Tensor): Tensor => tf.mul(...broadcastable("multiply", x, y));
export const divide = (x: Tensor, y: Tensor): Tensor => tf.div(...broadcastable("divide", x, y));
/** x * factor */
export const scale = (x: Tensor, factor: number): Tensor => tf.mul(x, factor);
export const negate = (x: Tensor): Tensor => tf.neg(x);
export const exp = (x: Tensor): Tensor => tf.exp(x);
export const log = (x: Tensor): Tensor => tf.log(x);
export const sqrt = (x: Tensor): Tensor => tf.sqrt(x);
export const square = (x: Tensor): Tensor => tf.square(x);
export const tanh = (x: Tensor): Tensor => tf.tanh(x);
export const sigmoid = (x: Tensor): Tensor => tf.sigmoid(x);
export const relu = (x: Tensor): Tensor => tf.relu(x);

/** SiLU, x * sigmoid(x) (Elfwing et al., arXiv 1702.03118). */
export const silu = tf.customGrad((x, save) => {
  const input = x as Tensor;
  const gate = tf.sigmoid(input);
  const value = tf.mul(input, gate);
  (save as tf.GradSaveFunc)([input, gate]); // last: what is saved before an error is never freed
  return {
    value,
    // d/dx x s(x) = s + x s (1 - s)
    gradFunc: (dy: Tensor, saved: Tensor[]) => {
      const [input, gate] = saved as [Tensor, Tensor];
      return tf.mul(dy, tf.mul(gate, tf.add(tf.mul(input, tf.sub(1, gate)), 1)));
    },
  };
}) as (x: Tensor) => Tensor;

/** GELU in its tanh form, as GPT-2 computes it (Hendrycks and Gimpel, arXiv 1606.08415). */
export function gelu(x: Tensor): Tensor {
  return tf.tidy(() => {
    const inner = tf.mul(tf.add(x, tf.mul(tf.mul(tf.square(x), x), 0.044715)), Math.sqrt(2 / Math.PI));
    return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1));
  });
}

/** GELU as defined, x * Phi(x) with the normal distribution function: what BERT and ViT checkpoints were trained with. */
export function geluErf(x: Tensor): Tensor {
  return tf.tidy(() => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1)));
}

/**
 * `mask ? x : y`, element by element. The mask holds 0 and 1, has the shape of x and y, and is a constant: no gradient
 * flows into it. (The library's `where` cannot be trained through when the mask is itself a comparison.)
 */
export function select(mask: Tensor, x: Tensor, y: Tensor): Tensor {
  if (!sameShape(mask.shape, x.shape) || !sameShape(x.shape, y.shape)) {
    throw new ArgumentError("select", "mask, x and y of one shape", [mask.shape, x.shape, y.shape]);
  }
  const chosen = tf.customGrad((a, b) => ({
    value: tf.where(tf.cast(mask, "bool"), a as Tensor, b as Tensor),
    gradFunc: (dy: Tensor) => [tf.mul(dy, mask), tf.mul(dy, tf.sub(1, mask))],
  }));
  return chosen(x, y) as Tensor;
}

// ----------------------------------------------------------------------------------------------------------- reductions

/** Sum over `axis` (negative: from the end; default: all axes, giving a scalar). */
export const sum = (x: Tensor, axis?: number, keepDims = false): Tensor => tf.sum(x, axisOf("sum", x, axis), keepDims);
export const mean = (x: Tensor, axis?: number, keepDims = false): Tensor =>
  tf.mean(x, axisOf("mean", x, axis), keepDims);
/** Largest value over `axis`. Values that tie for it each take the whole gradient. */
export const max = (x: Tensor, axis?: number, keepDims = false): Tensor => tf.max(x, axisOf("max", x, axis), keepDims);

/** Softmax over the last axis. */
export function softmax(x: Tensor): Tensor {
  axisOf("softmax", x, -1);
  return tf.softmax(x);
}

// ---------------------------------------------------------------------------------------------------------------- shape

/** The same values, row-major, in another shape; one size may be -1: what is left. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const known = shape.reduce((size, n) => (n === -1 ? size : size * n), 1);
  const open = shape.filter((n) => n === -1).length;
  if (open === 0 ? known !== x.size : open > 1 || x.size % known !== 0) {
    throw new ArgumentError("reshape", `a shape of ${x.size} values, as [${x.shape.join(", ")}] has`, shape);
  }
  return tf.reshape(x, [...shape]);
}

/** Reorder axes: axis i of the result is axis `axes[i]` of x. Default: reverse them. */
export function transpose(x: Tensor, axes?: readonly number[]): Tensor {
  if (axes === undefined) return tf.transpose(x);
  if (axes.length !== x.rank || x.shape.some((_, axis) => !axes.includes(axis))) {
    throw new ArgumentError("transpose", `each axis of [${x.shape.join(", ")}] once`, axes);
  }
  return tf.transpose(x, [...axes]);
}

/** Join along `axis` (negative: from the end); the other axes must agree. */
export function concat(xs: readonly Tensor[], axis: number): Tensor {
  const [first] = xs;
  if (first === undefined) throw new ArgumentError("concat", "at least one tensor", xs.length);
  const along = axisOf("concat", first, axis)!;
  if (xs.some((x) => x.rank !== first.rank || x.shape.some((size, a) => a !== along && size !== first.shape[a]))) {
    const shapes = xs.map((x) => x.shape);
    throw new ArgumentError("concat", `shapes that differ in axis ${along} only`, shapes);
  }
  return tf.concat([...xs], along);
}

/** The part that begins at `begin` and measures `size`, axis by axis; a size of -1 reaches to the end. */
export function slice(x: Tensor, begin: readonly number[], size: readonly number[]): Tensor {
  const inside =
    begin.length === x.rank &&
    size.length === x.rank &&
    x.shape.every((n, a) => begin[a]! >= 0 && size[a]! >= -1 && begin[a]! + Math.max(0, size[a]!) <= n);
  if (!inside) throw new ArgumentError("slice", `begin and size inside [${x.shape.join(", ")}]`, { begin, size });
  return tf.slice(x, [...begin], [...size]);
}

/**
 * Rows of a table: [rows, width] and ids [..] (int32) -> [.., width]. The embedding. Differentiable in the table.
 * @throws ArgumentError on an id outside the table
 */
export function gather(table: Tensor, ids: Tensor): Tensor {
  if (table.rank !== 2 || ids.dtype !== "int32") {
    const got = { table: table.shape, ids: ids.dtype };
    throw new ArgumentError("gather", "a table of rank 2 and int32 ids", got, "Make ids with `integers`.");
  }
  const rows = table.shape[0]!;
  for (const id of ids.dataSync()) {
    if (id < 0 || id >= rows) throw new ArgumentError("gather", `ids from 0 to ${rows - 1}`, id);
  }
  return tf.gather(table, ids);
}

// -------------------------------------------------------------------------------------------------------- normalization

/**
 * RMSNorm over the last axis: x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, arXiv 1910.07467).
 * x [.., width], weight [width] -> [.., width]
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  checkWidth("rmsNorm", x, weight);
  const normalized = tf.customGrad((x, weight, save) => {
    const input = x as Tensor;
    const gain = weight as Tensor;
    const inverse = tf.rsqrt(tf.add(tf.mean(tf.square(input), -1, true), epsilon)); // [.., 1]
    const value = tf.mul(tf.mul(input, inverse), gain);
    (save as tf.GradSaveFunc)([input, gain, inverse]);
    return {
      value,
      gradFunc: (dy: Tensor, saved: Tensor[]) => {
        const [input, gain, inverse] = saved as [Tensor, Tensor, Tensor];
        const unit = tf.mul(input, inverse);
        const dUnit = tf.mul(dy, gain);
        // The part of dUnit along the unit vector does not change its direction's scale, so it is taken out.
        const along = tf.mean(tf.mul(dUnit, unit), -1, true);
        const dx = tf.mul(tf.sub(dUnit, tf.mul(unit, along)), inverse);
        return [dx, columnSums(tf.mul(dy, unit))];
      },
    };
  });
  return normalized(x, weight) as Tensor;
}

/**
 * LayerNorm over the last axis: (x - mean) / sqrt(variance + epsilon) * weight + bias (Ba et al., arXiv 1607.06450).
 * x [.., width], weight and bias [width] -> [.., width]
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  checkWidth("layerNorm", x, weight);
  checkWidth("layerNorm", x, bias);
  return tf.tidy(() => {
    const centered = tf.sub(x, tf.mean(x, -1, true));
    const variance = tf.mean(tf.square(centered), -1, true);
    return tf.add(tf.mul(tf.div(centered, tf.sqrt(tf.add(variance, epsilon))), weight), bias);
  });
}

/** [.., width] -> [width]. A product with a row of ones: the library's own sum over the first axis is 40 times slower. */
function columnSums(x: Tensor): Tensor {
  const width = x.shape.at(-1)!;
  const rows = tf.reshape(x, [-1, width]) as tf.Tensor2D;
  return tf.reshape(tf.matMul(tf.ones([1, rows.shape[0]]) as tf.Tensor2D, rows), [width]);
}

// ----------------------------------------------------------------------------------------------------------------- loss

/**
 * Mean cross-entropy in nats: logits [rows, classes], targets [rows] (class ids) -> scalar. Differentiable in the
 * logits. A negative target leaves its row out of the mean.
 * @throws ArgumentError on a target >= classes, or when no row counts
 */
export function crossEntropy(logits: Tensor, targets: Int32Array): Tensor {
  const [rows, classes] = logits.shape as [number, number];
  if (logits.rank !== 2 || rows !== targets.length) {
    throw new ArgumentError("crossEntropy", "logits [rows, classes] and one target a row", [
      logits.shape,
      targets.length,
    ]);
  }
  const counted = targets.reduce((count, target) => count + (target >= 0 ? 1 : 0), 0);
  if (counted === 0) throw new ArgumentError("targets", "at least one target >= 0", "none");
  const highest = targets.reduce((a, b) => Math.max(a, b), -1);
  if (highest >= classes) throw new ArgumentError("targets", `class ids below ${classes}`, highest);
  const loss = tf.customGrad((x) => {
    const input = x as Tensor;
    const values = input.dataSync() as Float32Array;
    // Read outside a tidy: returned from one, the array would be searched for tensors, element by element.
    const softmaxed = tf.softmax(input);
    const probabilities = softmaxed.dataSync() as Float32Array;
    softmaxed.dispose();
    let total = 0;
    for (let r = 0; r < rows; r++) {
      if (targets[r]! < 0) continue;
      const start = r * classes;
      let top = start;
      for (let c = start + 1; c < start + classes; c++) if (values[c]! > values[top]!) top = c;
      // log sum exp = top logit - log(its probability): never a logarithm of an underflow.
      total += values[top]! - Math.log(probabilities[top]!) - values[start + targets[r]!]!;
    }
    return {
      value: tf.scalar(total / counted),
      gradFunc: (dy: Tensor) => {
        const factor = (dy.dataSync()[0] as number) / counted;
        const gradient = new Float32Array(rows * classes);
        for (let r = 0; r < rows; r++) {
          if (targets[r]! < 0) continue;
          const start = r * classes;
          for (let c = start; c < start + classes; c++) gradient[c] = probabilities[c]! * factor;
          gradient[start + targets[r]!]! -= factor;
        }
        return tf.tensor(gradient, [rows, classes]);
      },
    };
  });
  return loss(logits) as Tensor;
}

/**
 * Mean cross-entropy in nats against laws, as in distillation (Hinton et al., arXiv 1503.02531): logits [rows, classes],
 * laws [rows, classes], a constant: no gradient flows into it -> scalar. Differentiable in the logits; least where
 * softmax(logits) is the law, and then the law's entropy.
 */
export function softCrossEntropy(logits: Tensor, laws: Tensor): Tensor {
  if (logits.rank !== 2 || !sameShape(logits.shape, laws.shape)) {
    throw new ArgumentError("softCrossEntropy", "logits and laws [rows, classes]", [logits.shape, laws.shape]);
  }
  const rows = logits.shape[0]!;
  const loss = tf.customGrad((x, save) => {
    const input = x as Tensor;
    const value = tf.tidy(() => {
      const shifted = tf.sub(input, tf.max(input, -1, true));
      const logSums = tf.log(tf.sum(tf.exp(shifted), -1)); // [rows]
      // A law sums to 1, so the largest logit, taken off both terms, changes nothing.
      return tf.mean(tf.sub(logSums, tf.sum(tf.mul(laws, shifted), -1)));
    });
    (save as tf.GradSaveFunc)([input]);
    return {
      value,
      gradFunc: (dy: Tensor, saved: Tensor[]) => tf.mul(tf.sub(tf.softmax(saved[0]!), laws), tf.div(dy, rows)),
    };
  });
  return loss(logits) as Tensor;
}

// ------------------------------------------------------------------------------------------------------------ gradients

/** A scalar's value and its gradient by each parameter, under the parameters' names. */
export interface ValueAndGradients {
  readonly value: Tensor;
  readonly gradients: Record<string, Tensor>;
}

/**
 * Evaluate `f` at `parameters` and differentiate it. `f` must return a scalar and build it from the parameters it is
 * handed.
 * @throws ArgumentError when f's result is not a scalar, or does not depend on one of the parameters
 */
export function valueAndGradients(
  f: (parameters: Record<string, Tensor>) => Tensor,
  parameters: Record<string, Tensor>,
): ValueAndGradients {
  const names = Object.keys(parameters);
  const evaluate = tf.valueAndGrads((...values: Tensor[]) => {
    const value = f(Object.fromEntries(names.map((name, i) => [name, values[i]!])));
    if (value.rank !== 0) throw new ArgumentError("f", "a function that returns a scalar", value.shape);
    return value;
  });
  let result: { value: Tensor; grads: Tensor[] };
  try {
    result = evaluate(names.map((name) => parameters[name]!));
  } catch (error) {
    freeTape();
    // The library's words for it; which parameter it is, it does not say.
    if (!(error instanceof Error) || !error.message.startsWith("Cannot compute gradient")) throw error;
    throw new ArgumentError("f", "a function of every parameter", names, "Leave out the one it does not use.");
  }
  const { value, grads } = result;
  return { value, gradients: Object.fromEntries(names.map((name, i) => [name, grads[i]!])) };
}

/**
 * Free what a failed differentiation holds: the library keeps the tensors saved for the way back until it gets there,
 * out of reach of any tidy. After an allocation that did not fit, they are most of the heap.
 */
function freeTape(): void {
  const { state } = tf.engine();
  if (state.gradientDepth > 0) return; // the tape belongs to a differentiation around this one
  for (const { saved } of state.activeTape ?? []) for (const kept of saved ?? []) kept.dispose();
  state.activeTape = [];
}

// --------------------------------------------------------------------------------------------------------------- checks

function checkSize(length: number, shape: readonly number[]): void {
  const size = shape.reduce((a, b) => a * b, 1);
  if (size !== length || shape.some((n) => n < 0)) {
    throw new ArgumentError("tensor", `${size} values for shape [${shape.join(", ")}]`, length);
  }
}

const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((size, axis) => size === b[axis]);

/** Shapes broadcast when, aligned from the right, sizes are equal or one of them is 1. */
function broadcastable(op: string, x: Tensor, y: Tensor): [Tensor, Tensor] {
  for (let i = 1; i <= Math.min(x.rank, y.rank); i++) {
    const a = x.shape[x.rank - i]!;
    const b = y.shape[y.rank - i]!;
    if (a !== b && a !== 1 && b !== 1) throw new ArgumentError(op, "shapes that broadcast", [x.shape, y.shape]);
  }
  return [x, y];
}

/** The axis counted from the front; undefined stays undefined. */
function axisOf(op: string, x: Tensor, axis: number | undefined): number | undefined {
  if (axis === undefined) return undefined;
  if (!Number.isInteger(axis) || axis < -x.rank || axis >= x.rank) {
    throw new ArgumentError(op, `an axis of [${x.shape.join(", ")}]`, axis);
  }
  return axis < 0 ? axis + x.rank : axis;
}

function checkWidth(op: string, x: Tensor, weight: Tensor): void {
  const width = x.shape.at(-1);
  if (weight.rank !== 1 || weight.shape[0] !== width) {
    throw new ArgumentError(op, `weight and bias [${width ?? "width"}] for x [${x.shape.join(", ")}]`, weight.shape);
  }
}
