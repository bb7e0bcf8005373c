/** Makes sure of a folder before hours, or a minute, of work depend on it. */
import { join } from "node:path";
import { removeFile, writeFileAtomic } from "../files.ts";

/**
 * Create the folder where it is missing, and write and delete a file in it.
 * @throws FileError when that does not work
 */
export async function requireWritableFolder(folder: string): Promise<void> {
  const probe = join(folder, `.writable-${process.pid}`);
  await writeFileAtomic(probe, "");
  await removeFile(probe);
}
