/**
 * The contract of a drafter: it guesses what the target will say next, as a tree, and learns from every verified pass.
 *
 * One step of draft and verify, one target pass:
 *
 *     draft   = drafting.propose(context)         // node 0 is the pending token, the other nodes are guesses
 *     pass    = target.score(draft)               // next-token logits after every node
 *     verdict = verifier.verify(draft, pass)      // the accepted path from the root, and one more token
 *     target.accept(last node of the path)        // the one more token is pending now
 *     drafting.observe(...)                       // the drafter follows, and learns
 *
 * A `Drafter` is to a `Drafting` what a model is to a session. What one sequence needs (a draft model's cache, the
 * n-grams of this prompt) lives in the `Drafting`; what is learnt across sequences (a table of successors, a trie of
 * earlier answers) lives in the `Drafter`. So one drafter serves many sequences at once without their mixing.
 *
 * Worked example: pending token 7, guesses 3 and 5 after it, 4 after 3: tokens [7, 3, 5, 4], parents [-1, 0, 0, 1].
 */
import { ArgumentError } from "../errors.ts";
import type { Cost, DraftTree, Matrix, Pass, Tap, Taps } from "../model/language-model.ts";
import type { Random } from "../tensor/random.ts";
import type { Sampling } from "./sampling.ts";

/**
 * A draft tree rooted at the pending token, and the law each guess was drawn from.
 *
 * Node 0 is the root: `tokens[0]` is the pending token, `parents[0]` is -1, and it is the only node with that parent.
 * So node i, row i of the target's logits and `session.accept(i)` all mean the same i. Children of one node are in the
 * order they were drawn, which is the order they are tested in.
 */
export interface Draft extends DraftTree {
  /**
   * `laws[i]`: the law token i was drawn from, given its path AND its earlier siblings, [vocabularySize].
   * Exactness rests on this being the true one, temperature and cuts included:
   * - independent draws (SpecInfer): siblings share one array;
   * - without replacement (Sequoia, RSD, DySpec): each sibling's law has the earlier ones removed and is renormalised;
   * - `null`: chosen without chance (top-k trees, retrieval, an arg-max), the law that is 1 at the token.
   * `laws[0]` is null: the root is not a guess. Arrays may be shared between nodes; nobody writes to them.
   */
  readonly laws: readonly (Float64Array | null)[];
}

/** What a drafter is told when a sequence starts. */
export interface DraftStart {
  /** The prompt; its last token is the first pending one. Copy what you keep. */
  readonly prompt: readonly number[];
  /** Of the target. */
  readonly vocabularySize: number;
  /** Of the target. */
  readonly contextLength: number;
  /**
   * The target's pass over `prompt.slice(0, -1)`, with what the drafter asked for (`taps`, `prefillLogits`);
   * null when that is empty.
   */
  readonly prefill: Pass | null;
}

/** What a drafter may know when it drafts. */
export interface DraftContext {
  /** The whole text so far: what the target has committed, then the pending token, last. Copy what you keep. */
  readonly tokens: readonly number[];
  /** Most nodes the draft may have, the root included: what the target's context still holds. At least 1. */
  readonly maxNodes: number;
  /**
   * Longest path below the root that can be of use: tokens still to generate, less the one every pass gives anyway.
   * 0 asks for the root alone.
   */
  readonly maxDepth: number;
  /** How the target's tokens will be drawn. A drafter may draw otherwise, if `laws` say how. */
  readonly sampling: Sampling;
  /** The stream to draw guesses from. */
  readonly random: Random;
}

/** A finished step: what was drafted, what the target said, what came of it. */
export interface VerifiedPass {
  readonly draft: Draft;
  /**
   * The target's raw logits, before temperature, after every node, rejected nodes included: [nodes, vocabularySize].
   * Valid during the call: copy what you keep.
   */
  readonly logits: Matrix;
  /** Accepted nodes, from the root (always 0) down. Their tokens are committed now. */
  readonly path: readonly number[];
  /** The token emitted after the path: pending now. */
  readonly token: number;
  /** Present when the drafter asked for taps. Valid during the call. */
  readonly taps?: Taps;
}

/** Drafting for one sequence. */
export interface Drafting {
  /** Running totals of all forward passes made to draft. All zero for drafters that run no model. */
  readonly cost: Cost;
  /** A draft within `maxNodes` and `maxDepth`. The root alone is a draft: the step is then one of plain decoding. */
  propose(context: DraftContext): Draft;
  /** Called once per step, the last included. State must follow the accepted path, no more and no less. */
  observe(pass: VerifiedPass): void;
  /** The sequence is over. A second `close` does nothing. */
  close(): void;
}

export interface Drafter {
  /** The only vocabulary size it can draft for, or null when any will do. */
  readonly vocabularySize: number | null;
  /** Taps it wants from the target's passes. Default none. */
  readonly taps?: readonly Tap[];
  /** Whether it wants the target's logits after every prompt token. Default false. */
  readonly prefillLogits?: boolean;
  /** Start a sequence. Several may be open at once. */
  open(start: DraftStart): Drafting;
  /** Forget what was learnt from earlier sequences. */
  reset(): void;
}

/** The draft without guesses: the pending token alone. */
export function rootDraft(pending: number): Draft {
  return { tokens: [pending], parents: [-1], laws: [null] };
}

/**
 * A draft without branches: root, then each guess the child of the one before.
 * @param laws one per guess, see `Draft.laws`
 */
export function chainDraft(pending: number, guesses: readonly number[], laws: readonly (Float64Array | null)[]): Draft {
  return {
    tokens: [pending, ...guesses],
    parents: Array.from({ length: guesses.length + 1 }, (_, i) => i - 1),
    laws: [null, ...laws],
  };
}

/** Depth of each node: 0 for the root, [nodes]. */
export function nodeDepths(tree: DraftTree): Int32Array {
  const depths = new Int32Array(tree.tokens.length);
  for (let i = 0; i < depths.length; i++) {
    const parent = tree.parents[i]!;
    depths[i] = parent < 0 ? 0 : depths[parent]! + 1;
  }
  return depths;
}

/**
 * Checks a draft against what was asked for.
 * @throws ArgumentError naming the part of the draft that breaks the contract
 */
export function checkDraft(draft: Draft, context: DraftContext, vocabularySize: number): void {
  const { tokens, parents, laws } = draft;
  const size = tokens.length;
  if (!(size >= 1 && size <= context.maxNodes)) {
    throw new ArgumentError("draft.tokens", `1 to ${context.maxNodes} nodes`, size);
  }
  if (parents.length !== size)
    throw new ArgumentError("draft.parents", `one parent per node (${size})`, parents.length);
  if (laws.length !== size) throw new ArgumentError("draft.laws", `one law per node (${size})`, laws.length);
  const pending = context.tokens[context.tokens.length - 1];
  if (tokens[0] !== pending || parents[0] !== -1) {
    throw new ArgumentError("draft", `node 0 to be the pending token ${pending}, parent -1`, [tokens[0], parents[0]]);
  }
  for (let i = 1; i < size; i++) {
    const token = tokens[i]!;
    if (!(Number.isInteger(token) && token >= 0 && token < vocabularySize)) {
      throw new ArgumentError(`draft.tokens[${i}]`, `a token id from 0 to ${vocabularySize - 1}`, token);
    }
    const parent = parents[i]!;
    if (!(Number.isInteger(parent) && parent >= 0 && parent < i)) {
      throw new ArgumentError(`draft.parents[${i}]`, `an integer from 0 to ${i - 1}`, parent);
    }
    const law = laws[i];
    if (law !== null && law?.length !== vocabularySize) {
      throw new ArgumentError(`draft.laws[${i}]`, `null or ${vocabularySize} probabilities`, law?.length);
    }
  }
  const deepest = nodeDepths(draft).reduce((a, b) => Math.max(a, b), 0);
  if (deepest > context.maxDepth) throw new ArgumentError("draft", `depth at most ${context.maxDepth}`, deepest);
}
