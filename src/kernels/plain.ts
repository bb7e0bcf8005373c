/**
 * The kernels in plain TypeScript: one loop each, sums in doubles. The oracle of the compiled ones, and what runs where
 * WebAssembly SIMD does not. What each computes is documented at `Kernels`.
 */
import type { Arena } from "./arena.ts";
import type { Kernels } from "./kernels.ts";

const panel = 8;

/** The bits of a float16 or bfloat16 as a number. `format` as in `weightFormats`. */
function widened(bits: number, format: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  if (format === 1) {
    const exponent = (bits >> 7) & 0xff;
    const fraction = (bits & 0x7f) / 128;
    return exponent === 0 ? sign * fraction * 2 ** -126 : sign * (1 + fraction) * 2 ** (exponent - 127);
  }
  const exponent = (bits >> 10) & 0x1f;
  const fraction = (bits & 0x3ff) / 1024;
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
}

/** Kernels that work in `arena`. */
export function plainKernels(arena: Arena): Kernels {
  /** Weight `index` of a packed matrix. */
  const weightAt = (w: number, format: number, index: number): number => {
    if (format === 0) return arena.floats[w / 4 + index]!;
    const at = w + 2 * index;
    return widened(arena.bytes[at]! | (arena.bytes[at + 1]! << 8), format);
  };

  /** The largest number, e^x of every number less it, and their sum. */
  const exponentials = (x: Float32Array) => {
    let most = Number.NEGATIVE_INFINITY;
    for (const value of x) most = Math.max(most, value);
    const powers = Float64Array.from(x, (value) => Math.exp(value - most));
    return { most, powers, sum: powers.reduce((a, b) => a + b, 0) };
  };

  return {
    product(x, xStride, rows, w, format, inputs, firstPanel, endPanel, y, yStride, bias, accumulate) {
      const { floats } = arena;
      for (let r = 0; r < rows; r++) {
        for (let output = firstPanel * panel; output < endPanel * panel; output++) {
          const at = y / 4 + r * yStride + output;
          const column = Math.floor(output / panel) * inputs * panel + (output % panel);
          let sum = (bias === 0 ? 0 : floats[bias / 4 + output]!) + (accumulate === 0 ? 0 : floats[at]!);
          for (let i = 0; i < inputs; i++) {
            sum += floats[x / 4 + r * xStride + i]! * weightAt(w, format, column + i * panel);
          }
          floats[at] = sum;
        }
      }
    },

    panelRows(w, format, width, ids, rows, y, yStride) {
      for (let r = 0; r < rows; r++) {
        const id = arena.integers[ids / 4 + r]!;
        const column = Math.floor(id / panel) * width * panel + (id % panel);
        for (let i = 0; i < width; i++) {
          arena.floats[y / 4 + r * yStride + i] = weightAt(w, format, column + i * panel);
        }
      }
    },

    rmsNorm(x, stride, rows, width, weight, epsilon, y) {
      const { floats } = arena;
      for (let r = 0; r < rows; r++) {
        const from = x / 4 + r * stride;
        let squares = 0;
        for (let i = 0; i < width; i++) squares += floats[from + i]! ** 2;
        const scale = 1 / Math.sqrt(squares / width + epsilon);
        for (let i = 0; i < stride; i++) {
          floats[y / 4 + r * stride + i] = floats[from + i]! * scale * floats[weight / 4 + i]!;
        }
      }
    },

    layerNorm(x, stride, rows, width, weight, bias, epsilon, y) {
      const { floats } = arena;
      for (let r = 0; r < rows; r++) {
        const row = floats.slice(x / 4 + r * stride, x / 4 + r * stride + width);
        const mean = row.reduce((a, b) => a + b, 0) / width;
        const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
        const scale = 1 / Math.sqrt(variance + epsilon);
        const to = y / 4 + r * stride;
        for (let i = 0; i < width; i++) {
          floats[to + i] = (row[i]! - mean) * scale * floats[weight / 4 + i]! + floats[bias / 4 + i]!;
        }
        floats.fill(0, to + width, to + stride);
      }
    },

    rotate(x, stride, rows, heads, headStride, half, positions, table) {
      for (let r = 0; r < rows; r++) {
        for (let h = 0; h < heads; h++) {
          const at = x / 4 + r * stride + h * headStride;
          turn(arena.floats, at, half, table / 4 + arena.integers[positions / 4 + r]! * 2 * half, at);
        }
      }
    },

    gatherRotated(cache, capacity, heads, headStride, half, indices, count, positions, table, y, yCapacity) {
      const { floats, integers } = arena;
      for (let h = 0; h < heads; h++) {
        for (let i = 0; i < count; i++) {
          const from = cache / 4 + (h * capacity + integers[indices / 4 + h * count + i]!) * headStride;
          const to = y / 4 + (h * yCapacity + i) * headStride;
          floats.fill(0, to, to + headStride);
          turn(floats, from, half, table / 4 + integers[positions / 4 + h * count + i]! * 2 * half, to);
        }
      }
    },

    storeRows(x, stride, rows, heads, headStride, cache, capacity, at) {
      for (let r = 0; r < rows; r++) {
        for (let h = 0; h < heads; h++) {
          const from = x / 4 + r * stride + h * headStride;
          arena.floats.copyWithin(cache / 4 + (h * capacity + at + r) * headStride, from, from + headStride);
        }
      }
    },

    attend(
      q,
      qStride,
      rows,
      keys,
      values,
      capacity,
      length,
      indices,
      selected,
      ancestors,
      heads,
      keyValueHeads,
      headStride,
      scale,
      firstHead,
      endHead,
      y,
      yStride,
      _scratch,
      weights,
    ) {
      const { floats, integers, bytes } = arena;
      const group = heads / keyValueHeads;
      const count = indices === 0 ? length : selected;
      const span = count + rows;
      for (let head = firstHead * group; head < endHead * group; head++) {
        const keyHead = Math.floor(head / group);
        for (let r = 0; r < rows; r++) {
          /** Where the i-th position in sight lies in the cache. */
          const place = (i: number): number => {
            const position =
              i >= count ? length + i - count : indices === 0 ? i : integers[indices / 4 + keyHead * selected + i]!;
            return (keyHead * capacity + position) * headStride;
          };
          const from = q / 4 + r * qStride + head * headStride;
          const scores = new Float32Array(span).fill(Number.NEGATIVE_INFINITY);
          for (let i = 0; i <= count + r; i++) {
            if (i >= count && i < count + r && ancestors !== 0 && bytes[ancestors + r * rows + i - count] === 0)
              continue;
            let sum = 0;
            for (let d = 0; d < headStride; d++) sum += floats[from + d]! * floats[keys / 4 + place(i) + d]!;
            scores[i] = sum * scale;
          }
          const { powers, sum } = exponentials(scores);
          for (let d = 0; d < headStride; d++) {
            let mixed = 0;
            for (let i = 0; i <= count + r; i++) mixed += powers[i]! * floats[values / 4 + place(i) + d]!;
            floats[y / 4 + r * yStride + head * headStride + d] = mixed / sum;
          }
          if (weights !== 0) {
            for (let i = 0; i < span; i++) floats[weights / 4 + (head * rows + r) * span + i] = powers[i]! / sum;
          }
        }
      }
    },

    swiglu(gateUp, stride, rows, hidden, y, yStride) {
      const { floats } = arena;
      for (let r = 0; r < rows; r++) {
        for (let i = 0; i < hidden; i++) {
          const gate = floats[gateUp / 4 + r * stride + i]!;
          floats[y / 4 + r * yStride + i] =
            (gate / (1 + Math.exp(-gate))) * floats[gateUp / 4 + r * stride + hidden + i]!;
        }
      }
    },

    gelu(x, count) {
      const { floats } = arena;
      for (let i = x / 4; i < x / 4 + count; i++) {
        const a = floats[i]!;
        floats[i] = (a / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (a + 0.044715 * a ** 3)));
      }
    },

    add(x, count, y) {
      const { floats } = arena;
      for (let i = 0; i < count; i++) floats[y / 4 + i]! += floats[x / 4 + i]!;
    },

    softmax(x, stride, rows, count) {
      const { floats } = arena;
      for (let r = 0; r < rows; r++) {
        const at = x / 4 + r * stride;
        const { powers, sum } = exponentials(floats.subarray(at, at + count));
        for (let i = 0; i < count; i++) floats[at + i] = powers[i]! / sum;
        floats.fill(0, at + count, at + Math.ceil(count / 4) * 4);
      }
    },

    logSoftmax(x, stride, rows, count) {
      const { floats } = arena;
      for (let r = 0; r < rows; r++) {
        const row = floats.subarray(x / 4 + r * stride, x / 4 + r * stride + count);
        const { most, sum } = exponentials(row);
        for (let i = 0; i < count; i++) row[i] = row[i]! - most - Math.log(sum);
      }
    },

    argMax(x, count) {
      const row = arena.floats.subarray(x / 4, x / 4 + count);
      let best = 0;
      for (let i = 1; i < count; i++) if (row[i]! > row[best]!) best = i;
      return best;
    },

    topK(x, count, k, indices, values) {
      const row = arena.floats.slice(x / 4, x / 4 + count);
      const sorted = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]! || a - b);
      for (let i = 0; i < k; i++) {
        arena.integers[indices / 4 + i] = sorted[i]!;
        arena.floats[values / 4 + i] = row[sorted[i]!]!;
      }
    },
  };
}

/** One head of `half` pairs at `from`, turned by the cosines and sines at `table`, to `to` (which may be `from`). */
function turn(floats: Float32Array, from: number, half: number, table: number, to: number): void {
  for (let i = 0; i < half; i++) {
    const cosine = floats[table + i]!;
    const sine = floats[table + half + i]!;
    const a = floats[from + i]!;
    const b = floats[from + half + i]!;
    floats[to + i] = a * cosine - b * sine;
    floats[to + half + i] = b * cosine + a * sine;
  }
}
