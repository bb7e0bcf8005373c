/**
 * Trained parts in folders, and those that come with the package, for the embedded target:
 *
 *     model.safetensors    the parameters, 8 bits each (`row-quantization.ts`); in its metadata which part this is, and
 *                          what belongs to it, as JSON: the accuracies of heads, say
 *     training.json        how it was trained, and what it reaches on held-out text
 *
 * What a part borrows from its target (embeddings, final norm, output head) is read from the target's own checkpoint.
 */
import { ArgumentError, FormatError } from "../errors.ts";
import { type KernelOptions, openKernels } from "../kernels/kernels.ts";
import type { DecoderConfig } from "../model/decoder-config.ts";
import type { Engine, EngineOptions } from "../model/engine.ts";
import type { Weights } from "../model/weights.ts";
import { dequantizeRows, quantizeRows } from "../tensor/row-quantization.ts";
import { readSafetensors, type SafeTensor, toFloat32, writeSafetensors } from "../tensor/safetensors.ts";
import { ChimeraHeads } from "./chimera-heads.ts";
import { type HeadTarget, headTarget, headTargetNames } from "./head-layers.ts";
import { MedusaHeads } from "./medusa.ts";
import { checkExits } from "./s2d.ts";
import { type ExitSchedule, type ExitScheduleOptions, exitSchedule } from "./skipdecode.ts";

/** What is trained for the embedded target: a part's name is its folder's. */
export const partKinds = ["medusa", "chimera", "sorted-draft", "skipdecode", "hypernetwork"] as const;
export type PartKind = (typeof partKinds)[number];

/** Names of the files in a part's folder. */
export const partFiles = { weights: "model.safetensors", training: "training.json" } as const;

export interface LoadPartOptions {
  /** Where the part is. Default: the one that comes with the package. */
  readonly folder?: string;
}

export interface LoadHeadsOptions extends LoadPartOptions, KernelOptions {
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

/** A part as numbers. */
export interface StoredPart {
  readonly kind: PartKind;
  readonly weights: ReadonlyMap<string, Weights>;
  /** What belongs to the weights, as JSON. */
  readonly details: unknown;
}

/** A part as it is loaded. */
export interface LoadedPart extends StoredPart {
  /** Path of the weights, for errors. */
  readonly path: string;
  /** What `training.json` says; absent when there is none. */
  readonly training?: unknown;
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

export interface LoadSkipDecodeOptions extends LoadPartOptions, EngineOptions {}

/** A decoder tuned to skip layers, and how: `skipDecode(loaded.model, loaded.schedule)`. */
export interface LoadedSkipDecode {
  /** All its layers. Close it. */
  readonly model: Engine;
  /** What it was tuned under. */
  readonly schedule: ExitSchedule;
  /** What `training.json` says; absent when there is none. */
  readonly training?: unknown;
}

/**
 * Load the decoder tuned for SkipDecode. It has the embedded target's vocabulary.
 * @throws FileError, FormatError when a file is missing or damaged; MemoryError, BackendError as `Engine.open`
 */
export async function loadSkipDecode(options: LoadSkipDecodeOptions = {}): Promise<LoadedSkipDecode> {
  const { path, kind: _, weights, details, ...training } = await readPart("skipdecode", options);
  const { config, schedule } = (details ?? {}) as { readonly config?: object; readonly schedule?: object };
  if (config === undefined || schedule === undefined) {
    throw new FormatError(path, "its metadata has no config and no schedule");
  }
  const { Engine } = await import("../model/engine.ts");
  return described(path, async () => ({
    schedule: exitSchedule(schedule as ExitScheduleOptions),
    model: await Engine.open(config as DecoderConfig, weights, options),
    ...training,
  }));
}

export interface LoadSortedDraftOptions extends LoadPartOptions, EngineOptions {}

/** A decoder several depths of which draft: `new S2dDrafter(loaded.model, loaded)`. */
export interface LoadedSortedDraft {
  /** Close it. */
  readonly model: Engine;
  /** Layers below each of its exits, growing. */
  readonly exits: readonly number[];
  /** What `training.json` says; absent when there is none. */
  readonly training?: unknown;
}

/**
 * Load the draft model trained by sorted fine-tuning. It has the embedded target's vocabulary.
 * @throws FileError, FormatError when a file is missing or damaged; MemoryError, BackendError as `Engine.open`
 */
export async function loadSortedDraft(options: LoadSortedDraftOptions = {}): Promise<LoadedSortedDraft> {
  const { path, kind: _, weights, details, ...training } = await readPart("sorted-draft", options);
  const { config, exits } = (details ?? {}) as { readonly config?: object; readonly exits?: unknown };
  if (config === undefined || !Array.isArray(exits)) {
    throw new FormatError(path, "its metadata has no config and no exits");
  }
  const { Engine } = await import("../model/engine.ts");
  return described(path, async () => {
    checkExits(exits, (config as DecoderConfig).layers);
    return { exits, model: await Engine.open(config as DecoderConfig, weights, options), ...training };
  });
}

/** The bytes of `model.safetensors`. */
export function serializePart({ kind, weights, details }: StoredPart): Uint8Array {
  return writeSafetensors(quantizeRows(weights), { part: kind, details: JSON.stringify(details) });
}

/**
 * @param source what errors call the file
 * @throws FormatError when it holds no part
 */
export function parsePart(bytes: Uint8Array, source: string): StoredPart {
  const { tensors, metadata } = readSafetensors(bytes, source);
  const kind = partKinds.find((kind) => kind === metadata["part"]);
  if (kind === undefined) throw new FormatError(source, 'its metadata "part" names none that is known');
  try {
    const details: unknown = JSON.parse(metadata["details"] ?? "");
    return { kind, weights: dequantizeRows(tensors, source), details };
  } catch (error) {
    if (error instanceof FormatError) throw error;
    throw new FormatError(source, 'its metadata "details" is no JSON');
  }
}

/**
 * Read a part from its folder.
 * @throws FileError, FormatError when a file is missing or damaged, or holds another part
 */
export async function readPart(kind: PartKind, options: LoadPartOptions = {}): Promise<LoadedPart> {
  // What knows folders is imported where it is used: this family's entry point runs where there are none.
  const { join } = await import("node:path");
  const { readFileBytes, readFileBytesIfPresent } = await import("../files.ts");
  const folder = options.folder ?? (await embeddedPartFolder(kind));
  const path = join(folder, partFiles.weights);
  const stored = parsePart(await readFileBytes(path), path);
  if (stored.kind !== kind) throw new FormatError(path, `it holds ${stored.kind}, not ${kind}`);
  const record = await readFileBytesIfPresent(join(folder, partFiles.training));
  const training: unknown = record === undefined ? undefined : JSON.parse(new TextDecoder().decode(record));
  return { ...stored, path, ...(training !== undefined && { training }) };
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

/** Folder of a part that comes with the package. */
export async function embeddedPartFolder(kind: PartKind): Promise<string> {
  if (!partKinds.includes(kind)) throw new ArgumentError("kind", `one of ${partKinds.join(", ")}`, kind);
  const { fileURLToPath } = await import("node:url");
  return fileURLToPath(new URL(`../../models/${kind}`, import.meta.url));
}

/** What a part's metadata describes, opened: what is wrong with the description is the file's fault. */
async function described<Opened>(path: string, open: () => Promise<Opened>): Promise<Opened> {
  try {
    return await open();
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    throw new FormatError(path, `its metadata is damaged: ${error.message}`);
  }
}

async function readHeads(kind: "medusa" | "chimera", options: LoadHeadsOptions) {
  const { embeddedFolder } = await import("../model/embedded.ts");
  const { path, weights, details, ...training } = await readPart(kind, options);
  const { accuracies } = (details ?? {}) as { readonly accuracies?: unknown };
  const isTable = (value: unknown): value is number[][] =>
    Array.isArray(value) &&
    value.every((ranks) => Array.isArray(ranks) && ranks.every((a) => typeof a === "number" && a >= 0 && a <= 1));
  if (!isTable(accuracies)) {
    throw new FormatError(path, "the accuracies in its metadata are no list of lists of numbers from 0 to 1");
  }
  const target = await readHeadTarget(options.target ?? embeddedFolder("target"));
  return { target, weights, accuracies, ...("training" in training && { training: training.training }) };
}
