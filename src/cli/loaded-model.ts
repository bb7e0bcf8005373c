/** A checkpoint folder as a model that runs. Loads TensorFlow.js: commands import this file only when they need it. */
import { ArgumentError } from "../errors.ts";
import { readCheckpoint } from "../model/checkpoint.ts";
import { Decoder } from "../model/decoder-session.ts";
import { useBackend } from "../tensor/backend.ts";
import type { Bpe } from "../tokenization/index.ts";

export interface LoadedModel {
  readonly model: Decoder;
  readonly tokenizer: Bpe;
  /** The content of `training.json`; undefined where there is none. */
  readonly training: unknown;
}

/** Read a checkpoint folder and make its decoder. Throws what `readCheckpoint` and `useBackend` throw. */
export async function loadModel(folder: string): Promise<LoadedModel> {
  await useBackend();
  const { config, tensors, tokenizer, training } = await readCheckpoint(folder);
  return { model: new Decoder(config, tensors), tokenizer, training };
}

/**
 * Guesses are token ids, so a draft serves a target only if every id means the same to both.
 * @throws ArgumentError naming `--draft`
 */
export function requireSameTokenizer(target: LoadedModel, draft: LoadedModel): void {
  const [wanted, got] = [target.tokenizer, draft.tokenizer];
  if (wanted.vocabularySize !== got.vocabularySize) {
    throw new ArgumentError(
      "--draft",
      `a model with the target's vocabulary (${wanted.vocabularySize} tokens)`,
      `${got.vocabularySize} tokens`,
      "Name the folder of a draft that was trained with the same tokenizer.",
    );
  }
  if (JSON.stringify(wanted.toHuggingFace()) !== JSON.stringify(got.toHuggingFace())) {
    throw new ArgumentError(
      "--draft",
      "a model with the target's tokenizer",
      "another tokenizer of the same size",
      "Name the folder of a draft that was trained with the same tokenizer.",
    );
  }
}
