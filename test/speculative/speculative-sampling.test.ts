import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { row } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Drafter, SamplingOptions, Verifier } from "../../src/speculative/index.ts";
import {
  acceptanceRate,
  ChainDrafter,
  chainDraft,
  expectedSpeedup,
  expectedTokensPerPass,
  randomDrafter,
  recursiveRejectionSampling,
  residualLaw,
  resolveSampling,
  tokenLaw,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";

const p = Float64Array.of(0.3, 0.4, 0.3);
const q = Float64Array.of(0.6, 0.3, 0.1);
const close = (actual: ArrayLike<number>, expected: readonly number[], digits = 12) => {
  expect(actual.length).toBe(expected.length);
  expected.forEach((value, i) => {
    expect(actual[i]).toBeCloseTo(value, digits);
  });
};

/** A generator that reports the given uniform number and writes down the weights it was asked to draw from. */
class Scripted extends Random {
  readonly #uniform: number;
  weights: number[] = [];
  constructor(uniform: number) {
    super(0);
    this.#uniform = uniform;
  }
  override uniform(): number {
    return this.#uniform;
  }
  override categorical(weights: ArrayLike<number>): number {
    this.weights = Array.from(weights);
    return 0;
  }
}

/**
 * The exact law of the first token a verifier emits for one guess drawn from `proposal` and declared as `law`: summed
 * over guesses, and over a grid of uniform numbers none of which lies on an acceptance threshold.
 */
function outputLaw(
  verifier: Verifier,
  target: Float64Array,
  proposal: Float64Array,
  law: Float64Array | null,
): number[] {
  const size = target.length;
  const output = new Array<number>(size).fill(0);
  const data = new Float32Array(2 * size).map((_, i) => Math.log(target[i % size]!));
  const grid = 300;
  for (let guess = 0; guess < size; guess++) {
    for (let i = 0; i < grid && proposal[guess]! > 0; i++) {
      const random = new Scripted((i + 0.5) / grid);
      const verdict = verifier.verify({
        draft: chainDraft(0, [guess], [law]),
        logits: { data, rows: 2, columns: size },
        sampling: resolveSampling({ temperature: 1 }),
        random,
      });
      const share = proposal[guess]! / grid;
      if (verdict.path.length === 2) output[guess]! += share;
      else for (let y = 0; y < size; y++) output[y]! += share * random.weights[y]!;
    }
  }
  return output;
}

describe("the rule, by hand", () => {
  it("p = [.3, .4, .3], q = [.6, .3, .1]: acceptance .7, residual [0, 1/3, 2/3]", () => {
    expect(acceptanceRate(p, q)).toBeCloseTo(0.7, 12);
    close(residualLaw(p, q), [0, 1 / 3, 2 / 3]);
  });

  it("expected tokens per pass at acceptance .7, gamma 1 to 5, and in the limits", () => {
    close(
      [1, 2, 3, 4, 5].map((gamma) => expectedTokensPerPass(0.7, gamma)),
      [1.7, 2.19, 2.533, 2.7731, 2.94117],
    );
    expect(expectedTokensPerPass(1, 4)).toBe(5);
    expect(expectedTokensPerPass(0, 4)).toBe(1);
    expect(expectedTokensPerPass(0.7, 0)).toBe(1);
  });

  it("speedup where passes cost the same whatever they score", () => {
    expect(expectedSpeedup(2.2, 3, 0.0164)).toBeCloseTo(2.0968, 4);
    expect(expectedSpeedup(2.2, 5, 0.1)).toBeCloseTo(1.4667, 4);
    expect(expectedSpeedup(1, 0, 0.5)).toBe(1);
  });

  it("emits exactly p for the true law, and [.5, 1/6, 1/3] when an arg-max guess is declared as drawn from q", () => {
    close(outputLaw(recursiveRejectionSampling, p, q, q), [0.3, 0.4, 0.3], 6);
    close(outputLaw(recursiveRejectionSampling, p, Float64Array.of(1, 0, 0), q), [0.5, 1 / 6, 1 / 3], 6);
  });

  it("emits exactly p for a guess chosen without chance, whichever it is", () => {
    for (const guess of [0, 1, 2]) {
      const chosen = Float64Array.of(0, 0, 0);
      chosen[guess] = 1;
      close(outputLaw(recursiveRejectionSampling, p, chosen, null), [0.3, 0.4, 0.3], 6);
      close(outputLaw(recursiveRejectionSampling, p, chosen, chosen), [0.3, 0.4, 0.3], 6);
    }
  });

  it("accepts with min(p, q), replaces from the residual, and that is p for any two laws", () => {
    const weights = fc
      .array(fc.integer({ min: 0, max: 9 }), { minLength: 5, maxLength: 5 })
      .filter((w) => w.some(Boolean));
    const normalised = (w: number[]) => Float64Array.from(w, (x) => x / w.reduce((a, b) => a + b, 0));
    fc.assert(
      fc.property(weights, weights, (wp, wq) => {
        const [target, draft] = [normalised(wp), normalised(wq)];
        const residual = residualLaw(target, draft);
        expect(residual.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
        const rate = acceptanceRate(target, draft);
        target.forEach((probability, x) => {
          expect(Math.min(probability, draft[x]!) + (1 - rate) * residual[x]!).toBeCloseTo(probability, 12);
        });
      }),
    );
  });

  it("has an empty residual where q covers p: p itself, never NaN", () => {
    close(residualLaw(p, p), [0.3, 0.4, 0.3]);
    close(residualLaw(Float64Array.of(1, 0), Float64Array.of(1, 0)), [1, 0]);
    expect(residualLaw(p, p)).not.toBe(p);
  });
});

describe("the verifier", () => {
  const sampling = resolveSampling({ temperature: 1 });
  const logits = { data: new Float32Array(9), rows: 3, columns: 3 };

  it("at temperature 0 keeps the arg-max and nothing else, whatever is drawn", () => {
    const cold = resolveSampling();
    const data = Float32Array.of(0, 5, 1, 7, 0, 0, 0, 0, 2);
    for (const uniform of [0, 0.3, 1 - 2 ** -53]) {
      class Fixed extends Random {
        override uniform(): number {
          return uniform;
        }
      }
      const random = new Fixed(0);
      const verify = (guesses: number[], laws: (Float64Array | null)[]) =>
        recursiveRejectionSampling.verify({
          draft: chainDraft(2, guesses, laws),
          logits: { data, rows: 3, columns: 3 },
          sampling: cold,
          random,
        });
      for (const law of [null, q]) {
        expect(verify([1, 0], [law, law])).toEqual({ kind: "completed", path: [0, 1, 2], token: 2 });
        expect(verify([1, 2], [law, law])).toEqual({ kind: "corrected", path: [0, 1], token: 0 });
        expect(verify([0, 0], [law, law])).toEqual({ kind: "corrected", path: [0], token: 1 });
      }
      expect(verify([], [])).toEqual({ kind: "completed", path: [0], token: 1 });
    }
  });

  it("refuses laws that could not have drawn their guess, and logits that are no numbers", () => {
    const random = new Random(0);
    for (const law of [Float64Array.of(1, 0, 0), Float64Array.of(1, Number.NaN, 0)]) {
      const draft = chainDraft(0, [1], [law]);
      expect(() => recursiveRejectionSampling.verify({ draft, logits, sampling, random })).toThrow(ArgumentError);
    }
    const broken = { data: new Float32Array(9).fill(Number.NaN), rows: 3, columns: 3 };
    expect(() =>
      recursiveRejectionSampling.verify({ draft: chainDraft(0, [1], [q]), logits: broken, sampling, random }),
    ).toThrow(/NaN/);
  });
});

// The joint law of the first two tokens against exact enumeration. A correct sampler fails once in a thousand seeds,
// and the seeds are fixed.
describe("the joint law of two tokens", () => {
  const draws = 200_000;
  const target = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
  const draft = TableModel.random({ vocabularySize: 4, order: 1, seed: "draft" });
  const chain = new ChainDrafter(draft, { gamma: 3 });
  const warm: SamplingOptions = { temperature: 1 };

  it("is the target's for an unlike draft, 200,000 draws", () => {
    const fit = fitOfFirstTwoTokens(target, [0, 1], draws, { drafter: chain, ...warm });
    expect(fit.chiSquare).toBeLessThan(fit.limit);
    expect(fit.tokensPerPass).toBeGreaterThan(1.2);
  });

  it("is the target's when the draft is the target, 200,000 draws, all accepted", () => {
    const drafter = new ChainDrafter(target, { gamma: 3 });
    const fit = fitOfFirstTwoTokens(target, [0, 1], draws, { drafter, ...warm });
    expect(fit.chiSquare).toBeLessThan(fit.limit);
    expect(fit.tokensPerPass).toBe(4);
  });

  it("is the target's when nothing the draft says is possible, 200,000 draws, all rejected", () => {
    const low = new TableModel({ vocabularySize: 4, order: 1, law: ([t = 0]) => [1 + t, 3, 0, 0] });
    const high = TableModel.fromRows([[0, 0, 1, 2]]);
    const fit = fitOfFirstTwoTokens(low, [0], draws, { drafter: new ChainDrafter(high, { gamma: 3 }), ...warm });
    expect(fit.chiSquare).toBeLessThan(fit.limit);
    expect(fit.tokensPerPass).toBe(1);
  });

  for (const [name, options] of Object.entries({
    "plain decoding": { temperature: 1 },
    "a random drafter": { temperature: 1, drafter: randomDrafter({ gamma: 2 }) },
    "temperature .5": { temperature: 0.5, drafter: chain },
    "temperature 2, top-k 3": { temperature: 2, topK: 3, drafter: chain },
    "top-p .8": { temperature: 1, topP: 0.8, drafter: chain },
    "all three": { temperature: 1.5, topK: 3, topP: 0.9, drafter: chain },
    "a draft hotter than the target": {
      temperature: 0.7,
      drafter: new ChainDrafter(draft, { gamma: 3, sampling: { temperature: 3 } }),
    },
    "an arg-max draft": {
      temperature: 1,
      drafter: new ChainDrafter(draft, { gamma: 3, sampling: { temperature: 0 } }),
    },
  })) {
    it(`is the target's with ${name}, 25,000 draws`, () => {
      const fit = fitOfFirstTwoTokens(target, [0, 1], 25_000, options);
      expect(fit.chiSquare).toBeLessThan(fit.limit);
    });
  }

  // Negative controls: each is a bug that has shipped somewhere, and each must fail the very same test.
  it("is NOT the target's when replacements come from p instead of the residual", () => {
    const wrong: Verifier = {
      verify(verification) {
        const verdict = recursiveRejectionSampling.verify(verification);
        if (verdict.kind === "completed") return verdict;
        const { logits, sampling, random } = verification;
        return { ...verdict, token: random.categorical(tokenLaw(row(logits, verdict.path.at(-1)!), sampling)) };
      },
    };
    const fit = fitOfFirstTwoTokens(target, [0, 1], draws, { drafter: chain, verifier: wrong, ...warm });
    expect(fit.chiSquare).toBeGreaterThan(10 * fit.limit);
  });

  it("is NOT the target's when an arg-max draft is tested as if it had been sampled", () => {
    const fit = fitOfFirstTwoTokens(target, [0, 1], 50_000, { drafter: mislabelled({ temperature: 0 }), ...warm });
    expect(fit.chiSquare).toBeGreaterThan(10 * fit.limit);
  });

  it("is NOT the target's when draft and verification disagree on the temperature", () => {
    const fit = fitOfFirstTwoTokens(target, [0, 1], 50_000, { drafter: mislabelled({ temperature: 0.5 }), ...warm });
    expect(fit.chiSquare).toBeGreaterThan(10 * fit.limit);
  });

  it("is NOT the target's when every guess is accepted", () => {
    const wrong: Verifier = {
      verify({ draft, logits, sampling, random }) {
        const path = Array.from({ length: draft.tokens.length }, (_, i) => i);
        const last = tokenLaw(row(logits, path.length - 1), sampling);
        return { kind: "completed", path, token: random.categorical(last) };
      },
    };
    const fit = fitOfFirstTwoTokens(target, [0, 1], 50_000, { drafter: chain, verifier: wrong, ...warm });
    expect(fit.chiSquare).toBeGreaterThan(10 * fit.limit);
  });

  /** Guesses drawn with one set of options, declared as drawn with temperature 1. */
  function mislabelled(sampling: SamplingOptions): Drafter {
    return {
      vocabularySize: 4,
      open: () => ({
        cost: { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 },
        propose({ tokens, maxDepth, random }) {
          const text = tokens.slice();
          const laws: Float64Array[] = [];
          for (let i = 0; i < Math.min(3, maxDepth); i++) {
            text.push(random.categorical(tokenLaw(draft.logits(text), sampling)));
            laws.push(tokenLaw(draft.logits(text.slice(0, -1)), { temperature: 1 }));
          }
          return chainDraft(tokens.at(-1)!, text.slice(tokens.length), laws);
        },
        observe() {},
        close() {},
      }),
      reset() {},
    };
  }
});
