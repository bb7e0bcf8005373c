/** Models ready to run, with their tokenizers: from a checkpoint folder, from llama2.c's files, or the embedded pair. */
import { ArgumentError } from "../errors.ts";
import { readFileBytes } from "../files.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import { SentencePieceBpe } from "../tokenization/sentencepiece-bpe.ts";
import { openCheckpoint, readCheckpoint } from "./checkpoint.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import { type EmbeddedModel, embeddedFolder } from "./embedded.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { LanguageModel } from "./language-model.ts";
import { readLlama2c } from "./llama2c.ts";
import type { Weights } from "./weights.ts";

/** A decoder, whatever runs it. */
export interface RunningDecoder extends LanguageModel {
  readonly config: DecoderConfig;
  /** Free its weights. Sessions still open become unusable. */
  close(): void;
}

export interface LoadOptions extends EngineOptions {
  /**
   * What runs the model: `"engine"`, the kernels, for inference; or `"tensors"`, the differentiable decoder on the tensor
   * layer (a backend is made ready when none is). Default: `TOKENTHRIFT_RUNS`, else `"engine"`.
   */
  readonly runs?: "engine" | "tensors";
}

export interface LoadedModel {
  readonly model: RunningDecoder;
  readonly tokenizer: Bpe;
  /** What `training.json` says of the run that made the weights; absent when the folder has none. */
  readonly training?: unknown;
}

/**
 * Load a checkpoint folder in Hugging Face's layout: `config.json`, `tokenizer.json`, and the weights in one or several
 * safetensors.
 * @throws FileError, FormatError when a file is missing, damaged or contradicts another
 * @throws MemoryError when the model does not fit, before its weights are read
 */
export async function loadCheckpoint(folder: string, options: LoadOptions = {}): Promise<LoadedModel> {
  if (runner(options) === "tensors") {
    const { config, tensors, tokenizer, training } = await readCheckpoint(folder);
    const model = await onTensors(config, tensors);
    return training === undefined ? { model, tokenizer } : { model, tokenizer, training };
  }
  const checkpoint = await openCheckpoint(folder);
  try {
    const { config, tensors, tokenizer, training } = checkpoint;
    const model = await Engine.open(config, tensors, options);
    return training === undefined ? { model, tokenizer } : { model, tokenizer, training };
  } finally {
    await checkpoint.close();
  }
}

/** Load one of the pair that comes with the package; both share one vocabulary of 1,024 tokens. */
export async function loadEmbedded(which: EmbeddedModel, options: LoadOptions = {}): Promise<LoadedModel> {
  return loadCheckpoint(embeddedFolder(which), options);
}

/**
 * Load a llama2.c model.
 * @param weights path of the weights (`stories260K.bin`)
 * @param tokenizer path of the vocabulary in llama2.c's format (`tok512.bin`)
 */
export async function loadLlama2c(
  weights: string,
  tokenizer: string,
  options: LoadOptions = {},
): Promise<{ model: RunningDecoder; tokenizer: SentencePieceBpe }> {
  const { config, tensors } = readLlama2c(await readFileBytes(weights), weights);
  const vocabulary = SentencePieceBpe.fromLlama2c(await readFileBytes(tokenizer), config.vocabularySize);
  const model =
    runner(options) === "tensors" ? await onTensors(config, tensors) : await Engine.open(config, tensors, options);
  return { model, tokenizer: vocabulary };
}

const runners = ["engine", "tensors"] as const;

/** @throws ArgumentError on an unknown name */
function runner({ runs }: LoadOptions): (typeof runners)[number] {
  const fromEnvironment = typeof process === "undefined" ? undefined : process.env["TOKENTHRIFT_RUNS"] || undefined;
  const name = runs ?? fromEnvironment ?? "engine";
  const known = runners.find((one) => one === name);
  if (known === undefined) {
    throw new ArgumentError(runs === undefined ? "TOKENTHRIFT_RUNS" : "runs", '"engine" or "tensors"', name);
  }
  return known;
}

/** The tensor layer is loaded only here: the engine does without it. */
async function onTensors(config: DecoderConfig, weights: ReadonlyMap<string, Weights>): Promise<RunningDecoder> {
  const { useBackend } = await import("../tensor/backend.ts");
  const { Decoder } = await import("./decoder-session.ts");
  await useBackend();
  return new Decoder(config, weights);
}
