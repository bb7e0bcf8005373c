/**
 * The contract of a verifier: from the target's logits at every node of a draft to an accepted path and one more token.
 *
 * A verifier is lossless when the tokens it emits have exactly the target's law, whatever the draft: a bad draft costs
 * passes, never quality. Every pass emits at least one token, so the worst case is plain decoding.
 *
 * Worked example: chain [7, 3, 4] where 3 is accepted, 4 is not and 9 takes its place:
 * `{ kind: "corrected", path: [0, 1], token: 9 }` commits 7 and 3; the step's new tokens are 3 and 9.
 */
import { ArgumentError } from "../errors.ts";
import type { Matrix } from "../model/language-model.ts";
import type { Random } from "../tensor/random.ts";
import type { Draft } from "./drafter.ts";
import type { Sampling } from "./sampling.ts";

export interface Verification {
  readonly draft: Draft;
  /** The target's raw logits after every node, [nodes, vocabularySize]. Row 0 follows the pending token. */
  readonly logits: Matrix;
  readonly sampling: Sampling;
  /** The stream to draw from. */
  readonly random: Random;
}

export interface Verdict {
  /**
   * `"completed"`: the path ends at a leaf of the draft and `token` is one more, for free.
   * `"corrected"`: the last node of the path has children, none was accepted, and `token` takes their place.
   */
  readonly kind: "completed" | "corrected";
  /** Accepted nodes from the root down: `path[0]` is 0, each next one a child of the one before. */
  readonly path: readonly number[];
  /** The token after the path; it will be the next root. */
  readonly token: number;
}

export interface Verifier {
  /**
   * Set by a verifier whose tokens do not have the target's law: the report of every generation with it says so.
   * Default: it is lossless.
   */
  readonly lossy?: true;
  /** Writes to nothing it is given, keeps nothing between calls; draws from `random` only. */
  verify(verification: Verification): Verdict;
}

/** Children of a node, in the order they are to be tested. */
export function childrenOf(draft: Draft, node: number): number[] {
  const children: number[] = [];
  for (let i = node + 1; i < draft.tokens.length; i++) if (draft.parents[i] === node) children.push(i);
  return children;
}

/**
 * Checks that a verdict's path is one of the draft's.
 * @throws ArgumentError naming the part that breaks the contract
 */
export function checkVerdict(verdict: Verdict, draft: Draft, vocabularySize: number): void {
  const { path, token } = verdict;
  if (path[0] !== 0) throw new ArgumentError("verdict.path[0]", "0, the root", path[0]);
  for (let i = 1; i < path.length; i++) {
    if (draft.parents[path[i]!] !== path[i - 1]) {
      throw new ArgumentError(`verdict.path[${i}]`, `a child of node ${path[i - 1]}`, path[i]);
    }
  }
  if (!(Number.isInteger(token) && token >= 0 && token < vocabularySize)) {
    throw new ArgumentError("verdict.token", `a token id from 0 to ${vocabularySize - 1}`, token);
  }
}
