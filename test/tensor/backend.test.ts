/**
 * Which backend is chosen, by whom, and what happens when one cannot load. What hangs on a fresh module (choice order,
 * the environment variable) runs in processes of its own.
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, BackendError } from "../../src/errors.ts";
import { activeBackend, type BackendName, backendNames, useBackend } from "../../src/tensor/backend.ts";
import { matMul, multiply, read, softmax, sum, tensor, valueAndGradients } from "../../src/tensor/ops.ts";
import { tf } from "../../src/tensor/tf.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Stands in for an installed `@tensorflow/tfjs-node`: a resolver that answers the package's name with a small module. */
const installedNative = `
  import { register } from "node:module";
  const module = "data:text/javascript,globalThis.startNative()";
  const hooks = "export const resolve = (name, context, next) => name === '@tensorflow/tfjs-node'"
    + " ? { url: " + JSON.stringify(module) + ", format: 'module', shortCircuit: true } : next(name, context);";
  register("data:text/javascript," + encodeURIComponent(hooks));
  globalThis.startNative = () => tf.registerBackend("tensorflow", () => tf.findBackendFactory("cpu")());
`;
/** The package is absent, whatever this machine has installed. */
const absentNative = `
  import { register } from "node:module";
  const hooks = "export const resolve = (name, context, next) => { if (name === '@tensorflow/tfjs-node')"
    + " throw new Error('Cannot find package'); return next(name, context); };";
  register("data:text/javascript," + encodeURIComponent(hooks));
`;
const noWebAssembly = `
  Object.defineProperty(globalThis, "WebAssembly", { value: undefined });
`;

interface Outcome {
  readonly results: readonly unknown[];
  readonly output: string;
}

/**
 * Runs `body` in a fresh process. In scope: useBackend, activeBackend, tf, `report(value)`, and `attempt(name)`, which
 * reports what useBackend returns or throws.
 * @returns what was reported, and all else it printed
 */
function inFreshProcess(body: string, environment: Record<string, string> = {}): Promise<Outcome> {
  const script = `
    const marker = "reported: ";
    const report = (value) => console.log(marker + JSON.stringify(value));
    const attempt = async (name) => {
      try {
        report(await useBackend(name));
      } catch (error) {
        report({ name: error.name, message: error.message });
      }
    };
    const { useBackend, activeBackend } = await import("./src/tensor/backend.ts");
    const { tf } = await import("./src/tensor/tf.ts");
    ${body}
  `;
  const inherited = { ...process.env };
  delete inherited["TOKENTHRIFT_BACKEND"];
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      ["--import", "tsx", "--input-type=module", "--eval", script],
      { cwd: root, env: { ...inherited, ...environment } },
      (error, stdout, stderr) => {
        if (error !== null) return reject(new Error(`${error.message}\n${stdout}${stderr}`));
        const lines = stdout.split("\n").filter((line) => line !== "");
        const reports = lines.filter((line) => line.startsWith("reported: "));
        resolve({
          results: reports.map((line) => JSON.parse(line.slice("reported: ".length)) as unknown),
          output: [...lines.filter((line) => !reports.includes(line)), stderr].join("\n").trim(),
        });
      },
    );
  });
}

describe("choice", () => {
  it("is the native backend when it is installed, without asking", async () => {
    const { results } = await inFreshProcess(`
      ${installedNative}
      report(activeBackend() ?? null);
      await attempt();
      report([activeBackend(), tf.getBackend()]);
      await attempt();
      await attempt("wasm");
      report([activeBackend(), tf.getBackend()]);
    `);
    expect(results).toEqual([null, "tensorflow", ["tensorflow", "tensorflow"], "tensorflow", "wasm", ["wasm", "wasm"]]);
  });

  it("is wasm when it is not, and says nothing about it; an empty variable counts as unset", async () => {
    const { results, output } = await inFreshProcess(`${absentNative} await attempt(); report(tf.getBackend());`, {
      TOKENTHRIFT_BACKEND: "",
    });
    expect(results).toEqual(["wasm", "wasm"]);
    expect(output).toBe("");
  });

  it("follows TOKENTHRIFT_BACKEND: refuses an unknown name, says what to install, and yields to the call's own name", async () => {
    // One process: a refused choice leaves none, so the next attempt chooses afresh.
    const { results, output } = await inFreshProcess(
      `
      ${absentNative}
      await attempt();
      process.env.TOKENTHRIFT_BACKEND = "tensorflow";
      await attempt();
      report(activeBackend() ?? null);
      process.env.TOKENTHRIFT_BACKEND = "cpu";
      await attempt();
      report(tf.getBackend());
      tf.scalar(1).add(1).dataSync();
      await attempt("wasm");
      await attempt();
      `,
      { TOKENTHRIFT_BACKEND: "cuda" },
    );
    interface Reported {
      readonly name: string;
      readonly message: string;
    }
    const [unknown, absent, ...rest] = results as [Reported, Reported, ...unknown[]];
    expect(unknown.name).toBe("ArgumentError");
    expect(unknown.message).toBe('TOKENTHRIFT_BACKEND: expected one of tensorflow, wasm, cpu, got "cuda".');
    expect(absent.name).toBe("BackendError");
    expect(absent.message).toContain("backend tensorflow cannot be used: ");
    expect(absent.message).toContain("npm install @tensorflow/tfjs-node@4.22.0");
    expect(rest).toEqual([null, "cpu", "cpu", "wasm", "wasm"]);
    expect(output).toBe(""); // the cpu backend would advertise the native one
  });

  it("falls back to cpu where there is no WebAssembly; forcing wasm there fails and leaves the backend in use", async () => {
    const { results } = await inFreshProcess(`
      ${absentNative}
      ${noWebAssembly}
      await attempt();
      await attempt("wasm");
      report([activeBackend(), tf.getBackend()]);
      report([...tf.add(tf.tensor1d([1, 2]), 1).dataSync()]);
    `);
    const [first, error, after, values] = results as [string, { name: string; message: string }, string[], number[]];
    expect(first).toBe("cpu");
    expect(error.name).toBe("BackendError");
    expect(error.message).toContain("backend wasm cannot be used: ");
    expect(after).toEqual(["cpu", "cpu"]);
    expect(values).toEqual([2, 3]);
  });
});

describe("in one process", () => {
  beforeAll(async () => {
    await useBackend("wasm");
  });

  it("keeps the backend in use when none is named", async () => {
    for (const name of ["cpu", "wasm"] as const) {
      await useBackend(name);
      expect(await useBackend()).toBe(name);
      expect(activeBackend()).toBe(name);
      expect(tf.getBackend()).toBe(name);
    }
  });

  it("refuses an unknown name and keeps the one in use", async () => {
    await useBackend("wasm");
    for (const name of ["webgl", "WASM", "", "toString"]) {
      await expect(useBackend(name as BackendName)).rejects.toThrow(ArgumentError);
      await expect(useBackend(name as BackendName)).rejects.toThrow(/^backend: expected one of tensorflow, wasm, cpu/);
    }
    expect([activeBackend(), tf.getBackend()]).toEqual(["wasm", "wasm"]);
  });

  it("reads, computes and differentiates with tensors from before a switch", async () => {
    await useBackend("wasm");
    const a = tensor(Float32Array.of(1, 2, 3, 4), [2, 2]);
    await useBackend("cpu");
    const b = tensor(Float32Array.of(0.5, -1, 2, 0), [2, 2]);
    expect([...read(a)]).toEqual([1, 2, 3, 4]);
    const onCpu = matMul(a, b);
    const f = ({ x }: { x?: typeof a }): typeof a => sum(multiply(softmax(x!), b));
    const cpu = valueAndGradients(f, { x: a });
    await useBackend("wasm");
    const onWasm = matMul(a, b);
    expect([...read(onCpu)]).toEqual([4.5, -1, 9.5, -3]);
    expect([...read(onWasm)]).toEqual([4.5, -1, 9.5, -3]);
    const wasm = valueAndGradients(f, { x: a });
    const [one, other] = [read(cpu.gradients["x"]!), read(wasm.gradients["x"]!)];
    one.forEach((value, i) => {
      expect(Math.abs(value - other[i]!)).toBeLessThan(1e-7);
    });
    expect(one.some((value) => value !== 0)).toBe(true);
    for (const t of [a, b, onCpu, onWasm, cpu.value, cpu.gradients["x"]!, wasm.value, wasm.gradients["x"]!])
      t.dispose();
  });

  it("a switch that fails leaves the backend in use, usable", async () => {
    await useBackend("cpu");
    const failed = await useBackend("tensorflow").then(
      () => undefined,
      (error: unknown) => error,
    );
    if (failed === undefined) {
      expect([activeBackend(), tf.getBackend()]).toEqual(["tensorflow", "tensorflow"]); // it is installed here
      return;
    }
    expect(failed).toBeInstanceOf(BackendError);
    expect([activeBackend(), tf.getBackend()]).toEqual(["cpu", "cpu"]);
    const x = tensor(Float32Array.of(1, 2), [2]);
    expect([...read(x)]).toEqual([1, 2]);
    x.dispose();
  });

  it("names its backends in the order of choice", () => {
    expect(backendNames).toEqual(["tensorflow", "wasm", "cpu"]);
  });
});
