/** `rmsNorm` and `layerNorm`: every width, far from zero and near it, in place and not. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { KernelSpace } from "../../src/kernels/index.ts";
import { Draw, describeKinds, describeTwins, near, onGround, rounding, roundUp, runs, seeds } from "./guarded.ts";

const epsilon = 1e-5;

const cases = fc.record({
  rows: fc.integer({ min: 1, max: 9 }),
  width: fc.integer({ min: 1, max: 130 }),
  wider: fc.nat(2),
  // A row is `center` + `spread` times normal numbers.
  center: fc.constantFrom(0, 0, 3, -200),
  spread: fc.constantFrom(1, 1, 1e-6, 1e4, 0),
  inPlace: fc.boolean(),
  seed: seeds,
});
type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

const mean = (row: ArrayLike<number>): number => Array.from(row).reduce((a, b) => a + b, 0) / row.length;

/** Lays the case out, runs `kernel` and hands each row and its result to `check`. */
function checkNorm(
  space: KernelSpace,
  { rows, width, wider, center, spread, inPlace, seed }: Case,
  kernel: "rmsNorm" | "layerNorm",
  check: (x: Float32Array, weight: Float32Array, bias: Float32Array, y: Float32Array, what: () => string) => void,
): void {
  const draw = new Draw(seed);
  const x = draw.rows(rows, width, spread).map((row) => row.map((value) => value + center));
  const weight = draw.row(width);
  const bias = draw.row(width);
  const stride = roundUp(width, 8) + 8 * wider;
  onGround(space, (ground) => {
    const xAt = ground.placeRows(x, stride);
    const w = ground.placeRows([weight], stride);
    const b = ground.placeRows([bias], stride);
    const y = inPlace ? xAt : ground.unset(rows * stride * 4);
    ground.run(
      (k) => {
        if (kernel === "rmsNorm") k.rmsNorm(xAt, stride, rows, width, w, epsilon, y);
        else k.layerNorm(xAt, stride, rows, width, w, b, epsilon, y);
      },
      { at: y, to: rows * stride },
    );
    for (let r = 0; r < rows; r++) {
      const row = ground.read(y, stride, r * stride);
      check(x[r]!, weight, bias, row, () => `row ${r}`);
      if (row.subarray(width).some((value) => value !== 0)) throw new Error(`row ${r}: its padding is not zero`);
    }
  });
}

function checkRmsNorm(space: KernelSpace, one: Case): void {
  checkNorm(space, one, "rmsNorm", (x, weight, _, y, what) => {
    const scale = 1 / Math.sqrt(mean(Array.from(x, (value) => value ** 2)) + epsilon);
    // The squares are all positive: their sum is off by less than a rounding each, its root by half of that.
    const tolerance = space.kind === "plain" ? 1.01 * rounding : (x.length / 2 + 6) * rounding;
    x.forEach((value, i) => {
      const expected = value * scale * weight[i]!;
      near(y[i]!, expected, tolerance * Math.abs(expected), what);
    });
  });
}

function checkLayerNorm(space: KernelSpace, one: Case): void {
  checkNorm(space, one, "layerNorm", (x, weight, bias, y, what) => {
    const m = mean(x);
    const variance = mean(Array.from(x, (value) => (value - m) ** 2));
    const scale = 1 / Math.sqrt(variance + epsilon);
    // Off by the mean's error, which the scale makes larger, and as RMSNorm is.
    const tolerance = space.kind === "plain" ? 1.01 * rounding : (x.length + 8) * rounding;
    const off = space.kind === "plain" ? 0 : tolerance * mean(x.map(Math.abs));
    x.forEach((value, i) => {
      const part = Math.abs((value - m) * scale * weight[i]!);
      const slack = tolerance * (part + Math.abs(bias[i]!)) + off * scale * (Math.abs(weight[i]!) + off * scale * part);
      near(y[i]!, (value - m) * scale * weight[i]! + bias[i]!, slack, what);
    });
  });
}

describe("rmsNorm", () => {
  describeKinds((space) => {
    it("is x / sqrt(mean of squares) * weight, by hand", () => {
      onGround(space, (ground) => {
        const x = ground.placeRows([[3, 4, 0, 0]], 8); // mean of squares 25 / 4
        const weight = ground.placeRows([[1, 10, 1, 1]], 8);
        ground.run((k) => k.rmsNorm(x, 8, 1, 4, weight, 1e-12, x), { at: x, to: 8 });
        for (const [i, value] of ground.read(x, 8).entries()) expect(value).toBeCloseTo([1.2, 16][i] ?? 0, 5);
      });
    });

    it("property: is the formula in float64, within (width / 2 + 6) 2^-24", () => {
      fc.assert(
        fc.property(cases, (one) => checkRmsNorm(space, one)),
        runs(space, 60),
      );
    });
  });

  describeTwins(
    "rmsNorm",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "divides by the stride": (args) => {
        args[3] = args[1];
      },
      "has another epsilon": (args) => {
        args[5] *= 1.1;
      },
      "reads past the row": (args) => {
        args[1] += 8;
      },
    },
    cases,
    checkRmsNorm,
  );
});

describe("layerNorm", () => {
  describeKinds((space) => {
    it("is (x - mean) / sqrt(variance) * weight + bias, by hand", () => {
      onGround(space, (ground) => {
        const x = ground.placeRows([[8, 12, 12, 8]], 8); // mean 10, variance 4
        const weight = ground.placeRows([[1, 1, 3, 1]], 8);
        const bias = ground.placeRows([[0, 0, 0, 5]], 8);
        ground.run((k) => k.layerNorm(x, 8, 1, 4, weight, bias, 1e-12, x), { at: x, to: 8 });
        expect([...ground.read(x, 8)]).toEqual([-1, 1, 3, 4, 0, 0, 0, 0]);
      });
    });

    it("property: is the formula in float64, within (width + 8) 2^-24 of its absolute terms", () => {
      fc.assert(
        fc.property(cases, (one) => checkLayerNorm(space, one)),
        runs(space, 60),
      );
    });
  });

  describeTwins(
    "layerNorm",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "counts one number too many": (args) => {
        args[3]++;
      },
      "has another epsilon": (args) => {
        args[6] *= 1.1;
      },
      "takes the weight for the bias": (args) => {
        args[5] = args[4];
      },
    },
    cases,
    checkLayerNorm,
  );
});
