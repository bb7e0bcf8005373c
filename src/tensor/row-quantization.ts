/**
 * Weights in 8 bits a number, one scale per row:
 *
 *     x[r, c] = scale[r] (q[r, c] - 128),     scale[r] = max |x[r, :]| / 127,     q in 1 .. 255
 *
 * Symmetric, to the nearest step, so no element is off by more than half of its row's scale. A matrix `name` is stored as a
 * tensor of bytes and a vector `name.scale`; vectors (norms, biases) stay as they are.
 */
import { FormatError } from "../errors.ts";
import { floatTensor, type SafeTensor, toFloat32 } from "./safetensors.ts";

/** A float32 array and its shape, row-major. */
interface Floats {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

const zero = 128;
const scaleSuffix = ".scale";

/** The tensors that hold weights in 8 bits. A row's elements are all but the first axis's. */
export function quantizeRows(weights: ReadonlyMap<string, Floats>): Map<string, SafeTensor> {
  const tensors = new Map<string, SafeTensor>();
  for (const [name, { shape, data }] of weights) {
    if (shape.length < 2) {
      tensors.set(name, floatTensor(shape, data));
      continue;
    }
    const rows = shape[0]!;
    const columns = data.length / rows;
    const scales = new Float32Array(rows);
    const bytes = new Uint8Array(data.length);
    for (let r = 0; r < rows; r++) {
      const row = data.subarray(r * columns, (r + 1) * columns);
      let largest = 0;
      for (const value of row) largest = Math.max(largest, Math.abs(value));
      // As float32 it must not round down to where the largest element would be 128 steps.
      scales[r] = largest / 127;
      const scale = scales[r]!;
      row.forEach((value, c) => {
        bytes[r * columns + c] = zero + (scale === 0 ? 0 : Math.max(-127, Math.min(127, Math.round(value / scale))));
      });
    }
    tensors.set(name, { dtype: "U8", shape, data: bytes });
    tensors.set(`${name}${scaleSuffix}`, floatTensor([rows], scales));
  }
  return tensors;
}

/**
 * Weights from tensors: bytes with their scales widened, floats as they are.
 * @param source what errors call the file
 * @throws FormatError when bytes have no scales, or not one per row
 */
export function dequantizeRows(tensors: ReadonlyMap<string, SafeTensor>, source: string): Map<string, Floats> {
  const weights = new Map<string, Floats>();
  for (const [name, tensor] of tensors) {
    if (tensor.dtype !== "U8") {
      if (!(name.endsWith(scaleSuffix) && tensors.has(name.slice(0, -scaleSuffix.length)))) {
        weights.set(name, { shape: tensor.shape, data: toFloat32(tensor) });
      }
      continue;
    }
    const stored = tensors.get(`${name}${scaleSuffix}`);
    const scales = stored === undefined ? new Float32Array(0) : toFloat32(stored);
    if (scales.length !== tensor.shape[0]) {
      throw new FormatError(
        source,
        `tensor ${name} of ${tensor.shape[0]} rows has ${scales.length} scales`,
        `Its scales belong in a tensor ${name}${scaleSuffix}.`,
      );
    }
    const columns = tensor.data.length / scales.length;
    const data = new Float32Array(tensor.data.length);
    scales.forEach((scale, r) => {
      for (let c = 0; c < columns; c++) data[r * columns + c] = scale * (tensor.data[r * columns + c]! - zero);
    });
    weights.set(name, { shape: tensor.shape, data });
  }
  return weights;
}
