/**
 * Split patterns: how a text falls into pieces before BPE, for byte-level BPE never merges across a piece's edge.
 *
 * The reference patterns are written for Rust's `fancy-regex`. Read by JavaScript they split differently, because
 * JavaScript's `\s` holds U+FEFF and lacks U+0085, and because `(?i:'s)` must also match the long s (U+017F). Here
 * whitespace is spelled out as Unicode's White_Space and the contractions as character classes, so the pieces are the
 * reference's. `\p{L}` and its kin follow the engine's Unicode version (`process.versions.unicode`).
 *
 * **Deviations**: text that a caller's own pattern leaves unmatched becomes pieces too (tiktoken would drop it), so
 * that nothing is ever lost. Some releases of tiktoken put `\s+$` before the newline rule of cl100k; its WebAssembly
 * build, the oracle here, does not, and the ids are the same either way on every string tried.
 *
 * Example: gpt2 splits "I'll  go" into `I`, `'ll`, ` `, ` go`.
 */

import { ArgumentError } from "../errors.ts";

/**
 * `"gpt2"` (r50k, p50k), `"cl100k"` (GPT-4), `"o200k"` (GPT-4o); `"none"` keeps the whole text as one piece.
 * All but the last are exactly the reference's, proved against its WebAssembly build in the tests.
 */
export type SplitPatternName = "gpt2" | "cl100k" | "o200k" | "none";

/** A named pattern, or a regular expression whose matches are the pieces (unmatched text between them too). */
export type SplitPattern = SplitPatternName | RegExp;

/** The members of Unicode White_Space, for use inside a character class. */
export const WHITE_SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const W = `[${WHITE_SPACE}]`;
const N = `[^${WHITE_SPACE}]`;
const WORD_LIKE = `${WHITE_SPACE}\\p{L}\\p{N}`;
/** `(?i:'s|'t|'re|'ve|'m|'ll|'d)`: case folding takes the long s to s. */
const CONTRACTION = "'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])";
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";

const SOURCES: Record<Exclude<SplitPatternName, "none">, string> = {
  gpt2: ["'(?:[sdmt]|ll|ve|re)", " ?\\p{L}+", " ?\\p{N}+", ` ?[^${WORD_LIKE}]+`, `${W}+(?!${N})`, `${W}+`].join("|"),
  cl100k: [
    CONTRACTION,
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
    "\\p{N}{1,3}",
    ` ?[^${WORD_LIKE}]+[\\r\\n]*`,
    `${W}*[\\r\\n]+`,
    `${W}+(?!${N})`,
    `${W}+`,
  ].join("|"),
  o200k: [
    `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+(?:${CONTRACTION})?`,
    `[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*(?:${CONTRACTION})?`,
    "\\p{N}{1,3}",
    ` ?[^${WORD_LIKE}]+[\\r\\n/]*`,
    `${W}*[\\r\\n]+`,
    `${W}+(?!${N})`,
    `${W}+`,
  ].join("|"),
};

/** The pattern as a regular expression with the flags `g` and `u`; undefined for `"none"`. A fresh object. */
export function patternToRegExp(pattern: SplitPattern): RegExp | undefined {
  checkPattern(pattern);
  if (pattern === "none") return undefined;
  if (typeof pattern === "string") return new RegExp(SOURCES[pattern], "gu");
  const flags = new Set(pattern.flags.replace("y", ""));
  flags.add("g");
  if (!flags.has("v")) flags.add("u");
  try {
    return new RegExp(pattern.source, [...flags].join(""));
  } catch (error) {
    throw new ArgumentError(
      "pattern",
      "a RegExp that is valid with the flag u",
      String(pattern),
      (error as Error).message,
    );
  }
}

/**
 * Pieces of `text`, in order; they concatenate to `text`. Empty for an empty text.
 * The plain form: `split-scanner.ts` finds the same pieces of the named patterns without a regular expression.
 */
export function splitText(text: string, pattern: SplitPattern): string[] {
  const pieces: string[] = [];
  let done = 0;
  for (const end of pieceEnds(text, pattern)) {
    pieces.push(text.slice(done, end));
    done = end;
  }
  return pieces;
}

/** Where each piece ends, in UTF-16 units, ascending; the last is `text.length`. */
export function* pieceEnds(text: string, pattern: SplitPattern): Generator<number, void> {
  const expression = patternToRegExp(pattern);
  let done = 0;
  if (expression !== undefined) {
    for (const match of text.matchAll(expression)) {
      const end = match.index + match[0].length;
      if (end === match.index) continue;
      if (match.index > done) yield match.index;
      yield end;
      done = end;
    }
  }
  if (done < text.length) yield text.length;
}

/** The reference spelling of the named patterns, as tokenizer files carry it. */
const REFERENCES: Record<Exclude<SplitPatternName, "none">, string> = {
  gpt2: "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  cl100k:
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" +
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  o200k:
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" +
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" +
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
};

/** How a tokenizer file spells the pattern; undefined for an expression that Oniguruma would read differently. */
export function patternToReference(pattern: RegExp | Exclude<SplitPatternName, "none">): string | undefined {
  if (typeof pattern === "string") return REFERENCES[pattern];
  return /[imsv]/.test(pattern.flags) || translate(pattern.source) !== pattern.source ? undefined : pattern.source;
}

/**
 * The pattern a tokenizer file spells, undefined where it cannot be had exactly in JavaScript. Beside the named ones:
 * any expression in the syntax both sides share, with `\s` and `\S` read as White_Space and the usual group of
 * contractions expanded. Possessive and lazy quantifiers, inline flags and look-behind are not shared.
 */
export function patternFromReference(reference: string): SplitPattern | undefined {
  for (const name of ["gpt2", "cl100k", "o200k"] as const) if (reference === REFERENCES[name]) return name;
  const source = translate(reference.replaceAll("(?i:'s|'t|'re|'ve|'m|'ll|'d)", `(?:${CONTRACTION})`));
  if (source === undefined) return undefined;
  try {
    return new RegExp(source, "gu");
  } catch {
    return undefined;
  }
}

/** Spell out `\s` and `\S`; undefined on syntax that JavaScript lacks or reads differently. */
function translate(reference: string): string | undefined {
  let source = "";
  let inClass = false;
  for (const [token] of reference.matchAll(/\\[pP]\{[^}]*\}|\\u[\da-fA-F]{4}|\\.|\(\?.|[*+?}][+?]|&&|./gsu)) {
    let spelled = token;
    if (token === "[") {
      if (inClass) return undefined; // a nested class
      inClass = true;
    } else if (token === "]") {
      inClass = false;
    } else if (token === "\\s") {
      spelled = inClass ? WHITE_SPACE : W;
    } else if (token === "\\S") {
      if (inClass) return undefined;
      spelled = N;
    } else if (token.startsWith("\\")) {
      if (!/^\\[pP]\{|^\\u.|^\\[nrt'\\^$.*+?()[\]{}|/-]/.test(token)) return undefined;
      if (token === "\\'") spelled = "'";
    } else if (!inClass && (/^[*+?}][+?]$|^[.^$]$/.test(token) || (token.startsWith("(?") && !/[:=!]$/.test(token)))) {
      return undefined; // possessive, lazy, look-behind, inline flags, anchors
    } else if (inClass && token === "&&") {
      return undefined;
    }
    source += spelled;
  }
  return source;
}

/** @throws ArgumentError unless `pattern` is a known name or a regular expression */
export function checkPattern(pattern: SplitPattern): void {
  if (pattern instanceof RegExp || pattern === "none" || Object.hasOwn(SOURCES, pattern)) return;
  throw new ArgumentError("pattern", '"gpt2", "cl100k", "o200k", "none" or a RegExp', pattern);
}
