/** The target's law by many draws, and on the embedded pair: what every drafter of drawn trees has to show, in one call. */
import { describe, expect, it } from "vitest";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { DraftContext, Drafter, ModelDrafterOptions } from "../../src/speculative/index.ts";
import { generateAll, resolveSampling } from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";

/** 400,000 draws with TOKENTHRIFT_FULL, enough for a few seconds otherwise. */
export const draws = process.env["TOKENTHRIFT_FULL"] === undefined ? 4_000 : 400_000;
const timeout = 30_000 + draws;

export const target = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
export const unlike = TableModel.random({ vocabularySize: 4, order: 1, seed: "draft" });

/** The drafter's first draft after `text`. */
export const draftOf = (drafter: Drafter, text: readonly number[], changes: Partial<DraftContext> = {}) =>
  drafter.open({ prompt: text, vocabularySize: drafter.vocabularySize!, contextLength: 1000, prefill: null }).propose({
    tokens: text,
    maxNodes: 1000,
    maxDepth: 1000,
    sampling: resolveSampling({ temperature: 1 }),
    random: new Random(0),
    ...changes,
  });

export function itIsLossless(drafterOf: (draft: LanguageModel, options?: ModelDrafterOptions) => Drafter): void {
  describe("temperature 0", () => {
    const sizes = { vocabularySize: 6, contextLength: 48 };
    const table = TableModel.random({ ...sizes, order: 2, seed: "t", sharpness: 2 });
    const stranger = TableModel.random({ ...sizes, order: 1, seed: "s", sharpness: 2 });
    const kindred = new TableModel({
      ...sizes,
      order: 2,
      law: (context) => table.law(context).map((p, i) => 0.6 * p + 0.4 * stranger.law(context)[i]!),
    });
    const short = TableModel.random({ ...sizes, contextLength: 20, order: 2, seed: "t", sharpness: 2 });

    it.each(Object.entries({ equal: table, kindred, stranger, short }))(
      "equals plain decoding, draft %s, guesses chosen or drawn",
      async (_, draft) => {
        for (const options of [{}, { sampling: { temperature: 1 } }]) {
          const drafter = drafterOf(draft, options);
          for (const prompt of [[0], [5, 3, 1]]) {
            for (const maxTokens of [1, 2, 5, 60]) {
              const plain = await generateAll(table, prompt, { maxTokens });
              const report = await generateAll(table, prompt, { maxTokens, drafter });
              expect(report.tokens).toEqual(plain.tokens);
              expect(report.finish).toEqual(plain.finish);
            }
          }
        }
      },
    );
  });

  describe(`the joint law of two tokens, ${draws.toLocaleString("en")} draws`, () => {
    const low = new TableModel({ vocabularySize: 4, order: 1, law: ([t = 0]) => [1 + t, 3, 0, 0] });
    const high = TableModel.fromRows([[0, 0, 1, 2]]);
    it.each([
      ["an unlike draft", target, unlike, {}, {}],
      ["the target as its draft", target, target, {}, {}],
      ["a draft that says nothing possible", low, high, {}, {}],
      ["temperature .5", target, unlike, { temperature: 0.5 }, {}],
      ["top-k 3, top-p .9, temperature 1.5", target, unlike, { temperature: 1.5, topK: 3, topP: 0.9 }, {}],
      ["a draft hotter than the target", target, unlike, { temperature: 0.7 }, { sampling: { temperature: 3 } }],
      ["guesses chosen, not drawn", target, unlike, {}, { sampling: { temperature: 0 } }],
    ] as const)("is the target's with %s", { timeout }, (_, target, draft, sampling, options) => {
      const drafter = drafterOf(draft, options);
      const fit = fitOfFirstTwoTokens(target, [0, 1], draws, { temperature: 1, ...sampling, drafter });
      expect(fit.chiSquare).toBeLessThan(fit.limit);
      expect(fit.proposal?.pValue ?? 1).toBeGreaterThan(0.001);
    });
  });

  it("gives the embedded target's own text, from fewer passes, with the embedded draft", async () => {
    const [large, small] = [await loadEmbedded("target"), await loadEmbedded("draft")];
    const options = { maxTokens: 32 };
    for (const { text } of heldOutPrompts.slice(0, 2)) {
      const prompt = large.tokenizer.encode(text);
      const plain = await generateAll(large.model, prompt, options);
      const report = await generateAll(large.model, prompt, { ...options, drafter: drafterOf(small.model) });
      expect(report.tokens).toEqual(plain.tokens);
      expect(report.tokensPerPass).toBeGreaterThan(1.3);
      // A draft pass per level at most, and the prompt is read by the draft model once.
      expect(report.cost.draft.passes).toBeLessThanOrEqual(2 * report.targetPasses);
    }
    large.model.close();
    small.model.close();
  });
}
