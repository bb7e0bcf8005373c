/**
 * SpecInfer: a token tree with several guesses per position, drawn independently of each other.
 * Miao et al., arXiv 2305.09781, expansion-based construction and algorithm 2 (multi-step speculative sampling).
 *
 * A chain ends at its first wrong guess. Here each node of level l - 1 has k_l children, and the target scores all of
 * them in one pass; a rejected child leaves its siblings to be tried, each against what the rejected ones have left of
 * the target's law. The verifier is recursive rejection sampling with q_k = q.
 *
 *     siblings       X_1 .. X_k ~ q, independent, hence sometimes the same token twice
 *     accept X_i     if u < p_i(X_i) / q(X_i);          else p_{i+1} = norm([p_i - q]+)
 *     nodes          k_1 + k_1 k_2 + k_1 k_2 k_3 + ...
 *
 * At temperature 0 the children are the k most probable tokens of the draft model, as in the paper.
 *
 * **Deviations**: one draft model; trees merged from several are left out. Siblings are tested in the order they were
 * drawn, the paper draws an order at random: with one law for all of them it is the same. Siblings that are the same
 * token stay separate nodes, of which only the first has children: the paper merges them into one and tests it twice.
 *
 * **Unlike** RSD-C, which never draws a sibling twice, a second sibling here may be a copy of a rejected one.
 *
 * Worked example: p = [.3, .4, .3], q = [.6, .3, .1]: a child is accepted with .7, one of two with .82, of three with .848.
 */
import type { Random } from "../tensor/random.ts";
import type { Guess } from "./branching-drafter.ts";
import { BranchingDrafter } from "./branching-drafter.ts";

/** A drafter of trees with independent siblings. */
export class SpecInferDrafter extends BranchingDrafter {
  protected override siblings(law: Float64Array, count: number, random: Random): Guess[] {
    return Array.from({ length: count }, () => ({ token: random.categorical(law), law }));
  }
}
