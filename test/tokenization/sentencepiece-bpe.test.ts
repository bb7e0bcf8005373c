/** llama2.c's tokenizer: a vocabulary made by hand, bad files, and the real one of the 260K stories model. */

import { existsSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import { SentencePieceBpe, StreamingDecoder } from "../../src/tokenization/index.ts";
import { adversarialStrings, FULL } from "./texts.ts";

interface Piece {
  readonly text: string;
  readonly score: number;
}

/** The three control tokens and the 256 bytes, then the given pieces. */
function vocabulary(...pieces: readonly Piece[]): Piece[] {
  const control = ["<unk>", "\n<s>\n", "\n</s>\n"].map((text) => ({ text, score: 0 }));
  const hex = (byte: number): string => byte.toString(16).toUpperCase().padStart(2, "0");
  const bytes = Array.from({ length: 256 }, (_, byte) => ({ text: `<0x${hex(byte)}>`, score: 0 }));
  return [...control, ...bytes, ...pieces];
}

function file(pieces: readonly Piece[], longest = 27): Uint8Array {
  const parts = pieces.map(({ text, score }) => {
    const bytes = Buffer.from(text);
    const head = Buffer.alloc(8);
    head.writeFloatLE(score, 0);
    head.writeInt32LE(bytes.length, 4);
    return Buffer.concat([head, bytes]);
  });
  const head = Buffer.alloc(4);
  head.writeInt32LE(longest, 0);
  return new Uint8Array(Buffer.concat([head, ...parts]));
}

const PIECES = vocabulary(
  { text: " ", score: -100 }, // 259
  { text: "a", score: -101 },
  { text: "b", score: -102 },
  { text: "c", score: -103 },
  { text: "ab", score: -2 }, // 263
  { text: "bc", score: -1 }, // 264: better than ab
  { text: " a", score: -3 }, // 265
  { text: "abc", score: -4 }, // 266: of ab and c or of a and bc
  { text: "é", score: -104 }, // 267
);
const tokenizer = SentencePieceBpe.fromLlama2c(file(PIECES), PIECES.length);

test("the best score merges first, by hand", () => {
  // " abc": bc first (-1), then " a" (-3) before abc (-4).
  expect([...tokenizer.encode("abc")]).toEqual([265, 264]);
  // " cabc": bc, then a+bc, for " a" does not occur.
  expect([...tokenizer.encode("cabc")]).toEqual([259, 262, 266]);
  // " aab": ab (-2) first, then " a".
  expect([...tokenizer.encode("aab", { begin: true })]).toEqual([1, 265, 263]);
  expect([...tokenizer.encode("")]).toEqual([]);
  expect([...tokenizer.encode("", { begin: true })]).toEqual([1]);
});

test("characters that are no piece become bytes, id 3 + byte; known ones do not", () => {
  expect([...tokenizer.encode("é")]).toEqual([259, 267]);
  expect([...tokenizer.encode("漢")]).toEqual([259, 3 + 0xe6, 3 + 0xbc, 3 + 0xa2]);
  expect(tokenizer.decode([3 + 0xe6, 3 + 0xbc, 3 + 0xa2])).toBe("漢");
  expect([...tokenizer.tokenBytes(3)]).toEqual([0]);
});

test("prints as llama2.c does: no space behind the begin token, control tokens without text", () => {
  expect(tokenizer.decode([1, 265, 265])).toBe("a a");
  expect(tokenizer.decode([265, 265])).toBe("a a");
  expect(tokenizer.decode([264, 1, 265, 2, 265])).toBe("bca a");
  expect(Buffer.from(tokenizer.tokenBytes(265)).toString()).toBe(" a");
  expect(tokenizer.decode([1, 3 + 0x20, 265])).toBe("  a"); // a space from a byte token is no extra space
  const decoder = new StreamingDecoder(tokenizer);
  expect([1, 265, 265].map((id) => decoder.push(id))).toEqual(["", "a", " a"]);
  expect(decoder.flush()).toBe("");
  expect(decoder.push(265)).toBe("a");
});

test("any text comes back; the text of a control or byte token is plain text", () => {
  const texts = [...adversarialStrings(FULL ? 10_000 : 500, 9), "<s>", "\n<s>\n", "<unk>", "<0x41>", " a", "  a", "▁"];
  for (const text of texts) {
    for (const begin of [false, true]) {
      expect(tokenizer.decode(tokenizer.encode(text, { begin }))).toBe(text.replace(/\p{Surrogate}/gu, "\ufffd"));
    }
  }
  expect([...tokenizer.encode("<0x41>")]).not.toContain(3 + 0x41);
});

test("equals llama2.c's quadratic loop on random texts", () => {
  const idOf = new Map(PIECES.map(({ text }, id) => [text, id]).slice(259) as [string, number][]);
  const slow = (text: string): number[] => {
    const ids = [...` ${text}`].map((character) => idOf.get(character)!);
    for (;;) {
      let best = -1;
      let bestScore = Number.NEGATIVE_INFINITY;
      for (let i = 0; i + 1 < ids.length; i++) {
        const id = idOf.get(PIECES[ids[i]!]!.text + PIECES[ids[i + 1]!]!.text);
        if (id !== undefined && PIECES[id]!.score > bestScore) {
          best = i;
          bestScore = PIECES[id]!.score;
        }
      }
      if (best < 0) return ids;
      ids.splice(best, 2, idOf.get(PIECES[ids[best]!]!.text + PIECES[ids[best + 1]!]!.text)!);
    }
  };
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom("a", "b", "c", " "), minLength: 1, maxLength: 120 }), (text) => {
      expect([...tokenizer.encode(text)]).toEqual(slow(text));
    }),
    { numRuns: FULL ? 10_000 : 300 },
  );
});

test("100,000 repeats end in time", () => {
  const text = "ab".repeat(50_000);
  expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
});

describe("refuses", () => {
  const good = file(PIECES);
  const altered = (change: (pieces: Piece[]) => void): Uint8Array => {
    const pieces = [...PIECES];
    change(pieces);
    return file(pieces);
  };

  test.each<[string, Uint8Array, RegExp]>([
    ["an empty file", new Uint8Array(0), /0 bytes cannot hold 268 pieces/],
    ["a file cut in a piece", good.subarray(0, good.length - 1), /the file ends inside piece 267 of 268/],
    ["a file cut between pieces", good.subarray(0, good.length - 10), /the file ends before piece 267 of 268/],
    ["a file that goes on", new Uint8Array([...good, 0]), /1 bytes are left after 268 pieces/],
    ["a piece longer than announced", file(PIECES, 5), /piece 2 has the length 6, not 1\.\.5/],
    [
      "an empty piece",
      altered((pieces) => pieces.splice(262, 1, { text: "", score: 0 })),
      /piece 262 has the length 0/,
    ],
    [
      "a score that is no number",
      altered((pieces) => pieces.splice(262, 1, { text: "c", score: Number.NaN })),
      /piece 262 has a score/,
    ],
    ["a piece twice", altered((pieces) => pieces.splice(262, 1, { text: "a", score: 0 })), /repeats another piece/],
    [
      "bytes elsewhere",
      altered((pieces) => pieces.splice(3, 1, { text: "<0x01>", score: 0 })),
      /piece 3 is "<0x01>", expected <0x00>/,
    ],
  ])("%s", (_, bytes, message) => {
    expect(() => SentencePieceBpe.fromLlama2c(bytes, PIECES.length)).toThrow(FormatError);
    expect(() => SentencePieceBpe.fromLlama2c(bytes, PIECES.length)).toThrow(message);
  });

  test("lengths that point outside, and pieces that are not UTF-8", () => {
    const huge = good.slice();
    new DataView(huge.buffer).setInt32(8, 0x7fffffff, true);
    new DataView(huge.buffer).setInt32(0, 0x7fffffff, true);
    expect(() => SentencePieceBpe.fromLlama2c(huge, PIECES.length)).toThrow(/ends inside piece 0/);
    const negative = good.slice();
    new DataView(negative.buffer).setInt32(8, -1, true);
    expect(() => SentencePieceBpe.fromLlama2c(negative, PIECES.length)).toThrow(/piece 0 has the length -1/);
    const broken = good.slice();
    broken[good.length - 1] = 0x20;
    expect(() => SentencePieceBpe.fromLlama2c(broken, PIECES.length)).toThrow(/piece 267 is not UTF-8/);
  });

  test("a vocabulary size the file does not have, without asking for its memory", () => {
    expect(() => SentencePieceBpe.fromLlama2c(good, 2 ** 31)).toThrow(/cannot hold 2147483648 pieces/);
    expect(() => SentencePieceBpe.fromLlama2c(good, PIECES.length - 1)).toThrow(/bytes are left after 267 pieces/);
    for (const size of [258, 0, -1, 300.5, Number.NaN]) {
      expect(() => SentencePieceBpe.fromLlama2c(good, size)).toThrow(ArgumentError);
    }
  });

  test("ids outside, and special tokens by name", () => {
    for (const id of [-1, 268, 0.5]) expect(() => tokenizer.decode([id])).toThrow(ArgumentError);
    expect(() => tokenizer.encode("a", { allowedSpecial: ["<s>"] })).toThrow(ArgumentError);
  });

  test("anything damaged: a FormatError or a tokenizer that works", () => {
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), fc.boolean(), (at, byte, cut) => {
        const bytes = cut ? good.slice(0, at) : good.slice();
        if (!cut) bytes[at] = byte;
        try {
          const damaged = SentencePieceBpe.fromLlama2c(bytes, PIECES.length);
          expect(damaged.decode(damaged.encode("abc é 漢"))).toBe("abc é 漢");
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }),
      { numRuns: FULL ? 20_000 : 500 },
    );
  });
});

const REAL = new URL("../../../shared/models/", import.meta.url);
const isThere = existsSync(new URL("tok512.bin", REAL));

// Needs ../shared/models beside the project.
describe.skipIf(!isThere)("tok512.bin", () => {
  test("llama2.c's own story comes back to the byte, by tokens llama2.c would choose", () => {
    const real = SentencePieceBpe.fromLlama2c(readFileSync(new URL("tok512.bin", REAL)), 512);
    const story = readFileSync(new URL("stories260K-greedy.txt", REAL), "utf8");
    const ids = real.encode(story, { begin: true });
    expect([...ids.subarray(0, 9)]).toEqual([1, 403, 407, 261, 378, 432, 383, 286, 261]);
    expect(real.decode(ids)).toBe(story);
    const decoder = new StreamingDecoder(real);
    expect([...ids].map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(story);
  });
});
