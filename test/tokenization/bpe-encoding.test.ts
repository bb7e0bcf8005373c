/** Encoding, decoding, offsets, special tokens and streaming of `Bpe`, on published values and by property. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { BpeMerger, type MergeTable } from "../../src/tokenization/bpe-merger.ts";
import { Bpe, StreamingDecoder } from "../../src/tokenization/index.ts";
import { PairTable } from "../../src/tokenization/pair-table.ts";
import { adversarialStrings, declarations, FULL, loadEncoding, seeded } from "./texts.ts";

const cl100k = loadEncoding("cl100k_base");
const asText = { disallowedSpecial: [] } as const;

test("cl100k, published ids", () => {
  const golden: [string, number[]][] = [
    ["hello world", [15339, 1917]],
    ["Hello, world!", [9906, 11, 1917, 0]],
    [" a\n\n  b  ", [264, 271, 220, 293, 256]],
    ["12345678", [4513, 10961, 2495]],
    ["I'LL DON'T we're", [40, 6, 4178, 45373, 17773, 584, 2351]],
    ["naïve café 안녕하세요 😉", [3458, 38672, 588, 53050, 96270, 75265, 243, 92245, 57037]],
    ["\t\tif (x) {\r\n  y++; }", [197, 748, 320, 87, 8, 987, 220, 379, 20152, 335]],
    ["antidisestablishmentarianism", [519, 85342, 34500, 479, 8997, 2191]],
    ["it’s Aujourd’hui", [275, 753, 362, 9832, 77492, 91443]],
    ["a\ufeffb", [64, 3305, 65]],
  ];
  for (const [text, ids] of golden) {
    expect([...cl100k.encode(text)], JSON.stringify(text)).toEqual(ids);
    expect(cl100k.decode(ids)).toBe(text);
  }
  expect(cl100k.encode("a".repeat(100_000)).length).toBe(12_500);
  expect(cl100k.encode("_".repeat(50_000)).length).toBe(782);
  expect(cl100k.vocabularySize).toBe(100_277);
});

test("r50k, published ids", () => {
  const r50k = loadEncoding("r50k_base");
  expect([...r50k.encode("hello world")]).toEqual([31373, 995]);
  expect([...r50k.encode(" a\n\n  b  ")]).toEqual([257, 628, 220, 275, 220, 220]);
  expect(r50k.encode("a".repeat(100_000)).length).toBe(25_000);
  expect(r50k.merges().length).toBe(50_000);
});

describe("the merge loop", () => {
  /** One merge at a time, the whole sequence looked through each time. */
  function slowMerge(bytes: Uint8Array, { byteIds, ranks, results }: MergeTable): number[] {
    const ids = [...bytes].map((byte) => byteIds[byte]!);
    for (;;) {
      let best = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const rank = ranks.get(ids[i]!, ids[i + 1]!);
        if (rank >= 0 && (best < 0 || rank < ranks.get(ids[best]!, ids[best + 1]!))) best = i;
      }
      if (best < 0) return ids;
      ids.splice(best, 2, results[ranks.get(ids[best]!, ids[best + 1]!)]!);
    }
  }

  test("short pieces by scan, long ones by heap: both equal the slow loop, for any merge table", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(11), fc.nat(11)), { maxLength: 12 }),
        fc.uint8Array({ max: 3, minLength: 1, maxLength: 200 }),
        (pairs, bytes) => {
          // Ids 0..3 are bytes; pairs name ids modulo what exists so far, so merges build on merges.
          const ranks = new PairTable();
          const results: number[] = [];
          for (const [left, right] of pairs) {
            const known = 4 + results.length;
            if (ranks.get(left % known, right % known) >= 0) continue;
            ranks.set(left % known, right % known, results.length);
            results.push(known);
          }
          const table = {
            byteIds: Int32Array.from({ length: 256 }, (_, byte) => byte),
            ranks,
            results: Int32Array.from(results),
          };
          const merger = new BpeMerger(table);
          const count = merger.merge(bytes, 0, bytes.length);
          expect([...merger.ids.subarray(0, count)]).toEqual(slowMerge(bytes, table));
        },
      ),
      { numRuns: FULL ? 20_000 : 500 },
    );
  });

  test("equals the slow loop with a real vocabulary, on random letters of every length around the switch", () => {
    const bpe = Bpe.train(declarations().slice(0, 8), { vocabSize: 800, pattern: "none" });
    const merges = bpe.merges();
    const ranks = new PairTable();
    merges.forEach(([left, right], rank) => {
      ranks.set(left, right, rank);
    });
    const table = {
      byteIds: Int32Array.from({ length: 256 }, (_, byte) => byte),
      ranks,
      results: Int32Array.from(merges, (_, rank) => 256 + rank),
    };
    const next = seeded(5);
    for (let length = 1; length < 150; length++) {
      const text = Array.from({ length }, () => "etaoin string"[next() % 13]).join("");
      expect([...bpe.encode(text)], text).toEqual(slowMerge(new TextEncoder().encode(text), table));
    }
  });
});

test("PairTable is a map from pairs, through growth", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(40), fc.nat(40), fc.nat(1000)), { maxLength: 300 }), (entries) => {
      const table = new PairTable();
      const map = new Map<string, number>();
      for (const [left, right, value] of entries) {
        table.set(left, right, value);
        map.set(`${left} ${right}`, value);
      }
      expect(table.size).toBe(map.size);
      for (let left = 0; left <= 40; left += 3) {
        for (let right = 0; right <= 40; right++)
          expect(table.get(left, right)).toBe(map.get(`${left} ${right}`) ?? -1);
      }
    }),
    { numRuns: 50 },
  );
});

test("the second time over a text gives what the first gave: the piece cache changes nothing", () => {
  const bpe = Bpe.train(declarations().slice(0, 8), { vocabSize: 400 });
  const text = declarations()[10]!.slice(0, 50_000);
  const first = bpe.encode(text);
  expect(bpe.encode(text)).toEqual(first);
  expect(bpe.decode(first)).toBe(text);
});

test("a trained vocabulary emits a whole piece only where merging gets there", () => {
  // "abc" is a token, but on its own the merges take b and c first.
  const bpe = Bpe.fromHuggingFace({
    ...(Bpe.train(["x"], { vocabSize: 256 }).toHuggingFace() as object),
    model: withMerges(
      [
        ["b", "c"],
        ["a", "b"],
        ["ab", "c"],
      ],
      ["bc", "ab", "abc"],
      false,
    ),
  });
  expect([...bpe.encode("abc")]).toEqual([97, 256]);
  const whole = Bpe.fromHuggingFace({
    ...(Bpe.train(["x"], { vocabSize: 256 }).toHuggingFace() as object),
    model: withMerges(
      [
        ["b", "c"],
        ["a", "b"],
        ["ab", "c"],
      ],
      ["bc", "ab", "abc"],
      true,
    ),
  });
  expect([...whole.encode("abc")]).toEqual([258]);
});

function withMerges(merges: string[][], tokens: string[], ignoreMerges: boolean): object {
  const { model } = Bpe.train(["x"], { vocabSize: 256 }).toHuggingFace();
  const vocab = { ...model.vocab, ...Object.fromEntries(tokens.map((token, i) => [token, 256 + i])) };
  return { ...model, vocab, merges, ignore_merges: ignoreMerges };
}

describe("decoding", () => {
  test("any bytes survive", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        const ids = [...bytes].map((byte) => byteId(byte));
        expect(cl100k.decodeBytes(ids)).toEqual(bytes);
      }),
      { numRuns: 200 },
    );
  });

  test("U+FEFF and NUL stay, also in front", () => {
    for (const text of ["\ufeff", "\ufeffa", "a\ufeff", "\0", "\0\ufeff\0"])
      expect(cl100k.decode(cl100k.encode(text))).toBe(text);
  });

  test.each([[-1], [100_277], [1.5], [Number.NaN], [100_256], [2 ** 32]])("refuses the id %d", (id) => {
    expect(() => cl100k.decode([9906, id])).toThrow(ArgumentError);
    expect(() => cl100k.decode([9906, id])).toThrow(
      /^ids\[1\]: expected a token id of this vocabulary \(0\.\.100276\)/,
    );
    expect(() => cl100k.tokenBytes(id)).toThrow(/^id: /);
  });

  test("tokenBytes is a copy", () => {
    cl100k.tokenBytes(9906).fill(0);
    expect(cl100k.decode([9906])).toBe("Hello");
  });
});

const BYTE_IDS = new Map(Array.from({ length: 256 }, (_, id) => [cl100k.tokenBytes(id)[0]!, id]));
function byteId(byte: number): number {
  return BYTE_IDS.get(byte)!;
}

describe("offsets", () => {
  test("characters cut by tokens belong to each of them", () => {
    const text = "a안😉b";
    const { ids, starts, ends } = cl100k.encodeWithOffsets(text);
    const bytes = [...ids].map((id) => [...cl100k.tokenBytes(id)]);
    // By hand from the tokens' bytes: 1 + 3 + 4 + 1 bytes over units 0, 1, 2-3, 4.
    const unitOfByte = [0, 1, 1, 1, 2, 2, 2, 2, 4];
    const endOfByte = [1, 2, 2, 2, 4, 4, 4, 4, 5];
    let at = 0;
    bytes.forEach((token, i) => {
      expect([starts[i], ends[i]]).toEqual([unitOfByte[at], endOfByte[at + token.length - 1]]);
      at += token.length;
    });
    expect(at).toBe(9);
    expect(ids).toEqual(cl100k.encode(text));
  });

  test("cover the text, never decrease, and a token of whole characters has exactly its text", () => {
    for (const text of adversarialStrings(FULL ? 5_000 : 300, 6)) {
      const { ids, starts, ends } = cl100k.encodeWithOffsets(text, asText);
      let covered = 0;
      ids.forEach((id, i) => {
        expect(starts[i]).toBeLessThanOrEqual(covered);
        expect(ends[i]).toBeGreaterThanOrEqual(covered);
        const slice = text.slice(starts[i], ends[i]).replace(/\p{Surrogate}/gu, "\ufffd");
        const bytes = Buffer.from(cl100k.tokenBytes(id));
        expect(Buffer.from(slice).includes(bytes)).toBe(true);
        if (!bytes.toString().includes("\ufffd")) expect(slice).toBe(bytes.toString());
        covered = ends[i]!;
      });
      expect(covered).toBe(text.length);
    }
  });

  test("special tokens have theirs", () => {
    const { ids, starts, ends } = cl100k.encodeWithOffsets("hi<|endoftext|>😉", { allowedSpecial: "all" });
    expect(ids[1]).toBe(100_257);
    expect([starts[1], ends[1]]).toEqual([2, 15]);
    expect(ends.at(-1)).toBe(17);
  });
});

describe("special tokens", () => {
  const text = "a<|endoftext|>b<|fim_prefix|>";

  test("are refused by default, with their place and the way out", () => {
    expect(() => cl100k.encode(text)).toThrow(ArgumentError);
    expect(() => cl100k.encode(text)).toThrow(
      /"<\|endoftext\|>".*UTF-16 unit 1\..*allowedSpecial.*disallowedSpecial: \[\]/,
    );
    expect(() => cl100k.encode(text, { allowedSpecial: ["<|endoftext|>"] })).toThrow(/"<\|fim_prefix\|>".*unit 15/);
  });

  test("become their ids where allowed, text where not refused", () => {
    const all = [...cl100k.encode(text, { allowedSpecial: "all" })];
    expect(all).toEqual([64, 100_257, 65, 100_258]);
    const one = cl100k.encode(text, { allowedSpecial: ["<|fim_prefix|>"], disallowedSpecial: [] });
    expect(one.at(-1)).toBe(100_258);
    expect([...one]).not.toContain(100_257);
    expect(cl100k.decode(one)).toBe(text);
    expect(cl100k.decode(all)).toBe(text);
    expect([...cl100k.encode(text, asText)].every((id) => id < 100_256)).toBe(true);
    const oneRefused = () => cl100k.encode(text, { disallowedSpecial: ["<|fim_prefix|>"] });
    expect(oneRefused).toThrow(/fim_prefix/);
  });

  test("of several that start at one place the longest is meant", () => {
    const bpe = Bpe.train(["abab"], { vocabSize: 259, specialTokens: ["<a", "<a>"] });
    expect([...bpe.encode("<a><a", { allowedSpecial: "all" })]).toEqual([258, 257]);
  });

  test("hold characters that mean something in a regular expression", () => {
    const contents = ["[x]", "a+b", "(?)", "\\", "$^", "{1}", "-/-", "."];
    const bpe = Bpe.train(["abab"], { vocabSize: 256 + contents.length, specialTokens: contents });
    contents.forEach((content, i) => {
      expect([...bpe.encode(content, { allowedSpecial: "all" })]).toEqual([256 + i]);
    });
    expect([...bpe.encode("aab", { allowedSpecial: "all" })]).toEqual([97, 97, 98]);
  });

  test.each(["allowedSpecial", "disallowedSpecial"] as const)("an unknown one in %s is an error", (option) => {
    expect(() => cl100k.encode("a", { [option]: ["<|eot|>"] })).toThrow(/^options\..*<\|endoftext\|>.*got "<\|eot\|>"/);
    expect(() => cl100k.encode("a", { [option]: "<|endoftext|>" as "all" })).toThrow(/"all" or an array of strings/);
  });
});

describe("streaming", () => {
  test("gives what decode gives, never half a character", () => {
    for (const text of adversarialStrings(FULL ? 5_000 : 300, 7)) {
      const ids = cl100k.encode(text, asText);
      const decoder = new StreamingDecoder(cl100k);
      const parts = [...ids].map((id) => decoder.push(id));
      expect(parts.join("") + decoder.flush()).toBe(cl100k.decode(ids));
      const whole = text.replace(/\p{Surrogate}/gu, "\ufffd");
      for (const part of parts) {
        expect(part).not.toMatch(/\p{Surrogate}/u);
        if (!whole.includes("\ufffd")) expect(part).not.toContain("\ufffd");
      }
    }
  });

  test("any ids at all: the same text as decode", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(100_255), { maxLength: 30 }), (ids) => {
        const decoder = new StreamingDecoder(cl100k);
        expect(ids.map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(cl100k.decode(ids));
      }),
      { numRuns: 300 },
    );
  });

  test("an emoji in three tokens comes out with the last; a cut one as U+FFFD, and the next text is clean", () => {
    const bpe = Bpe.train(["x"], { vocabSize: 256 });
    const decoder = new StreamingDecoder(bpe);
    expect([0xf0, 0x9f, 0x98, 0x89].map((id) => decoder.push(id))).toEqual(["", "", "", "😉"]);
    expect(decoder.push(0xf0) + decoder.push(0x9f)).toBe("");
    expect(decoder.flush()).toBe("\ufffd");
    expect(decoder.push(97)).toBe("a");
    expect(decoder.flush()).toBe("");
  });
});

test("what is not a string is refused", () => {
  for (const text of [undefined, null, 5, ["a"]])
    expect(() => cl100k.encode(text as unknown as string)).toThrow(ArgumentError);
});

test("empty text is no ids, no ids are empty text", () => {
  expect(cl100k.encode("").length).toBe(0);
  expect(cl100k.decode([])).toBe("");
  expect(cl100k.encodeWithOffsets("").ids.length).toBe(0);
});
