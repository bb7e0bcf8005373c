import { describe, expect, test } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { splitText } from "../../src/tokenization/index.ts";
import { type Scanner, scanCl100k, scanGpt2, scanO200k } from "../../src/tokenization/split-scanner.ts";
import { adversarialStrings, declarations, FULL, messages } from "./texts.ts";

const SCANNERS = { gpt2: scanGpt2, cl100k: scanCl100k, o200k: scanO200k } as const;

function scanText(text: string, scan: Scanner): string[] {
  const bytes = new TextEncoder().encode(text);
  const pieces: string[] = [];
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });
  for (let start = 0; start < bytes.length; ) {
    const end = scan(bytes, start, bytes.length);
    pieces.push(decoder.decode(bytes.subarray(start, end)));
    start = end;
  }
  return pieces;
}

describe.each(["gpt2", "cl100k", "o200k"] as const)("%s", (pattern) => {
  const scan = SCANNERS[pattern];

  test("the scanner finds the pieces of the regular expression: adversarial strings", () => {
    for (const raw of adversarialStrings(FULL ? 100_000 : 5_000, 3)) {
      const text = raw.replace(/\p{Surrogate}/gu, "\ufffd");
      expect(scanText(text, scan)).toEqual(splitText(text, pattern));
    }
  });

  test("the scanner finds the pieces of the regular expression: every character between its likely neighbours", () => {
    const step = FULL ? 1 : 23;
    for (const [before, after] of [
      ["", "a"],
      [" ", " "],
      ["'", "s"],
      ["A", "b"],
      ["b", "A"],
      ["\n", "'t"],
      ["1", "/"],
    ] as const) {
      for (let code = 0; code < 0x20000; code += step) {
        if (code >= 0xd800 && code < 0xe000) continue;
        const text = before + String.fromCodePoint(code) + after;
        const pieces = scanText(text, scan);
        const expected = splitText(text, pattern);
        if (pieces.join("\0") !== expected.join("\0")) expect(pieces, code.toString(16)).toEqual(expected);
      }
    }
  });

  test("the scanner finds the pieces of the regular expression: real text", () => {
    for (const text of [...messages().values(), declarations()[0]!]) {
      const part = FULL ? text : text.slice(0, 20_000);
      expect(scanText(part, scan)).toEqual(splitText(part, pattern));
    }
  });
});

test("pieces of the named patterns, by hand", () => {
  const text = "I'll  GO'S xY'ſ1234 !?\n\n z\u0085\ufeff";
  expect(splitText(text, "gpt2")).toEqual([
    "I",
    "'ll",
    " ",
    " GO",
    "'",
    "S",
    " xY",
    "'",
    "ſ",
    "1234",
    " !?",
    "\n\n",
    " z",
    "\u0085",
    "\ufeff",
  ]);
  expect(splitText(text, "cl100k")).toEqual([
    "I",
    "'ll",
    " ",
    " GO",
    "'S",
    " xY",
    "'ſ",
    "123",
    "4",
    " !?\n\n",
    " z",
    "\u0085",
    "\ufeff",
  ]);
  expect(splitText(text, "o200k")).toEqual([
    "I'll",
    " ",
    " GO'S",
    " x",
    "Y'ſ",
    "123",
    "4",
    " !?\n\n",
    " z",
    "\u0085",
    "\ufeff",
  ]);
  expect(splitText(text, "none")).toEqual([text]);
  expect(splitText("", "gpt2")).toEqual([]);
});

test("a pattern of one's own: matches are pieces and so is what lies between", () => {
  expect(splitText("ab12cd", /\d/)).toEqual(["ab", "1", "2", "cd"]);
  expect(splitText("ab", /(?:)/y)).toEqual(["ab"]);
  expect(splitText("😉😉", /./)).toEqual(["😉", "😉"]);
});

test("a pattern that is not valid Unicode-wise is refused, unknown names too", () => {
  const source = "\\j"; // a needless escape, an error with the flag u
  expect(() => splitText("a", new RegExp(source))).toThrow(/^pattern: expected a RegExp that is valid with the flag u/);
  expect(() => splitText("a", "gpt3" as "gpt2")).toThrow(ArgumentError);
  expect(() => splitText("a", "toString" as "gpt2")).toThrow(
    /"gpt2", "cl100k", "o200k", "none" or a RegExp, got "toString"/,
  );
});
