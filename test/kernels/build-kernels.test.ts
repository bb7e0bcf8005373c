/**
 * scripts/build-kernels.mjs in a folder of its own, on sources of a few lines. With TOKENTHRIFT_FULL=1 also a second
 * time and on the real ones, which takes several seconds.
 */
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const stamp = /^\/\/ Made by scripts\/build-kernels\.mjs from sources [0-9a-f]{16}\. Do not edit\.$/;
let folder: string;
let kernels: string;
let output: string;
let scratch: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tokenthrift build ü "));
  kernels = join(folder, "src", "kernels");
  output = join(kernels, "compiled.ts");
  scratch = join(folder, "scratch");
  for (const path of [scratch, join(kernels, "assembly"), join(folder, "scripts"), join(folder, "node_modules")]) {
    mkdirSync(path, { recursive: true });
  }
  copyFileSync(join(root, "scripts", "build-kernels.mjs"), join(folder, "scripts", "build-kernels.mjs"));
  // Its own packages are found from where it really lies.
  symlinkSync(join(root, "node_modules", "assemblyscript"), join(folder, "node_modules", "assemblyscript"), "junction");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const source = (text: string) => writeFileSync(join(kernels, "assembly", "index.ts"), text);

/** Runs the script from elsewhere; what it leaves in folders for temporary files is seen. */
function build(): { status: number | null; errors: string } {
  const script = join(folder, "scripts", "build-kernels.mjs");
  const env = { ...process.env, TMPDIR: scratch, TEMP: scratch, TMP: scratch };
  const { status, stdout, stderr } = spawnSync(process.execPath, [script], { cwd: tmpdir(), env, encoding: "utf8" });
  expect(stdout).toBe("");
  expect(readdirSync(scratch)).toEqual([]);
  return { status, errors: stderr };
}

/** What the output holds: its first line, and `answer()` of each module. */
function built(): { first: string; answers: Record<string, number> } {
  const text = readFileSync(output, "utf8");
  const answers: Record<string, number> = {};
  for (const [, name, bytes] of text.matchAll(/^ {2}(\w+):\n {4}"([^"]+)",$/gm)) {
    const shared = name!.endsWith("Shared");
    const memory = new WebAssembly.Memory(shared ? { initial: 1, maximum: 65_536, shared } : { initial: 1 });
    const module = new WebAssembly.Module(Buffer.from(bytes!, "base64"));
    const { exports } = new WebAssembly.Instance(module, { env: { memory } });
    answers[name!] = (exports as { answer(): number })["answer"]();
  }
  return { first: text.split("\n", 1)[0]!, answers };
}

const all = (answer: number) => ({ simd: answer, relaxed: answer, simdShared: answer, relaxedShared: answer });
const old = new Date(2001, 1, 1);
const untouched = () => statSync(output).mtime.getTime() === old.getTime();

describe("build-kernels", () => {
  let first: string;

  it("compiles every variant when there is no output", () => {
    source("export function answer(): i32 {\n  return 42;\n}\n");
    expect(build()).toEqual({ status: 0, errors: "" });
    expect(built().answers).toEqual(all(42));
    first = built().first;
    expect(first).toMatch(stamp);
    expect(readdirSync(kernels).sort()).toEqual(["assembly", "compiled.ts"]);
  });

  it("does nothing when the sources are the same, or the same but for line ends", () => {
    utimesSync(output, old, old);
    expect(build()).toEqual({ status: 0, errors: "" });
    expect(untouched()).toBe(true);
    source("export function answer(): i32 {\r\n  return 42;\r\n}\r\n");
    expect(build()).toEqual({ status: 0, errors: "" });
    expect(untouched()).toBe(true);
  });

  it("compiles again when a source has changed; an error is reported where it is, and leaves the old output in place", () => {
    source("export function answer(): i32 {\n  return nothing;\n}\n");
    const { status, errors } = build();
    expect(status).toBe(1);
    expect(errors).toContain("the kernels do not compile (simd)");
    expect(errors).toContain("Cannot find name 'nothing'");
    expect(errors).toContain("index.ts(2,");
    expect(untouched()).toBe(true);
    expect(built()).toEqual({ first, answers: all(42) });
    expect(readdirSync(kernels).sort()).toEqual(["assembly", "compiled.ts"]);
  });

  describe.skipIf(!process.env["TOKENTHRIFT_FULL"])("in full", () => {
    it("replaces the old output when a changed source compiles", () => {
      source("export function answer(): i32 {\n  return 43;\n}\n");
      expect(build()).toEqual({ status: 0, errors: "" });
      expect(built().answers).toEqual(all(43));
      expect(built().first).toMatch(stamp);
      expect(built().first).not.toBe(first);
      expect(readdirSync(kernels).sort()).toEqual(["assembly", "compiled.ts"]);
    });

    it("makes of the same sources the same bytes, wherever they lie", () => {
      cpSync(join(root, "src", "kernels", "assembly"), join(kernels, "assembly"), { recursive: true });
      expect(build()).toEqual({ status: 0, errors: "" });
      expect(readFileSync(output, "utf8")).toBe(readFileSync(join(root, "src", "kernels", "compiled.ts"), "utf8"));
    });
  });
});
