import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { measureLargeVocabulary } from "../../src/comparison/large-vocabulary.ts";
import { embeddedCorpus } from "../../src/embedded-pair.ts";
import { ArgumentError } from "../../src/errors.ts";
import { openKernels } from "../../src/kernels/kernels.ts";
import { embeddedFolder } from "../../src/model/embedded.ts";
import { type LoadedModel, loadEmbedded } from "../../src/model/load.ts";
import { promptSets } from "../../src/prompt-sets.ts";
import { meanOfPieces } from "../../src/retokenization/embedding-predictor.ts";
import { HnswIndex } from "../../src/retokenization/hnsw.ts";
import { largeVocabulary } from "../../src/retokenization/large-vocabulary.ts";
import { retokenized, type TransferModel, targetTables } from "../../src/retokenization/tokenizer-transfer.ts";
import { generateAll } from "../../src/speculative/index.ts";
import { readHeadTarget } from "../../src/speculative/trained-parts.ts";
import { Bpe } from "../../src/tokenization/bpe.ts";

let loaded: LoadedModel;
let source: TransferModel;
let large: Bpe;
const texts = promptSets.edits.slice(0, 3);

beforeAll(async () => {
  loaded = await loadEmbedded("target");
  const { model, tokenizer } = loaded;
  source = { model, tokenizer, target: await readHeadTarget(embeddedFolder("target")) };
  const specialTokens = ["<|endoftext|>"];
  large = Bpe.train(embeddedCorpus().heldOut, { vocabSize: 2000, pattern: "cl100k", specialTokens });
});
afterAll(() => loaded.model.close());

const predictor = () => meanOfPieces(targetTables(source.target));

describe("a model over a large vocabulary", () => {
  it("scores what the whole head scores where it looks, and nothing elsewhere", async () => {
    const whole = retokenized(source, large, predictor(), await openKernels());
    const few = await largeVocabulary(source, large, predictor(), { neighbours: 20 });
    expect(few.vocabularySize).toBe(2000);
    const ids = Array.from(large.encode(texts[0]!));
    const [all, some] = [whole, few].map((model) => model.openSession().extend(ids, { logits: "all" }).logits);
    for (let r = 0; r < all!.rows; r++) {
      const [full, cut] = [all!, some!].map(({ data }) => Array.from(data.subarray(r * 2000, (r + 1) * 2000)));
      const kept = cut!.flatMap((logit, id) => (logit > -1e8 ? [id] : []));
      expect(kept).toHaveLength(20);
      for (const id of kept) expect(cut![id]!).toBeCloseTo(full![id]!, 3);
      const least = Math.min(...kept.map((id) => full![id]!));
      expect(full!.filter((logit) => logit > least + 1e-3).length).toBeLessThan(20);
    }
  });

  it("writes the whole head's text at temperature 0, however few it chooses among, at less cost", async () => {
    const whole = retokenized(source, large, predictor(), await openKernels());
    const ids = large.encode(texts[1]!);
    const plain = await generateAll(whole, ids, { maxTokens: 24 });
    for (const neighbours of [1, 7, 1000]) {
      const few = await largeVocabulary(source, large, predictor(), { neighbours });
      expect((await generateAll(few, ids, { maxTokens: 24 })).tokens).toEqual(plain.tokens);
    }
    const index = (table: ConstructorParameters<typeof HnswIndex>[0]) => new HnswIndex(table, { constructionBeam: 30 });
    const approximate = await generateAll(await largeVocabulary(source, large, predictor(), { index }), ids, {
      maxTokens: 24,
    });
    expect(approximate.cost.target.multiplyAdds).toBeLessThan(plain.cost.target.multiplyAdds);
  });

  it("over the model's own tokens is the model, at temperature 0", async () => {
    const own = await largeVocabulary(source, source.tokenizer, predictor(), { neighbours: 3 });
    const ids = source.tokenizer.encode(texts[2]!);
    const plain = await generateAll(source.model, ids, { maxTokens: 24 });
    expect((await generateAll(own, ids, { maxTokens: 24 })).tokens).toEqual(plain.tokens);
  });

  it("refuses a number of neighbours that means nothing", async () => {
    for (const neighbours of [0, 2.5]) {
      await expect(largeVocabulary(source, large, predictor(), { neighbours })).rejects.toThrow(ArgumentError);
    }
  });

  it("is measured against the whole head: recall, bits, bytes", async () => {
    const figures = await measureLargeVocabulary(source, large, predictor(), texts, {
      neighbours: [1, 20],
      maxTokens: 12,
    });
    expect(figures.vocabularySize).toBe(2000);
    expect(figures.bytesPerToken.large).toBeGreaterThan(1.05 * figures.bytesPerToken.own);
    expect(figures.rows.map(({ index, neighbours }) => `${index} ${neighbours}`)).toEqual([
      "all 2000",
      "exact 1",
      "exact 20",
      "hnsw 1",
      "hnsw 20",
    ]);
    const [all, one] = figures.rows;
    // The most probable tokens alone make likelier text than draws from the whole law.
    expect(one!.bitsPerByte).toBeLessThan(all!.bitsPerByte);
    for (const row of figures.rows) {
      expect(row.speedup).toBeGreaterThan(0);
      if (row.index !== "hnsw") expect([row.argMax, row.recall, row.compared]).toEqual([1, 1, 1]);
      else {
        expect(row.argMax).toBeGreaterThan(0.9);
        expect(row.compared).toBeLessThan(0.8);
      }
    }
  });
});
