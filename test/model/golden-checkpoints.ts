/**
 * Tiny checkpoints written by Hugging Face's libraries, and the logits those compute from them: what every decoder here
 * must compute too. Made by fixtures/golden-checkpoints/make.py.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Matrix } from "../../src/model/language-model.ts";
import { readSafetensors } from "../../src/tensor/safetensors.ts";

export interface GoldenCheckpoint {
  readonly name: string;
  readonly folder: string;
}

export const goldenCheckpoints: readonly GoldenCheckpoint[] = ["llama", "qwen2", "gpt2"].map((name) => ({
  name,
  folder: fileURLToPath(new URL(`../fixtures/golden-checkpoints/${name}`, import.meta.url)),
}));

export interface Golden {
  readonly text: string;
  /** What the checkpoint's tokenizer makes of the text. */
  readonly ids: readonly number[];
  /** Next-token logits after each id, computed in float32 from the stored weights: [ids, vocabularySize]. */
  readonly logits: Matrix;
}

export async function readGolden({ folder }: GoldenCheckpoint): Promise<Golden> {
  const { tensors, metadata } = readSafetensors(await readFile(join(folder, "golden.safetensors")));
  const logits = tensors.get("logits")!;
  const [rows, columns] = logits.shape as [number, number];
  return {
    text: metadata["text"]!,
    ids: [...tensors.get("ids")!.data],
    logits: { data: logits.data as Float32Array, rows, columns },
  };
}

/** The largest difference of two logits, as a share of the largest logit expected. */
export function relativeDifference(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
    largest = Math.max(largest, Math.abs(expected[i]!));
    if (Number.isNaN(actual[i])) return Number.POSITIVE_INFINITY;
  }
  return difference / largest;
}
