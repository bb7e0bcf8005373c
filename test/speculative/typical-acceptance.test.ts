import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { Matrix } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Draft } from "../../src/speculative/index.ts";
import {
  ChainDrafter,
  generateAll,
  recursiveRejectionSampling,
  resolveSampling,
  SpecInferDrafter,
  tokenLaw,
  typicalAcceptance,
  typicalThreshold,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";

/** A verifier that draws would fall over this. */
const noChance = new Proxy(new Random(0), {
  get: () => {
    throw new Error("it draws");
  },
});
const matrix = (rows: readonly (readonly number[])[]): Matrix => ({
  data: Float32Array.from(rows.flat()),
  rows: rows.length,
  columns: rows[0]!.length,
});
const treeOf = (tokens: number[], parents: number[]): Draft => ({
  tokens,
  parents,
  laws: new Array<null>(tokens.length).fill(null),
});
const verify = (draft: Draft, logits: Matrix, temperature: number) =>
  typicalAcceptance().verify({ draft, logits, sampling: resolveSampling({ temperature }), random: noChance });

describe("the threshold", () => {
  it("of the card's laws, by hand", () => {
    const passing = (law: readonly number[]) => {
      const threshold = typicalThreshold(Float64Array.from(law));
      return { threshold, passes: law.flatMap((p, i) => (p > threshold ? [i] : [])) };
    };
    expect(passing([0.7, 0.2, 0.06, 0.04])).toEqual({ threshold: 0.09, passes: [0, 1] });
    expect(passing([0.97, 0.02, 0.005, 0.005])).toEqual({ threshold: 0.09, passes: [0] });
    const flat = passing([0.25, 0.25, 0.25, 0.25]);
    expect(flat.threshold).toBeCloseTo(0.075, 5);
    expect(flat.passes).toEqual([0, 1, 2, 3]);
    expect(passing(new Array(32).fill(1 / 32)).threshold).toBeCloseTo(0.009378, 5);
  });

  it("leaves the most probable token above it, so that a guess at it always passes", () => {
    const logits = fc.array(fc.double({ min: -9, max: 9, noNaN: true }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(logits, (values) => {
        const law = tokenLaw(values, { temperature: 1 });
        expect(Math.max(...law)).toBeGreaterThan(typicalThreshold(law));
      }),
    );
  });
});

describe("the path", () => {
  it("is Medusa's own on trees of its own: the same candidates, thresholds and ties", () => {
    const path = join(import.meta.dirname, "../fixtures/typical-acceptance/verdicts.json");
    const { cases } = JSON.parse(readFileSync(path, "utf8")) as {
      cases: { choices: number[][]; top: number[][]; logits: number[][]; temperature: number; path: number[] }[];
    };
    expect(cases).toHaveLength(72);
    const lengths = new Set<number>();
    for (const { choices, top, logits, temperature, path } of cases) {
      const tokens = [0, ...choices.map((ranks) => top[ranks.length - 1]![ranks.at(-1)!]!)];
      const parents = [
        -1,
        ...choices.map((ranks) => choices.findIndex((c) => c.join() === ranks.slice(0, -1).join()) + 1),
      ];
      const verdict = verify(treeOf(tokens, parents), matrix(logits), temperature);
      expect(verdict.path).toEqual(path);
      lengths.add(path.length);
    }
    expect(lengths.size).toBe(5);
  });

  it("is the deepest; of equal ones the likelier; and the token after it is the most probable", () => {
    const half = Math.log(0.5);
    const third = Math.log(1 / 3);
    // After the root 0 and 1 are alike but 1 is likelier; each has one plausible child, 0's is unlikely.
    const rows = [
      [Math.log(0.4), half, Math.log(0.1)],
      [Math.log(0.05), Math.log(0.9), Math.log(0.05)],
      [third, third, third],
      [0, 0, 1],
      [0, 1, 0],
    ];
    const draft = treeOf([9, 0, 1, 0, 2], [-1, 0, 0, 1, 2]);
    expect(verify(draft, matrix(rows), 1)).toEqual({ kind: "completed", path: [0, 2, 4], token: 1 });
    // Without the deep one: both of the first level pass, 1 is likelier, and its other children were turned away.
    rows[2] = [0, 0, -9];
    expect(verify(draft, matrix(rows), 1)).toEqual({ kind: "corrected", path: [0, 2], token: 0 });
    rows[0] = [-9, -9, 0];
    expect(verify(draft, matrix(rows), 1)).toEqual({ kind: "corrected", path: [0], token: 2 });
  });

  it("at temperature 0 is recursive rejection sampling's, on any tree", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.nat(), (size, seed) => {
        const random = new Random(seed);
        const [tokens, parents] = [[0], [-1]];
        const siblings = new Set<string>();
        for (let i = 1; i < size; i++) {
          const [token, parent] = [random.integer(3), random.integer(tokens.length)];
          if (siblings.has(`${parent} ${token}`)) continue;
          siblings.add(`${parent} ${token}`);
          tokens.push(token);
          parents.push(parent);
        }
        const draft = treeOf(tokens, parents);
        const logits = matrix(tokens.map(() => [0, 0, 0].map(() => random.normal())));
        const given = { draft, logits, sampling: resolveSampling(), random: noChance };
        expect(verify(draft, logits, 0)).toEqual(recursiveRejectionSampling.verify(given));
      }),
    );
  });
});

describe("what comes out", () => {
  const target = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
  const draft = TableModel.random({ vocabularySize: 4, order: 1, seed: "draft" });
  const verifier = typicalAcceptance();

  it("is marked lossy, in the verifier and in the report", async () => {
    expect(verifier.lossy).toBe(true);
    expect(recursiveRejectionSampling.lossy).toBeUndefined();
    const options = { drafter: new ChainDrafter(draft), maxTokens: 8 };
    expect((await generateAll(target, [0], { ...options, verifier })).lossy).toBe(true);
    expect((await generateAll(target, [0], options)).lossy).toBe(false);
  });

  it("is plain decoding's text at temperature 0", async () => {
    for (let first = 0; first < 4; first++) {
      const plain = await generateAll(target, [first], { maxTokens: 40 });
      const options = { maxTokens: 40, verifier, drafter: new SpecInferDrafter(draft) };
      expect((await generateAll(target, [first], options)).tokens).toEqual(plain.tokens);
    }
  });

  it("has NOT the target's joint law when sampling: the test that lossless verifiers pass fails", () => {
    const options = { temperature: 1, drafter: new ChainDrafter(draft, { gamma: 3 }) };
    const lossy = fitOfFirstTwoTokens(target, [0, 1], 4000, { ...options, verifier });
    const lossless = fitOfFirstTwoTokens(target, [0, 1], 4000, options);
    expect(lossless.chiSquare).toBeLessThan(lossless.limit);
    expect(lossy.chiSquare).toBeGreaterThan(10 * lossy.limit);
    // What is bought with it.
    expect(lossy.tokensPerPass).toBeGreaterThan(1.1 * lossless.tokensPerPass);
  });
});

it("refuses thresholds out of range", () => {
  for (const epsilon of [0, 1, -1, Number.NaN]) expect(() => typicalAcceptance({ epsilon })).toThrow(/^epsilon: /);
  for (const delta of [0, 1.1, Number.NaN]) expect(() => typicalAcceptance({ delta })).toThrow(ArgumentError);
});
