import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { adamWStep, clipGlobalNorm, globalNorm, type Moments, warmupCosine } from "../../src/training/adamw.ts";

interface Run {
  clipNorm: number | null;
  options: { beta1: number; beta2: number; epsilon: number };
  decay: Record<string, number>;
  start: Record<string, number[]>;
  steps: {
    rate: number;
    gradients: Record<string, number[]>;
    norm: number | null;
    parameters: Record<string, number[]>;
  }[];
}
const pytorch = JSON.parse(readFileSync(new URL("../fixtures/adamw/pytorch.json", import.meta.url), "utf8")) as {
  runs: Run[];
};

const zeroMoments = (length: number): Moments => ({
  first: new Float32Array(length),
  second: new Float32Array(length),
});

describe("one step by hand", () => {
  // Start 2, gradient 0.5, beta1 0.5, beta2 0.75, epsilon 1, rate 0.25, decay 0.5.
  //   m = 0.25, v = 0.0625; both corrected: m / 0.5 = 0.5, sqrt(v / 0.25) = 0.5
  //   p = 2 - 0.25 (0.5 / 1.5 + 0.5 * 2) = 2 - 1/12 - 1/4 = 5/3
  const options = { beta1: 0.5, beta2: 0.75, epsilon: 1 };

  it("moves the parameter, and keeps the moments uncorrected", () => {
    const parameter = Float32Array.of(2);
    const moments = zeroMoments(1);
    adamWStep(parameter, Float32Array.of(0.5), moments, 1, 0.25, 0.5, options);
    expect(parameter[0]).toBe(Math.fround(5 / 3));
    expect(moments.first[0]).toBe(0.25);
    expect(moments.second[0]).toBe(0.0625);
  });

  it("a second one: m = 0.25, v = 0.0625, corrections 0.75 and 0.4375", () => {
    const parameter = Float32Array.of(2);
    const moments = zeroMoments(1);
    adamWStep(parameter, Float32Array.of(0.5), moments, 1, 0.25, 0.5, options);
    adamWStep(parameter, Float32Array.of(0.25), moments, 2, 0.25, 0, options);
    expect(moments.first[0]).toBe(0.25);
    expect(moments.second[0]).toBe(0.0625);
    // v = 0.75 * 0.0625 + 0.25 * 0.0625 = 0.0625; p = 5/3 - 0.25 (1/3) / (sqrt(1/7) + 1)
    const expected = 5 / 3 - (0.25 * (0.25 / 0.75)) / (Math.sqrt(0.0625 / 0.4375) + 1);
    expect(Math.abs(parameter[0]! - expected)).toBeLessThan(2e-7);
  });

  it("decay is decoupled: without a gradient it shrinks the parameter by rate * decay, and the moments stay zero", () => {
    const parameter = Float32Array.of(8, -4);
    const moments = zeroMoments(2);
    adamWStep(parameter, new Float32Array(2), moments, 1, 0.5, 0.25, options);
    expect([...parameter]).toEqual([7, -3.5]);
    expect([...moments.first, ...moments.second]).toEqual([0, 0, 0, 0]);
  });

  it("leaves the gradient as it was", () => {
    const gradient = Float32Array.of(1, -2, 3);
    adamWStep(new Float32Array(3), gradient, zeroMoments(3), 1, 0.1, 0.1, options);
    expect([...gradient]).toEqual([1, -2, 3]);
  });
});

describe("20 steps are PyTorch's", () => {
  pytorch.runs.forEach((run, i) => {
    it(`run ${i}: clip ${run.clipNorm ?? "off"}, ${JSON.stringify(run.options)}`, () => {
      expect(run.steps.length).toBe(20);
      const names = Object.keys(run.start);
      const parameters = new Map(names.map((name) => [name, Float32Array.from(run.start[name]!)]));
      const moments = new Map(names.map((name) => [name, zeroMoments(run.start[name]!.length)]));
      let clipped = 0;
      run.steps.forEach(({ rate, gradients, norm, parameters: expected }, t) => {
        const ours = new Map(names.map((name) => [name, Float32Array.from(gradients[name]!)]));
        if (run.clipNorm !== null) {
          const before = clipGlobalNorm([...ours.values()], run.clipNorm);
          expect(Math.abs(before / norm! - 1)).toBeLessThan(1e-12);
          if (norm! > run.clipNorm) clipped++;
        }
        for (const name of names) {
          adamWStep(
            parameters.get(name)!,
            ours.get(name)!,
            moments.get(name)!,
            t + 1,
            rate,
            run.decay[name]!,
            run.options,
          );
          // Parameters of size 1 in float32, rounded once a step: 20 half-units of 6e-8, and the fixture's 1e-6 in
          // the clipping factor, times rates of 1e-2.
          parameters.get(name)!.forEach((value, j) => {
            expect(Math.abs(value - expected[name]![j]!), `step ${t + 1}, ${name}[${j}]`).toBeLessThan(2e-6);
          });
        }
      });
      // Both sides of the clipping bound are in the fixture.
      if (run.clipNorm !== null) {
        expect(clipped).toBeGreaterThan(0);
        expect(clipped).toBeLessThan(20);
      }
    });
  });

  it("the comparison would notice decay folded into the gradient (Adam with L2)", () => {
    const run = pytorch.runs[0]!;
    const parameter = Float32Array.from(run.start["matrix"]!);
    const moments = zeroMoments(parameter.length);
    run.steps.forEach(({ rate, gradients }, t) => {
      const folded = Float32Array.from(gradients["matrix"]!, (g, i) => g + run.decay["matrix"]! * parameter[i]!);
      adamWStep(parameter, folded, moments, t + 1, rate, 0, run.options);
    });
    const expected = run.steps.at(-1)!.parameters["matrix"]!;
    expect(Math.max(...parameter.map((value, j) => Math.abs(value - expected[j]!)))).toBeGreaterThan(1e-3);
  });
});

describe("clipping", () => {
  it("3-4-5 across two arrays, down to 1", () => {
    const gradients = [Float32Array.of(3, 0), Float32Array.of(4)];
    expect(globalNorm(gradients)).toBe(5);
    expect(clipGlobalNorm(gradients, 1)).toBe(5);
    expect(gradients.map((g) => [...g])).toEqual([[Math.fround(0.6), 0], [Math.fround(0.8)]]);
  });

  it("leaves gradients at or below the bound bit for bit", () => {
    const gradients = [Float32Array.of(3), Float32Array.of(4)];
    expect(clipGlobalNorm(gradients, 5)).toBe(5);
    expect(gradients.map((g) => g[0])).toEqual([3, 4]);
  });

  it("sums in doubles: a million gradients of 1e-3 have the norm 1", () => {
    const gradient = new Float32Array(1_000_000).fill(1e-3);
    expect(Math.abs(globalNorm([gradient]) / (Math.fround(1e-3) * 1000) - 1)).toBeLessThan(1e-9);
  });

  it("reports NaN and infinity instead of hiding them", () => {
    expect(clipGlobalNorm([Float32Array.of(1, Number.NaN)], 1)).toBeNaN();
    expect(clipGlobalNorm([Float32Array.of(Number.POSITIVE_INFINITY)], 1)).toBe(Number.POSITIVE_INFINITY);
  });

  it("property: the norm ends at min(norm, bound) and directions stay", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float32Array({ minLength: 1, maxLength: 9, min: -100, max: 100, noNaN: true }), { minLength: 1 }),
        fc.double({ min: 0.01, max: 50, noNaN: true }),
        (gradients, bound) => {
          const before = gradients.map((g) => Float32Array.from(g));
          const norm = clipGlobalNorm(gradients, bound);
          expect(norm).toBe(globalNorm(before));
          const target = Math.min(norm, bound);
          expect(Math.abs(globalNorm(gradients) - target)).toBeLessThanOrEqual(1e-6 * target + 1e-30);
          const factor = norm > bound ? bound / norm : 1;
          gradients.forEach((g, i) => {
            g.forEach((value, j) => {
              expect(value).toBe(Math.fround(before[i]![j]! * factor));
            });
          });
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe("schedule", () => {
  it("warms up linearly to the peak, falls along a cosine, ends at the floor", () => {
    const at = (step: number): number => warmupCosine(step, 110, 10, 2, 0.5);
    expect(at(0)).toBe(0.2); // the first step already learns
    expect(at(4)).toBe(1);
    expect(at(9)).toBe(2); // end of the warm-up
    expect(at(10)).toBe(2); // start of the cosine
    expect(at(60)).toBeCloseTo(1.25, 12); // half-way: the mean of peak and floor
    expect(at(35)).toBeCloseTo(0.5 + 1.5 * (0.5 + Math.SQRT1_2 / 2), 12); // a quarter
    expect(at(110)).toBe(0.5);
    expect(at(1000)).toBe(0.5); // and stays there
  });

  it("without warm-up starts at the peak; all warm-up reaches it", () => {
    expect(warmupCosine(0, 10, 0, 3, 0)).toBe(3);
    expect(warmupCosine(9, 10, 10, 3, 0)).toBe(3);
    expect(warmupCosine(0, 1, 1, 3, 0)).toBe(3);
  });

  it("property: stays between zero and the peak, rises during warm-up, never rises after", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.nat(300),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (steps, warmup, floor) => {
          const rates = Array.from({ length: steps }, (_, step) => warmupCosine(step, steps, warmup, 1, floor));
          rates.forEach((rate, step) => {
            expect(rate).toBeGreaterThanOrEqual(0);
            expect(rate).toBeLessThanOrEqual(1);
            if (step > 0 && step < warmup) expect(rate).toBeGreaterThan(rates[step - 1]!);
            if (step > warmup) expect(rate).toBeLessThanOrEqual(rates[step - 1]!);
          });
        },
      ),
      { numRuns: 40 },
    );
  });
});
