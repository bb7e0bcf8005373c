/**
 * What heads on a target's hidden states are made of: the parts of the target they borrow, and their own layers on the
 * kernels. Heads run between two passes of the target, so what they cost counts as much as what they guess.
 *
 * A row of width w stands in the arena `stride(w)` floats wide, the rest of it zeros, as all kernels want it.
 */
import { ArgumentError } from "../errors.ts";
import { type KernelSpace, panelWidth, weightFormats } from "../kernels/kernels.ts";
import { type DecoderConfig, embeddingName } from "../model/decoder-config.ts";
import type { Matrix, Taps } from "../model/language-model.ts";
import type { Weights } from "../model/weights.ts";

/** What heads borrow from their target, which stays as it is. */
export interface HeadTarget {
  readonly config: DecoderConfig;
  /** Token embeddings, [vocabularySize, width]. */
  readonly embeddings: Float32Array;
  /** Weight of the final norm, [width]. */
  readonly norm: Float32Array;
  /** Output head, [vocabularySize, width]: the embeddings where the target ties the two. */
  readonly outputHead: Float32Array;
}

/** The names of a target's parameters that heads need. */
export function headTargetNames(config: DecoderConfig): string[] {
  return [embeddingName(config), "model.norm.weight", ...(config.tiedEmbeddings ? [] : ["lm_head.weight"])];
}

/**
 * A target's parts from its weights, by Hugging Face's names.
 * @throws ArgumentError for a GPT-2, whose final norm is another, or when one is missing
 */
export function headTarget(config: DecoderConfig, weights: ReadonlyMap<string, Weights>): HeadTarget {
  if (config.architecture === "gpt2") {
    throw new ArgumentError("config.architecture", '"llama": heads know its final norm', config.architecture);
  }
  const [embeddings, norm, outputHead = embeddings] = headTargetNames(config).map((name) => {
    const weight = weights.get(name);
    if (weight === undefined) throw new ArgumentError("weights", `a tensor ${name}`, [...weights.keys()].slice(0, 3));
    return weight.data;
  });
  return { config, embeddings: embeddings!, norm: norm!, outputHead: outputHead! };
}

/**
 * Rows of the last layer's output in what a pass was tapped for, before the final norm: [rows, width].
 * @throws ArgumentError when there is none, or it has another width than the heads were trained on
 */
export function lastHidden(taps: Taps | undefined, width: number): Matrix {
  const hidden = taps?.hidden?.at(-1);
  if (hidden === undefined) {
    throw new ArgumentError("target", "a model that reports its hidden states", Object.keys(taps ?? {}));
  }
  if (hidden.columns !== width) {
    throw new ArgumentError(
      "target",
      `hidden states of width ${width}`,
      hidden.columns,
      "The heads fit another model.",
    );
  }
  return hidden;
}

/** States as the target's output head reads them: RMSNorm by its final norm, in doubles. [rows, width] -> the same. */
export function normedStates({ norm, config }: HeadTarget, { data, rows, columns }: Matrix): Matrix {
  const normed = new Float32Array(rows * columns);
  for (let start = 0; start < normed.length; start += columns) {
    let squares = 0;
    for (let i = 0; i < columns; i++) squares += data[start + i]! ** 2;
    const scale = 1 / Math.sqrt(squares / columns + config.normEpsilon);
    for (let i = 0; i < columns; i++) normed[start + i] = data[start + i]! * scale * norm[i]!;
  }
  return { data: normed, rows, columns };
}

/** @throws ArgumentError naming what is missing, unexpected or misshapen, or the first number that is not finite */
export function checkHeadWeights(
  weights: ReadonlyMap<string, Weights>,
  shapes: ReadonlyMap<string, readonly number[]>,
): void {
  for (const [name, shape] of shapes) {
    const got = weights.get(name);
    if (got?.shape.join() !== shape.join() || got.data.length !== shape.reduce((a, b) => a * b, 1)) {
      throw new ArgumentError("weights", `a tensor ${name} of shape [${shape.join(", ")}]`, got?.shape);
    }
    const bad = got.data.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0) throw new ArgumentError("weights", `finite numbers in ${name}`, got.data[bad]);
  }
  const unexpected = [...weights.keys()].find((name) => !shapes.has(name));
  if (unexpected !== undefined) throw new ArgumentError("weights", `${shapes.size} known tensors`, unexpected);
}

/** Floats a row of `width` takes. */
export function stride(width: number): number {
  return Math.ceil(width / panelWidth) * panelWidth;
}

/** A packed matrix [outputs, inputs] and its bias. */
export interface Linear {
  readonly pointer: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Pointer, or 0. */
  readonly bias: number;
}

/** Layers in an arena. What is placed stays; heads live as long as the space they are in. */
export class HeadLayers {
  readonly space: KernelSpace;

  constructor(space: KernelSpace) {
    this.space = space;
  }

  /** The arena as floats, element `pointer / 4`. Take it anew after placing anything. */
  get floats(): Float32Array {
    return this.space.arena.floats as Float32Array;
  }

  get integers(): Int32Array {
    return this.space.arena.integers as Int32Array;
  }

  /** @param weight [outputs, inputs] @param bias [outputs] */
  linear(outputs: number, inputs: number, weight: Float32Array, bias?: Float32Array): Linear {
    const panels = stride(outputs) / panelWidth;
    const pointer = this.space.arena.allocate(4 * panels * panelWidth * inputs);
    const { floats } = this;
    for (let o = 0; o < outputs; o++) {
      const at = pointer / 4 + Math.floor(o / panelWidth) * panelWidth * inputs + (o % panelWidth);
      for (let i = 0; i < inputs; i++) floats[at + i * panelWidth] = weight[o * inputs + i]!;
    }
    return { pointer, inputs, outputs, bias: bias === undefined ? 0 : this.vector(bias) };
  }

  vector(values: Float32Array): number {
    const pointer = this.buffer(1, values.length);
    this.floats.set(values, pointer / 4);
    return pointer;
  }

  /** Room for `rows` rows of `width`, zeros. */
  buffer(rows: number, width: number): number {
    return this.space.arena.allocate(4 * rows * stride(width));
  }

  /** y = W x + b, or y += W x + b, row by row: x [rows, inputs] -> y [rows, outputs]. */
  apply({ pointer, inputs, outputs, bias }: Linear, x: number, rows: number, y: number, add: 0 | 1 = 0): void {
    const outputStride = stride(outputs);
    const panels = outputStride / panelWidth;
    const { product } = this.space.kernels;
    product(x, stride(inputs), rows, pointer, weightFormats.F32, inputs, 0, panels, y, outputStride, bias, add);
  }

  /** RMSNorm of rows [rows, width]. y may be x. */
  norm(weight: number, epsilon: number, x: number, rows: number, width: number, y: number): void {
    this.space.kernels.rmsNorm(x, stride(width), rows, width, weight, epsilon, y);
  }

  /** y = x + SiLU(y), over rows that lie one after another. */
  addSilu(x: number, rows: number, width: number, y: number): void {
    const { floats } = this;
    const count = rows * stride(width);
    for (let i = 0; i < count; i++) {
      const value = floats[y / 4 + i]!;
      floats[y / 4 + i] = floats[x / 4 + i]! + value / (1 + Math.exp(-value));
    }
  }

  /** Rows [rows, width] of a matrix into the arena. */
  write({ data, rows, columns }: Matrix, to: number): void {
    const { floats } = this;
    const wide = stride(columns);
    for (let r = 0; r < rows; r++) floats.set(data.subarray(r * columns, (r + 1) * columns), to / 4 + r * wide);
  }

  /** A copy of rows in the arena. */
  read(from: number, rows: number, columns: number): Matrix {
    const { floats } = this;
    const data = new Float32Array(rows * columns);
    const wide = stride(columns);
    for (let r = 0; r < rows; r++) {
      const start = from / 4 + r * wide;
      data.set(floats.subarray(start, start + columns), r * columns);
    }
    return { data, rows, columns };
  }
}

/** The first of a row's largest numbers, in falling order, of equal ones the lower index: how guesses are ranked. */
export class Ranking {
  readonly #layers: HeadLayers;
  readonly #indices: number;
  readonly #values: number;
  readonly #most: number;

  /** @param most ranks it can tell */
  constructor(layers: HeadLayers, most: number) {
    this.#layers = layers;
    this.#most = most;
    this.#indices = layers.buffer(1, most);
    this.#values = layers.buffer(1, most);
  }

  /** @returns [min(ranks, count)] */
  of(row: number, count: number, ranks: number): Int32Array {
    const { kernels, arena } = this.#layers.space;
    const found = Math.min(ranks, count, this.#most);
    kernels.topK(row, count, found, this.#indices, this.#values);
    return Int32Array.from(arena.integers.subarray(this.#indices / 4, this.#indices / 4 + found));
  }
}
