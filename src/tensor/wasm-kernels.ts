/**
 * What TensorFlow.js 4.22 leaves out of its wasm backend: the kernel behind the gradient of `gather`, and an allocator
 * that fails loudly instead of wrapping round.
 */
import type { BackendWasm } from "@tensorflow/tfjs-backend-wasm";
import { BackendError } from "../errors.ts";
import { tf } from "./tf.ts";

/** Bytes the wasm heap may hold. Its addresses are 32-bit: at 4 GiB they wrap silently and tensors overwrite each other. */
const heapLimit = 2 ** 32 - 2 ** 27;

/** Register kernels the wasm backend lacks. Safe to call again. */
export function registerWasmKernels(): void {
  if (tf.getKernel(tf.UnsortedSegmentSum, "wasm") !== undefined) return;
  tf.registerKernel({
    kernelName: tf.UnsortedSegmentSum,
    backendName: "wasm",
    kernelFunc: ({ inputs, backend, attrs }) => {
      const wasm = backend as BackendWasm;
      const x = inputs["x"] as tf.TensorInfo;
      const segmentIds = inputs["segmentIds"] as tf.TensorInfo;
      const numSegments = (attrs as { numSegments?: number } | undefined)?.numSegments ?? 0;
      const rows = segmentIds.shape.reduce((a, b) => a * b, 1);
      const rowShape = x.shape.slice(segmentIds.shape.length);
      const width = rowShape.reduce((a, b) => a * b, 1);
      const output = wasm.makeOutput([numSegments, ...rowShape], "float32");
      // Views are taken after the allocation: growing the heap detaches older ones.
      const values = wasm.typedArrayFromHeap(x) as Float32Array;
      const ids = wasm.typedArrayFromHeap(segmentIds) as Int32Array;
      const sums = wasm.typedArrayFromHeap(output) as Float32Array;
      sums.fill(0);
      for (let r = 0; r < rows; r++) {
        const id = ids[r]!;
        if (id < 0 || id >= numSegments) continue;
        for (let c = 0; c < width; c++) sums[id * width + c]! += values[r * width + c]!;
      }
      return output;
    },
  });
}

/** The allocator that every Emscripten module has; the package's types leave it out. */
interface Allocator {
  _malloc(bytes: number): number;
  _free(address: number): void;
}

const guarded = new WeakSet<object>();

/**
 * Make allocation on the wasm heap throw a BackendError where it would return a null or wrapped address.
 * Wraps the module's allocator once per module.
 */
export function guardWasmHeap(limit: number = heapLimit): void {
  const wasm = (tf.backend() as BackendWasm).wasm as unknown as Allocator;
  if (guarded.has(wasm)) return;
  guarded.add(wasm);
  const allocate = wasm._malloc.bind(wasm);
  wasm._malloc = (bytes: number): number => {
    const address = allocate(bytes);
    const start = address >>> 0;
    if ((start === 0 && bytes > 0) || start + bytes > limit) {
      if (start !== 0) wasm._free(address);
      throw new BackendError(
        `wasm heap: ${bytes} bytes do not fit below the limit of ${limit}. ` +
          `${tf.memory().numTensors} tensors are alive, ${tf.memory().numBytes} bytes. ` +
          "Use a smaller batch, dispose tensors (tidy), or the tensorflow backend.",
      );
    }
    return address;
  };
}
