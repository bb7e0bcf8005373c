/**
 * Reading files, whole or by position, and writing them so that a reader never sees half of one.
 *
 * A write goes to a new file in the same folder, is flushed to the disk, and takes the target's name in one rename:
 * whoever opens the target finds the old content or the new, also after a crash or a power cut.
 */
import { type FileHandle, mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FileError } from "./errors.ts";

let written = 0;

/**
 * Write a file atomically. Its folder is created when it is missing; an existing file is replaced.
 * @param path where the file shall be; a symbolic link there is replaced, not followed
 * @param data the whole content; text is written as UTF-8
 * @throws FileError when it cannot be written; the old file, if any, is untouched and nothing is left beside it
 */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  await writeFilesAtomic([[path, data]]);
}

/**
 * Write several files, in order, each atomically, and as close to all-or-nothing as files allow: every content is on the
 * disk before the first file takes its name, so a full disk or a refused path leaves all old files untouched. Only a
 * crash, or a refusal, between two renames leaves the first files new and the others old.
 * @throws FileError for the first file that cannot be written; nothing is left beside the files
 */
export async function writeFilesAtomic(
  files: Iterable<readonly [path: string, data: string | Uint8Array]>,
): Promise<void> {
  const staged: { path: string; beside: string }[] = [];
  let current = "";
  try {
    for (const [path, data] of files) {
      current = path;
      // A leading dot hides it; process id and count keep two writers of one target apart.
      const beside = join(dirname(path), `.${basename(path).slice(0, 50)}.${process.pid}.${written++}.tmp`);
      staged.push({ path, beside });
      await makeFolder(dirname(path));
      const file = await open(beside, "wx");
      try {
        await file.writeFile(data);
        await file.sync();
      } finally {
        await file.close();
      }
    }
    for (const { path, beside } of staged) {
      current = path;
      await renameOver(beside, path);
    }
  } catch (error) {
    // The write's own error is the one to report, whether or not the clean-up succeeds.
    for (const { beside } of staged) await rm(beside, { force: true }).catch(() => undefined);
    throw fileError(current, "cannot be written", error);
  }
  for (const folder of new Set(staged.map(({ path }) => dirname(path)))) await syncFolder(folder);
}

/**
 * The whole content of a file.
 * @throws FileError when it cannot be read
 */
export async function readFileBytes(path: string): Promise<Uint8Array> {
  try {
    const buffer = await readFile(path);
    return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  } catch (error) {
    throw fileError(path, "cannot be read", error);
  }
}

/** `readFileBytes`, or `undefined` where there is no such file. */
export async function readFileBytesIfPresent(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFileBytes(path);
  } catch (error) {
    if (error instanceof FileError && codeOf(error.cause) === "ENOENT") return undefined;
    throw error;
  }
}

/** Whether there is something of that name. */
export async function fileExists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** Most bytes asked for at once; the system calls end at 2^31 - 1. */
const mostAtOnce = 2 ** 30;

/** A file open for reading anywhere in it. Close it. */
export class OpenFile {
  readonly path: string;
  /** Bytes, as of when it was opened. */
  readonly size: number;
  readonly #handle: FileHandle;

  private constructor(path: string, size: number, handle: FileHandle) {
    this.path = path;
    this.size = size;
    this.#handle = handle;
  }

  /** @throws FileError when it cannot be opened, or is not a regular file */
  static async open(path: string): Promise<OpenFile> {
    try {
      // Before it is opened: opening a pipe would wait for a writer.
      if (!(await stat(path)).isFile()) throw new Error("it is not a file");
      const handle = await open(path, "r");
      const { size } = await handle.stat().catch(async (error: unknown) => {
        await handle.close();
        throw error;
      });
      return new OpenFile(path, size, handle);
    } catch (error) {
      throw fileError(path, "cannot be read", error);
    }
  }

  /**
   * Bytes `position` .. `position + length - 1`, in an array of their own.
   * @throws FileError when they cannot be read, or the file has become shorter
   */
  async read(position: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    try {
      for (let at = 0; at < length; ) {
        const { bytesRead } = await this.#handle.read(bytes, at, Math.min(length - at, mostAtOnce), position + at);
        if (bytesRead === 0) throw new Error(`it ends at byte ${position + at}, before byte ${position + length}`);
        at += bytesRead;
      }
    } catch (error) {
      throw fileError(this.path, "cannot be read", error);
    }
    return bytes;
  }

  /** Waits for the reads under way. */
  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/**
 * Delete a file, if it is there.
 * @throws FileError when it is and cannot be deleted
 */
export async function removeFile(path: string): Promise<void> {
  try {
    await rm(path, { force: true });
  } catch (error) {
    throw fileError(path, "cannot be deleted", error);
  }
}

/**
 * Create a folder and those above it that are missing. Node's own recursive mkdir never returns where a file system
 * answers "no such folder" for a child of one that exists, as Linux's /proc does.
 */
async function makeFolder(folder: string): Promise<void> {
  const make = async (): Promise<void> => {
    await mkdir(folder).catch(async (error: unknown) => {
      if (!(await stat(folder).catch(() => undefined))?.isDirectory()) throw error;
    });
  };
  try {
    await make();
  } catch (error) {
    const above = dirname(folder);
    if (codeOf(error) !== "ENOENT" || above === folder) throw error;
    await makeFolder(above);
    await make();
  }
}

/** Windows refuses to replace a file that a virus scanner or an indexer has open; it lets go within moments. */
async function renameOver(from: string, to: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await rename(from, to);
    } catch (error) {
      const code = codeOf(error);
      const busy = process.platform === "win32" && (code === "EPERM" || code === "EACCES" || code === "EBUSY");
      if (!busy || attempt === 6) throw error;
      await new Promise((resume) => setTimeout(resume, 10 * 2 ** attempt));
    }
  }
}

/** Makes the rename itself durable where folders can be flushed. Windows cannot; the file is complete either way. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch {
    // Not supported here: nothing is lost but the guarantee that the new name survives a power cut.
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

function fileError(path: string, problem: string, error: unknown): FileError {
  const code = codeOf(error);
  const [reason, advice] = reasons[code] ?? [error instanceof Error ? error.message : String(error), undefined];
  const failure = new FileError(path, `${problem}: ${reason}${code === "" ? "" : ` (${code})`}`, advice);
  failure.cause = error;
  return failure;
}

const reasons: Readonly<Record<string, readonly [reason: string, advice: string]>> = {
  EACCES: ["permission denied", "Choose a folder you own, or change its permissions."],
  EPERM: ["not permitted", "Choose another folder, or close the program that has the file open."],
  EROFS: ["the file system is read-only", "Choose a folder on a writable disk."],
  ENOSPC: ["the disk is full", "Free some space or choose another disk."],
  EDQUOT: ["the disk quota is used up", "Free some space or choose another disk."],
  ENOENT: ["no such file or folder", "Check the path."],
  ENOTDIR: ["a part of the path is a file, not a folder", "Choose another path, or move that file away."],
  EEXIST: ["a part of the path is a file, not a folder", "Choose another path, or move that file away."],
  EISDIR: ["it is a folder", "Name a file inside it."],
  ENAMETOOLONG: ["the path is too long", "Choose a shorter one."],
  EMFILE: ["too many files are open", "Close some, or raise the limit of open files."],
  ERR_FS_FILE_TOO_LARGE: ["it is larger than 2 GiB", "Use a smaller file."],
  ERR_INVALID_ARG_VALUE: ["the path holds a zero character", "Check the path."],
};
