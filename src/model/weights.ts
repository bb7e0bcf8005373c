/** Named weights off any tensor library, and the checks that they are the ones a decoder of some shape needs. */
import { FormatError } from "../errors.ts";
import { type FloatDtype, type SafeTensor, toFloat32 } from "../tensor/safetensors.ts";
import { type DecoderConfig, parameterShapes } from "./decoder-config.ts";

/** Numbers with a shape: row-major, linear weights laid out as `parameterShapes` says. */
export interface Weights {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Weights as they are stored: 16-bit types as their bits. */
export type FloatTensor = Extract<SafeTensor, { readonly dtype: FloatDtype }>;

/**
 * Check names, shapes and values of a decoder's weights.
 * @param config what they must fit; at most as many layers as there are tensors are looked at
 * @param tensors by Hugging Face's names
 * @param source what errors call them
 * @throws FormatError naming what is missing, unexpected or misshapen, or the first NaN or infinite weight
 */
export function checkWeights(config: DecoderConfig, tensors: ReadonlyMap<string, Weights>, source: string): void {
  checkShapes(config, new Map([...tensors].map(([name, { shape }]) => [name, shape])), source);
  for (const [name, { shape, data }] of tensors) {
    if (data.length !== shape.reduce((product, size) => product * size, 1)) {
      throw new FormatError(source, `tensor "${name}" of shape [${shape.join(", ")}] holds ${data.length} numbers`);
    }
    checkFinite(name, { dtype: "F32", shape, data }, source);
  }
}

/**
 * Check names and shapes alone.
 * @throws FormatError naming what is missing, unexpected or misshapen
 */
export function checkShapes(
  config: DecoderConfig,
  tensors: ReadonlyMap<string, readonly number[]>,
  source: string,
): void {
  // Every layer has nine tensors or more, so a larger number is wrong whatever the names; do not list a million.
  if (config.layers > tensors.size) {
    throw new FormatError(
      source,
      `the config has ${config.layers} layers, but there are ${tensors.size} tensors in all`,
      "Check the number of layers, and that config and weights belong together.",
    );
  }
  const shapes = parameterShapes(config);
  const missing = [...shapes.keys()].filter((name) => !tensors.has(name));
  const unexpected = [...tensors.keys()].filter((name) => !shapes.has(name));
  if (missing.length > 0 || unexpected.length > 0) {
    const parts = [
      ...(missing.length > 0 ? [`missing ${listed(missing)}`] : []),
      ...(unexpected.length > 0 ? [`unexpected ${listed(unexpected)}`] : []),
    ];
    throw new FormatError(
      source,
      `the tensors are not those of the config: ${parts.join("; ")}`,
      "Check the number of layers, tie_word_embeddings and model_type, and that config and weights belong together.",
    );
  }
  for (const [name, shape] of shapes) {
    const got = tensors.get(name)!;
    if (got.length === shape.length && got.every((size, axis) => size === shape[axis])) continue;
    throw new FormatError(
      source,
      `tensor "${name}" has shape [${got.join(", ")}], the config asks for [${shape.join(", ")}]`,
      "Check that config and weights belong together.",
    );
  }
}

/** @throws FormatError naming the first value that is NaN or infinite */
export function checkFinite(name: string, tensor: FloatTensor, source: string): void {
  const at = firstNotFinite(tensor);
  if (at < 0) return;
  const [value] = toFloat32({ ...tensor, shape: [1], data: tensor.data.subarray(at, at + 1) } as FloatTensor);
  throw new FormatError(
    source,
    `tensor "${name}" holds ${value} at index ${at}`,
    "Training diverged or the file is damaged; take an earlier checkpoint.",
  );
}

function firstNotFinite({ dtype, data }: FloatTensor): number {
  if (dtype === "F32") {
    for (let i = 0; i < data.length; i++) if (!Number.isFinite(data[i])) return i;
    return -1;
  }
  const exponent = dtype === "F16" ? 0x7c00 : 0x7f80; // all ones in what is NaN or infinite
  for (let i = 0; i < data.length; i++) if ((data[i]! & exponent) === exponent) return i;
  return -1;
}

/** The first few names and how many more there are. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => `"${name.length > 60 ? `${name.slice(0, 57)}...` : name}"`);
  return shown.join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
}
