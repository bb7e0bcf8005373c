/**
 * A checkpoint as the bytes of its files, in Hugging Face's layout and names, so that other tools open it:
 *
 *     config.json          the decoder's shape                  (hugging-face-config.ts)
 *     tokenizer.json       its byte-level BPE                   (tokenization/bpe.ts)
 *     training.json        how it was trained; optional, not read by other tools
 *     model.safetensors    the weights                          (tensor/safetensors.ts)
 *
 * Pure functions over bytes: they work wherever the bytes come from. **Unlike** this file, `checkpoint.ts` knows folders.
 */
import { ArgumentError, FormatError } from "../errors.ts";
import {
  type FloatDtype,
  floatTensor,
  readSafetensors,
  type SafeTensor,
  toFloat32,
  writeSafetensors,
} from "../tensor/safetensors.ts";
import { Bpe } from "../tokenization/bpe.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import { configFromHuggingFace, configToHuggingFace } from "./hugging-face-config.ts";
import { checkWeights, type Weights } from "./weights.ts";

export interface Checkpoint {
  readonly config: DecoderConfig;
  /** By Hugging Face's names (`parameterShapes`), linear weights [out, in]. */
  readonly tensors: ReadonlyMap<string, Weights>;
  readonly tokenizer: Bpe;
  /** What `training.json` holds: any JSON value. Absent when there is no such file. */
  readonly training?: unknown;
}

export interface CheckpointOptions {
  /** How weights are stored. 16-bit rounds to the nearest, ties to even. Default `"F32"`. */
  readonly dtype?: FloatDtype;
}

/** The names of a checkpoint's files. */
export const checkpointFiles = {
  config: "config.json",
  tokenizer: "tokenizer.json",
  training: "training.json",
  weights: "model.safetensors",
} as const;

/**
 * Read a checkpoint from its files' bytes.
 * @param files by name; all of `checkpointFiles` but the training record must be there, others are ignored
 * @param source what errors put before a file's name, such as its folder; default none
 * @throws FormatError when a file is missing or breaks its format, tensors contradict the config, the tokenizer has
 *   another size than the model, or a weight is NaN or infinite
 */
export function parseCheckpoint(files: ReadonlyMap<string, Uint8Array>, source = ""): Checkpoint {
  const named = (name: string): string => (source === "" ? name : `${source}/${name}`);
  const need = (name: string): Uint8Array => {
    const bytes = files.get(name);
    if (bytes === undefined) throw new FormatError(named(name), "it is missing from the checkpoint");
    return bytes;
  };
  const json = (name: string): unknown => parseJson(need(name), named(name));

  const config = configFromHuggingFace(json(checkpointFiles.config), named(checkpointFiles.config));
  const tokenizer = parseTokenizer(json(checkpointFiles.tokenizer), named(checkpointFiles.tokenizer));
  checkVocabulary(config, tokenizer, named(checkpointFiles.tokenizer));
  const training = files.has(checkpointFiles.training) ? { training: json(checkpointFiles.training) } : {};

  const weightsSource = named(checkpointFiles.weights);
  const tensors = new Map<string, Weights>();
  for (const [name, tensor] of readSafetensors(need(checkpointFiles.weights), weightsSource).tensors) {
    if (tensor.dtype === "I32" || tensor.dtype === "U8") {
      throw new FormatError(
        weightsSource,
        `tensor "${name.slice(0, 60)}" holds ${tensor.dtype}, weights are F32, F16 or BF16`,
      );
    }
    tensors.set(name, { shape: tensor.shape, data: toFloat32(tensor) });
  }
  checkWeights(config, tensors, weightsSource);
  return { config, tensors, tokenizer, ...training };
}

/**
 * The files of a checkpoint, by name, in the order to write them: the weights last.
 * @throws FormatError when config, tokenizer and weights do not fit one another, or a weight is NaN or infinite
 * @throws ArgumentError when the config is not usable, a weight is too large for the dtype, or `training` is not JSON
 */
export function serializeCheckpoint(checkpoint: Checkpoint, options: CheckpointOptions = {}): Map<string, Uint8Array> {
  const { config, tensors, tokenizer, training } = checkpoint;
  const { dtype = "F32" } = options;
  const endOfText = tokenizer.specialTokens.get("<|endoftext|>");
  const huggingFaceConfig = configToHuggingFace(config, { dtype, endOfText });
  configFromHuggingFace(huggingFaceConfig, "config"); // what is written can be read
  checkVocabulary(config, tokenizer, "tokenizer");
  checkWeights(config, tensors, "weights");

  const stored = new Map<string, SafeTensor>();
  for (const [name, { shape, data }] of tensors) {
    const tensor = floatTensor(shape, data, dtype);
    if (dtype !== "F32") checkFinite(name, dtype, data, toFloat32(tensor));
    stored.set(name, tensor);
  }
  const files = new Map<string, Uint8Array>();
  files.set(checkpointFiles.config, jsonBytes(huggingFaceConfig));
  files.set(checkpointFiles.tokenizer, jsonBytes(tokenizer.toHuggingFace()));
  if (training !== undefined) {
    files.set(checkpointFiles.training, trainingBytes(training));
  }
  files.set(checkpointFiles.weights, writeSafetensors(stored, { format: "pt" })); // transformers asks for the format
  return files;
}

/** Deepest JSON read: what is nested without end would overflow the stack of whoever walks it. */
const deepest = 256;

/**
 * UTF-8 JSON.
 * @throws FormatError when it is not, or is nested deeper than 256 levels
 */
export function parseJson(bytes: Uint8Array, source: string): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FormatError(source, "it is not valid UTF-8");
  }
  if (nesting(text) > deepest) throw new FormatError(source, `it is nested deeper than ${deepest} levels`);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new FormatError(
      source,
      `it is not valid JSON (${error instanceof Error ? error.message.slice(0, 100) : "?"})`,
    );
  }
}

/** Most brackets open at once, outside strings. */
function nesting(text: string): number {
  let open = 0;
  let most = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i);
    if (character === 0x5b || character === 0x7b) most = Math.max(most, ++open);
    else if (character === 0x5d || character === 0x7d) open--;
    else if (character === 0x22) {
      i++;
      while (i < text.length && text.charCodeAt(i) !== 0x22) i += text.charCodeAt(i) === 0x5c ? 2 : 1;
    }
  }
  return most;
}

function parseTokenizer(json: unknown, source: string): Bpe {
  if (typeof json !== "object" || json === null) throw new FormatError(source, "expected a JSON object");
  return Bpe.fromHuggingFace(json);
}

function checkVocabulary(config: DecoderConfig, tokenizer: Bpe, source: string): void {
  if (tokenizer.vocabularySize !== config.vocabularySize) {
    throw new FormatError(
      source,
      `the tokenizer has ${tokenizer.vocabularySize} tokens, the model ${config.vocabularySize}`,
      "Use the tokenizer the model was trained with.",
    );
  }
}

function checkFinite(name: string, dtype: FloatDtype, data: Float32Array, narrowed: Float32Array): void {
  const at = narrowed.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return;
  const advice = "Store the checkpoint as F32.";
  throw new ArgumentError(`tensors["${name}"][${at}]`, `a weight within ${dtype}'s range`, data[at], advice);
}

function trainingBytes(training: unknown): Uint8Array {
  let text: string | undefined;
  try {
    text = JSON.stringify(training);
  } catch {
    // Circular, or holds a bigint: reported below, like a function, which has no JSON at all.
  }
  if (text === undefined || nesting(text) > deepest) {
    throw new ArgumentError("training", `a JSON value nested at most ${deepest} levels`, typeof training);
  }
  return jsonBytes(training);
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}
