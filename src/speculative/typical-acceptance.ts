/**
 * Typical acceptance: keep every guess the target finds plausible, be it or not what the target would have drawn. LOSSY.
 * Cai et al. (Medusa), arXiv 2401.10774, section 2.3.1; code by FasterDecoding/Medusa, whose default it is.
 *
 * Rejection sampling turns good guesses away to keep the target's law, and more of them the higher the temperature. Who
 * samples only for the sake of variety may do without the law: a guess stays where its probability is not small for a law
 * as flat as this one. The threshold falls with the entropy, so where the target hesitates among many tokens, many pass.
 *
 *     accept x at a node   if p(x) > min(epsilon, delta exp(-H(p))),   H(p) = -sum p log(p + 10^-5)
 *     path                 the longest of accepted guesses from the root; of equal ones the largest sum of log p
 *     token after it       the most probable one
 *
 * Nothing is drawn: one draft has one outcome. The tokens do NOT have the target's law: `lossy` is set, and the report of
 * a generation repeats it. At temperature 0 the law is one token, which alone passes: plain decoding's text, as with
 * every verifier.
 *
 * **Deviations**: top-k and top-p, where asked for, cut the law first; the code knows temperature alone. The paper's and
 * the code's own choice for the token after the path (taken greedily, accepted unconditionally) is this one; the code's
 * slower variant, which draws from the tokens above the threshold, is left out.
 *
 * **Unlike** recursive rejection sampling, siblings do not share out one law: several may pass, and depth decides.
 *
 * Worked example: p = [.7, .2, .06, .04] has H = .869, threshold min(.09, .3 * .419) = .09: guesses 0 and 1 pass. Of the
 * uniform law over 4 tokens, threshold .3 / 4 = .075, every guess passes.
 */
import { ArgumentError } from "../errors.ts";
import { row } from "../model/language-model.ts";
import { mostProbableToken, tokenLaw } from "./sampling.ts";
import type { Verdict, Verification, Verifier } from "./verifier.ts";
import { childrenOf } from "./verifier.ts";

export interface TypicalAcceptanceOptions {
  /** The threshold where the target is sure: a number in (0, 1). Default 0.09. */
  readonly epsilon?: number;
  /** The threshold where it is not, as a share of exp(-H): a number in (0, 1]. Default 0.3, the root of epsilon's. */
  readonly delta?: number;
}

/** A verifier that does not keep the target's law when sampling. */
export interface LossyVerifier extends Verifier {
  readonly lossy: true;
}

/**
 * The threshold a guess's probability must exceed.
 * @param law the target's, [vocabularySize]
 */
export function typicalThreshold(
  law: Float64Array,
  { epsilon = 0.09, delta = 0.3 }: TypicalAcceptanceOptions = {},
): number {
  let entropy = 0;
  for (const p of law) entropy -= p * Math.log(p + 1e-5);
  return Math.min(epsilon, delta * Math.exp(-entropy));
}

/**
 * Medusa's lossy verifier.
 * @throws ArgumentError on options out of range
 */
export function typicalAcceptance(options: TypicalAcceptanceOptions = {}): LossyVerifier {
  const { epsilon = 0.09, delta = 0.3 } = options;
  if (!(epsilon > 0 && epsilon < 1)) throw new ArgumentError("epsilon", "a number in (0, 1)", epsilon);
  if (!(delta > 0 && delta <= 1)) throw new ArgumentError("delta", "a number in (0, 1]", delta);
  return { lossy: true, verify: (verification) => verify(verification, { epsilon, delta }) };
}

function verify({ draft, logits, sampling }: Verification, options: Required<TypicalAcceptanceOptions>): Verdict {
  /** Accepted nodes, a parent before its children (a Map is visited in the order it is filled, while it is). */
  const accepted = new Map([[0, { depth: 0, score: 0 }]]);
  let last = 0;
  for (const node of accepted.keys()) {
    const { depth, score } = accepted.get(node)!;
    const best = accepted.get(last)!;
    if (depth > best.depth || (depth === best.depth && score > best.score)) last = node;
    const children = childrenOf(draft, node);
    if (children.length === 0) continue;
    const law = tokenLaw(row(logits, node), sampling);
    const threshold = typicalThreshold(law, options);
    for (const child of children) {
      const p = law[draft.tokens[child]!]!;
      if (p > threshold) accepted.set(child, { depth: depth + 1, score: score + Math.log(p) });
    }
  }
  const path: number[] = [];
  for (let node = last; node >= 0; node = draft.parents[node]!) path.unshift(node);
  const kind = childrenOf(draft, last).length === 0 ? "completed" : "corrected";
  return { kind, path, token: mostProbableToken(row(logits, last)) };
}
