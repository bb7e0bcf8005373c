/**
 * Encoding rules of byte-level BPE, without encoding anew.
 *
 * Two facts decide. Inside a piece of the split, a sequence is what merging gives exactly when each two neighbours are:
 * the first merge across an edge in the sequence is one in the pair too, for until then each token merges by itself, in
 * the same order. And which edges are edges of pieces is known of all but the end of a text, where it depends on what
 * follows: "\n " is one piece before another line end and two before a word. So the text's open end is split with each
 * kind of character behind it; a token is admitted where one of these splits
 *
 *     has no edge inside a token, and an edge wherever two neighbours would have merged
 *
 * An edge in all splits that remain is settled, and what stands before it is forgotten. Characters are told apart only as
 * far as the pattern does (letter, capital, number, ...), so few ends are ever met, and answers are kept.
 *
 * **Unlike** `round-trip-rules.ts`: admits also what begins an encoding without being one, and costs nothing that grows
 * with the text. It admits a little more than it need: a sequence whose last token every text would merge on (the first byte
 * of a character, where all characters that begin so are tokens). A model of encoder output gives that probability 0.
 *
 * Example: pattern cl100k, two blanks one token. After "a " as [a, ' '], ' ' is admitted, for a word may follow that takes the
 * second blank; after "a" the token of two blanks is too, for more blanks may follow.
 */

import { ArgumentError } from "../errors.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import { buildMergeTable } from "../tokenization/bpe-definition.ts";
import { BpeMerger } from "../tokenization/bpe-merger.ts";
import { characterAt, LENGTH_SHIFT } from "../tokenization/character-classes.ts";
import { type Scanner, scanCl100k, scanGpt2, scanO200k } from "../tokenization/split-scanner.ts";
import { concatBytes, TokenTable } from "../tokenization/token-table.ts";
import type { EncodingRules } from "./encoding-rules.ts";
import { characterLength, completionsByClass, wholeCharacters } from "./utf8-prefix.ts";

/** An edge between two tokens of the open end: where, and whether they would merge without an edge of pieces there. */
interface Edge {
  readonly at: number;
  readonly merges: boolean;
}

/** The text since the last settled edge, characters replaced by one of their class. */
class OpenEnd {
  readonly bytes: Uint8Array;
  readonly edges: readonly Edge[];
  /** Whether an edge of pieces is settled at its end: it is empty then, or the whole text is. */
  readonly settled: boolean;
  readonly mayEnd: boolean;
  /** Per group of tokens: 0 not yet known; else NEVER, JOINED or APART. */
  readonly groups: Uint8Array;

  constructor(bytes: Uint8Array, edges: readonly Edge[], settled: boolean, mayEnd: boolean, groups: number) {
    this.bytes = bytes;
    this.edges = edges;
    this.settled = settled;
    this.mayEnd = mayEnd;
    this.groups = new Uint8Array(groups);
  }
}

/** No split allows a token of this group here. */
const NEVER = 1;
/** A split allows it, but none has an edge of pieces in front of it. */
const JOINED = 2;
/** A split allows it behind an edge of pieces. */
const APART = 3;

class BpeState {
  readonly end: OpenEnd;
  /** The last token, -1 where nothing can merge with it. */
  readonly last: number;
  readonly next = new Map<number, BpeState>();

  constructor(end: OpenEnd, last: number) {
    this.end = end;
    this.last = last;
  }
}

/** One way to split an open end. */
interface Split {
  readonly edges: readonly number[];
  /** Of the text that ends there; otherwise of one that goes on. */
  readonly isEnd: boolean;
}

const UTF8 = new TextEncoder();
const nothing = new Uint8Array(0);

/** What may follow: an end, letters (those that contractions are made of too), marks, numbers, blanks, line ends, signs. */
const PROBES = ["", "a", "A", "s", "e", "l", "ll", "re", "\u0301", "0", " ", "\n", "!", "/", "\t", " a", "'s"].map(
  (text) => UTF8.encode(text),
);

/** A character and a probe, in bytes. */
const LONGEST_ENDING = 8;

/** Ends and states kept. */
const KEPT = 1 << 16;

export class BpeEncodingRules implements EncodingRules {
  readonly vocabularySize: number;
  readonly tokens: readonly (Uint8Array | undefined)[];
  readonly special: readonly number[];
  readonly start: BpeState;
  tested = 0;
  readonly #bpe: Bpe;
  readonly #merger: BpeMerger;
  readonly #scan: Scanner | undefined;
  /** Shapes of tokens: those of one shape look the same to the split. */
  readonly #groups: readonly Uint8Array[];
  readonly #groupOf: Int32Array;
  /** Per last token, per next one: 0 not yet known, 1 they stay two, 2 they merge. */
  readonly #pairs = new Map<number, Uint8Array>();
  #ends = new Map<string, OpenEnd>();
  #states = new Map<string, BpeState>();

  /** @throws ArgumentError on a normalizer, added tokens, a pattern that is a RegExp, or tokens no merge reaches */
  constructor(bpe: Bpe) {
    const { definition, pattern, normalizer } = bpe;
    const expected = "byte-level BPE that keeps the text and has a named split pattern";
    if (normalizer !== "none") throw new ArgumentError("tokenizer", expected, `the normalizer ${normalizer}`);
    if (definition.addedTokens.size > 0) {
      throw new ArgumentError("tokenizer", expected, `${definition.addedTokens.size} added tokens`);
    }
    if (typeof pattern !== "string") throw new ArgumentError("tokenizer", expected, `the pattern ${pattern.source}`);
    this.#bpe = bpe;
    this.#scan = { gpt2: scanGpt2, cl100k: scanCl100k, o200k: scanO200k, none: undefined }[pattern];
    const table = new TokenTable(definition.tokens);
    this.#merger = new BpeMerger(buildMergeTable(definition, table));
    this.vocabularySize = bpe.vocabularySize;
    this.special = [...definition.specialTokens.values()];
    this.tokens = Array.from({ length: bpe.vocabularySize }, (_, id) => {
      const bytes = definition.tokens[id];
      if (bytes === undefined) return undefined;
      if (this.#merger.merge(bytes, 0, bytes.length) === 1 && this.#merger.ids[0] === id) return bytes;
      if (!definition.wholePieces) return undefined; // never produced
      throw new ArgumentError("tokenizer", expected, `token ${id}, which is a token only as a whole piece`);
    });
    const groups = new Map<string, number>();
    const shapes: Uint8Array[] = [];
    this.#groupOf = Int32Array.from(this.tokens, (bytes) => {
      const shape = bytes && this.#shapeOf(bytes);
      if (shape === undefined) return -1;
      const key = shape.join();
      let group = groups.get(key);
      if (group === undefined) {
        group = shapes.push(shape) - 1;
        groups.set(key, group);
      }
      return group;
    });
    this.#groups = shapes;
    this.start = new BpeState(new OpenEnd(new Uint8Array(0), [], true, true, shapes.length), -1);
  }

  encode(text: string): Uint32Array {
    return this.#bpe.encode(text, { disallowedSpecial: [] });
  }

  admits(state: BpeState, id: number): boolean {
    const group = this.#groupOf[id]!;
    if (group < 0) return false;
    const { groups } = state.end;
    if (groups[group] === 0) groups[group] = this.#testGroup(state.end, this.#groups[group]!);
    const answer = groups[group]!;
    return answer === APART || (answer === JOINED && !this.#merges(state.last, id));
  }

  advance(state: BpeState, id: number): BpeState {
    let next = state.next.get(id);
    if (next === undefined) {
      next = this.#behind(state, id);
      state.next.set(id, next);
    }
    return next;
  }

  mayEnd(state: BpeState): boolean {
    return state.end.mayEnd;
  }

  #merges(left: number, right: number): boolean {
    if (left < 0) return false;
    let row = this.#pairs.get(left);
    if (row === undefined) {
      row = new Uint8Array(this.vocabularySize);
      this.#pairs.set(left, row);
    }
    if (row[right] === 0) {
      const both = concatBytes(this.tokens[left]!, this.tokens[right]!);
      const count = this.#merger.merge(both, 0, both.length);
      const stay = count === 2 && this.#merger.ids[0] === left && this.#merger.ids[1] === right;
      row[right] = stay ? 1 : 2;
      this.tested++;
    }
    return row[right] === 2;
  }

  #testGroup(end: OpenEnd, token: Uint8Array): number {
    this.tested++;
    const bytes = concatBytes(end.bytes, token);
    const whole = wholeCharacters(bytes);
    if (whole < 0) return NEVER;
    let answer = NEVER;
    for (const { edges } of this.#splits(bytes, whole, end)) {
      if (!fits(edges, bytes.length, end)) continue;
      if (edges.includes(end.bytes.length)) return APART;
      answer = JOINED;
    }
    return answer;
  }

  /** Edges of pieces in `bytes` and at its end, one set for each kind of text behind it. */
  *#splits(bytes: Uint8Array, whole: number, end: OpenEnd): Generator<Split, void> {
    const characters = whole === bytes.length ? [nothing] : completionsByClass(bytes.subarray(whole));
    const text = new Uint8Array(whole + LONGEST_ENDING);
    text.set(bytes.subarray(0, whole));
    for (const probe of PROBES) {
      for (const character of characters) {
        text.set(character, whole);
        text.set(probe, whole + character.length);
        const edges = this.#edges(text, whole + character.length + probe.length);
        if (end.settled) edges.push(0);
        yield { edges, isEnd: probe.length === 0 && whole === bytes.length };
      }
    }
  }

  #edges(text: Uint8Array, length: number): number[] {
    const edges: number[] = [];
    if (this.#scan !== undefined) {
      for (let at = this.#scan(text, 0, length); at < length; at = this.#scan(text, at, length)) edges.push(at);
    }
    return edges;
  }

  #behind({ end, last }: BpeState, id: number): BpeState {
    const token = this.tokens[id]!;
    const bytes = concatBytes(end.bytes, token);
    const whole = wholeCharacters(bytes);
    const junction: Edge = { at: end.bytes.length, merges: this.#merges(last, id) };
    const longer = new OpenEnd(bytes, junction.at === 0 ? [] : [...end.edges, junction], end.settled, false, 0);
    if (this.#scan === undefined) {
      const cut = bytes.slice(whole);
      return this.#state(cut, [], false, cut.length === 0, id);
    }
    // An edge that every text has which goes on from here is settled. Those the tokens do not fit count too: which of them
    // it is may be decided by a later byte of a character that is cut here.
    let common: readonly number[] | undefined;
    let mayEnd = false;
    for (const { edges, isEnd } of this.#splits(bytes, whole, longer)) {
      if (isEnd) mayEnd = fits(edges, bytes.length, longer);
      else common = common === undefined ? edges : common.filter((at) => edges.includes(at));
    }
    let settled = 0;
    for (const at of common ?? []) if (at <= bytes.length) settled = Math.max(settled, at);
    if (settled === bytes.length) return this.#state(new Uint8Array(0), [], true, mayEnd, -1);
    const edges = longer.edges.filter(({ at }) => at > settled).map(({ at, merges }) => ({ at: at - settled, merges }));
    return this.#state(this.#shape(bytes.subarray(settled)), edges, settled > 0 || end.settled, mayEnd, id);
  }

  #state(bytes: Uint8Array, edges: readonly Edge[], settled: boolean, mayEnd: boolean, last: number): BpeState {
    const marks = edges.map(({ at, merges }) => (merges ? -at : at)).join();
    const endKey = `${bytes.join()};${marks};${settled};${mayEnd}`;
    if (this.#ends.size >= KEPT || this.#states.size >= KEPT) {
      this.#ends = new Map();
      this.#states = new Map();
    }
    let end = this.#ends.get(endKey);
    if (end === undefined) {
      end = new OpenEnd(bytes, edges, settled, mayEnd, this.#groups.length);
      this.#ends.set(endKey, end);
    }
    const key = `${last};${endKey}`;
    let state = this.#states.get(key);
    if (state === undefined) {
      state = new BpeState(end, last);
      this.#states.set(key, state);
    }
    return state;
  }

  /** A token with its characters replaced, undefined where it cannot stand in UTF-8. */
  #shapeOf(token: Uint8Array): Uint8Array | undefined {
    let at = 0;
    while (at < token.length && token[at]! >= 0x80 && token[at]! <= 0xbf) at++;
    const rest = token.subarray(at);
    if (at > 3 || wholeCharacters(rest) < 0) return undefined;
    return concatBytes(token.subarray(0, at), this.#shape(rest, 2 - at));
  }

  /**
   * Each whole character replaced by one that the pattern does not tell from it. What is cut stays.
   * @param behind how many of the bytes may stand behind an apostrophe in front of them
   */
  #shape(bytes: Uint8Array, behind = 0): Uint8Array {
    const shaped = bytes.slice();
    if (this.#scan === undefined) return shaped;
    for (let at = 0; at < bytes.length; ) {
      const length = characterLength(bytes[at]!);
      if (at + length > bytes.length) break;
      const contracts = at < behind || bytes[at - 1] === APOSTROPHE || bytes[at - 2] === APOSTROPHE;
      shaped.set(alike(bytes, at, contracts), at);
      at += length;
    }
    return shaped;
  }
}

/** Whether a split has no edge inside a token, and one wherever two tokens would have merged. */
function fits(edges: readonly number[], length: number, end: OpenEnd): boolean {
  const between = end.edges;
  for (const at of edges) {
    if (at > 0 && at < length && at !== end.bytes.length && !between.some((edge) => edge.at === at)) return false;
  }
  return between.every(({ at, merges }) => !merges || edges.includes(at));
}

const APOSTROPHE = 0x27;
const codes = (characters: string): ReadonlySet<number> => new Set(Array.from(characters, (one) => one.charCodeAt(0)));
/** ASCII characters the patterns name one by one: blanks, line ends, the apostrophe and the slash ... */
const NAMED = codes(" \t\r\n'/");
/** ... and, up to two bytes behind an apostrophe, the letters of contractions. */
const CONTRACTED = codes("sdmtlrveSDMTLRVE");
const LONG_S = UTF8.encode("\u017f");
/** One character for each class and length, none of those above. */
const byClass = new Map<number, Uint8Array>(
  ["a", "A"].map((one) => UTF8.encode(one)).map((one) => [characterAt(one, 0), one]),
);

/** A character of the class and length of the one at `at`, or itself where patterns name it. */
function alike(bytes: Uint8Array, at: number, contracts: boolean): Uint8Array {
  const classes = characterAt(bytes, at);
  const character = bytes.slice(at, at + (classes >> LENGTH_SHIFT));
  const first = character[0]!;
  const isNamed = character.length === 1 && (NAMED.has(first) || (contracts && CONTRACTED.has(first)));
  if (isNamed || (first === LONG_S[0] && character[1] === LONG_S[1])) return character;
  const known = byClass.get(classes);
  if (known !== undefined) return known;
  byClass.set(classes, character);
  return character;
}
