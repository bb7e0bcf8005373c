import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { DraftContext, Drafter } from "../../src/speculative/index.ts";
import {
  childrenOf,
  generateAll,
  JointLaw,
  nodeDepths,
  OptimalTrees,
  positionalAcceptance,
  resolveSampling,
  SequoiaDrafter,
  tokenLaw,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

// Made by Sequoia's own tree search: fixtures/sequoia/make.py.
interface Golden {
  readonly acceptance: readonly number[];
  readonly budget: number;
  readonly depth: number;
  readonly draft: number;
  readonly pass: readonly (readonly [nodes: number, cost: number])[];
  /** [nodes][levels], both with the root; null where there is no tree. */
  readonly expected: readonly (readonly (number | null)[])[];
  readonly chosen: { readonly levels: number; readonly timePerToken: number; readonly parents: readonly number[] };
}
const golden = JSON.parse(
  readFileSync(new URL("../fixtures/sequoia/trees.json", import.meta.url), "utf8"),
) as readonly Golden[];

const FULL = process.env["TOKENTHRIFT_FULL"] !== undefined;

/** Expected tokens per pass of a tree, by the definition: the product of P along each path. */
function expectedTokens(parents: readonly number[], acceptance: readonly number[]): number {
  const children = new Map<number, number>();
  const values = [1];
  for (let node = 1; node < parents.length; node++) {
    const rank = children.get(parents[node]!) ?? 0;
    children.set(parents[node]!, rank + 1);
    values[node] = values[parents[node]!]! * (acceptance[rank] ?? Number.NaN);
  }
  return values.reduce((a, b) => a + b, 0);
}

const depthOf = (parents: ArrayLike<number>) => Math.max(...nodeDepths({ tokens: parents, parents }));

describe("the tree search, by hand", () => {
  const acceptance = [0.6, 0.2, 0.08];

  it("P = [.6, .2, .08]: most expected tokens of 1 to 9 nodes, depth free, and with two levels and one", () => {
    const trees = new OptimalTrees(acceptance, { budget: 8, maxDepth: 8 });
    const best = [1, 1.6, 1.96, 2.176, 2.376, 2.5056, 2.6256, 2.7456, 2.8256];
    best.forEach((tokens, budget) => {
      expect(trees.shape(budget).tokensPerPass).toBeCloseTo(tokens, 12);
    });
    [2.16, 2.28, 2.4].forEach((tokens, i) => {
      expect(trees.shape(3 + i, 2).tokensPerPass).toBeCloseTo(tokens, 12);
    });
    expect(trees.shape(3, 1)).toMatchObject({ parents: [-1, 0, 0, 0], depth: 1 });
    expect(trees.shape(3, 1).tokensPerPass).toBeCloseTo(1.88, 12);
    expect(trees.shape(8, 1).parents).toEqual([-1, 0, 0, 0]);
    expect(trees.shape(8, 0)).toEqual({ parents: [-1], depth: 0, tokensPerPass: 1 });
    expect(trees.shape(0)).toEqual({ parents: [-1], depth: 0, tokensPerPass: 1 });
  });

  it("four guesses: a chain of three beside a second child of the root", () => {
    const { parents, depth } = new OptimalTrees(acceptance, { budget: 4, maxDepth: 8 }).shape();
    expect(parents).toEqual([-1, 0, 0, 1, 3]);
    expect(depth).toBe(3);
  });

  it("the fastest tree is the cheapest per token: none where guessing does not pay, deeper where drafting is cheap", () => {
    const trees = new OptimalTrees(acceptance, { budget: 4, maxDepth: 4 });
    const flat = [0, 1, 1, 1, 1, 1];
    expect(trees.fastest({ costOfPass: flat, costOfDraftPass: 0 })).toMatchObject({ parents: [-1, 0, 0, 1, 3] });
    expect(trees.fastest({ costOfPass: flat, costOfDraftPass: 0 }).costPerToken).toBeCloseTo(1 / 2.376, 12);
    // One level of three children: (.3 + 1) / 1.88 = .691; two levels (.6 + 1) / 2.28 = .702; three 1.9 / 2.376 = .8.
    const dear = trees.fastest({ costOfPass: flat, costOfDraftPass: 0.3 });
    expect(dear).toMatchObject({ parents: [-1, 0, 0, 0], depth: 1 });
    expect(dear.costPerToken).toBeCloseTo(1.3 / 1.88, 12);
    expect(trees.fastest({ costOfPass: [0, 1, 2, 3, 4, 5], costOfDraftPass: 0.1 }).parents).toEqual([-1]);
    // Only trees of three nodes were measured.
    const three = trees.fastest({ costOfPass: [undefined, undefined, undefined, 7], costOfDraftPass: 0.1 });
    expect(three).toMatchObject({ parents: [-1, 0, 1], costPerToken: 7.2 / 1.96 });
  });
});

describe("the tree search, against Sequoia's own", () => {
  it.each(golden.map((g) => [g.acceptance.join(", "), g] as const))("P = [%s]", (_, g) => {
    const { acceptance, budget, depth } = g;
    const trees = new OptimalTrees(acceptance, { budget: budget - 1, maxDepth: depth - 1 });
    for (let nodes = 1; nodes <= budget; nodes++) {
      for (let levels = 1; levels <= depth; levels++) {
        // Theirs has exactly so many nodes; the best of at most so many is the best of those.
        const theirs = Math.max(...g.expected.slice(0, nodes + 1).map((line) => line[levels] ?? 0));
        expect(trees.shape(nodes - 1, levels - 1).tokensPerPass).toBeCloseTo(theirs, 12);
      }
    }
    const costOfPass: (number | undefined)[] = new Array(budget + 1).fill(undefined);
    for (const [nodes, cost] of g.pass) costOfPass[nodes] = cost + g.draft;
    const fastest = trees.fastest({ costOfPass, costOfDraftPass: g.draft });
    expect(fastest.costPerToken).toBeCloseTo(g.chosen.timePerToken, 12);
    expect(fastest.parents).toEqual(g.chosen.parents);
    expect(fastest.depth).toBe(g.chosen.levels - 1);
  });
});

describe("the tree search, as a property", () => {
  /** All ordered trees of exactly n nodes, as parents, by extending the last path. */
  function* orderedTrees(n: number, parents: readonly number[] = [-1]): Generator<readonly number[]> {
    if (parents.length === n) {
      yield parents;
      return;
    }
    for (let at = parents.length - 1; at >= 0; at = parents[at]!) yield* orderedTrees(n, [...parents, at]);
  }

  it("knows how many ordered trees there are", () => {
    expect([1, 2, 3, 4, 5, 6].map((n) => [...orderedTrees(n)].length)).toEqual([1, 1, 2, 5, 14, 42]);
  });

  it("no tree of up to 7 nodes has more expected tokens, whatever the vector, the budget and the depth", () => {
    const vector = fc
      .array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 4 })
      .map((weights) => weights.map((weight) => weight / Math.max(1, 1.1 * weights.reduce((a, b) => a + b, 0))));
    fc.assert(
      fc.property(
        vector,
        fc.integer({ min: 0, max: 6 }),
        fc.integer({ min: 0, max: 6 }),
        (acceptance, budget, maxDepth) => {
          let best = 0;
          for (let n = 1; n <= budget + 1; n++) {
            for (const parents of orderedTrees(n)) {
              if (depthOf(parents) > maxDepth) continue;
              const tokens = expectedTokens(parents, acceptance);
              if (tokens > best) best = tokens;
            }
          }
          const { parents, depth, tokensPerPass } = new OptimalTrees(acceptance, { budget: 6, maxDepth: 6 }).shape(
            budget,
            maxDepth,
          );
          expect(tokensPerPass).toBeCloseTo(best, 12);
          expect(expectedTokens(parents, acceptance)).toBeCloseTo(best, 12);
          expect(parents.length).toBeLessThanOrEqual(budget + 1);
          expect(depth).toBe(depthOf(parents));
          expect(depth).toBeLessThanOrEqual(maxDepth);
        },
      ),
      { numRuns: FULL ? 2000 : 100 },
    );
  });

  it("finds a tree of 128 nodes, levels in order, in well under a second", () => {
    const acceptance = Array.from({ length: 16 }, (_, k) => 0.5 * 0.5 ** k);
    const { parents } = new OptimalTrees(acceptance, { budget: 127, maxDepth: 12 }).shape();
    expect(parents).toHaveLength(128);
    const depths = nodeDepths({ tokens: parents, parents });
    for (let i = 1; i < 128; i++) expect(depths[i]).toBeGreaterThanOrEqual(depths[i - 1]!);
  });
});

const vocabularySize = 4;
const target = TableModel.random({ vocabularySize, order: 2, seed: "target" });
const draft = TableModel.random({ vocabularySize, order: 1, seed: "draft" });
const acceptance = [0.5, 0.2, 0.1];
const context = (changes: Partial<DraftContext> = {}): DraftContext => ({
  tokens: [0, 1],
  maxNodes: 50,
  maxDepth: Number.POSITIVE_INFINITY,
  sampling: resolveSampling({ temperature: 1 }),
  random: new Random("context"),
  ...changes,
});
const open = (drafter: Drafter) => drafter.open({ prompt: [0, 1], vocabularySize, contextLength: 64, prefill: null });

describe("the drafter", () => {
  it("fills the tree, siblings without replacement, laws as drawn, one draft pass a level", () => {
    const drafter = new SequoiaDrafter(draft, { acceptance, budget: 12 });
    const shape = drafter.trees.shape();
    const drafting = open(drafter);
    const proposed = drafting.propose(context());
    expect(proposed.parents).toEqual(shape.parents);
    expect(drafting.cost.passes).toBe(shape.depth);
    expect(shape.depth).toBeGreaterThan(2);
    for (let node = 0; node < proposed.tokens.length; node++) {
      let mass = 1;
      const law = draft.law([proposed.tokens[node]!]);
      const siblings = childrenOf(proposed, node);
      for (const child of siblings) {
        proposed.laws[child]!.forEach((p, token) => {
          const taken = siblings.some((earlier) => earlier < child && proposed.tokens[earlier] === token);
          expect(p).toBeCloseTo(taken ? 0 : law[token]! / mass, 12);
        });
        mass -= law[proposed.tokens[child]!]!;
      }
      expect(new Set(siblings.map((child) => proposed.tokens[child])).size).toBe(siblings.length);
    }
  });

  it("drafts the best tree for the room there is", () => {
    const drafter = new SequoiaDrafter(draft, { acceptance, budget: 12, maxDepth: 5 });
    for (const [maxNodes, maxDepth] of [
      [1, 9],
      [50, 0],
      [2, 1],
      [4, 1],
      [5, 2],
      [7, 9],
      [50, 2],
    ] as const) {
      const { parents } = open(drafter).propose(context({ maxNodes, maxDepth }));
      expect(parents).toEqual(drafter.trees.shape(maxNodes - 1, maxDepth).parents);
      expect(parents.length).toBeLessThanOrEqual(maxNodes);
      expect(depthOf(parents)).toBeLessThanOrEqual(maxDepth);
    }
  });

  it("at temperature 0 takes the most probable tokens, chosen without chance", () => {
    const drafter = new SequoiaDrafter(draft, { acceptance, budget: 8 });
    const { tokens, parents, laws } = open(drafter).propose(context({ sampling: resolveSampling() }));
    expect(parents).toHaveLength(9);
    expect(laws.every((law) => law === null)).toBe(true);
    for (let node = 0; node < tokens.length; node++) {
      const law = draft.law([tokens[node]!]);
      const ranked = Array.from(law.keys()).sort((a, b) => law[b]! - law[a]!);
      const children = childrenOf({ tokens, parents, laws }, node).map((child) => tokens[child]!);
      expect(children).toEqual(ranked.slice(0, children.length));
    }
  });

  it("goes on uniformly where its law is used up, and stops where the vocabulary is", () => {
    const wide = new Array<number>(6).fill(0.15);
    const drafter = new SequoiaDrafter(draft, {
      acceptance: wide,
      budget: 6,
      maxDepth: 1,
      sampling: { temperature: 1, topK: 2 },
    });
    const { tokens, parents, laws } = open(drafter).propose(context());
    expect(parents).toEqual([-1, 0, 0, 0, 0]);
    expect(new Set(Array.from(tokens).slice(1)).size).toBe(4);
    const cut = tokenLaw(draft.logits([1]), { temperature: 1, topK: 2 });
    expect(laws[1]).toEqual(cut);
    expect(cut[tokens[2]!]).toBeGreaterThan(0);
    expect(Array.from(laws[3]!).sort()).toEqual([0, 0, 0.5, 0.5]);
    expect(Array.from(laws[4]!).sort()).toEqual([0, 0, 0, 1]);
    for (let i = 1; i <= 4; i++) expect(laws[i]![tokens[i]!]).toBeGreaterThan(0);
  });

  it("refuses what is no vector of acceptance, no budget and no cost", () => {
    for (const wrong of [[1.2], [-0.1], [Number.NaN], [0.6, 0.6]]) {
      expect(() => new SequoiaDrafter(draft, { acceptance: wrong })).toThrow(ArgumentError);
    }
    for (const wrong of [-1, 0.5, Number.NaN]) {
      expect(() => new SequoiaDrafter(draft, { acceptance, budget: wrong })).toThrow(/budget/);
      expect(() => new SequoiaDrafter(draft, { acceptance, maxDepth: wrong })).toThrow(/maxDepth/);
      expect(() => new OptimalTrees(acceptance, { budget: 3, maxDepth: 3 }).shape(wrong)).toThrow(/budget/);
    }
    const trees = new OptimalTrees(acceptance, { budget: 3, maxDepth: 3 });
    expect(() => trees.fastest({ costOfPass: [1, 0], costOfDraftPass: 0.1 })).toThrow(/costOfPass\[1\]/);
    expect(() => trees.fastest({ costOfPass: [1, 1], costOfDraftPass: -1 })).toThrow(/costOfDraftPass/);
    expect(() => trees.fastest({ costOfPass: [1], costOfDraftPass: 0.1 })).toThrow(/costOfPass/);
  });
});

describe("positional acceptance", () => {
  const p = TableModel.fromRows([[0.3, 0.4, 0.3]]);
  const q = TableModel.fromRows([[0.6, 0.3, 0.1]]);
  const measured = positionalAcceptance(p, q, new Array<number[]>(20).fill([0]), {
    width: 32,
    maxTokens: 500,
    temperature: 1,
  });

  it("p = [.3, .4, .3], q = [.6, .3, .1]: .7 for one child, .875 for two, 1 for three", async () => {
    // About 5,000 steps: a standard deviation of .0065 at most.
    const vector = await measured;
    expect(vector).toHaveLength(3);
    [0.7, 0.175, 0.125].forEach((share, k) => {
      expect(Math.abs(vector[k]! - share)).toBeLessThan(0.02);
    });
    expect(vector.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
  });

  it("predicts the tokens per pass of the tree made from it, where every position is like every other", async () => {
    const drafter = new SequoiaDrafter(q, { acceptance: await measured, budget: 8, maxDepth: 4 });
    const predicted = drafter.trees.shape().tokensPerPass;
    const report = await generateAll(p, [0], { drafter, temperature: 1, maxTokens: 1000, seed: "predicted" });
    expect(predicted).toBeGreaterThan(3);
    expect(Math.abs(report.tokensPerPass / predicted - 1)).toBeLessThan(0.05);
  });

  it("is 1 for the first child and 0 for the rest when the draft is the target", async () => {
    for (const temperature of [0, 1]) {
      const vector = await positionalAcceptance(target, target, [[0], [1, 2]], {
        width: 3,
        temperature,
        maxTokens: 30,
      });
      expect(Array.from(vector)).toEqual([1, 0, 0]);
    }
  });

  it("counts steps of fewer guesses than ranks, where the draft can say no more", async () => {
    const sure = TableModel.fromRows([[0, 1, 0]]);
    const other = TableModel.fromRows([[1, 0, 1]]);
    expect(Array.from(await positionalAcceptance(sure, sure, [[0]], { maxTokens: 9 }))).toEqual([1, 0, 0]);
    expect(Array.from(await positionalAcceptance(sure, other, [[0]], { maxTokens: 9 }))).toEqual([0, 0, 0]);
    // Drawn, it goes on to what is left: the third child is the one.
    const options = { maxTokens: 9, temperature: 1 };
    expect(Array.from(await positionalAcceptance(sure, other, [[0]], options))).toEqual([0, 0, 1]);
  });

  it("leaves room for all ranks at the end of the context", async () => {
    const short = new TableModel({
      vocabularySize: 4,
      order: 2,
      contextLength: 12,
      law: (context) => target.law(context),
    });
    const vector = await positionalAcceptance(short, target, [[0], new Array(7).fill(1)], { temperature: 1 });
    expect(Array.from(vector)).toEqual([1, 0, 0, 0]);
    const full = new Array(8).fill(1);
    await expect(positionalAcceptance(short, target, [full], { temperature: 1 })).rejects.toThrow(/prompts/);
  });

  it("is the same for the same seed, and refuses prompts without room", async () => {
    const options = { temperature: 1, maxTokens: 20, seed: 7 };
    const [one, two] = [
      await positionalAcceptance(target, draft, [[0]], options),
      await positionalAcceptance(target, draft, [[0]], options),
    ];
    expect(one).toEqual(two);
    await expect(positionalAcceptance(target, draft, [], options)).rejects.toThrow(ArgumentError);
    await expect(positionalAcceptance(target, draft, [[0]], { maxTokens: 1 })).rejects.toThrow(/prompts/);
    await expect(positionalAcceptance(target, draft, [[0]], { width: 0 })).rejects.toThrow(/width/);
  });
});

describe("lossless", { timeout: 300_000 }, () => {
  const sequoia = (model: TableModel, options = {}) =>
    new SequoiaDrafter(model, { acceptance, budget: 7, maxDepth: 3, ...options });

  it("gives the target's tokens at temperature 0, with fewer passes", async () => {
    const plain = await generateAll(target, [0], { maxTokens: 60 });
    for (const options of [{}, { sampling: { temperature: 0.6 } }, { budget: 1 }, { maxDepth: 1 }]) {
      const report = await generateAll(target, [0], { maxTokens: 60, drafter: sequoia(draft, options) });
      expect(report.tokens).toEqual(plain.tokens);
      expect(report.drafted).toBeGreaterThan(0);
    }
    const all = await generateAll(target, [0], { maxTokens: 60, drafter: sequoia(draft, { budget: 16 }) });
    expect(all.targetPasses).toBeLessThan(40);
    const equal = await generateAll(target, [0], { maxTokens: 60, drafter: sequoia(target) });
    expect(equal.tokensPerPass).toBe(4);
  });

  const low = new TableModel({ vocabularySize, order: 1, law: ([t = 0]) => [1 + t, 3, 0, 0] });
  const high = TableModel.fromRows([[0, 0, 1, 2]]);
  it.each([
    ["an unlike draft", target, sequoia(draft), { temperature: 1 }],
    ["the target as the draft", target, sequoia(target), { temperature: 1 }],
    ["a draft that says nothing possible", low, sequoia(high), { temperature: 1 }],
    ["a cut draft, used up", target, sequoia(draft, { sampling: { temperature: 0.7, topK: 1 } }), { temperature: 1 }],
    ["a greedy draft", target, sequoia(draft, { sampling: {} }), { temperature: 0.8, topP: 0.9 }],
  ] as const)("has the target's joint law with %s", (_, model, drafter, sampling) => {
    const law = new JointLaw(model, [0, 1], { drafter, ...sampling });
    law.draw(FULL ? 400_000 : 4_000);
    expect(law.fit.pValue).toBeGreaterThan(1e-3);
    expect(law.fit.proposal?.pValue ?? 1).toBeGreaterThan(1e-3);
  });

  it("has NOT when the law does not say that siblings are drawn without replacement", () => {
    const honest = sequoia(draft);
    const broken: Drafter = {
      ...honest,
      vocabularySize,
      reset() {},
      open(start) {
        const drafting = honest.open(start);
        return {
          cost: drafting.cost,
          propose(context) {
            const proposed = drafting.propose(context);
            const parents = Array.from(proposed.parents);
            const first = parents.map((parent) => (parent < 0 ? null : proposed.laws[parents.indexOf(parent)]!));
            return { ...proposed, laws: first };
          },
          observe: (pass) => drafting.observe(pass),
          close: () => drafting.close(),
        };
      },
    };
    const law = new JointLaw(target, [0, 1], { drafter: broken, temperature: 1 });
    law.draw(4_000);
    expect(law.fit.pValue).toBeLessThan(1e-9);
  });

  it("gives the embedded target's own text in fewer passes with the embedded draft", async () => {
    const [large, small] = [await loadEmbedded("target"), await loadEmbedded("draft")];
    for (const { text } of heldOutPrompts.slice(0, 2)) {
      const prompt = large.tokenizer.encode(text);
      const plain = await generateAll(large.model, prompt, { maxTokens: 32 });
      const drafter = new SequoiaDrafter(small.model, { acceptance: [0.55, 0.12, 0.07, 0.04] });
      const report = await generateAll(large.model, prompt, { maxTokens: 32, drafter });
      expect(report.tokens).toEqual(plain.tokens);
      expect(report.tokensPerPass).toBeGreaterThan(1.5);
      expect(report.cost.draft.passes).toBeGreaterThan(0);
    }
    large.model.close();
    small.model.close();
  });
});
