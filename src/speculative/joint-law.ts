/**
 * The joint law of the first tokens: does a way of decoding draw them as the target would?
 *
 * A `TableModel` says every probability, so the law of the next n tokens can be enumerated, and generations held against
 * it. The joint law tells more than the tokens' own: a token can be right on average and wrong after the one before it,
 * which is how a mistake between two steps shows.
 *
 *     cells      all continuations of n tokens, the probability of each the product of its conditional ones
 *     fit        Pearson's chi-square of the draws' counts against draws * probability
 *
 * The drafts drawn on the way are held against the laws they state. A guess drawn from q is token x with probability
 * q(x), whatever came before; so over all guesses the surplus of x above what was promised has mean 0. Where it has not,
 * the laws are not the ones the guesses came from (an arg-max stated as a draw, another temperature, drawn guesses thrown
 * away), and no verifier can be exact.
 *
 *     surplus    S_d(x) = sum over guesses i of draft d of (1[x_i = x] - q_i(x)),      first draft of each generation
 *     score      z(x) = sum_d S_d(x) / sqrt(V),   V = the larger of sum_d S_d(x)^2 and sum_i q_i(x) (1 - q_i(x))
 *
 * Drafts are independent of each other; guesses of one draft need not be, hence the first of the two variances.
 *
 * Worked example: `TableModel.fromRows([[.3, .7]])`, 2 tokens, 1,000 draws: cells 0 0, 0 1, 1 0, 1 1 expect 90, 210, 210
 * and 490 draws.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { TableModel } from "../model/table-model.ts";
import type { ChiSquareFit } from "./chi-square.ts";
import { chiSquareFit, chiSquareTail } from "./chi-square.ts";
import type { Draft } from "./drafter.ts";
import type { GenerateOptions, Step } from "./generate.ts";
import { generate } from "./generate.ts";
import { resolveSampling, tokenLaw } from "./sampling.ts";

/** How the draws are made: `generate`'s options, and how much of its tokens is looked at. */
export interface JointLawOptions extends Omit<GenerateOptions, "signal" | "stopTokens"> {
  /** How many first tokens are looked at together, an integer >= 1; vocabularySize^tokens is at most 2^16. Default 2. */
  readonly tokens?: number;
  /** Most tokens a generation may have, at least `tokens`: how deep drafts are of use. Default `tokens + 2`. */
  readonly maxTokens?: number;
  /** What generates, where the table needs a coat (hidden states to tap, say). Its logits must be the table's. Default: the table. */
  readonly model?: LanguageModel;
}

export interface JointLawFit extends ChiSquareFit {
  /** Generations drawn. */
  readonly draws: number;
  /** The continuation furthest from its expectation; one that cannot happen, if any did. */
  readonly worst: { readonly tokens: readonly number[]; readonly observed: number; readonly expected: number };
  /** How the drafts fit the laws they state; null when no guess was drawn from a law. */
  readonly proposal: ProposalFit | null;
  /** Generated tokens per target pass, over all draws. */
  readonly tokensPerPass: number;
  /** Guesses the target scored, and those accepted. */
  readonly drafted: number;
  readonly accepted: number;
}

export interface ProposalFit {
  /** The token guessed most out of proportion to the laws the guesses state. */
  readonly token: number;
  /** How often it was guessed, and how often the laws promise. */
  readonly observed: number;
  readonly expected: number;
  /** Standard deviations between the two. */
  readonly z: number;
  /** Probability that guesses drawn from their laws have a token as far off as that. */
  readonly pValue: number;
}

/** Fewer expected draws than this say too little of a cell or a token. */
const leastExpected = 20;

/** Draws first tokens and holds them against the table. Draw as often as you like; `fit` tells of all draws so far. */
export class JointLaw {
  readonly #table: TableModel;
  readonly #prompt: readonly number[];
  readonly #model: LanguageModel;
  readonly #options: GenerateOptions & { readonly maxTokens: number };
  readonly #tokens: number;
  /** Draws by continuation, numbered as digits to the base of the vocabulary. */
  readonly #counts: Float64Array;
  readonly #proposal: Proposal;
  #draws = 0;
  #passes = 0;
  #produced = 0;
  #drafted = 0;
  #accepted = 0;

  /**
   * @param table the target
   * @param prompt what the tokens follow
   * @throws ArgumentError on options out of range
   */
  constructor(table: TableModel, prompt: readonly number[], options: JointLawOptions = {}) {
    const { tokens = 2, maxTokens = tokens + 2, model = table, seed = 0, ...rest } = options;
    if (!(Number.isInteger(tokens) && tokens >= 1 && table.vocabularySize ** tokens <= 2 ** 16)) {
      throw new ArgumentError("tokens", "an integer >= 1 with at most 2^16 continuations", tokens);
    }
    if (!(maxTokens >= tokens)) throw new ArgumentError("maxTokens", `a number >= ${tokens}`, maxTokens);
    resolveSampling(rest);
    this.#table = table;
    this.#prompt = prompt.slice();
    this.#model = model;
    this.#options = { ...rest, maxTokens, seed };
    this.#tokens = tokens;
    this.#counts = new Float64Array(table.vocabularySize ** tokens);
    this.#proposal = new Proposal(table.vocabularySize);
  }

  /** `draws` more generations, each with a seed of its own. */
  draw(draws: number): void {
    const { seed } = this.#options;
    for (let i = 0; i < draws; i++) {
      const generation = generate(this.#model, this.#prompt, { ...this.#options, seed: `${seed} ${this.#draws}` });
      const tokens: number[] = [];
      while (tokens.length < this.#tokens) {
        const step = generation.step();
        if (step === undefined) throw new ArgumentError("prompt", "room for the tokens after it", this.#prompt.length);
        this.#count(step, tokens.length === 0);
        tokens.push(...step.tokens);
      }
      generation.close();
      let cell = 0;
      for (let j = 0; j < this.#tokens; j++) cell = cell * this.#table.vocabularySize + tokens[j]!;
      this.#counts[cell]! += 1;
      this.#draws += 1;
    }
  }

  /** Of all draws so far. A snapshot. */
  get fit(): JointLawFit {
    const expected = new Float64Array(this.#counts.length);
    const lawOf = (logits: Float32Array) => tokenLaw(logits, this.#options);
    for (const { tokens, probability } of this.#table.enumerate(this.#prompt, this.#tokens, lawOf)) {
      const cell = tokens.reduce((code, token) => code * this.#table.vocabularySize + token, 0);
      expected[cell] = probability * this.#draws;
    }
    const distances = this.#counts.map((observed, cell) =>
      expected[cell] === 0
        ? observed * this.#draws
        : (observed - expected[cell]!) ** 2 / Math.max(leastExpected, expected[cell]!),
    );
    const worst = distances.indexOf(Math.max(...distances));
    return {
      ...chiSquareFit(this.#counts, expected, { leastExpected }),
      draws: this.#draws,
      worst: { tokens: this.#tokensOf(worst), observed: this.#counts[worst]!, expected: expected[worst]! },
      proposal: this.#proposal.fit,
      tokensPerPass: this.#passes === 0 ? 0 : this.#produced / this.#passes,
      drafted: this.#drafted,
      accepted: this.#accepted,
    };
  }

  #count({ tokens, draft, path }: Step, first: boolean): void {
    this.#passes += 1;
    this.#produced += tokens.length;
    this.#drafted += draft.tokens.length - 1;
    this.#accepted += path.length - 1;
    if (first) this.#proposal.add(draft);
  }

  #tokensOf(cell: number): number[] {
    const tokens = new Array<number>(this.#tokens);
    for (let j = this.#tokens - 1, code = cell; j >= 0; j--) {
      tokens[j] = code % this.#table.vocabularySize;
      code = Math.floor(code / this.#table.vocabularySize);
    }
    return tokens;
  }
}

/** Guesses against the laws they state, token by token. Arrays are [vocabularySize]. */
class Proposal {
  readonly #observed: Float64Array;
  readonly #expected: Float64Array;
  readonly #promisedVariance: Float64Array;
  readonly #seenVariance: Float64Array;

  constructor(vocabularySize: number) {
    this.#observed = new Float64Array(vocabularySize);
    this.#expected = new Float64Array(vocabularySize);
    this.#promisedVariance = new Float64Array(vocabularySize);
    this.#seenVariance = new Float64Array(vocabularySize);
  }

  add({ tokens, laws }: Draft): void {
    const surplus = new Float64Array(this.#expected.length);
    for (let node = 1; node < tokens.length; node++) {
      const law = laws[node];
      if (law == null) continue;
      this.#observed[tokens[node]!]! += 1;
      surplus[tokens[node]!]! += 1;
      for (let x = 0; x < law.length; x++) {
        surplus[x]! -= law[x]!;
        this.#expected[x]! += law[x]!;
        this.#promisedVariance[x]! += law[x]! * (1 - law[x]!);
      }
    }
    for (let x = 0; x < surplus.length; x++) this.#seenVariance[x]! += surplus[x]! ** 2;
  }

  get fit(): ProposalFit | null {
    let fit: ProposalFit | null = null;
    for (let token = 0; token < this.#expected.length; token++) {
      const observed = this.#observed[token]!;
      const expected = this.#expected[token]!;
      const variance = Math.max(this.#promisedVariance[token]!, this.#seenVariance[token]!);
      if (!(expected >= leastExpected && variance > 0)) continue;
      const z = (observed - expected) / Math.sqrt(variance);
      if (fit !== null && Math.abs(z) <= Math.abs(fit.z)) continue;
      // As many tokens were looked at: the furthest of them is this far by chance so much more often.
      const pValue = Math.min(1, this.#expected.length * chiSquareTail(z * z, 1));
      fit = { token, observed, expected, z, pValue };
    }
    return fit;
  }
}
