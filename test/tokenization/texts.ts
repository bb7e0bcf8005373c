/** Texts the tokenizer tests and benchmarks run on: what comes with TypeScript, and adversarial strings from a seed. */

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { Bpe } from "../../src/tokenization/index.ts";

const require = createRequire(import.meta.url);
const LIBRARY = dirname(require.resolve("typescript"));

/** TypeScript's library declarations, one text per file, in order of file name. */
export function declarations(): string[] {
  const files = readdirSync(LIBRARY).filter((name) => name.endsWith(".d.ts"));
  return files.sort().map((name) => readFileSync(join(LIBRARY, name), "utf8"));
}

/** TypeScript's diagnostic messages by language code: 13 languages. */
export function messages(): Map<string, string> {
  const byLanguage = new Map<string, string>();
  for (const entry of readdirSync(LIBRARY, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    byLanguage.set(entry.name, readFileSync(join(LIBRARY, entry.name, "diagnosticMessages.generated.json"), "utf8"));
  }
  return byLanguage;
}

export const ENCODINGS = { r50k_base: "gpt2", cl100k_base: "cl100k", o200k_base: "o200k" } as const;
export type EncodingName = keyof typeof ENCODINGS;

/** What the npm package tiktoken ships per encoding. */
export interface ShippedRanks {
  readonly bpe_ranks: string;
  readonly special_tokens: Record<string, number>;
}

export function shippedRanks(name: EncodingName): ShippedRanks {
  return require(`tiktoken/encoders/${name}.json`) as ShippedRanks;
}

export function loadEncoding(name: EncodingName): Bpe {
  const { bpe_ranks, special_tokens } = shippedRanks(name);
  return Bpe.fromTiktoken(bpe_ranks, { pattern: ENCODINGS[name], specialTokens: special_tokens });
}

/** A small seeded generator (mulberry32): 32-bit integers. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

const FRAGMENTS: readonly (readonly string[])[] = [
  // white space, real and apparent: U+FEFF and U+200B are not, U+0085 is
  [
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\v",
    "\f",
    "\x85",
    "\xa0",
    "\u1680",
    "\u2000",
    "\u2009",
    "\u2028",
  ],
  ["\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u200b", "\u180e", "\0", "\x1c", "\x1f", " \n ", "\n ", " \t"],
  // contractions, case folding: the long s and the Kelvin sign
  [
    "'s",
    "'S",
    "'ſ",
    "'t",
    "'LL",
    "'ll",
    "'lL",
    "'vE",
    "'ve",
    "'RE",
    "'re",
    "'d",
    "'M",
    "'x",
    "''",
    "'",
    "’s",
    "'ſt",
    "'v",
  ],
  ["ſ", "K", "İ", "ß", "ŉ", "Ǆ", "ǅ", "ǆ", "ﬁ", "ﬆ", "ª", "º", "ʰ", "ͅ"],
  // words of several scripts and cases
  ["a", "A", "the", "The", "HELLO", "camelCase", "XMLHttpRequest", "don", "zz", "Äpfel", "éa", "e\u0301", "İstanbul"],
  [
    "при",
    "Вет",
    "ЁЖ",
    "αβΓ",
    "ής",
    "שלום",
    "عَرَبِي",
    "हिन्दी",
    "ไทย",
    "漢字",
    "かな",
    "カナ",
    "한국어",
    "ㄱ",
    "ქართ",
    "ᏣᎳ",
  ],
  // numbers
  ["0", "1", "12", "123", "1234", "12345678", "٣", "४५", "Ⅷ", "½", "²", "①", "一", "𝟘𝟙", "𐄇"],
  // punctuation, symbols, marks, emoji with joiners, lone surrogates, unassigned
  [
    ".",
    ",",
    "!",
    "/",
    "//",
    "\\",
    "{}",
    "();",
    "_",
    "__",
    "-",
    "--",
    "…",
    "«",
    "€",
    "\u0301",
    "\u20dd",
    "\u0903",
    "\u200d",
  ],
  [
    "😉",
    "👨‍👩‍👧‍👦",
    "👍🏽",
    "🇩🇪",
    "❤️",
    "\ufe0f",
    "\ud800",
    "\udc00",
    "\udfff\ud83d",
    "\ud83d",
    "�",
    "\u0378",
    "\u{10ffff}",
    "\ue000",
  ],
  ["<|endoftext|>", "<|", "|>", "<|endof", "𝒳", "𝐀b", "𐐀𐐨", "\u{1f1e6}", "\u{20000}"],
];

/** Strings of 0 to 24 fragments that tokenizers get wrong, lone surrogates included. Same seed, same strings. */
export function adversarialStrings(count: number, seed: number): string[] {
  const next = seeded(seed);
  const below = (n: number): number => next() % n;
  const fragment = (group: readonly string[]): string => group[below(group.length)]!;
  return Array.from({ length: count }, () => {
    // Some strings stay within two groups, so that long runs of one kind occur.
    const groups =
      below(3) === 0 ? [FRAGMENTS[below(FRAGMENTS.length)]!, FRAGMENTS[below(FRAGMENTS.length)]!] : FRAGMENTS;
    let text = "";
    for (let length = below(25); length > 0; length--) {
      const kind = below(20);
      if (kind <= 1) text += anyCharacter(below);
      else if (kind === 2) text += fragment(groups[below(groups.length)]!).repeat(1 + below(5));
      else text += fragment(groups[below(groups.length)]!);
    }
    return text;
  });
}

/**
 * Ranges that hold no letter, number or mark assigned in Unicode 15.1, 16 or 17: there, tokenizers differ as their
 * engines' Unicode versions do (the oracle has 16, Node 20 from 15 to 17). Surrogates are in.
 */
const SETTLED = [
  [0, 0x88f],
  [0xd00, 0x1ac0],
  [0x2000, 0x2fe0],
  [0x3000, 0xa7c0],
  [0xa900, 0x105c0],
  [0x1f000, 0x20000],
] as const;

function anyCharacter(below: (n: number) => number): string {
  const [from, to] = SETTLED[below(SETTLED.length)]!;
  return String.fromCodePoint(from + below(to - from));
}

/** How far to go: the whole of it with TOKENTHRIFT_FULL, a sample otherwise. */
export const FULL = process.env["TOKENTHRIFT_FULL"] !== undefined;
