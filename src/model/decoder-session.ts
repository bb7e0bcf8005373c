/**
 * The decoder on the tensor layer behind the `LanguageModel` contract: the differentiable definition, run with a cache.
 * For inference the engine (`engine.ts`) is faster; this one is what it is compared with.
 *
 * The cache lives in plain arrays, one per layer, head by head ([keyValueHeads, contextLength, headWidth]). A pass writes
 * its rows behind the committed ones and attends to [committed, own rows] under a mask of ancestors.
 */
import { TokenthriftError } from "../errors.ts";
import { add, matMul, read, scale, softmax, tensor, tidy, transpose } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tf.ts";
import { CachedSession, type CountedPass, type PassRequest } from "./cached-session.ts";
import { block, embed, finalNorm, firstInput, outputHead, parametersFromWeights, placementAt } from "./decoder.ts";
import type { Attend } from "./decoder-block.ts";
import { checkDecoderConfig, type DecoderConfig } from "./decoder-config.ts";
import type { LanguageModel, Matrix, Session, Taps } from "./language-model.ts";
import { checkWeights, type Weights } from "./weights.ts";

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
}

class DecoderSession extends CachedSession {
  readonly #parameters: Record<string, Tensor>;
  readonly #head: Tensor;
  readonly #caches: LayerCache[];

  constructor(config: DecoderConfig, parameters: Record<string, Tensor>, head: Tensor) {
    super(config);
    this.#parameters = parameters;
    this.#head = head;
    const size = config.keyValueHeads * config.contextLength * config.headWidth;
    this.#caches = Array.from({ length: config.layers }, () => ({
      keys: new Float32Array(size),
      values: new Float32Array(size),
    }));
  }

  protected override run(request: PassRequest): CountedPass {
    const { positions, layers, taps } = request;
    const config = this.config;
    const rows = positions.length;
    const span = this.length + rows;
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
    const tapped: Taps = {
      ...(taps.has("hidden") && { hidden }),
      ...(taps.has("queries") && { queries }),
      ...(taps.has("keys") && { keys }),
      ...(taps.has("attention") && { attention }),
    };
    return {
      pass: taps.size === 0 ? { logits } : { logits, taps: tapped },
      positionsRead: layers.length * this.length,
    };
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
    const { heads, keyValueHeads, headWidth, contextLength } = this.config;
    const group = heads / keyValueHeads;
    const span = this.length + rows;
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
  #mask({ parents, positions }: PassRequest): Tensor {
    const rows = positions.length;
    const group = this.config.heads / this.config.keyValueHeads;
    const span = this.length + rows;
    const mask = new Float32Array(group * rows * span).fill(-1e9);
    for (let r = 0; r < rows; r++) {
      mask.fill(0, r * span, r * span + this.length);
      for (let a = r; a >= 0; a = parents === undefined ? a - 1 : parents[a]!) mask[r * span + this.length + a] = 0;
    }
    for (let g = 1; g < group; g++) mask.copyWithin(g * rows * span, 0, rows * span);
    return tensor(mask, [group * rows, span]);
  }

  /** Put a pass's rows [rows, keyValueHeads * headWidth] behind the committed ones. */
  #store(cache: Float32Array, values: Float32Array, rows: number): void {
    const { keyValueHeads, headWidth, contextLength } = this.config;
    for (let r = 0; r < rows; r++) {
      for (let head = 0; head < keyValueHeads; head++) {
        const from = (r * keyValueHeads + head) * headWidth;
        cache.set(values.subarray(from, from + headWidth), (head * contextLength + this.length + r) * headWidth);
      }
    }
  }

  protected override release(): void {
    this.#caches.length = 0;
  }

  protected override moveRow(layer: number, from: number, to: number): void {
    const { keyValueHeads, headWidth, contextLength } = this.config;
    const cache = this.#caches[layer]!;
    for (let head = 0; head < keyValueHeads; head++) {
      const start = head * contextLength;
      for (const values of [cache.keys, cache.values]) {
        values.copyWithin((start + to) * headWidth, (start + from) * headWidth, (start + from + 1) * headWidth);
      }
    }
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
