import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { heldOutFiles, nodeDeclarations } from "../src/corpus.ts";
import { embeddedCorpus, recipes, tokenStream, trainEmbeddedTokenizer } from "../src/embedded-pair.ts";
import { calibrationPrompts, heldOutPrompts } from "../src/held-out-prompts.ts";
import { embeddedFolder, embeddedModels } from "../src/model/embedded.ts";
import { totalBits } from "../src/model/evaluation.ts";
import { type LoadedModel, loadEmbedded } from "../src/model/load.ts";
import { ChainDrafter, generateAll } from "../src/speculative/index.ts";

describe("the embedded pair", () => {
  let target: LoadedModel;
  let draft: LoadedModel;
  beforeAll(async () => {
    target = await loadEmbedded("target");
    draft = await loadEmbedded("draft");
  });
  afterAll(() => {
    target.model.close();
    draft.model.close();
  });

  it("has the recipe's shapes, one vocabulary, and stays under 4 MB", () => {
    expect(target.model.config).toEqual(recipes.target.config);
    expect(draft.model.config).toEqual(recipes.draft.config);
    expect(draft.tokenizer.toHuggingFace()).toEqual(target.tokenizer.toHuggingFace());
    const sizes = embeddedModels.flatMap((which) => {
      const folder = embeddedFolder(which);
      return readdirSync(folder).map((name) => statSync(join(folder, name)).size);
    });
    expect(sizes.reduce((a, b) => a + b, 0)).toBeLessThan(4e6);
  });

  it("has the vocabulary its corpus gives when trained again", () => {
    const corpus = embeddedCorpus();
    expect(trainEmbeddedTokenizer(corpus.training).toHuggingFace()).toEqual(target.tokenizer.toHuggingFace());
  });

  it("predicts unseen files better than gzip and xz compress them, by its record and by measuring one file again", () => {
    const { evaluation } = target.training as {
      evaluation: Record<"bitsPerByte" | "gzip" | "xz" | "fiveGram", number>;
    };
    expect(evaluation.bitsPerByte).toBeLessThan(evaluation.gzip);
    expect(evaluation.bitsPerByte).toBeLessThan(evaluation.xz);
    const file = nodeDeclarations().heldOut.find(({ name }) => name.endsWith("/path.d.ts"))!.text;
    const bits = totalBits(target.model, tokenStream(target.tokenizer, ["", file]));
    expect(bits).toBeLessThan(8 * gzipSync(file, { level: 9 }).length);
    const draftBits = totalBits(draft.model, tokenStream(draft.tokenizer, ["", file]));
    expect(draftBits).toBeGreaterThan(bits);
  });

  it("writes the same text by speculation as alone, for every chain length, on every kind of prompt", async () => {
    for (const kind of new Set(heldOutPrompts.map((prompt) => prompt.kind))) {
      const { text } = heldOutPrompts.find((prompt) => prompt.kind === kind)!;
      const prompt = target.tokenizer.encode(text);
      const plain = await generateAll(target.model, prompt, { maxTokens: 24 });
      for (let gamma = 0; gamma <= 8; gamma++) {
        const drafter = new ChainDrafter(draft.model, { gamma });
        const report = await generateAll(target.model, prompt, { maxTokens: 24, drafter });
        expect(report.tokens).toEqual(plain.tokens);
        expect(report.targetPasses).toBeLessThanOrEqual(plain.targetPasses);
      }
      // The target as its own draft: every guess is accepted.
      const drafter = new ChainDrafter(target.model, { gamma: 3 });
      const own = await generateAll(target.model, prompt, { maxTokens: 24, drafter });
      expect(own.tokens).toEqual(plain.tokens);
      expect(own.targetPasses).toBe(6);
    }
  });
});

describe("held-out prompts", () => {
  it("are three of each kind, cut from files no training run saw", () => {
    const { heldOut, others } = nodeDeclarations();
    expect(heldOut.map(({ name }) => name.replace("@types/node/", ""))).toEqual([...heldOutFiles]);
    for (const kind of ["declaration", "doc comment", "generic type"]) {
      expect(heldOutPrompts.filter((prompt) => prompt.kind === kind)).toHaveLength(3);
    }
    for (const { source, text } of [...heldOutPrompts, ...calibrationPrompts]) {
      expect(heldOut.find(({ name }) => name === `@types/node/${source}`)!.text).toContain(text);
      expect(others.every((document) => !document.text.includes(text))).toBe(true);
    }
    const shown = heldOutPrompts.map(({ text }) => text);
    expect(
      calibrationPrompts.some(({ text }) => shown.some((other) => text.includes(other) || other.includes(text))),
    ).toBe(false);
  });
});
