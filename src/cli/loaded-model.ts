/** The models a command works with. */
import { ArgumentError } from "../errors.ts";
import { allowRelaxedSimd } from "../kernels/relaxed-simd.ts";
import { type EmbeddedModel, embeddedFolder } from "../model/embedded.ts";
import { type LoadedModel, type LoadOptions, loadCheckpoint } from "../model/load.ts";

/** The model in a checkpoint folder; without a folder, an embedded one. Throws what `loadCheckpoint` throws. */
export async function loadModel(
  folder: string | undefined,
  embedded: EmbeddedModel,
  options: LoadOptions = {},
): Promise<LoadedModel> {
  await allowRelaxedSimd(); // the process is ours
  return loadCheckpoint(folder ?? embeddedFolder(embedded), options);
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
