/**
 * The contract of a cache policy: which cached positions a pass attends to, layer by layer.
 *
 * This is selection: everything stays cached, a pass reads part of it. A session asks its policy in every layer, once the
 * layer's queries are known and before they meet the keys. The rows of the pass itself are always seen (itself and its
 * ancestors); the policy chooses among the committed positions.
 *
 * Worked example: committed positions 0..9, a window of three beside the first one:
 * `{ kind: "positions", perHead: [[0, 7, 8, 9], [0, 7, 8, 9]] }` for two key heads.
 */
import type { Matrix } from "./language-model.ts";

/** What a policy sees when it chooses. All arrays are views: valid during the call, not to be written to. */
export interface SelectionRequest {
  readonly layer: number;
  /** Committed positions, 0 .. length - 1, to choose from; at least 1. */
  readonly length: number;
  /** Rows of the pass. */
  readonly rows: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headWidth: number;
  /** The pass's queries, [rows, heads * headWidth]: rotated, or not, as the session caches its keys. */
  queries(): Matrix;
  /** The cached keys of one key head, [length, headWidth]: rotated, or not, as the session caches them. */
  keys(head: number): Matrix;
}

export type Selection =
  /** All committed positions. */
  | { readonly kind: "all" }
  /**
   * Per key head the positions it sees, growing, without repeats; as many for every head, perhaps none. One list given for
   * all heads is the same as that list repeated.
   */
  | { readonly kind: "positions"; readonly perHead: readonly ArrayLike<number>[] }
  | { readonly kind: "positions"; readonly forAllHeads: ArrayLike<number> };

export interface CachePolicy {
  /** Choose for one layer of one pass. */
  select(request: SelectionRequest): Selection;
}
