/**
 * The contract every technique is written against: a model opens sessions, a session is one sequence with its own cache.
 *
 * Three things implement it: `TableModel` (explicit probabilities, so tests can enumerate the true law), the
 * differentiable `Decoder`, and, later, a kernel engine. What runs on one runs on all; nothing here names a tensor library.
 *
 * The rhythm of a draft-and-verify step, one target pass each:
 *
 *     session.extend(prompt.slice(0, -1))            // everything but the last token: that one is pending
 *     loop:
 *       tree = [pending, ...draft]                   // the pending token is the root, parents[0] = -1
 *       pass = session.score(tree)                   // next-token logits at every node, nothing committed
 *       session.accept(lastAcceptedNode)             // keep root..node in the cache, forget the other nodes
 *       pending = token the verifier emitted
 */

/**
 * A draft tree, flat. Node `i` holds `tokens[i]`; `parents[i]` is the index of its parent, smaller than `i`,
 * or -1 for a child of the last committed token. Several nodes may have parent -1.
 */
export interface DraftTree {
  readonly tokens: ArrayLike<number>;
  readonly parents: ArrayLike<number>;
}

/** A row-major float32 matrix: element (r, c) is `data[r * columns + c]`. */
export interface Matrix {
  readonly data: Float32Array;
  readonly rows: number;
  readonly columns: number;
}

/** Row `r` of a matrix, as a view (not a copy). */
export function row(matrix: Matrix, r: number): Float32Array {
  return matrix.data.subarray(r * matrix.columns, (r + 1) * matrix.columns);
}

/** What a session has cost since it was opened. Counts, never seconds. */
export interface Cost {
  /** Forward passes: one per `score`, one per chunk of `extend`. */
  readonly passes: number;
  /** Rows pushed through the model, over all passes: tokens scored, tree nodes included. */
  readonly tokens: number;
  /** Multiply-adds of all products, attention included. Element-wise work is not counted. */
  readonly multiplyAdds: number;
  /** Bytes of cached keys and values that attention read. */
  readonly cacheBytesRead: number;
}

/** Sums costs, field by field. */
export function addCosts(...costs: readonly Cost[]): Cost {
  const sum = { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 };
  for (const cost of costs) {
    sum.passes += cost.passes;
    sum.tokens += cost.tokens;
    sum.multiplyAdds += cost.multiplyAdds;
    sum.cacheBytesRead += cost.cacheBytesRead;
  }
  return sum;
}

/** What happened between two readings of `session.cost`. */
export function subtractCosts(later: Cost, earlier: Cost): Cost {
  return {
    passes: later.passes - earlier.passes,
    tokens: later.tokens - earlier.tokens,
    multiplyAdds: later.multiplyAdds - earlier.multiplyAdds,
    cacheBytesRead: later.cacheBytesRead - earlier.cacheBytesRead,
  };
}

/** What a pass may report beside its logits. */
export type Tap = "hidden" | "queries" | "keys" | "attention";

/**
 * Tapped values, by layer of the model (index into the full model, also when a pass ran a subset).
 * `n` is the number of rows in the pass, `m` the number of cached positions plus `n`.
 */
export interface Taps {
  /** Input of each layer, then the output of the last one: `layers + 1` matrices [n, width]. */
  readonly hidden?: readonly Matrix[];
  /** After rotation: per layer [n, heads * headWidth]. */
  readonly queries?: readonly Matrix[];
  /** After rotation: per layer [n, keyValueHeads * headWidth]. */
  readonly keys?: readonly Matrix[];
  /** Per layer [heads * n, m], rows head-major; columns are cached positions first, then this pass's rows. */
  readonly attention?: readonly Matrix[];
}

export interface PassOptions {
  /** Run only these layers, in this order. Default: all, in order. */
  readonly layers?: readonly number[];
  /** Values to report beside the logits. Default: none. */
  readonly taps?: readonly Tap[];
}

export interface ExtendOptions extends PassOptions {
  /** Rows of logits to return: after the last id, after each id, or none. Default `"last"`. */
  readonly logits?: "last" | "all" | "none";
}

export interface ScoreOptions extends PassOptions {
  /** Rows to run in place of the tokens' own embeddings, one per node, [nodes, width]: states of lower layers, say. */
  readonly embeddings?: Matrix;
}

export interface Pass {
  /** Next-token logits, [rows, vocabularySize]. `extend`: see its options; `score`: one row per node. */
  readonly logits: Matrix;
  /** Present when taps were asked for. */
  readonly taps?: Taps;
}

/** One sequence and its cache. Not shared between callers; independent of other sessions of its model. */
export interface Session {
  /** Committed tokens in the cache. Exact after every call. */
  readonly length: number;
  /** Running totals since the session was opened. A fresh snapshot on each read. */
  readonly cost: Cost;

  /**
   * Append ids (or embeddings, [n, width]) and run one forward pass over them, in chunks when long.
   * @throws ArgumentError on an empty input, an id out of range or options out of range
   * @throws ContextOverflowError when the sequence would not fit; the session is unchanged
   */
  extend(input: ArrayLike<number> | Matrix, options?: ExtendOptions): Pass;

  /**
   * Next-token logits at every node of a draft tree in one pass. A node attends to the committed tokens, to its
   * ancestors and to itself. Nothing is committed; the scored keys and values wait for `accept`.
   * A second `score`, an `extend` or a `truncate` forgets them.
   */
  score(tree: DraftTree, options?: ScoreOptions): Pass;

  /**
   * Commit the path from the root to `node` of the tree last scored, and forget every other node.
   * `length` grows by the depth of the path. May be called once per `score`.
   */
  accept(node: number): void;

  /** Forget committed tokens from position `length` on. `0 <= length <= session.length`. */
  truncate(length: number): void;

  /** Give the session's memory back. Further calls throw; a second `close` does nothing. */
  close(): void;
}

export interface LanguageModel {
  /** Number of token ids; ids are 0 .. vocabularySize - 1. */
  readonly vocabularySize: number;
  /** Longest sequence a session may hold, tree nodes included. */
  readonly contextLength: number;
  /** Set where the laws only approximate those of the model this one was made from, by skipping layers, say. */
  readonly lossy?: true;
  /** A new, empty session. */
  openSession(): Session;
}

/** True for embeddings, false for ids: how `extend` tells its two inputs apart. */
export function isMatrix(input: ArrayLike<number> | Matrix): input is Matrix {
  return "data" in input && "columns" in input;
}
