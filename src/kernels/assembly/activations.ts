/** What stands between the two products of a feed-forward part, and softmax in its two forms. */
import { exp4, F, madd, maxLanes, sumLanes, V } from "./simd";

/** x / (1 + e^-x) */
// @ts-ignore: decorator
@inline
function silu(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

/** See `Kernels.swiglu`. */
export function swiglu(gateUp: usize, stride: i32, rows: i32, hidden: i32, y: usize, yStride: i32): void {
  const bytes: usize = <usize>hidden * F;
  for (let r = 0; r < rows; r++) {
    for (let i: usize = 0; i < bytes; i += V) {
      v128.store(y + i, f32x4.mul(silu(v128.load(gateUp + i)), v128.load(gateUp + bytes + i)));
    }
    gateUp += <usize>stride * F;
    y += <usize>yStride * F;
  }
}

/** See `Kernels.gelu`. x sigmoid(2u) is x (1 + tanh u) / 2. */
export function gelu(x: usize, count: i32): void {
  for (const end = x + <usize>count * F; x < end; x += V) {
    const a = v128.load(x);
    const cube = f32x4.mul(f32x4.mul(a, a), a);
    const u = f32x4.mul(f32x4.splat(-1.5957691216), madd(f32x4.splat(0.044715), cube, a)); // -2 sqrt(2 / pi)
    v128.store(x, f32x4.div(a, f32x4.add(f32x4.splat(1), exp4(u))));
  }
}

/** See `Kernels.add`. */
export function add(x: usize, count: i32, y: usize): void {
  for (const end = y + <usize>count * F; y < end; y += V) {
    v128.store(y, f32x4.add(v128.load(y), v128.load(x)));
    x += V;
  }
}

/** Largest of `count` numbers. */
export function largest(x: usize, count: i32): f32 {
  const end = x + <usize>count * F;
  let most = f32x4.splat(-Infinity);
  let more = most;
  for (; x + 2 * V <= end; x += 2 * V) {
    most = f32x4.pmax(most, v128.load(x));
    more = f32x4.pmax(more, v128.load(x, V));
  }
  most = f32x4.pmax(most, more);
  if (x + V <= end) {
    most = f32x4.pmax(most, v128.load(x));
    x += V;
  }
  let single = maxLanes(most);
  for (; x < end; x += F) single = max(single, load<f32>(x));
  return single;
}

/** x becomes e^(x - shift); returns the sum. Reads and writes up to three numbers past the end: -Infinity makes them 0. */
export function exponentials(x: usize, count: i32, shift: f32): f32 {
  const end = x + <usize>count * F;
  for (let at = end; at & (V - 1); at += F) store<f32>(at, -Infinity);
  const shifts = f32x4.splat(shift);
  let sum = f32x4.splat(0);
  for (; x < end; x += V) {
    const e = exp4(f32x4.sub(v128.load(x), shifts));
    v128.store(x, e);
    sum = f32x4.add(sum, e);
  }
  return sumLanes(sum);
}

/** See `Kernels.softmax`. */
export function softmax(x: usize, stride: i32, rows: i32, count: i32): void {
  for (let r = 0; r < rows; r++) {
    const scale = f32x4.splat(1.0 / exponentials(x, count, largest(x, count)));
    for (let i: usize = 0; i < <usize>count * F; i += V) v128.store(x + i, f32x4.mul(v128.load(x + i), scale));
    x += <usize>stride * F;
  }
}

/** ln x for x >= 1, in doubles: x = 2^n m with m in [1, 2), ln m = 2 atanh((m - 1) / (m + 1)) by its series. */
function logarithm(x: f64): f64 {
  const bits = reinterpret<i64>(x);
  const n = <f64>((bits >> 52) - 1023);
  const m = reinterpret<f64>((bits & 0x000fffffffffffff) | 0x3ff0000000000000);
  const z = (m - 1) / (m + 1);
  const square = z * z;
  let sum: f64 = 0;
  for (let k = 31; k >= 1; k -= 2) sum = sum * square + 1 / <f64>k;
  return n * 0.6931471805599453 + 2 * z * sum;
}

/** See `Kernels.logSoftmax`. */
export function logSoftmax(x: usize, stride: i32, rows: i32, count: i32): void {
  for (let r = 0; r < rows; r++) {
    const shift = f32x4.splat(largest(x, count));
    let sum = f32x4.splat(0);
    const end = x + <usize>count * F;
    for (let at = end; at & (V - 1); at += F) store<f32>(at, -Infinity);
    for (let at = x; at < end; at += V) {
      sum = f32x4.add(sum, exp4(f32x4.sub(v128.load(at), shift)));
    }
    // The shift first: added to the logarithm it would round off what matters of it.
    const less = f32x4.splat(<f32>logarithm(<f64>sumLanes(sum)));
    for (let at = x; at < end; at += V) v128.store(at, f32x4.sub(f32x4.sub(v128.load(at), shift), less));
    x += <usize>stride * F;
  }
}
