/** The largest of a row: arg-max and top-k. Ties go to the smaller index. */
import { F } from "./simd";
import { largest } from "./activations";

/** See `Kernels.argMax`. */
export function argMax(x: usize, count: i32): i32 {
  const most = largest(x, count);
  for (let i = 0; i < count; i++) if (load<f32>(x + <usize>i * F) == most) return i;
  return 0;
}

/** See `Kernels.topK`. Keeps the k best in order; most numbers are below the k-th and cost one comparison in four. */
export function topK(x: usize, count: i32, k: i32, indices: usize, values: usize): void {
  let kept = 0;
  let least: f32 = -Infinity;
  let i = 0;
  while (i < count) {
    if (kept == k && i + 4 <= count) {
      if (!v128.any_true(f32x4.gt(v128.load(x + <usize>i * F), f32x4.splat(least)))) {
        i += 4;
        continue;
      }
    }
    const end = min(i + 4, count);
    for (; i < end; i++) {
      const value = load<f32>(x + <usize>i * F);
      if (kept == k && !(value > least)) continue;
      let at = kept < k ? kept++ : k - 1;
      while (at > 0 && load<f32>(values + <usize>(at - 1) * F) < value) {
        store<f32>(values + <usize>at * F, load<f32>(values + <usize>(at - 1) * F));
        store<i32>(indices + <usize>at * 4, load<i32>(indices + <usize>(at - 1) * 4));
        at--;
      }
      store<f32>(values + <usize>at * F, value);
      store<i32>(indices + <usize>at * 4, i);
      least = load<f32>(values + <usize>(kept - 1) * F);
    }
  }
}
