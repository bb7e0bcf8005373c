/** RMSNorm and LayerNorm, row by row. Rows end in zeros up to their stride, and so do their results. */
import { F, madd, sumLanes, V } from "./simd";

/** See `Kernels.rmsNorm`. */
export function rmsNorm(
  x: usize, stride: i32, rows: i32, width: i32, weight: usize, epsilon: f32, y: usize,
): void {
  const bytes: usize = <usize>stride * F;
  for (let r = 0; r < rows; r++) {
    let squares = f32x4.splat(0);
    let more = f32x4.splat(0);
    // The stride is a multiple of eight, and the zeros at the end add nothing.
    for (let i: usize = 0; i < bytes; i += 2 * V) {
      const a = v128.load(x + i);
      squares = madd(a, a, squares);
      const b = v128.load(x + i, V);
      more = madd(b, b, more);
    }
    const mean = sumLanes(f32x4.add(squares, more)) / <f32>width;
    const scale = f32x4.splat(1.0 / sqrt<f32>(mean + epsilon));
    for (let i: usize = 0; i < bytes; i += V) {
      v128.store(y + i, f32x4.mul(f32x4.mul(v128.load(x + i), scale), v128.load(weight + i)));
    }
    x += bytes;
    y += bytes;
  }
}

/** See `Kernels.layerNorm`. */
export function layerNorm(
  x: usize, stride: i32, rows: i32, width: i32, weight: usize, bias: usize, epsilon: f32, y: usize,
): void {
  const bytes: usize = <usize>stride * F;
  const end: usize = <usize>width * F;
  const whole = end & ~(V - 1);
  for (let r = 0; r < rows; r++) {
    let sum = f32x4.splat(0);
    for (let i: usize = 0; i < bytes; i += V) sum = f32x4.add(sum, v128.load(x + i));
    const mean = sumLanes(sum) / <f32>width;
    const means = f32x4.splat(mean);
    let squares = f32x4.splat(0);
    let at: usize = 0;
    for (; at < whole; at += V) {
      const a = f32x4.sub(v128.load(x + at), means);
      squares = madd(a, a, squares);
    }
    // The zeros at the end of the row stay out: with a mean far from 0 their squares would drown the others.
    let rest: f32 = 0;
    for (; at < end; at += F) {
      const a = load<f32>(x + at) - mean;
      rest += a * a;
    }
    const scale = f32x4.splat(1.0 / sqrt<f32>((sumLanes(squares) + rest) / <f32>width + epsilon));
    for (let i: usize = 0; i < bytes; i += V) {
      const normed = f32x4.mul(f32x4.sub(v128.load(x + i), means), scale);
      v128.store(y + i, madd(normed, v128.load(weight + i), v128.load(bias + i))); // weight and bias end in zeros
    }
    x += bytes;
    y += bytes;
  }
}
