import { describe, expect, it } from "vitest";
import { wordLevel } from "../../src/embedded-parts/transfer-tokenizers.ts";
import { openKernels } from "../../src/kernels/kernels.ts";
import { Engine } from "../../src/model/engine.ts";
import { totalBits } from "../../src/model/evaluation.ts";
import type { Matrix, Session } from "../../src/model/language-model.ts";
import { row } from "../../src/model/language-model.ts";
import { type EmbeddingPredictor, lastPiece, meanOfPieces } from "../../src/retokenization/embedding-predictor.ts";
import {
  bitsPerByte,
  retokenized,
  type TransferTokenizer,
  targetTables,
  vocabularyForms,
} from "../../src/retokenization/tokenizer-transfer.ts";
import { generateAll } from "../../src/speculative/generate.ts";
import { headTarget } from "../../src/speculative/head-layers.ts";
import { promptLookupDrafter } from "../../src/speculative/prompt-lookup.ts";
import { Unigram } from "../../src/tokenization/unigram.ts";
import { describeSessionConformance } from "../model/session-conformance.ts";
import { endOfText, longerTokenizer, toyConfig, toyText, toyTokenizer, toyWeights } from "./toy-model.ts";

const model = await Engine.open(toyConfig, toyWeights);
const target = headTarget(toyConfig, toyWeights);
const source = { model, target, tokenizer: toyTokenizer };
const tables = targetTables(target);
const mean = meanOfPieces(tables);
const space = await openKernels();
const own = retokenized(source, toyTokenizer, mean, space);
const longer = retokenized(source, longerTokenizer, mean, space);
const text = toyText.slice(0, 150);

function greatest(a: Matrix, b: Matrix): number {
  expect([a.rows, a.columns]).toEqual([b.rows, b.columns]);
  return a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i]!)), 0);
}

describeSessionConformance("a model over another vocabulary", () => longer, { tolerance: 1e-4, runs: 25 });

describe("transferring a tokenizer", () => {
  it("to the model's own changes nothing", () => {
    const ids = toyTokenizer.encode(text);
    const [ours, theirs] = [own.openSession(), model.openSession()];
    const all = { logits: "all" } as const;
    expect(
      greatest(ours.extend(ids.slice(0, 20), all).logits, theirs.extend(ids.slice(0, 20), all).logits),
    ).toBeLessThan(1e-5);
    const tree = { tokens: [3, 4, 5, 276], parents: [-1, 0, 0, 1] };
    expect(greatest(ours.score(tree).logits, theirs.score(tree).logits)).toBeLessThan(1e-5);
    for (const session of [ours, theirs]) session.accept(3);
    expect(ours.length).toBe(23);
    expect(greatest(ours.extend([7]).logits, theirs.extend([7]).logits)).toBeLessThan(1e-5);
    for (const session of [ours, theirs]) session.close();
    const end = toyTokenizer.specialTokens.get(endOfText)!;
    const stream = [end, ...toyTokenizer.encode(text), end];
    const { bitsPerByte: bits, tokens, bytes } = bitsPerByte(own, toyTokenizer, [text], end);
    expect(bits * bytes).toBeCloseTo(totalBits(model, stream), 3);
    expect([tokens, bytes]).toEqual([stream.length - 1, 150]);
  });

  it("runs a token as its predicted embedding, and says it by its predicted output", () => {
    const id = longerTokenizer.vocabularySize - 2; // the last merge: several pieces of the model's own
    const [pieces] = vocabularyForms(longerTokenizer, toyTokenizer).slice(id, id + 1) as [number[]];
    expect(pieces.length).toBeGreaterThan(1);
    const { input, output } = mean.predict([pieces]);
    const [ours, theirs] = [longer.openSession(), model.openSession()];
    const pass = ours.extend([id], { taps: ["hidden", "keys"] });
    const { taps } = theirs.extend(input, { taps: ["hidden", "keys"] });
    expect(pass.taps).toEqual(taps);
    const state = row(taps!.hidden!.at(-1)!, 0);
    const size = Math.sqrt(state.reduce((sum, x) => sum + x * x, 0) / toyConfig.width + toyConfig.normEpsilon);
    const logit = state.reduce((sum, x, i) => sum + (x / size) * target.norm[i]! * output.data[i]!, 0);
    expect(pass.logits.data[id]).toBeCloseTo(logit, 4);
    expect(longer.openSession().extend([id]).taps).toBeUndefined();
    expect(longer.openSession().extend([id], { taps: ["keys"] }).taps).toEqual({ keys: taps!.keys });
  });

  it("keeps the rows of special tokens and single pieces bit for bit, wherever the new vocabulary has them", () => {
    const asked: ArrayLike<number>[] = [];
    const spy: EmbeddingPredictor = {
      ...mean,
      predict(pieces) {
        asked.push(...pieces);
        return mean.predict(pieces);
      },
    };
    retokenized(source, longerTokenizer, spy, space);
    const special = longerTokenizer.specialTokens.get(endOfText)!;
    expect(special).not.toBe(toyTokenizer.specialTokens.get(endOfText));
    expect(asked[special]).toEqual([toyTokenizer.specialTokens.get(endOfText)]);
    const rows = mean.predict(asked);
    expect(row(rows.input, special)).toEqual(row(tables.input, toyTokenizer.specialTokens.get(endOfText)!));
    for (let id = 0; id < 256; id++) {
      expect(row(rows.output, id)).toEqual(row(tables.output, asked[id]![0]!));
    }
  });

  it("goes to words, bytes and a Unigram as well, and back to the same text", async () => {
    const tokenizers: TransferTokenizer[] = [
      wordLevel(toyTokenizer, [toyText], 300),
      wordLevel(toyTokenizer, [], 257),
      Unigram.train([toyText], { vocabSize: 300, specialTokens: [endOfText] }),
    ];
    for (const tokenizer of tokenizers) {
      const transferred = retokenized(source, tokenizer, lastPiece(tables), space);
      expect(transferred.vocabularySize).toBe(tokenizer.vocabularySize);
      const end = tokenizer.specialTokens!.get(endOfText)!;
      const { bitsPerByte: bits, tokens, bytes } = bitsPerByte(transferred, tokenizer, [text], end);
      expect(tokens).toBe(tokenizer.encode(text).length + 1);
      expect(bytes).toBe(150);
      // An untrained model: about as many bits as its vocabulary has.
      expect(bits).toBeLessThan((2 * tokens * Math.log2(tokenizer.vocabularySize)) / bytes);
      const { tokens: generated } = await generateAll(transferred, tokenizer.encode("const low"), {
        maxTokens: 8,
        temperature: 1,
        seed: 1,
      });
      expect(tokenizer.decode(generated)).toEqual(expect.any(String));
    }
  });

  it("never says ids that cannot occur: of a byte and a piece of the same bytes only the tokenizer's choice is left", () => {
    const unigram = Unigram.train([toyText], { vocabSize: 300, specialTokens: [endOfText] });
    const forms = vocabularyForms(unigram, toyTokenizer);
    for (let id = 0; id < unigram.vocabularySize; id++) {
      const text = new TextDecoder().decode(unigram.tokenBytes(id));
      if (unigram.specialTokens.has(text) || text.includes("\ufffd")) continue;
      const [first, ...others] = unigram.encode(text, { disallowedSpecial: [] });
      if (first === id && others.length === 0) expect(forms[id], text).toBeDefined();
    }
    const [a] = unigram.encode("w");
    const twin = Array.from(forms.keys()).filter((id) => unigram.tokenBytes(id).join() === "119" && id !== a);
    expect(twin).toHaveLength(1);
    expect(forms[twin[0]!]).toBeUndefined();
    const transferred = retokenized(source, unigram, mean, space);
    const { logits } = transferred.openSession().extend([a!]);
    expect(logits.data[twin[0]!]).toBe(-1e9);
    expect(logits.data[a!]).toBeGreaterThan(-1e3);
  });

  it("drafts and verifies like any model: greedy text is the same with and without a drafter", async () => {
    const prompt = longerTokenizer.encode(text.slice(0, 60));
    const plain = await generateAll(longer, prompt, { maxTokens: 16 });
    const drafted = await generateAll(longer, prompt, { maxTokens: 16, drafter: promptLookupDrafter() });
    expect(drafted.tokens).toEqual(plain.tokens);
  });

  it("counts the model's rows and both heads", () => {
    const session = longer.openSession();
    const inner = model.openSession();
    session.extend([1, 2, 3], { logits: "none" });
    inner.extend(mean.predict([[1], [2], [3]]).input, { logits: "none" });
    expect(session.cost).toEqual(inner.cost);
    session.score({ tokens: [300], parents: [-1] });
    inner.score({ tokens: [0], parents: [-1] });
    const head = toyConfig.width * longerTokenizer.vocabularySize;
    expect(session.cost).toEqual({ ...inner.cost, multiplyAdds: inner.cost.multiplyAdds + head });
  });

  it("gives the same bits per byte for the same bits, however the text was cut: a uniform law", () => {
    // 2^8 ids of one byte each and logits of zero: 8 bits a byte, and 8 more for the end of text.
    const bytes = wordLevel(toyTokenizer, [], 257);
    const uniform = {
      vocabularySize: 257,
      contextLength: 64,
      openSession: () =>
        ({
          truncate() {},
          close() {},
          extend: (ids: number[]) => ({
            logits: { data: new Float32Array(ids.length * 257), rows: ids.length, columns: 257 },
          }),
        }) as unknown as Session,
    };
    const result = bitsPerByte(uniform, bytes, ["abcd", "efgh"], 256);
    expect(result.bitsPerByte).toBeCloseTo((Math.log2(257) * 10) / 8, 6);
    expect(result).toMatchObject({ tokens: 10, bytes: 8 });
  });

  it("refuses a predictor, a target or a tokenizer of another model", () => {
    expect(() => retokenized(source, longerTokenizer, { ...mean, width: 13 }, space)).toThrow(/predictor/);
    expect(() => retokenized(source, longerTokenizer, { ...mean, vocabularySize: 5 }, space)).toThrow(/predictor/);
    expect(() => retokenized({ ...source, tokenizer: longerTokenizer }, toyTokenizer, mean, space)).toThrow(
      /its own|own tokenizer/,
    );
    const wide = { ...target, config: { ...toyConfig, width: 16 } };
    expect(() => retokenized({ ...source, target: wide }, toyTokenizer, mean, space)).toThrow(/target/);
    const session = longer.openSession();
    expect(() => session.extend([longerTokenizer.vocabularySize])).toThrow(/input\[0\]/);
    expect(() => session.score({ tokens: [-1], parents: [-1] })).toThrow(/tree.tokens/);
  });
});
