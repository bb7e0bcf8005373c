/**
 * y = x W (+ bias) (+ y): the products that are nearly all of a decoder's work.
 *
 * W [inputs, outputs] is packed in panels of eight outputs: panel p holds, for each input in turn, the eight weights of
 * outputs 8p .. 8p + 7. The last panel is filled up with zeros, so rows of y are as long as all panels together. A panel is
 * read from end to end once for up to four rows of x: a 4 x 8 tile of y stays in eight registers the whole way.
 *
 * Weights are float32, or 16-bit (the tag `T`): bfloat16 (u16) or IEEE binary16 (i16), widened exactly while being read.
 */
import { F, madd, V } from "./simd";

/** Rows of x taken against one panel after another before the next rows: they stay in the first cache meanwhile. */
const rowBlock: i32 = 32;

/** Bits of binary16 that stay when its sign, extended to 32 bits, is shifted to its place; and 2^112. */
const half = memory.data<u32>([0x8fffffff, 0x77800000]);

/**
 * Weights of outputs 0 .. 3 (`low`) and 4 .. 7 (`high`) of a panel's row, as floats.
 *
 * A half has its sign, exponent and mantissa shifted to their places in a float; a product with 2^112 then moves the
 * exponent's bias from binary16's to binary32's. It also turns subnormal halves into the normal floats they are.
 */
// @ts-ignore: decorator
@inline
function low<T>(w: usize): v128 {
  if (isFloat<T>()) return v128.load(w);
  return isSigned<T>() ? fromHalf(v128.load_ext<i16>(w)) : i32x4.shl(v128.load_ext<u16>(w), 16);
}

// @ts-ignore: decorator
@inline
function high<T>(w: usize): v128 {
  if (isFloat<T>()) return v128.load(w, V);
  return isSigned<T>() ? fromHalf(v128.load_ext<i16>(w, 8)) : i32x4.shl(v128.load_ext<u16>(w, 8), 16);
}

// @ts-ignore: decorator
@inline
function fromHalf(extended: v128): v128 {
  const bits = v128.and(i32x4.shl(extended, 13), v128.load32_splat(half));
  return f32x4.mul(bits, v128.load32_splat(half, 4));
}

/** One weight. */
// @ts-ignore: decorator
@inline
function weight<T>(w: usize): f32 {
  if (isFloat<T>()) return load<f32>(w);
  if (!isSigned<T>()) return reinterpret<f32>(<u32>load<u16>(w) << 16);
  return reinterpret<f32>((<i32>load<i16>(w) << 13) & 0x8fffffff) * reinterpret<f32>(0x77800000);
}

/** Where the sum of a panel's vector `n` starts: from the bias, from zero, and from what y holds (residual streams). */
// @ts-ignore: decorator
@inline
function start(y: usize, bias: usize, n: usize, accumulate: bool): v128 {
  let sum = bias == 0 ? f32x4.splat(0) : v128.load(bias + n * V);
  if (accumulate) sum = f32x4.add(sum, v128.load(y));
  return sum;
}

/** One row against four panels: y[32]. Four streams of weights, eight independent sums. */
function rowByFour<T>(
  x: usize, w: usize, inputs: usize, y: usize, bias: usize, accumulate: bool,
): void {
  const panel: usize = inputs * 8 * sizeof<T>();
  let w1 = w + panel;
  let w2 = w1 + panel;
  let w3 = w2 + panel;
  let a0 = start(y, bias, 0, accumulate);
  let a1 = start(y + V, bias, 1, accumulate);
  let a2 = start(y + 2 * V, bias, 2, accumulate);
  let a3 = start(y + 3 * V, bias, 3, accumulate);
  let a4 = start(y + 4 * V, bias, 4, accumulate);
  let a5 = start(y + 5 * V, bias, 5, accumulate);
  let a6 = start(y + 6 * V, bias, 6, accumulate);
  let a7 = start(y + 7 * V, bias, 7, accumulate);
  for (const end = x + inputs * F; x < end; x += F) {
    let s = v128.load32_splat(x);
    a0 = madd(s, low<T>(w), a0);
    a1 = madd(s, high<T>(w), a1);
    a2 = madd(s, low<T>(w1), a2);
    a3 = madd(s, high<T>(w1), a3);
    a4 = madd(s, low<T>(w2), a4);
    a5 = madd(s, high<T>(w2), a5);
    a6 = madd(s, low<T>(w3), a6);
    a7 = madd(s, high<T>(w3), a7);
    w += 8 * sizeof<T>();
    w1 += 8 * sizeof<T>();
    w2 += 8 * sizeof<T>();
    w3 += 8 * sizeof<T>();
  }
  v128.store(y, a0);
  v128.store(y, a1, V);
  v128.store(y, a2, 2 * V);
  v128.store(y, a3, 3 * V);
  v128.store(y, a4, 4 * V);
  v128.store(y, a5, 5 * V);
  v128.store(y, a6, 6 * V);
  v128.store(y, a7, 7 * V);
}

/** One row against one panel: y[8]. */
function rowByOne<T>(
  x: usize, w: usize, inputs: usize, y: usize, bias: usize, accumulate: bool,
): void {
  let a0 = start(y, bias, 0, accumulate);
  let a1 = start(y + V, bias, 1, accumulate);
  for (const end = x + inputs * F; x < end; x += F) {
    let s = v128.load32_splat(x);
    a0 = madd(s, low<T>(w), a0);
    a1 = madd(s, high<T>(w), a1);
    w += 8 * sizeof<T>();
  }
  v128.store(y, a0);
  v128.store(y, a1, V);
}

/** Two rows against two panels: y[2][16]. Strides in bytes. */
function twoByTwo<T>(
  x: usize, xStride: usize, w: usize, inputs: usize, y: usize, yStride: usize, bias: usize, accumulate: bool,
): void {
  const panel: usize = inputs * 8 * sizeof<T>();
  let w1 = w + panel;
  let x1 = x + xStride;
  const y1 = y + yStride;
  let a0 = start(y, bias, 0, accumulate);
  let a1 = start(y + V, bias, 1, accumulate);
  let a2 = start(y + 2 * V, bias, 2, accumulate);
  let a3 = start(y + 3 * V, bias, 3, accumulate);
  let b0 = start(y1, bias, 0, accumulate);
  let b1 = start(y1 + V, bias, 1, accumulate);
  let b2 = start(y1 + 2 * V, bias, 2, accumulate);
  let b3 = start(y1 + 3 * V, bias, 3, accumulate);
  for (const end = x + inputs * F; x < end; x += F) {
    let s = v128.load32_splat(x);
    const t = v128.load32_splat(x1);
    let c = low<T>(w);
    a0 = madd(s, c, a0);
    b0 = madd(t, c, b0);
    c = high<T>(w);
    a1 = madd(s, c, a1);
    b1 = madd(t, c, b1);
    c = low<T>(w1);
    a2 = madd(s, c, a2);
    b2 = madd(t, c, b2);
    c = high<T>(w1);
    a3 = madd(s, c, a3);
    b3 = madd(t, c, b3);
    x1 += F;
    w += 8 * sizeof<T>();
    w1 += 8 * sizeof<T>();
  }
  v128.store(y, a0);
  v128.store(y, a1, V);
  v128.store(y, a2, 2 * V);
  v128.store(y, a3, 3 * V);
  v128.store(y1, b0);
  v128.store(y1, b1, V);
  v128.store(y1, b2, 2 * V);
  v128.store(y1, b3, 3 * V);
}

/** Two rows against one panel: y[2][8]. */
function twoByOne<T>(
  x: usize, xStride: usize, w: usize, inputs: usize, y: usize, yStride: usize, bias: usize, accumulate: bool,
): void {
  let x1 = x + xStride;
  const y1 = y + yStride;
  let a0 = start(y, bias, 0, accumulate);
  let a1 = start(y + V, bias, 1, accumulate);
  let b0 = start(y1, bias, 0, accumulate);
  let b1 = start(y1 + V, bias, 1, accumulate);
  for (const end = x + inputs * F; x < end; x += F) {
    const l = low<T>(w);
    const h = high<T>(w);
    let s = v128.load32_splat(x);
    a0 = madd(s, l, a0);
    a1 = madd(s, h, a1);
    s = v128.load32_splat(x1);
    b0 = madd(s, l, b0);
    b1 = madd(s, h, b1);
    x1 += F;
    w += 8 * sizeof<T>();
  }
  v128.store(y, a0);
  v128.store(y, a1, V);
  v128.store(y1, b0);
  v128.store(y1, b1, V);
}

/** Three rows against one panel: y[3][8]. */
function threeByOne<T>(
  x: usize, xStride: usize, w: usize, inputs: usize, y: usize, yStride: usize, bias: usize, accumulate: bool,
): void {
  let x1 = x + xStride;
  let x2 = x1 + xStride;
  const y1 = y + yStride;
  const y2 = y1 + yStride;
  let a0 = start(y, bias, 0, accumulate);
  let a1 = start(y + V, bias, 1, accumulate);
  let b0 = start(y1, bias, 0, accumulate);
  let b1 = start(y1 + V, bias, 1, accumulate);
  let c0 = start(y2, bias, 0, accumulate);
  let c1 = start(y2 + V, bias, 1, accumulate);
  for (const end = x + inputs * F; x < end; x += F) {
    const l = low<T>(w);
    const h = high<T>(w);
    let s = v128.load32_splat(x);
    a0 = madd(s, l, a0);
    a1 = madd(s, h, a1);
    s = v128.load32_splat(x1);
    b0 = madd(s, l, b0);
    b1 = madd(s, h, b1);
    s = v128.load32_splat(x2);
    c0 = madd(s, l, c0);
    c1 = madd(s, h, c1);
    x1 += F;
    x2 += F;
    w += 8 * sizeof<T>();
  }
  v128.store(y, a0);
  v128.store(y, a1, V);
  v128.store(y1, b0);
  v128.store(y1, b1, V);
  v128.store(y2, c0);
  v128.store(y2, c1, V);
}

/** Four rows against one panel: y[4][8]. */
function fourByOne<T>(
  x: usize, xStride: usize, w: usize, inputs: usize, y: usize, yStride: usize, bias: usize, accumulate: bool,
): void {
  let x1 = x + xStride;
  let x2 = x1 + xStride;
  let x3 = x2 + xStride;
  const y1 = y + yStride;
  const y2 = y1 + yStride;
  const y3 = y2 + yStride;
  let a0 = start(y, bias, 0, accumulate);
  let a1 = start(y + V, bias, 1, accumulate);
  let b0 = start(y1, bias, 0, accumulate);
  let b1 = start(y1 + V, bias, 1, accumulate);
  let c0 = start(y2, bias, 0, accumulate);
  let c1 = start(y2 + V, bias, 1, accumulate);
  let d0 = start(y3, bias, 0, accumulate);
  let d1 = start(y3 + V, bias, 1, accumulate);
  for (const end = x + inputs * F; x < end; x += F) {
    const l = low<T>(w);
    const h = high<T>(w);
    let s = v128.load32_splat(x);
    a0 = madd(s, l, a0);
    a1 = madd(s, h, a1);
    s = v128.load32_splat(x1);
    b0 = madd(s, l, b0);
    b1 = madd(s, h, b1);
    s = v128.load32_splat(x2);
    c0 = madd(s, l, c0);
    c1 = madd(s, h, c1);
    s = v128.load32_splat(x3);
    d0 = madd(s, l, d0);
    d1 = madd(s, h, d1);
    x1 += F;
    x2 += F;
    x3 += F;
    w += 8 * sizeof<T>();
  }
  v128.store(y, a0);
  v128.store(y, a1, V);
  v128.store(y1, b0);
  v128.store(y1, b1, V);
  v128.store(y2, c0);
  v128.store(y2, c1, V);
  v128.store(y3, d0);
  v128.store(y3, d1, V);
}

/** Up to three rows against all panels. Strides in bytes. */
function fewRows<T>(
  x: usize, xStride: usize, rows: i32, w: usize, inputs: usize, firstPanel: i32, endPanel: i32,
  y: usize, yStride: usize, bias: usize, accumulate: bool,
): void {
  const panel: usize = inputs * 8 * sizeof<T>();
  const together = rows == 1 ? 4 : rows == 2 ? 2 : 1;
  let p = firstPanel;
  for (; p + together <= endPanel; p += together) {
    const at: usize = <usize>p * 2 * V;
    const from = w + <usize>p * panel;
    const b: usize = bias == 0 ? 0 : bias + at;
    if (rows == 1) rowByFour<T>(x, from, inputs, y + at, b, accumulate);
    else if (rows == 2) twoByTwo<T>(x, xStride, from, inputs, y + at, yStride, b, accumulate);
    else threeByOne<T>(x, xStride, from, inputs, y + at, yStride, b, accumulate);
  }
  for (; p < endPanel; p++) {
    const at: usize = <usize>p * 2 * V;
    const from = w + <usize>p * panel;
    const b: usize = bias == 0 ? 0 : bias + at;
    if (rows == 1) rowByOne<T>(x, from, inputs, y + at, b, accumulate);
    else twoByOne<T>(x, xStride, from, inputs, y + at, yStride, b, accumulate);
  }
}

// @ts-ignore: decorator
@inline
function product<T>(
  x: usize, xStride: i32, rows: i32, w: usize, inputs: i32, firstPanel: i32, endPanel: i32,
  y: usize, yStride: i32, bias: usize, accumulate: bool,
): void {
  const xBytes: usize = <usize>xStride * F;
  const yBytes: usize = <usize>yStride * F;
  const panel: usize = <usize>inputs * 8 * sizeof<T>();
  for (let block = 0; block < rows; block += rowBlock) {
    const blockEnd = min(block + rowBlock, rows);
    const rest = (blockEnd - block) & 3;
    const tiled = blockEnd - rest;
    if (tiled > block) {
      for (let p = firstPanel; p < endPanel; p++) {
        const at: usize = <usize>p * 2 * V;
        const b: usize = bias == 0 ? 0 : bias + at;
        for (let r = block; r < tiled; r += 4) {
          const xRow = x + <usize>r * xBytes;
          const yRow = y + at + <usize>r * yBytes;
          fourByOne<T>(xRow, xBytes, w + <usize>p * panel, inputs, yRow, yBytes, b, accumulate);
        }
      }
    }
    if (rest > 0) {
      const xRow = x + <usize>tiled * xBytes;
      const yRow = y + <usize>tiled * yBytes;
      fewRows<T>(xRow, xBytes, rest, w, inputs, firstPanel, endPanel, yRow, yBytes, bias, accumulate);
    }
  }
}

/** Weight formats, as in `Kernels.product`. */
const BFLOAT16: i32 = 1;
const FLOAT16: i32 = 2;

/** See `Kernels.product`. */
export function multiply(
  x: usize, xStride: i32, rows: i32, w: usize, format: i32, inputs: i32, firstPanel: i32, endPanel: i32,
  y: usize, yStride: i32, bias: usize, accumulate: bool,
): void {
  if (format == BFLOAT16) {
    product<u16>(x, xStride, rows, w, inputs, firstPanel, endPanel, y, yStride, bias, accumulate);
  } else if (format == FLOAT16) {
    product<i16>(x, xStride, rows, w, inputs, firstPanel, endPanel, y, yStride, bias, accumulate);
  } else {
    product<f32>(x, xStride, rows, w, inputs, firstPanel, endPanel, y, yStride, bias, accumulate);
  }
}

/** See `Kernels.panelRows`: output `ids[r]` of every panel row, the embedding of a token when the head is tied to it. */
// @ts-ignore: decorator
@inline
function panelRows<T>(w: usize, width: i32, ids: usize, rows: i32, y: usize, yStride: i32): void {
  for (let r = 0; r < rows; r++) {
    const id = load<i32>(ids + <usize>r * 4);
    let from = w + (<usize>(id >> 3) * <usize>width * 8 + <usize>(id & 7)) * sizeof<T>();
    let to = y + <usize>r * <usize>yStride * F;
    for (let i = 0; i < width; i++) {
      store<f32>(to, weight<T>(from));
      from += 8 * sizeof<T>();
      to += F;
    }
  }
}

/** See `Kernels.panelRows`. */
export function gatherPanelRows(
  w: usize, format: i32, width: i32, ids: usize, rows: i32, y: usize, yStride: i32,
): void {
  if (format == BFLOAT16) panelRows<u16>(w, width, ids, rows, y, yStride);
  else if (format == FLOAT16) panelRows<i16>(w, width, ids, rows, y, yStride);
  else panelRows<f32>(w, width, ids, rows, y, yStride);
}
