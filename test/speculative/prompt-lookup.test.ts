import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { DraftContext, Drafter } from "../../src/speculative/index.ts";
import { generate, generateAll, JointLaw, promptLookupDrafter, resolveSampling } from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const vocabularySize = 10;
const start = { prompt: [0], vocabularySize, contextLength: 100, prefill: null };
const context = (tokens: readonly number[], changes: Partial<DraftContext> = {}): DraftContext => ({
  tokens,
  maxNodes: 100,
  maxDepth: 99,
  sampling: resolveSampling(),
  random: new Random(0),
  ...changes,
});
const draftOf = (drafter: Drafter, text: readonly number[], changes?: Partial<DraftContext>) =>
  drafter.open(start).propose(context(text, changes));
const guesses = (
  text: readonly number[],
  maxNgramSize: number,
  predictedTokens: number,
  changes?: Partial<DraftContext>,
): number[] =>
  Array.from(draftOf(promptLookupDrafter({ maxNgramSize, predictedTokens }), text, changes).tokens).slice(1);

describe("what is looked up", () => {
  it("the card's text by hand: all tokens asked for, or the shorter tail there is", () => {
    const text = [1, 2, 3, 4, 5, 6, 2, 3];
    expect(guesses(text, 3, 2)).toEqual([4, 5]);
    expect(guesses(text, 3, 3)).toEqual([4, 5, 6]);
    expect(guesses(text, 3, 10)).toEqual([4, 5, 6, 2, 3]);
    expect(guesses([7, 8, 9], 3, 2)).toEqual([]);
    expect(guesses([7], 3, 2)).toEqual([]);
    expect(draftOf(promptLookupDrafter({ predictedTokens: 2 }), text)).toEqual({
      tokens: [3, 4, 5],
      parents: [-1, 0, 1],
      laws: [null, null, null],
    });
  });

  it("the longest n-gram before the first match, and the first match of that length", () => {
    // 3 stood first before 9, [2, 3] before 4 and later before 5.
    const text = [3, 9, 2, 3, 4, 2, 3, 5, 2, 3];
    expect(guesses(text, 1, 1)).toEqual([9]);
    expect(guesses(text, 2, 1)).toEqual([4]);
    // Nothing longer matches: the shorter n-grams are tried.
    expect(guesses(text, 8, 1)).toEqual([4]);
  });

  it("what transformers looks up, 400 texts", () => {
    const path = join(import.meta.dirname, "../fixtures/prompt-lookup/candidates.json");
    const rows: [number[], number, number, number[]][] = JSON.parse(readFileSync(path, "utf8"));
    expect(rows).toHaveLength(400);
    for (const [text, ngram, count, expected] of rows) expect(guesses(text, ngram, count)).toEqual(expected);
    expect(rows.filter(([, , , { length }]) => length > 0).length).toBeGreaterThan(200);
  });

  it("a part of the text that follows what the text ends with, within nodes, depth and count", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat({ max: 3 }), { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 8 }),
        fc.nat({ max: 8 }),
        (text, ngram, count, maxNodes, maxDepth) => {
          const found = guesses(text, ngram, count, { maxNodes, maxDepth });
          expect(found.length).toBeLessThanOrEqual(Math.min(count, maxNodes - 1, maxDepth));
          const unlimited = guesses(text, ngram, count);
          expect(found).toEqual(unlimited.slice(0, Math.min(maxNodes - 1, maxDepth)));
          // Every token that ended the text stood before, or there is no guess.
          const last = text.at(-1)!;
          expect(unlimited.length > 0).toBe(text.indexOf(last) < text.length - 1);
          const joined = text.join("");
          if (unlimited.length > 0) expect(joined).toContain(`${last}${unlimited.join("")}`);
        },
      ),
    );
  });
});

// Minutes with TOKENTHRIFT_FULL, seconds without.
describe("what comes out", { timeout: 1_200_000 }, () => {
  const target = TableModel.random({ vocabularySize: 4, order: 2, seed: "target", contextLength: 60 });
  const drafter = promptLookupDrafter();

  it("is plain decoding's text at temperature 0, in fewer passes where the text repeats itself", async () => {
    for (let first = 0; first < 4; first++) {
      const plain = await generateAll(target, [first]);
      const report = await generateAll(target, [first], { drafter });
      expect(report.tokens).toEqual(plain.tokens);
      // A greedy text of a table of order 2 falls into a loop.
      expect(report.tokensPerPass).toBeGreaterThan(2);
      expect(report.cost.draft).toEqual({ passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 });
    }
  });

  it("takes one pass per eleven tokens when copying without an error, one per token when nothing repeats", async () => {
    const cycle = (size: number) =>
      new TableModel({
        vocabularySize: size,
        order: 1,
        law: ([t = 0]) => Array.from({ length: size }, (_, i) => (i === (t + 1) % size ? 1 : 0)),
      });
    const prompt = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0];
    expect(await generateAll(cycle(12), prompt, { drafter, maxTokens: 110 })).toMatchObject({ targetPasses: 10 });
    expect(await generateAll(cycle(64), [0], { drafter, maxTokens: 63 })).toMatchObject({
      targetPasses: 63,
      drafted: 0,
    });
  });

  it("depends on the sequence's own text alone, however many are under way", () => {
    const alone = [[0, 1, 2], [3]].map((prompt) => {
      const generation = generate(target, prompt, { drafter, temperature: 1, seed: 5, maxTokens: 20 });
      const steps = [];
      for (let step = generation.step(); step !== undefined; step = generation.step()) steps.push(step);
      return steps;
    });
    const [a, b] = [[0, 1, 2], [3]].map((prompt) =>
      generate(target, prompt, { drafter, temperature: 1, seed: 5, maxTokens: 20 }),
    );
    const together: unknown[][] = [[], []];
    for (let i = 0; i < 20; i++) {
      for (const [which, generation] of [a!, b!].entries()) {
        const step = generation.step();
        if (step !== undefined) together[which]!.push(step);
        drafter.reset();
      }
    }
    expect(together).toEqual(alone);
  });

  const draws = process.env["TOKENTHRIFT_FULL"] ? 400_000 : 30_000;
  const fitOf = (table: TableModel, prompt: readonly number[], twin: Drafter) => {
    const law = new JointLaw(table, prompt, { temperature: 1, drafter: twin, tokens: 3, maxTokens: 6, seed: 1 });
    law.draw(draws);
    return law.fit;
  };
  const repeating = [0, 1, 2, 3, 0, 1];

  it.each([
    ["when the guess is likely", TableModel.random({ vocabularySize: 4, order: 2, seed: 2 })],
    ["when the guess is the target's own", TableModel.fromRows([1, 2, 3, 0].map((next) => rowOf(next)))],
    ["when the guess is impossible", TableModel.fromRows([[0.5, 0.5, 0, 0]])],
  ])("has the target's joint law of three tokens %s", (_, table) => {
    expect(fitOf(table, repeating, drafter).pValue).toBeGreaterThan(0.001);
  });

  it("has NOT when the guess is declared as drawn from a law: the same test fails", () => {
    const law = new Float64Array(4).fill(0.25);
    const mislabelled: Drafter = {
      ...drafter,
      open: (given) => {
        const drafting = drafter.open(given);
        return {
          ...drafting,
          propose(asked) {
            const draft = drafting.propose(asked);
            return { ...draft, laws: draft.laws.map((_, i) => (i === 0 ? null : law)) };
          },
        };
      },
    };
    const table = TableModel.random({ vocabularySize: 4, order: 2, seed: 2 });
    expect(fitOf(table, repeating, mislabelled).pValue).toBeLessThan(1e-12);
  });

  function rowOf(next: number): number[] {
    return [0, 1, 2, 3].map((token) => (token === next ? 1 : 0));
  }
});

it("refuses sizes that are no integers from 1 on", () => {
  for (const value of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => promptLookupDrafter({ maxNgramSize: value })).toThrow(/^maxNgramSize: /);
    expect(() => promptLookupDrafter({ predictedTokens: value })).toThrow(ArgumentError);
  }
});
