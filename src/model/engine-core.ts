/**
 * What the sessions of an engine share: weights, kernels, and where a pass works: scratch, the rotary table, logits.
 */
import { attentionScratchFloats, type KernelSpace } from "../kernels/kernels.ts";
import { type DecoderConfig, rotaryFrequencies } from "./decoder-config.ts";
import {
  type PackedMatrix,
  type PlacedLayer,
  type PlacedNorm,
  type PlacedWeights,
  type RowStrides,
  rowStrides,
} from "./engine-weights.ts";
import type { Matrix } from "./language-model.ts";

/** Rows whose logits are computed at once. */
const logitRows = 32;

/** Bytes of the scratch they are computed in. */
export function logitBytes(config: DecoderConfig): number {
  return 4 * logitRows * rowStrides(config).logits;
}

/** Where a pass works. All pointers into the arena, strides as in `RowStrides`. */
export interface Scratch {
  /** Rows all buffers have room for. */
  readonly rows: number;
  /** The residual stream. */
  readonly x: number;
  readonly normed: number;
  readonly projections: number;
  readonly mixed: number;
  /** Gates and ups, or c_fc's output. */
  readonly hidden: number;
  /** int32 [rows] */
  readonly ids: number;
  /** int32 [rows] */
  readonly positions: number;
  /** uint8 [rows, rows] */
  readonly ancestors: number;
}

export class EngineCore {
  readonly config: DecoderConfig;
  readonly space: KernelSpace;
  readonly weights: PlacedWeights;
  readonly strides: RowStrides;
  readonly allHeads: number;
  closed = false;
  #scratch: Scratch | undefined;
  #attention = { pointer: 0, floats: 0 };
  readonly #logits: number;
  #rotary = { pointer: 0, positions: 0 };
  readonly #frequencies: Float64Array;

  constructor(config: DecoderConfig, space: KernelSpace, weights: PlacedWeights) {
    this.config = config;
    this.space = space;
    this.weights = weights;
    this.strides = rowStrides(config);
    this.allHeads = config.heads + 2 * config.keyValueHeads;
    this.#frequencies = weights.positions === 0 ? rotaryFrequencies(config) : new Float64Array(0);
    this.#logits = space.arena.allocate(logitBytes(config));
  }

  /** Scratch for a pass of `rows` rows. */
  scratch(rows: number): Scratch {
    if (this.#scratch !== undefined && this.#scratch.rows >= rows) return this.#scratch;
    const { arena } = this.space;
    const { width, projections, mixed, hidden } = this.strides;
    if (this.#scratch !== undefined) {
      const { rows: _, ...pointers } = this.#scratch;
      this.#scratch = undefined;
      for (const pointer of Object.values(pointers)) arena.free(pointer);
    }
    let capacity = 16;
    while (capacity < rows) capacity *= 2;
    const floats = (stride: number): number => arena.allocate(4 * capacity * stride);
    this.#scratch = {
      rows: capacity,
      x: floats(width),
      normed: floats(width),
      projections: floats(projections),
      mixed: floats(mixed),
      hidden: floats(2 * hidden),
      ids: floats(1),
      positions: floats(1),
      ancestors: arena.allocate(capacity * capacity),
    };
    return this.#scratch;
  }

  /** Scratch of attention over `span` positions. */
  attentionScratch(span: number): number {
    const floats = attentionScratchFloats(span);
    if (this.#attention.floats < floats) {
      if (this.#attention.pointer !== 0) this.space.arena.free(this.#attention.pointer);
      this.#attention = { pointer: 0, floats: 0 };
      this.#attention = { pointer: this.space.arena.allocate(8 * floats), floats: 2 * floats };
    }
    return this.#attention.pointer;
  }

  /** Cosines and sines for positions 0 .. positions - 1, see `Kernels.rotate`. */
  rotaryTable(positions: number): number {
    if (this.#rotary.positions < positions) {
      const half = this.#frequencies.length;
      const capacity = Math.min(Math.max(2 * positions, 256), Math.max(this.config.contextLength, positions));
      const pointer = this.space.arena.allocate(8 * capacity * half);
      if (this.#rotary.pointer !== 0) this.space.arena.free(this.#rotary.pointer);
      const { floats } = this.space.arena;
      for (let position = 0; position < capacity; position++) {
        const at = pointer / 4 + position * 2 * half;
        for (let i = 0; i < half; i++) {
          floats[at + i] = Math.cos(position * this.#frequencies[i]!);
          floats[at + half + i] = Math.sin(position * this.#frequencies[i]!);
        }
      }
      this.#rotary = { pointer, positions: capacity };
    }
    return this.#rotary.pointer;
  }

  /** y = x matrix (+ its bias) (+ y) */
  product(
    matrix: PackedMatrix,
    x: number,
    xStride: number,
    rows: number,
    y: number,
    yStride: number,
    add: 0 | 1,
  ): void {
    const { pointer, format, inputs, panels, bias } = matrix;
    this.space.kernels.product(x, xStride, rows, pointer, format, inputs, 0, panels, y, yStride, bias, add);
  }

  norm({ weight, bias }: PlacedNorm, x: number, rows: number, y: number): void {
    const { width, normEpsilon } = this.config;
    const stride = this.strides.width;
    const { kernels } = this.space;
    if (bias === 0) kernels.rmsNorm(x, stride, rows, width, weight, normEpsilon, y);
    else kernels.layerNorm(x, stride, rows, width, weight, bias, normEpsilon, y);
  }

  /** h + feed-forward(norm(h)), in place. */
  feedForward(layer: PlacedLayer, { x, normed, hidden }: Scratch, rows: number): void {
    const { kernels } = this.space;
    const { width, hidden: half } = this.strides;
    this.norm(layer.feedForwardNorm, x, rows, normed);
    if (this.config.architecture === "gpt2") {
      this.product(layer.up, normed, width, rows, hidden, half, 0);
      kernels.gelu(hidden, rows * half);
      this.product(layer.down, hidden, half, rows, x, width, 1);
    } else {
      this.product(layer.up, normed, width, rows, hidden, 2 * half, 0);
      kernels.swiglu(hidden, 2 * half, rows, half, hidden, 2 * half);
      this.product(layer.down, hidden, 2 * half, rows, x, width, 1);
    }
  }

  /** Logits of `rows` rows of the residual stream from pointer `x` on; `normed` has room for them. */
  logits(x: number, rows: number, normed: number): Matrix {
    const { width, logits: stride } = this.strides;
    const { vocabularySize } = this.config;
    this.norm(this.weights.finalNorm, x, rows, normed);
    if (rows === 1) {
      this.product(this.weights.head, normed, width, 1, this.#logits, stride, 0);
      const at = this.#logits / 4;
      return { data: this.space.arena.floats.slice(at, at + vocabularySize), rows, columns: vocabularySize };
    }
    const data = new Float32Array(rows * vocabularySize);
    for (let first = 0; first < rows; first += logitRows) {
      const count = Math.min(logitRows, rows - first);
      this.product(this.weights.head, normed + 4 * first * width, width, count, this.#logits, stride, 0);
      copyRows(this.space, this.#logits, stride, count, vocabularySize, data, first * vocabularySize);
    }
    return { data, rows, columns: vocabularySize };
  }
}

/** Rows of an arena matrix without their padding, to `target` from element `at` on. */
export function copyRows(
  { arena }: KernelSpace,
  from: number,
  stride: number,
  rows: number,
  columns: number,
  target: Float32Array,
  at: number,
): void {
  const { floats } = arena;
  for (let r = 0; r < rows; r++) {
    const start = from / 4 + r * stride;
    target.set(floats.subarray(start, start + columns), at + r * columns);
  }
}
