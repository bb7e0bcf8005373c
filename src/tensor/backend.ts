/**
 * Which implementation computes: `tensorflow` (native, when the user installed `@tensorflow/tfjs-node`), `wasm`
 * (the default, SIMD on one thread), `cpu` (plain JavaScript, the fallback). The first that loads wins;
 * the environment variable `TOKENTHRIFT_BACKEND` or an argument to `useBackend` forces one.
 */
import { ArgumentError, BackendError } from "../errors.ts";
import { tf } from "./tf.ts";
import { guardWasmHeap, registerWasmKernels } from "./wasm-kernels.ts";

export const backendNames = ["tensorflow", "wasm", "cpu"] as const;
export type BackendName = (typeof backendNames)[number];

/** In browsers, where the wasm files are served from. Not needed in Node. */
export interface BackendOptions {
  readonly wasmFolder?: string;
}

let active: BackendName | undefined;

/** The backend in use, or undefined before the first `useBackend`. */
export function activeBackend(): BackendName | undefined {
  return active;
}

/**
 * Make a backend ready; call (and await) it once before any tensor work. Later calls without a name keep the backend
 * in use; with a name they switch. Tensors made before a switch stay readable.
 *
 * @param name forces a backend. Default: `TOKENTHRIFT_BACKEND`, else the first of `backendNames` that loads.
 * @returns the backend now in use
 * @throws ArgumentError on an unknown name; BackendError when a forced backend cannot load, saying what to install
 *   (the one in use before stays in use)
 */
export async function useBackend(name?: BackendName, options: BackendOptions = {}): Promise<BackendName> {
  const fromEnvironment = typeof process === "undefined" ? undefined : process.env["TOKENTHRIFT_BACKEND"] || undefined;
  if (name === undefined && active !== undefined) return active;
  const forced = name ?? fromEnvironment;
  if (forced !== undefined) {
    if (!isBackendName(forced)) {
      const argument = name === undefined ? "TOKENTHRIFT_BACKEND" : "backend";
      throw new ArgumentError(argument, `one of ${backendNames.join(", ")}`, forced);
    }
    const problem = await load(forced, options);
    if (problem !== undefined) {
      // The library has left its backend by now, whether or not the new one started.
      if (active !== undefined) await tf.setBackend(active);
      throw new BackendError(`backend ${forced} cannot be used: ${problem}`);
    }
    active = forced;
    return forced;
  }
  const problems: string[] = [];
  for (const candidate of backendNames) {
    const problem = await load(candidate, options);
    if (problem === undefined) {
      active = candidate;
      return candidate;
    }
    problems.push(`${candidate}: ${problem}`);
  }
  throw new BackendError(`no tensor backend loads.\n${problems.join("\n")}`);
}

function isBackendName(name: string): name is BackendName {
  return (backendNames as readonly string[]).includes(name);
}

/** @returns undefined when the backend is now in use, else why not and what to do */
async function load(name: BackendName, options: BackendOptions): Promise<string | undefined> {
  if (name === "tensorflow") return loadNative();
  try {
    if (name === "wasm") {
      const wasm = await import("@tensorflow/tfjs-backend-wasm");
      if (options.wasmFolder !== undefined) wasm.setWasmPaths(options.wasmFolder);
    }
    if (!(await tf.setBackend(name)))
      return "it did not start; this runtime may lack WebAssembly. Use the cpu backend.";
    if (name === "wasm") {
      registerWasmKernels();
      guardWasmHeap();
    }
    if (name === "cpu") silenceFirstUse();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

async function loadNative(): Promise<string | undefined> {
  const advice = "Install it beside tokenthrift: npm install @tensorflow/tfjs-node@4.22.0";
  // A computed specifier: the package is an optional peer and is absent in most installations.
  const specifier = "@tensorflow/tfjs-node";
  try {
    const { createRequire } = await import("node:module");
    const util: { isNullOrUndefined?: (value: unknown) => boolean } = createRequire(import.meta.url)("node:util");
    // tfjs-node 4.22 still calls this function; Node 23 removed it.
    util.isNullOrUndefined ??= (value) => value === null || value === undefined;
    await import(specifier);
    return (await tf.setBackend("tensorflow")) ? undefined : `it did not start. ${advice}`;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    return `${reason}. ${advice}`;
  }
}

/** The cpu backend advertises the native one on first use; whoever chose it, chose it. */
function silenceFirstUse(): void {
  const backend: object = tf.backend();
  if ("firstUse" in backend) Object.assign(backend, { firstUse: false });
}
