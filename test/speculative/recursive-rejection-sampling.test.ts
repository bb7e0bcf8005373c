import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { Draft } from "../../src/speculative/index.ts";
import { recursiveRejectionSampling, resolveSampling } from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

type Law = readonly number[];
/** The law of the next sibling, given the earlier ones; null when there is none. */
type Proposal = (earlier: readonly number[]) => Law | null;

const sampling = resolveSampling({ temperature: 1 });
const normalised = (weights: Law): Law => weights.map((w) => w / weights.reduce((a, b) => a + b, 0));
const without = (law: Law, tokens: readonly number[]): Law | null => {
  const left = law.map((p, i) => (tokens.includes(i) ? 0 : p));
  return left.some((p) => p > 0) ? normalised(left) : null;
};
const oneHot = (size: number, token: number): Law => Array.from({ length: size }, (_, i) => (i === token ? 1 : 0));
const withReplacement =
  (q: Law): Proposal =>
  () =>
    q;
const withoutReplacement =
  (q: Law): Proposal =>
  (earlier) =>
    without(q, earlier);

/** Reports the uniform numbers it is given, and writes down the weights it was asked to draw from. */
class Scripted extends Random {
  readonly #uniforms: number[];
  weights: Law = [];
  constructor(uniforms: readonly number[]) {
    super(0);
    this.#uniforms = uniforms.slice();
  }
  override uniform(): number {
    return this.#uniforms.shift() ?? 1 - 2 ** -53;
  }
  override categorical(weights: ArrayLike<number>): number {
    this.weights = Array.from(weights);
    return 0;
  }
}

const star = (siblings: readonly number[], laws: readonly (Law | null)[]): Draft => ({
  tokens: [0, ...siblings],
  parents: [-1, ...siblings.map(() => 0)],
  laws: [null, ...laws.map((law) => law && Float64Array.from(law))],
});

/**
 * What the verifier makes of these siblings, exactly: each is accepted for u below a threshold, which bisection finds.
 * @returns probabilities: of each sibling to be accepted, and of each token to be emitted when none is
 */
function outcome(p: Law, siblings: readonly number[], laws: readonly (Law | null)[]) {
  const rows = siblings.length + 1;
  const data = Float32Array.from({ length: rows * p.length }, (_, i) => Math.log(p[i % p.length]!));
  const play = (uniforms: readonly number[]) => {
    const random = new Scripted(uniforms);
    const logits = { data, rows, columns: p.length };
    const verdict = recursiveRejectionSampling.verify({ draft: star(siblings, laws), logits, sampling, random });
    return { accepted: (verdict.path[1] ?? 0) - 1, weights: random.weights };
  };
  const accepted: number[] = [];
  let rejected = 1;
  for (let k = 0; k < siblings.length && rejected > 0; k++) {
    const before = accepted.map(() => 1 - 2 ** -53);
    const stays = (u: number) => play([...before, u]).accepted === k;
    let low = stays(1 - 2 ** -53) ? 1 : 0;
    let high = stays(0) ? 1 : 0;
    while (high - low > 1e-9) {
      const middle = (low + high) / 2;
      if (stays(middle)) low = middle;
      else high = middle;
    }
    accepted.push((rejected * (low + high)) / 2);
    rejected *= 1 - (low + high) / 2;
  }
  const weights = rejected > 0 ? normalised(play([]).weights) : p.map(() => 0);
  return { accepted, emitted: weights.map((w) => rejected * w) };
}

/** The exact law of the token after a node with up to `count` children, and the probability that one is accepted. */
function nodeLaw(
  p: Law,
  proposal: Proposal,
  count: number,
  states: (laws: Law, token: number) => Law | null = (q) => q,
) {
  const law = p.map(() => 0);
  let acceptance = 0;
  const draw = (siblings: number[], laws: (Law | null)[], probability: number) => {
    const q = siblings.length < count ? proposal(siblings) : null;
    if (q !== null) {
      q.forEach((share, token) => {
        if (share > 0) draw([...siblings, token], [...laws, states(q, token)], probability * share);
      });
      return;
    }
    const { accepted, emitted } = outcome(p, siblings, laws);
    accepted.forEach((share, k) => {
      law[siblings[k]!]! += probability * share;
      acceptance += probability * share;
    });
    emitted.forEach((share, token) => {
      law[token]! += probability * share;
    });
  };
  draw([], [], 1);
  return { law, acceptance };
}

const close = (actual: Law, expected: Law, digits = 6) => {
  expect(actual.length).toBe(expected.length);
  expected.forEach((value, i) => {
    expect(actual[i]).toBeCloseTo(value, digits);
  });
};

const p = [0.3, 0.4, 0.3];
const q = [0.6, 0.3, 0.1];

describe("the rule, by hand", () => {
  it("siblings 0, 1 of q without replacement: 1/2, then 4/9, then [0, 0, 1]", () => {
    const { accepted, emitted } = outcome(p, [0, 1], [q, [0, 0.75, 0.25]]);
    close(accepted, [1 / 2, (1 / 2) * (4 / 9)]);
    close(emitted, [0, 0, (1 / 2) * (5 / 9)]);
    close(outcome(p, [0, 2], [q, [0, 0.75, 0.25]]).accepted, [1 / 2, 1 / 2]);
  });

  it("acceptance .7, .875, 1 without replacement; .7, .82, .848 with; the law is p", () => {
    for (const [proposal, expected] of [
      [withoutReplacement(q), [0.7, 0.875, 1]],
      [withReplacement(q), [0.7, 0.82, 0.848]],
    ] as const) {
      expected.forEach((rate, i) => {
        const { law, acceptance } = nodeLaw(p, proposal, i + 1);
        expect(acceptance).toBeCloseTo(rate, 6);
        close(law, p);
      });
    }
  });

  it("five tokens, one to five siblings", () => {
    const p5 = [0.35, 0.25, 0.2, 0.15, 0.05];
    const q5 = [0.1, 0.2, 0.3, 0.3, 0.1];
    [0.7, 0.79127, 0.835913, 0.899901, 1].forEach((rate, i) => {
      const { law, acceptance } = nodeLaw(p5, withoutReplacement(q5), i + 1);
      expect(acceptance).toBeCloseTo(rate, 5);
      close(law, p5);
    });
    [0.7, 0.78, 0.802].forEach((rate, i) => {
      expect(nodeLaw(p5, withReplacement(q5), i + 1).acceptance).toBeCloseTo(rate, 5);
    });
  });

  it("two tokens, two siblings: always accepted without replacement", () => {
    for (const [a, b, one, two] of [
      [0.9, 0.2, 0.3, 0.44],
      [0.5, 0.1, 0.6, 0.64],
    ] as const) {
      const [p, q] = [
        [a, 1 - a],
        [b, 1 - b],
      ];
      expect(nodeLaw(p, withReplacement(q), 1).acceptance).toBeCloseTo(one, 6);
      expect(nodeLaw(p, withReplacement(q), 2).acceptance).toBeCloseTo(two, 6);
      expect(nodeLaw(p, withoutReplacement(q), 2).acceptance).toBeCloseTo(1, 6);
    }
  });

  it("chosen children 0, 1: accepted with .3 + .4, the law is p", () => {
    const { accepted, emitted } = outcome(p, [0, 1], [null, null]);
    close(accepted, [0.3, 0.4]);
    close(emitted, [0, 0, 0.3]);
    close(outcome(p, [0, 1], [oneHot(3, 0), oneHot(3, 1)]).accepted, [0.3, 0.4]);
  });

  it("never accepts a copy of a rejected sibling", () => {
    const { accepted, emitted } = outcome(p, [0, 0, 0], [q, q, q]);
    close(accepted, [1 / 2, 0, 0]);
    // p - q = [0, .1, .2]; [0, 1/3, 2/3] - q = [0, .0333, .5667]; [0, 1/18, 17/18] - q = [0, 0, .8444].
    close(emitted, [0, 0, 1 / 2]);
    close(outcome(p, [0, 0], [null, null]).accepted, [0.3, 0]);
  });
});

describe("the law of what comes out", () => {
  const weights = fc.array(fc.nat(9), { minLength: 4, maxLength: 4 }).filter((w) => w.some(Boolean));
  const laws = weights.map(normalised);

  it("is the target's for any target, any draft and any number of siblings, zeros included", () => {
    fc.assert(
      fc.property(laws, laws, fc.integer({ min: 0, max: 3 }), (p, q, count) => {
        for (const proposal of [withReplacement(q), withoutReplacement(q)]) close(nodeLaw(p, proposal, count).law, p);
      }),
      { numRuns: 60 },
    );
  });

  it("is the target's when each sibling's law is any function of the earlier ones, or a choice", () => {
    fc.assert(
      fc.property(
        laws,
        fc.infiniteStream(laws),
        fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
        (p, some, chosen) => {
          const memory = new Map<string, Law>();
          const proposal: Proposal = (earlier) => {
            const key = earlier.join();
            if (!memory.has(key)) memory.set(key, some.next().value!);
            const law = memory.get(key)!;
            return chosen[earlier.length] ? oneHot(4, law.indexOf(Math.max(...law))) : law;
          };
          const states = (law: Law, token: number) => (law[token] === 1 ? null : law);
          close(nodeLaw(p, proposal, 3, states).law, p);
        },
      ),
      { numRuns: 40 },
    );
  });

  // Negative controls: each is a way to get it wrong, and each must fail the same comparison.
  const distance = (law: Law) => law.reduce((sum, x, i) => sum + Math.abs(x - p[i]!), 0) / 2;

  it("is NOT the target's when later siblings without replacement are stated as drawn from q", () => {
    expect(distance(nodeLaw(p, withoutReplacement(q), 2, () => q).law)).toBeGreaterThan(0.01);
  });

  it("is NOT the target's when siblings are sorted by probability after drawing", () => {
    const law = p.map(() => 0);
    for (let first = 0; first < 3; first++) {
      for (let second = 0; second < 3; second++) {
        if (first === second) continue;
        const probability = q[first]! * without(q, [first])![second]!;
        const sorted = [first, second].sort((a, b) => q[b]! - q[a]!);
        const { accepted, emitted } = outcome(p, sorted, [q, without(q, [sorted[0]!])]);
        accepted.forEach((share, k) => {
          law[sorted[k]!]! += probability * share;
        });
        emitted.forEach((share, token) => {
          law[token]! += probability * share;
        });
      }
    }
    expect(distance(law)).toBeGreaterThan(0.01);
  });

  it("is NOT the target's when copies among independent siblings are dropped", () => {
    const law = p.map(() => 0);
    for (let first = 0; first < 3; first++) {
      for (let second = 0; second < 3; second++) {
        const siblings = [...new Set([first, second])];
        const { accepted, emitted } = outcome(
          p,
          siblings,
          siblings.map(() => q),
        );
        accepted.forEach((share, k) => {
          law[siblings[k]!]! += q[first]! * q[second]! * share;
        });
        emitted.forEach((share, token) => {
          law[token]! += q[first]! * q[second]! * share;
        });
      }
    }
    expect(distance(law)).toBeGreaterThan(0.01);
  });
});

describe("at the edges of numbers", () => {
  it("nothing in common: every sibling is turned away and p is left as it was", () => {
    const [low, high] = [
      [0.25, 0.75, 0, 0],
      [0, 0, 0.5, 0.5],
    ];
    expect(nodeLaw(low, withoutReplacement(high), 4).acceptance).toBe(0);
    close(nodeLaw(low, withoutReplacement(high), 4).law, low);
  });

  it("equal laws: the first sibling is accepted, always", () => {
    const { accepted } = outcome(p, [2, 1, 0], [p, without(p, [2]), without(p, [2, 1])]);
    // The target's law is a softmax of float32 logarithms, so equal to 7 digits only.
    expect(accepted[0]).toBeGreaterThan(1 - 1e-6);
  });

  it("never emits what the target never says, though masses be as small as numbers go", () => {
    const random = new Random(1);
    const tiny = [1, 1e-30, 1e-37, 0];
    const data = Float32Array.from({ length: 20 }, (_, i) => Math.log(tiny[i % 4]!));
    const smallest = Float64Array.of(1, Number.MIN_VALUE, 0, 0);
    for (let i = 0; i < 2000; i++) {
      const siblings = [0, 1, 3, 2];
      const laws = [smallest, [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]];
      const draft = star(
        siblings,
        laws.map((law) => Array.from(law)),
      );
      const logits = { data, rows: 5, columns: 4 };
      const verdict = recursiveRejectionSampling.verify({ draft, logits, sampling, random });
      expect(verdict.path).not.toContain(3);
      expect(verdict.token).not.toBe(3);
    }
  });

  it("a law that sums to less than 1 by rounding moves what comes out by no more than that", () => {
    const short = q.map((share) => share * (1 - 1e-12));
    close(nodeLaw(p, withReplacement(q), 2, () => short).law, p);
  });
});

describe("the verifier of trees", () => {
  // 0 -> {1, 2}, 1 -> {0}, 2 -> {1, 3}; the target says 2 after 0, 3 after 2.
  const draft: Draft = {
    tokens: [0, 1, 2, 0, 1, 3],
    parents: [-1, 0, 0, 1, 2, 2],
    laws: [null, null, null, null, null, null],
  };
  const oneSays = (says: readonly number[]) => ({
    data: Float32Array.from(says.flatMap((token) => oneHot(4, token))),
    rows: says.length,
    columns: 4,
  });
  const verify = (says: readonly number[]) =>
    recursiveRejectionSampling.verify({
      draft,
      logits: oneSays(says),
      sampling: resolveSampling(),
      random: new Random(0),
    });

  it("at temperature 0 follows the arg-max as far as it is among the children", () => {
    expect(verify([2, 0, 3, 0, 0, 1])).toEqual({ kind: "completed", path: [0, 2, 5], token: 1 });
    expect(verify([2, 0, 0, 0, 0, 1])).toEqual({ kind: "corrected", path: [0, 2], token: 0 });
    expect(verify([1, 0, 0, 2, 0, 1])).toEqual({ kind: "completed", path: [0, 1, 3], token: 2 });
    expect(verify([3, 0, 0, 2, 0, 1])).toEqual({ kind: "corrected", path: [0], token: 3 });
  });

  it("refuses a law that could not have drawn its sibling, when it comes to it", () => {
    const wrong: Draft = { ...draft, laws: [null, null, Float64Array.of(1, 0, 0, 0), null, null, null] };
    const test = (says: number) =>
      recursiveRejectionSampling.verify({
        draft: wrong,
        logits: oneSays([says, 0, 0, 0, 0, 0]),
        sampling: resolveSampling(),
        random: new Random(0),
      });
    expect(() => test(2)).toThrow(ArgumentError);
    expect(() => test(2)).toThrow(/draft\.laws\[2\]/);
    expect(test(1).path).toEqual([0, 1, 3]);
  });
});
