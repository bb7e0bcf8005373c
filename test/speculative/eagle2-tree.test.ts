import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Draft, DraftContext, Eagle2TreeOptions } from "../../src/speculative/index.ts";
import {
  childrenOf,
  Eagle2TreeDrafter,
  generateAll,
  JointLaw,
  ModelDrafter,
  nodeDepths,
  resolveSampling,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const FULL = process.env["TOKENTHRIFT_FULL"] !== undefined;

function draftOf(
  model: TableModel,
  options: Eagle2TreeOptions,
  text: readonly number[],
  changes: Partial<DraftContext> = {},
) {
  const { vocabularySize } = model;
  const start = { prompt: text, vocabularySize, contextLength: 1000, prefill: null };
  const drafting = new Eagle2TreeDrafter(model, options).open(start);
  const draft = drafting.propose({
    tokens: text,
    maxNodes: 900,
    maxDepth: Number.POSITIVE_INFINITY,
    sampling: resolveSampling(),
    random: new Random("unused"),
    ...changes,
  });
  return { draft, cost: drafting.cost };
}

/** Texts of all nodes below the root. */
const guessesOf = ({ tokens, parents }: Draft): string[] => {
  const paths = [""];
  for (let node = 1; node < tokens.length; node++) paths[node] = paths[parents[node]!]! + tokens[node]!.toString(36);
  return paths.slice(1);
};

describe("by hand", () => {
  // Pending 2: q = [.6, .3, .1] at the root, then these.
  const laws: Record<string, number[]> = {
    "2": [0.6, 0.3, 0.1],
    "2,0": [0.5, 0.4, 0.1],
    "2,1": [0.9, 0.05, 0.05],
    "2,0,0": [0.8, 0.1, 0.1],
    "2,1,0": [0.7, 0.2, 0.1],
  };
  const model = new TableModel({ vocabularySize: 3, order: 6, law: (context) => laws[context.join()] ?? [1, 1, 1] });

  it("k = 2: expands 0 and 1, then 00 and 10; keeps 0, 1, 00, 10, then 01 and 000, then 100", () => {
    const kept = (budget: number, maxDepth: number) =>
      guessesOf(draftOf(model, { topK: 2, maxDepth, budget }, [2]).draft);
    expect(kept(100, 1)).toEqual(["0", "1"]);
    expect(kept(100, 2)).toEqual(["0", "1", "00", "01", "10", "11"]);
    // Level 3 is grown from 00 (.30) and 10 (.27), not from 01 (.24).
    expect(kept(100, 3)).toEqual(["0", "1", "00", "01", "10", "11", "000", "001", "100", "101"]);
    expect(kept(4, 3)).toEqual(["0", "1", "00", "10"]);
    expect(kept(6, 3)).toEqual(["0", "1", "00", "01", "10", "000"]);
    expect(kept(7, 3)).toEqual(["0", "1", "00", "01", "10", "000", "100"]);
  });

  it("is one draft pass a level, laws null, siblings in falling probability", () => {
    const { draft, cost } = draftOf(model, { topK: 3, maxDepth: 3, budget: 30 }, [2]);
    expect(cost.passes).toBe(3);
    expect(draft.laws.every((law) => law === null)).toBe(true);
    expect(childrenOf(draft, 0).map((child) => draft.tokens[child])).toEqual([0, 1, 2]);
  });

  it("of equally confident nodes keeps the shallower, and the lower id", () => {
    const sure = TableModel.fromRows([[0, 1, 0]]);
    expect(draftOf(sure, { maxDepth: 5, budget: 2 }, [0]).draft).toMatchObject({
      tokens: [0, 1, 1],
      parents: [-1, 0, 1],
    });
    // What has no probability is no guess.
    expect(draftOf(sure, { maxDepth: 5 }, [0]).draft.tokens).toEqual([0, 1, 1, 1, 1, 1]);
    const flat = TableModel.fromRows([[1, 1, 1]]);
    expect(guessesOf(draftOf(flat, { topK: 2, maxDepth: 2, budget: 3 }, [0]).draft)).toEqual(["0", "1", "00"]);
  });
});

describe("against EAGLE's own tree drafting", () => {
  // Made by topK_genrate on a table: fixtures/eagle2-tree/make.py.
  const golden = JSON.parse(readFileSync(new URL("../fixtures/eagle2-tree/trees.json", import.meta.url), "utf8")) as {
    readonly vocabulary: number;
    readonly weights: readonly (readonly number[])[];
    readonly cases: readonly {
      readonly prompt: readonly number[];
      readonly total: number;
      readonly depth: number;
      readonly topK: number;
      readonly tokens: readonly number[];
      readonly parents: readonly number[];
    }[];
  };
  const { vocabulary, weights } = golden;
  const model = new TableModel({
    vocabularySize: vocabulary,
    order: 2,
    law: ([a = 0, b = 0]) => weights[a * vocabulary + b]!,
  });

  it.each(golden.cases)(
    "total $total, depth $depth, top-k $topK after $prompt",
    ({ prompt, total, depth, topK, ...tree }) => {
      const { draft, cost } = draftOf(model, { topK, maxDepth: depth + 1, budget: total - 1 }, prompt);
      expect(draft.tokens).toEqual(tree.tokens);
      expect(draft.parents).toEqual(tree.parents);
      expect(cost.passes).toBe(depth + 1);
    },
  );
});

describe("as a property", () => {
  it("the kept nodes are the most confident of all candidates, by a plain enumeration", () => {
    const options = fc.record({
      topK: fc.integer({ min: 1, max: 4 }),
      maxDepth: fc.integer({ min: 0, max: 4 }),
      budget: fc.integer({ min: 0, max: 20 }),
    });
    fc.assert(
      fc.property(fc.nat(), options, (seed, { topK, maxDepth, budget }) => {
        const model = TableModel.random({ vocabularySize: 5, order: 3, seed, sharpness: 2 });
        const { draft } = draftOf(model, { topK, maxDepth, budget }, [3, 1]);
        type Candidate = { readonly path: string; readonly c: number };
        const falling = (a: Candidate, b: Candidate) => b.c - a.c;
        let level: Candidate[] = [{ path: "", c: 1 }];
        const all: Candidate[] = [];
        for (let depth = 0; depth < maxDepth; depth++) {
          const candidates = level.flatMap(({ path, c }) =>
            Array.from(model.law([3, 1, ...Array.from(path, Number)]), (q, token) => ({ path: path + token, c: c * q }))
              .sort(falling)
              .slice(0, topK),
          );
          all.push(...candidates);
          level = candidates.sort(falling).slice(0, topK);
        }
        const expected = all.sort(falling).slice(0, budget);
        expect(guessesOf(draft).sort()).toEqual(expected.map(({ path }) => path).sort());
      }),
      { numRuns: FULL ? 1000 : 100 },
    );
  });

  it("keeps within nodes and depth, however few, and does not depend on temperature or chance", () => {
    const model = TableModel.random({ vocabularySize: 6, order: 2, seed: 5 });
    const whole = draftOf(model, {}, [1, 2]).draft;
    expect(whole.tokens).toHaveLength(60);
    expect(
      draftOf(model, {}, [1, 2], { sampling: resolveSampling({ temperature: 2 }), random: new Random(9) }).draft,
    ).toEqual(whole);
    for (const maxNodes of [1, 2, 5, 59, 60, 61]) {
      for (const maxDepth of [0, 1, 2, 5]) {
        const { draft, cost } = draftOf(model, {}, [1, 2], { maxNodes, maxDepth });
        expect(draft.tokens.length).toBeLessThanOrEqual(Math.min(maxNodes, 60));
        expect(Math.max(...nodeDepths(draft))).toBeLessThanOrEqual(maxDepth);
        if (maxNodes === 1 || maxDepth === 0) expect(cost.passes).toBe(0);
      }
    }
  });
});

describe("lossless", { timeout: 300_000 }, () => {
  const target = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
  const unlike = TableModel.random({ vocabularySize: 4, order: 1, seed: "draft" });
  const low = new TableModel({ vocabularySize: 4, order: 1, law: ([t = 0]) => [1 + t, 3, 0, 0] });
  const high = TableModel.fromRows([[0, 0, 1, 2]]);
  const draws = FULL ? 400_000 : 3000;

  it.each([
    ["an unlike draft", target, unlike],
    ["the target as its draft", target, target],
    ["a draft that says nothing possible", low, high],
  ] as const)("has the target's joint law with %s", (_, model, draft) => {
    const drafter = new Eagle2TreeDrafter(draft, { topK: 2, maxDepth: 3, budget: 7 });
    const law = new JointLaw(model, [0, 1], { drafter, temperature: 1 });
    law.draw(draws);
    expect(law.fit.pValue).toBeGreaterThan(1e-3);
    expect(law.fit.proposal).toBeNull();
  });

  it("has NOT when the chosen guesses are stated as drawn from the draft's law", () => {
    class Stated extends ModelDrafter {
      protected override grow(tree: Parameters<ModelDrafter["grow"]>[0]): void {
        if (tree.maxDepth === 0) return;
        const law = tree.law(0)!;
        tree.add(0, law.indexOf(Math.max(...law)), law);
      }
    }
    const law = new JointLaw(target, [0, 1], { drafter: new Stated(unlike), temperature: 1 });
    law.draw(2000);
    expect(law.fit.pValue).toBeLessThan(1e-9);
    expect(law.fit.proposal!.pValue).toBeLessThan(1e-9);
  });

  it("accepts a whole path a step at temperature 0 when the draft is the target", async () => {
    const drafter = new Eagle2TreeDrafter(target, { topK: 2, maxDepth: 4, budget: 14 });
    const report = await generateAll(target, [0], { drafter, maxTokens: 50 });
    expect(report.tokens).toEqual((await generateAll(target, [0], { maxTokens: 50 })).tokens);
    expect(report.tokensPerPass).toBeGreaterThan(3);
  });

  it("gives the embedded target's own text in fewer passes with the embedded draft", async () => {
    const [large, small] = [await loadEmbedded("target"), await loadEmbedded("draft")];
    for (const { text } of heldOutPrompts.slice(0, 2)) {
      const prompt = large.tokenizer.encode(text);
      const plain = await generateAll(large.model, prompt, { maxTokens: 32 });
      const drafter = new Eagle2TreeDrafter(small.model);
      const report = await generateAll(large.model, prompt, { maxTokens: 32, drafter });
      expect(report.tokens).toEqual(plain.tokens);
      expect(report.tokensPerPass).toBeGreaterThan(1.5);
      expect(report.cost.draft.passes).toBeGreaterThan(0);
    }
    large.model.close();
    small.model.close();
  });
});

it("refuses sizes out of range", () => {
  const model = TableModel.fromRows([[1, 1]]);
  for (const wrong of [-1, 0.5, Number.NaN]) {
    expect(() => new Eagle2TreeDrafter(model, { topK: wrong })).toThrow(/topK/);
    expect(() => new Eagle2TreeDrafter(model, { maxDepth: wrong })).toThrow(/maxDepth/);
    expect(() => new Eagle2TreeDrafter(model, { budget: wrong })).toThrow(/budget/);
  }
  expect(() => new Eagle2TreeDrafter(model, { topK: 0 })).toThrow(/topK/);
});
