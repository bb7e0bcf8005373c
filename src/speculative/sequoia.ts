/**
 * Sequoia: the tree with the most expected tokens for its size, found by dynamic programming over measured acceptance.
 * Chen et al., arXiv 2402.12374: tree construction, sampling, hardware-aware optimizer; code by Infini-AI-Lab/Sequoia.
 *
 * How likely is the k-th child of a node to be the accepted one? Measured once, that vector P decides how a budget is best
 * spent: a node reached along children of ranks k_1, k_2, .. is worth P[k_1] P[k_2] .., and the best tree of n nodes is
 * a best tree with one child of the root less, beside a best tree under that child. Children are drawn without
 * replacement, because a second copy of a rejected token is rejected for certain.
 *
 *     F(tree)      = sum over nodes of the product of P along the path       expected tokens per pass; the root counts 1
 *     T[1][d][0]   = 1                                                       n nodes, at most d levels, c root children
 *     T[n][d][c]   = max over y of  T[y][d][c-1] + P[c] max over c' of T[n-y][d-1][c']
 *     fastest tree = arg-min over n, d of  (d costOfDraftPass + costOfPass[n]) / F
 *
 * P is measured by this drafter itself: a star of one level, and how often each rank is the one accepted. At temperature
 * 0 children are the most probable tokens, chosen without chance; a draw from a law of one token would give one child.
 *
 * **Deviations**: budgets count guesses, the paper's and the code's the root too. A cost of d draft passes is charged for
 * d levels: the code feeds the leaves as well, and charges d + 1. Children are drawn one after another; the code takes
 * the largest of log(u) / q at once, which has the same law. When text or context leave less room than the tree needs,
 * the best tree for that room is drafted; the code cuts none. Where the draft's law is used up, the next child is drawn
 * uniformly from the tokens left: so the paper; the code leaves it to the order of ties.
 *
 * **Unlike** a chain it has a second child to offer where the first is rejected, and unlike a k-ary tree as many of them
 * at each place as pay there. The shape is the same for every text: DySpec's follows the draft's laws.
 *
 * Worked example: P = [.6, .2, .08] and 4 guesses: root with children a, b; a has child c, c has d.
 * F = 1 + .6 + .2 + .36 + .216 = 2.376.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Random } from "../tensor/random.ts";
import { type Guess, mostProbable } from "./branching-drafter.ts";
import { generate } from "./generate.ts";
import { type GrowingTree, ModelDrafter, type ModelDrafterOptions } from "./model-drafter.ts";
import type { SamplingOptions } from "./sampling.ts";
import { lawWithout } from "./without-replacement.ts";

/** A tree without tokens. */
export interface TreeShape {
  /** Parent of each node, level by level, -1 for the root; children in the order they are to be drawn. [nodes] */
  readonly parents: readonly number[];
  /** Longest path below the root. */
  readonly depth: number;
  /** Expected tokens per target pass, the one after the path included. */
  readonly tokensPerPass: number;
}

/** What passes cost on one machine, in one unit: seconds, say. */
export interface TreeCosts {
  /** `costOfPass[n]`: a target pass over n nodes, the root included. Sizes not measured are undefined, and not chosen. */
  readonly costOfPass: ArrayLike<number | undefined>;
  /** A draft pass over one level. */
  readonly costOfDraftPass: number;
}

/** The best trees of every size up to a budget and a depth, for one acceptance vector. */
export class OptimalTrees {
  /** Most guesses, the root not counted. */
  readonly budget: number;
  readonly maxDepth: number;
  readonly #width: number;
  /** T[n][d][c], -Infinity where there is no such tree. [budget + 2, maxDepth + 1, width + 1] */
  readonly #values: Float64Array;
  /** Nodes of the tree under the last child of T[n][d][c]. */
  readonly #under: Int32Array;
  /** The c that is best for n nodes and at most d levels. [budget + 2, maxDepth + 1] */
  readonly #children: Int32Array;

  /**
   * @param acceptance `acceptance[k - 1]`: probability that the k-th child is the accepted one. In [0, 1], their sum too
   * @param options `budget`: most guesses, an integer >= 0; `maxDepth`: most levels below the root, an integer >= 0
   * @throws ArgumentError on values out of range
   */
  constructor(
    acceptance: ArrayLike<number>,
    { budget, maxDepth }: { readonly budget: number; readonly maxDepth: number },
  ) {
    requireCount("budget", budget);
    requireCount("maxDepth", maxDepth);
    requireAcceptance(acceptance);
    this.budget = budget;
    this.maxDepth = maxDepth;
    this.#width = acceptance.length;
    const size = (budget + 2) * (maxDepth + 1);
    this.#values = new Float64Array(size * (this.#width + 1)).fill(Number.NEGATIVE_INFINITY);
    this.#under = new Int32Array(this.#values.length);
    this.#children = new Int32Array(size);
    for (let n = 1; n <= budget + 1; n++) {
      for (let d = 0; d <= maxDepth; d++) {
        if (n === 1) this.#values[this.#index(n, d, 0)] = 1;
        for (let c = 1; c <= this.#width && d > 0; c++) this.#addChild(n, d, c, acceptance[c - 1]!);
        for (let c = 1; c <= this.#width; c++) {
          if (this.#values[this.#index(n, d, c)]! > this.#best(n, d)) this.#children[n * (maxDepth + 1) + d] = c;
        }
      }
    }
  }

  /**
   * The tree with the most expected tokens.
   * @param budget most guesses, an integer >= 0 or Infinity; default and most: the budget this was made for
   * @param maxDepth most levels, likewise
   * @throws ArgumentError on one below 0
   */
  shape(budget: number = this.budget, maxDepth: number = this.maxDepth): TreeShape {
    requireCount("budget", Math.min(budget, this.budget));
    requireCount("maxDepth", Math.min(maxDepth, this.maxDepth));
    const d = Math.min(maxDepth, this.maxDepth);
    let nodes = 1;
    for (let n = 2; n <= Math.min(budget, this.budget) + 1; n++) if (this.#best(n, d) > this.#best(nodes, d)) nodes = n;
    return this.#shape(nodes, d);
  }

  /**
   * The tree with the least cost per expected token, of the sizes whose cost is given. The root alone, which is plain
   * decoding, is among them.
   * @throws ArgumentError on a cost that is not a positive number (a draft pass may cost 0), or none for any size
   */
  fastest({ costOfPass, costOfDraftPass }: TreeCosts): TreeShape & { readonly costPerToken: number } {
    if (!(costOfDraftPass >= 0 && costOfDraftPass < Number.POSITIVE_INFINITY)) {
      throw new ArgumentError("costOfDraftPass", "a finite number >= 0", costOfDraftPass);
    }
    let fastest: { readonly n: number; readonly d: number; readonly costPerToken: number } | undefined;
    for (let n = 1; n <= Math.min(this.budget + 1, costOfPass.length - 1); n++) {
      const cost = costOfPass[n];
      if (cost === undefined) continue;
      if (!(cost > 0 && cost < Number.POSITIVE_INFINITY)) {
        throw new ArgumentError(`costOfPass[${n}]`, "a positive, finite number", cost);
      }
      for (let d = 0; d <= this.maxDepth; d++) {
        const costPerToken = (d * costOfDraftPass + cost) / this.#best(n, d);
        if (this.#best(n, d) > 0 && !(costPerToken >= (fastest?.costPerToken ?? Number.POSITIVE_INFINITY))) {
          fastest = { n, d, costPerToken };
        }
      }
    }
    if (fastest === undefined) {
      throw new ArgumentError(
        "costOfPass",
        `the cost of a tree of 1 to ${this.budget + 1} nodes`,
        Array.from(costOfPass),
      );
    }
    return { ...this.#shape(fastest.n, fastest.d), costPerToken: fastest.costPerToken };
  }

  #index(n: number, d: number, c: number): number {
    return (n * (this.maxDepth + 1) + d) * (this.#width + 1) + c;
  }

  /** max over c of T[n][d][c]. */
  #best(n: number, d: number): number {
    return this.#values[this.#index(n, d, this.#children[n * (this.maxDepth + 1) + d]!)]!;
  }

  #addChild(n: number, d: number, c: number, acceptance: number): void {
    const at = this.#index(n, d, c);
    for (let y = 1; y < n; y++) {
      const [siblings, under] = [this.#values[this.#index(y, d, c - 1)]!, this.#best(n - y, d - 1)];
      // -Infinity times an acceptance of 0 is no number.
      if (siblings < 0 || under < 0) continue;
      const value = siblings + acceptance * under;
      if (value > this.#values[at]!) {
        this.#values[at] = value;
        this.#under[at] = n - y;
      }
    }
  }

  /** The best tree of exactly n nodes and at most d levels, unrolled level by level. */
  #shape(n: number, d: number): TreeShape {
    const parents = [-1];
    let depth = 0;
    let level = [{ node: 0, n }];
    for (let left = d; level.length > 0; left--) {
      depth = d - left;
      level = level.flatMap(({ node, n }) => {
        const sizes: number[] = [];
        for (let c = this.#children[n * (this.maxDepth + 1) + left]!; c > 0; c--) {
          const size = this.#under[this.#index(n, left, c)]!;
          sizes.push(size);
          n -= size;
        }
        return sizes.reverse().map((size) => ({ node: parents.push(node) - 1, n: size }));
      });
    }
    return { parents, depth, tokensPerPass: this.#best(n, d) };
  }
}

export interface SequoiaOptions extends ModelDrafterOptions {
  /** `acceptance[k - 1]`: probability that the k-th child is the accepted one; see `positionalAcceptance`. */
  readonly acceptance: ArrayLike<number>;
  /** Guesses per step, the root not counted, an integer >= 0. Default 16. */
  readonly budget?: number;
  /** Most levels below the root, hence draft passes per step, an integer >= 0. Default 8. */
  readonly maxDepth?: number;
}

/** A drafter that fills the same optimal tree in every step. For `recursiveRejectionSampling`. */
export class SequoiaDrafter extends ModelDrafter {
  readonly trees: OptimalTrees;

  /** @throws ArgumentError on options out of range */
  constructor(model: LanguageModel, { acceptance, budget = 16, maxDepth = 8, ...options }: SequoiaOptions) {
    super(model, options);
    this.trees = new OptimalTrees(acceptance, { budget, maxDepth });
  }

  protected override grow(tree: GrowingTree): void {
    const { parents } = this.trees.shape(tree.maxNodes - 1, tree.maxDepth);
    const children: number[][] = parents.map(() => []);
    for (let place = 1; place < parents.length; place++) children[parents[place]!]!.push(place);
    const greedy = tree.sampling.temperature === 0;

    let level = [{ place: 0, node: 0 }];
    while (level.length > 0) {
      const inner = level.filter(({ place }) => children[place]!.length > 0);
      const laws = tree.laws(
        inner.map(({ node }) => node),
        greedy ? { temperature: 1 } : tree.sampling,
      );
      level = inner.flatMap(({ place, node }, i) => {
        const law = laws[i]!;
        if (law === null) return [];
        const places = children[place]!;
        const guesses = greedy ? mostProbable(law, places.length) : drawn(law, places.length, tree.random);
        return guesses.map(({ token, law }, rank) => ({ place: places[rank]!, node: tree.add(node, token, law) }));
      });
    }
  }
}

/** `count` tokens without replacement; from the tokens left over, uniformly, once the law has no mass left. */
function drawn(law: Float64Array, count: number, random: Random): Guess[] {
  const guesses: Guess[] = [];
  const untried = new Float64Array(law.length).fill(1);
  for (let left: Float64Array | null = law; left !== null && guesses.length < count; ) {
    const token = random.categorical(left);
    guesses.push({ token, law: left });
    untried[token] = 0;
    left = lawWithout(left, token) ?? normalised(untried);
  }
  return guesses;
}

function normalised(weights: Float64Array): Float64Array | null {
  const sum = weights.reduce((a, b) => a + b, 0);
  return sum > 0 ? weights.map((weight) => weight / sum) : null;
}

export interface PositionalAcceptanceOptions extends SamplingOptions {
  /** Ranks to measure, an integer >= 1; at most the vocabulary is. Default 16. */
  readonly width?: number;
  /** Tokens to generate after each prompt, an integer >= 2. Default 64. */
  readonly maxTokens?: number;
  /** How the draft's guesses are drawn. Default: as the target's tokens are. */
  readonly draftSampling?: SamplingOptions;
  /** Default 0. */
  readonly seed?: number | string;
}

/**
 * Measures how often the k-th child is the accepted one, with `SequoiaDrafter` itself on a star of one level.
 * Temperature, top-k and top-p are those the vector is to be used with; it differs much between them.
 * @param prompts token ids, each generated from; not the ones to be evaluated later
 * @returns `acceptance[k - 1]`, a share of all steps, [width]; 1 less their sum is the share of steps that rejected all
 * @throws ArgumentError on options out of range, or when no prompt left room for a step with `width` guesses
 */
export async function positionalAcceptance(
  target: LanguageModel,
  draft: LanguageModel,
  prompts: Iterable<ArrayLike<number>>,
  options: PositionalAcceptanceOptions = {},
): Promise<Float64Array> {
  const { width = 16, maxTokens = 64, seed = 0, draftSampling, ...sampling } = options;
  if (!(Number.isSafeInteger(width) && width >= 1)) throw new ArgumentError("width", "an integer >= 1", width);
  const ranks = Math.min(width, target.vocabularySize);
  // Of trees with one level and all ranks alike, the star is the best.
  const drafter = new SequoiaDrafter(draft, {
    acceptance: new Float64Array(ranks).fill(1 / ranks),
    budget: ranks,
    maxDepth: 1,
    ...(draftSampling && { sampling: draftSampling }),
  });
  const counts = new Float64Array(ranks);
  let steps = 0;
  let prompted = 0;
  for (const prompt of prompts) {
    prompted += 1;
    const room = target.contextLength - prompt.length - ranks;
    if (room < 2) continue;
    const generation = generate(target, prompt, {
      ...sampling,
      maxTokens: Math.min(maxTokens, room),
      drafter,
      seed: `${seed} ${prompted}`,
    });
    for await (const { draft, path } of generation) {
      // The last token needs no guesses.
      if (draft.tokens.length === 1) continue;
      steps += 1;
      if (path.length > 1) counts[path[1]! - 1]! += 1;
    }
  }
  if (steps === 0) {
    throw new ArgumentError(
      "prompts",
      `prompts with room for ${ranks} guesses after them`,
      prompted,
      "Prompts may be too long.",
    );
  }
  return counts.map((count) => count / steps);
}

function requireCount(argument: string, value: number): void {
  if (!(Number.isSafeInteger(value) && value >= 0)) throw new ArgumentError(argument, "an integer >= 0", value);
}

function requireAcceptance(acceptance: ArrayLike<number>): void {
  let sum = 0;
  for (let i = 0; i < acceptance.length; i++) {
    const probability = acceptance[i]!;
    if (!(probability >= 0 && probability <= 1)) {
      throw new ArgumentError(`acceptance[${i}]`, "a probability, 0 to 1", probability);
    }
    sum += probability;
  }
  if (!(sum <= 1 + 1e-9)) {
    throw new ArgumentError("acceptance", "shares of all steps, with a sum of at most 1", sum, "Ranks are exclusive.");
  }
}
