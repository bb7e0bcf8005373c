/** Models ready to run, with their tokenizers: from a checkpoint folder, from llama2.c's files, or the embedded pair. */
import { readFileBytes } from "../files.ts";
import { useBackend } from "../tensor/backend.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import { SentencePieceBpe } from "../tokenization/sentencepiece-bpe.ts";
import { readCheckpoint } from "./checkpoint.ts";
import { Decoder } from "./decoder-session.ts";
import { type EmbeddedModel, embeddedFolder } from "./embedded.ts";
import { readLlama2c } from "./llama2c.ts";

export interface LoadedModel {
  readonly model: Decoder;
  readonly tokenizer: Bpe;
  /** What `training.json` says of the run that made the weights; absent when the folder has none. */
  readonly training?: unknown;
}

/**
 * Load a checkpoint folder in Hugging Face's layout (`model.safetensors`, `config.json`, `tokenizer.json`). Makes a
 * tensor backend ready when none is.
 * @throws FileError, FormatError when a file is missing, damaged or contradicts another
 */
export async function loadCheckpoint(folder: string): Promise<LoadedModel> {
  const { config, tensors, tokenizer, training } = await readCheckpoint(folder);
  await useBackend();
  const model = new Decoder(config, tensors);
  return training === undefined ? { model, tokenizer } : { model, tokenizer, training };
}

/** Load one of the pair that comes with the package; both share one vocabulary of 1,024 tokens. */
export async function loadEmbedded(which: EmbeddedModel): Promise<LoadedModel> {
  return loadCheckpoint(embeddedFolder(which));
}

/**
 * Load a llama2.c model.
 * @param weights path of the weights (`stories260K.bin`)
 * @param tokenizer path of the vocabulary in llama2.c's format (`tok512.bin`)
 */
export async function loadLlama2c(
  weights: string,
  tokenizer: string,
): Promise<{ model: Decoder; tokenizer: SentencePieceBpe }> {
  const { config, tensors } = readLlama2c(await readFileBytes(weights), weights);
  const vocabulary = SentencePieceBpe.fromLlama2c(await readFileBytes(tokenizer), config.vocabularySize);
  await useBackend();
  return { model: new Decoder(config, tensors), tokenizer: vocabulary };
}
