/**
 * Relaxed SIMD where the runtime has it behind a switch. Node 20 knows the instructions but keeps them off; from Node 22 and in
 * browsers since 2024 they are on, and nothing has to be done.
 */
import { bestKernels } from "./kernels.ts";

/**
 * Turn on V8's relaxed SIMD for the whole process. For programs, which own their process: the command line and the
 * benches call it; the library never does by itself. Call it before kernels are opened.
 * @returns whether relaxed kernels can be used now
 */
export async function allowRelaxedSimd(): Promise<boolean> {
  if (bestKernels() === "relaxed") return true;
  // Later versions need no switch, and complain about one they do not know.
  if (typeof process === "undefined" || !process.versions?.v8?.startsWith("11.")) return false;
  const { setFlagsFromString } = await import("node:v8");
  setFlagsFromString("--experimental-wasm-relaxed-simd");
  return bestKernels() === "relaxed";
}
