/** The kernel and the heap guard that the wasm backend gets from us. This file starts the backend by hand, so that both are seen missing first. */
import type { BackendWasm } from "@tensorflow/tfjs-backend-wasm";
import "@tensorflow/tfjs-backend-wasm";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { BackendError } from "../../src/errors.ts";
import { useBackend } from "../../src/tensor/backend.ts";
import {
  add,
  aliveTensors,
  gather,
  gelu,
  integers,
  layerNorm,
  matMul,
  ones,
  read,
  rmsNorm,
  silu,
  softmax,
  sum,
  tensor,
  tidy,
  transpose,
  valueAndGradients,
} from "../../src/tensor/ops.ts";
import { type Tensor, tf } from "../../src/tensor/tf.ts";
import { guardWasmHeap, registerWasmKernels } from "../../src/tensor/wasm-kernels.ts";

const mebibyte = 2 ** 20;
const limit = 64 * mebibyte;
const backend = (): BackendWasm => tf.backend() as BackendWasm;
/** The package's types leave the heap out. */
const heapSize = (): number => (backend().wasm as unknown as { HEAPU8: Uint8Array }).HEAPU8.byteLength;
const missing: string[] = [];

beforeAll(async () => {
  expect(await tf.setBackend("wasm")).toBe(true);
  if (tf.getKernel("UnsortedSegmentSum", "wasm") === undefined) missing.push("UnsortedSegmentSum");
  registerWasmKernels();
  guardWasmHeap(limit);
  expect(await useBackend("wasm")).toBe("wasm"); // registers and guards again: neither may change anything
});

describe("UnsortedSegmentSum", () => {
  it("is missing in the library and there after registering; registering again changes nothing", () => {
    expect(missing).toEqual(["UnsortedSegmentSum"]);
    const kernel = tf.getKernel("UnsortedSegmentSum", "wasm");
    expect(kernel).toBeDefined();
    registerWasmKernels();
    expect(tf.getKernel("UnsortedSegmentSum", "wasm")).toBe(kernel);
  });

  it("sums rows by id: by hand", () => {
    const sums = tidy(() => {
      const rows = tensor(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), [4, 2]);
      return tf.unsortedSegmentSum(rows, tf.tensor1d([2, 0, 2, 0], "int32"), 4);
    });
    expect(sums.shape).toEqual([4, 2]);
    expect([...read(sums)]).toEqual([10, 12, 0, 0, 6, 8, 0, 0]);
    sums.dispose();
  });

  it("drops rows whose id is negative or too large", () => {
    const sums = tidy(() =>
      tf.unsortedSegmentSum(tensor(Float32Array.of(1, 2, 4, 8), [4]), tf.tensor1d([-1, 1, 2, 1], "int32"), 2),
    );
    expect([...read(sums)]).toEqual([0, 10]);
    sums.dispose();
  });

  it("keeps integers integers", () => {
    const sums = tidy(() => tf.unsortedSegmentSum(tf.tensor1d([1, 2, 4], "int32"), tf.tensor1d([0, 1, 1], "int32"), 2));
    expect(sums.dtype).toBe("int32");
    expect([...sums.dataSync()]).toEqual([1, 6]);
    sums.dispose();
  });

  it("property: equals plain loops, and leaves no tensor", () => {
    const sizes = fc.record({
      rows: fc.integer({ min: 1, max: 12 }),
      shape: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 3 }),
      segments: fc.integer({ min: 1, max: 6 }),
      seed: fc.integer(),
    });
    fc.assert(
      fc.property(sizes, ({ rows, shape, segments, seed }) => {
        const width = shape.reduce((a, b) => a * b, 1);
        // Small whole numbers: sums are exact in float32, in any order.
        const values = Float32Array.from({ length: rows * width }, (_, i) => ((i * 31 + seed) % 17) - 8);
        const ids = Int32Array.from({ length: rows }, (_, i) => (Math.abs(i * 7 + seed) % (segments + 2)) - 1);
        const expected = new Float32Array(segments * width);
        ids.forEach((id, r) => {
          if (id < 0 || id >= segments) return;
          for (let c = 0; c < width; c++) expected[id * width + c]! += values[r * width + c]!;
        });
        const alive = aliveTensors();
        const sums = tidy(() =>
          tf.unsortedSegmentSum(tensor(values, [rows, ...shape]), tf.tensor1d(ids, "int32"), segments),
        );
        expect(sums.shape).toEqual([segments, ...shape]);
        expect(read(sums)).toEqual(expected);
        sums.dispose();
        expect(aliveTensors()).toBe(alive);
      }),
      { numRuns: 100 },
    );
  });

  it("is right when its own output makes the heap grow, which detaches older views of it", () => {
    const before = heapSize();
    const rows = tensor(
      Float32Array.from({ length: 6 }, (_, i) => i + 1),
      [3, 2],
    );
    const segments = before / 8; // [segments, 2] float32: as much as the whole heap
    const ids = tf.tensor1d([5, segments - 1, 5], "int32");
    const sums = tf.unsortedSegmentSum(rows, ids, segments);
    expect(heapSize()).toBeGreaterThan(before);
    const values = read(sums);
    expect([...values.subarray(10, 12)]).toEqual([6, 8]);
    expect([...values.subarray(-2)]).toEqual([3, 4]);
    expect(values.reduce((a, b) => a + b, 0)).toBe(21);
    for (const t of [rows, ids, sums]) t.dispose();
  });
});

describe("clones", () => {
  it("share memory, and outlive the tensor they were made of", () => {
    const x = tensor(Float32Array.of(1, 2, 3), [3]);
    const before = [tf.memory().numDataBuffers, backend().numDataIds()];
    const copy = tf.clone(x);
    expect([tf.memory().numDataBuffers, backend().numDataIds()]).toEqual(before);
    x.dispose();
    expect([...read(copy)]).toEqual([1, 2, 3]);
    const ids = backend().numDataIds();
    copy.dispose();
    expect(backend().numDataIds()).toBe(ids - 1);
  });
});

describe("the heap guard", () => {
  /** What is alive, for the library and for the backend beneath it. */
  const alive = (): number[] => [
    tf.memory().numTensors,
    tf.memory().numDataBuffers,
    tf.memory().numBytes,
    backend().numDataIds(),
  ];
  const large = (): Tensor => ones([2 * mebibyte]); // 8 MiB
  /** As many as fit. */
  const fill = (): { tensors: Tensor[]; error: unknown } => {
    const tensors: Tensor[] = [];
    for (;;) {
      try {
        tensors.push(large());
      } catch (error) {
        return { tensors, error };
      }
      if (tensors.length > 20) throw new Error("the guard let 160 MiB through a limit of 64 MiB");
    }
  };

  it("throws a BackendError that says how much, the limit and what to do; nothing is half registered", () => {
    const before = alive();
    const { tensors, error } = fill();
    expect(error).toBeInstanceOf(BackendError);
    const { message } = error as BackendError;
    expect(message).toContain(`${8 * mebibyte} bytes`);
    expect(message).toContain(`limit of ${limit}`);
    expect(message).toMatch(/smaller batch/);
    expect(tensors.length).toBeGreaterThan(1);
    const [count, buffers, , ids] = alive();
    expect([count, buffers, ids]).toEqual([
      before[0]! + tensors.length,
      before[1]! + tensors.length,
      before[3]! + tensors.length,
    ]);
    for (const t of tensors) t.dispose();
    expect(alive()).toEqual(before);
  });

  it("gives refused memory back: after 50 refusals as much fits as before", () => {
    const first = fill();
    for (const t of first.tensors) t.dispose();
    for (let i = 0; i < 50; i++) expect(() => backend().makeOutput([limit / 4], "float32")).toThrow(BackendError);
    const second = fill();
    for (const t of second.tensors) t.dispose();
    expect(second.tensors.length).toBe(first.tensors.length);
  });

  it("leaves the backend usable and earlier tensors whole", () => {
    const a = tensor(Float32Array.of(1, 2, 3, 4), [2, 2]);
    const { tensors } = fill();
    expect([...read(a)]).toEqual([1, 2, 3, 4]);
    const small = matMul(a, a);
    expect([...read(small)]).toEqual([7, 10, 15, 22]);
    for (const t of [...tensors, a, small]) t.dispose();
    const again = large();
    again.dispose();
  });

  // Room for the inputs, none for the result.
  const inputs: Record<string, { make: () => Tensor[]; run: (xs: Tensor[]) => Tensor }> = {
    add: { make: () => [large()], run: ([x]) => add(x!, x!) },
    silu: { make: () => [large()], run: ([x]) => silu(x!) },
    gelu: { make: () => [large()], run: ([x]) => gelu(x!) },
    softmax: { make: () => [ones([512, 4096])], run: ([x]) => softmax(x!) },
    transpose: { make: () => [ones([512, 4096])], run: ([x]) => transpose(x!) },
    "matMul, rank 2": { make: () => [ones([2 * mebibyte, 1]), ones([1, 1])], run: ([a, b]) => matMul(a!, b!) },
    "matMul, batched": {
      make: () => [ones([4, 2 ** 19, 1]), ones([4, 1, 1])],
      run: ([a, b]) => matMul(a!, b!),
    },
    "matMul, shared weight": {
      make: () => [ones([4, 2 ** 19, 1]), ones([1, 1])],
      run: ([a, b]) => matMul(a!, b!),
    },
    rmsNorm: { make: () => [ones([512, 4096]), ones([4096])], run: ([x, w]) => rmsNorm(x!, w!, 1e-5) },
    layerNorm: { make: () => [ones([512, 4096]), ones([4096])], run: ([x, w]) => layerNorm(x!, w!, w!, 1e-5) },
    gather: {
      make: () => [ones([4, 1]), integers(new Int32Array(2 * mebibyte), [2 * mebibyte])],
      run: ([table, ids]) => gather(table!, ids!),
    },
  };
  for (const [name, { make, run }] of Object.entries(inputs)) {
    it(`an operation that does not fit leaves nothing behind: ${name}`, () => {
      const before = alive();
      const xs = make();
      const filled = fill();
      const during = alive();
      let error: unknown;
      try {
        run(xs);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(BackendError);
      expect(alive().slice(0, 3)).toEqual(during.slice(0, 3));
      for (const t of [...filled.tensors, ...xs]) t.dispose();
      expect(alive()).toEqual(before);
    });
  }

  it("a differentiation that does not fit leaves nothing behind, forward or on the way back", () => {
    const before = alive();
    const x = ones([512, 1024]); // 2 MiB
    const deep = (depth: number): void => {
      valueAndGradients(
        (p) => {
          let y = p["x"]!;
          for (let i = 0; i < depth; i++) y = silu(y);
          return sum(y);
        },
        { x },
      );
    };
    const withX = alive();
    expect(() => deep(60)).toThrow(BackendError); // needs 240 MiB on the way forward
    expect(alive()).toEqual(withX);
    // Fits forward, but the way back needs more. The depth at which that happens depends on the heap: try several.
    let refusals = 0;
    for (let depth = 1; depth < 20; depth++) {
      try {
        tidy(() => {
          deep(depth);
          return undefined;
        });
      } catch (error) {
        expect(error).toBeInstanceOf(BackendError);
        refusals++;
      }
      expect(alive(), `depth ${depth}`).toEqual(withX);
    }
    expect(refusals).toBeGreaterThan(0);
    expect(refusals).toBeLessThan(19);
    x.dispose();
    expect(alive()).toEqual(before);
  });

  it("refuses a null address and a size that wraps round, and stops the heap's growth; once a module", () => {
    const real = backend().wasm;
    const asked: number[] = [];
    let address = 0;
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 100 });
    const fake = {
      asm: { memory },
      _malloc: (bytes: number) => {
        asked.push(bytes);
        return address;
      },
      _free: () => {},
    };
    try {
      Object.assign(backend(), { wasm: fake });
      guardWasmHeap(10 * 65_536);
      asked.length = 0;
      expect(() => fake._malloc(8)).toThrow(BackendError);
      expect(fake._malloc(0)).toBe(0);
      address = -(2 ** 31); // 2 GiB, as the allocator's signed result shows it
      expect(fake._malloc(8)).toBe(address);
      expect(asked).toEqual([8, 0, 8]);
      expect(() => fake._malloc(2 ** 32)).toThrow(BackendError);
      expect(asked).toEqual([8, 0, 8]);

      expect(memory.grow(9)).toBe(1);
      expect(() => memory.grow(1)).toThrow(RangeError);
      expect(memory.buffer.byteLength).toBe(10 * 65_536);

      const guardedOnce = fake._malloc;
      guardWasmHeap(1);
      expect(fake._malloc).toBe(guardedOnce);
    } finally {
      Object.assign(backend(), { wasm: real });
    }
  });

  it("keeps the heap below the limit through all of this", () => {
    expect(heapSize()).toBeLessThanOrEqual(limit);
  });
});
