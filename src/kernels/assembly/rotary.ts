/**
 * Rotary positions (RoPE, arXiv 2104.09864): element i of a head turns with element i + half by the angle of its position.
 *
 * The table holds, for each position, `half` cosines and then `half` sines.
 */
import { F, madd, V } from "./simd";

/** One head, from `x` to `y` (which may be `x`). */
// @ts-ignore: decorator
@inline
function turn(x: usize, half: usize, table: usize, y: usize): void {
  const bytes = half * F;
  const end = bytes & ~(V - 1);
  let i: usize = 0;
  for (; i < end; i += V) {
    const cosines = v128.load(table + i);
    const sines = v128.load(table + bytes + i);
    const a = v128.load(x + i);
    const b = v128.load(x + bytes + i);
    v128.store(y + i, f32x4.sub(f32x4.mul(a, cosines), f32x4.mul(b, sines)));
    v128.store(y + bytes + i, madd(b, cosines, f32x4.mul(a, sines)));
  }
  for (; i < bytes; i += F) {
    const cosine = load<f32>(table + i);
    const sine = load<f32>(table + bytes + i);
    const a = load<f32>(x + i);
    const b = load<f32>(x + bytes + i);
    store<f32>(y + i, a * cosine - b * sine);
    store<f32>(y + bytes + i, b * cosine + a * sine);
  }
}

/** See `Kernels.rotate`. */
export function rotate(
  x: usize, stride: i32, rows: i32, heads: i32, headStride: i32, half: i32, positions: usize, table: usize,
): void {
  for (let r = 0; r < rows; r++) {
    const at = table + <usize>load<i32>(positions + <usize>r * 4) * <usize>half * 2 * F;
    let head = x + <usize>r * <usize>stride * F;
    for (let h = 0; h < heads; h++) {
      turn(head, half, at, head);
      head += <usize>headStride * F;
    }
  }
}

/** See `Kernels.gatherRotated`. */
export function gatherRotated(
  cache: usize, capacity: i32, heads: i32, headStride: i32, half: i32, indices: usize, count: i32,
  positions: usize, table: usize, y: usize, yCapacity: i32,
): void {
  const bytes: usize = <usize>headStride * F;
  for (let h = 0; h < heads; h++) {
    const from = cache + <usize>h * <usize>capacity * bytes;
    const to = y + <usize>h * <usize>yCapacity * bytes;
    const list = indices + <usize>h * <usize>count * 4;
    const places = positions + <usize>h * <usize>count * 4;
    for (let i: usize = 0; i < <usize>count; i++) {
      const source = from + <usize>load<i32>(list + i * 4) * bytes;
      const target = to + i * bytes;
      // What lies behind the two halves is padding.
      for (let d: usize = <usize>half * 2 * F; d < bytes; d += F) store<f32>(target + d, 0);
      turn(source, half, table + <usize>load<i32>(places + i * 4) * <usize>half * 2 * F, target);
    }
  }
}
