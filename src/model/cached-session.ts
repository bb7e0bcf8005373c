/**
 * What every session with a cache of keys and values has in common: how calls are checked, how long input becomes
 * chunks, what is committed, what a pass costs. Implementations compute a pass (`run`) and move cache rows.
 *
 * A pass's rows are written behind the committed ones. What is committed is a length: `truncate` sets it, `accept` moves
 * a path's rows down to follow it.
 */
import { ArgumentError, ContextOverflowError, TokenthriftError } from "../errors.ts";
import { type DecoderConfig, linearMultiplyAdds } from "./decoder-config.ts";
import {
  type Cost,
  type DraftTree,
  type ExtendOptions,
  isMatrix,
  type Matrix,
  type Pass,
  type ScoreOptions,
  type Session,
  type Tap,
} from "./language-model.ts";
import { requireIds, requireTree } from "./session-checks.ts";

/** Rows one pass of `extend` takes at most; longer inputs run in chunks. Bounds the memory of a pass. */
export const chunkRows = 256;

/** One forward pass, checked: what an implementation is asked to compute. */
export interface PassRequest {
  /** Token ids of the rows, or `embeddings` in their place. */
  readonly ids?: Int32Array;
  /** [rows, width] */
  readonly embeddings?: Float32Array;
  /** Where each row stands in the sequence. */
  readonly positions: Int32Array;
  /** parents[i] < i: row i's predecessor among the rows, -1 for a child of the last committed token. Undefined: a chain. */
  readonly parents: Int32Array | undefined;
  readonly logits: "last" | "all" | "none";
  /** Growing layer numbers. */
  readonly layers: readonly number[];
  readonly taps: ReadonlySet<Tap>;
}

/** A pass, and the committed positions its rows attended to, summed over the layers it ran. */
export interface CountedPass {
  readonly pass: Pass;
  readonly positionsRead: number;
}

const noTaps: ReadonlySet<Tap> = new Set();

export abstract class CachedSession implements Session {
  protected readonly config: DecoderConfig;
  readonly #allLayers: readonly number[];
  /** Per layer: positions 0 .. filled - 1 hold keys and values; fewer than `length` after passes that skipped the layer. */
  readonly #filled: number[];
  readonly #cost = { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 };
  #length = 0;
  /** The tree last scored and the layers it ran, until accepted or forgotten. */
  #scored: { readonly parents: Int32Array; readonly layers: readonly number[] } | undefined;
  #closed = false;

  constructor(config: DecoderConfig) {
    this.config = config;
    this.#allLayers = Array.from({ length: config.layers }, (_, layer) => layer);
    this.#filled = this.#allLayers.map(() => 0);
  }

  /** Compute a pass; leave its rows' keys and values behind the committed ones, from position `length` on. */
  protected abstract run(request: PassRequest): CountedPass;

  /** Copy what `layer` caches at position `from` to position `to`. */
  protected abstract moveRow(layer: number, from: number, to: number): void;

  /** Give the cache's memory back. Called once. */
  protected abstract release(): void;

  get length(): number {
    return this.#length;
  }

  get cost(): Cost {
    return { ...this.#cost };
  }

  extend(input: ArrayLike<number> | Matrix, options: ExtendOptions = {}): Pass {
    this.#checkOpen();
    const count = isMatrix(input) ? input.rows : input.length;
    if (count === 0) throw new ArgumentError("input", "at least one id or embedding", "none");
    if (!isMatrix(input)) requireIds("input", input, this.config.vocabularySize);
    const ids = isMatrix(input) ? undefined : integers(input);
    const embeddings = isMatrix(input) ? this.#checkedEmbeddings(input) : undefined;
    const layers = this.#checkedLayers(options.layers);
    this.#checkRoom(count);
    const wanted = options.logits ?? "last";
    if (count > chunkRows && options.taps?.includes("attention")) {
      // Its columns differ from chunk to chunk.
      throw new ArgumentError("taps", `"attention" only on inputs of at most ${chunkRows} rows`, count);
    }
    const passes: Pass[] = [];
    this.#scored = undefined;
    for (let start = 0; start < count; start += chunkRows) {
      const size = Math.min(chunkRows, count - start);
      const { width } = this.config;
      const last = start + size === count;
      passes.push(
        this.#pass({
          ...(ids === undefined ? {} : { ids: ids.subarray(start, start + size) }),
          ...(embeddings === undefined
            ? {}
            : { embeddings: embeddings.subarray(start * width, (start + size) * width) }),
          positions: consecutive(this.#length, size),
          parents: undefined,
          logits: wanted === "last" && !last ? "none" : wanted,
          layers,
          taps: options.taps === undefined ? noTaps : new Set(options.taps),
        }),
      );
      this.#commit(size, layers);
    }
    return passes.length === 1 ? passes[0]! : joinPasses(passes);
  }

  score(tree: DraftTree, options: ScoreOptions = {}): Pass {
    this.#checkOpen();
    requireTree(tree, this.config.vocabularySize);
    const ids = integers(tree.tokens);
    if (options.embeddings !== undefined && options.embeddings.rows !== ids.length) {
      throw new ArgumentError("embeddings", `one row per node (${ids.length})`, options.embeddings.rows);
    }
    const embeddings = options.embeddings && this.#checkedEmbeddings(options.embeddings, "embeddings");
    const parents = integers(tree.parents);
    const layers = this.#checkedLayers(options.layers);
    this.#checkRoom(ids.length);
    const positions = new Int32Array(ids.length);
    let chain = true;
    for (let i = 0; i < ids.length; i++) {
      const parent = parents[i]!;
      positions[i] = parent < 0 ? this.#length : positions[parent]! + 1;
      chain &&= parent === i - 1;
    }
    this.#scored = undefined;
    const pass = this.#pass({
      ...(embeddings === undefined ? { ids } : { embeddings }),
      positions,
      parents: chain ? undefined : parents,
      logits: "all",
      layers,
      taps: options.taps === undefined ? noTaps : new Set(options.taps),
    });
    this.#scored = { parents, layers };
    return pass;
  }

  accept(node: number): void {
    this.#checkOpen();
    const scored = this.#scored;
    if (scored === undefined) {
      throw new ArgumentError(
        "accept",
        "a tree scored since the last change of the session",
        "none",
        "Call score first.",
      );
    }
    if (!Number.isInteger(node) || node < 0 || node >= scored.parents.length) {
      throw new ArgumentError("node", `a node of the scored tree, 0 .. ${scored.parents.length - 1}`, node);
    }
    const path: number[] = [];
    for (let n = node; n >= 0; n = scored.parents[n]!) path.push(n);
    path.reverse();
    for (const layer of scored.layers) {
      // Path indices grow and path[i] >= i, so moving rows down in order never overwrites one still to be moved.
      for (let to = 0; to < path.length; to++) {
        if (path[to] !== to) this.moveRow(layer, this.#length + path[to]!, this.#length + to);
      }
    }
    this.#commit(path.length, scored.layers);
  }

  truncate(length: number): void {
    this.#checkOpen();
    if (!Number.isInteger(length) || length < 0 || length > this.#length) {
      throw new ArgumentError("length", `an integer from 0 to the session's length, ${this.#length}`, length);
    }
    this.#scored = undefined;
    this.#length = length;
    for (let layer = 0; layer < this.#filled.length; layer++) {
      this.#filled[layer] = Math.min(this.#filled[layer]!, length);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#scored = undefined;
    this.release();
  }

  #pass(request: PassRequest): Pass {
    const { pass, positionsRead } = this.run(request);
    const { heads, keyValueHeads, headWidth, width, vocabularySize } = this.config;
    const rows = request.positions.length;
    const layers = request.layers.length;
    const attention = 2 * heads * headWidth * (positionsRead + layers * rows);
    this.#cost.passes++;
    this.#cost.tokens += rows;
    this.#cost.multiplyAdds +=
      rows * (layers * linearMultiplyAdds(this.config) + attention) + pass.logits.rows * width * vocabularySize;
    this.#cost.cacheBytesRead += positionsRead * 2 * keyValueHeads * headWidth * 4;
    return pass;
  }

  #commit(count: number, layers: readonly number[]): void {
    this.#scored = undefined;
    this.#length += count;
    for (const layer of layers) this.#filled[layer] = this.#length;
  }

  #checkOpen(): void {
    if (this.#closed) throw new TokenthriftError("session: it is closed. Open a new one with model.openSession().");
  }

  #checkRoom(rows: number): void {
    const needed = this.#length + rows;
    if (needed > this.config.contextLength) throw new ContextOverflowError(needed, this.config.contextLength);
  }

  #checkedEmbeddings(input: Matrix, argument = "input"): Float32Array {
    const { width } = this.config;
    if (input.columns !== width || input.data.length !== input.rows * width) {
      throw new ArgumentError(argument, `embeddings [rows, ${width}]`, [input.rows, input.columns, input.data.length]);
    }
    return input.data;
  }

  #checkedLayers(layers: readonly number[] | undefined): readonly number[] {
    const chosen = layers ?? this.#allLayers;
    if (chosen.length === 0) throw new ArgumentError("layers", "at least one layer", chosen);
    for (const [i, layer] of chosen.entries()) {
      const filled = this.#filled[layer];
      if (filled === undefined || (i > 0 && layer <= chosen[i - 1]!)) {
        throw new ArgumentError("layers", `growing layer numbers from 0 to ${this.config.layers - 1}`, chosen);
      }
      if (filled < this.#length) {
        throw new ArgumentError(
          "layers",
          `layers whose cache covers all ${this.#length} committed tokens`,
          chosen,
          `Layer ${layer} was skipped from position ${filled} on; truncate there and extend again.`,
        );
      }
    }
    return chosen;
  }
}

/** A copy. A loop: `Int32Array.from` takes longer than a small pass's bookkeeping in all. */
function integers(values: ArrayLike<number>): Int32Array {
  const copy = new Int32Array(values.length);
  for (let i = 0; i < copy.length; i++) copy[i] = values[i]!;
  return copy;
}

/** start, start + 1, ... */
function consecutive(start: number, count: number): Int32Array {
  const numbers = new Int32Array(count);
  for (let i = 0; i < count; i++) numbers[i] = start + i;
  return numbers;
}

/** The passes of a chunked `extend` as one. */
function joinPasses(passes: readonly Pass[]): Pass {
  const logits = joinRows(passes.map((pass) => pass.logits));
  const first = passes[0]!.taps;
  if (first === undefined) return { logits };
  const join = (name: "hidden" | "queries" | "keys"): readonly Matrix[] | undefined =>
    first[name]?.map((_, layer) => joinRows(passes.map((pass) => pass.taps![name]![layer]!)));
  const [hidden, queries, keys] = [join("hidden"), join("queries"), join("keys")];
  return { logits, taps: { ...(hidden && { hidden }), ...(queries && { queries }), ...(keys && { keys }) } };
}

function joinRows(parts: readonly Matrix[]): Matrix {
  const columns = parts[0]!.columns;
  const rows = parts.reduce((sum, part) => sum + part.rows, 0);
  const data = new Float32Array(rows * columns);
  let at = 0;
  for (const part of parts) {
    data.set(part.data, at);
    at += part.data.length;
  }
  return { data, rows, columns };
}
