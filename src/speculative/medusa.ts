/**
 * Medusa: a few extra output heads guess the tokens after the next one, all from one hidden state of the target.
 * Cai et al., arXiv 2401.10774, sections 2.1 (heads, tree attention), 2.2.1 (Medusa-1) and 2.3.3 (sparse tree); code by
 * FasterDecoding/Medusa.
 *
 * The hidden state from which the target drew the pending token knows something of the tokens behind it as well. So head
 * k is trained, with the target frozen, to predict the k-th token after the pending one: one residual layer and an output
 * matrix, no draft model, no cache. The heads do not see each other's choices. What they offer is therefore a tree: the
 * likeliest few of head 1, after each of them the same likeliest few of head 2, and so on, pruned to the combinations
 * that are most often right (`sparse-tree.ts`).
 *
 *     h          the target's state (after its final norm) at the last committed token; pending: x_{t+1}
 *     logits_k = W2_k (h + SiLU(W1_k h + b_k))     guesses at x_{t+1+k}, k = 1 .. K
 *     training   sum over k of 0.8^k cross-entropy of head k; W1 = 0, b = 0 and W2 = the target's head to begin with, so
 *                that every head starts as the target's own
 *
 * Guesses are chosen, not drawn (`laws` are null), so recursive rejection sampling keeps the target's law at every
 * temperature. Medusa's own choice when sampling is typical acceptance, which does not: `typical-acceptance.ts`.
 *
 * **Deviations**: b starts at 0, the released code leaves it at its layer's random default, with which the heads do not
 * start as the target's. W2_k may be left out: then it is the target's head itself, as in the code's later releases. The
 * released code measures the tree's accuracies with the heads that fill it; so do the heads in `models/`.
 *
 * **Unlike** a draft model's, guesses at depth 2 do not know what was guessed at depth 1, and none knows the pending token,
 * which had not been drawn yet when h was computed: accuracy falls fast with depth. Chimera mends both.
 *
 * Worked example: width 1, h = 2, W1 = 1, b = 0, W2 = [1, -1]: 2 + SiLU(2) = 3.762, logits [3.762, -3.762].
 */
import { ArgumentError } from "../errors.ts";
import type { KernelSpace } from "../kernels/kernels.ts";
import { addCosts, type Cost, type Matrix, row, type Tap } from "../model/language-model.ts";
import type { Weights } from "../model/weights.ts";
import type { Draft, DraftContext, Drafter, Drafting, DraftStart, VerifiedPass } from "./drafter.ts";
import { rootDraft } from "./drafter.ts";
import { checkHeadWeights, HeadLayers, type HeadTarget, type Linear, lastHidden, Ranking } from "./head-layers.ts";
import { StaticTrees } from "./sparse-tree.ts";

/** Names of a head's parameters, as the released code has them; k counts from 0. */
export const medusaNames = {
  residual: (k: number): string => `medusa_head.${k}.0.linear.weight`,
  bias: (k: number): string => `medusa_head.${k}.0.linear.bias`,
  output: (k: number): string => `medusa_head.${k}.1.weight`,
};

/** Every parameter's name and shape. @param tied without output matrices: the target's own serves all heads */
export function medusaShapes(
  { config: { width, vocabularySize } }: HeadTarget,
  count: number,
  tied: boolean,
): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  for (let k = 0; k < count; k++) {
    shapes.set(medusaNames.residual(k), [width, width]).set(medusaNames.bias(k), [width]);
    if (!tied) shapes.set(medusaNames.output(k), [vocabularySize, width]);
  }
  return shapes;
}

/** Trained heads, ready to run. */
export class MedusaHeads {
  readonly vocabularySize: number;
  readonly width: number;
  /** How many there are. */
  readonly count: number;
  readonly #target: HeadTarget;
  readonly #layers: HeadLayers;
  readonly #residuals: readonly Linear[];
  readonly #outputs: readonly Linear[];
  readonly #norm: number;
  /** h before its norm and after, [1, width]; the residual layer's output, [1, width]; logits, [1, vocabularySize]. */
  readonly #raw: number;
  readonly #normed: number;
  readonly #z: number;
  readonly #logits: number;
  readonly #ranking: Ranking;

  /**
   * @param weights by `medusaNames`; without output matrices the heads use the target's
   * @param space where they run, see `openKernels`; several may share one
   * @throws ArgumentError naming what is missing, unexpected or misshapen
   */
  constructor(target: HeadTarget, weights: ReadonlyMap<string, Weights>, space: KernelSpace) {
    const { width, vocabularySize } = target.config;
    let count = 0;
    while (weights.has(medusaNames.residual(count))) count++;
    const tied = !weights.has(medusaNames.output(0));
    checkHeadWeights(weights, medusaShapes(target, Math.max(count, 1), tied));
    this.vocabularySize = vocabularySize;
    this.width = width;
    this.count = count;
    this.#target = target;
    const layers = new HeadLayers(space);
    this.#layers = layers;
    const data = (name: string): Float32Array => weights.get(name)!.data;
    const heads = Array.from({ length: count }, (_, k) => k);
    this.#residuals = heads.map((k) =>
      layers.linear(width, width, data(medusaNames.residual(k)), data(medusaNames.bias(k))),
    );
    const shared = tied ? layers.linear(vocabularySize, width, target.outputHead) : undefined;
    this.#outputs = heads.map((k) => shared ?? layers.linear(vocabularySize, width, data(medusaNames.output(k))));
    this.#norm = layers.vector(target.norm);
    [this.#raw, this.#normed, this.#z] = [layers.buffer(1, width), layers.buffer(1, width), layers.buffer(1, width)];
    this.#logits = layers.buffer(1, vocabularySize);
    this.#ranking = new Ranking(layers, vocabularySize);
  }

  /** Multiply-adds of one head. */
  get multiplyAdds(): number {
    return this.width * (this.width + this.vocabularySize);
  }

  /**
   * Logits of every head.
   * @param hidden the last layer's output at the last committed token, before the final norm, [width]
   * @returns [count, vocabularySize]
   */
  logits(hidden: Float32Array): Matrix {
    const data = new Float32Array(this.count * this.vocabularySize);
    this.#run(hidden, this.count, (k) => {
      data.set(this.#layers.read(this.#logits, 1, this.vocabularySize).data, k * this.vocabularySize);
    });
    return { data, rows: this.count, columns: this.vocabularySize };
  }

  /**
   * The likeliest tokens of the first heads, best first, of equal ones the lower id.
   * @param ranks how many of each head: its length says how many heads run
   */
  best(hidden: Float32Array, ranks: readonly number[]): Int32Array[] {
    const best: Int32Array[] = [];
    this.#run(hidden, ranks.length, (k) => {
      best.push(this.#ranking.of(this.#logits, this.vocabularySize, ranks[k]!));
    });
    return best;
  }

  #run(hidden: Float32Array, count: number, done: (k: number) => void): void {
    const layers = this.#layers;
    layers.write({ data: hidden, rows: 1, columns: this.width }, this.#raw);
    layers.norm(this.#norm, this.#target.config.normEpsilon, this.#raw, 1, this.width, this.#normed);
    for (let k = 0; k < count; k++) {
      layers.apply(this.#residuals[k]!, this.#normed, 1, this.#z);
      layers.addSilu(this.#normed, 1, this.width, this.#z);
      layers.apply(this.#outputs[k]!, this.#z, 1, this.#logits);
      done(k);
    }
  }
}

export interface MedusaOptions {
  /** `accuracies[k - 1][r]`: how often rank r of head k is right; see `sparseTree`. Heads beyond its length are not used. */
  readonly accuracies: readonly ArrayLike<number>[];
  /** Guesses per step, the root not counted, an integer >= 0. Default 16. */
  readonly budget?: number;
}

/** A drafter that fills the same sparse tree in every step, from heads. It learns nothing across sequences. */
export class MedusaDrafter implements Drafter {
  readonly vocabularySize: number;
  readonly taps: readonly Tap[] = ["hidden"];
  readonly #heads: MedusaHeads;
  readonly #trees: StaticTrees;

  /** @throws ArgumentError on options out of range, or accuracies of more heads than there are */
  constructor(heads: MedusaHeads, { accuracies, budget = 16 }: MedusaOptions) {
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
    return new MedusaDrafting(this.#heads, this.#trees, start);
  }

  reset(): void {}
}

class MedusaDrafting implements Drafting {
  readonly #heads: MedusaHeads;
  readonly #trees: StaticTrees;
  /** At the last committed token; null before there is one. */
  #hidden: Float32Array | null = null;
  #cost = addCosts();

  constructor(heads: MedusaHeads, trees: StaticTrees, { prefill }: DraftStart) {
    this.#heads = heads;
    this.#trees = trees;
    if (prefill !== null) this.#keep(lastHidden(prefill.taps, heads.width), -1);
  }

  get cost(): Cost {
    return this.#cost;
  }

  propose({ tokens: text, maxNodes, maxDepth }: DraftContext): Draft {
    const pending = text[text.length - 1]!;
    const { parents, ranks, depths } = this.#trees.within(maxNodes - 1, maxDepth);
    if (this.#hidden === null || parents.length === 1) return rootDraft(pending);
    const wanted: number[] = [];
    depths.forEach((depth, node) => {
      if (depth > 0) wanted[depth - 1] = Math.max(wanted[depth - 1] ?? 0, ranks[node]! + 1);
    });
    const best = this.#heads.best(this.#hidden, wanted);
    const multiplyAdds = wanted.length * this.#heads.multiplyAdds;
    this.#cost = addCosts(this.#cost, { passes: 1, tokens: 1, multiplyAdds, cacheBytesRead: 0 });
    return {
      tokens: depths.map((depth, node) => (depth === 0 ? pending : best[depth - 1]![ranks[node]!]!)),
      parents,
      laws: new Array<null>(parents.length).fill(null),
    };
  }

  observe({ path, taps }: VerifiedPass): void {
    this.#keep(lastHidden(taps, this.#heads.width), path[path.length - 1]!);
  }

  close(): void {}

  #keep(hidden: Matrix, node: number): void {
    this.#hidden = row(hidden, node < 0 ? hidden.rows - 1 : node).slice();
  }
}
