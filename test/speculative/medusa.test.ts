import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { openKernels } from "../../src/kernels/kernels.ts";
import type { Matrix, Taps } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Weights } from "../../src/model/weights.ts";
import type { DraftContext, Drafter, DraftStart } from "../../src/speculative/index.ts";
import {
  generateAll,
  headTarget,
  MedusaDrafter,
  MedusaHeads,
  resolveSampling,
  tokenLaw,
} from "../../src/speculative/index.ts";
import { medusaNames } from "../../src/speculative/medusa.ts";
import { Random } from "../../src/tensor/random.ts";
import { withHidden } from "./hidden-table.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";
import { medusaWeights, tinyConfig, tinyTarget } from "./tiny-target.ts";

const space = await openKernels();
const full = process.env["TOKENTHRIFT_FULL"] !== undefined;

/** A target of width 1 whose final norm leaves positive numbers as 1. */
const scalarTarget = headTarget(
  { ...tinyConfig, width: 1, vocabularySize: 2, normEpsilon: 1e-12 },
  new Map<string, Weights>([
    ["model.embed_tokens.weight", { shape: [2, 1], data: Float32Array.of(1, -1) }],
    ["model.norm.weight", { shape: [1], data: Float32Array.of(2) }],
  ]),
);
const scalars = (residual: number, bias: number, output?: readonly number[]) =>
  new Map<string, Weights>([
    [medusaNames.residual(0), { shape: [1, 1], data: Float32Array.of(residual) }],
    [medusaNames.bias(0), { shape: [1], data: Float32Array.of(bias) }],
    ...(output === undefined
      ? []
      : ([[medusaNames.output(0), { shape: [2, 1], data: Float32Array.from(output) }]] as const)),
  ]);

describe("MedusaHeads", () => {
  it("the worked example, by hand: h = 2 after the norm", () => {
    const silu = (x: number) => x / (1 + Math.exp(-x));
    for (const [weights, expected] of [
      [scalars(1, 0, [1, -1]), 2 + silu(2)],
      [scalars(1, 0), 2 + silu(2)],
      [scalars(0.5, 0.25, [1, -1]), 2 + silu(1.25)],
    ] as const) {
      const { data } = new MedusaHeads(scalarTarget, weights, space).logits(Float32Array.of(5));
      expect(data[0]).toBeCloseTo(expected, 5);
      expect(data[1]).toBeCloseTo(-expected, 5);
    }
  });

  it("start as the target's own: with W1 = 0 and b = 0 every head gives the target's logits", () => {
    const target = tinyTarget();
    const { width, vocabularySize, normEpsilon } = target.config;
    const weights = new Map(
      [...medusaWeights(target, 2, true)].map(([name, { shape, data }]) => [
        name,
        { shape, data: new Float32Array(data.length) },
      ]),
    );
    const random = new Random(1);
    const hidden = Float32Array.from({ length: width }, () => random.normal());
    const size = Math.sqrt(hidden.reduce((sum, x) => sum + x * x, 0) / width + normEpsilon);
    const { data } = new MedusaHeads(target, weights, space).logits(hidden);
    for (let id = 0; id < vocabularySize; id++) {
      let logit = 0;
      for (let i = 0; i < width; i++)
        logit += (hidden[i]! / size) * target.norm[i]! * target.outputHead[id * width + i]!;
      expect(data[id]).toBeCloseTo(logit, 4);
      expect(data[vocabularySize + id]).toBe(data[id]);
    }
  });

  it("ranks what its logits say", () => {
    const heads = new MedusaHeads(tinyTarget(), medusaWeights(tinyTarget(), 3), space);
    const hidden = new Float32Array(heads.width).fill(0.5);
    const { data } = heads.logits(hidden);
    const best = heads.best(hidden, [4, heads.vocabularySize + 5]);
    expect(best.map(({ length }) => length)).toEqual([4, heads.vocabularySize]);
    best.forEach((ids, k) => {
      const row = Array.from(data.subarray(k * heads.vocabularySize, (k + 1) * heads.vocabularySize));
      const order = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]! || a - b);
      expect(Array.from(ids)).toEqual(order.slice(0, ids.length));
    });
  });

  it("refuses weights that are missing, misshapen, unexpected or not finite, naming them", () => {
    const target = tinyTarget();
    const good = medusaWeights(target, 2);
    const change = (edit: (weights: Map<string, Weights>) => void) => {
      const weights = new Map(good);
      edit(weights);
      return () => new MedusaHeads(target, weights, space);
    };
    const name = medusaNames.bias(1);
    expect(change((weights) => weights.delete(name))).toThrow(name);
    expect(change((weights) => weights.set(name, { shape: [3], data: new Float32Array(3) }))).toThrow(name);
    expect(change((weights) => weights.set("more", { shape: [1], data: new Float32Array(1) }))).toThrow(/more/);
    const bad = good.get(name)!.data.slice().fill(Number.NaN);
    expect(change((weights) => weights.set(name, { shape: [bad.length], data: bad }))).toThrow(/NaN/);
    expect(() => new MedusaHeads(target, new Map(), space)).toThrow(ArgumentError);
  });
});

describe("MedusaDrafter", () => {
  const target = tinyTarget();
  const heads = new MedusaHeads(target, medusaWeights(target, 3), space);
  const accuracies = [[0.5, 0.3], [0.4, 0.2], [0.3]];
  const { width, vocabularySize } = heads;
  const random = new Random("states");
  const hidden = (rows: number): Matrix => ({
    data: Float32Array.from({ length: rows * width }, () => random.normal()),
    rows,
    columns: width,
  });
  const taps = (last: Matrix): Taps => ({ hidden: [hidden(last.rows), last] });
  const start = (prompt: readonly number[], last: Matrix | null): DraftStart => ({
    prompt,
    vocabularySize,
    contextLength: 30,
    prefill: last === null ? null : { logits: hidden(0), taps: taps(last) },
  });
  const context = (tokens: readonly number[], changes: Partial<DraftContext> = {}): DraftContext => ({
    tokens,
    maxNodes: 30,
    maxDepth: 29,
    sampling: resolveSampling(),
    random: new Random(0),
    ...changes,
  });

  it("drafts what the heads rank first at the last committed token, and follows the accepted path", () => {
    const drafter = new MedusaDrafter(heads, { accuracies, budget: 5 });
    const prompt = hidden(2);
    const drafting = drafter.open(start([3, 1, 4], prompt));
    const expected = (state: Float32Array, pending: number) => {
      const [first, second, third] = heads.best(state, [2, 2, 1]) as [Int32Array, Int32Array, Int32Array];
      // Values .5, .3, .2, .12, .1: of depths 1, 1, 2 and then two more of depth 2; .06 of depth 3 is left out.
      return {
        tokens: [pending, first[0], first[1], second[0], second[0], second[1]],
        parents: [-1, 0, 0, 1, 2, 1],
        laws: [null, null, null, null, null, null],
        unused: third.length,
      };
    };
    const { unused: _, ...first } = expected(prompt.data.subarray(width), 4);
    const draft = drafting.propose(context([3, 1, 4]));
    expect(draft).toEqual(first);
    expect(drafting.cost).toEqual({
      passes: 1,
      tokens: 1,
      multiplyAdds: 2 * width * (width + vocabularySize),
      cacheBytesRead: 0,
    });
    const scored = hidden(6);
    drafting.observe({ draft, logits: hidden(0), path: [0, 2, 4], token: 7, taps: taps(scored) });
    const { unused: __, ...second } = expected(scored.data.subarray(4 * width, 5 * width), 7);
    expect(drafting.propose(context([3, 1, 4, first.tokens[2]!, first.tokens[4]!, 7]))).toEqual(second);
  });

  it("guesses nothing before the target has committed a token, nor where nothing is asked for", () => {
    const drafter = new MedusaDrafter(heads, { accuracies });
    const root = { tokens: [4], parents: [-1], laws: [null] };
    expect(drafter.open(start([4], null)).propose(context([4]))).toEqual(root);
    const drafting = drafter.open(start([3, 4], hidden(1)));
    expect(drafting.propose(context([3, 4], { maxNodes: 1 }))).toEqual(root);
    expect(drafting.propose(context([3, 4], { maxDepth: 0 }))).toEqual(root);
    expect(drafting.cost.passes).toBe(0);
    expect(drafting.propose(context([3, 4], { maxDepth: 1 })).parents).toEqual([-1, 0, 0]);
    expect(
      new MedusaDrafter(heads, { accuracies, budget: 0 }).open(start([3, 4], hidden(1))).propose(context([3, 4])),
    ).toEqual(root);
  });

  it("refuses targets it does not fit, and options out of range", () => {
    const drafter = new MedusaDrafter(heads, { accuracies });
    expect(() => drafter.open({ ...start([3, 4], hidden(1)), vocabularySize: 5 })).toThrow(ArgumentError);
    const narrow = { data: new Float32Array(3), rows: 1, columns: 3 };
    expect(() => drafter.open(start([3, 4], narrow))).toThrow(/width 12/);
    expect(() => drafter.open({ ...start([3, 4], null), prefill: { logits: narrow } })).toThrow(/hidden states/);
    expect(() => new MedusaDrafter(heads, { accuracies: [...accuracies, [0.1]] })).toThrow(/at most 3 heads/);
    expect(() => new MedusaDrafter(heads, { accuracies, budget: -1 })).toThrow(ArgumentError);
    expect(() => new MedusaDrafter(heads, { accuracies: [[2]] })).toThrow(ArgumentError);
  });
});

describe("what comes out", () => {
  const config = { ...tinyConfig, vocabularySize: 4 };
  const heads = new MedusaHeads(tinyTarget(config), medusaWeights(tinyTarget(config), 2), space);
  const drafter = new MedusaDrafter(heads, { accuracies: [[0.5, 0.3], [0.5]], budget: 3 });
  const table = TableModel.random({ vocabularySize: 4, order: 2, seed: "target", sharpness: 2 });
  const dressed = (model: TableModel) => withHidden(model, config.width);

  it("is plain decoding's text at temperature 0, for every table, budget and prompt", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.integer({ min: 0, max: 64 }),
        fc.integer({ min: 1, max: 30 }),
        async (seed, budget, maxTokens) => {
          const model = TableModel.random({ vocabularySize: 4, order: 2, seed });
          const prompt = [seed % 4, 1, 2].slice(seed % 3);
          const plain = await generateAll(model, prompt, { maxTokens });
          const drafter = new MedusaDrafter(heads, {
            accuracies: [
              [0.5, 0.3, 0.1],
              [0.5, 0.1],
            ],
            budget,
          });
          expect((await generateAll(dressed(model), prompt, { maxTokens, drafter })).tokens).toEqual(plain.tokens);
        },
      ),
      { numRuns: 40 },
    );
  });

  const draws = full ? 400_000 : 8_000;
  const fitOf = (model: TableModel, temperature: number, twin: Drafter = drafter) =>
    fitOfFirstTwoTokens(model, [0, 1], draws, { temperature, drafter: twin, model: dressed(model) });

  it.each([
    ["unlike what is guessed", table, 1],
    ["unlike, at temperature .6", table, 0.6],
    ["always what is guessed, or never", TableModel.fromRows([[0.5, 0.5, 0, 0]]), 1],
  ])("has the target's joint law: %s", (_, model, temperature) => {
    const { chiSquare, limit } = fitOf(model, temperature);
    expect(chiSquare).toBeLessThan(limit);
  });

  it("has NOT when choices are declared as draws from the head's law: the same test fails", () => {
    const twin: Drafter = {
      vocabularySize: 4,
      taps: ["hidden"],
      reset() {},
      open(given) {
        const drafting = drafter.open(given);
        const state = given.prefill!.taps!.hidden!.at(-1)!.data.slice(-config.width);
        const law = tokenLaw(heads.logits(state).data.subarray(0, 4), { temperature: 1 });
        return {
          ...drafting,
          get cost() {
            return drafting.cost;
          },
          propose(asked) {
            const draft = drafting.propose(asked);
            return { ...draft, laws: draft.laws.map((_, node) => (node === 0 ? null : law)) };
          },
          observe: (pass) => drafting.observe(pass),
          close: () => drafting.close(),
        };
      },
    };
    const { chiSquare, limit } = fitOf(table, 1, twin);
    expect(chiSquare).toBeGreaterThan(3 * limit);
  });
});
