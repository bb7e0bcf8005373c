/** Named weights off any tensor library, and the check that they are the ones a decoder of some shape needs. */
import { FormatError } from "../errors.ts";
import { type DecoderConfig, parameterShapes } from "./decoder-config.ts";

/** Numbers with a shape: row-major, linear weights laid out as `parameterShapes` says. */
export interface Weights {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/**
 * Check names, shapes and values of a decoder's weights.
 * @param config what they must fit; at most as many layers as there are tensors are looked at
 * @param tensors by Hugging Face's names
 * @param source what errors call them
 * @throws FormatError naming what is missing, unexpected or misshapen, or the first NaN or infinite weight
 */
export function checkWeights(config: DecoderConfig, tensors: ReadonlyMap<string, Weights>, source: string): void {
  // Every layer has nine tensors or more, so a larger number is wrong whatever the names; do not list a million.
  if (config.layers > tensors.size) {
    throw new FormatError(
      source,
      `the config has ${config.layers} layers, but there are ${tensors.size} tensors in all`,
      "Check num_hidden_layers, and that config and weights belong together.",
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
      "Check num_hidden_layers, tie_word_embeddings and model_type, and that config and weights belong together.",
    );
  }
  for (const [name, shape] of shapes) {
    const { shape: got, data } = tensors.get(name)!;
    if (got.length !== shape.length || got.some((size, axis) => size !== shape[axis])) {
      throw new FormatError(
        source,
        `tensor "${name}" has shape [${got.join(", ")}], the config asks for [${shape.join(", ")}]`,
        "Check that config and weights belong together.",
      );
    }
    if (data.length !== shape.reduce((product, size) => product * size, 1)) {
      throw new FormatError(source, `tensor "${name}" of shape [${shape.join(", ")}] holds ${data.length} numbers`);
    }
    for (let i = 0; i < data.length; i++) {
      if (!Number.isFinite(data[i])) {
        throw new FormatError(
          source,
          `tensor "${name}" holds ${data[i]} at index ${i}`,
          "Training diverged or the file is damaged; take an earlier checkpoint.",
        );
      }
    }
  }
}

/** The first few names and how many more there are. */
function listed(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => `"${name.length > 60 ? `${name.slice(0, 57)}...` : name}"`);
  return shown.join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
}
