/**
 * Speculative sampling: verify a drafted chain so that what comes out has exactly the target's law.
 * Leviathan et al., arXiv 2211.17192, algorithm 1; Chen et al., arXiv 2302.01318, algorithm 2 (the same rule).
 *
 * A guess x drawn from q is kept with probability min(1, p(x) / q(x)). Where q overshoots p the surplus is turned away,
 * and what q left out, p - q where positive, is exactly what the replacement is drawn from.
 *
 *     accept x_i     if u < p_i(x_i) / q_i(x_i),  u uniform in [0, 1)
 *     rejected at i  emit y ~ norm([p_i - q_i]+), stop
 *     all accepted   emit y ~ p_{g+1}
 *     acceptance     a = sum_x min(p(x), q(x)) = 1 - TV(p, q);  E[tokens per pass] = (1 - a^(g+1)) / (1 - a)
 *
 * At temperature 0 both laws are one-hot: a guess is accepted if it is the arg-max, and no draw can change the outcome.
 * A guess chosen without chance has the one-hot q (`laws[i] === null`): accept with p(x), else p without x, renormalised.
 *
 * **Deviations**: none. Laws are doubles, and the test is written u q(x) < p(x), which spares the division.
 *
 * **Unlike** plain decoding, which draws each token from p after a pass of its own.
 *
 * Worked example: p = [.3, .4, .3], q = [.6, .3, .1]: acceptance .3 + .3 + .1 = .7, residual [0, .1, .2] / .3 = [0, 1/3, 2/3].
 */
import { ArgumentError } from "../errors.ts";
import { row } from "../model/language-model.ts";
import { tokenLaw } from "./sampling.ts";
import type { Verdict, Verification, Verifier } from "./verifier.ts";
import { childrenOf } from "./verifier.ts";

/** The lossless verifier of chains. Keeps nothing between calls, so one instance serves everybody. */
export const speculativeSampling: Verifier = { verify };

function verify({ draft, logits, sampling, random }: Verification): Verdict {
  const path = [0];
  for (let node = 0; ; ) {
    const p = tokenLaw(row(logits, node), sampling);
    const children = childrenOf(draft, node);
    if (children.length === 0) return { kind: "completed", path, token: random.categorical(p) };
    if (children.length > 1) {
      throw new ArgumentError(
        "draft",
        "a chain",
        `${children.length} children of node ${node}`,
        "Speculative sampling tests one guess per position. Give trees to a verifier of trees.",
      );
    }
    const child = children[0]!;
    const guess = draft.tokens[child]!;
    const q = draft.laws[child]!;
    const qGuess = q === null ? 1 : q[guess]!;
    if (!(qGuess > 0)) {
      throw new ArgumentError(
        `draft.laws[${child}]`,
        `a positive probability for the token that was drawn (${guess})`,
        qGuess,
        "The law must be the one the guess was really drawn from.",
      );
    }
    if (!(random.uniform() * qGuess < p[guess]!)) {
      return { kind: "corrected", path, token: random.categorical(residualLaw(p, q ?? oneHot(p.length, guess))) };
    }
    path.push(child);
    node = child;
  }
}

/**
 * What is left of the target's law once a guess drawn from q was turned away: norm([p - q]+).
 * @param p the target's law, [n]
 * @param q the guess's law, [n]
 * @returns a fresh law, [n]. Where q covers p the residual is empty: no guess can be turned away there but by rounding,
 *   and p itself is returned
 */
export function residualLaw(p: Float64Array, q: Float64Array): Float64Array {
  let mass = 0;
  const residual = p.map((probability, i) => {
    const left = Math.max(0, probability - q[i]!);
    mass += left;
    return left;
  });
  return mass > 0 ? residual.map((left) => left / mass) : p.slice();
}

/** The probability that a guess drawn from q is accepted: sum_x min(p(x), q(x)), in [0, 1]. */
export function acceptanceRate(p: ArrayLike<number>, q: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < p.length; i++) sum += Math.min(p[i]!, q[i]!);
  return sum;
}

/**
 * Expected tokens per target pass, the one after the path included, when each of gamma guesses is accepted
 * independently with probability `acceptance`: 1 + a + ... + a^gamma.
 */
export function expectedTokensPerPass(acceptance: number, gamma: number): number {
  let sum = 0;
  for (let i = 0; i <= gamma; i++) sum += acceptance ** i;
  return sum;
}

function oneHot(size: number, index: number): Float64Array {
  const law = new Float64Array(size);
  law[index] = 1;
  return law;
}
