/**
 * Chimera: a tiny draft model between the target and its extra heads, on the target's own hidden states.
 * Zeng et al., arXiv 2402.15758; code by kafkayu/Chimera.
 *
 * Heads that all guess from one state (Medusa) do not know each other's guesses. Here every guess is fed back: a trigram
 * encoder makes a cheap short-range state of the last three tokens, drafted ones included, and one transformer block, the
 * full-context encoder, makes of it what the target's own state at that token might be. Its context is not text but the
 * states the target has computed already, so one layer looks at everything several layers have understood.
 *
 *     u_j = [E(x_{j-2}); E(x_{j-1}); E(x_j)]          E: the target's embeddings; the text's beginning: [x1;x1;x1], [x1;x2;x2]
 *     g_j = W_o (u_j + SiLU(W u_j + b))                trigram state; of three ids alone, hence remembered
 *     f_j = Block(h_1 .. h_{t-1}, f_t .. f_{j-1}, g_j)  x_t pending; the last row attends to all before it and to itself
 *     logits = W_lm M_i [h_{t-1}; f_j],  i = j - t + 1  guesses at x_{j+1}; M_i: head i, W_lm: the target's head
 *
 * What f_j misses is one target layer's worth of depth; what it costs is one layer and a trigram. After a target pass the
 * true h of the accepted tokens take the place of their f. Guesses form a static sparse tree by measured accuracies, are
 * chosen, not drawn (`laws` are null), and recursive rejection sampling keeps the target's law at every temperature.
 *
 *     training   sum over i of cross-entropy of head i against the target's own law at that place (distillation),
 *                + 0.1 mean (f_j - h_j)^2; target frozen, tokens of paths taken from the text
 *
 * **Deviations**. Heads: the released code's are [V, 2d] matrices, started as [W_lm | W_lm]; here they go through the target's
 * head, which takes a fourth of the room, and M_i starts as [0 | 1]: with both halves the heads would start with twice the
 * target's logits, and with the pending token, not the next one. One head per depth, as the code trains them; its
 * generation uses the first for all. Training: rows see their own trigram state and no other's, as rows of a draft do (the
 * code's also see earlier ones), and the f before them (the code means to, but a sign in its mask hides them); the path is
 * the text, not the arg-max of the heads, since guesses after a wrong one are lost anyway; loss: the paper describes a
 * distillation term, the code computes (f - h)^2 and leaves it out. W_o starts with the last token's embedding in it.
 * When sampling, the code accepts as typical acceptance does, or by probabilities of a top-k list: neither is exact.
 *
 * **Unlike** Medusa's heads its guesses know the pending token and each other; unlike a draft model it has no cache of text
 * of its own and depends on this one target.
 *
 * Worked example: width 1, W = 0, b = 0, W_o = [1, 1, 1], embeddings A 1, B 2, C 3: of the text A B C, g = 3, 5, 6.
 */
import { ArgumentError } from "../errors.ts";
import { addCosts, type Cost, type Tap } from "../model/language-model.ts";
import { type ChimeraContext, type ChimeraHeads, type EncodedNode, trigramAt } from "./chimera-heads.ts";
import type { Draft, DraftContext, Drafter, Drafting, DraftStart, VerifiedPass } from "./drafter.ts";
import { rootDraft } from "./drafter.ts";
import { lastHidden } from "./head-layers.ts";
import { StaticTrees } from "./sparse-tree.ts";

export interface ChimeraOptions {
  /**
   * `accuracies[i - 1][r]`: how often rank r of head i is right when the path before it is; see `sparseTree`. Its length
   * is how many levels are drafted, at most one per head.
   */
  readonly accuracies: readonly ArrayLike<number>[];
  /** Guesses per step, the root not counted, an integer >= 0. Default 16. */
  readonly budget?: number;
}

/** A drafter that fills the same sparse tree in every step, level by level. It learns nothing across sequences. */
export class ChimeraDrafter implements Drafter {
  readonly vocabularySize: number;
  readonly taps: readonly Tap[] = ["hidden"];
  readonly #heads: ChimeraHeads;
  readonly #trees: StaticTrees;

  /** @throws ArgumentError on options out of range, or accuracies of more heads than there are */
  constructor(heads: ChimeraHeads, { accuracies, budget = 16 }: ChimeraOptions) {
    if (accuracies.length > heads.count) {
      throw new ArgumentError("accuracies", `those of at most ${heads.count} heads`, accuracies.length);
    }
    this.vocabularySize = heads.vocabularySize;
    this.#heads = heads;
    this.#trees = new StaticTrees(accuracies, budget, heads.vocabularySize);
  }

  /** @throws ArgumentError when the target is not one the heads fit */
  open(start: DraftStart): Drafting {
    if (start.vocabularySize !== this.vocabularySize) {
      throw new ArgumentError("drafter", `a vocabulary of ${start.vocabularySize}`, this.vocabularySize);
    }
    return new ChimeraDrafting(this.#heads, this.#trees, start);
  }

  reset(): void {}
}

class ChimeraDrafting implements Drafting {
  readonly #width: number;
  readonly #trees: StaticTrees;
  readonly #context: ChimeraContext;

  constructor(heads: ChimeraHeads, trees: StaticTrees, { contextLength, prefill }: DraftStart) {
    this.#width = heads.width;
    this.#trees = trees;
    const hidden = prefill === null ? null : lastHidden(prefill.taps, heads.width);
    this.#context = heads.open(contextLength);
    if (hidden !== null) this.#context.commit(hidden);
  }

  get cost(): Cost {
    return addCosts(this.#context.cost);
  }

  propose({ tokens: text, maxNodes, maxDepth }: DraftContext): Draft {
    const pending = text[text.length - 1]!;
    const { parents, ranks } = this.#trees.within(maxNodes - 1, maxDepth);
    // Before there is a committed token there is no state to anchor the heads.
    if (this.#context.length === 0 || parents.length === 1) return rootDraft(pending);
    const tokens = [pending];
    const children: number[][] = parents.map(() => []);
    const paths: number[][] = [[]];
    for (let node = 1; node < parents.length; node++) {
      const parent = parents[node]!;
      children[parent]!.push(node);
      paths.push([...paths[parent]!, parent]);
    }
    for (let level = [0], depth = 0; level.length > 0; depth++) {
      this.#context.encode(
        level.map((node): EncodedNode => {
          const path = [...paths[node]!, node].map((ancestor) => tokens[ancestor]!);
          return {
            node,
            depth,
            trigram: trigramAt([...text.slice(-3, -1), ...path]),
            ancestors: paths[node]!,
            kept: children[node]!.some((child) => children[child]!.length > 0),
          };
        }),
        depth,
      );
      level.forEach((node, i) => {
        const best = this.#context.best(i, 1 + Math.max(...children[node]!.map((child) => ranks[child]!)));
        for (const child of children[node]!) tokens[child] = best[ranks[child]!]!;
      });
      level = level.flatMap((node) => children[node]!).filter((node) => children[node]!.length > 0);
    }
    return { tokens, parents, laws: new Array<null>(parents.length).fill(null) };
  }

  observe({ path, taps }: VerifiedPass): void {
    this.#context.commit(lastHidden(taps, this.#width), path);
  }

  close(): void {
    this.#context.close();
  }
}
