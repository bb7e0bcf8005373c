/**
 * Attention of a pass's rows over a cache: softmax(q K^T scale) V, per head.
 *
 * Keys and values lie head by head, [keyValueHeads, capacity, headStride]. Rows of the pass already stand in the cache,
 * behind the committed positions. A row sees the committed positions (all, or those on a list) and of the pass's own rows
 * itself and the earlier ones: all of them in a chain, its ancestors in a tree.
 *
 * Two queries at a time share every key and value that is read: the heads of one group, or neighbouring rows.
 */
import { exponentials, largest } from "./activations";
import { F, madd, maxLanes, sumEach, sumLanes, V } from "./simd";

/** Values read before the next sixteen bytes of the head: as many as stay in the first cache. */
const valueBlock: i32 = 128;

/**
 * Which positions are read, as a tag resolved at compile time: all, one behind the other (`u8`), or those on a list (`i8`).
 * @returns where key or value `i` of a head lies
 */
// @ts-ignore: decorator
@inline
function place<Listed>(base: usize, bytes: usize, list: usize, i: i32): usize {
  if (isSigned<Listed>()) return base + <usize>load<i32>(list + <usize>i * 4) * bytes;
  return base + <usize>i * bytes;
}

/** scores[i] = q . key i * scale, for `count` keys; returns the largest of them, or `most`. */
function scoresOfOne<Listed>(
  q: usize, keys: usize, bytes: usize, list: usize, count: i32, scale: f32, scores: usize, most: f32,
): f32 {
  const scales = f32x4.splat(scale);
  let highest = f32x4.splat(most);
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const k0 = place<Listed>(keys, bytes, list, i);
    const k1 = place<Listed>(keys, bytes, list, i + 1);
    const k2 = place<Listed>(keys, bytes, list, i + 2);
    const k3 = place<Listed>(keys, bytes, list, i + 3);
    let a0 = f32x4.splat(0);
    let a1 = f32x4.splat(0);
    let a2 = f32x4.splat(0);
    let a3 = f32x4.splat(0);
    for (let d: usize = 0; d < bytes; d += V) {
      const s = v128.load(q + d);
      a0 = madd(s, v128.load(k0 + d), a0);
      a1 = madd(s, v128.load(k1 + d), a1);
      a2 = madd(s, v128.load(k2 + d), a2);
      a3 = madd(s, v128.load(k3 + d), a3);
    }
    const four = f32x4.mul(sumEach(a0, a1, a2, a3), scales);
    v128.store(scores + <usize>i * F, four);
    highest = f32x4.pmax(highest, four);
  }
  let largest = maxLanes(highest);
  for (; i < count; i++) {
    const k = place<Listed>(keys, bytes, list, i);
    let a = f32x4.splat(0);
    for (let d: usize = 0; d < bytes; d += V) a = madd(v128.load(q + d), v128.load(k + d), a);
    const score = sumLanes(a) * scale;
    store<f32>(scores + <usize>i * F, score);
    largest = max(largest, score);
  }
  return largest;
}

/** The largest scores of two queries, in lanes 0 and 1. */
// @ts-ignore: decorator
@inline
function both(p: f32, q: f32): v128 {
  return f32x4.replace_lane(f32x4.splat(p), 1, q);
}

/** The same for two queries. */
function scoresOfTwo<Listed>(
  p: usize, q: usize, keys: usize, bytes: usize, list: usize, count: i32, scale: f32, pScores: usize, qScores: usize,
  most: v128,
): v128 {
  const scales = f32x4.splat(scale);
  let pHighest = f32x4.splat(f32x4.extract_lane(most, 0));
  let qHighest = f32x4.splat(f32x4.extract_lane(most, 1));
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const k0 = place<Listed>(keys, bytes, list, i);
    const k1 = place<Listed>(keys, bytes, list, i + 1);
    const k2 = place<Listed>(keys, bytes, list, i + 2);
    const k3 = place<Listed>(keys, bytes, list, i + 3);
    let a0 = f32x4.splat(0);
    let a1 = f32x4.splat(0);
    let a2 = f32x4.splat(0);
    let a3 = f32x4.splat(0);
    let b0 = f32x4.splat(0);
    let b1 = f32x4.splat(0);
    let b2 = f32x4.splat(0);
    let b3 = f32x4.splat(0);
    for (let d: usize = 0; d < bytes; d += V) {
      const s = v128.load(p + d);
      const t = v128.load(q + d);
      let k = v128.load(k0 + d);
      a0 = madd(s, k, a0);
      b0 = madd(t, k, b0);
      k = v128.load(k1 + d);
      a1 = madd(s, k, a1);
      b1 = madd(t, k, b1);
      k = v128.load(k2 + d);
      a2 = madd(s, k, a2);
      b2 = madd(t, k, b2);
      k = v128.load(k3 + d);
      a3 = madd(s, k, a3);
      b3 = madd(t, k, b3);
    }
    const pFour = f32x4.mul(sumEach(a0, a1, a2, a3), scales);
    const qFour = f32x4.mul(sumEach(b0, b1, b2, b3), scales);
    v128.store(pScores + <usize>i * F, pFour);
    v128.store(qScores + <usize>i * F, qFour);
    pHighest = f32x4.pmax(pHighest, pFour);
    qHighest = f32x4.pmax(qHighest, qFour);
  }
  let pLargest = maxLanes(pHighest);
  let qLargest = maxLanes(qHighest);
  for (; i < count; i++) {
    const k = place<Listed>(keys, bytes, list, i);
    let a = f32x4.splat(0);
    let b = f32x4.splat(0);
    for (let d: usize = 0; d < bytes; d += V) {
      const key = v128.load(k + d);
      a = madd(v128.load(p + d), key, a);
      b = madd(v128.load(q + d), key, b);
    }
    const pScore = sumLanes(a) * scale;
    const qScore = sumLanes(b) * scale;
    store<f32>(pScores + <usize>i * F, pScore);
    store<f32>(qScores + <usize>i * F, qScore);
    pLargest = max(pLargest, pScore);
    qLargest = max(qLargest, qScore);
  }
  return both(pLargest, qLargest);
}

/** y[0..3] += sum over i of p[i] value i: the last four floats of heads whose width is no multiple of eight. */
function mixFour<Listed>(p: usize, values: usize, bytes: usize, list: usize, d: usize, from: i32, to: i32, y: usize): void {
  let a = v128.load(y);
  for (let i = from; i < to; i++) {
    a = madd(v128.load32_splat(p + <usize>i * F), v128.load(place<Listed>(values, bytes, list, i) + d), a);
  }
  v128.store(y, a);
}

/** y[0..headStride) += sum over i of p[i] value i. */
function mixOfOne<Listed>(p: usize, values: usize, bytes: usize, list: usize, count: i32, y: usize): void {
  for (let block = 0; block < count; block += valueBlock) {
    const end = min(block + valueBlock, count);
    let d: usize = 0;
    for (; d + 2 * V <= bytes; d += 2 * V) {
      let a0 = v128.load(y + d);
      let a1 = v128.load(y + d, V);
      let b0 = f32x4.splat(0);
      let b1 = f32x4.splat(0);
      let c0 = f32x4.splat(0);
      let c1 = f32x4.splat(0);
      let d0 = f32x4.splat(0);
      let d1 = f32x4.splat(0);
      let i = block;
      for (; i + 4 <= end; i += 4) {
        const at = p + <usize>i * F;
        let v = place<Listed>(values, bytes, list, i) + d;
        let s = v128.load32_splat(at);
        a0 = madd(s, v128.load(v), a0);
        a1 = madd(s, v128.load(v, V), a1);
        v = place<Listed>(values, bytes, list, i + 1) + d;
        s = v128.load32_splat(at, 4);
        b0 = madd(s, v128.load(v), b0);
        b1 = madd(s, v128.load(v, V), b1);
        v = place<Listed>(values, bytes, list, i + 2) + d;
        s = v128.load32_splat(at, 8);
        c0 = madd(s, v128.load(v), c0);
        c1 = madd(s, v128.load(v, V), c1);
        v = place<Listed>(values, bytes, list, i + 3) + d;
        s = v128.load32_splat(at, 12);
        d0 = madd(s, v128.load(v), d0);
        d1 = madd(s, v128.load(v, V), d1);
      }
      for (; i < end; i++) {
        const v = place<Listed>(values, bytes, list, i) + d;
        const s = v128.load32_splat(p + <usize>i * F);
        a0 = madd(s, v128.load(v), a0);
        a1 = madd(s, v128.load(v, V), a1);
      }
      v128.store(y + d, f32x4.add(f32x4.add(a0, b0), f32x4.add(c0, d0)));
      v128.store(y + d, f32x4.add(f32x4.add(a1, b1), f32x4.add(c1, d1)), V);
    }
    if (d < bytes) mixFour<Listed>(p, values, bytes, list, d, block, end, y + d);
  }
}

/** The same for two queries. */
function mixOfTwo<Listed>(
  p: usize, q: usize, values: usize, bytes: usize, list: usize, count: i32, pMixed: usize, qMixed: usize,
): void {
  for (let block = 0; block < count; block += valueBlock) {
    const end = min(block + valueBlock, count);
    let d: usize = 0;
    for (; d + 2 * V <= bytes; d += 2 * V) {
      let a0 = v128.load(pMixed + d);
      let a1 = v128.load(pMixed + d, V);
      let b0 = v128.load(qMixed + d);
      let b1 = v128.load(qMixed + d, V);
      let c0 = f32x4.splat(0);
      let c1 = f32x4.splat(0);
      let d0 = f32x4.splat(0);
      let d1 = f32x4.splat(0);
      let i = block;
      for (; i + 2 <= end; i += 2) {
        const at: usize = <usize>i * F;
        let v = place<Listed>(values, bytes, list, i) + d;
        let low = v128.load(v);
        let high = v128.load(v, V);
        let s = v128.load32_splat(p + at);
        a0 = madd(s, low, a0);
        a1 = madd(s, high, a1);
        s = v128.load32_splat(q + at);
        b0 = madd(s, low, b0);
        b1 = madd(s, high, b1);
        v = place<Listed>(values, bytes, list, i + 1) + d;
        low = v128.load(v);
        high = v128.load(v, V);
        s = v128.load32_splat(p + at, 4);
        c0 = madd(s, low, c0);
        c1 = madd(s, high, c1);
        s = v128.load32_splat(q + at, 4);
        d0 = madd(s, low, d0);
        d1 = madd(s, high, d1);
      }
      if (i < end) {
        const v = place<Listed>(values, bytes, list, i) + d;
        const low = v128.load(v);
        const high = v128.load(v, V);
        let s = v128.load32_splat(p + <usize>i * F);
        a0 = madd(s, low, a0);
        a1 = madd(s, high, a1);
        s = v128.load32_splat(q + <usize>i * F);
        b0 = madd(s, low, b0);
        b1 = madd(s, high, b1);
      }
      v128.store(pMixed + d, f32x4.add(a0, c0));
      v128.store(pMixed + d, f32x4.add(a1, c1), V);
      v128.store(qMixed + d, f32x4.add(b0, d0));
      v128.store(qMixed + d, f32x4.add(b1, d1), V);
    }
    if (d < bytes) {
      mixFour<Listed>(p, values, bytes, list, d, block, end, pMixed + d);
      mixFour<Listed>(q, values, bytes, list, d, block, end, qMixed + d);
    }
  }
}

/** Rows that are not ancestors are out of sight. `scores` points at the pass's own rows. */
function hide(ancestors: usize, rows: i32, row: i32, scores: usize): void {
  const seen = ancestors + <usize>row * <usize>rows;
  for (let i = 0; i < row; i++) if (load<u8>(seen + i) == 0) store<f32>(scores + <usize>i * F, -Infinity);
}

/** y = 0; a loop, since filling memory is a call out of the module and heads are short. */
// @ts-ignore: decorator
@inline
function clear(y: usize, bytes: usize): void {
  for (let d: usize = 0; d < bytes; d += V) v128.store(y + d, f32x4.splat(0));
}

/** y *= 1 / sum; and, when wanted, the weights to where the caller reads them, zeros behind the row's own place. */
function finish(sum: f32, bytes: usize, y: usize, scores: usize, count: i32, weights: usize, span: i32): void {
  const scale = f32x4.splat(1.0 / sum);
  for (let d: usize = 0; d < bytes; d += V) v128.store(y + d, f32x4.mul(v128.load(y + d), scale));
  if (weights == 0) return;
  for (let i = 0; i < span; i++) {
    store<f32>(weights + <usize>i * F, i < count ? load<f32>(scores + <usize>i * F) / sum : 0);
  }
}

/** See `Kernels.attend`. */
export function attend(
  q: usize, qStride: i32, rows: i32, keys: usize, values: usize, capacity: i32, length: i32,
  indices: usize, selected: i32, ancestors: usize,
  heads: i32, keyValueHeads: i32, headStride: i32, scale: f32, firstHead: i32, endHead: i32,
  y: usize, yStride: i32, scratch: usize, weights: usize,
): void {
  const group = heads / keyValueHeads;
  const bytes: usize = <usize>headStride * F;
  const count = indices == 0 ? length : selected;
  const span = count + rows;
  const other = scratch + <usize>((span + 7) & ~3) * F;
  const queries = rows * group;
  const tree = ancestors != 0;
  // Without a list committed and own rows lie one behind the other and are one run.
  const listed = indices == 0 ? 0 : count;
  const ownBytes: usize = indices == 0 ? 0 : <usize>length * bytes;
  const own: usize = <usize>listed * F;
  for (let head = firstHead; head < endHead; head++) {
    const start: usize = <usize>head * <usize>capacity * bytes;
    const list: usize = indices + <usize>head * <usize>selected * 4;
    const k = keys + start;
    const v = values + start;
    let t = 0;
    for (; t + 2 <= queries; t += 2) {
      const pRow = t / group;
      const qRow = (t + 1) / group;
      const pHead: usize = <usize>(head * group + t % group);
      const qHead: usize = <usize>(head * group + (t + 1) % group);
      const pAt = q + <usize>pRow * <usize>qStride * F + pHead * bytes;
      const qAt = q + <usize>qRow * <usize>qStride * F + qHead * bytes;
      const pCount = count + pRow + 1;
      const qCount = count + qRow + 1;
      let most = both(-Infinity, -Infinity);
      if (listed > 0) most = scoresOfTwo<i8>(pAt, qAt, k, bytes, list, listed, scale, scratch, other, most);
      most = scoresOfTwo<u8>(
        pAt, qAt, k + ownBytes, bytes, 0, qCount - listed, scale, scratch + own, other + own, most,
      );
      let pMost = f32x4.extract_lane(most, 0);
      let qMost = f32x4.extract_lane(most, 1);
      if (tree || pCount < qCount) {
        if (tree) {
          hide(ancestors, rows, pRow, scratch + <usize>count * F);
          hide(ancestors, rows, qRow, other + <usize>count * F);
        }
        pMost = largest(scratch, pCount);
        qMost = largest(other, qCount);
      }
      const pSum = exponentials(scratch, pCount, pMost);
      const qSum = exponentials(other, qCount, qMost);
      // The later row may see one place more: for the earlier one its weight is 0.
      if (pCount < qCount) store<f32>(scratch + <usize>pCount * F, 0);
      const pMixed = y + <usize>pRow * <usize>yStride * F + pHead * bytes;
      const qMixed = y + <usize>qRow * <usize>yStride * F + qHead * bytes;
      clear(pMixed, bytes);
      clear(qMixed, bytes);
      if (listed > 0) mixOfTwo<i8>(scratch, other, v, bytes, list, listed, pMixed, qMixed);
      mixOfTwo<u8>(scratch + own, other + own, v + ownBytes, bytes, 0, qCount - listed, pMixed, qMixed);
      const pWeights: usize = weights == 0 ? 0 : weights + (pHead * <usize>rows + <usize>pRow) * <usize>span * F;
      const qWeights: usize = weights == 0 ? 0 : weights + (qHead * <usize>rows + <usize>qRow) * <usize>span * F;
      finish(pSum, bytes, pMixed, scratch, pCount, pWeights, span);
      finish(qSum, bytes, qMixed, other, qCount, qWeights, span);
    }
    if (t < queries) {
      const row = t / group;
      const queryHead: usize = <usize>(head * group + t % group);
      const at = q + <usize>row * <usize>qStride * F + queryHead * bytes;
      const rowCount = count + row + 1;
      let most: f32 = -Infinity;
      if (listed > 0) most = scoresOfOne<i8>(at, k, bytes, list, listed, scale, scratch, most);
      most = scoresOfOne<u8>(at, k + ownBytes, bytes, 0, rowCount - listed, scale, scratch + own, most);
      if (tree) {
        hide(ancestors, rows, row, scratch + <usize>count * F);
        most = largest(scratch, rowCount);
      }
      const sum = exponentials(scratch, rowCount, most);
      const mixed = y + <usize>row * <usize>yStride * F + queryHead * bytes;
      clear(mixed, bytes);
      if (listed > 0) mixOfOne<i8>(scratch, v, bytes, list, listed, mixed);
      mixOfOne<u8>(scratch + own, v + ownBytes, bytes, 0, rowCount - listed, mixed);
      const rowWeights: usize = weights == 0 ? 0 : weights + (queryHead * <usize>rows + <usize>row) * <usize>span * F;
      finish(sum, bytes, mixed, scratch, rowCount, rowWeights, span);
    }
  }
}

/** See `Kernels.storeRows`. */
export function storeRows(
  x: usize, stride: i32, rows: i32, heads: i32, headStride: i32, cache: usize, capacity: i32, at: i32,
): void {
  const bytes: usize = <usize>headStride * F;
  for (let h = 0; h < heads; h++) {
    let from = x + <usize>h * bytes;
    let to = cache + (<usize>h * <usize>capacity + <usize>at) * bytes;
    for (let r = 0; r < rows; r++) {
      for (let d: usize = 0; d < bytes; d += V) v128.store(to + d, v128.load(from + d));
      from += <usize>stride * F;
      to += bytes;
    }
  }
}
