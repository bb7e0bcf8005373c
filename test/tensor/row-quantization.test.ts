import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/errors.ts";
import { dequantizeRows, quantizeRows } from "../../src/tensor/row-quantization.ts";
import { readSafetensors, writeSafetensors } from "../../src/tensor/safetensors.ts";

describe("weights in 8 bits", () => {
  it("by hand: a row's largest element is 127 steps, zero stays zero", () => {
    const data = Float32Array.of(1.27, -0.5, 0, 0.004, 0, 0, 0, 0);
    const tensors = quantizeRows(new Map([["w", { shape: [2, 4], data }]]));
    expect(tensors.get("w")).toEqual({
      dtype: "U8",
      shape: [2, 4],
      data: Uint8Array.of(255, 78, 128, 128, 128, 128, 128, 128),
    });
    expect(tensors.get("w.scale")!.data).toEqual(Float32Array.of(0.01, 0));
    const back = dequantizeRows(tensors, "file").get("w")!;
    expect(back.shape).toEqual([2, 4]);
    expect(Array.from(back.data, (x) => +x.toFixed(6))).toEqual([1.27, -0.5, 0, 0, 0, 0, 0, 0]);
  });

  it("is off by at most half a step, through a file, and the second time not at all", () => {
    const finite = fc.float({ min: -1000, max: 1000, noNaN: true });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 5 }),
        fc.infiniteStream(finite),
        (rows, columns, stream) => {
          const data = Float32Array.from({ length: rows * columns }, () => stream.next().value!);
          const vector = Float32Array.from({ length: 3 }, () => stream.next().value!);
          const weights = new Map([
            ["m", { shape: [rows, columns], data }],
            ["v", { shape: [3], data: vector }],
          ]);
          const read = (given: typeof weights) =>
            dequantizeRows(readSafetensors(writeSafetensors(quantizeRows(given))).tensors, "file");
          const once = read(weights);
          expect([...once.keys()].sort()).toEqual(["m", "v"]);
          expect(once.get("v")!.data).toEqual(vector);
          for (let r = 0; r < rows; r++) {
            const row = data.subarray(r * columns, (r + 1) * columns);
            const step = Math.max(...row.map(Math.abs)) / 127;
            row.forEach((x, c) => {
              // Where the step itself is too small for float32, the element vanishes.
              const bound = Math.max(step * 0.5 * (1 + 1e-4), 127 * 2 ** -149);
              expect(Math.abs(once.get("m")!.data[r * columns + c]! - x)).toBeLessThanOrEqual(bound);
            });
          }
          const twice = read(once as typeof weights);
          twice.get("m")!.data.forEach((x, i) => {
            expect(x).toBeCloseTo(once.get("m")!.data[i]!, 3);
          });
        },
      ),
    );
  });

  it("does not take a vector for scales that only sounds like them", () => {
    const tensors = quantizeRows(new Map([["norm.scale", { shape: [2], data: Float32Array.of(1, 2) }]]));
    expect([...dequantizeRows(tensors, "file").keys()]).toEqual(["norm.scale"]);
  });

  it("refuses bytes without scales, or with scales for other rows", () => {
    const tensors = quantizeRows(new Map([["w", { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) }]]));
    const without = new Map([...tensors].filter(([name]) => name === "w"));
    expect(() => dequantizeRows(without, "part.safetensors")).toThrow(FormatError);
    expect(() => dequantizeRows(without, "part.safetensors")).toThrow(/w of 2 rows has 0 scales/);
    tensors.set("w.scale", { dtype: "F32", shape: [3], data: new Float32Array(3) });
    expect(() => dequantizeRows(tensors, "part.safetensors")).toThrow(/has 3 scales/);
  });
});
