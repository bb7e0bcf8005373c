/**
 * At temperature 0 every lossless technique of the catalog writes plain decoding's text, token for token, on trained models,
 * however many guesses it may make: on the embedded pair, and on stories260K where it is there (shared real weights, not
 * part of the project), with its own first layers as its draft model.
 *
 * The ordinary suite takes some numbers of guesses, `TOKENTHRIFT_FULL=1` all from 1 to 64.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { catalog, type TechniqueRun } from "../../src/catalog.ts";
import { calibrationPrompts } from "../../src/held-out-prompts.ts";
import type { ExtendOptions, LanguageModel, Session } from "../../src/model/language-model.ts";
import { type LoadedModel, loadEmbedded, loadLlama2c } from "../../src/model/load.ts";
import { promptSets } from "../../src/prompt-sets.ts";
import { generateAll } from "../../src/speculative/index.ts";

const full = process.env["TOKENTHRIFT_FULL"] === "1";
const budgets = full ? Array.from({ length: 64 }, (_, i) => i + 1) : [1, 2, 3, 7, 16, 64];
/** What measures the machine first takes a second for each. */
const slowBudgets = full ? [1, 2, 3, 5, 7, 12, 16, 24, 32, 48, 64] : [7];
const maxTokens = full ? 48 : 20;

type Generating = Extract<TechniqueRun, { kind: "generation" }>;
const lossless = catalog.flatMap(({ name, run, exact }) =>
  run.kind === "generation" && exact === "lossless" ? [[name, run] as const] : [],
);

async function expectPlainText(
  name: string,
  run: Generating,
  target: LanguageModel,
  draft: LanguageModel,
  prompts: readonly Int32Array[],
  calibration: readonly Int32Array[],
): Promise<void> {
  const plain = await Promise.all(prompts.map((prompt) => generateAll(target, prompt, { maxTokens })));
  for (const budget of name === "hardware-aware-drafting" ? slowBudgets : budgets) {
    const method = await run.method({ gamma: budget, draft, target, sampling: {}, calibration });
    for (const [p, prompt] of prompts.entries()) {
      const report = await generateAll(target, prompt, { ...method, maxTokens });
      expect(report.tokens, `${budget} guesses, prompt ${p}`).toEqual(plain[p]!.tokens);
      expect(report.targetPasses).toBeLessThanOrEqual(plain[p]!.targetPasses);
      expect(report.drafted).toBeLessThanOrEqual(budget * report.targetPasses);
    }
  }
}

describe("on the embedded pair", () => {
  let [target, draft]: LoadedModel[] = [];
  beforeAll(async () => {
    [target, draft] = [await loadEmbedded("target"), await loadEmbedded("draft")];
  });
  afterAll(() => {
    target!.model.close();
    draft!.model.close();
  });

  it.each(lossless)("%s", async (name, run) => {
    const encode = (text: string): Int32Array => Int32Array.from(target!.tokenizer.encode(text));
    const prompts = Object.values(promptSets).map((texts) => encode(texts[full ? 0 : 1]!));
    const calibration = calibrationPrompts.slice(0, 2).map(({ text }) => encode(text));
    await expectPlainText(name, run, target!.model, draft!.model, prompts, calibration);
  });
});

const shared = join(import.meta.dirname, "../../../shared/models");
const stories = join(shared, "stories260K.bin");
/** What fits the embedded target alone is left out. */
const anywhere = lossless.filter(([name]) => !["medusa", "chimera", "s2d"].includes(name));

describe.skipIf(!existsSync(stories))("on stories260K", () => {
  let loaded: Awaited<ReturnType<typeof loadLlama2c>>;
  beforeAll(async () => {
    loaded = await loadLlama2c(stories, join(shared, "tok512.bin"));
  });
  afterAll(() => loaded?.model.close());

  it.each(anywhere)("%s", async (name, run) => {
    const { model, tokenizer } = loaded;
    const texts = ["Once upon a time, there was a little girl named Lily", "The dog ran and ran. The dog ran and"];
    const prompts = texts.map((text) => Int32Array.from([1, ...tokenizer.encode(text)]));
    await expectPlainText(name, run, model, firstLayers(model, 3), prompts, [
      Int32Array.from([1, ...tokenizer.encode("Tom")]),
    ]);
  });
});

/** A model cut short: its first layers, then its own norm and head. A poor draft of itself, but of the same vocabulary. */
function firstLayers(model: LanguageModel, count: number): LanguageModel {
  const layers = Array.from({ length: count }, (_, i) => i);
  return {
    vocabularySize: model.vocabularySize,
    contextLength: model.contextLength,
    openSession(): Session {
      const inner = model.openSession();
      return {
        get length() {
          return inner.length;
        },
        get cost() {
          return inner.cost;
        },
        extend: (input, options: ExtendOptions = {}) => inner.extend(input, { ...options, layers }),
        score: (tree, options = {}) => inner.score(tree, { ...options, layers }),
        accept: (node) => inner.accept(node),
        truncate: (length) => inner.truncate(length),
        close: () => inner.close(),
      };
    },
  };
}
