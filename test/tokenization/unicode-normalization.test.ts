/**
 * Tokenizers that normalize to form C first, as Qwen2's and GPT-NeoX's do: ids against Python's tokenizers (fixture
 * fixtures/nfc) and npm @huggingface/tokenizers, offsets in the text that was given, special tokens before and after.
 */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { Bpe, type HuggingFaceTokenizer, StreamingDecoder } from "../../src/tokenization/index.ts";
import { alignNormalized } from "../../src/tokenization/unicode-normalization.ts";
import { goldenCheckpoints, readGolden } from "../model/golden-checkpoints.ts";
import { adversarialStrings, declarations, FULL, messages, seeded } from "./texts.ts";

interface Encodings {
  /** By language: number of ids and their hash, for the first 30,000 characters and for all. */
  readonly messages: Readonly<Record<string, readonly [Digest, Digest]>>;
  readonly texts: readonly [text: string, ids: number[], asText: number[], offsets: [start: number, end: number][]][];
}
type Digest = readonly [count: number, sha256: string];

const read = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../fixtures/nfc/${name}`, import.meta.url), "utf8"));
const file = read("tokenizer.json") as HuggingFaceTokenizer;
const encodings = read("encodings.json") as Encodings;
const bpe = Bpe.fromHuggingFace(file);
const withIds = { allowedSpecial: "all" } as const;
const asText = { disallowedSpecial: [] } as const;

/** The same vocabulary without tokens of its own, and with the normalizer or without it. */
const plain = Bpe.fromHuggingFace({ ...file, added_tokens: [] });
const unnormalized = Bpe.fromHuggingFace({ ...file, added_tokens: [], normalizer: null });

const wellFormed = (text: string): string => text.replace(/\p{Surrogate}/gu, "\ufffd");

/** Texts in which normalization has work to do: those of the fixture and adversarial ones, half of them decomposed. */
function texts(count: number, seed: number): string[] {
  const next = seeded(seed);
  const adversarial = adversarialStrings(count, seed);
  return [
    ...encodings.texts.slice(0, FULL ? undefined : 200).map(([text]) => text),
    ...adversarial.map((text) => (next() % 2 === 0 ? text : text.normalize("NFD"))),
  ];
}

test("by hand: a letter and its accent are one character of two bytes, and its tokens cover both", () => {
  const bytes = Bpe.train(["x"], { vocabSize: 256 }).toHuggingFace();
  const tokenizer = Bpe.fromHuggingFace({ ...bytes, normalizer: { type: "NFC" } });
  expect(tokenizer.normalizer).toBe("NFC");
  const { ids, starts, ends } = tokenizer.encodeWithOffsets("e\u0301x\u1112\u1161\u11abe");
  expect([...ids]).toEqual([0xc3, 0xa9, 0x78, 0xed, 0x95, 0x9c, 0x65]);
  expect([...starts]).toEqual([0, 0, 2, 3, 3, 3, 6]);
  expect([...ends]).toEqual([2, 2, 3, 6, 6, 6, 7]);
  expect(tokenizer.decode(ids)).toBe("éx한e");
});

test("the messages in 14 languages, decomposed: the ids of Python's tokenizers", () => {
  const byLanguage = messages();
  const es5 = declarations().find((text) => text.includes("interface PropertyDescriptor {"))!;
  const digest = (ids: Uint32Array): Digest => {
    const bytes = Buffer.alloc(4 * ids.length);
    ids.forEach((id, i) => {
      bytes.writeUInt32LE(id, 4 * i);
    });
    return [ids.length, createHash("sha256").update(bytes).digest("hex")];
  };
  expect(Object.keys(encodings.messages)).toEqual(["en", ...byLanguage.keys()]);
  for (const [language, [first, all]] of Object.entries(encodings.messages)) {
    const text = (byLanguage.get(language) ?? es5).normalize("NFD");
    expect(digest(bpe.encode(text.slice(0, 30_000))), language).toEqual(first);
    if (FULL) expect(digest(bpe.encode(text)), language).toEqual(all);
  }
});

test("marks in any order, jamo, vowel signs, singletons and tokens among them: the ids of Python's tokenizers", () => {
  // As a reader would have it who forgets the normalizer, normalizes before looking for tokens, or looks only once.
  const forgetful = Bpe.fromHuggingFace({ ...file, normalizer: null });
  const once = Bpe.fromHuggingFace({
    ...file,
    added_tokens: file.added_tokens.map((token) => ({ ...token, normalized: false })),
  });
  const wrong = { forgetful: 0, early: 0, once: 0 };
  for (const [text, ids, idsAsText] of encodings.texts) {
    expect([...bpe.encode(text, withIds)], JSON.stringify(text)).toEqual(ids);
    expect([...bpe.encode(text, asText)], JSON.stringify(text)).toEqual(idsAsText);
    if (String(forgetful.encode(text, withIds)) !== String(ids)) wrong.forgetful++;
    if (String(bpe.encode(text.normalize("NFC"), withIds)) !== String(ids)) wrong.early++;
    if (String(once.encode(text, withIds)) !== String(ids)) wrong.once++;
  }
  expect(wrong.forgetful).toBeGreaterThan(100);
  expect(wrong.early).toBeGreaterThan(10);
  expect(wrong.once).toBeGreaterThan(10);
});

test("the ids of @huggingface/tokenizers", () => {
  const oracle = new HuggingFace(file, {});
  // It reads \s and (?i:'s) as JavaScript does, and lone surrogates differently. (It also takes text for a token that
  // becomes one by normalization, where Python's waits for its spelling; none of these texts is of that kind.)
  const common = texts(FULL ? 5_000 : 500, 21).filter((text) => text !== "" && !/[\u0085\ufeff\u017f]/.test(text));
  for (const text of common.map((text) => text.replace(/\p{Surrogate}/gu, ""))) {
    if (text === "") continue;
    expect([...bpe.encode(text, withIds)], JSON.stringify(text)).toEqual(
      oracle.encode(text, { add_special_tokens: false }).ids,
    );
  }
});

test("the published form of the golden Qwen2: text in form D gives the golden ids", async () => {
  const qwen2 = goldenCheckpoints.find(({ name }) => name === "qwen2")!;
  const { text, ids } = await readGolden(qwen2);
  const tokenizer = Bpe.fromHuggingFace(readFileSync(`${qwen2.folder}/tokenizer.json`, "utf8"));
  expect(tokenizer.normalizer).toBe("NFC");
  expect(text.normalize("NFD")).not.toBe(text);
  expect([...tokenizer.encode(text.normalize("NFD"))]).toEqual(ids);
});

test("decoding gives the text in form C, as a whole and token by token, the second time too", () => {
  for (const text of texts(FULL ? 5_000 : 300, 22)) {
    const ids = plain.encode(text);
    const expected = wellFormed(text).normalize("NFC");
    expect(plain.decode(ids)).toBe(expected);
    expect(plain.encode(text)).toEqual(ids);
    expect(plain.encode(expected)).toEqual(ids);
    const decoder = new StreamingDecoder(plain);
    expect([...ids].map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(expected);
  }
});

test("tokens found in the text keep their spelling, and the stretches between are normalized each by itself", () => {
  const kept = file.added_tokens.filter(({ normalized }) => !normalized).map(({ content }) => content);
  const pattern = new RegExp(`(${kept.map((content) => content.replaceAll("|", "\\|")).join("|")})`, "u");
  for (const [text] of encodings.texts) {
    const stretches = text.split(pattern).map((stretch, i) => (i % 2 === 1 ? stretch : stretch.normalize("NFC")));
    expect(bpe.decode(bpe.encode(text, withIds))).toBe(wellFormed(stretches.join("")));
  }
  // U+0338 would make one character of itself and the bracket.
  expect("<|endoftext|>\u0338".normalize("NFC")).toBe("<|endoftext|≯");
  expect(bpe.decode(bpe.encode("<|endoftext|>\u0338", withIds))).toBe("<|endoftext|>\u0338");
  expect(bpe.decode(bpe.encode("<|endoftext|>\u0338", asText))).toBe("<|endoftext|≯");
});

test("text that is in form C already: ids and offsets of the tokenizer that does not normalize", () => {
  for (const raw of texts(FULL ? 5_000 : 300, 23)) {
    const text = raw.normalize("NFC");
    expect(plain.encodeWithOffsets(text)).toEqual(unnormalized.encodeWithOffsets(text));
  }
});

test("offsets cover the text and meet only where it falls into parts that normalize each by itself", () => {
  for (const text of texts(FULL ? 5_000 : 300, 24)) {
    const { ids, starts, ends } = plain.encodeWithOffsets(text);
    expect(ids).toEqual(plain.encode(text));
    let covered = 0;
    ids.forEach((id, i) => {
      const inOrder = starts[i]! <= covered && ends[i]! >= covered;
      covered = ends[i]!;
      const apart = text.slice(0, covered).normalize("NFC") + text.slice(covered).normalize("NFC");
      const isSafe = starts[i + 1] !== covered || apart === text.normalize("NFC");
      const stretch = wellFormed(text.slice(starts[i], ends[i]).normalize("NFC"));
      const holdsToken = Buffer.from(stretch).includes(Buffer.from(plain.tokenBytes(id)));
      if (!inOrder || !isSafe || !holdsToken) expect.fail(`token ${i} of ${JSON.stringify(text)}`);
    });
    expect(covered).toBe(text.length);
  }
});

test("offsets are nowhere narrower than those of Python's tokenizers", () => {
  for (const [text, , , offsets] of encodings.texts) {
    const units = [0]; // where each character begins
    for (const character of text) units.push(units.at(-1)! + character.length);
    const { starts, ends } = bpe.encodeWithOffsets(text, withIds);
    expect(starts.length).toBe(offsets.length);
    const narrower = offsets.filter(([start, end], i) => starts[i]! > units[start]! || ends[i]! < units[end]!);
    expect(narrower, JSON.stringify(text)).toEqual([]);
  }
});

test("offsets of tokens found before and after normalization", () => {
  const at = (text: string): [number, number, number][] => {
    const { ids, starts, ends } = bpe.encodeWithOffsets(text, withIds);
    return [...ids].map((id, i) => [id, starts[i]!, ends[i]!]);
  };
  expect(at("<|e\u0301te\u0301|>o\u0302oe\u0301\u0301")).toEqual([
    [906, 0, 9],
    [903, 9, 12],
    [bpe.encode("e")[0], 12, 13],
    [904, 13, 15],
  ]);
  // The Kelvin sign is a K; the space before it is no part of it.
  expect(at(" \u212a!")).toEqual([
    [bpe.encode(" ")[0], 0, 1],
    [907, 1, 3],
  ]);
});

/** Runs of a text, by the stretches its normalized units stand for. */
function runsOf(text: string): [number, number][] {
  const { text: normal, starts, ends } = alignNormalized([{ id: -1, start: 0, text }], "NFC");
  expect(normal).toBe(text.normalize("NFC"));
  const runs = new Map([...starts].map((start, i) => [start, ends[i]!]));
  return [...runs];
}

test("whatever normalization composes, of all Unicode, is a run of its own", () => {
  const changed: string[] = [];
  for (let code = 0; code < 0x110000; code++) {
    if ((code >= 0xd800 && code < 0xe000) || (!FULL && code >= 0xac20 && code < 0xd700)) continue;
    const decomposed = String.fromCodePoint(code).normalize("NFD");
    if (decomposed.normalize("NFC") !== decomposed) changed.push(decomposed);
  }
  expect(changed.length).toBeGreaterThan(900);
  for (const text of changed) {
    const end = 1 + text.length;
    expect(runsOf(`x${text}y`), JSON.stringify(text)).toEqual([
      [0, 1],
      [1, end],
      [end, end + 1],
    ]);
  }
});

test("runs by hand: marks out of order stay with their letter, unchanged ones map one by one", () => {
  const runs = (text: string): string[] => runsOf(text).map(([start, end]) => text.slice(start, end));
  expect(runs("ab\u0315\u0300c")).toEqual(["a", "b\u0315\u0300", "c"]);
  expect(runs("\u0345\u0345\u0301a\u030a")).toEqual(["\u0345\u0345\u0301", "a\u030a"]);
  expect(runs("b\u0301a\u030a")).toEqual(["b", "\u0301", "a\u030a"]);
  expect(runs("\u1112\u1161\u11ab\u1112\u1161\u11ab\u11ab")).toEqual([
    "\u1112\u1161\u11ab",
    "\u1112\u1161\u11ab",
    "\u11ab",
  ]);
  expect(runs("\u09c7\u09be\u09be\u212b")).toEqual(["\u09c7\u09be", "\u09be", "\u212b"]);
  expect(runs("\u{11099}\u{110ba}\u{1f600}\ud800")).toEqual(["\u{11099}\u{110ba}", "\ud83d", "\ude00", "\ud800"]);
});

test("runs, any marks on any letters: cutting there changes nothing", () => {
  const unit = fc.constantFrom(
    ..."aeKx\u0301\u0308\u0323\u0327\u0334\u0315\u0345\u1100\u1161\u11a8각가\u09c7\u09be\u0f73\u212b",
  );
  fc.assert(
    fc.property(fc.string({ unit, maxLength: 12 }), (text) => {
      for (const [, end] of runsOf(text)) {
        expect(text.slice(0, end).normalize("NFC") + text.slice(end).normalize("NFC")).toBe(text.normalize("NFC"));
      }
    }),
    { numRuns: FULL ? 20_000 : 500 },
  );
});

test("100,000 syllables in jamo and a letter with 100,000 accents end in time", () => {
  const jamo = "\u1112\u1161\u11ab".repeat(100_000);
  expect(plain.encodeWithOffsets(jamo).ends.at(-1)).toBe(300_000);
  const accents = `a${"\u0301".repeat(100_000)}`;
  expect(plain.encodeWithOffsets(accents).starts.at(-1)).toBe(0);
});

test("a special token is refused where it is found: in the text, or in the normalized text, by its place in the text", () => {
  expect(() => bpe.encode("e\u0301<|endoftext|>")).toThrow(/"<\|endoftext\|>".*UTF-16 unit 2\./);
  expect(() => bpe.encode("e\u0301 <|e\u0301te\u0301|>")).toThrow(/"<\|été\|>".*UTF-16 unit 3\./);
  expect(() => bpe.encode("e\u0301<tool_call> <|été|>")).toThrow(/"<\|été\|>".*UTF-16 unit 14\./);
  const only = { allowedSpecial: ["<|endoftext|>"] };
  expect([...bpe.encode("<|endoftext|>", only)]).toEqual([900]);
  expect(() => bpe.encode("<|endoftext|><|été|>", only)).toThrow(ArgumentError);
  expect(() => bpe.encode("<|endoftext|><|été|>", { allowedSpecial: ["<|été|>"] })).toThrow(/"<\|endoftext\|>"/);
  expect([...bpe.encode("<|e\u0301te\u0301|>", { allowedSpecial: ["<|été|>"] })]).toEqual([906]);
  expect([...bpe.encode("<|été|>", { disallowedSpecial: ["<|endoftext|>"] })]).not.toContain(906);
  expect(() => bpe.encode("a", { allowedSpecial: ["<|e\u0301te\u0301|>"] })).toThrow(/^options\.allowedSpecial/);
});

test("without a normalizer too, tokens that are not to be normalized are found first", () => {
  // Python's tokenizers, on this file without its normalizer: x, then <tool_call>.
  const tokenizer = Bpe.fromHuggingFace({ ...file, normalizer: null });
  expect([...tokenizer.encode("x<tool_call>")]).toEqual([...tokenizer.encode("x"), 902]);
  expect(tokenizer.toHuggingFace().added_tokens).toEqual(file.added_tokens);
  const { starts, ends } = tokenizer.encodeWithOffsets("e\u0301<tool_call>K!");
  expect([starts.at(-1), ends.at(-1)]).toEqual([13, 15]);
  expect(() => tokenizer.encode("e\u0301<tool_call> <|été|>")).toThrow(/UTF-16 unit 14\./);
});

test("the normalizer is written back, and a sequence of NFC is NFC", () => {
  const nfc = { type: "NFC" };
  const written = bpe.toHuggingFace();
  expect(written.normalizer).toEqual(nfc);
  expect(written.added_tokens).toEqual(file.added_tokens);
  expect(Bpe.fromHuggingFace(JSON.stringify(written)).toHuggingFace()).toEqual(written);
  for (const [normalizers, normalizer] of [
    [[nfc], "NFC"],
    [[nfc, nfc], "NFC"],
    [[], "none"],
  ] as const) {
    const tokenizer = Bpe.fromHuggingFace({ ...file, normalizer: { type: "Sequence", normalizers } });
    expect(tokenizer.normalizer).toBe(normalizer);
    expect(tokenizer.toHuggingFace().normalizer).toEqual(normalizer === "NFC" ? nfc : null);
  }
});
