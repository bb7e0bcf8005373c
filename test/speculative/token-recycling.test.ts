import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { heldOutEdits } from "../../src/held-out-edits.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import type { Matrix } from "../../src/model/language-model.ts";
import { type LoadedModel, loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Draft, DraftContext, Drafter, TreeTemplate, Verifier } from "../../src/speculative/index.ts";
import {
  generate,
  generateAll,
  JointLaw,
  nodeDepths,
  recursiveRejectionSampling,
  recyclingTemplate,
  resolveSampling,
  rootDraft,
  TokenRecyclingDrafter,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const small: TreeTemplate = [[0], [1], [0, 0], [0, 1], [1, 0], [0, 0, 0]];
const start = (vocabularySize: number, prompt = [0]) => ({
  prompt,
  vocabularySize,
  contextLength: 1000,
  prefill: null,
});
const context = (tokens: readonly number[], changes: Partial<DraftContext> = {}): DraftContext => ({
  tokens,
  maxNodes: 1000,
  maxDepth: 1000,
  sampling: resolveSampling(),
  random: new Random(0),
  ...changes,
});
/** Rows of logits, each with the given ids on top, best first. */
const rankings = (columns: number, ids: readonly (readonly number[])[]): Matrix => {
  const data = new Float32Array(ids.length * columns);
  for (const [r, best] of ids.entries()) for (const [rank, id] of best.entries()) data[r * columns + id] = 9 - rank;
  return { data, rows: ids.length, columns };
};

describe("the template", () => {
  it("is the released one: 80 paths, six levels, every path after its beginning, ranks below 8", () => {
    const levels = new Array<number>(6).fill(0);
    for (const path of recyclingTemplate) levels[path.length - 1]! += 1;
    expect(levels).toEqual([8, 21, 25, 15, 8, 3]);
    const seen = new Set([""]);
    for (const path of recyclingTemplate) {
      expect(seen).toContain(path.slice(0, -1).join());
      seen.add(path.join());
      expect(Math.max(...path)).toBeLessThan(8);
    }
    expect(seen.size).toBe(81);
    const joined = recyclingTemplate.map((path) => path.join(""));
    for (const path of ["007", "110", "500", "0004", "0011", "3000", "00002", "00020", "000001", "000100"]) {
      expect(joined).toContain(path);
    }
    for (const path of ["14", "23", "0005", "0012", "4000", "00003", "000002"]) expect(joined).not.toContain(path);
  });

  it("is refused when a path has no beginning before it, comes twice, is out of order or no path", () => {
    for (const [template, message] of [
      [[[0], [1, 0]], /^template\[1\]: expected a path whose beginning comes before it, got \[1,0\]/],
      [[[0, 0], [0]], /beginning/],
      [[[0], [0]], /not there yet/],
      [[[0], [0, 0], [1]], /as long as the one before/],
      [[[]], /ends in an integer/],
      [[[-1]], /ends in an integer/],
      [[[0.5]], /ends in an integer/],
    ] as [TreeTemplate, RegExp][]) {
      expect(() => new TokenRecyclingDrafter({ template })).toThrow(ArgumentError);
      expect(() => new TokenRecyclingDrafter({ template })).toThrow(message);
    }
  });
});

describe("the matrix", () => {
  /** Rows 7: [3, 5], 3: [4, 9], 5: [2, 0], 4: [7, 1], 9: [0, 0] of a vocabulary of ten. */
  function taught() {
    const drafter = new TokenRecyclingDrafter({ template: small });
    const drafting = drafter.open(start(10));
    const draft: Draft = { tokens: [7, 3, 5, 4], parents: [-1, 0, 0, 1], laws: [null, null, null, null] };
    const logits = rankings(10, [
      [3, 5],
      [4, 9],
      [2, 0],
      [7, 1],
    ]);
    drafting.observe({ draft, logits, path: [0], token: 7 });
    return { drafter, drafting };
  }

  it("is read breadth first: the card's tree, and what becomes of it", () => {
    const { drafter, drafting } = taught();
    const draft = drafting.propose(context([1, 7]));
    expect(draft).toEqual({
      tokens: [7, 3, 5, 4, 9, 2, 7],
      parents: [-1, 0, 0, 1, 1, 2, 3],
      laws: new Array(7).fill(null),
    });
    expect(Array.from(nodeDepths(draft))).toEqual([0, 1, 1, 2, 2, 2, 3]);

    // Arg-maxes [3, 4, 2, 1, 0, 8, 6]: 7-3-4 is the longest match, 1 follows it.
    const logits = rankings(10, [
      [3, 9],
      [4, 8],
      [2, 6],
      [1, 5],
      [0, 7],
      [8, 3],
      [6, 2],
    ]);
    const sampling = resolveSampling();
    const verdict = recursiveRejectionSampling.verify({ draft, logits, sampling, random: new Random(0) });
    expect(verdict).toEqual({ kind: "corrected", path: [0, 1, 3], token: 1 });

    const before = Array.from({ length: 10 }, (_, token) => drafter.candidates(token));
    drafting.observe({ draft, logits, path: verdict.path, token: verdict.token });
    const rows = Array.from({ length: 10 }, (_, token) => drafter.candidates(token));
    // Every node writes, the rejected ones too; of 7, at nodes 0 and 6, the last stays. No other row changes.
    expect(rows).toEqual([before[0], before[1], [8, 3], [4, 8], [1, 5], [2, 6], before[6], [6, 2], before[8], [0, 7]]);
  });

  it("holds the k largest logits, best first, the lower id first of equal ones, -Infinity last", () => {
    const drafter = new TokenRecyclingDrafter({ template: [[0], [1], [2], [3]] });
    const drafting = drafter.open(start(6));
    const observe = (logits: number[]) => {
      const data = Float32Array.from(logits);
      drafting.observe({ draft: rootDraft(2), logits: { data, rows: 1, columns: 6 }, path: [0], token: 0 });
      return drafter.candidates(2);
    };
    expect(observe([1, 2, 3, 4, 5, 6])).toEqual([5, 4, 3, 2]);
    expect(observe([3, 7, 3, 7, 3, 0])).toEqual([1, 3, 0, 2]);
    const least = Number.NEGATIVE_INFINITY;
    expect(observe([least, least, 1, least, 2, least])).toEqual([4, 2, 0, 1]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 6, maxLength: 6 }), (logits) => {
        const order = logits.map((_, i) => i).sort((a, b) => logits[b]! - logits[a]! || a - b);
        expect(observe(logits)).toEqual(order.slice(0, 4));
      }),
    );
  });

  it("takes V * k * 2 bytes, 4 above 65,536 tokens: under 2 MB up to there", () => {
    const bytes = (vocabularySize: number, template?: TreeTemplate) => {
      const drafter = new TokenRecyclingDrafter(template && { template });
      expect([drafter.bytes, drafter.candidates(0)]).toEqual([0, null]);
      drafter.open(start(vocabularySize)).close();
      return drafter.bytes;
    };
    expect(bytes(1024)).toBe(16_384);
    expect(bytes(32_000)).toBe(512_000);
    expect(bytes(50_257)).toBe(804_112);
    expect(bytes(65_536)).toBe(1_048_576);
    expect(bytes(65_537)).toBe(65_537 * 8 * 4);
    expect(bytes(128_256, [[0], [1], [0, 0]])).toBe(128_256 * 2 * 4);
  });

  it("is cold at first: all zeros, so the draft repeats token 0 and is still a draft", () => {
    const drafter = new TokenRecyclingDrafter({ template: small });
    expect(drafter.open(start(10)).propose(context([4])).tokens).toEqual([4, 0, 0, 0, 0, 0, 0]);
  });

  it("learns from the prompt too, unless told not to: the target is asked for the logits then", () => {
    const table = TableModel.random({ vocabularySize: 5, order: 2, seed: 3 });
    const prompt = [1, 4, 2, 4];
    const learn = (options: { learnsPrompt?: boolean }, logits: "all" | "none") => {
      const drafter = new TokenRecyclingDrafter({ template: small, ...options });
      expect(drafter.prefillLogits).toBe(logits === "all");
      drafter.open({ ...start(5, prompt), prefill: table.openSession().extend(prompt.slice(0, -1), { logits }) });
      return [0, 1, 2, 3, 4].map((token) => drafter.candidates(token));
    };
    const best = (text: number[]) => {
      const logits = table.logits(text);
      return [0, 1, 2, 3, 4].sort((a, b) => logits[b]! - logits[a]!).slice(0, 2);
    };
    // 4 stood second and last: the last one is pending and not scored yet.
    expect(learn({}, "all")).toEqual([[0, 0], best([1]), best([4, 2]), [0, 0], best([1, 4])]);
    expect(learn({ learnsPrompt: false }, "none")).toEqual(new Array(5).fill([0, 0]));
  });
});

describe("drafting", () => {
  it("takes the template's first paths, within nodes and depth to the last one", () => {
    const sizes = [1, 9, 30, 55, 70, 78, 81];
    const drafting = new TokenRecyclingDrafter().open(start(40));
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.nat({ max: 9 }), (maxNodes, maxDepth) => {
        const draft = drafting.propose(context([3], { maxNodes, maxDepth }));
        expect(draft.tokens).toHaveLength(Math.min(maxNodes, sizes[Math.min(6, maxDepth)]!));
        expect(draft.parents).toHaveLength(draft.tokens.length);
        expect(draft.laws).toEqual(new Array(draft.tokens.length).fill(null));
        expect(Math.max(...nodeDepths(draft))).toBeLessThanOrEqual(maxDepth);
      }),
    );
    expect(drafting.propose(context([3], { maxDepth: Number.POSITIVE_INFINITY })).tokens).toHaveLength(81);
  });

  it("keeps the template it was given, whatever becomes of that", () => {
    const template = [[0], [1], [0, 0]];
    const drafter = new TokenRecyclingDrafter({ template });
    template.pop();
    template[1]![0] = 5;
    expect(drafter.open(start(9)).propose(context([1])).parents).toEqual([-1, 0, 0, 1]);
    expect(drafter.candidates(0)).toHaveLength(2);
  });

  it("leaves out ranks that a small vocabulary has no tokens for", () => {
    const drafter = new TokenRecyclingDrafter();
    const drafting = drafter.open(start(2));
    const paths = recyclingTemplate.filter((path) => path.every((rank) => rank < 2));
    expect(drafting.propose(context([1])).tokens).toHaveLength(1 + paths.length);
    expect(drafter.candidates(0)).toHaveLength(2);
  });

  it("does what an implementation in tensors does, cold and hot, with and without the prompt", () => {
    interface Case {
      template: number[][];
      learnsPrompt: boolean;
      runs: { prompt: number[]; steps: { tokens: number[]; path: number[]; token: number }[]; matrix: number[][] }[];
    }
    const path = join(import.meta.dirname, "../fixtures/token-recycling/steps.json");
    const cases: Case[] = JSON.parse(readFileSync(path, "utf8"));
    const target = new TableModel({
      vocabularySize: 24,
      order: 2,
      contextLength: 200,
      law: (context) => {
        const [before, token] = context.length < 2 ? [0, context[0] ?? 0] : [context[0]!, context[1]!];
        const hashed = 101 * (31 * (before % 3) + 17 * token) + 5;
        return Array.from({ length: 24 }, (_, after) => Number(BigInt(hashed + 7 * after) ** 3n % 10007n) + 1);
      },
    });
    for (const { template, learnsPrompt, runs } of cases) {
      const drafter = new TokenRecyclingDrafter({ template, learnsPrompt });
      for (const { prompt, steps, matrix } of runs) {
        const generation = generate(target, prompt, { drafter });
        for (const expected of steps) {
          const { draft, path, tokens } = generation.step()!;
          expect({ tokens: draft.tokens, path, token: tokens.at(-1) }).toEqual(expected);
        }
        generation.close();
        expect(matrix.map((_, token) => drafter.candidates(token))).toEqual(matrix);
      }
    }
  });

  it("accepts the template's whole depth, seven tokens a pass, once a cycle has gone round", () => {
    const cycle = TableModel.fromRows([
      [0, 1, 0],
      [0, 0, 1],
      [1, 0, 0],
    ]);
    const generation = generate(cycle, [0], {
      drafter: new TokenRecyclingDrafter({ learnsPrompt: false }),
      maxTokens: 100,
    });
    const lengths: number[] = [];
    for (let step = generation.step(); step !== undefined; step = generation.step()) lengths.push(step.tokens.length);
    const lap = lengths.indexOf(7);
    expect(lengths.slice(0, lap).reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(6);
    expect(new Set(lengths.slice(lap, -1))).toEqual(new Set([7]));
  });
});

describe("across sequences", () => {
  const target = TableModel.random({ vocabularySize: 12, order: 2, seed: "across", contextLength: 80 });
  const passes = async (drafter: Drafter) =>
    (await generateAll(target, [3, 1], { drafter, maxTokens: 60 })).targetPasses;

  it("starts hot after another one, cold after reset", async () => {
    const drafter = new TokenRecyclingDrafter();
    const cold = await passes(drafter);
    expect(await passes(drafter)).toBeLessThan(cold);
    drafter.reset();
    expect([drafter.bytes, drafter.vocabularySize]).toEqual([0, null]);
    expect(await passes(drafter)).toBe(cold);
  });

  it("lets open sequences share one matrix and keep it past a reset, and changes nobody's text", async () => {
    const texts = [
      [3, 1],
      [7, 7, 2],
    ];
    const plain = await Promise.all(texts.map((prompt) => generateAll(target, prompt, { maxTokens: 40 })));
    const drafter = new TokenRecyclingDrafter();
    const generations = texts.map((prompt) => generate(target, prompt, { drafter, maxTokens: 40 }));
    for (let i = 0; i < 40; i++) {
      for (const generation of generations) generation.step();
      if (i === 3) drafter.reset();
    }
    expect(generations.map(({ report }) => report.tokens)).toEqual(plain.map(({ tokens }) => tokens));
    // The new matrix knows nothing of what they learnt after it.
    drafter.open(start(12)).close();
    expect(drafter.candidates(3)).toEqual(new Array(8).fill(0));
  });

  it("serves one vocabulary until reset", () => {
    const drafter = new TokenRecyclingDrafter();
    drafter.open(start(12)).close();
    expect(drafter.vocabularySize).toBe(12);
    expect(() => drafter.open(start(13))).toThrow(ArgumentError);
    expect(() => generate(TableModel.random({ vocabularySize: 4 }), [0], { drafter })).toThrow(/vocabulary of 4/);
    drafter.reset();
    expect(() => drafter.open(start(13))).not.toThrow();
  });
});

// Minutes with TOKENTHRIFT_FULL, seconds without.
describe("what comes out", { timeout: 1_200_000 }, () => {
  it("is plain decoding's text at temperature 0, from tables of any kind", async () => {
    for (const seed of [1, 2, 3]) {
      const target = TableModel.random({ vocabularySize: 9, order: 2, seed, contextLength: 90 });
      const drafter = new TokenRecyclingDrafter();
      for (const prompt of [[0], [4, 4, 1]]) {
        const plain = await generateAll(target, prompt);
        const report = await generateAll(target, prompt, { drafter });
        expect(report.tokens).toEqual(plain.tokens);
        expect(report.tokensPerPass).toBeGreaterThan(1.5);
        expect(report.cost.draft.passes).toBe(0);
      }
    }
  });

  const draws = process.env["TOKENTHRIFT_FULL"] ? 400_000 : 20_000;
  const table = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
  const fitOf = (target: TableModel, twin: Drafter, verifier?: Verifier) => {
    const law = new JointLaw(target, [0, 1], {
      temperature: 1,
      drafter: twin,
      ...(verifier && { verifier }),
      tokens: 3,
      maxTokens: 6,
      seed: 1,
    });
    law.draw(draws);
    return law.fit;
  };

  it.each([
    ["of a random table", table],
    ["when the ranking is all there is to know", TableModel.random({ vocabularySize: 4, order: 1, seed: 5 })],
    ["when most candidates are impossible", TableModel.fromRows([[0.5, 0.5, 0, 0]])],
  ])("has the target's joint law of three tokens %s", (_, target) => {
    const fit = fitOf(target, new TokenRecyclingDrafter({ template: small }));
    expect(fit.pValue).toBeGreaterThan(0.001);
    expect(fit.tokensPerPass).toBeGreaterThan(1.5);
  });

  it("has NOT when candidates are declared as drawn: the same test fails", () => {
    const uniform = new Float64Array(4).fill(0.25);
    const drafter = new TokenRecyclingDrafter({ template: small });
    const mislabelled: Drafter = {
      vocabularySize: 4,
      prefillLogits: true,
      open: (given) => {
        const drafting = drafter.open(given);
        return {
          cost: drafting.cost,
          propose(asked) {
            const draft = drafting.propose(asked);
            return { ...draft, laws: draft.laws.map((_, node) => (node === 0 ? null : uniform)) };
          },
          observe: (pass) => drafting.observe(pass),
          close() {},
        };
      },
      reset: () => drafter.reset(),
    };
    expect(fitOf(table, mislabelled).pValue).toBeLessThan(1e-12);
  });

  it("has NOT when a rejected candidate is given another chance: the same test fails", () => {
    // Where all candidates were rejected the step is verified once more, from the beginning.
    const forgetful: Verifier = {
      verify({ draft, logits, sampling, random }) {
        const chances = { draft, logits, sampling, random };
        const verdict = recursiveRejectionSampling.verify(chances);
        return verdict.kind === "corrected" ? recursiveRejectionSampling.verify(chances) : verdict;
      },
    };
    expect(fitOf(table, new TokenRecyclingDrafter({ template: small }), forgetful).pValue).toBeLessThan(1e-12);
  });
});

describe("on the embedded target", () => {
  let target: LoadedModel;
  beforeAll(async () => {
    target = await loadEmbedded("target");
  });
  const template = recyclingTemplate.slice(0, 63);
  const tokensPerPass = async (texts: readonly string[]) => {
    let [tokens, passes] = [0, 0];
    for (const [i, text] of texts.entries()) {
      const prompt = target.tokenizer.encode(text);
      const drafter = new TokenRecyclingDrafter({ template });
      const report = await generateAll(target.model, prompt, { maxTokens: 48, drafter });
      if (i < 2) expect(report.tokens).toEqual((await generateAll(target.model, prompt, { maxTokens: 48 })).tokens);
      tokens += report.tokens.length;
      passes += report.targetPasses;
    }
    return tokens / passes;
  };

  it("gives its text, at two tokens a pass or more where prompts are edits, 1.5 elsewhere, from a cold start", async () => {
    expect(await tokensPerPass(heldOutEdits.map(({ original, edited }) => original + edited))).toBeGreaterThan(2);
    expect(await tokensPerPass(heldOutPrompts.slice(0, 4).map(({ text }) => text))).toBeGreaterThan(1.5);
  });
});
