/**
 * Chimera's two encoders and its heads, as they run: one layer on kernels, with a cache of the target's hidden states.
 * What they compute, and why, stands in `chimera.ts`; how they are trained, in `training/chimera-training.ts`.
 *
 * The cache holds a key and a value per committed token, made from the target's state there, and behind them a slot per
 * node of the draft: first its trigram state's, to which it attends itself, then, where nodes follow it, its f's. A node
 * attends to a list of slots, the committed ones and its ancestors', so a tree needs neither mask nor copies.
 */
import { ArgumentError } from "../errors.ts";
import { attentionScratchFloats, type KernelSpace } from "../kernels/kernels.ts";
import { type DecoderConfig, parameterShapes, rotaryFrequencies } from "../model/decoder-config.ts";
import { type Cost, type Matrix, row } from "../model/language-model.ts";
import type { Weights } from "../model/weights.ts";
import { checkHeadWeights, HeadLayers, type HeadTarget, type Linear, Ranking, stride } from "./head-layers.ts";

/** Names of the parameters outside the block; head i counts from 0. */
export const chimeraNames = {
  trigramResidual: "trigram.residual.weight",
  trigramBias: "trigram.residual.bias",
  trigramOutput: "trigram.output.weight",
  head: (i: number): string => `heads.${i}.weight`,
};

const block = "model.layers.0.";

/** A decoder of one layer of the target's own kind: that layer is the full-context encoder. */
export function encoderConfig(target: DecoderConfig): DecoderConfig {
  return { ...target, layers: 1, projectionBiases: false };
}

/** Every parameter's name and shape; the block's are a Llama's first layer's, by Hugging Face's names. */
export function chimeraShapes({ config }: HeadTarget, heads: number): Map<string, readonly number[]> {
  const { width } = config;
  const shapes = new Map<string, readonly number[]>([
    [chimeraNames.trigramResidual, [3 * width, 3 * width]],
    [chimeraNames.trigramBias, [3 * width]],
    [chimeraNames.trigramOutput, [width, 3 * width]],
  ]);
  for (const [name, shape] of parameterShapes(encoderConfig(config))) {
    if (name.startsWith(block)) shapes.set(name, shape);
  }
  for (let i = 0; i < heads; i++) shapes.set(chimeraNames.head(i), [width, 2 * width]);
  return shapes;
}

export type Trigram = readonly [number, number, number];

/** The ids the last token's trigram state is made of. Of a text of one token it is that one thrice, of two [x1, x2, x2]. */
export function trigramAt(tokens: readonly number[]): Trigram {
  const last = tokens.length - 1;
  const x = tokens[last]!;
  if (last === 0) return [x, x, x];
  return last === 1 ? [tokens[0]!, x, x] : [tokens[last - 2]!, tokens[last - 1]!, x];
}

/** A node of a draft to encode. */
export interface EncodedNode {
  /** Its index in the draft. */
  readonly node: number;
  readonly trigram: Trigram;
  /** 0 for the pending token. */
  readonly depth: number;
  /** The nodes before it on its path, encoded earlier as `kept`. */
  readonly ancestors: readonly number[];
  /** Whether nodes after it will be encoded. */
  readonly kept: boolean;
}

/** Trigram states remembered at most. */
const mostRemembered = 4096;

/** Rows of hidden states taken in at once: bounds what a long prompt asks for. */
const committedAtOnce = 16;

/** Buffers for as many rows as there are nodes at once. All pointers but `rows`. */
interface Scratch {
  readonly rows: number;
  readonly trigrams: number;
  readonly trigramInner: number;
  readonly x: number;
  readonly normed: number;
  readonly projections: number;
  readonly mixed: number;
  readonly gateUp: number;
  readonly inner: number;
  readonly anchored: number;
  readonly z: number;
  readonly logits: number;
  /** int32 */
  readonly positions: number;
}

/** The trained encoders and heads. */
export class ChimeraHeads {
  readonly vocabularySize: number;
  readonly width: number;
  /** How many heads, hence levels a draft may have. */
  readonly count: number;
  /** @internal */
  readonly core: ChimeraCore;

  /**
   * @param weights by `chimeraShapes`
   * @param space where they run, see `openKernels`; several may share one
   * @throws ArgumentError naming what is missing, unexpected or misshapen, or when the target's heads are no multiple of
   *   four wide
   */
  constructor(target: HeadTarget, weights: ReadonlyMap<string, Weights>, space: KernelSpace) {
    const { config } = target;
    let count = 0;
    while (weights.has(chimeraNames.head(count))) count++;
    checkHeadWeights(weights, chimeraShapes(target, Math.max(count, 1)));
    if (config.headWidth % 4 !== 0) {
      throw new ArgumentError("config.headWidth", "a multiple of 4", config.headWidth);
    }
    this.vocabularySize = config.vocabularySize;
    this.width = config.width;
    this.count = count;
    this.core = new ChimeraCore(target, weights, count, space);
  }

  /** A context for one sequence: room for `capacity` positions, committed ones and drafted ones together. Close it. */
  open(capacity: number): ChimeraContext {
    return new ChimeraContext(this.core, capacity);
  }
}

/** What the contexts share: weights, scratch, the rotary table, trigram states. */
class ChimeraCore {
  readonly config: DecoderConfig;
  readonly layers: HeadLayers;
  readonly finalNorm: number;
  readonly trigramResidual: Linear;
  readonly trigramOutput: Linear;
  readonly attentionNorm: number;
  /** Queries, keys and values. */
  readonly projections: Linear;
  readonly keysValues: Linear;
  readonly output: Linear;
  readonly feedForwardNorm: number;
  readonly gateUp: Linear;
  readonly down: Linear;
  readonly heads: readonly Linear[];
  readonly outputHead: Linear;
  readonly ranking: Ranking;
  readonly #embeddings: Float32Array;
  readonly #remembered = new Map<number, Float32Array>();
  #scratch: Scratch | undefined;
  #rotary = { pointer: 0, positions: 0 };
  #attention = { span: 0, scratch: 0, lists: 0 };

  constructor(target: HeadTarget, weights: ReadonlyMap<string, Weights>, count: number, space: KernelSpace) {
    const { config } = target;
    const { width, heads, keyValueHeads, headWidth, hiddenWidth, vocabularySize } = config;
    const layers = new HeadLayers(space);
    const data = (name: string): Float32Array => weights.get(name)!.data;
    const of = (name: string): Float32Array => data(`${block}${name}.weight`);
    const keysValues = joined([of("self_attn.k_proj"), of("self_attn.v_proj")]);
    // Gates and ups each fill whole panels: the kernel that joins them wants it.
    const half = stride(hiddenWidth);
    const padding = new Float32Array((half - hiddenWidth) * width);
    this.config = config;
    this.layers = layers;
    this.#embeddings = target.embeddings;
    this.finalNorm = layers.vector(target.norm);
    const { trigramResidual, trigramBias, trigramOutput } = chimeraNames;
    this.trigramResidual = layers.linear(3 * width, 3 * width, data(trigramResidual), data(trigramBias));
    this.trigramOutput = layers.linear(width, 3 * width, data(trigramOutput));
    this.attentionNorm = layers.vector(of("input_layernorm"));
    this.projections = layers.linear(
      (heads + 2 * keyValueHeads) * headWidth,
      width,
      joined([of("self_attn.q_proj"), keysValues]),
    );
    this.keysValues = layers.linear(2 * keyValueHeads * headWidth, width, keysValues);
    this.output = layers.linear(width, heads * headWidth, of("self_attn.o_proj"));
    this.feedForwardNorm = layers.vector(of("post_attention_layernorm"));
    this.gateUp = layers.linear(2 * half, width, joined([of("mlp.gate_proj"), padding, of("mlp.up_proj"), padding]));
    this.down = layers.linear(width, hiddenWidth, of("mlp.down_proj"));
    this.heads = Array.from({ length: count }, (_, i) => layers.linear(width, 2 * width, data(chimeraNames.head(i))));
    this.outputHead = layers.linear(vocabularySize, width, target.outputHead);
    this.ranking = new Ranking(layers, vocabularySize);
  }

  scratch(rows: number): Scratch {
    if (this.#scratch !== undefined && this.#scratch.rows >= rows) return this.#scratch;
    const { layers } = this;
    if (this.#scratch !== undefined) {
      const { rows: _, ...pointers } = this.#scratch;
      for (const pointer of Object.values(pointers)) layers.space.arena.free(pointer);
    }
    const { width, hiddenWidth, vocabularySize } = this.config;
    const of = (size: number): number => layers.buffer(rows, size);
    this.#scratch = {
      rows,
      trigrams: of(3 * width),
      trigramInner: of(3 * width),
      x: of(width),
      normed: of(width),
      projections: of(this.projections.outputs),
      mixed: of(this.output.inputs),
      gateUp: of(this.gateUp.outputs),
      inner: of(hiddenWidth),
      anchored: of(2 * width),
      z: of(width),
      logits: of(vocabularySize),
      positions: of(1),
    };
    return this.#scratch;
  }

  /** Cosines and sines, see `Kernels.rotate`. */
  rotary(positions: number): number {
    if (this.#rotary.positions < positions) {
      const { arena } = this.layers.space;
      const frequencies = rotaryFrequencies(this.config);
      const pair = 2 * frequencies.length;
      if (this.#rotary.pointer !== 0) arena.free(this.#rotary.pointer);
      const pointer = arena.allocate(4 * positions * pair);
      const { floats } = this.layers;
      for (let position = 0; position < positions; position++) {
        frequencies.forEach((frequency, i) => {
          floats[pointer / 4 + position * pair + i] = Math.cos(position * frequency);
          floats[pointer / 4 + position * pair + frequencies.length + i] = Math.sin(position * frequency);
        });
      }
      this.#rotary = { pointer, positions };
    }
    return this.#rotary.pointer;
  }

  /** Room for attention over `span` positions: its own scratch, then lists of positions. */
  attention(span: number): { readonly scratch: number; readonly lists: number } {
    if (this.#attention.span < span) {
      const { arena } = this.layers.space;
      for (const pointer of [this.#attention.scratch, this.#attention.lists]) if (pointer !== 0) arena.free(pointer);
      const scratch = arena.allocate(4 * attentionScratchFloats(span));
      this.#attention = { span, scratch, lists: arena.allocate(4 * this.config.keyValueHeads * span) };
    }
    return this.#attention;
  }

  /** Trigram states to rows of `x`. @returns how many had to be computed: those met before are remembered */
  trigramStates(trigrams: readonly Trigram[], { x, trigrams: input, trigramInner }: Scratch): number {
    const { layers } = this;
    const { width, vocabularySize } = this.config;
    const keys = trigrams.map(([a, b, c]) => (a * vocabularySize + b) * vocabularySize + c);
    if (this.#remembered.size >= mostRemembered) this.#remembered.clear();
    const missing = keys.flatMap((key, i) => (this.#remembered.has(key) || keys.indexOf(key) < i ? [] : [i]));
    if (missing.length > 0) {
      missing.forEach((i, r) => {
        trigrams[i]!.forEach((id, place) => {
          const embedding = this.#embeddings.subarray(id * width, (id + 1) * width);
          layers.floats.set(embedding, input / 4 + r * stride(3 * width) + place * width);
        });
      });
      layers.apply(this.trigramResidual, input, missing.length, trigramInner);
      layers.addSilu(input, missing.length, 3 * width, trigramInner);
      layers.apply(this.trigramOutput, trigramInner, missing.length, x);
      const states = layers.read(x, missing.length, width);
      missing.forEach((i, r) => {
        this.#remembered.set(keys[i]!, row(states, r));
      });
    }
    keys.forEach((key, r) => {
      layers.floats.set(this.#remembered.get(key)!, x / 4 + r * stride(width));
    });
    return missing.length;
  }
}

/** The states of one sequence, and the draft that is being made after them. */
export class ChimeraContext {
  readonly #core: ChimeraCore;
  readonly #capacity: number;
  /** Keys, then values: [2, keyValueHeads, capacity, headWidth]; 0 once closed. */
  #cache: number;
  #length = 0;
  /** The target's state at the last committed token, after its norm, [width]. */
  #anchor: Float32Array = new Float32Array(0);
  #encoded: Scratch | undefined;
  readonly #cost = { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 };

  /** Use `ChimeraHeads.open`. */
  constructor(core: ChimeraCore, capacity: number) {
    this.#core = core;
    this.#capacity = capacity;
    const { keyValueHeads, headWidth } = core.config;
    this.#cache = core.layers.space.arena.allocate(8 * keyValueHeads * capacity * headWidth);
  }

  /** Committed tokens. */
  get length(): number {
    return this.#length;
  }

  /** One pass per call of `encode`, a token per node in it. */
  get cost(): Cost {
    return { ...this.#cost };
  }

  /**
   * The target has committed more tokens.
   * @param hidden its last layer's output, before the final norm, [rows, width]
   * @param rows which of them, in the order of the text. Default: all
   */
  commit(hidden: Matrix, rows: ArrayLike<number> = Array.from({ length: hidden.rows }, (_, r) => r)): void {
    const { layers, config, finalNorm } = this.#core;
    const { width, normEpsilon } = config;
    for (let first = 0; first < rows.length; first += committedAtOnce) {
      const count = Math.min(committedAtOnce, rows.length - first);
      const scratch = this.#core.scratch(count);
      const data = new Float32Array(count * width);
      for (let r = 0; r < count; r++) data.set(row(hidden, rows[first + r]!), r * width);
      layers.write({ data, rows: count, columns: width }, scratch.x);
      layers.norm(finalNorm, normEpsilon, scratch.x, count, width, scratch.x);
      this.#anchor = row(layers.read(scratch.x, count, width), count - 1);
      const places = Array.from({ length: count }, (_, r) => this.#length + r);
      this.#keepStates(scratch, scratch.x, places, places);
      this.#length += count;
    }
  }

  /**
   * Encode nodes and run one head on each. Read the outcome with `best`, `logits` and `state` before the next call.
   * @param nodes of one draft; what they have before them has been encoded since the last `commit`
   * @param head which one: 0 for the guesses right after the pending token
   */
  encode(nodes: readonly EncodedNode[], head: number): void {
    const core = this.#core;
    const { layers, config } = core;
    const { kernels } = layers.space;
    const { width, heads, keyValueHeads, headWidth, hiddenWidth, normEpsilon, vocabularySize } = config;
    const count = nodes.length;
    const scratch = core.scratch(count);
    const { x, normed, projections, mixed, gateUp, inner, anchored, z, logits, positions } = scratch;
    const computed = core.trigramStates(
      nodes.map(({ trigram }) => trigram),
      scratch,
    );

    layers.norm(core.attentionNorm, normEpsilon, x, count, width, normed);
    layers.apply(core.projections, normed, count, projections);
    const wide = stride(core.projections.outputs);
    layers.integers.set(
      nodes.map(({ depth }) => this.#length + depth),
      positions / 4,
    );
    const turned = heads + keyValueHeads;
    kernels.rotate(projections, wide, count, turned, headWidth, headWidth / 2, positions, core.rotary(this.#capacity));
    let read = 0;
    nodes.forEach(({ node, ancestors }, r) => {
      const queries = projections + 4 * r * wide;
      this.#store(queries + 4 * heads * headWidth, wide, this.#length + node);
      this.#attend(queries, wide, node, ancestors, mixed + 4 * r * stride(heads * headWidth));
      read += this.#length + ancestors.length;
    });
    layers.apply(core.output, mixed, count, x, 1);
    layers.norm(core.feedForwardNorm, normEpsilon, x, count, width, normed);
    layers.apply(core.gateUp, normed, count, gateUp);
    const half = stride(hiddenWidth);
    kernels.swiglu(gateUp, 2 * half, count, half, inner, half);
    layers.apply(core.down, inner, count, x, 1); // x: g -> f

    const { floats } = layers;
    nodes.forEach(({ node, depth, kept }, r) => {
      const f = x + 4 * r * stride(width);
      const at = anchored / 4 + r * stride(2 * width);
      floats.set(this.#anchor, at);
      floats.copyWithin(at + width, f / 4, f / 4 + width);
      if (kept) this.#keepStates(scratch, f, [this.#length + node], [this.#length + depth]);
    });
    layers.apply(core.heads[head]!, anchored, count, z);
    layers.apply(core.outputHead, z, count, logits);
    this.#encoded = scratch;

    const linear = 2 * (heads + keyValueHeads) * headWidth + 3 * hiddenWidth + 2 * width + vocabularySize;
    const attention = 2 * heads * headWidth * (read + count);
    this.#count(computed * 12 * width * width + count * width * linear + attention);
    this.#cost.passes += 1;
    this.#cost.tokens += count;
    this.#cost.cacheBytesRead += read * 2 * keyValueHeads * headWidth * 4;
  }

  /** The likeliest tokens after node `r` of the last `encode`, best first, of equal ones the lower id. */
  best(r: number, ranks: number): Int32Array {
    const { vocabularySize } = this.#core.config;
    return this.#core.ranking.of(this.#encoded!.logits + 4 * r * stride(vocabularySize), vocabularySize, ranks);
  }

  /** The logits themselves, [vocabularySize], a copy. */
  logits(r: number): Float32Array {
    const { vocabularySize } = this.#core.config;
    return row(this.#core.layers.read(this.#encoded!.logits, r + 1, vocabularySize), r);
  }

  /** The state the node was given, its f, [width], a copy. */
  state(r: number): Float32Array {
    return row(this.#core.layers.read(this.#encoded!.x, r + 1, this.#core.config.width), r);
  }

  /** Give the cache's memory back. A second `close` does nothing. */
  close(): void {
    if (this.#cache !== 0) this.#core.layers.space.arena.free(this.#cache);
    this.#cache = 0;
  }

  /** Keys and values of states, rows from pointer `x` on, to slots of the cache. */
  #keepStates({ normed, projections, positions }: Scratch, x: number, slots: number[], places: number[]): void {
    const core = this.#core;
    const { layers, config } = core;
    const { width, keyValueHeads, headWidth, normEpsilon } = config;
    const rows = slots.length;
    layers.norm(core.attentionNorm, normEpsilon, x, rows, width, normed);
    layers.apply(core.keysValues, normed, rows, projections);
    const wide = stride(core.keysValues.outputs);
    layers.integers.set(places, positions / 4);
    const { rotate } = layers.space.kernels;
    rotate(projections, wide, rows, keyValueHeads, headWidth, headWidth / 2, positions, core.rotary(this.#capacity));
    slots.forEach((slot, r) => {
      this.#store(projections + 4 * r * wide, wide, slot);
    });
    this.#count(rows * width * core.keysValues.outputs);
  }

  /** One row's keys, and its values right behind them, to a slot of the cache. */
  #store(keys: number, wide: number, slot: number): void {
    const { keyValueHeads, headWidth } = this.#core.config;
    const { storeRows } = this.#core.layers.space.kernels;
    const values = keys + 4 * keyValueHeads * headWidth;
    storeRows(keys, wide, 1, keyValueHeads, headWidth, this.#cache, this.#capacity, slot);
    storeRows(values, wide, 1, keyValueHeads, headWidth, this.#values, this.#capacity, slot);
  }

  /** Attention of one node over the committed slots, its ancestors' and its own. */
  #attend(queries: number, wide: number, node: number, ancestors: readonly number[], mixed: number): void {
    const { layers, config } = this.#core;
    const { heads, keyValueHeads, headWidth } = config;
    const selected = this.#length + ancestors.length;
    const { scratch, lists } = this.#core.attention(this.#capacity);
    const { integers } = layers;
    for (let head = 0; head < keyValueHeads; head++) {
      const at = lists / 4 + head * selected;
      for (let slot = 0; slot < this.#length; slot++) integers[at + slot] = slot;
      ancestors.forEach((ancestor, i) => {
        integers[at + this.#length + i] = this.#length + ancestor;
      });
    }
    layers.space.kernels.attend(
      queries,
      wide,
      1,
      this.#cache,
      this.#values,
      this.#capacity,
      this.#length + node,
      lists,
      selected,
      0,
      heads,
      keyValueHeads,
      headWidth,
      1 / Math.sqrt(headWidth),
      0,
      keyValueHeads,
      mixed,
      stride(heads * headWidth),
      scratch,
      0,
    );
  }

  get #values(): number {
    const { keyValueHeads, headWidth } = this.#core.config;
    return this.#cache + 4 * keyValueHeads * this.#capacity * headWidth;
  }

  #count(multiplyAdds: number): void {
    this.#cost.multiplyAdds += multiplyAdds;
  }
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
