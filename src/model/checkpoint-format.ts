/**
 * A checkpoint as the bytes of its files, in Hugging Face's layout and names, so that other tools open it:
 *
 *     config.json          the decoder's shape                  (hugging-face-config.ts)
 *     tokenizer.json       its byte-level BPE                   (tokenization/bpe.ts)
 *     training.json        how it was trained; optional, not read by other tools
 *     model.safetensors    the weights                          (tensor/safetensors.ts)
 *
 * Where there is no `model.safetensors`, the weights may lie in several such files, which `model.safetensors.index.json`
 * names (weight-files.ts). Such checkpoints are read, not written.
 *
 * Pure functions over bytes: they work wherever the bytes come from. **Unlike** this file, `checkpoint.ts` knows folders.
 */
import { ArgumentError, FormatError } from "../errors.ts";
import {
  type FloatDtype,
  floatTensor,
  readSafetensorsHeader,
  type SafeTensor,
  type SafetensorsHeader,
  toFloat32,
  writeSafetensors,
} from "../tensor/safetensors.ts";
import { Bpe } from "../tokenization/bpe.ts";
import { type DecoderConfig, embeddingName } from "./decoder-config.ts";
import { configFromHuggingFace, configToHuggingFace } from "./hugging-face-config.ts";
import {
  checkRepeatedHead,
  placeWeights,
  readIndex,
  readWeight,
  type WeightIndex,
  type WeightPlace,
} from "./weight-files.ts";
import { checkWeights, type Weights } from "./weights.ts";

export interface Checkpoint {
  readonly config: DecoderConfig;
  /** By Hugging Face's names and in its layout (`parameterShapes`). */
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
  index: "model.safetensors.index.json",
} as const;

/** A file's name as errors show it. */
export function namedIn(source: string): (file: string) => string {
  return (file) => (source === "" ? file : `${source}/${file}`);
}

/**
 * Read a checkpoint from its files' bytes.
 * @param files by name: config, tokenizer and weights, and the training record if there is one; others are ignored
 * @param source what errors put before a file's name, such as its folder; default none
 * @throws FormatError when a file is missing or breaks its format, tensors contradict the config, the tokenizer has more
 *   tokens than the model, or a weight is NaN or infinite
 */
export function parseCheckpoint(files: ReadonlyMap<string, Uint8Array>, source = ""): Checkpoint {
  const named = namedIn(source);
  const { config, ...rest } = parseDescription(files, source);
  const index = parseIndex(files, source);
  const headers = new Map<string, SafetensorsHeader>();
  for (const file of weightFiles(index)) {
    const bytes = need(files, file, source);
    headers.set(file, readSafetensorsHeader(bytes, bytes.length, named(file)));
  }
  const places = placeWeights(config, headers, index, named, named(wholeOf(index)));
  const bytesOf = ({ file, begin, end }: WeightPlace): Uint8Array => need(files, file, source).subarray(begin, end);
  const tensors = new Map<string, Weights>();
  for (const [name, place] of places.tensors) {
    const weight = readWeight(name, place, bytesOf(place), named(place.file));
    tensors.set(name, { shape: place.shape, data: toFloat32(weight) });
  }
  const { repeatedHead: head } = places;
  if (head !== undefined) {
    const table = places.tensors.get(embeddingName(config))!;
    const [stored, tied] = [head, table].map((place) => ({ dtype: place.dtype, bytes: bytesOf(place) }));
    checkRepeatedHead(stored!, tied!, 0, named(head.file));
  }
  return { config, tensors, ...rest };
}

/**
 * What the files beside the weights say.
 * @throws FormatError as `parseCheckpoint`
 */
export function parseDescription(files: ReadonlyMap<string, Uint8Array>, source: string): Omit<Checkpoint, "tensors"> {
  const named = namedIn(source);
  const json = (name: string): unknown => parseJson(need(files, name, source), named(name));
  const config = configFromHuggingFace(json(checkpointFiles.config), named(checkpointFiles.config));
  const tokenizer = parseTokenizer(json(checkpointFiles.tokenizer), named(checkpointFiles.tokenizer));
  checkVocabulary(config, tokenizer, named(checkpointFiles.tokenizer));
  const training = files.has(checkpointFiles.training) ? { training: json(checkpointFiles.training) } : {};
  return { config, tokenizer, ...training };
}

/** The index of a checkpoint in several files; undefined where there is none, or one file that goes before it. */
export function parseIndex(files: ReadonlyMap<string, Uint8Array>, source: string): WeightIndex | undefined {
  const bytes = files.has(checkpointFiles.weights) ? undefined : files.get(checkpointFiles.index);
  if (bytes === undefined) return undefined;
  const name = namedIn(source)(checkpointFiles.index);
  return readIndex(parseJson(bytes, name), name);
}

/** The files that hold a checkpoint's weights. */
export function weightFiles(index: WeightIndex | undefined): readonly string[] {
  return index === undefined ? [checkpointFiles.weights] : [...new Set(index.values())].sort();
}

/** The file that stands for all of the weights in errors. */
export function wholeOf(index: WeightIndex | undefined): string {
  return index === undefined ? checkpointFiles.weights : checkpointFiles.index;
}

function need(files: ReadonlyMap<string, Uint8Array>, name: string, source: string): Uint8Array {
  const bytes = files.get(name);
  if (bytes === undefined) throw new FormatError(namedIn(source)(name), "it is missing from the checkpoint");
  return bytes;
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
    if (dtype !== "F32") checkRange(name, dtype, data, toFloat32(tensor));
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

/**
 * The model may have more ids than the tokenizer has tokens, added ones included: some are trained with an embedding
 * filled up to a round number (Qwen2). The tokenizer cannot decode those ids, and the model has learned not to give them.
 */
function checkVocabulary(config: DecoderConfig, tokenizer: Bpe, source: string): void {
  if (tokenizer.vocabularySize <= config.vocabularySize) return;
  throw new FormatError(
    source,
    `the tokenizer has ${tokenizer.vocabularySize} tokens, the model ${config.vocabularySize}`,
    "Use the tokenizer the model was trained with.",
  );
}

function checkRange(name: string, dtype: FloatDtype, data: Float32Array, narrowed: Float32Array): void {
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
