import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import { Random } from "../../src/tensor/random.ts";

interface Golden {
  cases: {
    path: [number | string, ...string[]];
    uniform: number[];
    normal: number[];
    gumbel: number[];
    permutation: number[];
    categorical: number[];
    later: number;
    c: number;
  }[];
}
const golden = JSON.parse(readFileSync(new URL("../fixtures/random/alea.json", import.meta.url), "utf8")) as Golden;

describe("a second implementation draws the same", () => {
  for (const expected of golden.cases) {
    it(`path ${JSON.stringify(expected.path)}`, () => {
      const [seed, ...labels] = expected.path;
      const random = labels.reduce((parent, label) => parent.fork(label), new Random(seed));
      expect(expected.uniform.map(() => random.uniform())).toEqual(expected.uniform);
      for (const value of expected.normal) expectClose(random.normal(), value);
      for (const value of expected.gumbel) expectClose(random.gumbel(), value);
      expect([...random.permutation(10)]).toEqual(expected.permutation);
      expect(expected.categorical.map(() => random.categorical([1, 0, 2.5, 0.5]))).toEqual(expected.categorical);
      for (let i = 0; i < 1000; i++) random.uniform();
      expect(random.uniform()).toBe(expected.later);
      expect(random.state().c).toBe(expected.c);
    });
  }

  it("normal and gumbel are the same to the last bit everywhere", () => {
    // Bits pinned from one run: they rest on exactly rounded operations only, so no engine may differ.
    const random = new Random("bits");
    expect([random.normal(), random.normal(), random.gumbel(), random.gumbel()]).toEqual([
      0.28762504480337053, -0.0006288841696508762, 0.07462609953772469, 0.5948748034777318,
    ]);
  });
});

function expectClose(got: number, wanted: number): void {
  expect(Math.abs(got - wanted)).toBeLessThanOrEqual(4e-15 * Math.max(1, Math.abs(wanted)));
}

// Bounds: each statistic's 0.999 quantile. The seeds are fixed, so a pass today is a pass always.
describe("laws", () => {
  const n = 100_000;
  const ksBound = 1.95 / Math.sqrt(n); // Kolmogorov-Smirnov, alpha 0.001

  it("uniform: Kolmogorov-Smirnov", () => {
    const random = new Random(1);
    expect(
      ksDistance(
        n,
        () => random.uniform(),
        (x) => x,
      ),
    ).toBeLessThan(ksBound);
  });

  it("normal: Kolmogorov-Smirnov, mean and variance", () => {
    const random = new Random(2);
    const draws = Float64Array.from({ length: n }, () => random.normal());
    let i = 0;
    expect(ksDistance(n, () => draws[i++]!, normalCdf)).toBeLessThan(ksBound);
    const mean = draws.reduce((sum, x) => sum + x, 0) / n;
    const variance = draws.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n;
    expect(Math.abs(mean)).toBeLessThan(3.3 / Math.sqrt(n));
    expect(Math.abs(variance - 1)).toBeLessThan(3.3 * Math.sqrt(2 / n));
  });

  it("gumbel: Kolmogorov-Smirnov", () => {
    const random = new Random(3);
    expect(
      ksDistance(
        n,
        () => random.gumbel(),
        (x) => Math.exp(-Math.exp(-x)),
      ),
    ).toBeLessThan(ksBound);
  });

  it("categorical: chi-square, and zero weights are never drawn", () => {
    const random = new Random(4);
    const weights = [0, 3, 0.5, 0, 6, 0.25, 0.25, 0];
    const counts = new Array<number>(weights.length).fill(0);
    for (let i = 0; i < n; i++) counts[random.categorical(weights)]!++;
    expect([counts[0], counts[3], counts[7]]).toEqual([0, 0, 0]);
    expect(
      chiSquare(
        counts,
        weights.map((w) => (w / 10) * n),
      ),
    ).toBeLessThan(18.47); // 4 degrees of freedom
  });

  it("the largest of logits + gumbel follows the softmax", () => {
    const random = new Random(5);
    const logits = [0, 1, -1, 2];
    const total = logits.reduce((sum, x) => sum + Math.exp(x), 0);
    const counts = [0, 0, 0, 0];
    for (let i = 0; i < n; i++) {
      const noisy = logits.map((x) => x + random.gumbel());
      counts[noisy.indexOf(Math.max(...noisy))]!++;
    }
    expect(
      chiSquare(
        counts,
        logits.map((x) => (Math.exp(x) / total) * n),
      ),
    ).toBeLessThan(16.27); // 3 degrees
  });

  it("permutation: every order of 4 equally likely", () => {
    const random = new Random(6);
    const counts = new Map<string, number>();
    for (let i = 0; i < 24_000; i++) {
      const order = random.permutation(4).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    expect(chiSquare([...counts.values()], new Array(24).fill(1000))).toBeLessThan(49.73); // 23 degrees
  });

  it("integer: every value equally likely, also across neighbouring seeds and forks", () => {
    const random = new Random(7);
    const streams: Record<string, (i: number) => number> = {
      "one stream": () => random.integer(20),
      "first draws of seeds 0, 1, 2, ...": (i) => new Random(i).integer(20),
      "first draws of forks": (i) => new Random(7).fork(`row ${i}`).integer(20),
    };
    for (const [name, draw] of Object.entries(streams)) {
      const counts = new Array<number>(20).fill(0);
      for (let i = 0; i < 20_000; i++) counts[draw(i)]!++;
      expect(chiSquare(counts, new Array(20).fill(1000)), name).toBeLessThan(43.82); // 19 degrees
    }
  });

  it("a fork does not follow its parent or its sibling", () => {
    const parent = new Random(8);
    const streams = [parent, parent.fork("a"), parent.fork("b"), new Random(9)];
    const draws = streams.map((random) => Float64Array.from({ length: n }, () => random.uniform() - 0.5));
    for (let a = 0; a < draws.length; a++) {
      for (let b = a + 1; b < draws.length; b++) {
        let product = 0;
        for (let i = 0; i < n; i++) product += draws[a]![i]! * draws[b]![i]!;
        expect(Math.abs(product * 12) / n).toBeLessThan(3.9 / Math.sqrt(n)); // correlation, 0.9999 quantile
      }
    }
  });
});

describe("properties", () => {
  const seed = fc.oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.string());

  it("uniform stays in [0, 1), integer in [0, n)", () => {
    fc.assert(
      fc.property(seed, fc.integer({ min: 1, max: 2 ** 32 }), (s, n) => {
        const random = new Random(s);
        const u = random.uniform();
        const k = random.integer(n);
        return u >= 0 && u < 1 && Number.isInteger(k) && k >= 0 && k < n;
      }),
    );
  });

  it("a state saved as JSON goes on exactly, forks included", () => {
    fc.assert(
      fc.property(seed, fc.array(fc.string(), { maxLength: 3 }), fc.nat(50), (s, labels, drawn) => {
        const random = labels.reduce((parent, label) => parent.fork(label), new Random(s));
        for (let i = 0; i < drawn; i++) random.normal();
        const resumed = Random.fromState(JSON.parse(JSON.stringify(random.state())));
        expect(resumed.state()).toEqual(JSON.parse(JSON.stringify(random.state())));
        expect([resumed.normal(), resumed.gumbel(), resumed.uniform()]).toEqual([
          random.normal(),
          random.gumbel(),
          random.uniform(),
        ]);
        expect(resumed.fork("next").uniform()).toBe(random.fork("next").uniform());
      }),
    );
  });

  it("a fork depends on seed and labels, not on what was drawn, and leaves its parent alone", () => {
    fc.assert(
      fc.property(seed, fc.string(), fc.nat(20), (s, label, drawn) => {
        const fresh = new Random(s);
        const used = new Random(s);
        for (let i = 0; i < drawn; i++) used.uniform();
        const before = used.state();
        expect(used.fork(label).uniform()).toBe(fresh.fork(label).uniform());
        expect(used.state()).toEqual(before);
      }),
    );
  });

  it("paths that only look alike are different streams", () => {
    const streams = [
      new Random(1),
      new Random("1"),
      new Random("1,a"),
      new Random(1).fork("a"),
      new Random(1).fork("a").fork("b"),
      new Random(1).fork('a","b'),
      new Random(1).fork(""),
      new Random(1).fork("").fork(""),
    ];
    expect(new Set(streams.map((random) => random.uniform())).size).toBe(streams.length);
  });

  it("permutation holds each number once", () => {
    fc.assert(
      fc.property(seed, fc.nat(300), (s, n) => {
        const order = new Random(s).permutation(n);
        expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
      }),
    );
  });

  it("categorical draws a positive weight, scaled or not, down to subnormal ones", () => {
    const weight = fc.oneof(fc.constant(0), fc.double({ min: 1e-100, max: 1e300, noNaN: true }));
    fc.assert(
      fc.property(seed, fc.array(weight, { minLength: 1, maxLength: 20 }), (s, weights) => {
        fc.pre(weights.some((w) => w > 0));
        const copy = [...weights];
        const index = new Random(s).categorical(weights);
        expect(weights[index]).toBeGreaterThan(0);
        expect(new Random(s).categorical(weights.map((w) => w / 4))).toBe(index);
        expect(weights).toEqual(copy);
      }),
    );
    expect(new Random(0).categorical([0, Number.MIN_VALUE, 0])).toBe(1);
    expect(new Random(0).categorical(new Float32Array([0, 0, 1e-45]))).toBe(2);
  });
});

describe("bad input", () => {
  it("seeds, counts and weights out of range", () => {
    expect(() => new Random(Number.NaN)).toThrow(ArgumentError);
    expect(() => new Random(Number.POSITIVE_INFINITY)).toThrow(/seed: expected a finite number or a string/);
    expect(() => new Random(undefined as unknown as number)).toThrow(ArgumentError);
    const random = new Random(0);
    const before = random.state();
    for (const n of [0, -1, 1.5, Number.NaN, 2 ** 32 + 1]) expect(() => random.integer(n)).toThrow(ArgumentError);
    for (const n of [-1, 0.5, Number.NaN, 2 ** 32]) expect(() => random.permutation(n)).toThrow(ArgumentError);
    expect(() => random.categorical([])).toThrow(/at least one positive weight/);
    expect(() => random.categorical([0, 0])).toThrow(/at least one positive weight/);
    expect(() => random.categorical([1, Number.NaN])).toThrow(/weights\[1\]: expected a finite number >= 0, got NaN/);
    expect(() => random.categorical([1, -1e-9, 2])).toThrow(/weights\[1\]/);
    expect(() => random.categorical([1, Number.POSITIVE_INFINITY])).toThrow(/weights\[1\]/);
    expect(() => random.categorical([1e308, 1e308])).toThrow(/finite sum/);
    expect(() => random.fork(3 as unknown as string)).toThrow(/label/);
    expect(random.state()).toEqual(before);
  });

  it("states that are none", () => {
    const state = new Random(0).fork("a").state();
    const broken: unknown[] = [
      undefined,
      null,
      {},
      { ...state, path: [] },
      { ...state, path: ["a", 1] },
      { ...state, path: [Number.NaN] },
      { ...state, c: -1 },
      { ...state, c: 2091640 },
      { ...state, s0: 1 },
      { ...state, s1: 0.1 },
      { ...state, s2: Number.NaN },
      { ...state, s2: "0" },
      { ...state, c: 0, s0: 0, s1: 0, s2: 0 },
    ];
    for (const value of broken) expect(() => Random.fromState(value as never)).toThrow(FormatError);
  });
});

/** Largest distance between the empirical and the true distribution function. */
function ksDistance(n: number, draw: () => number, cdf: (x: number) => number): number {
  const sorted = Float64Array.from({ length: n }, draw).sort();
  let distance = 0;
  for (let i = 0; i < n; i++) {
    const p = cdf(sorted[i]!);
    distance = Math.max(distance, Math.abs(p - i / n), Math.abs(p - (i + 1) / n));
  }
  return distance;
}

function chiSquare(counts: readonly number[], expected: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < counts.length; i++) {
    if (expected[i]! > 0) sum += (counts[i]! - expected[i]!) ** 2 / expected[i]!;
  }
  return sum;
}

/** Phi(x) by its Taylor series around 0, or 0 / 1 in the far tails; absolute error below 1e-12. */
function normalCdf(x: number): number {
  if (Math.abs(x) > 7) return x < 0 ? 0 : 1;
  let term = x;
  let sum = x;
  for (let k = 1; Math.abs(term) > 1e-17 * Math.abs(sum); k++) {
    term *= (x * x) / (2 * k + 1);
    sum += term;
  }
  return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}
