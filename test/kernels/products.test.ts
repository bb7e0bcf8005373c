/** `product` and `panelRows`: every tile and remainder of every kind, in the three formats of weights. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type KernelSpace, panelWidth, type WeightFormat, weightFormats } from "../../src/kernels/index.ts";
import { floatTensor, toFloat32 } from "../../src/tensor/safetensors.ts";
import {
  Draw,
  describeKinds,
  describeTwins,
  near,
  onGround,
  roundUp,
  runs,
  same,
  seeds,
  sumTolerance,
} from "./guarded.ts";

const formats = Object.keys(weightFormats) as WeightFormat[];

/** [outputs][inputs] -> panel after panel, each `inputs` rows of eight weights; missing outputs are 0. */
function pack<T extends Float32Array | Uint16Array>(packed: T, weights: readonly T[], inputs: number): T {
  weights.forEach((row, output) => {
    const panel = Math.floor(output / panelWidth) * inputs * panelWidth;
    for (let i = 0; i < inputs; i++) packed[panel + i * panelWidth + (output % panelWidth)] = row[i]!;
  });
  return packed;
}

/** A matrix in a format: what is stored, packed, and what it says. `scale` 2^-18 makes half of the F16 subnormal. */
function matrix(draw: Draw, format: WeightFormat, outputs: number, inputs: number, scale: number) {
  const stored = draw.rows(outputs, inputs, scale).map((row) => floatTensor([inputs], row, format));
  const length = roundUp(outputs, panelWidth) * inputs;
  const packed =
    format === "F32"
      ? pack(new Float32Array(length), stored.map((row) => row.data as Float32Array), inputs) // biome-ignore format: alike
      : pack(new Uint16Array(length), stored.map((row) => row.data as Uint16Array), inputs); // biome-ignore format: alike
  return { packed, rows: stored.map(toFloat32) };
}

/** `outputs` is less than whole panels by `ragged`; panels `skipped` and `left` at the two ends are not asked for. */
const products = (rows: number, inputs: number, panels: number) =>
  fc.record({
    rows: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: rows })),
    inputs: fc.integer({ min: 1, max: inputs }),
    panels: fc.integer({ min: 1, max: panels }),
    ragged: fc.nat(7),
    skipped: fc.oneof(fc.constant(0), fc.nat(5)),
    left: fc.oneof(fc.constant(0), fc.nat(5)),
    format: fc.constantFrom(...formats),
    scale: fc.constantFrom(1, 2 ** -18, 2 ** 9),
    biased: fc.boolean(),
    accumulate: fc.constantFrom<0 | 1>(0, 1),
    wider: fc.nat(2),
    seed: seeds,
  });
type Product = ReturnType<typeof products> extends fc.Arbitrary<infer T> ? T : never;

function checkProduct(space: KernelSpace, one: Product): void {
  const { rows, inputs, ragged, skipped, left, format, scale, biased, accumulate, wider, seed } = one;
  const panels = skipped + one.panels + left;
  const outputs = panels * panelWidth - ragged;
  const endPanel = panels - left;
  const draw = new Draw(seed);
  const x = draw.rows(rows, inputs);
  const w = matrix(draw, format, outputs, inputs, scale);
  const bias = biased ? draw.row(outputs, scale) : undefined;
  const old = accumulate ? draw.rows(rows, outputs, scale) : undefined;
  const tolerance = sumTolerance(space.kind, inputs);
  const xStride = roundUp(inputs, 8) + 8 * wider;
  const yStride = panels * panelWidth + 8 * wider;
  onGround(space, (ground) => {
    const xAt = ground.placeRows(x, xStride);
    const wAt = ground.place(w.packed);
    const biasAt = bias === undefined ? 0 : ground.placeRows([bias], panels * panelWidth);
    const yAt = old === undefined ? ground.unset(rows * yStride * 4) : ground.placeRows(old, yStride);
    const number = weightFormats[format];
    ground.run(
      (k) => k.product(xAt, xStride, rows, wAt, number, inputs, skipped, endPanel, yAt, yStride, biasAt, accumulate),
      { at: yAt, rows, stride: yStride, from: skipped * panelWidth, to: endPanel * panelWidth },
    );
    for (let r = 0; r < rows; r++) {
      const y = ground.read(yAt, yStride, r * yStride);
      for (let output = skipped * panelWidth; output < endPanel * panelWidth; output++) {
        let sum = 0;
        let absolute = 0;
        const term = (value: number) => {
          sum += value;
          absolute += Math.abs(value);
        };
        if (output < outputs) {
          term(bias?.[output] ?? 0);
          term(old?.[r]?.[output] ?? 0);
          for (let i = 0; i < inputs; i++) term(x[r]![i]! * w.rows[output]![i]!);
        }
        near(y[output]!, sum, tolerance * absolute, () => `y[${r}, ${output}]`);
      }
    }
  });
}

describe("product", () => {
  describeKinds((space) => {
    it("is (1, 10) W + bias + the old y, by hand", () => {
      onGround(space, (ground) => {
        const x = ground.placeRows([[1, 10]], 8);
        const w = ground.place(Float32Array.of(1, 2, 3, 0, 0, 0, 0, 0, 4, 5, 6, 0, 0, 0, 0, 0));
        const bias = ground.placeRows([[0.5, 0, 0]], 8);
        const y = ground.placeRows([[100, 200, 300]], 8);
        ground.run((k) => k.product(x, 8, 1, w, weightFormats.F32, 2, 0, 1, y, 8, bias, 1), { at: y, to: 8 });
        expect([...ground.read(y, 8)]).toEqual([141.5, 252, 363, 0, 0, 0, 0, 0]);
      });
    });

    it("property: is the sum in float64, within (inputs + 3) 2^-24 of its absolute terms, and no more", () => {
      fc.assert(
        fc.property(products(40, 60, 11), (one) => checkProduct(space, one)),
        runs(space, 50),
      );
    });

    it("property: large ones, past every block the kernels cut them into", () => {
      fc.assert(
        fc.property(products(70, 300, 16), (one) => checkProduct(space, one)),
        runs(space, 3),
      );
    });
  });

  describeTwins(
    "product",
    {
      "drops the last row of three": (args) => {
        if (args[2] % 4 === 3) args[2]--;
      },
      "drops the last panel of three": (args) => {
        if ((args[7] - args[6]) % 4 === 3) args[7]--;
      },
      "drops the last input": (args) => {
        args[5]--;
      },
      "computes a panel nobody asked for": (args) => {
        if (args[6] > 0) args[6]--;
      },
      "takes F16 for BF16": (args) => {
        if (args[4] === weightFormats.F16) args[4] = weightFormats.BF16;
      },
      "forgets the bias when it accumulates": (args) => {
        if (args[11] === 1) args[10] = 0;
      },
      "forgets the old y": (args) => {
        args[11] = 0;
      },
    },
    products(40, 60, 11),
    checkProduct,
  );
});

describe("panelRows", () => {
  const selections = fc.record({
    outputs: fc.integer({ min: 1, max: 50 }),
    width: fc.integer({ min: 1, max: 40 }),
    rows: fc.integer({ min: 1, max: 12 }),
    format: fc.constantFrom(...formats),
    wider: fc.nat(2),
    seed: seeds,
  });
  type Selection = typeof selections extends fc.Arbitrary<infer T> ? T : never;

  function checkPanelRows(space: KernelSpace, { outputs, width, rows, format, wider, seed }: Selection): void {
    const draw = new Draw(seed);
    const w = matrix(draw, format, outputs, width, 1);
    const ids = Int32Array.from({ length: rows }, () => draw.index(outputs));
    const stride = roundUp(width, 8) + 8 * wider;
    onGround(space, (ground) => {
      const wAt = ground.place(w.packed);
      const idsAt = ground.place(ids);
      const y = ground.unset(rows * stride * 4);
      const window = { at: y, rows, stride, to: width };
      ground.run((k) => k.panelRows(wAt, weightFormats[format], width, idsAt, rows, y, stride), window);
      for (const [r, id] of ids.entries()) same(ground.read(y, width, r * stride), w.rows[id]!, () => `id ${id}`);
    });
  }

  describeKinds((space) => {
    it("is a column of a panel, by hand", () => {
      onGround(space, (ground) => {
        // Two inputs of nine outputs: 1 .. 9 and 0.5 .. 4.5, as bfloat16.
        const numbers = [[1, 2, 3, 4, 5, 6, 7, 8], [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4], [9], [4.5]];
        const rows = numbers.map((row) => Float32Array.from({ length: 8 }, (_, i) => row[i] ?? 0));
        const w = ground.place(
          Uint16Array.from(rows.flatMap((row) => [...new Uint32Array(row.buffer)].map((x) => x >> 16))),
        );
        const ids = ground.place(Int32Array.of(8, 2));
        const y = ground.placeRows([[], []], 8);
        ground.run((k) => k.panelRows(w, weightFormats.BF16, 2, ids, 2, y, 8), { at: y, rows: 2, stride: 8, to: 2 });
        expect([...ground.read(y, 16)]).toEqual([9, 4.5, 0, 0, 0, 0, 0, 0, 3, 1.5, 0, 0, 0, 0, 0, 0]);
      });
    });

    it("property: is the row exactly, and no more", () => {
      fc.assert(
        fc.property(selections, (one) => checkPanelRows(space, one)),
        runs(space, 40),
      );
    });

    it.each(["BF16", "F16"] as const)("widens every finite %s exactly, as `product` does", (format) => {
      const finite = format === "F16" ? 0x7c00 : 0x7f80;
      const bits = Uint16Array.from({ length: 2 * finite }, (_, i) => (i < finite ? i : 0x8000 + i - finite));
      const expected = toFloat32({ dtype: format, shape: [bits.length], data: bits });
      onGround(space, (ground) => {
        // One input, and as many outputs as there are numbers.
        const w = ground.place(bits);
        const ids = ground.place(Int32Array.from(bits.keys()));
        const one = ground.placeRows([[1]], 8);
        const y = ground.unset(bits.length * 4);
        const window = { at: y, to: bits.length };
        const number = weightFormats[format];
        ground.run((k) => k.panelRows(w, number, 1, ids, bits.length, y, 1), window);
        same(ground.read(y, bits.length), expected, () => "panelRows");
        ground.run((k) => k.product(one, 8, 1, w, number, 1, 0, bits.length / 8, y, bits.length, 0, 0), window);
        same(ground.read(y, bits.length), expected, () => "product");
      });
    });
  });

  describeTwins(
    "panelRows",
    {
      "drops the last weight": (args) => {
        args[2]--;
      },
      "takes BF16 for F16": (args) => {
        if (args[1] === weightFormats.BF16) args[1] = weightFormats.F16;
      },
      "drops the last row": (args) => {
        args[4]--;
      },
    },
    selections,
    checkPanelRows,
  );
});
