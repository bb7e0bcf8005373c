/**
 * Which kernels are opened, by whose wish, and what happens where they cannot be. What a module remembers (the warning,
 * compiled code) is asked of a fresh copy of it; runtimes that lack something are stubbed, and run where Node has a flag.
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Kernels, kernelKinds, openKernels } from "../../src/kernels/index.ts";
import { Draw, spaces } from "./guarded.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const best = spaces.get("relaxed") === undefined ? "simd" : "relaxed";
const argumentError = (argument: string) => expect.objectContaining({ name: "ArgumentError", argument });
const backendError = (message: RegExp) =>
  expect.objectContaining({ name: "BackendError", message: expect.stringMatching(message) });

/** The module as it is before anything was opened. */
async function fresh(): Promise<typeof import("../../src/kernels/index.ts")> {
  vi.resetModules();
  return import("../../src/kernels/index.ts");
}

/** `WebAssembly`, with some of it replaced, as a runtime's own would be. */
const stubWebAssembly = (changes: Record<string, unknown>) =>
  vi.stubGlobal("WebAssembly", Object.assign(Object.create(WebAssembly), changes));

const noSimd = () => stubWebAssembly({ validate: () => false });

beforeEach(() => vi.stubEnv("TOKENTHRIFT_KERNELS", undefined));
afterEach(() => {
  vi.unstubAllEnvs();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

describe("choice", () => {
  it("takes the first kind that loads", async () => {
    const { kind, module, arena } = await openKernels();
    expect(kind).toBe(best);
    expect(module).toBeInstanceOf(WebAssembly.Module);
    expect(arena.memory).toBeInstanceOf(WebAssembly.Memory);
  });

  it.each(kernelKinds.filter((kind) => kind !== "relaxed" || best === kind))("opens %s when told to", async (kind) => {
    const space = await openKernels({ kernels: kind });
    expect(space.kind).toBe(kind);
    expect(space.module === undefined).toBe(kind === "plain");
    vi.stubEnv("TOKENTHRIFT_KERNELS", kind);
    expect((await openKernels()).kind).toBe(kind);
  });

  it("asks the option before the environment variable; an empty one says nothing", async () => {
    vi.stubEnv("TOKENTHRIFT_KERNELS", "plain");
    expect((await openKernels({ kernels: "simd" })).kind).toBe("simd");
    expect((await openKernels({ kernels: undefined })).kind).toBe("plain");
    vi.stubEnv("TOKENTHRIFT_KERNELS", "");
    expect((await openKernels()).kind).toBe(best);
  });

  it("names what was asked for wrongly, and lists what there is", async () => {
    const message = /expected one of relaxed, simd, plain, got "fast"/;
    await expect(openKernels({ kernels: "fast" as "simd" })).rejects.toThrow(message);
    await expect(openKernels({ kernels: "" as "simd" })).rejects.toThrow(argumentError("kernels"));
    vi.stubEnv("TOKENTHRIFT_KERNELS", "fast");
    await expect(openKernels()).rejects.toThrow(message);
    await expect(openKernels()).rejects.toThrow(argumentError("TOKENTHRIFT_KERNELS"));
    await expect(openKernels({ kernels: "fast" as "simd" })).rejects.toThrow(argumentError("kernels"));
    expect((await openKernels({ kernels: "plain" })).kind).toBe("plain");
  });

  it("opens spaces that share nothing but code, each within its limit", async () => {
    const [a, b] = [await openKernels({ kernels: "simd" }), await openKernels({ kernels: "simd" })];
    expect(a.module).toBe(b.module);
    expect(a.arena.memory).not.toBe(b.arena.memory);
    const limited = await openKernels({ maximumBytes: 131_072 });
    expect(limited.arena.maximumBytes).toBe(131_072);
    await expect(openKernels({ maximumBytes: 1 })).rejects.toThrow(argumentError("maximumBytes"));
    await expect(openKernels({ maximumBytes: 1, kernels: "plain" })).rejects.toThrow(argumentError("maximumBytes"));
  });
});

describe("a runtime without WebAssembly SIMD", () => {
  const warnings = () => vi.spyOn(console, "warn").mockImplementation(() => {});

  it.each([
    ["that cannot validate it", noSimd],
    ["that has no WebAssembly", () => vi.stubGlobal("WebAssembly", undefined)],
    [
      "that forbids to compile",
      () =>
        stubWebAssembly({
          Module: class {
            constructor() {
              throw new Error("disallowed by embedder");
            }
          },
        }),
    ],
    [
      "whose instructions mean something else",
      () =>
        stubWebAssembly({
          Instance: class {
            readonly exports = { f: () => 11 };
          },
        }),
    ],
  ])("%s gets plain kernels and is told so once", async (_, stub) => {
    const { openKernels, bestKernels } = await fresh();
    const warned = warnings();
    stub();
    const { kind, kernels, arena, module } = await openKernels();
    expect([kind, module]).toEqual(["plain", undefined]);
    expect((await openKernels()).kind).toBe("plain");
    expect(bestKernels()).toBe("plain");
    expect(warned.mock.calls).toEqual([[expect.stringMatching(/lacks WebAssembly SIMD; plain .* slower/)]]);
    const x = arena.allocate(16);
    arena.floats.set([1, 4, 2, 4], x / 4);
    expect(kernels.argMax(x, 4)).toBe(1);
  });

  it("opens plain kernels without a word when they are asked for", async () => {
    const { openKernels } = await fresh();
    const warned = warnings();
    noSimd();
    await openKernels({ kernels: "plain" });
    vi.stubEnv("TOKENTHRIFT_KERNELS", "plain");
    await openKernels();
    expect(warned).not.toHaveBeenCalled();
  });

  it("is an error for who forces another kind, or shared memory", async () => {
    const warned = warnings();
    noSimd();
    await expect(openKernels({ kernels: "simd" })).rejects.toThrow(backendError(/simd .* lacks WebAssembly SIMD\. Use plain/)); // biome-ignore format: one line
    await expect(openKernels({ kernels: "relaxed" })).rejects.toThrow(backendError(/lacks WebAssembly relaxed SIMD/));
    vi.stubEnv("TOKENTHRIFT_KERNELS", "simd");
    await expect(openKernels()).rejects.toThrow(backendError(/simd/));
    expect(warned).not.toHaveBeenCalled();
    vi.stubEnv("TOKENTHRIFT_KERNELS", undefined);
    await expect(openKernels({ shared: true })).rejects.toThrow(backendError(/plain kernels: threads share/));
  });

  it("compiles again after it could not", async () => {
    const { openKernels } = await fresh();
    stubWebAssembly({ compile: () => Promise.reject(new Error("out of memory")) });
    await expect(openKernels({ kernels: "simd" })).rejects.toThrow(
      backendError(/simd cannot be loaded \(Error: out of/),
    );
    vi.unstubAllGlobals();
    expect((await openKernels({ kernels: "simd" })).kind).toBe("simd");
  });
});

describe("shared memory", () => {
  it("is shared, also after it has grown", async () => {
    const { arena, kind } = await openKernels({ shared: true });
    expect(kind).toBe(best);
    for (const bytes of [1, 200_000]) {
      arena.allocate(bytes);
      expect(arena.memory.buffer).toBeInstanceOf(SharedArrayBuffer);
      expect([arena.bytes, arena.floats, arena.integers].map((view) => view.buffer)).toEqual(
        Array(3).fill(arena.memory.buffer),
      );
    }
    expect((await openKernels()).arena.memory.buffer).toBeInstanceOf(ArrayBuffer);
    expect((await openKernels({ shared: false })).arena.memory.buffer).toBeInstanceOf(ArrayBuffer);
  });

  it("is refused with plain kernels, and an error where it cannot be had", async () => {
    await expect(openKernels({ kernels: "plain", shared: true })).rejects.toThrow(backendError(/plain/));
    stubWebAssembly({
      Memory: class {
        constructor({ shared = false }) {
          if (shared) throw new TypeError("not cross-origin isolated");
        }
      },
    });
    await expect(openKernels({ kernels: "simd", shared: true })).rejects.toThrow(
      backendError(/simd in shared memory cannot be loaded \(TypeError: not cross-origin isolated\)/),
    );
  });

  it("is computed in by two threads at once, with the same bits as by one", async () => {
    const { arena, kernels, module } = await openKernels({ shared: true });
    const [inputs, panels] = [40, 12];
    const draw = new Draw(7);
    const place = (values: Float32Array) => {
      const pointer = arena.allocate(values.byteLength);
      arena.floats.set(values, pointer / 4);
      return pointer;
    };
    const x = place(draw.row(inputs));
    const w = place(draw.row(inputs * panels * 8));
    const y = place(new Float32Array(panels * 8));
    const product = (first: number, end: number): Parameters<Kernels["product"]> => [x, inputs, 1, w, 0, inputs, first, end, y, panels * 8, 0, 0]; // biome-ignore format: one line
    kernels.product(...product(0, panels));
    const alone = arena.floats.slice(y / 4, y / 4 + panels * 8);
    arena.floats.fill(0, y / 4, y / 4 + panels * 8);
    const worker = new Worker(
      `const { workerData: { module, memory, call }, parentPort } = require("node:worker_threads");
       const { exports } = new WebAssembly.Instance(module, { env: { memory, abort() {} } });
       exports.product(...call);
       parentPort.postMessage("done");`,
      { eval: true, workerData: { module, memory: arena.memory, call: product(8, panels) } },
    );
    const done = new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    kernels.product(...product(0, 8));
    await done;
    await worker.terminate();
    expect(arena.floats.slice(y / 4, y / 4 + panels * 8)).toEqual(alone);
  });
});

describe("kernels", () => {
  it("are all there, in every kind", () => {
    const names = Object.keys(spaces.get("plain")!.kernels).sort();
    expect(names).toHaveLength(15);
    for (const space of spaces.values()) {
      if (space !== undefined) expect(Object.keys(space.kernels).filter((name) => name !== "memory").sort()).toEqual(names); // biome-ignore format: one line
    }
  });
});

/** What a fresh Node process prints, of an ES module that sees `openKernels` and `allowRelaxedSimd`. */
function inFreshProcess(body: string, ...flags: string[]): Promise<{ output: string; errors: string }> {
  const script = `const { openKernels, allowRelaxedSimd } = await import("./src/kernels/index.ts");\n${body}`;
  const { TOKENTHRIFT_KERNELS: _, ...env } = process.env;
  const options = { cwd: root, env };
  return new Promise((resolve, reject) => {
    const args = [...flags, "--import", "tsx", "--input-type=module", "--eval", script];
    execFile(process.execPath, args, options, (error, output, errors) => {
      if (error === null) resolve({ output: output.trim(), errors: errors.trim() });
      else reject(new Error(`${error.message}\n${output}${errors}`));
    });
  });
}

describe("in a process of its own", () => {
  it.concurrent("without `process`, as in a browser, the best kernels open", async ({ expect }) => {
    const { output, errors } = await inFreshProcess(`
      const { process } = globalThis;
      process.env.TOKENTHRIFT_KERNELS = "plain"; // nobody can ask
      globalThis.process = undefined;
      const { kind } = await openKernels();
      const allowed = await allowRelaxedSimd();
      globalThis.process = process;
      console.log(kind, allowed);
    `);
    expect(errors).toBe("");
    expect(output).toMatch(/^(relaxed true|simd false)$/);
  });

  it.concurrent("relaxed SIMD is used once it is allowed, where Node has it behind a switch", async ({ expect }) => {
    const { output, errors } = await inFreshProcess(`
      const { kind } = await openKernels();
      for (let i = 0; i < 2; i++) console.log(await allowRelaxedSimd(), (await openKernels()).kind);
      console.log(kind);
    `);
    expect(errors).toBe("");
    const [once, again, before] = output.split("\n");
    expect(again).toBe(once);
    expect(once).toBe(before === "simd" && !process.versions.v8.startsWith("11.") ? "false simd" : "true relaxed");
  });

  // A processor older than SSSE3 makes V8 do without SIMD.
  it.skipIf(process.arch !== "x64").concurrent(
    "without SIMD plain kernels open, with one line on standard error",
    async ({ expect }) => {
      const { output, errors } = await inFreshProcess(
        `for (let i = 0; i < 3; i++) console.log((await openKernels()).kind);
       await openKernels({ kernels: "simd" }).catch(({ name }) => console.log(name));`,
        "--no-enable-ssse3",
      );
      expect(output.split("\n")).toEqual(["plain", "plain", "plain", "BackendError"]);
      expect(errors).toMatch(/^tokenthrift: this runtime lacks WebAssembly SIMD[^\n]*$/);
    },
  );
});
