/**
 * A static sparse tree: the nodes most likely to be accepted, by how often each head's choices were right.
 * Cai et al. (Medusa), arXiv 2401.10774, section 2.3.3.
 *
 * All combinations of a few choices per head make a large tree most of whose nodes are never accepted. A node stands for
 * the ranks along its path, and is accepted as often as all of them are right at once, about the product of their
 * accuracies. So the best tree of n nodes is the n largest products: a child's is at most its parent's, hence they are
 * a tree, and the best tree of n - 1 nodes is the best of n without its last.
 *
 *     value(r_1 .. r_d) = a_1[r_1] a_2[r_2] .. a_d[r_d]          expected tokens per pass = 1 + sum of values
 *
 * **Deviations**: none from the greedy choice of the paper; of equal values the shallower node comes first.
 *
 * **Unlike** Sequoia's, which are the best for one vector of accuracies at all depths, found by dynamic programming; here
 * each depth has its own, since each head has, and then the largest products are all there is to find.
 *
 * Worked example: accuracies [.6, .2], [.4, .1] and 3 guesses: the root's children .6 and .2, and the first one's first
 * child .24, in the order .6, .24, .2: 2.04 tokens per pass.
 */
import { ArgumentError } from "../errors.ts";
import type { TreeShape } from "./sequoia.ts";

/** A tree whose nodes are ranks. Parents come before their children, and siblings in the order they are tested. */
export interface SparseTree extends TreeShape {
  /** Which of its head's choices a node is, 0 the most probable; the root's 0 says nothing. [nodes] */
  readonly ranks: readonly number[];
  /** 0 for the root, [nodes] */
  readonly depths: readonly number[];
}

/**
 * The best tree of at most `budget` guesses.
 * @param accuracies `accuracies[d - 1][r]`: how often rank r of the guesses at depth d is right, given that the path
 *   before it is. In [0, 1]; ranks that were never right are not taken
 * @param budget guesses, the root not counted: an integer >= 0
 * @throws ArgumentError on values out of range
 */
export function sparseTree(accuracies: readonly ArrayLike<number>[], budget: number): SparseTree {
  if (!(Number.isSafeInteger(budget) && budget >= 0)) throw new ArgumentError("budget", "an integer >= 0", budget);
  const orders = accuracies.map((ranks, depth) => {
    const values = Array.from(ranks);
    const bad = values.findIndex((value) => !(value >= 0 && value <= 1));
    if (bad >= 0) throw new ArgumentError(`accuracies[${depth}][${bad}]`, "a number in [0, 1]", values[bad]);
    return Array.from(values.keys())
      .filter((rank) => values[rank]! > 0)
      .sort((a, b) => values[b]! - values[a]! || a - b);
  });
  const tree = { parents: [-1], ranks: [0], depths: [0], depth: 0, tokensPerPass: 1 };
  const values = [1];
  /** The next child of each node that has one left: its place in the order of its depth's ranks. */
  const next: number[] = [];
  const valueOfNext = (node: number): number => {
    const depth = tree.depths[node]!;
    const rank = orders[depth]?.[next[node] ?? 0];
    return rank === undefined ? 0 : values[node]! * accuracies[depth]![rank]!;
  };
  while (tree.parents.length <= budget) {
    let parent = 0;
    for (let node = 1; node < tree.parents.length; node++) {
      const more = valueOfNext(node) - valueOfNext(parent);
      if (more > 0 || (more === 0 && tree.depths[node]! < tree.depths[parent]!)) parent = node;
    }
    const value = valueOfNext(parent);
    if (value === 0) break;
    const depth = tree.depths[parent]! + 1;
    const place = next[parent] ?? 0;
    next[parent] = place + 1;
    values.push(value);
    tree.parents.push(parent);
    tree.ranks.push(orders[depth - 1]![place]!);
    tree.depths.push(depth);
    tree.depth = Math.max(tree.depth, depth);
    tree.tokensPerPass += value;
  }
  return tree;
}

/** The best trees for fewer levels and fewer nodes than asked for, each made once. */
export class StaticTrees {
  readonly #accuracies: readonly ArrayLike<number>[];
  readonly #budget: number;
  readonly #byDepth = new Map<number, SparseTree>();

  /** @throws ArgumentError on values out of range */
  constructor(accuracies: readonly ArrayLike<number>[], budget: number, vocabularySize: number) {
    // A head has no more ranks than there are tokens.
    this.#accuracies = accuracies.map((ranks) => Array.from(ranks).slice(0, vocabularySize));
    this.#budget = budget;
    this.#byDepth.set(accuracies.length, sparseTree(this.#accuracies, budget));
  }

  /** The tree for at most `budget` guesses and `maxDepth` levels below the root. */
  within(budget: number, maxDepth: number): Pick<SparseTree, "parents" | "ranks" | "depths"> {
    const depth = Math.min(maxDepth, this.#accuracies.length);
    let tree = this.#byDepth.get(depth);
    if (tree === undefined) {
      tree = sparseTree(this.#accuracies.slice(0, depth), this.#budget);
      this.#byDepth.set(depth, tree);
    }
    const { parents, ranks, depths } = tree;
    if (budget >= parents.length - 1) return tree;
    // Nodes stand in the order they were worth taking: the best smaller tree is the beginning.
    const size = budget + 1;
    return { parents: parents.slice(0, size), ranks: ranks.slice(0, size), depths: depths.slice(0, size) };
  }
}
