/**
 * The decoder behind the `LanguageModel` contract: sessions with a cache of keys and values, draft trees scored in one
 * pass, exact rollback.
 *
 * The cache lives in plain arrays, one per layer, head by head ([keyValueHeads, contextLength, headWidth]): what is
 * committed is a length, `truncate` sets it, `accept` moves a path's rows down. A pass appends its rows behind the
 * committed ones and attends to [committed, own rows] under a mask of ancestors.
 */
import { ArgumentError, ContextOverflowError, TokenthriftError } from "../errors.ts";
import { add, matMul, read, scale, softmax, tensor, tidy, transpose } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tf.ts";
import { block, embed, finalNorm, firstInput, outputHead, parametersFromWeights, placementAt } from "./decoder.ts";
import type { Attend } from "./decoder-block.ts";
import { checkDecoderConfig, type DecoderConfig, linearMultiplyAdds } from "./decoder-config.ts";
import {
  type Cost,
  type DraftTree,
  type ExtendOptions,
  isMatrix,
  type LanguageModel,
  type Matrix,
  type Pass,
  type PassOptions,
  type Session,
  type Tap,
  type Taps,
} from "./language-model.ts";
import { requireIds, requireTree } from "./session-checks.ts";
import { checkWeights, type Weights } from "./weights.ts";

/** Rows one pass of `extend` takes at most; longer inputs run in chunks. Bounds the memory of attention scores. */
const chunkRows = 256;

/** A decoder on the tensor layer. Call `useBackend` before constructing one; `close` frees its weights. */
export class Decoder implements LanguageModel {
  readonly config: DecoderConfig;
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly #parameters: Record<string, Tensor>;
  readonly #head: Tensor;
  #closed = false;

  /**
   * @param weights by Hugging Face's names, in its layout (`parameterShapes`)
   * @throws FormatError naming the missing, extra or misshapen tensors, or the first number that is not finite
   */
  constructor(config: DecoderConfig, weights: ReadonlyMap<string, Weights>) {
    checkDecoderConfig(config);
    checkWeights(config, weights, "weights");
    this.config = config;
    this.vocabularySize = config.vocabularySize;
    this.contextLength = config.contextLength;
    this.#parameters = parametersFromWeights(weights);
    this.#head = outputHead(config, this.#parameters);
  }

  openSession(): Session {
    if (this.#closed) throw new TokenthriftError("decoder: it is closed. Open sessions before closing the model.");
    return new DecoderSession(this.config, this.#parameters, this.#head);
  }

  /** Free the weights. Sessions still open become unusable. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.config.tiedEmbeddings) this.#head.dispose();
    for (const parameter of Object.values(this.#parameters)) parameter.dispose();
  }
}

/** One layer's cached keys and values: [keyValueHeads, contextLength, headWidth] each. */
interface LayerCache {
  readonly keys: Float32Array;
  readonly values: Float32Array;
  /** Positions 0 .. filled - 1 hold keys and values; smaller than the session's length after passes that skipped the layer. */
  filled: number;
}

/** A pass's rows: where they stand and whom they may attend to, beside all committed positions. */
interface Rows {
  readonly positions: readonly number[];
  /** parents[i] < i: row i's predecessor among the rows, -1 for a child of the last committed token. */
  readonly parents: readonly number[];
}

interface PassRequest extends Rows {
  readonly ids?: Int32Array;
  readonly embeddings?: Float32Array;
  readonly logits: "last" | "all" | "none";
  readonly layers: readonly number[];
  readonly taps: ReadonlySet<Tap>;
}

class DecoderSession implements Session {
  readonly #config: DecoderConfig;
  readonly #parameters: Record<string, Tensor>;
  readonly #head: Tensor;
  readonly #caches: LayerCache[];
  readonly #cost = { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 };
  #length = 0;
  /** The tree last scored and the layers it ran, until accepted or forgotten. */
  #scored: { readonly parents: readonly number[]; readonly layers: readonly number[] } | undefined;
  #closed = false;

  constructor(config: DecoderConfig, parameters: Record<string, Tensor>, head: Tensor) {
    this.#config = config;
    this.#parameters = parameters;
    this.#head = head;
    const size = config.keyValueHeads * config.contextLength * config.headWidth;
    this.#caches = Array.from({ length: config.layers }, () => ({
      keys: new Float32Array(size),
      values: new Float32Array(size),
      filled: 0,
    }));
  }

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
    if (!isMatrix(input)) requireIds("input", input, this.#config.vocabularySize);
    const ids = isMatrix(input) ? undefined : Int32Array.from(input);
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
      const { width } = this.#config;
      const last = start + size === count;
      passes.push(
        this.#run({
          ...(ids === undefined ? {} : { ids: ids.slice(start, start + size) }),
          ...(embeddings === undefined ? {} : { embeddings: embeddings.slice(start * width, (start + size) * width) }),
          positions: Array.from({ length: size }, (_, i) => this.#length + i),
          parents: Array.from({ length: size }, (_, i) => i - 1),
          logits: wanted === "last" && !last ? "none" : wanted,
          layers,
          taps: new Set(options.taps),
        }),
      );
      this.#commit(size, layers);
    }
    return passes.length === 1 ? passes[0]! : joinPasses(passes);
  }

  score(tree: DraftTree, options: PassOptions = {}): Pass {
    this.#checkOpen();
    requireTree(tree, this.#config.vocabularySize);
    const ids = Int32Array.from(tree.tokens);
    const parents = Array.from(tree.parents);
    const layers = this.#checkedLayers(options.layers);
    this.#checkRoom(ids.length);
    const positions: number[] = [];
    for (const parent of parents) positions.push(parent < 0 ? this.#length : positions[parent]! + 1);
    this.#scored = undefined;
    const pass = this.#run({ ids, positions, parents, logits: "all", layers, taps: new Set(options.taps) });
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
    for (let n = node; n >= 0; n = scored.parents[n]!) path.unshift(n);
    for (const layer of scored.layers) {
      // Path indices grow and path[i] >= i, so moving rows down in order never overwrites one still to be moved.
      path.forEach((from, to) => {
        if (from !== to) this.#moveRow(this.#caches[layer]!, this.#length + from, this.#length + to);
      });
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
    for (const cache of this.#caches) cache.filled = Math.min(cache.filled, length);
  }

  close(): void {
    this.#closed = true;
    this.#caches.length = 0;
    this.#scored = undefined;
  }

  /** One forward pass over `request`'s rows; their keys and values are left behind the committed ones. */
  #run(request: PassRequest): Pass {
    const { positions, layers, taps } = request;
    const config = this.#config;
    const rows = positions.length;
    const span = this.#length + rows;
    const hidden: Matrix[] = [];
    const queries: Matrix[] = [];
    const keys: Matrix[] = [];
    const attention: Matrix[] = [];
    let logits: Matrix = { data: new Float32Array(0), rows: 0, columns: config.vocabularySize };
    tidy(() => {
      const placement = placementAt(config, positions);
      const mask = rows === 1 ? undefined : this.#mask(request);
      const attend: Attend = (layer, q, k, v) => {
        const cache = this.#caches[layer]!;
        this.#store(cache.keys, read(k), rows);
        this.#store(cache.values, read(v), rows);
        const queryRows = read(q);
        if (taps.has("queries")) queries.push(matrix(queryRows, rows));
        if (taps.has("keys")) keys.push(matrix(read(k), rows));
        const weights = taps.has("attention") ? new Float32Array(config.heads * rows * span) : undefined;
        const mixed = this.#attendToCache(cache, queryRows, rows, mask, weights);
        if (weights !== undefined) attention.push({ data: weights, rows: config.heads * rows, columns: span });
        return tensor(mixed, [rows, config.heads * config.headWidth]);
      };
      const embedded =
        request.ids === undefined
          ? tensor(request.embeddings!, [rows, config.width])
          : embed(config, this.#parameters, request.ids);
      let x = firstInput(config, this.#parameters, embedded, placement);
      for (const layer of layers) {
        if (taps.has("hidden")) hidden.push(matrix(read(x), rows));
        x = block(config, this.#parameters, layer, x, placement, attend);
      }
      if (taps.has("hidden")) hidden.push(matrix(read(x), rows));
      if (request.logits !== "none") {
        const data = read(x);
        const kept = request.logits === "all" ? data : data.subarray((rows - 1) * config.width);
        const normed = finalNorm(config, this.#parameters, tensor(kept, [kept.length / config.width, config.width]));
        logits = matrix(read(matMul(normed, this.#head)), kept.length / config.width);
      }
      return undefined;
    });
    this.#count(rows, layers.length, logits.rows);
    const tapped: Taps = {
      ...(taps.has("hidden") && { hidden }),
      ...(taps.has("queries") && { queries }),
      ...(taps.has("keys") && { keys }),
      ...(taps.has("attention") && { attention }),
    };
    return taps.size === 0 ? { logits } : { logits, taps: tapped };
  }

  /**
   * Attention of a pass's rows over one layer's cache, one key head at a time; the query heads that share it stand below
   * each other. queries [rows, heads * headWidth] -> [rows, heads * headWidth]
   */
  #attendToCache(
    cache: LayerCache,
    queries: Float32Array,
    rows: number,
    mask: Tensor | undefined,
    weights: Float32Array | undefined,
  ): Float32Array {
    const { heads, keyValueHeads, headWidth, contextLength } = this.#config;
    const group = heads / keyValueHeads;
    const span = this.#length + rows;
    const mixed = new Float32Array(rows * heads * headWidth);
    const q = new Float32Array(group * rows * headWidth);
    for (let head = 0; head < keyValueHeads; head++) {
      eachHeadRow(head, group, rows, heads, headWidth, (packed, flat) => {
        q.set(queries.subarray(flat, flat + headWidth), packed);
      });
      const start = head * contextLength * headWidth;
      const k = tensor(cache.keys.subarray(start, start + span * headWidth), [span, headWidth]);
      const v = tensor(cache.values.subarray(start, start + span * headWidth), [span, headWidth]);
      const scaled = scale(tensor(q, [group * rows, headWidth]), 1 / Math.sqrt(headWidth));
      const scores = matMul(scaled, transpose(k)); // -> [group * rows, span]
      const attention = softmax(mask === undefined ? scores : add(scores, mask));
      if (weights !== undefined) weights.set(read(attention), head * group * rows * span);
      const result = read(matMul(attention, v)); // -> [group * rows, headWidth]
      eachHeadRow(head, group, rows, heads, headWidth, (packed, flat) => {
        mixed.set(result.subarray(packed, packed + headWidth), flat);
      });
    }
    return mixed;
  }

  /** [group * rows, span]: 0 where a row may look (committed positions, ancestors, itself), -1e9 elsewhere. */
  #mask({ parents }: Rows): Tensor {
    const rows = parents.length;
    const group = this.#config.heads / this.#config.keyValueHeads;
    const span = this.#length + rows;
    const mask = new Float32Array(group * rows * span).fill(-1e9);
    for (let r = 0; r < rows; r++) {
      mask.fill(0, r * span, r * span + this.#length);
      for (let a = r; a >= 0; a = parents[a]!) mask[r * span + this.#length + a] = 0;
    }
    for (let g = 1; g < group; g++) mask.copyWithin(g * rows * span, 0, rows * span);
    return tensor(mask, [group * rows, span]);
  }

  /** Put a pass's rows [rows, keyValueHeads * headWidth] behind the committed ones. */
  #store(cache: Float32Array, values: Float32Array, rows: number): void {
    const { keyValueHeads, headWidth, contextLength } = this.#config;
    for (let r = 0; r < rows; r++) {
      for (let head = 0; head < keyValueHeads; head++) {
        const from = (r * keyValueHeads + head) * headWidth;
        cache.set(values.subarray(from, from + headWidth), (head * contextLength + this.#length + r) * headWidth);
      }
    }
  }

  #moveRow(cache: LayerCache, from: number, to: number): void {
    const { keyValueHeads, headWidth, contextLength } = this.#config;
    for (let head = 0; head < keyValueHeads; head++) {
      const start = head * contextLength;
      for (const values of [cache.keys, cache.values]) {
        values.copyWithin((start + to) * headWidth, (start + from) * headWidth, (start + from + 1) * headWidth);
      }
    }
  }

  #commit(count: number, layers: readonly number[]): void {
    this.#scored = undefined;
    this.#length += count;
    for (const layer of layers) this.#caches[layer]!.filled = this.#length;
  }

  #count(rows: number, layers: number, logitRows: number): void {
    const { width, heads, keyValueHeads, headWidth, vocabularySize } = this.#config;
    const linear = linearMultiplyAdds(this.#config);
    const attention = 2 * heads * headWidth * (this.#length + rows);
    this.#cost.passes++;
    this.#cost.tokens += rows;
    this.#cost.multiplyAdds += rows * layers * (linear + attention) + logitRows * width * vocabularySize;
    this.#cost.cacheBytesRead += layers * this.#length * 2 * keyValueHeads * headWidth * 4;
  }

  #checkOpen(): void {
    if (this.#closed) throw new TokenthriftError("session: it is closed. Open a new one with model.openSession().");
  }

  #checkRoom(rows: number): void {
    const needed = this.#length + rows;
    if (needed > this.#config.contextLength) throw new ContextOverflowError(needed, this.#config.contextLength);
  }

  #checkedEmbeddings(input: Matrix): Float32Array {
    const { width } = this.#config;
    if (input.columns !== width || input.data.length !== input.rows * width) {
      throw new ArgumentError("input", `embeddings [rows, ${width}]`, [input.rows, input.columns, input.data.length]);
    }
    return input.data;
  }

  #checkedLayers(layers: readonly number[] | undefined): readonly number[] {
    const chosen = layers ?? Array.from({ length: this.#config.layers }, (_, layer) => layer);
    if (chosen.length === 0) throw new ArgumentError("layers", "at least one layer", chosen);
    chosen.forEach((layer, i) => {
      const cache = this.#caches[layer];
      if (cache === undefined || (i > 0 && layer <= chosen[i - 1]!)) {
        throw new ArgumentError("layers", `growing layer numbers from 0 to ${this.#config.layers - 1}`, chosen);
      }
      if (cache.filled < this.#length) {
        throw new ArgumentError(
          "layers",
          `layers whose cache covers all ${this.#length} committed tokens`,
          chosen,
          `Layer ${layer} was skipped from position ${cache.filled} on; truncate there and extend again.`,
        );
      }
    });
    return chosen;
  }
}

/** Visit the rows of the query heads that share a key head: their place packed [group, rows] and flat [rows, heads]. */
function eachHeadRow(
  keyHead: number,
  group: number,
  rows: number,
  heads: number,
  headWidth: number,
  visit: (packed: number, flat: number) => void,
): void {
  for (let g = 0; g < group; g++) {
    for (let r = 0; r < rows; r++) {
      visit((g * rows + r) * headWidth, (r * heads + keyHead * group + g) * headWidth);
    }
  }
}

function matrix(data: Float32Array, rows: number): Matrix {
  return { data, rows, columns: data.length / rows };
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
