/**
 * Matrix products with a gradient of our own.
 *
 * The library's wasm product is fast (XNNPACK) only for two plain rank-2 operands: its `transposeA/B` flags and its
 * batched form take a loop 15 to 20 times slower, and both its gradients use the flags. Here every transpose is explicit
 * and a batch runs as one plain product per entry.
 *
 *     C = A B      dA = dC Bᵀ      dB = Aᵀ dC
 *
 * Unlike `tf.matMul`: no transpose flags, and batch shapes must be equal (a rank-2 right side is shared by the batch).
 */
import { ArgumentError } from "../errors.ts";
import { type Tensor, tf } from "./tf.ts";

/**
 * [.., m, k] x [.., k, n] -> [.., m, n], or [.., m, k] x [k, n] -> [.., m, n]. Differentiable in both.
 * @throws ArgumentError when ranks, batch shapes or inner dimensions do not fit
 */
export function matMul(a: Tensor, b: Tensor): Tensor {
  checkShapes(a, b);
  const m = a.shape.at(-2)!;
  const k = a.shape.at(-1)!;
  const n = b.shape.at(-1)!;
  if (a.rank === 2) return product2d(a, b);
  return tf.tidy(() => {
    if (b.rank === 2) {
      // The rows of every batch entry stand below each other: one product for all.
      return tf.reshape(product2d(tf.reshape(a, [-1, k]), b), [...a.shape.slice(0, -1), n]);
    }
    const batch = a.size / (m * k);
    const product = productBatched(tf.reshape(a, [batch, m, k]), tf.reshape(b, [batch, k, n]));
    return tf.reshape(product, [...a.shape.slice(0, -1), n]);
  });
}

/** [m, k] x [k, n] -> [m, n] */
const product2d = tf.customGrad((a, b, save) => {
  const left = a as tf.Tensor2D;
  const right = b as tf.Tensor2D;
  const value = tf.matMul(left, right);
  (save as tf.GradSaveFunc)([left, right]); // last: what is saved before an error is never freed
  return {
    value,
    gradFunc: (dy: Tensor, saved: Tensor[]) => [
      tf.matMul(dy as tf.Tensor2D, tf.transpose(saved[1] as tf.Tensor2D)),
      tf.matMul(tf.transpose(saved[0] as tf.Tensor2D), dy as tf.Tensor2D),
    ],
  };
}) as (a: Tensor, b: Tensor) => Tensor;

/** [batch, m, k] x [batch, k, n] -> [batch, m, n] */
const productBatched = tf.customGrad((a, b, save) => {
  const left = a as Tensor;
  const right = b as Tensor;
  const value = multiplyBatch(left, right);
  (save as tf.GradSaveFunc)([left, right]);
  return {
    value,
    gradFunc: (dy: Tensor, saved: Tensor[]) => [
      multiplyBatch(dy, tf.transpose(saved[1]!, [0, 2, 1])),
      multiplyBatch(tf.transpose(saved[0]!, [0, 2, 1]), dy),
    ],
  };
}) as (a: Tensor, b: Tensor) => Tensor;

function multiplyBatch(a: Tensor, b: Tensor): Tensor {
  if (tf.getBackend() !== "wasm") return tf.matMul(a, b);
  const [batch, m, k] = a.shape as [number, number, number];
  const n = b.shape[2]!;
  const left = a.dataSync() as Float32Array;
  const right = b.dataSync() as Float32Array;
  const product = new Float32Array(batch * m * n);
  // Slicing in the library copies the whole operand for each slice; views over one copy do not.
  tf.tidy(() => {
    for (let i = 0; i < batch; i++) {
      const entry = tf.matMul(
        tf.tensor2d(left.subarray(i * m * k, (i + 1) * m * k), [m, k]),
        tf.tensor2d(right.subarray(i * k * n, (i + 1) * k * n), [k, n]),
      );
      product.set(entry.dataSync(), i * m * n);
    }
  });
  return tf.tensor3d(product, [batch, m, n]);
}

function checkShapes(a: Tensor, b: Tensor): void {
  const shared = b.rank === 2;
  const fits =
    a.rank >= 2 &&
    (shared || a.rank === b.rank) &&
    a.shape.at(-1) === b.shape.at(-2) &&
    (shared || a.shape.slice(0, -2).every((size, i) => size === b.shape[i]));
  if (!fits) {
    throw new ArgumentError("matMul", "shapes [.., m, k] and [.., k, n] or [k, n]", [a.shape, b.shape]);
  }
}
