/** A target and a draft small enough for tests of the command line: untrained, so they prove plumbing and nothing else. */
import { join } from "node:path";
import { writeCheckpoint } from "../../src/model/checkpoint.ts";
import { initialWeights } from "../../src/model/decoder.ts";
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import type { Weights } from "../../src/model/weights.ts";
import { Random } from "../../src/tensor/random.ts";
import { Bpe } from "../../src/tokenization/index.ts";

export const tinyText =
  "interface Point { readonly x: number; readonly y: number; }\n" +
  "declare function distance(a: Point, b: Point): number;\n" +
  "interface Shape { readonly corners: readonly Point[]; area(): number; }\n";

export const tinyConfig: DecoderConfig = {
  vocabularySize: 280,
  contextLength: 64,
  width: 16,
  layers: 1,
  heads: 2,
  keyValueHeads: 1,
  headWidth: 8,
  hiddenWidth: 24,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: true,
  projectionBiases: false,
};

/**
 * Writes `target`, `draft` (the target, disturbed: often right) and `stranger` (another tokenizer) under `folder`.
 * @returns their folders
 */
export async function writeTinyPair(folder: string): Promise<{ target: string; draft: string; stranger: string }> {
  const tokenizer = (text: string): Bpe =>
    Bpe.train([text], { vocabSize: 280, pattern: "cl100k", specialTokens: ["<|endoftext|>"] });
  // Large enough weights that the most probable token leads by far more than float32 rounds away.
  const scaled = (seed: string, factor: number): Map<string, Weights> => initialTimes(new Random(seed), factor);
  const target = scaled("target", 20);
  const noise = scaled("noise", 4);
  const draft = new Map(
    [...target].map(([name, { shape, data }]) => {
      const disturbed = name.endsWith("norm.weight") ? data : data.map((w, i) => w + noise.get(name)!.data[i]!);
      return [name, { shape, data: disturbed }];
    }),
  );
  const folders = { target: join(folder, "target"), draft: join(folder, "draft"), stranger: join(folder, "stranger") };
  const training = {
    curve: [1, 2, 3].map((step) => ({ step: step * 10, trainingLoss: 5 - step, validationLoss: 5.5 - step })),
    evaluation: { bytes: 1000, bitsPerByte: 1.25, gzip: 1.75, xz: null, fiveGram: 1.5 },
  };
  const shared = { config: tinyConfig, tokenizer: tokenizer(tinyText) };
  await writeCheckpoint(folders.target, { ...shared, tensors: target, training });
  await writeCheckpoint(folders.draft, { ...shared, tensors: draft });
  const other = tokenizer(tinyText.toUpperCase());
  await writeCheckpoint(folders.stranger, { config: tinyConfig, tensors: draft, tokenizer: other });
  return folders;
}

function initialTimes(random: Random, factor: number): Map<string, Weights> {
  return new Map(
    [...initialWeights(tinyConfig, random)].map(([name, { shape, data }]) => [
      name,
      { shape, data: name.endsWith("norm.weight") ? data : data.map((w) => w * factor) },
    ]),
  );
}
