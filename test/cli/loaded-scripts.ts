/** Which scripts a Node process loads, by its coverage record: ES modules and CommonJS alike. */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

export async function loadedScripts(words: readonly string[]): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), "tokenthrift-"));
  try {
    await promisify(execFile)(process.execPath, words, {
      cwd: join(import.meta.dirname, "../.."),
      env: { ...process.env, NODE_V8_COVERAGE: folder },
    });
    const urls = new Set<string>();
    for (const file of await readdir(folder)) {
      const coverage: { result: { url: string }[] } = JSON.parse(await readFile(join(folder, file), "utf8"));
      for (const script of coverage.result) urls.add(script.url.replace(/\?.*/, ""));
    }
    return [...urls];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
