/**
 * RSD-C: recursive speculative decoding with constant branching factors, siblings drawn without replacement.
 * Jeon et al., arXiv 2402.14160.
 *
 * A tree that draws its siblings independently repeats itself, the more the surer the draft model is. Gumbel-top-k draws
 * k different tokens at once: perturb every log-probability with noise of its own and take the k largest. In descending
 * order they are a draw without replacement one after another, so each sibling's law is known, and recursive rejection
 * sampling is exact.
 *
 *     g_y = ln q(y) + Gumbel(0, 1)             X_1, .., X_k = the k largest g_y, descending
 *     P(X_i = y | X_1 .. X_{i-1}) = q(y) / (1 - q(X_1) - .. - q(X_{i-1})),   0 at the earlier ones
 *
 * Where the law (cut by top-k or top-p, say) has fewer than k tokens, a node has fewer children; all its mass is used
 * then, and some child is accepted unless the target says what the draft cannot.
 *
 * **Deviations**: none in the method. At temperature 0, which the paper leaves to the limit, siblings are the k most
 * probable tokens, chosen without chance.
 *
 * **Unlike** SpecInfer no sibling is a copy; unlike RSD-S a node has its children however unlikely it is itself.
 *
 * Worked example: q = [.6, .3, .1], two siblings: 0 then 1 with .6 x .3 / .4 = .45, 1 then 0 with .3 x .6 / .7 = .257.
 */
import type { Random } from "../tensor/random.ts";
import type { Guess } from "./branching-drafter.ts";
import { BranchingDrafter, largest } from "./branching-drafter.ts";
import { lawWithout } from "./without-replacement.ts";

/** A drafter of trees with constant branching factors and siblings without replacement. (1, 1, ..) is a chain. */
export class RsdCDrafter extends BranchingDrafter {
  protected override siblings(law: Float64Array, count: number, random: Random): Guess[] {
    let left: Float64Array | null = law;
    return gumbelTopK(law, count, random).map((token) => {
      const guess = { token, law: left };
      left = left && lawWithout(left, token);
      return guess;
    });
  }
}

/**
 * Up to k different indices drawn without replacement, in the order of drawing. One Gumbel number per positive entry.
 * @param law probabilities, or weights that need not sum to 1, [n]
 * @returns at most k indices; fewer where fewer are positive
 */
export function gumbelTopK(law: Float64Array, k: number, random: Random): number[] {
  return largest(
    law.map((probability) => (probability > 0 ? Math.log(probability) + random.gumbel() : Number.NEGATIVE_INFINITY)),
    k,
  );
}
