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
export const add = (x: Tensor, y: Tensor): Tensor => tf.add(x, y);
export const subtract = (x: Tensor, y: Tensor): Tensor => tf.sub(x, y);
export const multiply = (x: Tensor, y: Tensor): Tensor => tf.mul(x, y);
export const divide = (x: Tensor, y: Tensor): Tensor => tf.div(x, y);
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
  (save as tf.GradSaveFunc)([input, gate]);
  return {
    value: tf.mul(input, gate),
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
  const chosen = tf.customGrad((a, b) => ({
    value: tf.where(tf.cast(mask, "bool"), a as Tensor, b as Tensor),
    gradFunc: (dy: Tensor) => [tf.mul(dy, mask), tf.mul(dy, tf.sub(1, mask))],
  }));
  return chosen(x, y) as Tensor;
}

// ----------------------------------------------------------------------------------------------------------- reductions

/** Sum over `axis` (default: all axes, giving a scalar). */
export const sum = (x: Tensor, axis?: number, keepDims = false): Tensor => tf.sum(x, axis, keepDims);
export const mean = (x: Tensor, axis?: number, keepDims = false): Tensor => tf.mean(x, axis, keepDims);
export const max = (x: Tensor, axis?: number, keepDims = false): Tensor => tf.max(x, axis, keepDims);

/** Softmax over the last axis. */
export const softmax = (x: Tensor): Tensor => tf.softmax(x);

// ---------------------------------------------------------------------------------------------------------------- shape

export const reshape = (x: Tensor, shape: readonly number[]): Tensor => tf.reshape(x, [...shape]);
/** Reorder axes; default: reverse them. */
export const transpose = (x: Tensor, axes?: readonly number[]): Tensor =>
  tf.transpose(x, axes === undefined ? undefined : [...axes]);
export const concat = (xs: readonly Tensor[], axis: number): Tensor => tf.concat([...xs], axis);
export const slice = (x: Tensor, begin: readonly number[], size: readonly number[]): Tensor =>
  tf.slice(x, [...begin], [...size]);

/** Rows of a table: [rows, width] and ids [..] (int32) -> [.., width]. The embedding. Differentiable in the table. */
export const gather = (table: Tensor, ids: Tensor): Tensor => tf.gather(table, ids);

// -------------------------------------------------------------------------------------------------------- normalization

/**
 * RMSNorm over the last axis: x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, arXiv 1910.07467).
 * x [.., width], weight [width] -> [.., width]
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  const normalized = tf.customGrad((x, weight, save) => {
    const input = x as Tensor;
    const gain = weight as Tensor;
    const inverse = tf.rsqrt(tf.add(tf.mean(tf.square(input), -1, true), epsilon)); // [.., 1]
    (save as tf.GradSaveFunc)([input, gain, inverse]);
    return {
      value: tf.mul(tf.mul(input, inverse), gain),
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

// ------------------------------------------------------------------------------------------------------------ gradients

/** A scalar's value and its gradient by each parameter, under the parameters' names. */
export interface ValueAndGradients {
  readonly value: Tensor;
  readonly gradients: Record<string, Tensor>;
}

/**
 * Evaluate `f` at `parameters` and differentiate it. `f` must return a scalar and build it from the parameters it is
 * handed. A parameter that the result does not depend on is an error of the caller's.
 */
export function valueAndGradients(
  f: (parameters: Record<string, Tensor>) => Tensor,
  parameters: Record<string, Tensor>,
): ValueAndGradients {
  const names = Object.keys(parameters);
  const evaluate = tf.valueAndGrads((...values: Tensor[]) =>
    f(Object.fromEntries(names.map((name, i) => [name, values[i]!]))),
  );
  const { value, grads } = evaluate(names.map((name) => parameters[name]!));
  return { value, gradients: Object.fromEntries(names.map((name, i) => [name, grads[i]!])) };
}

function checkSize(length: number, shape: readonly number[]): void {
  const size = shape.reduce((a, b) => a * b, 1);
  if (size !== length) throw new ArgumentError("data", `${size} values for shape [${shape.join(", ")}]`, length);
}
