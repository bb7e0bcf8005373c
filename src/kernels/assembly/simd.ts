/**
 * Four lanes at a time: the small pieces every kernel is built from.
 *
 * Pointers are byte offsets into the arena, sizes count floats unless they say bytes.
 */

/** Bytes of a float. */
export const F: usize = 4;
/** Bytes of four lanes. */
export const V: usize = 16;

/** a * b + c, in one rounding where the runtime has relaxed SIMD and the processor fuses, in two otherwise. */
// @ts-ignore: decorator
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Sum of the four lanes. */
// @ts-ignore: decorator
@inline
export function sumLanes(a: v128): f32 {
  const pairs = f32x4.add(a, v128.shuffle<f32>(a, a, 2, 3, 0, 1));
  return f32x4.extract_lane(pairs, 0) + f32x4.extract_lane(pairs, 1);
}

/** Largest of the four lanes. */
// @ts-ignore: decorator
@inline
export function maxLanes(a: v128): f32 {
  const pairs = f32x4.pmax(a, v128.shuffle<f32>(a, a, 2, 3, 0, 1));
  return max(f32x4.extract_lane(pairs, 0), f32x4.extract_lane(pairs, 1));
}

/** (sum of a, sum of b, sum of c, sum of d): four dot products end here together. */
// @ts-ignore: decorator
@inline
export function sumEach(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

/**
 * Constants of `exp4`, in memory: compilers make a vector constant anew at each use, in four instructions, and read it
 * from memory in one.
 */
const constants = memory.data<f32>([
  -87.3, 88.0, 1.44269504, 12582912.0, -0.693359375, 2.12194440e-4, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5,
  1.0,
]);

// @ts-ignore: decorator
@inline
function constant(index: usize): v128 {
  return v128.load32_splat(constants + index * F);
}

/**
 * e^x in each lane, relative error below 3e-7; 0 below -87.3, e^88 above 88.
 *
 * x = n ln 2 + r with n whole and |r| <= ln 2 / 2; e^r by its Taylor series to the sixth power; 2^n by writing n into
 * the exponent bits. ln 2 is subtracted in two parts, the first exact in few bits, so that r keeps its last digits.
 * Adding 3 * 2^22 rounds to a whole number and leaves it in the lowest bits of the sum. The bits of 1.0 are those of 2^0.
 */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  const lowest = constant(0);
  const inRange = f32x4.gt(x, lowest);
  const clamped = f32x4.pmin(f32x4.pmax(x, lowest), constant(1));
  const shift = constant(3);
  const shifted = madd(clamped, constant(2), shift);
  const n = f32x4.sub(shifted, shift);
  let r = madd(n, constant(4), clamped);
  r = madd(n, constant(5), r);
  let p = constant(6);
  p = madd(p, r, constant(7));
  p = madd(p, r, constant(8));
  p = madd(p, r, constant(9));
  p = madd(p, r, constant(10));
  const one = constant(11);
  p = madd(p, r, one);
  p = madd(p, r, one);
  const power = i32x4.add(i32x4.shl(shifted, 23), one);
  return v128.and(f32x4.mul(p, power), inRange);
}
