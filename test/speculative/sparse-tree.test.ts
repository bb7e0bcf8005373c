import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { StaticTrees, sparseTree } from "../../src/speculative/sparse-tree.ts";

const accuracies = fc.array(fc.array(fc.integer({ min: 0, max: 10 }), { maxLength: 4 }), { maxLength: 4 });
const shares = (whole: number[][]) => whole.map((ranks) => ranks.map((n) => n / 10));

/** Product of the accuracies along a node's path. */
function productOf(tree: ReturnType<typeof sparseTree>, of: number[][], node: number): number {
  return node === 0 ? 1 : productOf(tree, of, tree.parents[node]!) * of[tree.depths[node]! - 1]![tree.ranks[node]!]!;
}

describe("sparseTree", () => {
  it("the worked example, by hand", () => {
    expect(
      sparseTree(
        [
          [0.6, 0.2],
          [0.4, 0.1],
        ],
        3,
      ),
    ).toEqual({
      parents: [-1, 0, 1, 0],
      ranks: [0, 0, 0, 1],
      depths: [0, 1, 2, 1],
      depth: 2,
      tokensPerPass: 1 + 0.6 + 0.6 * 0.4 + 0.2,
    });
  });

  it("takes the ranks of a head in the order of their accuracy, whatever their numbers", () => {
    expect(sparseTree([[0.2, 0.5, 0, 0.3]], 9)).toMatchObject({ parents: [-1, 0, 0, 0], ranks: [0, 1, 3, 0] });
  });

  it("is the n largest of all products, as enumerated", () => {
    fc.assert(
      fc.property(accuracies, fc.integer({ min: 0, max: 12 }), (whole, budget) => {
        const of = shares(whole);
        const tree = sparseTree(of, budget);
        let level = [1];
        const all: number[] = [];
        for (const ranks of of) {
          level = level.flatMap((value) => ranks.map((accuracy) => value * accuracy)).filter((value) => value > 0);
          all.push(...level);
        }
        const best = all.sort((a, b) => b - a).slice(0, budget);
        const values = tree.parents.map((_, node) => productOf(tree, of, node)).slice(1);
        expect(values.length).toBe(best.length);
        best.forEach((value, i) => {
          expect(values.toSorted((a, b) => b - a)[i]).toBeCloseTo(value, 12);
        });
        expect(tree.tokensPerPass).toBeCloseTo(1 + best.reduce((a, b) => a + b, 0), 12);
        expect(tree.depth).toBe(Math.max(...tree.depths));
        tree.parents.forEach((parent, node) => {
          expect(parent).toBeLessThan(node);
          if (node > 0) expect(tree.depths[node]).toBe(tree.depths[parent]! + 1);
        });
        const paths = tree.parents.map((parent, node) => `${parent} ${tree.ranks[node]}`);
        expect(new Set(paths).size).toBe(paths.length);
      }),
    );
  });

  it("for fewer nodes is its own beginning", () => {
    fc.assert(
      fc.property(accuracies, fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 12 }), (whole, a, b) => {
        const [small, large] = [Math.min(a, b), Math.max(a, b)];
        const whole_ = sparseTree(shares(whole), large);
        const { parents, ranks } = sparseTree(shares(whole), small);
        expect([parents, ranks]).toEqual([whole_.parents.slice(0, small + 1), whole_.ranks.slice(0, small + 1)]);
        const within = new StaticTrees(shares(whole), large, 100).within(small, 9);
        expect([within.parents, within.ranks]).toEqual([parents, ranks]);
      }),
    );
  });

  it("refuses what is no accuracy and no budget", () => {
    for (const bad of [-0.1, 1.1, Number.NaN]) expect(() => sparseTree([[0.5], [bad]], 3)).toThrow(/accuracies\[1\]/);
    for (const bad of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => sparseTree([[0.5]], bad)).toThrow(ArgumentError);
    }
  });
});

it("StaticTrees keeps within levels, nodes and the vocabulary", () => {
  const trees = new StaticTrees([[0.5, 0.4, 0.3], [0.9, 0.4, 0.3], [0.9]], 6, 2);
  expect(trees.within(6, 1).depths).toEqual([0, 1, 1]);
  expect(trees.within(0, 3).depths).toEqual([0]);
  expect(trees.within(6, 0).depths).toEqual([0]);
  expect(Math.max(...trees.within(100, 100).depths)).toBe(3);
  expect(trees.within(100, 100).parents).toHaveLength(7);
  expect(Math.max(...trees.within(100, 100).ranks)).toBe(1);
});
