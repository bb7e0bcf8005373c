/**
 * Identical ids to tiktoken, by its own WebAssembly build (npm tiktoken 1.0.22), for r50k, cl100k and o200k.
 *
 * A sample by default; with TOKENTHRIFT_FULL all declarations, all languages and 20,000 adversarial strings each.
 */

import { get_encoding } from "tiktoken";
import { afterAll, describe, expect, test } from "vitest";
import {
  adversarialStrings,
  declarations,
  ENCODINGS,
  type EncodingName,
  FULL,
  loadEncoding,
  messages,
} from "./texts.ts";

describe.each(Object.keys(ENCODINGS) as EncodingName[])("%s", (name) => {
  const bpe = loadEncoding(name);
  const oracle = get_encoding(name);
  afterAll(() => oracle.free());

  /** Position of the first differing id, with its surroundings; undefined when all agree. */
  function difference(text: string): object | undefined {
    const ids = bpe.encode(text, { disallowedSpecial: [] });
    const expected = oracle.encode_ordinary(text);
    let at = 0;
    while (at < ids.length && ids[at] === expected[at]) at++;
    if (at === ids.length && at === expected.length) return undefined;
    return {
      text: JSON.stringify(text.slice(0, 200)),
      at,
      ids: [...ids.slice(at, at + 5)],
      expected: [...expected.slice(at, at + 5)],
    };
  }

  test("declarations", () => {
    const files = declarations().filter((_, i) => FULL || i % 8 === 0);
    expect(files.flatMap((text) => difference(text) ?? [])).toEqual([]);
  });

  test("diagnostic messages in 13 languages", () => {
    const languages = messages();
    expect(languages.size).toBe(13);
    for (const [language, text] of languages) {
      expect(difference(FULL ? text : text.slice(0, 30_000)), language).toBeUndefined();
    }
  });

  test("adversarial strings", () => {
    const strings = adversarialStrings(FULL ? 20_000 : 2_000, 1);
    expect(strings.flatMap((text) => difference(text) ?? []).slice(0, 3)).toEqual([]);
  });

  test("decoding gives the text back, lone surrogates as U+FFFD", () => {
    for (const text of adversarialStrings(FULL ? 20_000 : 1_000, 2)) {
      expect(bpe.decode(bpe.encode(text, { disallowedSpecial: [] }))).toBe(text.replace(/\p{Surrogate}/gu, "\ufffd"));
    }
  });

  test("special tokens where allowed, and bytes of every token", () => {
    const texts = ["<|endoftext|>", "hi<|endoftext|>yo", "<|endoftext|><|endoftext|> a ", " \n<|endoftext|>\n "];
    for (const text of texts) {
      expect([...bpe.encode(text, { allowedSpecial: "all" })]).toEqual([...oracle.encode(text, "all")]);
    }
    const step = FULL ? 1 : 37;
    for (let id = 0; id < 50_257; id += step) expect(bpe.tokenBytes(id)).toEqual(oracle.decode_single_token_bytes(id));
  });

  test.each(["a", "_", " ", "\n", "ab", "漢", "😉", "\ud800", "1", "' "])("100,000 repeats of %j", (unit) => {
    // The oracle is quadratic here.
    expect(difference(unit.repeat(FULL ? 10_000 : 500))).toBeUndefined();
    const text = unit.repeat(100_000);
    expect(bpe.decode(bpe.encode(text))).toBe(text.replace(/\p{Surrogate}/gu, "\ufffd"));
  });
});
