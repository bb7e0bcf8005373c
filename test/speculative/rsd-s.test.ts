import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { GrowingTree, ModelDrafterOptions } from "../../src/speculative/index.ts";
import {
  ChainDrafter,
  chiSquareFit,
  conditionalGumbels,
  generateAll,
  gumbelTopK,
  ModelDrafter,
  RsdCDrafter,
  RsdSDrafter,
  resolveSampling,
  SpecInferDrafter,
  tokenLaw,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";
import { draftOf, draws, itIsLossless, target, unlike } from "./lossless-drafter.ts";

const drafterOf = (draft: LanguageModel, options?: ModelDrafterOptions) =>
  new RsdSDrafter(draft, { beamWidth: 3, depth: 2, ...options });
const warm = { temperature: 1 };

/** Gives the noise it was given. */
class Noise extends Random {
  readonly #numbers: number[];
  constructor(numbers: readonly number[]) {
    super(0);
    this.#numbers = numbers.slice();
  }
  get left(): number {
    return this.#numbers.length;
  }
  override gumbel(): number {
    return this.#numbers.shift()!;
  }
}

describe("conditioned Gumbels", () => {
  const locations = Float64Array.from([0.6, 0.3, 0.1], Math.log);
  const given = (maximum: number) => conditionalGumbels(locations, maximum, new Noise([0.2, 1.1, -0.3]));

  it("by hand: parents 0 and -.5", () => {
    [-0.22712, 0, -2.594435].forEach((value, i) => {
      expect(given(0)[i]).toBeCloseTo(value, 5);
    });
    [-0.643801, -0.5, -2.641749].forEach((value, i) => {
      expect(given(-0.5)[i]).toBeCloseTo(value, 5);
    });
  });

  it("have the maximum asked for, exactly, and keep the order of the noise, however far apart numbers are", () => {
    const noise = fc.double({ min: -3, max: 40, noNaN: true });
    const location = fc.oneof(fc.double({ min: -800, max: 0, noNaN: true }), fc.constant(Number.NEGATIVE_INFINITY));
    const pairs = fc.array(fc.tuple(location, noise), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(pairs, fc.double({ min: -800, max: 40, noNaN: true }), (pairs, maximum) => {
        const finite = pairs.filter(([location]) => location > Number.NEGATIVE_INFINITY);
        const values = conditionalGumbels(
          Float64Array.from(pairs, ([location]) => location),
          maximum,
          new Noise(finite.map(([, noise]) => noise)),
        );
        const perturbed = pairs.map(([location, noise]) => location + noise);
        pairs.forEach(([location], i) => {
          if (location === Number.NEGATIVE_INFINITY) expect(values[i]).toBe(location);
          else expect(Number.isFinite(values[i])).toBe(true);
          perturbed.forEach((other, j) => {
            if (other < perturbed[i]!) expect(values[j]).toBeLessThanOrEqual(values[i]!);
          });
        });
        if (finite.length > 0) expect(Math.max(...values)).toBe(maximum);
      }),
    );
  });

  it("are distributed as Gumbels are that happen to have that maximum", () => {
    // Free draws whose maximum falls near 0, against conditioned ones: the second largest value, in eighths.
    const random = new Random("free");
    const second = (values: Float64Array) => Array.from(values).sort((a, b) => b - a)[1]!;
    const free: number[] = [];
    while (free.length < 2000) {
      const values = locations.map((location) => location + random.gumbel());
      if (Math.abs(Math.max(...values)) < 0.02) free.push(second(values));
    }
    const points = [1, 2, 3, 4, 5, 6, 7].map((i) => free.sort((a, b) => a - b)[i * 250]!);
    const counts = new Float64Array(8);
    for (let i = 0; i < 2000; i++) {
      const value = second(conditionalGumbels(locations, 0, random));
      counts[points.filter((point) => point < value).length]! += 1;
    }
    // Both sides are samples, so the statistic is twice what it is against a law.
    expect(chiSquareFit(counts, new Float64Array(8).fill(250)).chiSquare / 2).toBeLessThan(24.3);
  });
});

describe("the draft", () => {
  it("is beamWidth sequences without replacement, in the order of drawing", () => {
    const draft = TableModel.random({ vocabularySize: 3, order: 1, seed: "sequences" });
    const sequences = draft.enumerate([1], 2);
    const random = new Random("beam");
    const observed = new Float64Array(sequences.length ** 2);
    const expected = new Float64Array(sequences.length ** 2);
    const size = 20_000;
    for (let i = 0; i < size; i++) {
      const { tokens, parents } = draftOf(new RsdSDrafter(draft, { beamWidth: 2, depth: 2 }), [1], { random });
      const [first, second] = [tokens.length - 2, tokens.length - 1].map(
        (leaf) => tokens[parents[leaf]!]! * 3 + tokens[leaf]!,
      );
      observed[first! * sequences.length + second!]! += 1;
    }
    sequences.forEach((first, i) => {
      sequences.forEach((second, j) => {
        if (i !== j) {
          expected[i * sequences.length + j] =
            (size * first.probability * second.probability) / (1 - first.probability);
        }
      });
    });
    expect(chiSquareFit(observed, expected).pValue).toBeGreaterThan(0.001);
  });

  it("is that of an independent implementation, given its noise", () => {
    const path = join(import.meta.dirname, "../fixtures/rsd/trees.json");
    const cases: {
      readonly rows: number[][];
      readonly first: number;
      readonly noise: number[];
      readonly beamWidth?: number;
      readonly depth: number;
      readonly tokens: number[];
      readonly parents: number[];
      readonly laws: (number[] | null)[];
    }[] = JSON.parse(readFileSync(path, "utf8"));
    let nodes = 0;
    for (const { rows, first, noise, beamWidth, depth, tokens, parents, laws } of cases) {
      if (beamWidth === undefined) continue;
      const random = new Noise(noise);
      const draft = draftOf(new RsdSDrafter(TableModel.fromRows(rows), { beamWidth, depth }), [first], { random });
      expect([draft.tokens, draft.parents]).toEqual([tokens, parents]);
      expect(random.left).toBe(0);
      draft.laws.forEach((law, node) => {
        law?.forEach((share, token) => {
          expect(share).toBeCloseTo(laws[node]![token]!, 6);
        });
      });
      nodes += tokens.length - 1;
    }
    expect(nodes).toBeGreaterThan(100);
  });

  it("has beamWidth nodes on every level, of any number of siblings, for a draft pass per level", () => {
    const drafting = new RsdSDrafter(unlike, { beamWidth: 4, depth: 5 }).open({
      prompt: [0],
      vocabularySize: 4,
      contextLength: 100,
      prefill: null,
    });
    const widths = new Set<number>();
    for (let seed = 0; seed < 20; seed++) {
      const random = new Random(seed);
      const context = { tokens: [1, 0], maxNodes: 99, maxDepth: 99, sampling: resolveSampling(warm), random };
      const { passes } = drafting.cost;
      const { parents } = drafting.propose(context);
      expect(parents).toHaveLength(1 + 4 * 5);
      expect(drafting.cost.passes - passes).toBe(5);
      for (let node = 0; node < 17; node++) widths.add(Array.from(parents).filter((parent) => parent === node).length);
    }
    expect([...widths].sort()).toEqual([0, 1, 2, 3, 4]);
  });

  it("has fewer where there are no more sequences", () => {
    const few = TableModel.fromRows([[0, 3, 1, 0]]);
    const levels = (beamWidth: number) => {
      const { parents } = draftOf(new RsdSDrafter(few, { beamWidth, depth: 3 }), [0]);
      return Array.from(parents).length - 1;
    };
    expect([1, 2, 3, 5, 9].map(levels)).toEqual([3, 2 + 2 + 2, 2 + 3 + 3, 2 + 4 + 5, 2 + 4 + 8]);
  });

  it("is cut at the end, level by level: the last one keeps what was drawn first", () => {
    const draft = (maxNodes: number) =>
      draftOf(new RsdSDrafter(unlike, { beamWidth: 3, depth: 3 }), [0], { maxNodes, random: new Random(5) });
    const whole = draft(10);
    for (const maxNodes of [9, 8, 6, 5, 3, 2, 1]) {
      const cut = draft(maxNodes);
      expect(cut.tokens).toEqual(Array.from(whole.tokens).slice(0, maxNodes));
      expect(cut.parents).toEqual(Array.from(whole.parents).slice(0, maxNodes));
      expect(cut.laws).toEqual(whole.laws.slice(0, maxNodes));
    }
  });

  it("at temperature 0 is plain beam search, chosen", () => {
    const draft = TableModel.random({ vocabularySize: 5, order: 2, seed: 9 });
    const { tokens, parents, laws } = draftOf(new RsdSDrafter(draft, { beamWidth: 3, depth: 3 }), [4], {
      sampling: resolveSampling(),
    });
    let beam = [{ path: [] as readonly number[], p: 1 }];
    for (let level = 0; level < 3; level++) {
      beam = beam
        .flatMap(({ path, p }) =>
          Array.from(draft.law([4, ...path]), (q, token) => ({ path: [...path, token], p: p * q })),
        )
        .sort((a, b) => b.p - a.p)
        .slice(0, 3);
      const paths = [1, 2, 3].map((i) => {
        const path: number[] = [];
        for (let at = level * 3 + i; at > 0; at = parents[at]!) path.unshift(tokens[at]!);
        return path;
      });
      expect(paths).toEqual(beam.map(({ path }) => path));
    }
    expect(new Set(laws)).toEqual(new Set([null]));
  });

  it("of beam width 1 is a chain: the chain drafter's at temperature 0, drawn from its laws otherwise", () => {
    const open = (drafter: ModelDrafter) =>
      drafter.open({ prompt: [0], vocabularySize: 4, contextLength: 100, prefill: null });
    const [chain, beam] = [
      open(new ChainDrafter(unlike, { gamma: 4 })),
      open(new RsdSDrafter(unlike, { beamWidth: 1, depth: 4 })),
    ];
    const context = { tokens: [2, 0], maxNodes: 99, maxDepth: 99, sampling: resolveSampling(), random: new Random(0) };
    const [a, b] = [chain.propose(context), beam.propose(context)];
    expect([b.tokens, b.parents]).toEqual([a.tokens, a.parents]);
    expect(beam.cost).toEqual(chain.cost);

    const observed = new Float64Array(16);
    const random = new Random("chains");
    for (let i = 0; i < 10_000; i++) {
      const { tokens, laws } = draftOf(new RsdSDrafter(unlike, { beamWidth: 1, depth: 2 }), [3], { random });
      observed[tokens[1]! * 4 + tokens[2]!]! += 1;
      if (i < 20) expect(laws).toEqual([null, ...[[3], [tokens[1]!]].map((c) => tokenLaw(unlike.logits(c), warm))]);
    }
    const expected = unlike.enumerate([3], 2).map(({ probability }) => 10_000 * probability);
    expect(chiSquareFit(observed, expected).pValue).toBeGreaterThan(0.001);
  });

  it("wants a width and a depth", () => {
    for (const beamWidth of [0, -1, 1.5]) expect(() => new RsdSDrafter(unlike, { beamWidth })).toThrow(ArgumentError);
    for (const depth of [-1, 0.5, Number.POSITIVE_INFINITY]) {
      expect(() => new RsdSDrafter(unlike, { depth })).toThrow(ArgumentError);
    }
    expect(draftOf(new RsdSDrafter(unlike, { depth: 0 }), [1]).tokens).toEqual([1]);
  });
});

itIsLossless(drafterOf);

it("accepts more than constant branching, which accepts more than independent siblings, six nodes each", async () => {
  const sizes = { vocabularySize: 8, contextLength: 2048 };
  const table = TableModel.random({ ...sizes, order: 2, seed: "t", sharpness: 1.5 });
  const stranger = TableModel.random({ ...sizes, order: 1, seed: "s", sharpness: 1.5 });
  const kindred = new TableModel({
    ...sizes,
    order: 2,
    law: (context) => table.law(context).map((p, i) => 0.6 * p + 0.4 * stranger.law(context)[i]!),
  });
  const tokensPerPass = async (drafter: ModelDrafter) =>
    (await generateAll(table, [0], { ...warm, drafter, maxTokens: 2000 })).tokensPerPass;
  const independent = await tokensPerPass(new SpecInferDrafter(kindred, { branching: [2, 2] }));
  const constant = await tokensPerPass(new RsdCDrafter(kindred, { branching: [2, 2] }));
  const beam = await tokensPerPass(new RsdSDrafter(kindred, { beamWidth: 2, depth: 3 }));
  expect(constant).toBeGreaterThan(independent + 0.02);
  expect(beam).toBeGreaterThan(constant + 0.2);
});

describe("what breaks it", () => {
  /** Children drawn without replacement, then the beam kept by log-probability instead of perturbed values. */
  class Truncated extends ModelDrafter {
    protected override grow(tree: GrowingTree): void {
      let beam = [{ node: 0, phi: 0 }];
      for (let level = 0; level < Math.min(2, tree.maxDepth) && tree.room >= 2; level++) {
        const laws = tree.laws(beam.map(({ node }) => node));
        const candidates = beam.flatMap(({ node, phi }, i) => {
          let left = laws[i]!;
          return gumbelTopK(left, 2, tree.random).map((token) => {
            const law = left;
            left = left.map((share, x) => (x === token ? 0 : share / (1 - left[token]!)));
            return { parent: node, token, law, phi: phi + Math.log(laws[i]![token]!) };
          });
        });
        const kept = new Set(candidates.toSorted((a, b) => b.phi - a.phi).slice(0, 2));
        beam = candidates
          .filter((candidate) => kept.has(candidate))
          .map(({ parent, token, law, phi }) => ({ node: tree.add(parent, token, law), phi }));
      }
    }
  }

  it("keeping the beam by log-probability, as plain beam search does", () => {
    const drafter = new Truncated(unlike);
    const broken = fitOfFirstTwoTokens(target, [0, 1], Math.min(draws, 40_000), { ...warm, drafter });
    expect(broken.chiSquare).toBeGreaterThan(2 * broken.limit);
    expect(broken.proposal!.pValue).toBeLessThan(1e-6);
  });
});
