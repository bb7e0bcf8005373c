/** A frozen decoder that reads merged tokens: the plain prefill where nothing merges, fewer rows where it does. */
import { afterAll, describe, expect, it } from "vitest";
import { ArgumentError, ContextOverflowError } from "../../src/errors.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { readCheckpoint } from "../../src/model/checkpoint.ts";
import { embeddedFolder } from "../../src/model/embedded.ts";
import { row } from "../../src/model/language-model.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import {
  continueGreedily,
  EmbeddingCache,
  embeddingTables,
  lastPiece,
  meanOfPieces,
  measureMergedPrefill,
  mergedEmbeddings,
  prefillMerged,
  randomEmbeddings,
} from "../../src/retokenization/index.ts";
import { mergeBatch } from "../../src/tokenization/index.ts";

const { model, tokenizer } = await loadEmbedded("target");
const { config, tensors } = await readCheckpoint(embeddedFolder("target"));
const tables = embeddingTables(config, tensors);
const prompts = heldOutPrompts.slice(0, 6).map(({ text }) => tokenizer.encode(text).slice(0, 100));
afterAll(() => model.close());

/** The plain prefill and what is written after it. */
function plainly(ids: Uint32Array): { logits: Float32Array; text: Uint32Array } {
  const session = model.openSession();
  const logits = row(session.extend(ids).logits, 0).slice();
  const text = continueGreedily({ session, logits }, 12);
  session.close();
  return { logits, text };
}

describe("without merges", () => {
  it("is the plain prefill bit for bit, and so is what is written after it", () => {
    const batch = mergeBatch(prompts, { tokenizer, merges: 0 });
    const prefixes = prefillMerged(model, batch, randomEmbeddings(tables));
    prefixes.forEach((prefix, r) => {
      const plain = plainly(prompts[r]!);
      expect(prefix.logits).toEqual(plain.logits);
      expect(prefix.session.length).toBe(prompts[r]!.length);
      expect(continueGreedily(prefix, 12)).toEqual(plain.text);
      prefix.session.close();
    });
  });
});

describe("with merges", () => {
  const batch = mergeBatch(prompts, { tokenizer });

  it("takes one row per merged token, and each row is its pieces' prediction", () => {
    const matrices = mergedEmbeddings(batch, meanOfPieces(tables));
    matrices.forEach((matrix, r) => {
      const { tokens, starts } = batch.rows[r]!;
      expect(matrix.rows).toBe(tokens.length);
      expect(matrix.rows).toBeLessThan(prompts[r]!.length);
      starts.forEach((start, i) => {
        const pieces = prompts[r]!.slice(start, starts[i + 1]);
        if (pieces.length > 1) return;
        expect(row(matrix, i)).toEqual(row(tables.input, pieces[0]!));
      });
    });
    const wide = batch.rows[0]!.tokens.findIndex((token) => batch.pieces(token).length > 1);
    const pieces = batch.pieces(batch.rows[0]!.tokens[wide]!);
    const mean = Array.from({ length: config.width }, (_, i) =>
      pieces.reduce((sum, id) => sum + row(tables.input, id)[i]! / pieces.length, 0),
    );
    row(matrices[0]!, wide).forEach((value, i) => {
      expect(value).toBeCloseTo(mean[i]!, 5);
    });
  });

  it("costs the rows it has, and goes on in the model's own tokens", () => {
    for (const { session, logits } of prefillMerged(model, batch, lastPiece(tables))) {
      expect(session.cost.tokens).toBe(session.length);
      const before = session.length;
      const text = continueGreedily({ session, logits }, 5);
      expect(session.length).toBe(before + 4);
      for (const id of text) expect(id).toBeLessThan(tokenizer.vocabularySize);
      session.close();
    }
  });

  it("is the same through a cache, batch after batch", () => {
    const cache = new EmbeddingCache(meanOfPieces(tables), 20);
    for (let pass = 0; pass < 2; pass++) {
      expect(mergedEmbeddings(batch, cache)).toEqual(mergedEmbeddings(batch, meanOfPieces(tables)));
    }
    expect(cache.statistics.size).toBe(20);
  });
});

it("measures rows saved and bits lost: nothing without merges, and random embeddings lose most", () => {
  const stream = heldOutPrompts.flatMap(({ text }) => [...tokenizer.encode(text)]);
  const sizes = { batchSize: 8, prefixTokens: 64, continuationTokens: 16 };
  const ids = Array.from({ length: 8 * 80 }, (_, i) => stream[i % stream.length]!);
  const [mean, random] = [meanOfPieces(tables), randomEmbeddings(tables)].map((predictor) =>
    measureMergedPrefill(model, ids, predictor, { tokenizer, reductions: [0, 50, 100], ...sizes }),
  );
  expect(mean![0]).toMatchObject({ merges: 0, rows: 1, loss: 0, reached: 0 });
  expect(mean!.map(({ rows }) => rows)).toEqual(random!.map(({ rows }) => rows));
  expect(mean![1]!.rows).toBeLessThan(1);
  expect(mean![2]!.rows).toBeLessThan(mean![1]!.rows);
  expect(mean![1]!.reached).toBeGreaterThanOrEqual(50);
  expect(mean![2]!.reached).toBe(100);
  expect(random![2]!.bitsPerByte).toBeGreaterThan(mean![2]!.bitsPerByte);
});

describe("refuses", () => {
  const batch = mergeBatch([prompts[0]!], { tokenizer });
  const alien = { data: new Float32Array(10 * 128), rows: 10, columns: 128 };
  const narrow = { data: new Float32Array(1024 * 64), rows: 1024, columns: 64 };

  it("a predictor of another vocabulary or width", () => {
    const other = meanOfPieces({ input: alien, output: alien });
    expect(() => prefillMerged(model, batch, other)).toThrow(
      /^predictor: expected one for the model's vocabulary of 1024 tokens, got 10/,
    );
    const thin = meanOfPieces({ input: narrow, output: narrow });
    expect(() => prefillMerged(model, batch, thin)).toThrow(
      /^predictor: expected embeddings of the model's width, 128/,
    );
    const stream = new Uint32Array(640);
    const sizes = { batchSize: 8, prefixTokens: 64, continuationTokens: 16 };
    expect(() => measureMergedPrefill(model, stream, other, { tokenizer, ...sizes })).toThrow(ArgumentError);
  });

  it("an empty row, and one longer than the context", () => {
    const rows = mergeBatch([prompts[0]!, []], { tokenizer });
    expect(() => prefillMerged(model, rows, meanOfPieces(tables))).toThrow(
      /^batch\.rows\[1\]: expected at least one token/,
    );
    const long = mergeBatch([prompts[0]!, new Uint32Array(300).fill(5)], { tokenizer, merges: 0 });
    expect(() => prefillMerged(model, long, meanOfPieces(tables))).toThrow(ContextOverflowError);
  });

  it("a stream that fills no batch, and sizes that are none", () => {
    const predictor = meanOfPieces(tables);
    expect(() => measureMergedPrefill(model, [1, 2, 3], predictor, { tokenizer })).toThrow(
      /^stream: expected at least/,
    );
    expect(() => measureMergedPrefill(model, [1], predictor, { tokenizer, batchSize: 0 })).toThrow(
      /^options\.batchSize/,
    );
  });
});
