import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Draft, DraftContext, DySpecOptions, GrowingTree } from "../../src/speculative/index.ts";
import {
  childrenOf,
  DySpecDrafter,
  depthFirstOrder,
  generate,
  generateAll,
  JointLaw,
  maskBlocks,
  nodeDepths,
  resolveSampling,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const FULL = process.env["TOKENTHRIFT_FULL"] !== undefined;

const warm = { temperature: 1 };

/** The drafter's first draft after `text`, and what it cost. */
function draftOf(
  model: TableModel,
  options: DySpecOptions,
  text: readonly number[],
  changes: Partial<DraftContext> = {},
) {
  const drafting = new DySpecDrafter(model, { sampling: warm, ...options }).open({
    prompt: text,
    vocabularySize: model.vocabularySize,
    contextLength: 2000,
    prefill: null,
  });
  const draft = drafting.propose({
    tokens: text,
    maxNodes: 1900,
    maxDepth: Number.POSITIVE_INFINITY,
    sampling: resolveSampling(),
    random: new Random("draft"),
    ...changes,
  });
  return { draft, cost: drafting.cost };
}

/** Value of each draw and of what it drew, from the draft's laws: [nodes], the root's being 1. */
function valuesOf(draft: Draft) {
  const tested = [1];
  const accepted = [1];
  for (let node = 1; node < draft.tokens.length; node++) {
    const parent = draft.parents[node]!;
    tested[node] = childrenOf(draft, parent)
      .filter((sibling) => sibling < node)
      .reduce((value, sibling) => value * (1 - draft.laws[sibling]![draft.tokens[sibling]!]!), accepted[parent]!);
    accepted[node] = tested[node]! * draft.laws[node]![draft.tokens[node]!]!;
  }
  return { tested: tested.slice(1), accepted: accepted.slice(1) };
}

/** Texts of all nodes, from the root down. */
const pathsOf = ({ tokens, parents }: Draft): string[] => {
  const paths: string[] = [];
  for (let node = 0; node < tokens.length; node++) {
    paths[node] = `${node === 0 ? "" : paths[parents[node]!]}/${tokens[node]}`;
  }
  return paths;
};

/** Draws the given tokens, in turn. */
class Told extends Random {
  readonly #draws: number[];
  constructor(draws: readonly number[]) {
    super(0);
    this.#draws = [...draws];
  }
  override categorical(): number {
    return this.#draws.shift()!;
  }
}

/** Draws the most probable token. */
class Sure extends Random {
  override categorical(weights: ArrayLike<number>): number {
    return Array.from(weights).indexOf(Math.max(...Array.from(weights)));
  }
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

describe("greedy construction, by hand", () => {
  // Pending 2. D = [.6, .3, .1] at the root, [.7, .2, .1] after 0, [.5, .3, .2] after 00, uniform elsewhere.
  const laws: Record<string, number[]> = { "2": [0.6, 0.3, 0.1], "2,0": [0.7, 0.2, 0.1], "2,0,0": [0.5, 0.3, 0.2] };
  const model = new TableModel({ vocabularySize: 3, order: 6, law: (context) => laws[context.join()] ?? [1, 1, 1] });

  it("draws 0, 0, 0, then 1: values 1, .6, .42, .4, and 1.53 tokens accepted, if the draft is right", () => {
    const { draft, cost } = draftOf(model, { budget: 4 }, [2], { random: new Told([0, 0, 0, 1]) });
    expect(draft.tokens).toEqual([2, 0, 0, 0, 1]);
    expect(draft.parents).toEqual([-1, 0, 1, 2, 0]);
    const { tested, accepted } = valuesOf(draft);
    for (const [i, value] of [1, 0.6, 0.42, 0.4].entries()) expect(tested[i]).toBeCloseTo(value, 6);
    for (const [i, value] of [0.6, 0.42, 0.21, 0.3].entries()) expect(accepted[i]).toBeCloseTo(value, 6);
    expect(sum(accepted)).toBeCloseTo(1.53, 6);
    // A pass for the root, for 0 and for 00; 000 and 1 are leaves.
    expect(cost.passes).toBe(3);
    for (const [i, p] of [0, 0.75, 0.25].entries()) expect(draft.laws[4]![i]).toBeCloseTo(p, 6);
  });

  it("goes on with what is left: .3 under 1, .21 under 000 and beside it, .18 beside 00, .1 at the root", () => {
    // Draws under 1 and 000 from uniform laws leave .2 and .14 beside them.
    const random = new Told([0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2]);
    const { draft } = draftOf(model, { budget: 14 }, [2], { random });
    const { tested } = valuesOf(draft);
    [1, 0.6, 0.42, 0.4, 0.3, 0.21, 0.21, 0.2, 0.18].forEach((value, i) => {
      expect(tested[i]).toBeCloseTo(value, 6);
    });
    expect(pathsOf(draft).slice(0, 6)).toEqual(["/2", "/2/0", "/2/0/0", "/2/0/0/0", "/2/1", "/2/1/0"]);
  });

  it("maximises tests, not acceptances: a sure sibling may be worth more than a child drawn from a flat law", () => {
    const flat = new TableModel({
      vocabularySize: 3,
      order: 6,
      law: (c) => (c.join() === "2" ? [0.6, 0.4, 0] : [1, 1, 1]),
    });
    const { draft } = draftOf(flat, { budget: 2 }, [2], { random: new Sure(0) });
    expect(draft.parents).toEqual([-1, 0, 1]);
    expect(sum(valuesOf(draft).accepted)).toBeCloseTo(0.6 + 0.6 / 3, 6);
    expect(sum(valuesOf(draft).accepted)).toBeLessThan(0.6 + 0.4);
  });
});

const table = (seed: number, vocabularySize: number, sharpness = 2) =>
  TableModel.random({ vocabularySize, order: 2, seed, sharpness, contextLength: 2000 });

describe("greedy construction, as a property", () => {
  it("values fall from draw to draw, telescope, and the laws are the draft's without earlier siblings", () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 0, max: 30 }), (seed, budget) => {
        const model = table(seed, 5);
        const { draft, cost } = draftOf(model, { budget }, [1, 2], { random: new Random(seed) });
        const paths = pathsOf(draft);
        expect(draft.tokens).toHaveLength(budget + 1);
        expect(new Set(paths).size).toBe(budget + 1);
        const { tested, accepted } = valuesOf(draft);
        for (let i = 1; i < budget; i++) expect(tested[i]).toBeLessThanOrEqual(tested[i - 1]! + 1e-12);
        let inner = 0;
        for (let node = 0; node <= budget; node++) {
          const children = childrenOf(draft, node);
          if (children.length > 0) inner += 1;
          const law = model.law([1, ...paths[node]!.split("/").slice(1).map(Number)]);
          let mass = 1;
          for (const [rank, child] of children.entries()) {
            const earlier = children.slice(0, rank).map((sibling) => draft.tokens[sibling]!);
            for (let y = 0; y < 5; y++) {
              expect(draft.laws[child]![y]).toBeCloseTo(earlier.includes(y) ? 0 : law[y]! / mass, 9);
            }
            const reached = node === 0 ? 1 : accepted[node - 1]!;
            expect(tested[child - 1]).toBeCloseTo(reached * mass, 9);
            expect(accepted[child - 1]).toBeCloseTo(reached * law[draft.tokens[child]!]!, 9);
            mass -= law[draft.tokens[child]!]!;
          }
        }
        expect(cost.passes).toBe(inner);
      }),
      { numRuns: FULL ? 1000 : 60 },
    );
  });

  /** All ordered trees of n nodes with at most `width` children a node, as parents. */
  function* orderedTrees(n: number, width: number, parents: readonly number[] = [-1]): Generator<readonly number[]> {
    if (parents.length === n) {
      yield parents;
      return;
    }
    for (let at = parents.length - 1; at >= 0; at = parents[at]!) {
      if (parents.filter((parent) => parent === at).length < width) yield* orderedTrees(n, width, [...parents, at]);
    }
  }

  it("no other tree of up to 5 draws has a larger sum of values, draws being equal", () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 5 }), (seed, budget) => {
        const model = table(seed, 3);
        const { draft } = draftOf(model, { budget }, [0], { random: new Sure(0) });
        let best = 0;
        for (const parents of orderedTrees(budget + 1, 3)) {
          // Fill the tree by the same rule: siblings in falling probability.
          const paths: number[][] = [[0]];
          const reached = [1];
          let value = 0;
          for (let node = 1; node <= budget; node++) {
            const parent = parents[node]!;
            const law = model.law(paths[parent]!);
            const ranked = Array.from(law.keys()).sort((a, b) => law[b]! - law[a]!);
            const rank = parents.slice(0, node).filter((other) => other === parent).length;
            value += reached[parent]! * (1 - sum(ranked.slice(0, rank).map((token) => law[token]!)));
            paths[node] = [...paths[parent]!, ranked[rank]!];
            reached[node] = reached[parent]! * law[ranked[rank]!]!;
          }
          best = Math.max(best, value);
        }
        expect(sum(valuesOf(draft).tested)).toBeCloseTo(best, 9);
      }),
      { numRuns: FULL ? 500 : 60 },
    );
  });

  it("a smaller tree is the beginning of a larger one", () => {
    const model = table(3, 5);
    const large = draftOf(model, { budget: 20 }, [1, 2]).draft;
    for (const budget of [0, 1, 2, 7, 19]) {
      const { draft } = draftOf(model, { budget }, [1, 2]);
      expect(draft.tokens).toEqual(Array.from(large.tokens).slice(0, budget + 1));
      expect(draft.parents).toEqual(Array.from(large.parents).slice(0, budget + 1));
    }
  });

  it("keeps within nodes and depth, and stops where no token is left", () => {
    const model = table(4, 3);
    for (const threshold of [undefined, 0.01]) {
      for (const maxNodes of [1, 2, 3, 9]) {
        for (const maxDepth of [0, 1, 2, 9]) {
          const options = { budget: 30, ...(threshold !== undefined && { threshold }) };
          const { draft } = draftOf(model, options, [1, 2], { maxNodes, maxDepth });
          expect(draft.tokens.length).toBeLessThanOrEqual(maxNodes);
          expect(Math.max(...nodeDepths(draft))).toBeLessThanOrEqual(maxDepth);
          if (maxDepth === 0) expect(draft.tokens).toEqual([2]);
          if (maxDepth === 1 && threshold === undefined) expect(draft.tokens).toHaveLength(Math.min(maxNodes, 4));
        }
      }
    }
    const sure = TableModel.fromRows([[0, 1, 0]]);
    expect(draftOf(sure, { budget: 5 }, [0]).draft.parents).toEqual([-1, 0, 1, 2, 3, 4]);
  });
});

describe("threshold construction", () => {
  it("is the greedy tree, level by level, for the value of its last draw", () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 24 }), (seed, budget) => {
        const model = table(seed, 4);
        const greedy = draftOf(model, { budget }, [1, 2], { random: new Sure(0) }).draft;
        const last = valuesOf(greedy).tested.at(-1)!;
        const next = valuesOf(draftOf(model, { budget: budget + 1 }, [1, 2], { random: new Sure(0) }).draft).tested;
        // Paths that take the same steps in another order have equal values: then a threshold takes more.
        fc.pre(next.length > budget && next[budget]! < last * (1 - 1e-6));
        const threshold = last * (1 - 1e-9);
        const { draft, cost } = draftOf(model, { budget: 1000, threshold }, [1, 2], { random: new Sure(0) });
        expect(pathsOf(draft).sort()).toEqual(pathsOf(greedy).sort());
        const depths = nodeDepths(draft);
        for (let node = 1; node < depths.length; node++) {
          expect(depths[node]).toBeGreaterThanOrEqual(depths[node - 1]!);
        }
        expect(cost.passes).toBe(Math.max(...depths));
      }),
      { numRuns: FULL ? 1000 : 60 },
    );
  });

  it("draws where the value is at least the threshold, and nowhere else", () => {
    const model = table(9, 5);
    for (const threshold of [1, 0.3, 0.1, 0.02]) {
      for (const seed of [1, 2, 3]) {
        const { draft } = draftOf(model, { budget: 1000, threshold }, [1, 2], { random: new Random(seed) });
        const { tested, accepted } = valuesOf(draft);
        for (const value of tested) expect(value).toBeGreaterThanOrEqual(threshold - 1e-12);
        for (let node = 0; node < draft.tokens.length; node++) {
          const children = childrenOf(draft, node);
          if (children.length === 5) continue;
          const drawn = sum(children.map((child) => accepted[child - 1]!));
          expect((node === 0 ? 1 : accepted[node - 1]!) - drawn).toBeLessThan(threshold + 1e-12);
        }
      }
    }
    expect(draftOf(model, { threshold: 1 }, [1, 2]).draft.tokens).toHaveLength(2);
  });

  it("cut by the budget is the beginning of the uncut tree", () => {
    const model = table(9, 5);
    const uncut = draftOf(model, { budget: 1000, threshold: 0.02 }, [1, 2]).draft;
    expect(uncut.tokens.length).toBeGreaterThan(20);
    for (const budget of [1, 3, 10, 20]) {
      const { draft } = draftOf(model, { budget, threshold: 0.02 }, [1, 2]);
      expect(draft.tokens).toEqual(Array.from(uncut.tokens).slice(0, budget + 1));
      expect(draft.laws).toEqual(uncut.laws.slice(0, budget + 1));
    }
  });
});

describe("node order", () => {
  it("depth first: each subtree whole, siblings as drawn", () => {
    expect(depthFirstOrder([-1, 0, 0, 1, 2, 1, 4])).toEqual([0, 1, 3, 5, 2, 4, 6]);
    expect(depthFirstOrder([-1])).toEqual([0]);
  });

  it("counts the blocks of a mask that hold anything", () => {
    // A chain of 4: the lower triangle. A root with two chains of 3: in turns, then one after the other.
    expect(maskBlocks([-1, 0, 1, 2], 2)).toBe(3);
    expect(maskBlocks([-1, 0, 0, 1, 2, 3, 4], 2)).toBe(10);
    expect(maskBlocks([-1, 0, 1, 2, 0, 4, 5], 2)).toBe(8);
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 40 }), fc.integer({ min: 1, max: 9 }), (numbers, size) => {
        const parents = [-1, ...numbers.map((number, i) => number % (i + 1))];
        const sees = (node: number, other: number): boolean =>
          node === other || (node > other && sees(parents[node]!, other));
        let blocks = 0;
        for (let r = 0; r < parents.length; r += size) {
          for (let c = 0; c < parents.length; c += size) {
            let some = false;
            for (let i = r; i < Math.min(r + size, parents.length); i++) {
              for (let j = c; j < Math.min(c + size, i + 1); j++) some ||= sees(i, j);
            }
            if (some) blocks += 1;
          }
        }
        expect(maskBlocks(parents, size)).toBe(blocks);
      }),
    );
  });

  it("the draft is the same tree in either order, and depth first takes fewer blocks where a tree is large", () => {
    const model = TableModel.random({ vocabularySize: 8, order: 2, seed: 1, sharpness: 3 });
    const drawn = draftOf(model, { budget: 700 }, [1, 2]).draft;
    const depthFirst = draftOf(model, { budget: 700, order: "depth-first" }, [1, 2]).draft;
    const lawByPath = (draft: Draft) => new Map(pathsOf(draft).map((path, node) => [path, draft.laws[node]]));
    expect(lawByPath(depthFirst)).toEqual(lawByPath(drawn));
    const order = depthFirstOrder(drawn.parents);
    expect(depthFirst.tokens).toEqual(order.map((node) => drawn.tokens[node]));
    expect(maskBlocks(depthFirst.parents)).toBeLessThan(0.7 * maskBlocks(drawn.parents));
  });
});

describe("lossless", { timeout: 300_000 }, () => {
  const target = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
  const unlike = TableModel.random({ vocabularySize: 4, order: 1, seed: "draft" });
  const low = new TableModel({ vocabularySize: 4, order: 1, law: ([t = 0]) => [1 + t, 3, 0, 0] });
  const high = TableModel.fromRows([[0, 0, 1, 2]]);
  const draws = FULL ? 400_000 : 3000;

  it.each([
    ["greedy, the target's temperature", { budget: 6, sampling: warm }],
    ["greedy, temperature .6", { budget: 6 }],
    ["threshold 1/6", { budget: 24, threshold: 1 / 6, sampling: warm }],
    ["threshold .1, cut, depth first", { budget: 5, threshold: 0.1, order: "depth-first", sampling: warm }],
  ] as const)("%s: the joint law is the target's, the draft unlike, equal and disjoint", (_, options) => {
    for (const [model, draft] of [
      [target, unlike],
      [target, target],
      [low, high],
    ] as const) {
      const law = new JointLaw(model, [0, 1], { drafter: new DySpecDrafter(draft, options), temperature: 1 });
      law.draw(draws / (draft === unlike ? 1 : 4));
      expect(law.fit.pValue).toBeGreaterThan(1e-3);
      expect(law.fit.proposal!.pValue).toBeGreaterThan(1e-3);
    }
  });

  it("is NOT when of many drawn guesses the most probable are kept", () => {
    class Pruned extends DySpecDrafter {
      protected override grow(tree: GrowingTree): void {
        super.grow(tree);
        const reached = [1];
        for (let node = 1; node < tree.tokens.length; node++) {
          reached[node] = reached[tree.parents[node]!]! * tree.law(tree.parents[node]!)![tree.tokens[node]!]!;
        }
        const order = Array.from(reached.keys()).sort((a, b) => reached[b]! - reached[a]! || a - b);
        tree.keep(order.slice(0, 7));
      }
    }
    const drafter = new Pruned(unlike, { budget: 20, sampling: warm });
    const law = new JointLaw(target, [0, 1], { drafter, temperature: 1 });
    law.draw(2000);
    expect(law.fit.pValue).toBeLessThan(1e-9);
    expect(law.fit.proposal!.pValue).toBeLessThan(1e-9);
  });

  it("a draft that is the target has every first child accepted", () => {
    const drafter = new DySpecDrafter(target, { budget: 6, sampling: warm });
    const generation = generate(target, [0], { drafter, temperature: 1, maxTokens: 200 });
    for (let step = generation.step(); step !== undefined; step = generation.step()) {
      const firsts = [0];
      for (let next: number | undefined = 0; next !== undefined; ) {
        next = childrenOf(step.draft, next)[0];
        if (next !== undefined) firsts.push(next);
      }
      expect(step.path).toEqual(firsts);
      expect(step.tokens).toHaveLength(firsts.length);
    }
  });

  it("gives the embedded target's own text in fewer passes with the embedded draft", async () => {
    const [large, small] = [await loadEmbedded("target"), await loadEmbedded("draft")];
    for (const { text } of heldOutPrompts.slice(0, 2)) {
      const prompt = large.tokenizer.encode(text);
      const plain = await generateAll(large.model, prompt, { maxTokens: 32 });
      const drafter = new DySpecDrafter(small.model);
      const report = await generateAll(large.model, prompt, { maxTokens: 32, drafter });
      expect(report.tokens).toEqual(plain.tokens);
      expect(report.tokensPerPass).toBeGreaterThan(1.5);
      expect(report.cost.draft.passes).toBeGreaterThan(0);
    }
    large.model.close();
    small.model.close();
  });
});

it("refuses a budget, a threshold or an order out of range", () => {
  const model = table(0, 3);
  for (const budget of [-1, 1.5, Number.NaN]) expect(() => new DySpecDrafter(model, { budget })).toThrow(/budget/);
  for (const threshold of [0, -1, 1.1, Number.NaN]) {
    expect(() => new DySpecDrafter(model, { threshold })).toThrow(/threshold/);
  }
  expect(() => new DySpecDrafter(model, { order: "breadth" as "drawn" })).toThrow(ArgumentError);
  expect(() => new DySpecDrafter(model, { sampling: { temperature: -1 } })).toThrow(/temperature/);
});
