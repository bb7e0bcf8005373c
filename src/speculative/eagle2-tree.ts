/**
 * EAGLE-2's dynamic tree: expand the most confident nodes level by level, then keep the most confident of all.
 * Li et al., arXiv 2406.16858, section 4 (expansion phase, reranking phase); code by SafeAILab/EAGLE.
 *
 * A node's confidence, the product of the draft's probabilities along its path, stands for the chance that it is accepted.
 * Each level the k most confident nodes are expanded, to their k most probable tokens. The candidates nobody expanded
 * are not lost: at the end all levels compete for the budget, so a sure shallow node beats a doubtful deep one.
 *
 *     c(node)    = product of q along the path                                c(root) = 1
 *     expand     the k largest c of the level, k children each                k + k^2 (levels - 1) candidates
 *     rerank     the budget's largest c of all candidates; of equal ones the shallower
 *
 * No child's confidence exceeds its parent's, so what is kept is a tree. Tokens are chosen, not drawn: dropping some of
 * them changes no law, `laws` are null, and recursive rejection sampling accepts a child x with p(x), p having lost
 * the siblings tested before.
 *
 * **Deviations**: any language model drafts; EAGLE's drafter, a layer over the target's features, is another technique,
 * and this its tree. `budget` counts guesses, `total_tokens` of the code the root too; `maxDepth` counts levels, `depth` of
 * the code one less. Confidences are products in doubles, the code adds logarithms.
 *
 * **Unlike** DySpec's, the tree is the same for the same text: nothing is drawn, at any temperature.
 *
 * Worked example: k = 2, q = [.6, .3, .1] at the root, [.5, .4, .1] after 0, [.9, .05, .05] after 1. Level 2: 00 .3, 10
 * .27, 01 .24, 11 .015; 00 and 10 are expanded. Four guesses of two levels: 0, 1, 00, 10.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { largest } from "./branching-drafter.ts";
import { type GrowingTree, ModelDrafter } from "./model-drafter.ts";

export interface Eagle2TreeOptions {
  /** Nodes expanded per level, and children of each, an integer >= 1. Default 10. */
  readonly topK?: number;
  /** Levels below the root, hence draft passes per step, an integer >= 0. Default 6. */
  readonly maxDepth?: number;
  /** Guesses kept per step, the root not counted, an integer >= 0. Default 59. */
  readonly budget?: number;
}

/** A drafter that chooses its trees by confidence. For `recursiveRejectionSampling`. */
export class Eagle2TreeDrafter extends ModelDrafter {
  readonly topK: number;
  readonly maxDepth: number;
  readonly budget: number;

  /** @throws ArgumentError on options out of range */
  constructor(model: LanguageModel, { topK = 10, maxDepth = 6, budget = 59 }: Eagle2TreeOptions = {}) {
    super(model);
    if (!(Number.isSafeInteger(topK) && topK >= 1)) throw new ArgumentError("topK", "an integer >= 1", topK);
    for (const [name, value] of Object.entries({ maxDepth, budget })) {
      if (!(Number.isSafeInteger(value) && value >= 0)) throw new ArgumentError(name, "an integer >= 0", value);
    }
    this.topK = topK;
    this.maxDepth = maxDepth;
    this.budget = budget;
  }

  protected override grow(tree: GrowingTree): void {
    const confidence = [1];
    const mostConfident = (nodes: readonly number[], count: number): number[] =>
      largest(
        Float64Array.from(nodes, (node) => confidence[node]!),
        count,
      ).map((i) => nodes[i]!);

    const budget = Math.min(this.budget, tree.maxNodes - 1);
    const levels = budget === 0 ? 0 : Math.min(this.maxDepth, tree.maxDepth);
    let expanded = [0];
    for (let depth = 1; depth <= levels; depth++) {
      const laws = tree.laws(expanded, { temperature: 1 });
      const candidates: number[] = [];
      for (const [i, node] of expanded.entries()) {
        const law = laws[i]!;
        if (law === null) continue;
        for (const token of largest(law, this.topK)) {
          if (law[token] === 0) break;
          const child = tree.add(node, token, null);
          confidence[child] = confidence[node]! * law[token]!;
          candidates.push(child);
        }
      }
      expanded = mostConfident(candidates, this.topK);
    }
    // The root is the most confident of all. Of equal ones the first to be added stay, hence each with its parent.
    tree.keep(mostConfident(Array.from(confidence.keys()), budget + 1));
  }
}
