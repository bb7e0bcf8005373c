/**
 * Exact byte-level probabilities of a tokenized model (Phan, Amos, Gat, Havasi, Muckley, Ullrich, arXiv 2410.09303: the
 * byte-token representation lemma and the sampler built on it).
 *
 * A model given encode(prompt) has been told more than the prompt: that no token runs across its end. A prompt that stops
 * inside a word is then followed by anything but the rest of that word. The bytes' own law is a sum over all encodings that
 * cover them, and the sum is small: all left parts are beginnings of encodings, and only the last token goes further.
 *
 *     cover(x)      = { t : t begins some text's encoding, bytes(t) begin with x, bytes(t without its last) do not }
 *     P(x ...)      = sum over t in cover(x) of P(t)                P(b | x) = P(x b ...) / P(x ...)
 *     P(x b ...)    = sum over covers that go on with b  +  sum over paths t that end at x, tokens v from b on: P(t) P(v | t)
 *
 * From byte to byte: covers that go on otherwise are dropped, tokens behind the paths that end here become new covers, and
 * a cover whose bytes are used up is a path that ends here. Its law is the one model call of the byte.
 *
 * **Exact** for a model that gives probability 0 to what is no beginning of an encoding. A trained model leaks a little
 * there: then laws are those over beginnings of encodings, and `keptMass` says what share of the probability they had.
 *
 * **Deviations**: where a split pattern looks ahead, several paths may end at one place ("\n " as one token before more
 * blanks, as two before a word); all are carried and scored in one pass as a tree, the paper's sampler carries one. Without
 * such a pattern it is always one, encode(x). Temperature acts on p, not on p + 1e-7. The validity test is never left out.
 *
 * **Unlike** `prompt-rules.ts`, which holds what is usually done: continue encode(prompt), or give up its last token.
 *
 * Worked example: bytes a, b, c drawn with .5, .3, .2; merges b c, a b. "ab" is covered by [ab] 3/25 and [a, bc] 3/100, and c
 * follows it with (3/100) / (3/20) = .2. Behind [ab] alone it never does.
 */
import { ArgumentError, TokenthriftError } from "../errors.ts";
import { type LanguageModel, row } from "../model/language-model.ts";
import { requireIds } from "../model/session-checks.ts";
import type { Tokenizer } from "../tokenization/tokenizer.ts";
import {
  BYTE_OUTCOMES,
  type ByteCost,
  type ByteModel,
  type ByteSession,
  END_OF_TEXT,
  requirePossible,
} from "./byte-model.ts";
import { EncodingPath, PathScorer } from "./encoding-paths.ts";
import { type EncodingRules, encodingRules } from "./encoding-rules.ts";
import { allEncodings, type PromptRule, type PromptVocabulary } from "./prompt-rules.ts";
import { TokenOrder } from "./token-order.ts";

export interface ByteOptions {
  /**
   * Tokens in front of every text, at least one: the model needs something to go on from. Default: the vocabulary's special
   * token, where it has exactly one.
   */
  readonly begin?: readonly number[];
  /** Tokens that end a text. Default: the same one special token, or none. */
  readonly end?: readonly number[];
  /** Which encodings of a prompt are considered. Default: all (`allEncodings`), which is what is exact. */
  readonly prompt?: PromptRule;
}

/** One encoding that covers a text. */
export interface Cover {
  /** Its tokens, those that every text begins with left out. */
  readonly tokens: readonly number[];
  /** Bytes of the last token beyond the text. */
  readonly residual: Uint8Array;
  /** ln P(tokens). */
  readonly logProbability: number;
}

/** A vocabulary and what belongs to it, checked. */
class ByteVocabulary implements PromptVocabulary {
  readonly rules: EncodingRules;
  readonly order: TokenOrder;
  readonly begin: readonly number[];
  readonly end: readonly number[];

  constructor(model: LanguageModel, tokenizer: Tokenizer | EncodingRules, options: ByteOptions) {
    this.rules = "admits" in tokenizer ? tokenizer : encodingRules(tokenizer);
    const { special, vocabularySize } = this.rules;
    if (model.vocabularySize < vocabularySize) {
      throw new ArgumentError(
        "tokenizer",
        `one of at most ${model.vocabularySize} tokens, as the model's`,
        vocabularySize,
        "Model and tokenizer must belong together.",
      );
    }
    const usual = special.length === 1 ? special : [];
    this.begin = options.begin ?? usual;
    this.end = options.end ?? usual;
    requireIds("options.begin", this.begin, model.vocabularySize);
    requireIds("options.end", this.end, model.vocabularySize);
    if (this.begin.length === 0) {
      throw new ArgumentError("options.begin", "at least one token", [], "Name the token that texts begin behind.");
    }
    const ordinary = this.end.find((id) => this.rules.tokens[id] !== undefined);
    if (ordinary !== undefined) throw new ArgumentError("options.end", "tokens that are no text", ordinary);
    this.order = TokenOrder.of(this.rules.tokens);
  }

  /** The path of an empty text. */
  root(): EncodingPath {
    let path: EncodingPath | undefined;
    for (const token of this.begin) path = new EncodingPath(path, token, 0, this.rules.start);
    return path!;
  }
}

/**
 * All encodings that cover a text, with their probabilities, by the lemma: one pass over all left parts. Their sum is the
 * probability that a text begins so.
 * @param bytes a beginning of a text, cut anywhere; empty: one empty cover of probability 1
 * @returns covers of positive probability, by their tokens
 * @throws ArgumentError on a tokenizer that is refused, or options out of range
 * @throws ContextOverflowError where the encodings do not fit the context
 */
export function coverEncodings(
  model: LanguageModel,
  tokenizer: Tokenizer | EncodingRules,
  bytes: Uint8Array,
  options: Omit<ByteOptions, "prompt" | "end"> = {},
): Cover[] {
  const vocabulary = new ByteVocabulary(model, tokenizer, { ...options, end: [] });
  const root = vocabulary.root();
  if (bytes.length === 0) return [{ tokens: [], residual: bytes, logProbability: 0 }];
  const covers = allEncodings(vocabulary, root, bytes);
  const needed = new Set<EncodingPath>();
  for (const cover of covers) for (let at = cover.parent; at !== undefined; at = at.parent) needed.add(at);
  const session = model.openSession();
  try {
    // A parent is shorter than its children, so the order by depth is one of a tree.
    const nodes = [...needed].sort((a, b) => a.depth - b.depth);
    const index = new Map(nodes.map((path, i) => [path, i]));
    const { logits } = session.score({
      tokens: nodes.map(({ token }) => token),
      parents: nodes.map(({ parent }) => (parent === undefined ? -1 : index.get(parent)!)),
    });
    const normalizers = nodes.map((_, i) => logSumExp(row(logits, i)));
    const weigh = (path: EncodingPath): number => {
      let weight = 0;
      for (let at = path; at !== root; at = at.parent!) {
        const parent = index.get(at.parent!)!;
        weight += row(logits, parent)[at.token]! - normalizers[parent]!;
      }
      return weight;
    };
    return covers
      .map((path) => ({
        tokens: path.tokensAfter(root),
        residual: residualOf(vocabulary.rules, path, bytes.length),
        logProbability: weigh(path),
      }))
      .filter(({ logProbability }) => logProbability > Number.NEGATIVE_INFINITY)
      .sort((a, b) => compare(a.tokens, b.tokens));
  } finally {
    session.close();
  }
}

/**
 * A tokenized model as a model of bytes.
 * @throws ArgumentError on a tokenizer that cannot be exact (see `encoding-rules.ts`), one of another vocabulary, or no
 * `begin` where the vocabulary does not say
 */
export function exactBytes(
  model: LanguageModel,
  tokenizer: Tokenizer | EncodingRules,
  options: ByteOptions = {},
): ByteModel {
  new ByteVocabulary(model, tokenizer, options); // throws here, not when a session is opened
  return { openSession: () => new ByteSampler(model, tokenizer, options) };
}

/** The incremental sampler: covers and what they weigh, from byte to byte, one model call each. */
export class ByteSampler implements ByteSession {
  readonly #vocabulary: ByteVocabulary;
  readonly #scorer: PathScorer;
  readonly #prompt: PromptRule;
  readonly #testedBefore: number;
  /** Covers that go on beyond the text. */
  #pending: EncodingPath[] = [];
  /** Paths that end where the text does. */
  #ended: EncodingPath[] = [];
  #length = 0;
  #law: Float64Array | undefined;
  /** Sum of the law before it was made to sum to 1. */
  #mass = 1;
  #finished = false;
  #logProbability = 0;
  #logCoverMass = 0;
  #bytes = 0;
  #covers = 0;

  /** Prefer `exactBytes`. */
  constructor(model: LanguageModel, tokenizer: Tokenizer | EncodingRules, options: ByteOptions = {}) {
    this.#vocabulary = new ByteVocabulary(model, tokenizer, options);
    this.#prompt = options.prompt ?? allEncodings;
    this.#testedBefore = this.#vocabulary.rules.tested;
    this.#scorer = new PathScorer(model);
    this.#ended = [this.#vocabulary.root()];
  }

  get cost(): ByteCost {
    const tested = this.#vocabulary.rules.tested - this.#testedBefore;
    return { ...this.#scorer.cost, bytes: this.#bytes, covers: this.#covers, tested };
  }

  get logProbability(): number {
    return this.#logProbability;
  }

  /**
   * The lemma's ln P(x): as `logProbability`, but of probability that leaked nothing is given back. Equal for a model of
   * encoder output.
   */
  get logCoverMass(): number {
    return this.#logCoverMass;
  }

  /** What share of the probability behind the text went to beginnings of encodings: 1 for a model of encoder output. */
  get keptMass(): number {
    this.next();
    return this.#mass;
  }

  /** Covers of the text so far; probabilities relative to it, so that they sum to 1. */
  get covers(): Cover[] {
    const root = this.#vocabulary.root();
    return [...this.#ended, ...this.#pending].map((path) => ({
      tokens: path.tokensAfter(ancestorAt(path, root.depth)),
      residual: residualOf(this.#vocabulary.rules, path, this.#length),
      logProbability: path.logWeight,
    }));
  }

  start(prompt: Uint8Array): void {
    const { rules } = this.#vocabulary;
    const root = this.#vocabulary.root();
    const covers = prompt.length === 0 ? [root] : this.#prompt(this.#vocabulary, root, prompt);
    if (covers.length === 0) {
      throw new ArgumentError("prompt", "bytes that some text begins with", Array.from(prompt), "Is it UTF-8?");
    }
    const ended = covers.filter(({ end }) => end === prompt.length);
    this.#weigh(covers, ended);
    const most = covers.reduce((max, { logWeight }) => Math.max(max, logWeight), Number.NEGATIVE_INFINITY);
    if (most === Number.NEGATIVE_INFINITY) {
      throw new ArgumentError("prompt", "a beginning of positive probability", Array.from(prompt));
    }
    this.#length = prompt.length;
    const possible = covers.filter(({ logWeight }) => logWeight > Number.NEGATIVE_INFINITY);
    const total = Math.log(possible.reduce((sum, { logWeight }) => sum + Math.exp(logWeight - most), 0)) + most;
    for (const path of possible) path.logWeight -= total;
    this.#ended = possible.filter(({ end }) => end === prompt.length);
    this.#pending = possible.filter(({ end }) => end > prompt.length);
    for (const path of this.#ended) path.state ??= rules.advance(path.parent!.state!, path.token);
    this.#law = undefined;
    this.#finished = false;
    this.#logProbability = 0;
    this.#logCoverMass = 0;
  }

  next(): Float64Array {
    if (this.#law !== undefined) return this.#law;
    if (this.#finished) throw new TokenthriftError("bytes: the text has ended. Call start for another one.");
    const { rules, end } = this.#vocabulary;
    const law = new Float64Array(BYTE_OUTCOMES);
    this.#scorer.score(this.#ended.filter((path) => path.law === undefined));
    for (const path of this.#pending) law[this.#byteOf(path)]! += Math.exp(path.logWeight);
    for (const path of this.#ended) {
      const next = path.law!;
      for (let id = 0; id < rules.tokens.length; id++) {
        const token = rules.tokens[id];
        if (token === undefined || next[id] === Number.NEGATIVE_INFINITY || !rules.admits(path.state!, id)) continue;
        law[token[0]!]! += Math.exp(path.logWeight + next[id]!);
      }
      if (rules.mayEnd(path.state!)) for (const id of end) law[END_OF_TEXT]! += Math.exp(path.logWeight + next[id]!);
    }
    this.#mass = law.reduce((sum, p) => sum + p, 0);
    if (!(this.#mass > 0)) {
      throw new TokenthriftError(
        "bytes: the model gives every continuation probability 0. It does not fit its tokenizer.",
      );
    }
    for (let outcome = 0; outcome < BYTE_OUTCOMES; outcome++) law[outcome]! /= this.#mass;
    this.#law = law;
    return law;
  }

  push(outcome: number): void {
    const probability = requirePossible(this.next(), outcome);
    const { rules, order } = this.#vocabulary;
    this.#logProbability += Math.log(probability);
    const logKept = Math.log(probability * this.#mass);
    this.#logCoverMass += logKept;
    this.#law = undefined;
    if (outcome === END_OF_TEXT) {
      this.#finished = true;
      return;
    }
    const covers = this.#pending.filter((path) => this.#byteOf(path) === outcome);
    for (const path of covers) path.logWeight -= logKept;
    for (const path of this.#ended) {
      for (const id of order.startingWith(outcome)) {
        const logWeight = path.logWeight + path.law![id]! - logKept;
        if (logWeight === Number.NEGATIVE_INFINITY || !rules.admits(path.state!, id)) continue;
        const cover = new EncodingPath(path, id, this.#length + rules.tokens[id]!.length);
        cover.logWeight = logWeight;
        covers.push(cover);
      }
      path.law = undefined; // used up
    }
    this.#length++;
    this.#bytes++;
    this.#covers += covers.length;
    this.#ended = covers.filter(({ end }) => end === this.#length);
    this.#pending = covers.filter(({ end }) => end > this.#length);
    for (const path of this.#ended) path.state = rules.advance(path.parent!.state!, path.token);
  }

  close(): void {
    this.#scorer.close();
  }

  /** The byte a pending cover goes on with. */
  #byteOf(path: EncodingPath): number {
    const token = this.#vocabulary.rules.tokens[path.token]!;
    return token[this.#length - path.end + token.length]!;
  }

  /** Weights of covers from what they share on, and the laws behind those that end with the prompt, in the same pass. */
  #weigh(covers: readonly EncodingPath[], ended: readonly EncodingPath[]): void {
    if (covers.length === 1) {
      covers[0]!.logWeight = 0;
      return;
    }
    const counts = new Map<EncodingPath, number>();
    for (const cover of covers) {
      for (let at = cover.parent; at !== undefined; at = at.parent) counts.set(at, (counts.get(at) ?? 0) + 1);
    }
    // The last path that all covers go through, and every left part behind it.
    const open = [...counts].filter(([, count]) => count < covers.length).map(([path]) => path);
    const shared = [...counts].filter(([, count]) => count === covers.length).map(([path]) => path);
    const last = shared.reduce((a, b) => (a.depth > b.depth ? a : b));
    last.logWeight = 0;
    this.#scorer.score([last, ...open, ...ended.filter((path) => !counts.has(path))]);
    const byDepth = [...open, ...covers].sort((a, b) => a.depth - b.depth);
    for (const path of new Set(byDepth)) path.logWeight = path.parent!.logWeight + path.parent!.law![path.token]!;
    for (const path of [last, ...open]) if (!ended.includes(path)) path.law = undefined;
  }
}

function ancestorAt(path: EncodingPath, depth: number): EncodingPath {
  let at = path;
  while (at.depth > depth) at = at.parent!;
  return at;
}

function residualOf(rules: EncodingRules, path: EncodingPath, length: number): Uint8Array {
  if (path.end === length) return new Uint8Array(0);
  const token = rules.tokens[path.token]!;
  return token.slice(token.length - (path.end - length));
}

function logSumExp(logits: Float32Array): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > highest) highest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - highest);
  return highest + Math.log(sum);
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}
