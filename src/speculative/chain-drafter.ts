/**
 * Chain drafter: a smaller language model guesses the next gamma tokens, one after another.
 * Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318.
 *
 * The draft model has a session, hence a cache, of its own. Before a step it holds at most the text without the pending
 * token; the first pass feeds what is missing, each further pass the guess just drawn, so a step is gamma passes.
 * The last guess is not fed: its logits would serve nobody. After verification the cache is cut to the accepted path:
 *
 *     before   n - 1 tokens (n: the text with the pending token)
 *     drafted  n - 1 + gamma           pending and x_1 .. x_{gamma-1}
 *     a < gamma accepted: cut to n + a                        pending and x_1 .. x_a
 *     a = gamma accepted: n - 1 + gamma stay, x_gamma is fed with the next pending token, in the same pass
 *
 * **Deviations**: none. Where the draft model's context ends before the target's, drafting stops and decoding is plain.
 *
 * **Unlike** the random drafter, its law is a model's, so acceptance is 1 - TV(p, q) of two models of the same text.
 *
 * Worked example: gamma 2, pending 7: passes over [7] and [3], draft [7, 3, 4]; both accepted and 9 emitted: the next
 * step's first pass is over [4, 9].
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { GrowingTree, ModelDrafterOptions } from "./model-drafter.ts";
import { ModelDrafter } from "./model-drafter.ts";

export interface ChainDrafterOptions extends ModelDrafterOptions {
  /** Guesses per step, an integer >= 0. 0 never guesses. Default 4. */
  readonly gamma?: number;
}

/** A drafter that lets `model` guess a chain of `gamma` tokens per step. It learns nothing across sequences. */
export class ChainDrafter extends ModelDrafter {
  readonly gamma: number;

  /** @throws ArgumentError on a gamma that is not an integer >= 0, or sampling options out of range */
  constructor(model: LanguageModel, options: ChainDrafterOptions = {}) {
    const { gamma = 4 } = options;
    if (!(Number.isSafeInteger(gamma) && gamma >= 0)) throw new ArgumentError("gamma", "an integer >= 0", gamma);
    super(model, options);
    this.gamma = gamma;
  }

  protected grow(tree: GrowingTree): void {
    const depth = Math.min(this.gamma, tree.room, tree.maxDepth);
    for (let node = 0; tree.depths[node]! < depth; ) {
      const law = tree.law(node);
      if (law === null) break;
      node = tree.add(node, tree.random.categorical(law), law);
    }
  }
}
