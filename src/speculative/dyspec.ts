/**
 * DySpec: a tree grown anew for every step, where the draft model's own probabilities say a guess is worth most.
 * Xiong et al., arXiv 2410.11744: greedy construction (algorithm 1), threshold construction (algorithm 2).
 *
 * A token the draft finds probable tends to be accepted. So take the draft's probability for the chance of acceptance:
 * a draw is tested when its node is reached and its earlier siblings were rejected, and greedy construction always makes
 * the draw most likely to be tested. Siblings are drawn without replacement, each with its true law.
 *
 *     value of a draw    v = product of D over the path * (1 - mass of the siblings already drawn)
 *     draw y ~ R         first child of the new node: v R[y];  next sibling: v (1 - R[y]), R without y, renormalised
 *     greedy             m times: the draw of the largest value, wherever in the tree it is
 *     threshold t        level by level: at every node, draw while v >= t; one draft pass a level. The same tree as
 *                        greedy construction's for t = the value of its last draw, the draws being equal
 *
 * The value decides whether to draw at a place, never which drawn token stays: that is what keeps the laws true, and what
 * keeping the most probable of many drawn guesses would break. Values only fall from a draw to those it makes possible,
 * so the m draws made have the largest sum of values any m draws can have.
 *
 * That sum is the expected number of tests, if the draft's probabilities were those of acceptance. The paper says
 * accepted tokens; but a draw from a flat law is accepted less often than a sure one of a smaller value.
 *
 * **Deviations**: greedy construction asks the draft model about a node when it first draws there, the paper when the node
 * is added: the same trees, and no pass for leaves. Where `budget` ends threshold construction it ends at the place it
 * has come to, level by level; the paper does not say. The paper's listings compare `v < t` for `v >= t`, and draw the
 * number to accept by from a normal law.
 *
 * **Unlike** Sequoia's, the tree depends on the text: one path where the draft is sure, many short ones where it is not.
 *
 * Worked example: D = [.6, .3, .1] at the root, [.7, .2, .1] after 0, [.5, .3, .2] after 00; draws 0, 0, 0, then 1. Values
 * 1, .6, .42, and then .4, the second child of the root, before the child of 000 and the sibling of 000, .21 each.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { type GrowingTree, ModelDrafter, type ModelDrafterOptions } from "./model-drafter.ts";
import type { SamplingOptions } from "./sampling.ts";
import { lawWithout } from "./without-replacement.ts";

export interface DySpecOptions extends ModelDrafterOptions {
  /** How guesses are drawn. Default temperature .6, whatever the target's is. */
  readonly sampling?: SamplingOptions;
  /** Guesses per step, the root not counted, an integer >= 0; with a threshold, at most as many. Default 16. */
  readonly budget?: number;
  /**
   * Threshold construction: draw wherever the value is at least this, in (0, 1]. The paper takes about 1 / budget; the
   * lower it is, the more often the budget cuts the deepest level. Default: none, which is greedy construction.
   */
  readonly threshold?: number;
  /**
   * Order of the draft's nodes. `"drawn"`: a smaller greedy tree is the beginning of a larger one. `"depth-first"`: few
   * blocks of the tree's attention mask hold anything, see `maskBlocks`. Default `"drawn"`.
   */
  readonly order?: "drawn" | "depth-first";
}

/** A place where a guess can be drawn: as the next child of a node. */
interface Place {
  readonly node: number;
  /** Probability that a draw here is tested, by the draft's laws. */
  readonly value: number;
  /** What is left of the draft's law after the node; undefined before its first child, when it was not asked for yet. */
  readonly law?: Float64Array;
}

/** A drafter that grows a tree for every step by its own laws. For `recursiveRejectionSampling`. */
export class DySpecDrafter extends ModelDrafter {
  readonly budget: number;
  readonly threshold: number | undefined;
  readonly order: "drawn" | "depth-first";

  /** @throws ArgumentError on options out of range */
  constructor(model: LanguageModel, options: DySpecOptions = {}) {
    const { sampling = { temperature: 0.6 }, budget = 16, threshold, order = "drawn" } = options;
    super(model, { sampling });
    if (!(Number.isSafeInteger(budget) && budget >= 0)) throw new ArgumentError("budget", "an integer >= 0", budget);
    if (threshold !== undefined && !(threshold > 0 && threshold <= 1)) {
      throw new ArgumentError("threshold", "a number in (0, 1]", threshold, "Leave it out for greedy construction.");
    }
    if (order !== "drawn" && order !== "depth-first") {
      throw new ArgumentError("order", `"drawn" or "depth-first"`, order);
    }
    this.budget = budget;
    this.threshold = threshold;
    this.order = order;
  }

  protected override grow(tree: GrowingTree): void {
    const most = Math.min(tree.maxNodes, this.budget + 1);
    if (tree.maxDepth === 0) return;
    if (this.threshold === undefined) growGreedily(tree, most);
    else growLevels(tree, most, this.threshold);
    if (this.order === "depth-first") tree.arrange(depthFirstOrder(tree.parents));
  }
}

function growGreedily(tree: GrowingTree, most: number): void {
  // Ascending values; of equal ones the first to be added stands last, and is taken first.
  const places: Place[] = [{ node: 0, value: 1 }];
  const add = (place: Place): void => {
    const at = places.findIndex(({ value }) => value >= place.value);
    places.splice(at < 0 ? places.length : at, 0, place);
  };
  while (tree.tokens.length < most && places.length > 0) {
    const place = places.pop()!;
    const law = place.law ?? tree.law(place.node);
    if (law === null) continue;
    const { child, sibling } = draw(tree, place, law);
    if (tree.depths[child.node]! < tree.maxDepth) add(child);
    if (sibling !== null) add(sibling);
  }
}

function growLevels(tree: GrowingTree, most: number, threshold: number): void {
  let level: Place[] = [{ node: 0, value: 1 }];
  while (level.length > 0 && tree.tokens.length < most) {
    const laws = tree.laws(level.map(({ node }) => node));
    const children: Place[] = [];
    for (const [i, first] of level.entries()) {
      if (laws[i] === null) continue;
      for (let place: Place | null = first; place !== null; ) {
        if (place.value < threshold || tree.tokens.length === most) break;
        const { child, sibling } = draw(tree, place, place.law ?? laws[i]!);
        children.push(child);
        place = sibling;
      }
    }
    level = children.filter(({ node, value }) => value >= threshold && tree.depths[node]! < tree.maxDepth);
  }
}

/** Draws one guess; returns the places it makes, its first child's and its next sibling's, null where no token is left. */
function draw(tree: GrowingTree, { node, value }: Place, law: Float64Array): { child: Place; sibling: Place | null } {
  const token = tree.random.categorical(law);
  const probability = law[token]!;
  const left = lawWithout(law, token);
  return {
    child: { node: tree.add(node, token, law), value: value * probability },
    sibling: left && { node, value: value * Math.max(0, 1 - probability), law: left },
  };
}

/** Nodes in the order a walk meets them that visits each subtree whole, siblings as they were drawn. [nodes] */
export function depthFirstOrder(parents: ArrayLike<number>): number[] {
  const children: number[][] = Array.from(parents, () => []);
  for (let node = 1; node < parents.length; node++) children[parents[node]!]!.push(node);
  const order: number[] = [];
  const waiting = [0];
  while (waiting.length > 0) {
    const node = waiting.pop()!;
    order.push(node);
    waiting.push(...children[node]!.reverse());
  }
  return order;
}

/**
 * Blocks of a tree's attention mask that hold anything: what an attention kernel that skips empty blocks computes.
 * A node attends to itself and its ancestors; the mask is [nodes, nodes], cut into blocks of `size` by `size`.
 */
export function maskBlocks(parents: ArrayLike<number>, size = 32): number {
  const blocks = new Set<number>();
  for (let node = 0; node < parents.length; node++) {
    for (let seen = node; seen >= 0; seen = parents[seen]!) {
      blocks.add(Math.floor(node / size) * parents.length + Math.floor(seen / size));
    }
  }
  return blocks.size;
}
