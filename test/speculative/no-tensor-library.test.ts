/**
 * `tokenthrift/speculative` and `tokenthrift/tokenization` are plain TypeScript: importing them loads no TensorFlow.js.
 *
 * A child process imports one module under V8's coverage, which lists every script that was loaded, ES module or
 * CommonJS. The tensor layer is the control: the list must show TensorFlow.js there, or it would show it nowhere.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");

async function loadedBy(module: string): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), "tokenthrift-"));
  try {
    const url = pathToFileURL(join(root, module)).href;
    await promisify(execFile)(
      process.execPath,
      ["--import", "tsx", "--input-type=module", "--eval", `await import(${JSON.stringify(url)})`],
      { cwd: root, env: { ...process.env, NODE_V8_COVERAGE: folder } },
    );
    const urls = new Set<string>();
    for (const file of await readdir(folder)) {
      const coverage: { result: { url: string }[] } = JSON.parse(await readFile(join(folder, file), "utf8"));
      for (const script of coverage.result) urls.add(script.url.replace(/\?.*/, ""));
    }
    expect(urls, "the module itself is among the scripts").toContain(url);
    return [...urls];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const tensorLibrary = (urls: readonly string[]) =>
  urls.filter(
    (url) =>
      url.includes("@tensorflow") || /\/src\/tensor\/(?!random\.ts|row-quantization\.ts|safetensors\.ts)/.test(url),
  );

describe("loads no tensor library", () => {
  it.each(["src/speculative/index.ts", "src/tokenization/index.ts"])("%s", async (module) => {
    expect(tensorLibrary(await loadedBy(module))).toEqual([]);
  });

  it("while the tensor layer does, which shows that the test can tell", async () => {
    const found = tensorLibrary(await loadedBy("src/tensor/index.ts"));
    expect(found.some((url) => url.includes("@tensorflow"))).toBe(true);
    expect(found.some((url) => url.includes("/src/tensor/"))).toBe(true);
  });
});
