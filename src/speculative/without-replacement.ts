/**
 * Drawing without replacement: siblings of a tree that are all different, one after another, each with its law.
 *
 * A token once drawn is taken out and what is left is scaled up. The law of the k-th draw given the earlier ones is what
 * `Draft.laws` asks for; taking the k largest of ln q + Gumbel noise at once (Kool et al., arXiv 1903.06059) gives the
 * same sequences with the same probabilities.
 *
 *     X_1 ~ q,   X_k ~ q_k = q without X_1 .. X_{k-1}, divided by what is left of its mass
 *
 * **Unlike** independent draws no sibling is wasted on a copy of a rejected one.
 *
 * Worked example: [.6, .3, .1] without token 0 is [0, .75, .25]; without token 1 as well, [0, 0, 1]; then nothing is left.
 */

/**
 * The law without a token.
 * @param law [n]
 * @returns a fresh law, [n]; null where no other token has any mass
 */
export function lawWithout(law: Float64Array, token: number): Float64Array | null {
  let mass = 0;
  for (let i = 0; i < law.length; i++) if (i !== token) mass += law[i]!;
  if (!(mass > 0)) return null;
  const left = law.map((probability) => probability / mass);
  left[token] = 0;
  return left;
}
