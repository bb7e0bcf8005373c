/** What stands between products: SwiGLU, GELU, sums, softmax and its logarithm, out to where float32 ends. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { KernelSpace } from "../../src/kernels/index.ts";
import { Draw, describeKinds, describeTwins, near, onGround, rounding, roundUp, runs, same, seeds } from "./guarded.ts";

/** Part of a result that e^x and a few roundings more may cost. `far` is how large numbers in an exponent are. */
const tolerance = (kind: KernelSpace["kind"], far = 0): number =>
  kind === "plain" ? 1.01 * rounding : 5e-7 + 2 * rounding * far;
/** e^x ends here in the compiled kernels: below it is 0. */
const smallest = Math.exp(-87);

const scales = fc.constantFrom(1, 1, 1e-6, 30, 1e4);

describe("swiglu", () => {
  const cases = fc.record({
    rows: fc.integer({ min: 1, max: 6 }),
    hidden: fc.integer({ min: 1, max: 70 }),
    wider: fc.nat(2),
    scale: scales,
    seed: seeds,
  });
  type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

  function checkSwiglu(space: KernelSpace, { rows, hidden, wider, scale, seed }: Case): void {
    const draw = new Draw(seed);
    const gateUp = draw.rows(rows, 2 * hidden, scale);
    const stride = roundUp(2 * hidden, 8) + 8 * wider;
    const yStride = roundUp(hidden, 8) + 8 * wider;
    onGround(space, (ground) => {
      const x = ground.placeRows(gateUp, stride);
      const y = ground.placeRows(
        gateUp.map(() => []),
        yStride,
      );
      ground.run((k) => k.swiglu(x, stride, rows, hidden, y, yStride), { at: y, to: rows * yStride });
      for (const [r, row] of gateUp.entries()) {
        for (const [i, value] of ground.read(y, yStride, r * yStride).entries()) {
          const [gate, up] = i < hidden ? [row[i]!, row[hidden + i]!] : [0, 0];
          const expected = (gate / (1 + Math.exp(-gate))) * up;
          const slack = tolerance(space.kind, Math.min(Math.abs(gate), 88)) * Math.abs(expected);
          near(value, expected, slack + Math.abs(gate * up) * smallest, () => `y[${r}, ${i}]`);
        }
      }
    });
  }

  describeKinds((space) => {
    it("is gate * sigmoid(gate) * up, by hand; out to gates of -100 and 100", () => {
      onGround(space, (ground) => {
        const x = ground.placeRows([[0, Math.log(3), 100, -100, 5, 8, 2, 2]], 8);
        const y = ground.unset(16);
        ground.run((k) => k.swiglu(x, 8, 1, 4, y, 8), { at: y, to: 4 });
        const [zero, ln3, large, small] = ground.read(y, 4);
        expect(zero).toBe(0);
        expect(ln3).toBeCloseTo(6 * Math.log(3), 5); // sigmoid(ln 3) = 3 / 4
        expect(large).toBe(200);
        expect(Math.abs(small!)).toBeLessThan(1e-35);
      });
    });

    it("property: is the formula in float64, within 5e-7 and what rounding the exponent costs, and no more", () => {
      fc.assert(
        fc.property(cases, (one) => checkSwiglu(space, one)),
        runs(space, 60),
      );
    });
  });

  describeTwins(
    "swiglu",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "drops the numbers behind the last four": (args) => {
        args[3] -= args[3] % 4;
      },
    },
    cases,
    checkSwiglu,
  );
});

describe("gelu", () => {
  const cases = fc.record({ fours: fc.integer({ min: 1, max: 40 }), scale: scales, seed: seeds });
  type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;
  const gelu = (a: number) => (a / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (a + 0.044715 * a ** 3)));

  function checkGelu(space: KernelSpace, { fours, scale, seed }: Case): void {
    const values = new Draw(seed).row(4 * fours, scale);
    onGround(space, (ground) => {
      const x = ground.place(values);
      ground.run((k) => k.gelu(x, values.length), { at: x, to: values.length });
      for (const [i, value] of ground.read(x, values.length).entries()) {
        near(value, gelu(values[i]!), 2 * tolerance(space.kind) * Math.abs(values[i]!), () => `gelu(${values[i]})`);
      }
    });
  }

  describeKinds((space) => {
    it("is 0 at 0, 0.8411920 at 1, and the line or nothing far out", () => {
      onGround(space, (ground) => {
        const x = ground.place(Float32Array.of(0, 1, -1, 100, -100, 1e20, -1e20, 3e38));
        ground.run((k) => k.gelu(x, 8), { at: x, to: 8 });
        const [zero, one, minusOne, ...far] = ground.read(x, 8);
        expect(zero).toBe(0);
        expect(one).toBeCloseTo(0.841192, 6);
        expect(minusOne).toBeCloseTo(-0.158808, 6);
        expect(far[0]).toBe(100);
        expect(Math.abs(far[1]!)).toBeLessThan(1e-35);
        expect(far[2]).toBe(Math.fround(1e20));
        expect(Math.abs(far[3]!)).toBeLessThan(1e-17);
        expect(far[4]).toBe(Math.fround(3e38));
      });
    });

    it("property: is the formula in float64, within 1e-6 of x, and no more", () => {
      fc.assert(
        fc.property(cases, (one) => checkGelu(space, one)),
        runs(space, 60),
      );
    });
  });

  describeTwins(
    "gelu",
    {
      "drops the last four": (args) => {
        args[1] -= 4;
      },
      "writes four too many": (args) => {
        args[1] += 4;
      },
    },
    cases,
    checkGelu,
  );
});

describe("add", () => {
  const cases = fc.record({ fours: fc.integer({ min: 1, max: 40 }), seed: seeds });
  type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

  function checkAdd(space: KernelSpace, { fours, seed }: Case): void {
    const draw = new Draw(seed);
    const [a, b] = [draw.row(4 * fours), draw.row(4 * fours)];
    onGround(space, (ground) => {
      const x = ground.place(a);
      const y = ground.place(b);
      ground.run((k) => k.add(x, a.length, y), { at: y, to: a.length });
      same(ground.read(y, a.length), a.map((value, i) => value + b[i]!), () => "y"); // biome-ignore format: one line
    });
  }

  describeKinds((space) => {
    it("is 11, 22, 33, 44, by hand; a row onto itself doubles it", () => {
      onGround(space, (ground) => {
        const x = ground.place(Float32Array.of(1, 2, 3, 4));
        const y = ground.place(Float32Array.of(10, 20, 30, 40));
        ground.run((k) => k.add(x, 4, y), { at: y, to: 4 });
        expect([...ground.read(y, 4)]).toEqual([11, 22, 33, 44]);
        ground.run((k) => k.add(y, 4, y), { at: y, to: 4 });
        expect([...ground.read(y, 4)]).toEqual([22, 44, 66, 88]);
      });
    });

    it("property: is the sum, rounded once, and no more", () => {
      fc.assert(
        fc.property(cases, (one) => checkAdd(space, one)),
        runs(space, 40),
      );
    });
  });

  describeTwins(
    "add",
    {
      "drops the last four": (args) => {
        args[1] -= 4;
      },
      "adds to x": (args) => {
        [args[0], args[2]] = [args[2], args[0]];
      },
    },
    cases,
    checkAdd,
  );
});

const softmaxes = fc.record({
  rows: fc.integer({ min: 1, max: 5 }),
  count: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 300 })),
  wider: fc.nat(2),
  scale: scales,
  shift: fc.constantFrom(0, 0, -1e5, 1e6),
  hidden: fc.boolean(),
  seed: seeds,
});
type Softmax = typeof softmaxes extends fc.Arbitrary<infer T> ? T : never;

/** Rows whose first number is finite; of the others, when `hidden`, every third is minus infinity. */
function softmaxRows({ rows, count, scale, shift, hidden, seed }: Softmax): Float32Array[] {
  return new Draw(seed)
    .rows(rows, count, scale)
    .map((row) => row.map((x, i) => (hidden && i % 3 === 1 ? Number.NEGATIVE_INFINITY : x + shift)));
}

/** [x - max, ln of the sum of e^(x - max)] */
function shifted(row: Float32Array): [number[], number] {
  const most = row.reduce((a, b) => Math.max(a, b));
  const less = Array.from(row, (x) => x - most);
  return [less, Math.log(less.reduce((sum, x) => sum + Math.exp(x), 0))];
}

describe("softmax", () => {
  function checkSoftmax(space: KernelSpace, one: Softmax): void {
    const { rows, count, wider } = one;
    const x = softmaxRows(one);
    const stride = roundUp(count, 8) + 8 * wider;
    onGround(space, (ground) => {
      const at = ground.placeRows(x, stride, 7);
      ground.run((k) => k.softmax(at, stride, rows, count), { at, rows, stride, to: roundUp(count, 4) });
      for (const [r, row] of x.entries()) {
        const [less, logarithm] = shifted(row);
        let sum = 0;
        for (const [i, p] of ground.read(at, roundUp(count, 4), r * stride).entries()) {
          const expected = i < count ? Math.exp(less[i]! - logarithm) : 0;
          const slack = tolerance(space.kind, i < count ? Math.min(-less[i]!, 88) : 0) * expected;
          // The sum's own error: its terms are all positive.
          near(p, expected, slack + (count / 4) * rounding * expected + smallest, () => `p[${r}, ${i}]`);
          sum += p;
        }
        near(sum, 1, 1e-5, () => `sum of row ${r}`);
      }
    });
  }

  describeKinds((space) => {
    it("is 1/6, 2/6, 3/6 of ln 1, ln 2, ln 3, by hand, and a zero behind", () => {
      onGround(space, (ground) => {
        const x = ground.placeRows([[0, Math.log(2), Math.log(3), 9]], 8);
        ground.run((k) => k.softmax(x, 8, 1, 3), { at: x, to: 4 });
        for (const [i, p] of ground.read(x, 4).entries()) expect(p).toBeCloseTo([1 / 6, 2 / 6, 3 / 6][i] ?? 0, 6);
      });
    });

    it.each([
      ["one number", [-1e30], [1]],
      ["equal numbers", [5, 5, 5, 5], [0.25, 0.25, 0.25, 0.25]],
      ["equal and huge", [3e38, 3e38], [0.5, 0.5]],
      ["equal and most negative", [-3e38, -3e38], [0.5, 0.5]],
      ["far apart", [-3e38, 3e38, -3e38], [0, 1, 0]],
      ["minus infinity", [Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY, 0, 0], [0, 1 / 3, 0, 1 / 3, 1 / 3]],
    ])("of %s", (_, row, expected) => {
      onGround(space, (ground) => {
        const x = ground.placeRows([row], 8);
        ground.run((k) => k.softmax(x, 8, 1, row.length), { at: x, to: roundUp(row.length, 4) });
        for (const [i, p] of ground.read(x, row.length).entries()) expect(p).toBeCloseTo(expected[i]!, 6);
      });
    });

    it("has e^x within 5e-7 of it wherever float32 has it", () => {
      const steps = Array.from({ length: 8700 }, (_, i) => Math.fround(-i / 100));
      onGround(space, (ground) => {
        // Rows (0, x): p1 / p0 is e^x.
        const x = ground.placeRows(
          steps.map((step) => [0, step]),
          8,
        );
        ground.run((k) => k.softmax(x, 8, steps.length, 2), { at: x, rows: steps.length, stride: 8, to: 4 });
        for (const [r, step] of steps.entries()) {
          const [p, q] = ground.read(x, 2, 8 * r);
          near(q! / p!, Math.exp(step), 5e-7 * Math.exp(step), () => `e^${step}`);
        }
      });
    });

    it("property: is the formula in float64, within 5e-7 and what sums and exponents round, and no more", () => {
      fc.assert(
        fc.property(softmaxes, (one) => checkSoftmax(space, one)),
        runs(space, 60),
      );
    });
  });

  describeTwins(
    "softmax",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "leaves the last number out": (args) => {
        if (args[3] > 1) args[3]--;
      },
      "takes one number too many": (args) => {
        args[3]++;
      },
    },
    softmaxes,
    checkSoftmax,
  );
});

describe("logSoftmax", () => {
  function checkLogSoftmax(space: KernelSpace, one: Softmax): void {
    const { rows, count, wider } = one;
    const x = softmaxRows(one);
    const stride = roundUp(count, 8) + 8 * wider;
    onGround(space, (ground) => {
      const at = ground.placeRows(x, stride, 7);
      ground.run((k) => k.logSoftmax(at, stride, rows, count), { at, rows, stride, to: roundUp(count, 4) });
      for (const [r, row] of x.entries()) {
        const [less, logarithm] = shifted(row);
        for (const [i, value] of ground.read(at, count, r * stride).entries()) {
          if (less[i] === Number.NEGATIVE_INFINITY && value === Number.NEGATIVE_INFINITY) continue;
          const off = space.kind === "plain" ? 1.01 * rounding : tolerance(space.kind) + (count / 4) * rounding;
          near(value, less[i]! - logarithm, off * (Math.abs(less[i]!) + logarithm + 1), () => `row ${r}, number ${i}`);
        }
      }
    });
  }

  describeKinds((space) => {
    it("is -ln 6, -ln 3, -ln 2 of ln 1, ln 2, ln 3, by hand", () => {
      onGround(space, (ground) => {
        const x = ground.placeRows([[0, Math.log(2), Math.log(3)]], 8);
        ground.run((k) => k.logSoftmax(x, 8, 1, 3), { at: x, to: 4 });
        for (const [i, value] of ground.read(x, 3).entries()) expect(value).toBeCloseTo(-Math.log([6, 3, 2][i]!), 6);
      });
    });

    it("property: is the formula in float64, within 1e-5 of its absolute terms, however far from zero, and no more", () => {
      fc.assert(
        fc.property(softmaxes, (one) => checkLogSoftmax(space, one)),
        runs(space, 60),
      );
    });

    it("of one number is 0, of equal ones -ln n", () => {
      onGround(space, (ground) => {
        const one = ground.placeRows([[-1e30]], 8);
        ground.run((k) => k.logSoftmax(one, 8, 1, 1), { at: one, to: 4 });
        expect(ground.read(one, 1)[0]).toBeCloseTo(0, 10);
        const many = ground.placeRows([new Float32Array(1000).fill(3e38)], 1000);
        ground.run((k) => k.logSoftmax(many, 1000, 1, 1000), { at: many, to: 1000 });
        for (const value of ground.read(many, 1000)) expect(value).toBeCloseTo(-Math.log(1000), 5);
      });
    });
  });

  describeTwins(
    "logSoftmax",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "leaves the last number out": (args) => {
        if (args[3] > 1) args[3]--;
      },
    },
    softmaxes,
    checkLogSoftmax,
  );
});
