/**
 * Trained heads in folders, and the two that come with the package, for the embedded target:
 *
 *     model.safetensors    the heads' parameters; in its metadata which heads they are, and their accuracies, as JSON
 *     training.json        how they were trained, and what they reach on held-out text
 *
 * What heads borrow from their target (embeddings, final norm, output head) is read from the target's own checkpoint.
 */
import { ArgumentError, FormatError } from "../errors.ts";
import { type KernelOptions, openKernels } from "../kernels/kernels.ts";
import type { Weights } from "../model/weights.ts";
import { floatTensor, readSafetensors, type SafeTensor, toFloat32, writeSafetensors } from "../tensor/safetensors.ts";
import { ChimeraHeads } from "./chimera-heads.ts";
import { type HeadTarget, headTarget, headTargetNames } from "./head-layers.ts";
import { MedusaHeads } from "./medusa.ts";

export const headKinds = ["medusa", "chimera"] as const;
export type HeadKind = (typeof headKinds)[number];

/** Names of the files in a folder of heads. */
export const headFiles = { weights: "model.safetensors", training: "training.json" } as const;

export interface LoadHeadsOptions extends KernelOptions {
  /** Where the heads are. Default: those that come with the package. */
  readonly folder?: string;
  /** Checkpoint of the target they were trained on. Default: the embedded one. */
  readonly target?: string;
}

/** Heads ready for a drafter: `new MedusaDrafter(loaded.heads, loaded)`. */
export interface LoadedHeads<Heads> {
  readonly heads: Heads;
  /** `accuracies[d - 1][r]`: how often rank r at depth d is right, along the target's own greedy text. */
  readonly accuracies: readonly (readonly number[])[];
  /** What `training.json` says; absent when there is none. */
  readonly training?: unknown;
}

/** Heads as numbers. */
export interface StoredHeads {
  readonly kind: HeadKind;
  readonly weights: ReadonlyMap<string, Weights>;
  readonly accuracies: readonly (readonly number[])[];
}

/**
 * Load Medusa's heads.
 * @throws FileError, FormatError when a file is missing or damaged; ArgumentError when heads and target do not fit
 */
export async function loadMedusaHeads(options: LoadHeadsOptions = {}): Promise<LoadedHeads<MedusaHeads>> {
  const { target, weights, ...rest } = await readHeads("medusa", options);
  return { heads: new MedusaHeads(target, weights, await openKernels(options)), ...rest };
}

/**
 * Load Chimera's encoders and heads.
 * @throws as `loadMedusaHeads`
 */
export async function loadChimeraHeads(options: LoadHeadsOptions = {}): Promise<LoadedHeads<ChimeraHeads>> {
  const { target, weights, ...rest } = await readHeads("chimera", options);
  return { heads: new ChimeraHeads(target, weights, await openKernels(options)), ...rest };
}

/** The bytes of `model.safetensors`, parameters rounded to 16 bits. */
export function serializeHeads({ kind, weights, accuracies }: StoredHeads): Uint8Array {
  const tensors = new Map<string, SafeTensor>();
  for (const [name, { shape, data }] of weights) tensors.set(name, floatTensor(shape, data, "F16"));
  return writeSafetensors(tensors, { heads: kind, accuracies: JSON.stringify(accuracies) });
}

/**
 * @param source what errors call the file
 * @throws FormatError when it holds no heads
 */
export function parseHeads(bytes: Uint8Array, source: string): StoredHeads {
  const { tensors, metadata } = readSafetensors(bytes, source);
  const kind = headKinds.find((kind) => kind === metadata["heads"]);
  if (kind === undefined) throw new FormatError(source, 'its metadata "heads" names no heads that are known');
  const weights = new Map<string, Weights>();
  for (const [name, tensor] of tensors) weights.set(name, { shape: tensor.shape, data: toFloat32(tensor) });
  let accuracies: unknown;
  try {
    accuracies = JSON.parse(metadata["accuracies"] ?? "");
  } catch {
    // Told below: what is wrong is the same.
  }
  const isTable = (value: unknown): value is number[][] =>
    Array.isArray(value) && value.every((ranks) => Array.isArray(ranks) && ranks.every((a) => a >= 0 && a <= 1));
  if (!isTable(accuracies)) {
    throw new FormatError(source, 'its metadata "accuracies" is no list of lists of numbers from 0 to 1');
  }
  return { kind, weights, accuracies };
}

/** What heads need of a checkpoint's target. @throws FileError, FormatError, ArgumentError as `headTarget` */
export async function readHeadTarget(folder: string): Promise<HeadTarget> {
  const { openCheckpoint } = await import("../model/checkpoint.ts");
  const checkpoint = await openCheckpoint(folder);
  try {
    const { config, tensors } = checkpoint;
    const weights = new Map<string, Weights>();
    for (const name of headTargetNames(config)) {
      const stored = tensors.get(name);
      if (stored === undefined) continue;
      const tensor = { dtype: stored.dtype, shape: stored.shape, data: await stored.read() } as SafeTensor;
      weights.set(name, { shape: stored.shape, data: toFloat32(tensor) });
    }
    return headTarget(config, weights);
  } finally {
    await checkpoint.close();
  }
}

/** Folder of the heads that come with the package. */
export async function embeddedHeadsFolder(kind: HeadKind): Promise<string> {
  if (!headKinds.includes(kind)) throw new ArgumentError("kind", `one of ${headKinds.join(", ")}`, kind);
  const { fileURLToPath } = await import("node:url");
  return fileURLToPath(new URL(`../../models/${kind}-heads`, import.meta.url));
}

// What knows folders is imported where it is used: this family's entry point runs where there are none.
async function readHeads(kind: HeadKind, options: LoadHeadsOptions) {
  const { join } = await import("node:path");
  const { readFileBytes, readFileBytesIfPresent } = await import("../files.ts");
  const { embeddedFolder } = await import("../model/embedded.ts");
  const folder = options.folder ?? (await embeddedHeadsFolder(kind));
  const path = join(folder, headFiles.weights);
  const stored = parseHeads(await readFileBytes(path), path);
  if (stored.kind !== kind) throw new FormatError(path, `it holds ${stored.kind} heads, not ${kind} heads`);
  const record = await readFileBytesIfPresent(join(folder, headFiles.training));
  const target = await readHeadTarget(options.target ?? embeddedFolder("target"));
  const { weights, accuracies } = stored;
  const training: unknown = record === undefined ? undefined : JSON.parse(new TextDecoder().decode(record));
  return { target, weights, accuracies, ...(training !== undefined && { training }) };
}
