/**
 * Recursive rejection sampling: verify a drafted tree so that what comes out has exactly the target's law.
 * Jeon et al. (RSD), arXiv 2402.14160; the same rule, for one way of drawing each, in SpecInfer (arXiv 2305.09781,
 * algorithm 2, multi-step speculative sampling) and Sequoia (arXiv 2402.12374).
 *
 * The children of a node are guesses at one and the same token. They are tested in the order they were drawn, the first
 * against the target's law, each next one against what the rejected ones before it have left of that law. The first
 * one accepted is the next node. When all are rejected, what is left is what the token is drawn from.
 *
 *     p_1 = p,  X_k ~ q_k( . | X_1 .. X_{k-1})
 *     accept X_k   if u < p_k(X_k) / q_k(X_k);          else p_{k+1} = norm([p_k - q_k]+)
 *     none left    emit Z ~ p_{K+1};                    at a leaf emit Z ~ p
 *
 * Each test is speculative sampling of p_k by q_k, so its outcome has law p_k provided that what follows a rejection has
 * law p_{k+1}: by induction from the last sibling, Z ~ p for every choice of the q_k, so long as they are the laws the
 * siblings were really drawn from. Which makes these one algorithm, told apart by the draft's laws alone:
 *
 *     one child per node               speculative sampling (Leviathan et al.; Chen et al.)
 *     q_k = q                          independent draws, with replacement: SpecInfer. A copy of a rejected sibling fails:
 *                                      p_k is 0 there
 *     q_k = q without X_1 .. X_{k-1}   without replacement: RSD, Sequoia, DySpec
 *     q_k = 1 at X_k (null)            chosen without chance: accept with p_k(X_k), else p_{k+1} is p_k without X_k
 *
 * At temperature 0 p is one-hot, and all of them ask one thing: is the arg-max among the children?
 *
 * **Deviations**: Sequoia goes on with a uniform law over the untried tokens where the draft's law is used up; here a
 * drafter that wants that states it as the law of those guesses, and one that does not adds no more siblings.
 *
 * **Unlike** speculative sampling, which has one guess per position, a rejection is not the end while siblings are left.
 *
 * Worked example: p = [.3, .4, .3], q = [.6, .3, .1], siblings 0, 1 without replacement: 0 accepted with .3 / .6; then
 * p_2 = [0, 1/3, 2/3], q_2 = [0, .75, .25]: 1 accepted with 4/9; then p_3 = [0, 0, 1]. All in all .875 are accepted, and
 * .82 with independent siblings, whose second one may be 0 again.
 */
import { ArgumentError } from "../errors.ts";
import { row } from "../model/language-model.ts";
import type { Draft } from "./drafter.ts";
import { mostProbableToken, tokenLaw } from "./sampling.ts";
import { acceptsGuess, residualLaw } from "./speculative-sampling.ts";
import type { Verdict, Verification, Verifier } from "./verifier.ts";
import { childrenOf } from "./verifier.ts";

/** The lossless verifier, of chains and trees. Keeps nothing between calls, so one instance serves everybody. */
export const recursiveRejectionSampling: Verifier = { verify };

function verify(verification: Verification): Verdict {
  return verification.sampling.temperature === 0 ? verifyMostProbable(verification) : verifyDrawn(verification);
}

/** Temperature 0, without making the laws: the child that is the arg-max, or none. */
function verifyMostProbable({ draft, logits }: Verification): Verdict {
  const path = [0];
  for (;;) {
    const node = path[path.length - 1]!;
    const token = mostProbableToken(row(logits, node));
    const children = childrenOf(draft, node);
    if (children.length === 0) return { kind: "completed", path, token };
    const accepted = children.find((child) => {
      requirePossible(draft, child);
      return draft.tokens[child] === token;
    });
    if (accepted === undefined) return { kind: "corrected", path, token };
    path.push(accepted);
  }
}

function verifyDrawn({ draft, logits, sampling, random }: Verification): Verdict {
  const path = [0];
  for (;;) {
    const node = path[path.length - 1]!;
    let p = tokenLaw(row(logits, node), sampling);
    const children = childrenOf(draft, node);
    if (children.length === 0) return { kind: "completed", path, token: random.categorical(p) };
    const accepted = children.find((child) => {
      requirePossible(draft, child);
      const guess = draft.tokens[child]!;
      const q = draft.laws[child] ?? oneHot(p.length, guess);
      if (acceptsGuess(p, q, guess, random)) return true;
      p = residualLaw(p, q);
      return false;
    });
    if (accepted === undefined) return { kind: "corrected", path, token: random.categorical(p) };
    path.push(accepted);
  }
}

/** @throws ArgumentError on a guess its own law says cannot have been drawn */
function requirePossible(draft: Draft, child: number): void {
  const guess = draft.tokens[child]!;
  const probability = draft.laws[child]?.[guess] ?? 1;
  if (probability > 0) return;
  throw new ArgumentError(
    `draft.laws[${child}]`,
    `a positive probability for the token that was drawn (${guess})`,
    probability,
    "The law must be the one the guess was really drawn from.",
  );
}

function oneHot(size: number, index: number): Float64Array {
  const law = new Float64Array(size);
  law[index] = 1;
  return law;
}
