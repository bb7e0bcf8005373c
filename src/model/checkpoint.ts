/** Checkpoints in folders. The files and their formats: `checkpoint-format.ts`. */
import { join } from "node:path";
import { readFileBytes, readFileBytesIfPresent, removeFile, writeFilesAtomic } from "../files.ts";
import {
  type Checkpoint,
  type CheckpointOptions,
  checkpointFiles,
  parseCheckpoint,
  serializeCheckpoint,
} from "./checkpoint-format.ts";

/**
 * Read a checkpoint folder.
 * @throws FileError when a file cannot be read
 * @throws FormatError as `parseCheckpoint`
 */
export async function readCheckpoint(folder: string): Promise<Checkpoint> {
  const files = new Map<string, Uint8Array>();
  for (const name of [checkpointFiles.config, checkpointFiles.tokenizer, checkpointFiles.weights]) {
    files.set(name, await readFileBytes(join(folder, name)));
  }
  const training = await readFileBytesIfPresent(join(folder, checkpointFiles.training));
  if (training !== undefined) files.set(checkpointFiles.training, training);
  return parseCheckpoint(files, folder);
}

/**
 * Write a checkpoint folder, creating it when it is missing. Every file is complete on the disk before the first takes its
 * name, and the weights take theirs last. When anything fails before that, the old checkpoint is untouched; a crash
 * between the renames can leave a new config or tokenizer beside old weights, which changes nothing when only the
 * weights were new, and which `readCheckpoint` refuses when they no longer fit. A training record of an earlier
 * checkpoint is deleted when this one has none.
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
