/**
 * Attention within short segments of rows, every row to all rows of its own segment (both ways, no cache):
 *
 *     A = softmax(Q K^T / sqrt(headWidth))        Y = A V        segment by segment, head by head
 *
 * Rows stand below each other without padding, so what a mask of pads would hide is not there. The products are so small
 * (a handful of rows) that one call of the tensor library each would cost more than the numbers: both directions are loops.
 *
 *     dV = A^T dY      dA = dY V^T      dS = A (dA - sum_j A dA)      dQ = dS K / sqrt(..)      dK = dS^T Q / sqrt(..)
 */
import { ArgumentError } from "../errors.ts";
import { type Tensor, tf } from "./tf.ts";

/**
 * queries, keys and values [rows, heads * headWidth] -> the same. Differentiable in all three.
 * @param lengths rows of each segment, one after another; they sum to rows
 * @throws ArgumentError when shapes differ, or lengths or heads do not divide them
 */
export function segmentAttention(
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  lengths: ArrayLike<number>,
  heads: number,
): Tensor {
  const [rows, width] = queries.shape as [number, number];
  if ([queries, keys, values].some((x) => x.rank !== 2 || x.shape[0] !== rows || x.shape[1] !== width)) {
    const shapes = [queries.shape, keys.shape, values.shape];
    throw new ArgumentError("segmentAttention", "queries, keys and values of one shape [rows, width]", shapes);
  }
  if (!Number.isInteger(heads) || heads < 1 || width % heads !== 0) {
    throw new ArgumentError("heads", `a divisor of the width, ${width}`, heads);
  }
  let total = 0;
  for (let s = 0; s < lengths.length; s++) {
    if (!Number.isInteger(lengths[s]) || lengths[s]! < 1) {
      throw new ArgumentError(`lengths[${s}]`, "an integer >= 1", lengths[s]);
    }
    total += lengths[s]!;
  }
  if (total !== rows) throw new ArgumentError("lengths", `segments of ${rows} rows in all`, total);
  const headWidth = width / heads;
  const scale = 1 / Math.sqrt(headWidth);

  const attend = tf.customGrad((...inputs) => {
    const [q, k, v] = inputs.slice(0, 3).map((x) => (x as Tensor).dataSync() as Float32Array) as Float32Array[];
    const weights = new Float32Array(heads * sumOfSquares(lengths));
    const mixed = new Float32Array(rows * width);
    eachHead(lengths, heads, headWidth, width, (at, n, w) => {
      for (let i = 0; i < n; i++) {
        const own = w + i * n;
        let sum = 0;
        let highest = Number.NEGATIVE_INFINITY;
        for (let j = 0; j < n; j++) {
          weights[own + j] = scale * dot(q!, at + i * width, k!, at + j * width, headWidth);
          highest = Math.max(highest, weights[own + j]!);
        }
        for (let j = 0; j < n; j++) sum += weights[own + j] = Math.exp(weights[own + j]! - highest);
        for (let j = 0; j < n; j++) {
          weights[own + j]! /= sum;
          addScaled(mixed, at + i * width, v!, at + j * width, weights[own + j]!, headWidth);
        }
      }
    });
    return {
      value: tf.tensor(mixed, [rows, width]),
      gradFunc: (dy: Tensor) => {
        const d = dy.dataSync() as Float32Array;
        const [dq, dk, dv] = [0, 1, 2].map(() => new Float32Array(rows * width)) as [
          Float32Array,
          Float32Array,
          Float32Array,
        ];
        const dWeights = new Float64Array(Math.max(0, ...Array.from(lengths)));
        eachHead(lengths, heads, headWidth, width, (at, n, w) => {
          for (let i = 0; i < n; i++) {
            const own = w + i * n;
            let along = 0;
            for (let j = 0; j < n; j++) {
              addScaled(dv, at + j * width, d, at + i * width, weights[own + j]!, headWidth);
              dWeights[j] = dot(d, at + i * width, v!, at + j * width, headWidth);
              along += weights[own + j]! * dWeights[j]!;
            }
            for (let j = 0; j < n; j++) {
              const dScore = scale * weights[own + j]! * (dWeights[j]! - along);
              addScaled(dq, at + i * width, k!, at + j * width, dScore, headWidth);
              addScaled(dk, at + j * width, q!, at + i * width, dScore, headWidth);
            }
          }
        });
        return [dq, dk, dv].map((gradient) => tf.tensor(gradient, [rows, width]));
      },
    };
  });
  return attend(queries, keys, values) as Tensor;
}

/** Visit each head of each segment: where its first row's head begins, how many rows, where its weights [n, n] begin. */
function eachHead(
  lengths: ArrayLike<number>,
  heads: number,
  headWidth: number,
  width: number,
  visit: (at: number, rows: number, weights: number) => void,
): void {
  let row = 0;
  let weights = 0;
  for (let s = 0; s < lengths.length; s++) {
    const n = lengths[s]!;
    for (let head = 0; head < heads; head++, weights += n * n) visit(row * width + head * headWidth, n, weights);
    row += n;
  }
}

function sumOfSquares(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return sum;
}

function dot(a: Float32Array, atA: number, b: Float32Array, atB: number, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[atA + i]! * b[atB + i]!;
  return sum;
}

function addScaled(to: Float32Array, at: number, x: Float32Array, from: number, factor: number, count: number): void {
  for (let i = 0; i < count; i++) to[at + i]! += factor * x[from + i]!;
}
