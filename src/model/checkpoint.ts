/** Checkpoints in folders. The files and their formats: `checkpoint-format.ts`. */
import { join } from "node:path";
import { TokenthriftError } from "../errors.ts";
import { fileExists, OpenFile, readFileBytes, readFileBytesIfPresent, removeFile, writeFilesAtomic } from "../files.ts";
import {
  type FloatDtype,
  readSafetensorsHeader,
  type SafetensorsHeader,
  safetensorsHeaderBytes,
  safetensorsStart,
  toFloat32,
} from "../tensor/safetensors.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import {
  type Checkpoint,
  type CheckpointOptions,
  checkpointFiles,
  namedIn,
  parseDescription,
  parseIndex,
  serializeCheckpoint,
  weightFiles,
  wholeOf,
} from "./checkpoint-format.ts";
import { type DecoderConfig, embeddingName } from "./decoder-config.ts";
import { checkRepeatedHead, placeWeights, readWeight, type WeightPlace } from "./weight-files.ts";
import type { FloatTensor, Weights } from "./weights.ts";

/** A weight that is still in its file. */
export interface StoredTensor {
  readonly dtype: FloatDtype;
  readonly shape: readonly number[];
  /** Bytes it takes. */
  readonly bytes: number;
  /**
   * Its numbers, row-major, in an array of their own: F32 as they are, 16-bit types as their bits.
   * @throws FileError when they cannot be read
   * @throws FormatError when one is NaN or infinite
   */
  read(): Promise<Float32Array | Uint16Array>;
}

/** A checkpoint whose weights are read one by one. Its files stay open until it is closed. */
export interface OpenCheckpoint {
  readonly config: DecoderConfig;
  readonly tokenizer: Bpe;
  /** What `training.json` holds; absent when there is no such file. */
  readonly training?: unknown;
  /** Exactly the tensors of `parameterShapes(config)`, by those names and of those shapes. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Close the files, after the reads under way. A second `close` does nothing. */
  close(): Promise<void>;
}

/**
 * Open a checkpoint folder: read everything but the weights, and of those the headers, by which their names, shapes and
 * places are checked. Only where a tied output head is stored a second time are numbers read, to see that it is the same.
 * @throws FileError when a file cannot be read
 * @throws FormatError as `parseCheckpoint`, but for weights that are NaN or infinite, which show when they are read
 */
export async function openCheckpoint(folder: string): Promise<OpenCheckpoint> {
  const named = namedIn(folder);
  const files = await readDescriptionFiles(folder);
  const description = parseDescription(files, folder);
  const { config } = description;
  const index = parseIndex(files, folder);
  const open = new Map<string, OpenFile>();
  const close = async (): Promise<void> => {
    const handles = [...open.values()];
    open.clear();
    await Promise.all(handles.map((handle) => handle.close()));
  };
  try {
    const headers = new Map<string, SafetensorsHeader>();
    for (const name of weightFiles(index)) {
      const file = await OpenFile.open(join(folder, name));
      open.set(name, file);
      headers.set(name, await readHeader(file, named(name)));
    }
    const places = placeWeights(config, headers, index, named, named(wholeOf(index)));
    const bytesAt = async ({ file, begin, end }: WeightPlace): Promise<Uint8Array> => {
      const handle = open.get(file);
      if (handle === undefined) throw new TokenthriftError("checkpoint: it is closed. Read before closing it.");
      return handle.read(begin, end - begin);
    };
    const { repeatedHead } = places;
    if (repeatedHead !== undefined) {
      const table = places.tensors.get(embeddingName(config))!;
      await compareHead(config, repeatedHead, table, bytesAt, named(repeatedHead.file));
    }
    const tensors = new Map<string, StoredTensor>();
    for (const [name, place] of places.tensors) {
      const { dtype, shape, begin, end, file } = place;
      const read = async () => readWeight(name, place, await bytesAt(place), named(file)).data;
      tensors.set(name, { dtype, shape, bytes: end - begin, read });
    }
    return { ...description, tensors, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The files of a checkpoint beside its weights, and the index of these where they lie in several files. */
async function readDescriptionFiles(folder: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  for (const name of [checkpointFiles.config, checkpointFiles.tokenizer]) {
    files.set(name, await readFileBytes(join(folder, name)));
  }
  const optional: string[] = [checkpointFiles.training];
  if (!(await fileExists(join(folder, checkpointFiles.weights)))) optional.push(checkpointFiles.index);
  for (const name of optional) {
    const bytes = await readFileBytesIfPresent(join(folder, name));
    if (bytes !== undefined) files.set(name, bytes);
  }
  return files;
}

async function readHeader(file: OpenFile, source: string): Promise<SafetensorsHeader> {
  const start = await file.read(0, Math.min(safetensorsStart, file.size));
  const length = safetensorsHeaderBytes(start, file.size, source);
  return readSafetensorsHeader(await file.read(0, length), file.size, source);
}

/** Numbers compared at once: a few megabytes. */
const comparedNumbers = 2 ** 20;

/** Compare a stored head with the embedding table, a stretch of both at a time. */
async function compareHead(
  { vocabularySize, width }: DecoderConfig,
  head: WeightPlace,
  table: WeightPlace,
  bytesAt: (place: WeightPlace) => Promise<Uint8Array>,
  source: string,
): Promise<void> {
  const stretch = async (place: WeightPlace, first: number, count: number) => {
    const size = place.dtype === "F32" ? 4 : 2;
    const begin = place.begin + first * size;
    return { dtype: place.dtype, bytes: await bytesAt({ ...place, begin, end: begin + count * size }) };
  };
  for (let first = 0; first < vocabularySize * width; first += comparedNumbers) {
    const count = Math.min(comparedNumbers, vocabularySize * width - first);
    checkRepeatedHead(await stretch(head, first, count), await stretch(table, first, count), first, source);
  }
}

/**
 * Read a checkpoint folder, all of it, with the weights widened to float32.
 * @throws FileError when a file cannot be read
 * @throws FormatError as `parseCheckpoint`
 */
export async function readCheckpoint(folder: string): Promise<Checkpoint> {
  const { tensors: stored, close, ...description } = await openCheckpoint(folder);
  try {
    const tensors = new Map<string, Weights>();
    for (const [name, { dtype, shape, read }] of stored) {
      tensors.set(name, { shape, data: toFloat32({ dtype, shape, data: await read() } as FloatTensor) });
    }
    return { ...description, tensors };
  } finally {
    await close();
  }
}

/**
 * Write a checkpoint folder, creating it when it is missing. Every file is complete on the disk before the first takes its
 * name, and the weights take theirs last. When anything fails before that, the old checkpoint is untouched; a crash
 * between the renames can leave a new config or tokenizer beside old weights, which changes nothing when only the
 * weights were new, and which `readCheckpoint` refuses when they no longer fit. A training record of an earlier
 * checkpoint is deleted when this one has none; weights in several files are left, and no longer read.
 * @throws FileError when it cannot be written
 * @throws FormatError, ArgumentError as `serializeCheckpoint`; nothing is written then
 */
export async function writeCheckpoint(
  folder: string,
  checkpoint: Checkpoint,
  options: CheckpointOptions = {},
): Promise<void> {
  const files = serializeCheckpoint(checkpoint, options);
  await writeFilesAtomic([...files].map(([name, bytes]) => [join(folder, name), bytes] as const));
  if (!files.has(checkpointFiles.training)) await removeFile(join(folder, checkpointFiles.training));
}
