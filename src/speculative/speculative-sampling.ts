/**
 * Speculative sampling: test a drafted chain so that what comes out has exactly the target's law.
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
 * A guess chosen without chance has the one-hot q: accept with p(x), else p without x, renormalised.
 *
 * This file is the test of one guess. The verifier that walks down a chain with it is recursive rejection sampling, of
 * which a chain is the tree with one child per node.
 *
 * **Deviations**: none. Laws are doubles, and the test is written u q(x) < p(x), which spares the division.
 *
 * **Unlike** plain decoding, which draws each token from p after a pass of its own.
 *
 * Worked example: p = [.3, .4, .3], q = [.6, .3, .1]: acceptance .3 + .3 + .1 = .7, residual [0, .1, .2] / .3 = [0, 1/3, 2/3].
 */
import type { Random } from "../tensor/random.ts";

/**
 * Whether a guess stays: true with probability min(1, p(guess) / q(guess)).
 * @param p the target's law, [n]
 * @param q the law the guess was drawn from, [n], positive at the guess
 */
export function acceptsGuess(p: Float64Array, q: Float64Array, guess: number, random: Random): boolean {
  return random.uniform() * q[guess]! < p[guess]!;
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

/**
 * Expected speedup over plain decoding where a pass costs the same however many tokens it scores, as where weights have
 * to be fetched from memory: tokensPerPass / (1 + draftPasses * costRatio). The walltime factor of Leviathan et al.; RSD
 * (Jeon et al., arXiv 2402.14160) takes the ratio of parameters and calls it memory-bound speedup.
 * @param draftPasses draft passes per target pass
 * @param costRatio cost of a draft pass in target passes
 */
export function expectedSpeedup(tokensPerPass: number, draftPasses: number, costRatio: number): number {
  return tokensPerPass / (1 + draftPasses * costRatio);
}
