/** Reading and writing tiktoken and Hugging Face files, against npm @huggingface/tokenizers, and refusing bad ones. */

import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import { alphabetToBytes, BYTE_TO_CHARACTER, bytesToAlphabet } from "../../src/tokenization/byte-alphabet.ts";
import { Bpe, type HuggingFaceTokenizer, type SplitPattern } from "../../src/tokenization/index.ts";
import {
  adversarialStrings,
  declarations,
  ENCODINGS,
  type EncodingName,
  FULL,
  loadEncoding,
  messages,
  shippedRanks,
} from "./texts.ts";

test("the byte alphabet is a bijection, with the known letters", () => {
  expect(new Set(BYTE_TO_CHARACTER).size).toBe(256);
  expect(bytesToAlphabet(Uint8Array.of(0x20, 0x61, 0x0a, 0, 0x7f, 0xad, 0xff))).toBe("ĠaĊĀġŃÿ");
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      expect(alphabetToBytes(bytesToAlphabet(bytes))).toEqual(bytes);
    }),
  );
  expect(alphabetToBytes(" a")).toBeUndefined();
  expect(alphabetToBytes("漢")).toBeUndefined();
});

/** Every text that both sides are asked for; no lone surrogates, on which the oracle's regular expressions differ. */
function sampleTexts(): string[] {
  return [
    ...declarations()
      .slice(0, FULL ? 40 : 6)
      .map((text) => text.slice(0, 20_000)),
    ...[...messages().values()].map((text) => text.slice(0, FULL ? 50_000 : 5_000)),
    ...adversarialStrings(FULL ? 5_000 : 500, 8).map((text) => text.replace(/\p{Surrogate}/gu, "")),
  ];
}

/** Texts on which the oracle's reading of `\s` and `(?i:'s)` agrees with the reference's. */
function onCommonGround(text: string): boolean {
  return text !== "" && !/[\u0085\ufeff\u017f]/.test(text);
}

describe("tokenizer.json, opened by @huggingface/tokenizers", () => {
  test.each<[SplitPattern, "first-seen" | "lowest-ids"]>([
    ["gpt2", "first-seen"],
    ["cl100k", "lowest-ids"],
    ["o200k", "first-seen"],
    ["none", "first-seen"],
    [/\p{L}+|\p{N}| ?[^ ]/u, "first-seen"],
  ])("trained with %s: the same ids", (pattern, tieRule) => {
    const sample = declarations()
      .slice(0, 6)
      .map((text) => text.slice(0, 20_000));
    const bpe = Bpe.train(sample, { vocabSize: 500, pattern, tieRule, specialTokens: ["<|end|>"] });
    const json = JSON.stringify(bpe.toHuggingFace());
    const oracle = new HuggingFace(JSON.parse(json), {});
    const again = Bpe.fromHuggingFace(json);
    expect(again.vocabularySize).toBe(500);
    expect(again.toHuggingFace()).toEqual(bpe.toHuggingFace());
    for (const text of [...sampleTexts().filter(onCommonGround), "a<|end|> b<|end|>"]) {
      const ids = [...bpe.encode(text, { allowedSpecial: "all" })];
      expect(ids).toEqual(oracle.encode(text, { add_special_tokens: false }).ids);
      expect([...again.encode(text, { allowedSpecial: "all" })]).toEqual(ids);
      if (pattern !== "none") expect(oracle.decode(ids, { clean_up_tokenization_spaces: false })).toBe(text);
    }
  });

  test.each(Object.keys(ENCODINGS) as EncodingName[])("%s from ranks, merges recovered: the same ids", (name) => {
    const bpe = loadEncoding(name);
    const json = bpe.toHuggingFace();
    const again = Bpe.fromHuggingFace(json);
    for (const text of sampleTexts()) {
      expect(again.encode(text, { disallowedSpecial: [] })).toEqual(bpe.encode(text, { disallowedSpecial: [] }));
    }
    if (name !== "r50k_base" && !FULL) return;
    const oracle = new HuggingFace(json, {});
    for (const text of sampleTexts().filter(onCommonGround)) {
      expect([...bpe.encode(text, { allowedSpecial: "all" })]).toEqual(
        oracle.encode(text, { add_special_tokens: false }).ids,
      );
    }
  });
});

describe("split patterns of other files", () => {
  const base = Bpe.train(["x"], { vocabSize: 256 }).toHuggingFace();
  const reading = (regex: string): Bpe =>
    Bpe.fromHuggingFace({
      ...base,
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [
          { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false },
          { type: "ByteLevel", add_prefix_space: false, trim_offsets: false, use_regex: false },
        ],
      },
    });

  test("the named ones are known by their reference spelling, whitespace is White_Space in the others", () => {
    expect(reading(REFERENCE_CL100K).pattern).toBe("cl100k");
    // Qwen's: one number at a time.
    const qwen = reading(REFERENCE_CL100K.replace("{1,3}", "")).pattern as RegExp;
    expect("a\u0085b\ufeff!'ſ12".match(qwen)).toEqual(["a", "\u0085b", "\ufeff!'", "ſ", "1", "2"]);
    expect("a'ſ'S".match(qwen)).toEqual(["a", "'ſ", "'S"]);
    expect("a\u0085\ufeff".match(reading("[\\s]").pattern as RegExp)).toEqual(["\u0085"]);
    expect("a\u0085\ufeff".match(reading("\\S").pattern as RegExp)).toEqual(["a", "\ufeff"]);
  });

  test.each([
    "a++",
    "a*?",
    "(?<=a)b",
    "(?i)a",
    "(?>a)",
    "[a&&b]",
    "[[a]b]",
    "\\w+",
    "\\d",
    "[\\S]",
    "a.c",
    "(",
    "\\h",
    "^a",
    "a$",
  ])("refuses %s rather than read it differently", (regex) => {
    expect(() => reading(regex)).toThrow(FormatError);
    expect(() => reading(regex)).toThrow(/split pattern .* cannot be read exactly/);
  });
});

const REFERENCE_CL100K =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

test("an expression is written only where both sides read it alike, and comes back as it went", () => {
  const written = (pattern: RegExp): string =>
    JSON.stringify(Bpe.train(["ab"], { vocabSize: 257, pattern }).toHuggingFace());
  for (const pattern of [/[a-z]+| ?\p{N}{1,2}/u, /[\t-\r \u0085]+(?![^ ])|'(?:s|t)/g]) {
    expect((Bpe.fromHuggingFace(written(pattern)).pattern as RegExp).source).toBe(pattern.source);
  }
  const nested = "[[a]b]";
  for (const pattern of [/\s+/, /\w+/, /a/i, /a.b/, /a+?/, /^a/, /(?<=a)b/, new RegExp(nested, "v")]) {
    expect(() => written(pattern), String(pattern)).toThrow(ArgumentError);
  }
});

test("legacy merges are split on the ASCII space; added tokens that are not special are always cut out", () => {
  const file = small();
  const bpe = Bpe.fromHuggingFace({
    ...file,
    added_tokens: [
      { id: 258, content: "<x>", special: false },
      {
        id: 260,
        content: "<|end|>",
        special: true,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: true,
      },
    ],
    model: { ...file.model, merges: ["a b", "Ġ ab"] },
  });
  expect(bpe.vocabularySize).toBe(261);
  expect([...bpe.encode("ab ab<x>ab")]).toEqual([256, 257, 258, 256]);
  expect([...bpe.encode("<|end|>", { allowedSpecial: "all" })]).toEqual([260]);
  expect(() => bpe.decode([259])).toThrow(ArgumentError);
});

test("special tokens may also stand in the vocabulary, first as Hugging Face's trainer puts them", () => {
  const { model } = small();
  const vocab = {
    "<|end|>": 0,
    ...Object.fromEntries(Object.entries(model.vocab).map(([token, id]) => [token, id + 1])),
  };
  const bpe = Bpe.fromHuggingFace({
    ...small(),
    added_tokens: [{ id: 0, content: "<|end|>", special: true }],
    model: { ...model, vocab },
  });
  expect([...bpe.encode("ab<|end|>", { allowedSpecial: "all" })]).toEqual([257, 0]);
});

/** 256 bytes, "ab" = 256, " ab" = 257. */
function small(): HuggingFaceTokenizer {
  return Bpe.train(["ab ab ab"], { vocabSize: 258 }).toHuggingFace();
}

describe("a tokenizer.json is refused, by what is wrong with it", () => {
  type Loose = Record<string, unknown>;
  const file = (change: Loose): object => ({ ...small(), ...change });
  const model = (change: Loose): object => file({ model: { ...small().model, ...change } });
  const vocab = (change: Record<string, unknown>): object => model({ vocab: { ...small().model.vocab, ...change } });
  const without = (symbol: string): object =>
    model({ vocab: Object.fromEntries(Object.entries(small().model.vocab).filter(([key]) => key !== symbol)) });

  test.each<[string, string | object, RegExp]>([
    ["not JSON", "{", /not JSON/],
    ["an array", "[]", /the file is not an object/],
    ["nothing", "null", /the file is not an object/],
    ["no model", file({ model: undefined }), /"model" is not an object/],
    ["WordPiece", model({ type: "WordPiece" }), /model type WordPiece is not supported, only BPE/],
    ["Unigram", model({ type: "Unigram" }), /Unigram/],
    [
      "another normalizer",
      file({ normalizer: { type: "NFKC" } }),
      /normalizer NFKC is not supported.*Only NFC is read/,
    ],
    ["a normalizer without a type", file({ normalizer: {} }), /normalizer null is not supported/],
    ["a normalizer by name", file({ normalizer: "NFC" }), /"normalizer" is not an object/],
    [
      "NFC and another normalizer",
      file({ normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }, { type: "Lowercase" }] } }),
      /normalizer Lowercase is not supported/,
    ],
    [
      "a sequence in a sequence of normalizers",
      file({ normalizer: { type: "Sequence", normalizers: [{ type: "Sequence", normalizers: [] }] } }),
      /normalizer Sequence is not supported/,
    ],
    [
      "a sequence of no normalizers",
      file({ normalizer: { type: "Sequence" } }),
      /"normalizer.normalizers" is not an array/,
    ],
    [
      "a sequence of names",
      file({ normalizer: { type: "Sequence", normalizers: ["NFC"] } }),
      /an entry of "normalizer.normalizers" is not an object/,
    ],
    [
      "an added token that normalization changes",
      file({ normalizer: { type: "NFC" }, added_tokens: [{ id: 258, content: "e\u0301", normalized: true }] }),
      /added token .* is to be normalized, but its content is not/,
    ],
    ["no pre-tokenizer", file({ pre_tokenizer: null }), /not byte-level/],
    ["Whitespace", file({ pre_tokenizer: { type: "Whitespace" } }), /pre-tokenizer Whitespace is not byte-level/],
    ["Metaspace", file({ pre_tokenizer: { type: "Metaspace" } }), /Metaspace is not byte-level/],
    ["a prefix space", file({ pre_tokenizer: { type: "ByteLevel", add_prefix_space: true } }), /add_prefix_space/],
    ["a prefix space by default", file({ pre_tokenizer: { type: "ByteLevel" } }), /add_prefix_space/],
    [
      "an empty sequence",
      file({ pre_tokenizer: { type: "Sequence", pretokenizers: [] } }),
      /"pre_tokenizer" is not an object/,
    ],
    [
      "digits before byte level",
      file({
        pre_tokenizer: {
          type: "Sequence",
          pretokenizers: [{ type: "Digits" }, { type: "ByteLevel", add_prefix_space: false }],
        },
      }),
      /pre-tokenizer sequence Digits, ByteLevel is not supported/,
    ],
    ["another decoder", file({ decoder: { type: "WordPiece" } }), /decoder WordPiece is not supported/],
    ["no decoder", file({ decoder: null }), /decoder null is not supported/],
    ["another post-processor", file({ post_processor: { type: "Magic" } }), /post-processor Magic is not supported/],
    ["truncation", file({ truncation: { max_length: 5 } }), /"truncation" is set/],
    ["padding", file({ padding: {} }), /"padding" is set/],
    ["dropout", model({ dropout: 0.1 }), /dropout/],
    ["byte fallback", model({ byte_fallback: true }), /byte_fallback/],
    ["a word-part prefix", model({ continuing_subword_prefix: "##" }), /continuing_subword_prefix/],
    ["a word-end suffix", model({ end_of_word_suffix: "</w>" }), /end_of_word_suffix/],
    ["no vocabulary", model({ vocab: undefined }), /"model.vocab" is not an object/],
    ["an id twice", vocab({ ab: 97 }), /has the id 97 of/],
    ["an id in the clouds", vocab({ abab: 2 ** 22 }), /expected an integer from 0 to 4194303/],
    ["a negative id", vocab({ abab: -1 }), /has the id -1/],
    ["a fractional id", vocab({ abab: 1.5 }), /has the id 1\.5/],
    ["an id that is no number", vocab({ abab: "258" }), /has the id 258, expected an integer/],
    ["a gap", vocab({ abab: 300 }), /no token has the id 258.*no gaps/],
    ["a missing byte", without("!"), /no token has the id 33/],
    [
      "a byte for another",
      model({ vocab: { ...small().model.vocab, ["!"]: undefined } }),
      /token "!" has the id undefined/,
    ],
    ["letters outside the alphabet", vocab({ "a b": 258 }), /token "a b" is not written in the byte alphabet/],
    ["an empty token", vocab({ "": 258 }), /token "" is not written in the byte alphabet/],
    ["no merges", model({ merges: undefined }), /"model.merges" is not an array/],
    ["a merge of three", model({ merges: ["a b c"] }), /merge 0 is not a pair/],
    ["a merge of one", model({ merges: [["a"]] }), /merge 0 is not a pair/],
    ["a merge of numbers", model({ merges: [[1, 2]] }), /merge 0 names a token that is not in the vocabulary/],
    ["a merge of strangers", model({ merges: [["zz", "a"]] }), /merge 0 names a token that is not in the vocabulary/],
    ["a merge into nothing", model({ merges: [["a", "a"]] }), /merge 0 .* gives no token/],
    [
      "a merge twice",
      model({
        merges: [
          ["a", "b"],
          ["a", "b"],
        ],
      }),
      /merge 1 .* is listed twice/,
    ],
    ["an added token without content", file({ added_tokens: [{ id: 258 }] }), /has no content/],
    [
      "an added token that strips",
      file({ added_tokens: [{ id: 258, content: "<x>", lstrip: true }] }),
      /"lstrip", which is not supported/,
    ],
    [
      "an added token twice",
      file({
        added_tokens: [
          { id: 258, content: "<x>" },
          { id: 259, content: "<x>" },
        ],
      }),
      /listed twice/,
    ],
    [
      "two added tokens of one id",
      file({
        added_tokens: [
          { id: 258, content: "<x>" },
          { id: 258, content: "<y>" },
        ],
      }),
      /id 258 of another/,
    ],
    ["an added token on a taken id", file({ added_tokens: [{ id: 97, content: "<x>" }] }), /has the id 97 of/],
    [
      "an added token elsewhere in the vocabulary",
      file({ added_tokens: [{ id: 258, content: "ab" }] }),
      /has the id 258, in the vocabulary 256/,
    ],
    [
      "a flag that is no flag",
      file({ added_tokens: [{ id: 258, content: "<x>", special: "yes" }] }),
      /"special" is neither true nor false/,
    ],
  ])("%s", (_, json, message) => {
    expect(() => Bpe.fromHuggingFace(json)).toThrow(FormatError);
    expect(() => Bpe.fromHuggingFace(json)).toThrow(message);
  });

  test("damaged anywhere: a FormatError or a tokenizer that works", () => {
    const text = JSON.stringify(small());
    fc.assert(
      fc.property(
        fc.nat(text.length - 1),
        fc.constantFrom("", "0", "9", '"', "}", "a", "-", "null"),
        fc.nat(3),
        (at, put, cut) => {
          let bpe: Bpe;
          try {
            bpe = Bpe.fromHuggingFace(text.slice(0, at) + put + text.slice(at + cut));
          } catch (error) {
            expect(error).toBeInstanceOf(FormatError);
            return;
          }
          expect(bpe.decode(bpe.encode("ab ab é", { disallowedSpecial: [] }))).toBe("ab ab é");
        },
      ),
      { numRuns: FULL ? 20_000 : 400 },
    );
  });
});

describe("tiktoken ranks", () => {
  const BYTES = Array.from({ length: 256 }, (_, byte) => `${Buffer.from([byte]).toString("base64")} ${byte}`);
  const ranks = (...more: string[]): string => [...BYTES, ...more].join("\n");
  const options = { pattern: "gpt2" } as const;

  test("both spellings, text or bytes, any line ends", () => {
    const lines = ranks("YWI= 256", "IGFi 257");
    const compressed = `! 0 ${BYTES.map((line) => line.split(" ")[0]).join(" ")}\n! 256 YWI= IGFi`;
    for (const file of [
      lines,
      `${lines}\n`,
      lines.replaceAll("\n", "\r\n"),
      new TextEncoder().encode(lines),
      compressed,
    ]) {
      const bpe = Bpe.fromTiktoken(file, { ...options, specialTokens: { "<|end|>": 300 } });
      expect([...bpe.encode("ab ab<|end|>", { allowedSpecial: "all" })]).toEqual([256, 257, 300]);
      expect(bpe.vocabularySize).toBe(301);
    }
  });

  test("the shipped r50k file in the line form gives the same tokenizer", () => {
    const shipped = loadEncoding("r50k_base");
    const lines = Array.from(
      { length: 50_256 },
      (_, id) => `${Buffer.from(shipped.tokenBytes(id)).toString("base64")} ${id}`,
    );
    const bpe = Bpe.fromTiktoken(lines.join("\n"), {
      pattern: "gpt2",
      specialTokens: shippedRanks("r50k_base").special_tokens,
    });
    for (const text of sampleTexts().slice(0, 100)) {
      expect(bpe.encode(text, { disallowedSpecial: [] })).toEqual(shipped.encode(text, { disallowedSpecial: [] }));
    }
  });

  test.each<[string, string, RegExp]>([
    ["an empty file", "", /no token for the single byte 0/],
    ["prose", "this is not a rank file", /line 1 has 6 fields, not "base64 rank"/],
    ["a page", "<html>", /line 1 has 1 fields/],
    ["a rank that is no number", ranks("YWI= x"), /line 257: "x" is not a rank below 4194304/],
    ["a negative rank", ranks("YWI= -1"), /"-1" is not a rank/],
    ["a huge rank", ranks("YWI= 99999999999999999999"), /is not a rank below/],
    ["a rank beyond the limit", ranks("YWI= 4194304"), /is not a rank below 4194304/],
    ["compressed ranks that run past the limit", `! 4194303 YWI= YWJj`, /is missing/],
    ["a compressed line without a rank", "!", /"" is not a rank/],
    ["no base64", ranks("Y?== 256"), /holds "Y\?==", which is not base64/],
    ["base64 cut short", ranks("YWI 256"), /not base64/],
    ["a rank twice", ranks("YWI= 255"), /rank 255 is given twice/],
    ["bytes twice", ranks("YQ== 256"), /rank 256 repeats the bytes of a lower rank/],
    ["a gap", ranks("YWI= 257"), /rank 256 is missing/],
    ["a missing byte", BYTES.slice(0, 255).join("\n"), /no token for the single byte 255/],
  ])("refused: %s", (_, file, message) => {
    expect(() => Bpe.fromTiktoken(file, options)).toThrow(FormatError);
    expect(() => Bpe.fromTiktoken(file, options)).toThrow(message);
  });

  test("a special token may fill a gap, and may not take a token's id or none", () => {
    const bpe = Bpe.fromTiktoken(ranks("YWI= 257"), { ...options, specialTokens: { "<|end|>": 256 } });
    expect([...bpe.encode("ab<|end|>", { allowedSpecial: "all" })]).toEqual([257, 256]);
    for (const specialTokens of [
      { "<x>": 97 },
      { "<x>": -1 },
      { "<x>": 0.5 },
      { "<x>": 256 + 65_536 },
      { "": 256 },
      { "<x>": 256, "<y>": 256 },
    ]) {
      expect(() => Bpe.fromTiktoken(ranks(), { ...options, specialTokens }), JSON.stringify(specialTokens)).toThrow(
        ArgumentError,
      );
    }
    expect(() => Bpe.fromTiktoken(ranks(), { pattern: "gpt9" as "gpt2" })).toThrow(ArgumentError);
  });
});
