/**
 * Where a checkpoint's weights lie: in `model.safetensors`, or in several such files and the index that says which tensor
 * is in which. All of it is decided from the files' headers, before any data are read.
 *
 *     model.safetensors.index.json    {"metadata": {...}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors", ...}}
 *
 * Index and files must say the same, so a tensor stands in one file only. Tensors that a checkpoint may hold beside its
 * weights are dropped: GPT-2's causal masks (`attn.bias`, `attn.masked_bias`), Llama's `rotary_emb.inv_freq`, and, where
 * embeddings are tied, an `lm_head.weight`, which must repeat the embedding table. GPT-2's names may lack `transformer.`.
 */
import { FormatError } from "../errors.ts";
import {
  type FloatDtype,
  type SafetensorsHeader,
  type TensorPlace,
  tensorOfBytes,
  toFloat32,
} from "../tensor/safetensors.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import { checkFinite, checkShapes, type FloatTensor } from "./weights.ts";

const headName = "lm_head.weight";

/** Which file each tensor is in, as the index says. */
export type WeightIndex = ReadonlyMap<string, string>;

/** A weight's place: bytes `begin` .. `end - 1` of the file of that name. */
export interface WeightPlace extends TensorPlace {
  readonly dtype: FloatDtype;
  readonly file: string;
}

export interface WeightPlaces {
  /** Exactly the tensors of `parameterShapes`, by those names. */
  readonly tensors: ReadonlyMap<string, WeightPlace>;
  /** An output head stored beside the table it is tied to: the two have to be equal (`checkRepeatedHead`). */
  readonly repeatedHead?: WeightPlace;
}

/**
 * @param json parsed `model.safetensors.index.json`
 * @throws FormatError when it is not an index, or names a file outside the checkpoint's folder
 */
export function readIndex(json: unknown, source: string): WeightIndex {
  const map = isRecord(json) ? json["weight_map"] : undefined;
  if (!isRecord(map)) throw new FormatError(source, "expected an object with a weight_map");
  const index = new Map<string, string>();
  for (const [name, file] of Object.entries(map)) {
    // A plain name: no folder, no drive, no device, nothing a file system reads differently.
    if (typeof file !== "string" || !/^[\w-][\w.-]{0,200}\.safetensors$/.test(file)) {
      const got = typeof file === "string" ? quoted(file) : typeof file;
      throw new FormatError(source, `${quoted(name)} is in ${got}, expected the name of a .safetensors file beside it`);
    }
    index.set(name, file);
  }
  if (index.size === 0) throw new FormatError(source, "its weight_map is empty");
  return index;
}

/**
 * Find a decoder's weights in the files of a checkpoint.
 * @param headers by file name; those the index names, or the one file there is
 * @param index undefined where there is one file
 * @param sourceOf what errors call a file
 * @param whole what errors call all of the weights
 * @throws FormatError when index and files disagree, a weight is not of floats, or the tensors are not those of the config
 */
export function placeWeights(
  config: DecoderConfig,
  headers: ReadonlyMap<string, SafetensorsHeader>,
  index: WeightIndex | undefined,
  sourceOf: (file: string) => string,
  whole: string,
): WeightPlaces {
  if (index !== undefined) checkIndex(headers, index, sourceOf);
  const tensors = new Map<string, WeightPlace>();
  for (const [file, header] of headers) {
    for (const [name, { dtype, ...place }] of header.tensors) {
      const known = canonicalName(config, name);
      if (known === undefined) continue;
      if (tensors.has(known)) {
        throw new FormatError(whole, `tensor ${quoted(known)} is given twice, with and without its prefix`);
      }
      if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") {
        const problem = `tensor ${quoted(name)} holds ${dtype}, weights are F32, F16 or BF16`;
        throw new FormatError(sourceOf(file), problem);
      }
      tensors.set(known, { dtype, ...place, file });
    }
  }
  const repeatedHead = config.tiedEmbeddings ? tensors.get(headName) : undefined;
  if (repeatedHead !== undefined) tensors.delete(headName);
  checkShapes(config, new Map([...tensors].map(([name, { shape }]) => [name, shape])), whole);
  if (repeatedHead === undefined) return { tensors };
  const shape = [config.vocabularySize, config.width];
  if (repeatedHead.shape.join() !== shape.join()) {
    const got = repeatedHead.shape.join(", ");
    throw new FormatError(whole, `tensor "${headName}" has shape [${got}], the config asks for [${shape.join(", ")}]`);
  }
  return { tensors, repeatedHead };
}

/** Every tensor is in the file the index names, and no file holds another. */
function checkIndex(
  headers: ReadonlyMap<string, SafetensorsHeader>,
  index: WeightIndex,
  sourceOf: (file: string) => string,
): void {
  const advice = "Index and files do not belong together, or one of them is damaged.";
  for (const [name, file] of index) {
    if (headers.get(file)?.tensors.has(name)) continue;
    throw new FormatError(sourceOf(file), `tensor ${quoted(name)} is missing, which the index says is here`, advice);
  }
  for (const [file, { tensors }] of headers) {
    for (const name of tensors.keys()) {
      const named = index.get(name);
      if (named === file) continue;
      const said = named === undefined ? "which the index does not name" : `which the index says is in ${named}`;
      throw new FormatError(sourceOf(file), `tensor ${quoted(name)} is here, ${said}`, advice);
    }
  }
}

/** The name `parameterShapes` has for a stored tensor; undefined for what is not a weight. */
function canonicalName(config: DecoderConfig, name: string): string | undefined {
  if (config.architecture === "gpt2") {
    const full = name.startsWith("transformer.") || name === headName ? name : `transformer.${name}`;
    return /^transformer\.h\.\d+\.attn\.(bias|masked_bias)$/.test(full) ? undefined : full;
  }
  return /^model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$/.test(name) ? undefined : name;
}

/**
 * A weight from its bytes.
 * @throws FormatError naming the first value that is NaN or infinite
 */
export function readWeight(name: string, place: WeightPlace, bytes: Uint8Array, source: string): FloatTensor {
  const tensor = floatsOf(place.dtype, bytes);
  checkFinite(name, tensor, source);
  return { ...tensor, shape: place.shape } as FloatTensor;
}

/**
 * Check a stretch of a stored output head against the same stretch of the embedding table it must repeat.
 * @param first index of the stretch's first element
 * @throws FormatError naming the first element that differs
 */
export function checkRepeatedHead(
  head: { readonly dtype: FloatDtype; readonly bytes: Uint8Array },
  table: { readonly dtype: FloatDtype; readonly bytes: Uint8Array },
  first: number,
  source: string,
): void {
  const [values, expected] = [head, table].map(({ dtype, bytes }) => toFloat32(floatsOf(dtype, bytes)));
  const at = values!.findIndex((value, i) => value !== expected![i]);
  if (at < 0) return;
  throw new FormatError(
    source,
    `tensor "${headName}" holds ${values![at]} at index ${first + at}, the embedding table ${expected![at]}`,
    "The config says the two are one: set tie_word_embeddings to false where they are not.",
  );
}

function floatsOf(dtype: FloatDtype, bytes: Uint8Array): FloatTensor {
  return tensorOfBytes(dtype, [bytes.length / (dtype === "F32" ? 4 : 2)], bytes) as FloatTensor;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}...` : text);
}
