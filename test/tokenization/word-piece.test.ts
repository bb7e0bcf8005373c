/** WordPiece: the card's examples, a quadratic twin, training by hand, offsets, bad input. Files: hugging-face.test.ts. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import { bertNormalize } from "../../src/tokenization/bert-normalizer.ts";
import {
  BERT_UNCASED,
  StreamingDecoder,
  WordPiece,
  type WordPieceTrainingOptions,
} from "../../src/tokenization/index.ts";
import { trainWordPieces } from "../../src/tokenization/word-piece-trainer.ts";
import { declarations, FULL } from "./texts.ts";

function ofTokens(tokens: readonly string[], change: Partial<WordPiece["definition"]> = {}): WordPiece {
  return new WordPiece({
    source: "test",
    tokens: ["[UNK]", ...tokens],
    unknownId: 0,
    prefix: "##",
    longestWord: 100,
    split: "bert",
    cleanUp: true,
    normalizer: "none",
    specialTokens: new Map(),
    addedTokens: new Map(),
    normalizedTokens: new Set(),
    ...change,
  });
}
const spelled = (tokenizer: WordPiece, text: string): string[] =>
  Array.from(tokenizer.encode(text), (id) => Buffer.from(tokenizer.tokenBytes(id)).toString());

test("the card's words: longest first, unknown as a whole, at most a hundred characters", () => {
  const tokenizer = ofTokens(["un", "##aff", "##able", "run", "##ning", "##n", "##ing", "a", "##a"]);
  expect(spelled(tokenizer, "unaffable running")).toEqual(["un", "##aff", "##able", "run", "##ning"]);
  expect(spelled(tokenizer, "unaffablex run")).toEqual(["[UNK]", "run"]);
  expect(spelled(tokenizer, "a".repeat(101))).toEqual(["[UNK]"]);
  expect(spelled(tokenizer, "a".repeat(100))).toHaveLength(100);
  expect(spelled(tokenizer, "a".repeat(500))).toEqual(["[UNK]"]);
  expect([...tokenizer.encode(" \n")]).toEqual([]);
});

test("decoding: prefixes go, spaces come, not before punctuation and contractions", () => {
  const tokenizer = ofTokens(["un", "##aff", ",", ".", "'s", "$", "##x"]);
  expect(tokenizer.decode([1, 2, 3, 1, 5, 4, 6])).toBe("unaff, un's. $");
  expect(tokenizer.decode([2, 1])).toBe("##aff un");
  expect(ofTokens(["un", ","], { cleanUp: false }).decode([1, 2])).toBe("un ,");
  expect(Buffer.from(tokenizer.bytesAfter(1, 2)).toString()).toBe("aff");
  const decoder = new StreamingDecoder(tokenizer);
  expect([1, 2, 3, 1].map((id) => decoder.push(id)).join("")).toBe("unaff, un");
});

test("BERT's normalizer, by hand", () => {
  expect(bertNormalize("Ünder\t中国\u200d\u0000É", BERT_UNCASED)).toBe("under  中  国 e");
  expect(bertNormalize("ΑΣ", BERT_UNCASED)).toBe("ας".replace("ς", "σ"));
  expect(bertNormalize("É", { ...BERT_UNCASED, stripAccents: false })).toBe("é");
  expect(
    bertNormalize("É\u0007", { cleanText: false, chineseCharacters: false, stripAccents: false, lowercase: false }),
  ).toBe("É\u0007");
});

test("equals the loop that tries every length, on random words and vocabularies", () => {
  const unit = fc.constantFrom("a", "b", "é", "😉");
  const slow = (tokens: readonly string[], word: string): string[] => {
    const characters = [...word];
    const found: string[] = [];
    for (let start = 0; start < characters.length; ) {
      let end = characters.length;
      const candidate = (): string => (start > 0 ? "##" : "") + characters.slice(start, end).join("");
      while (end > start && !tokens.includes(candidate())) end--;
      if (end === start) return ["[UNK]"];
      found.push(candidate());
      start = end;
    }
    return found;
  };
  const token = fc.tuple(fc.boolean(), fc.string({ unit, minLength: 1, maxLength: 3 }));
  fc.assert(
    fc.property(
      fc.uniqueArray(token, { minLength: 1, maxLength: 12, selector: String }),
      fc.string({ unit, minLength: 1 }),
      (made, word) => {
        const tokens = made.map(([continues, text]) => (continues ? `##${text}` : text));
        expect(spelled(ofTokens(tokens, { split: "white-space" }), word)).toEqual(slow(tokens, word));
      },
    ),
    { numRuns: FULL ? 20_000 : 500 },
  );
});

describe("training", () => {
  const words = new Map(Object.entries({ hug: 10, pug: 5, pun: 12, bun: 4, hugs: 5 }));
  const options = { prefix: "##", leastCount: 1 } as const;

  test("by hand: likelihood joins what is rare apart, frequency what is common", () => {
    // ##g ##s 5 / (20 * 5); then h ##u 15 / (15 * 36), and all others with ##u have 1/36 too: h ##u is met first;
    // then hu ##gs 5 / (15 * 5), before hu ##g 10 / (15 * 15).
    expect(trainWordPieces(words, 3, { ...options, score: "likelihood" })).toEqual(["##gs", "hu", "hugs"]);
    expect(trainWordPieces(words, 3, { ...options, score: "frequency" })).toEqual(["##ug", "##un", "hug"]);
    expect(trainWordPieces(words, 99, { ...options, leastCount: 6, score: "likelihood" })).not.toContain("##gs");
  });

  test("each step takes a pair with the best score, counted anew", () => {
    const text = declarations()[1]!.slice(0, FULL ? 20_000 : 3000);
    const counts = new Map<string, number>();
    for (const word of text.match(/\w+/g)!) counts.set(word, (counts.get(word) ?? 0) + 1);
    for (const score of ["likelihood", "frequency"] as const) {
      const added = trainWordPieces(counts, 40, { prefix: "##", score, leastCount: 2 });
      let spellings = [...counts].map(([word, n]) => ({ n, parts: [...word].map((c, i) => (i ? `##${c}` : c)) }));
      for (const token of added) {
        const single = new Map<string, number>();
        const pairs = new Map<string, number>();
        for (const { n, parts } of spellings) {
          parts.forEach((part, i) => {
            single.set(part, (single.get(part) ?? 0) + n);
            if (i > 0) pairs.set(`${parts[i - 1]} ${part}`, (pairs.get(`${parts[i - 1]} ${part}`) ?? 0) + n);
          });
        }
        const scored = [...pairs]
          .filter(([, n]) => n >= 2)
          .map(([pair, n]) => {
            const [a, b] = pair.split(" ") as [string, string];
            return { a, b, value: score === "frequency" ? n : n / (single.get(a)! * single.get(b)!) };
          });
        const best = Math.max(...scored.map(({ value }) => value));
        const chosen = scored.find(({ a, b, value }) => value === best && a + b.slice(2) === token)!;
        expect(chosen, token).toBeDefined();
        spellings = spellings.map(({ n, parts }) => {
          const next: string[] = [];
          for (let i = 0; i < parts.length; i++) {
            const isPair = parts[i] === chosen.a && parts[i + 1] === chosen.b;
            next.push(isPair ? token : parts[i]!);
            if (isPair) i++;
          }
          return { n, parts: next };
        });
      }
    }
  });

  test("ids: unknown, special, characters, joined; every word of the text is known", () => {
    // h ##u 2 / (2 * 3), ##u ##g 3 / (3 * 3): the first; then hu ##g; ##u ##g is left once, too rarely.
    const tokenizer = WordPiece.train(["hug hug pug"], { vocabSize: 8, specialTokens: ["[CLS]"] });
    const tokens = Array.from({ length: 8 }, (_, id) => Buffer.from(tokenizer.tokenBytes(id)).toString());
    expect(tokens).toEqual(["[UNK]", "[CLS]", "h", "p", "##g", "##u", "hu", "hug"]);
    expect([...tokenizer.encode("pug[CLS]", { allowedSpecial: "all" })].at(-1)).toBe(1);
    const text = declarations()[1]!.slice(0, 20_000);
    expect([...WordPiece.train([text], { vocabSize: 450 }).encode(text)]).not.toContain(0);
  });

  test("texts of known words and single spaces come back, and encode to the same ids", () => {
    const tokenizer = WordPiece.train([declarations()[1]!.slice(0, 20_000)], { vocabSize: 450, score: "frequency" });
    const word = fc.constantFrom("interface", "string", "number", "void", "declare", "type", "readonly", "Array");
    fc.assert(
      fc.property(fc.array(word), (chosen) => {
        const text = chosen.join(" ");
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
    );
  });

  test.each<[string, Partial<WordPieceTrainingOptions>, RegExp]>([
    ["too small", { vocabSize: 3 }, /options.vocabSize: expected an integer from 5/],
    ["too large", { vocabSize: 99 }, /options.vocabSize: expected at most \d+, all that these texts can fill/],
    ["another score", { score: "x" as "likelihood" }, /options.score/],
    ["another split", { split: "x" as "bert" }, /split: expected bert/],
    ["no least count", { leastCount: 0 }, /options.leastCount/],
    ["no word length", { longestWord: 0.5 }, /options.longestWord/],
    ["an empty prefix", { prefix: "" }, /options.prefix/],
    ["a special token twice", { specialTokens: ["a", "a"] }, /options.specialTokens/],
  ])("refuses %s", (_, change, message) => {
    expect(() => WordPiece.train(["hug hugs"], { vocabSize: 7, ...change })).toThrow(ArgumentError);
    expect(() => WordPiece.train(["hug hugs"], { vocabSize: 7, ...change })).toThrow(message);
  });

  test("refuses texts without a word, or a single string", () => {
    expect(() => WordPiece.train([" "], { vocabSize: 7 })).toThrow(/at least one text that has a word/);
    expect(() => WordPiece.train("hug", { vocabSize: 7 })).toThrow(/Put a single text in an array/);
  });
});

test("offsets: each token covers its letters, and normalization is undone", () => {
  const tokenizer = ofTokens(["un", "##aff", "中", ".", "e"], { normalizer: BERT_UNCASED });
  const text = "  Ünaff 中.E\u0301x";
  const { ids, starts, ends } = tokenizer.encodeWithOffsets(text);
  expect(Array.from(ids, (_, i) => text.slice(starts[i], ends[i]))).toEqual(["Ün", "aff", "中", ".", "E\u0301x"]);
  expect([...ids]).toEqual([1, 2, 3, 4, 0]);
});

test("refuses ids outside, gaps, special tokens, and a vocabulary without the unknown token", () => {
  const tokenizer = ofTokens(["a", undefined as unknown as string, "b"]);
  for (const id of [-1, 2, 4, 0.5, Number.NaN]) expect(() => tokenizer.decode([id]), String(id)).toThrow(ArgumentError);
  const special = ofTokens(["a"], { specialTokens: new Map([["[CLS]", 2]]) });
  expect(() => special.encode("a[CLS]")).toThrow(ArgumentError);
  expect([...special.encode("a[CLS]", { allowedSpecial: ["[CLS]"] })]).toEqual([1, 2]);
  expect(() => special.encode("a", { allowedSpecial: ["<x>"] })).toThrow(ArgumentError);
  expect(() => ofTokens(["a"], { unknownId: 7 })).toThrow(FormatError);
  expect(() => tokenizer.encode(undefined as unknown as string)).toThrow(ArgumentError);
});
