/**
 * What TensorFlow.js 4.22 leaves out of its wasm backend: the kernel behind the gradient of `gather`, and an allocator
 * that fails loudly instead of wrapping round.
 */
import type { BackendWasm } from "@tensorflow/tfjs-backend-wasm";
import { BackendError } from "../errors.ts";
import { tf } from "./tf.ts";

/** Bytes the wasm heap may hold. Its addresses are 32-bit: at 4 GiB they wrap silently and tensors overwrite each other. */
const heapLimit = 2 ** 32 - 2 ** 27;

/**
 * Make a clone share its tensor's memory, as a reshape does (tensors never change). The library copies it, and clones
 * every tensor a gradient needs: half the memory of a training step, and an allocation that can fail half-way.
 */
function shareClones(): void {
  if (mended.has(tf.Identity)) return;
  mended.add(tf.Identity);
  tf.unregisterKernel(tf.Identity, "wasm");
  tf.registerKernel({
    kernelName: tf.Identity,
    backendName: "wasm",
    kernelFunc: ({ inputs, backend }) => {
      const { dataId, shape, dtype } = inputs["x"] as tf.TensorInfo;
      (backend as BackendWasm).incRef(dataId);
      return { dataId, shape, dtype };
    },
  });
}

/** Register kernels the wasm backend lacks, and mend those that waste or leak memory. Safe to call again. */
export function registerWasmKernels(): void {
  mendViewingKernels();
  shareClones();
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
      const output = wasm.makeOutput([numSegments, ...rowShape], x.dtype);
      // Views are taken after the allocation: growing the heap detaches older ones.
      const values = wasm.typedArrayFromHeap(x) as Float32Array | Int32Array;
      const ids = wasm.typedArrayFromHeap(segmentIds) as Int32Array;
      const sums = wasm.typedArrayFromHeap(output) as Float32Array | Int32Array;
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

/** Kernels that take a second reference to their inputs (a reshaped view) before they allocate their result. */
const viewing = [tf.BatchMatMul, tf.GatherV2];
const mended = new Set<string>();

/**
 * Make the kernels above give those references back when the allocation throws; without it, the memory of both inputs
 * of every product that did not fit stays taken for good.
 */
function mendViewingKernels(): void {
  for (const kernelName of viewing) {
    const kernel = tf.getKernel(kernelName, "wasm");
    if (kernel === undefined || mended.has(kernelName)) continue;
    mended.add(kernelName);
    tf.unregisterKernel(kernelName, "wasm");
    tf.registerKernel({
      ...kernel,
      kernelFunc: (call) => {
        const backend = call.backend as BackendWasm;
        const inputs = Object.values(call.inputs).map((input) => (input as tf.TensorInfo).dataId);
        const references = inputs.map((id) => backend.refCount(id));
        try {
          return kernel.kernelFunc(call);
        } catch (error) {
          inputs.forEach((id, i) => {
            while (backend.refCount(id) > references[i]!) backend.disposeData(id);
          });
          throw error;
        }
      },
    });
  }
}

/** What every Emscripten module has and the package's types leave out. */
interface EmscriptenModule {
  readonly asm: { readonly memory: WebAssembly.Memory };
  _malloc(bytes: number): number;
  _free(address: number): void;
}

const bytesPerPage = 65_536;
const guarded = new WeakSet<object>();

/**
 * Make an allocation that does not fit below `limit` throw a BackendError. The heap itself is kept from growing past
 * the limit, so that no block beyond it exists, for us or for the library's own code; the allocator then answers with
 * a null address, which the backend would take for a place to write to. Once per module: the first limit holds.
 */
export function guardWasmHeap(limit: number = heapLimit): void {
  const wasm = (tf.backend() as BackendWasm).wasm as unknown as EmscriptenModule;
  if (guarded.has(wasm)) return;
  guarded.add(wasm);

  const { memory } = wasm.asm;
  const grow = memory.grow.bind(memory);
  memory.grow = (pages: number): number => {
    // The module catches this and reports to its allocator that there is no more.
    if (memory.buffer.byteLength + pages * bytesPerPage > limit) throw new RangeError("heap limit");
    return grow(pages);
  };

  // Until first called, `_malloc` and `_free` are stubs that put the real functions in their own place: here, in the
  // guard's.
  wasm._free(wasm._malloc(1));
  const allocate = wasm._malloc.bind(wasm);
  wasm._malloc = (bytes: number): number => {
    // A size of 4 GiB or more would reach the allocator modulo 2^32.
    const address = bytes > limit ? 0 : allocate(bytes);
    if (address === 0 && bytes > 0) {
      throw new BackendError(
        `wasm heap: ${bytes} bytes do not fit below the limit of ${limit}. ` +
          `${tf.memory().numTensors} tensors are alive, ${tf.memory().numBytes} bytes. ` +
          "Use a smaller batch, dispose tensors (tidy), or the tensorflow backend.",
      );
    }
    return address;
  };
}
