/**
 * tokenizer.json of WordPiece, Unigram and BPE-dropout: ids and decoding against Python's tokenizers (fixtures/tokenizers)
 * and npm @huggingface/tokenizers on the messages in 14 languages, round trips of files, and what is refused.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../src/errors.ts";
import {
  BERT_UNCASED,
  Bpe,
  BpeDropout,
  readHuggingFaceTokenizer,
  Unigram,
  WordPiece,
} from "../../src/tokenization/index.ts";
import { adversarialStrings, declarations, FULL, messages } from "./texts.ts";

type Digest = readonly [count: number, sha256: string];
interface Encodings {
  readonly messages: Readonly<Record<string, readonly [Digest, Digest]>>;
  readonly texts: readonly [text: string, ids: number[], decoded: string][];
}
const NAMES = ["word-piece", "word-piece-cased", "unigram", "unigram-bytes"] as const;
const read = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../fixtures/tokenizers/${name}.json`, import.meta.url), "utf8"));
const encodings = read("encodings") as Record<(typeof NAMES)[number], Encodings>;
const asIds = { allowedSpecial: "all" } as const;

function languages(): Map<string, string> {
  const es5 = declarations().find((text) => text.includes("interface PropertyDescriptor {"))!;
  return new Map([["en", es5], ...messages()]);
}

function digest(ids: Uint32Array): Digest {
  const bytes = Buffer.alloc(4 * ids.length);
  ids.forEach((id, i) => {
    bytes.writeUInt32LE(id, 4 * i);
  });
  return [ids.length, createHash("sha256").update(bytes).digest("hex")];
}

describe.each(NAMES)("%s of Python's tokenizers", (name) => {
  const file = read(`${name}.tokenizer`) as Record<string, unknown>;
  const tokenizer = readHuggingFaceTokenizer(file) as WordPiece | Unigram;

  test("the messages in 14 languages: the same ids", () => {
    const texts = languages();
    expect(Object.keys(encodings[name].messages)).toEqual([...texts.keys()]);
    for (const [language, [first, all]] of Object.entries(encodings[name].messages)) {
      expect(digest(tokenizer.encode(texts.get(language)!.slice(0, 30_000))), language).toEqual(first);
      if (FULL) expect(digest(tokenizer.encode(texts.get(language)!)), language).toEqual(all);
    }
  });

  test("random texts: the same ids, decoded to the same text; offsets ascend", () => {
    for (const [text, ids, decoded] of encodings[name].texts) {
      const { ids: own, starts, ends } = tokenizer.encodeWithOffsets(text, asIds);
      expect([...tokenizer.encode(text, asIds)], JSON.stringify(text)).toEqual(ids);
      expect([...own]).toEqual(ids);
      expect(tokenizer.decode(ids), JSON.stringify(text)).toBe(decoded);
      for (let i = 0; i < ids.length; i++) {
        expect(starts[i]!).toBeLessThanOrEqual(ends[i]!);
        expect(ends[i]!).toBeLessThanOrEqual(text.length);
        if (i > 0) expect(starts[i]!).toBeGreaterThanOrEqual(starts[i - 1]!);
      }
    }
  });

  test("written again, it is the same file where it says something", () => {
    const written = tokenizer.toHuggingFace();
    const { vocab, ...model } = written.model;
    expect(vocab).toEqual((file["model"] as { vocab: unknown }).vocab);
    expect(file["model"]).toMatchObject(model);
    for (const part of ["pre_tokenizer", "decoder", "added_tokens"] as const) {
      expect(written[part], part).toEqual(file[part]);
    }
    expect(JSON.parse(JSON.stringify(readHuggingFaceTokenizer(written)))).toEqual(
      JSON.parse(JSON.stringify(tokenizer)),
    );
    const again = readHuggingFaceTokenizer(JSON.stringify(written));
    for (const [text, ids] of encodings[name].texts) expect([...again.encode(text, asIds)]).toEqual(ids);
  });
});

describe("trained here, opened by npm @huggingface/tokenizers", () => {
  const training = [...languages().values()].map((text) => text.slice(0, 20_000));
  const options = { vocabSize: 2500, specialTokens: ["<s>"] };
  const cases: [string, WordPiece | Unigram][] = [
    ["WordPiece", WordPiece.train(training, { ...options, normalizer: BERT_UNCASED, score: "frequency" })],
    // Not by words: the peer's Whitespace has the \w of ASCII (Python's is in the fixtures).
    ["WordPiece, likelihood, by white space", WordPiece.train(training, { ...options, split: "white-space" })],
    ["Unigram", Unigram.train(training, { ...options, byteFallback: false, prefixSpace: true, characterCoverage: 1 })],
    ["Unigram, NFC", Unigram.train(training, { ...options, byteFallback: false, normalizer: "NFC" })],
  ];
  test.each(cases)("%s: the same ids", (name, tokenizer) => {
    const json = JSON.stringify(tokenizer.toHuggingFace());
    const oracle = new HuggingFace(JSON.parse(json), {});
    const again = readHuggingFaceTokenizer(json);
    let unknown = 0;
    let tokens = 0;
    for (const [language, text] of languages()) {
      const part = `${text.slice(30_000, FULL ? 300_000 : 36_000)}<s> end`;
      const ids = [...tokenizer.encode(part, asIds)];
      expect(ids, `${name}, ${language}`).toEqual(oracle.encode(part, { add_special_tokens: false }).ids);
      expect([...again.encode(part, asIds)]).toEqual(ids);
      unknown += ids.filter((id) => id === 0).length;
      tokens += ids.length;
    }
    expect(unknown).toBeLessThan(0.2 * tokens);
    expect(JSON.stringify((again as WordPiece | Unigram).toHuggingFace())).toBe(json);
  });
});

test("BPE with dropout: read, written, and opened by others", () => {
  const bpe = Bpe.train(["ab ab ab abc"], { vocabSize: 258 });
  const dropping = new BpeDropout(bpe, { dropout: 0.25 });
  const json = JSON.stringify(dropping.toHuggingFace());
  const again = readHuggingFaceTokenizer(json);
  expect(again).toBeInstanceOf(BpeDropout);
  expect((again as BpeDropout).dropout).toBe(0.25);
  expect(again.encode("abc ab ab ab")).toEqual(dropping.encode("abc ab ab ab"));
  expect(JSON.stringify((again as BpeDropout).toHuggingFace())).toBe(json);
  expect(readHuggingFaceTokenizer(bpe.toHuggingFace())).toBeInstanceOf(Bpe);
  for (const dropout of [-0.1, 1.1, "0.1", {}]) {
    const file = { ...bpe.toHuggingFace(), model: { ...bpe.toHuggingFace().model, dropout } };
    expect(() => BpeDropout.fromHuggingFace(file)).toThrow(/model.dropout is not a number from 0 to 1/);
    expect(() => readHuggingFaceTokenizer(file)).toThrow(FormatError);
  }
  expect(() => BpeDropout.fromHuggingFace(read("unigram.tokenizer") as object)).toThrow(/model type Unigram/);
});

describe("a file is refused, by the part that is not supported", () => {
  type Loose = Record<string, unknown>;
  const wordPiece = WordPiece.train(["ab ab"], { vocabSize: 3, specialTokens: [], leastCount: 9 }).toHuggingFace();
  const unigram = Unigram.train(["ab ab"], { vocabSize: 260, characterCoverage: 1 }).toHuggingFace();
  const ofWordPiece = (change: Loose, model: Loose = {}): object => ({
    ...wordPiece,
    ...change,
    model: { ...wordPiece.model, ...model },
  });
  const ofUnigram = (change: Loose, model: Loose = {}): object => ({
    ...unigram,
    ...change,
    model: { ...unigram.model, ...model },
  });
  const metaspace = { type: "Metaspace", replacement: "\u2581", prepend_scheme: "never" };

  test.each<[string, object, RegExp]>([
    ["WordLevel", ofWordPiece({}, { type: "WordLevel" }), /model type WordLevel is not supported, only BPE, WordPiece/],
    ["a type from Object", ofWordPiece({}, { type: "toString" }), /model type toString is not supported/],
    ["truncation", ofWordPiece({ truncation: {} }), /"truncation" is set/],
    ["Lowercase", ofWordPiece({ normalizer: { type: "Lowercase" } }), /normalizer Lowercase is not supported/],
    ["Precompiled", ofUnigram({ normalizer: { type: "Precompiled" } }), /normalizer Precompiled is not supported/],
    ["BERT's for Unigram", ofUnigram({ normalizer: { type: "BertNormalizer" } }), /normalizer BertNormalizer/],
    [
      "two normalizers",
      ofUnigram({ normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "NFKC" }] } }),
      /a sequence of different normalizers/,
    ],
    ["Digits", ofWordPiece({ pre_tokenizer: { type: "Digits" } }), /pre-tokenizer Digits is not supported/],
    ["no pre-tokenizer", ofWordPiece({ pre_tokenizer: null }), /pre-tokenizer null is not supported/],
    ["ByteLevel Unigram", ofUnigram({ pre_tokenizer: { type: "ByteLevel" } }), /pre-tokenizer ByteLevel .* Metaspace/],
    ["another replacement", ofUnigram({ pre_tokenizer: { ...metaspace, replacement: "_" } }), /a replacement other/],
    ["another scheme", ofUnigram({ pre_tokenizer: { ...metaspace, prepend_scheme: "x" } }), /a prepend_scheme other/],
    [
      "a decoder that strips",
      ofUnigram({ decoder: { ...metaspace, prepend_scheme: "first" } }),
      /decoder Metaspace is/,
    ],
    ["no decoder", ofUnigram({ decoder: null }), /decoder null is not supported/],
    ["Fuse", ofWordPiece({ decoder: { type: "Fuse" } }), /decoder Fuse is not supported/],
    ["another prefix", ofWordPiece({}, { continuing_subword_prefix: "@@" }), /another prefix than the model/],
    ["an empty prefix", ofWordPiece({}, { continuing_subword_prefix: "" }), /continuing_subword_prefix is not a text/],
    ["no unknown token", ofWordPiece({}, { unk_token: "?" }), /model.unk_token is not in the vocabulary/],
    ["no longest word", ofWordPiece({}, { max_input_chars_per_word: 0 }), /max_input_chars_per_word/],
    ["a gap", ofWordPiece({}, { vocab: { ...wordPiece.model.vocab, z: 9 } }), /no token has the id 3/],
    ["pieces as an object", ofUnigram({}, { vocab: {} }), /"model.vocab" is not an array/],
    ["a piece without a score", ofUnigram({}, { vocab: [...unigram.model.vocab, ["z"]] }), /piece 260 has no score/],
    ["a piece without text", ofUnigram({}, { vocab: [...unigram.model.vocab, ["", 0]] }), /piece 260 has no text/],
    ["a piece twice", ofUnigram({}, { vocab: [...unigram.model.vocab, ["a", -1]] }), /piece 260 repeats another/],
    ["a piece with a space", ofUnigram({}, { vocab: [...unigram.model.vocab, [" z", 0]] }), /piece 260 holds a space/],
    [
      "a missing byte",
      ofUnigram({}, { vocab: unigram.model.vocab.filter(([p]) => p !== "<0x41>") }),
      /no piece <0x41>/,
    ],
    ["an unknown id beyond", ofUnigram({}, { unk_id: 999 }), /model.unk_id is not the id of a piece/],
    [
      "neither unknown nor bytes",
      ofUnigram({ decoder: metaspace }, { unk_id: null, byte_fallback: false }),
      /model.unk_id is missing/,
    ],
    [
      "an added token on a taken id",
      ofUnigram({ added_tokens: [{ id: 258, content: "<x>", special: true }] }),
      /has the id 258 of/,
    ],
  ])("%s", (_, json, message) => {
    expect(() => readHuggingFaceTokenizer(json)).toThrow(FormatError);
    expect(() => readHuggingFaceTokenizer(json)).toThrow(message);
  });

  test.each([
    ["WordPiece", JSON.stringify(wordPiece)],
    ["Unigram", JSON.stringify(unigram)],
  ])("%s damaged anywhere: a FormatError or a tokenizer that works", (_, text) => {
    const put = fc.constantFrom("", "0", "9", '"', "}", "a", "-", "null", "\u2581");
    fc.assert(
      fc.property(fc.nat(text.length - 1), put, fc.nat(3), (at, inserted, cut) => {
        let tokenizer: ReturnType<typeof readHuggingFaceTokenizer>;
        try {
          tokenizer = readHuggingFaceTokenizer(text.slice(0, at) + inserted + text.slice(at + cut));
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
          return;
        }
        const ids = tokenizer.encode("ab é ab", { disallowedSpecial: [] });
        expect(ids.every((id) => id < tokenizer.vocabularySize)).toBe(true);
        tokenizer.decode(ids);
      }),
      { numRuns: FULL ? 20_000 : 400 },
    );
  });
});

test("adversarial texts do not disturb a tokenizer read from a file", () => {
  const lossless = readHuggingFaceTokenizer({
    ...(read("unigram-bytes.tokenizer") as object),
    normalizer: null,
  });
  for (const text of adversarialStrings(FULL ? 20_000 : 500, 4)) {
    expect(lossless.decode(lossless.encode(text))).toBe(text.replace(/\p{Surrogate}/gu, "\ufffd"));
  }
});
