import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { TableModel } from "../../src/model/table-model.ts";
import { branchingOfBudget, largest, leavesAndLevels, mostProbable } from "../../src/speculative/branching-drafter.ts";
import {
  ChainDrafter,
  type ModelDrafter,
  RsdCDrafter,
  resolveSampling,
  SpecInferDrafter,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { draftOf, unlike } from "./lossless-drafter.ts";

const wide = TableModel.random({ vocabularySize: 8, order: 2, seed: 1 });

describe("trees with constant branching factors", () => {
  it("have sum over levels of b_1 .. b_l nodes, and cost a draft pass per level", () => {
    for (const [branching, nodes] of [
      [[], 0],
      [[3], 3],
      [[2, 2], 6],
      [[2, 2, 1], 10],
      [[2, 2, 2], 14],
      [[3, 2, 2], 21],
      [[2, 2, 2, 2], 30],
    ] as const) {
      const drafting = new RsdCDrafter(wide, { branching }).open({
        prompt: [0],
        vocabularySize: 8,
        contextLength: 100,
        prefill: null,
      });
      const context = { tokens: [5, 3, 0], maxNodes: 99, maxDepth: 99, sampling: resolveSampling({ temperature: 1 }) };
      const draft = drafting.propose({ ...context, random: new Random(0) });
      expect(draft.tokens).toHaveLength(1 + nodes);
      expect(drafting.cost.passes).toBe(branching.length);
    }
  });

  it("are cut at the end, level by level, and nobody is asked about children there is no room for", () => {
    const parents = (maxNodes: number, maxDepth = 9) =>
      Array.from(draftOf(new RsdCDrafter(wide, { branching: [2, 2, 2] }), [0], { maxNodes, maxDepth }).parents);
    expect(parents(8)).toEqual([-1, 0, 0, 1, 1, 2, 2, 3]);
    expect(parents(6)).toEqual([-1, 0, 0, 1, 1, 2]);
    expect(parents(9, 2)).toEqual([-1, 0, 0, 1, 1, 2, 2]);
  });

  it("at temperature 0 hold the most probable tokens of each node, chosen", () => {
    for (const drafter of [
      new RsdCDrafter(wide, { branching: [2, 1] }),
      new SpecInferDrafter(wide, { branching: [2, 1] }),
    ]) {
      const draft = draftOf(drafter, [4, 0], { sampling: resolveSampling() });
      const best = (context: readonly number[], count: number) =>
        Array.from(wide.law(context), (p, token) => ({ p, token }))
          .sort((a, b) => b.p - a.p)
          .slice(0, count)
          .map(({ token }) => token);
      const [a, b] = best([4, 0], 2) as [number, number];
      expect(draft.tokens).toEqual([0, a, b, ...best([0, a], 1), ...best([0, b], 1)]);
      expect(draft.parents).toEqual([-1, 0, 0, 1, 2]);
      expect(draft.laws).toEqual([null, null, null, null, null]);
    }
  });

  it("with one child per node are the chain drafter's chains, at the same cost", () => {
    const sampling = resolveSampling();
    for (const Drafter of [RsdCDrafter, SpecInferDrafter]) {
      const open = (drafter: ModelDrafter) =>
        drafter.open({ prompt: [0], vocabularySize: 4, contextLength: 100, prefill: null });
      const [chain, tree] = [
        open(new ChainDrafter(unlike, { gamma: 4 })),
        open(new Drafter(unlike, { branching: [1, 1, 1, 1] })),
      ];
      const context = { tokens: [2, 0], maxNodes: 99, maxDepth: 99, sampling, random: new Random(0) };
      const [a, b] = [chain.propose(context), tree.propose(context)];
      expect([b.tokens, b.parents]).toEqual([a.tokens, a.parents]);
      expect(tree.cost).toEqual(chain.cost);
    }
  });

  it("refuse branching factors that are no integers >= 1", () => {
    for (const branching of [[0], [2, -1], [1.5], [Number.NaN]]) {
      expect(() => new RsdCDrafter(wide, { branching })).toThrow(ArgumentError);
    }
    expect(() => new SpecInferDrafter(wide, { branching: [2, 0] })).toThrow(/branching\[1\]/);
    expect(() => new RsdCDrafter(wide, { sampling: { topP: 0 } })).toThrow(ArgumentError);
  });
});

describe("the largest values", () => {
  it("are those a sort finds, ties by index, -Infinity left out", () => {
    const value = fc.oneof(fc.integer({ min: -3, max: 3 }), fc.constant(Number.NEGATIVE_INFINITY));
    fc.assert(
      fc.property(fc.array(value, { maxLength: 12 }), fc.integer({ min: 0, max: 14 }), (values, count) => {
        const order = values
          .map((value, i) => ({ value, i }))
          .filter(({ value }) => value > Number.NEGATIVE_INFINITY)
          .sort((a, b) => b.value - a.value || a.i - b.i);
        expect(largest(Float64Array.from(values), count)).toEqual(order.slice(0, count).map(({ i }) => i));
      }),
    );
  });

  it("of a law leave out what cannot be", () => {
    expect(mostProbable(Float64Array.of(0, 0.5, 0, 0.5), 3)).toEqual([
      { token: 1, law: null },
      { token: 3, law: null },
    ]);
  });
});

describe("shapes for a number of guesses", () => {
  const nodes = (branching: readonly number[]) => {
    let width = 1;
    return branching.reduce((sum, factor) => {
      width *= factor;
      return sum + width;
    }, 0);
  };

  it("by hand", () => {
    expect([1, 8, 32, 64].map(leavesAndLevels)).toEqual([
      { leaves: 1, levels: 1 },
      { leaves: 2, levels: 4 },
      { leaves: 4, levels: 8 },
      { leaves: 6, levels: 10 },
    ]);
    expect([1, 4, 8, 16, 32].map(branchingOfBudget)).toEqual([
      [1],
      [1, 1, 1, 1],
      [2, 1, 1, 1],
      [3, 1, 1, 1, 1],
      [2, 2, 1, 1, 1, 1, 1, 1],
    ]);
  });

  it("never spend more than the budget, and leave less than a level of it", () => {
    for (let budget = 1; budget <= 600; budget++) {
      const { leaves, levels } = leavesAndLevels(budget);
      expect(leaves * levels).toBeLessThanOrEqual(budget);
      expect(budget - leaves * levels).toBeLessThan(leaves);
      const branching = branchingOfBudget(budget);
      expect(nodes(branching)).toBeLessThanOrEqual(budget);
      expect(nodes([...branching, 1])).toBeGreaterThan(budget);
    }
    for (const bad of [0, 1.5, Number.NaN]) expect(() => branchingOfBudget(bad)).toThrow(ArgumentError);
  });
});
