/**
 * ZeTT's hypernetwork: embeddings of any token from its pieces in a frozen model's vocabulary, predicted by a small network
 * trained for that model. Minixhofer, Ponti and Vulic, "Zero-Shot Tokenizer Transfer", arXiv 2405.07883, section 3;
 * architecture as in the code released with it.
 *
 * The pieces' embeddings go through a projector, then a bidirectional transformer over at most seven of them; the state of
 * the first position becomes what the mean of the pieces lacks: of an input embedding and of an output embedding, by a head
 * each.
 *
 *     x_i = Projector(W_in scale(E[piece_i]) + b)              Projector(x) = LN(x + gelu(W_2 gelu(W_1 x + b_1) + b_2))
 *     h   = Transformer(LN(x + positions))                     post-norm, every piece attends to all of its token
 *     e   = mean of E[piece_i] + scale'(W_out Projector'(h_1) + b')           once for inputs, once for outputs
 *
 * The scales are affine per dimension and frozen: the first brings the model's embeddings to mean 0 and deviation 1, the
 * others bring numbers of deviation 1 to that of the model's embeddings. W_out begins as zero: an untrained network says the
 * mean of the pieces, and of a single piece the piece.
 *
 * A token of one piece is the model's own and is not predicted: it keeps its embeddings bit for bit. Pieces after the
 * seventh are not looked at.
 *
 * **Deviations**: the network corrects the mean of the pieces, where the paper's predicts everything, and learns the identity
 * first: a small network trained for minutes does not get from there to the mean by itself. Where the model ties its embeddings, the released code predicts one embedding for both uses; here inputs
 * and outputs have a head each even then, since a long token must look different to what comes after it (as its last piece
 * does) and to what comes before (as its first). Heads are 32 wide, not 64; 2 layers, not 3. Single pieces are copied,
 * where the paper predicts them too. Tokens stand without padding, so there is no mask; one over padding would give the same.
 *
 * **Unlike** the predictors in `embedding-predictor.ts` it is trained (`training/hypernetwork-training.ts`) and serves one
 * model only. This file runs it on kernels; `training/hypernetwork-definition.ts` is what it is held against.
 */
import { ArgumentError } from "../errors.ts";
import type { KernelSpace } from "../kernels/kernels.ts";
import { type Matrix, row } from "../model/language-model.ts";
import type { Weights } from "../model/weights.ts";
import { checkHeadWeights, HeadLayers, type Linear, stride } from "../speculative/head-layers.ts";
import { type EmbeddingPredictor, type EmbeddingTables, meanOfPieces } from "./embedding-predictor.ts";
import { longestSurfaceForm } from "./surface-forms.ts";

export interface HypernetworkConfig {
  /** Of the model's embeddings, and of the network's states. */
  readonly width: number;
  /** Tokens of the model's own vocabulary. */
  readonly vocabularySize: number;
  /** The model has one table for inputs and outputs. */
  readonly tied: boolean;
  readonly layers: number;
  readonly heads: number;
  /** Inner width of projectors and feed-forward parts. */
  readonly hiddenWidth: number;
  /** Most pieces looked at. */
  readonly longest: number;
}

/** The shape used for a model: 2 layers, heads of 32, twice the width inside, 7 pieces. */
export function hypernetworkConfig({ input, output }: EmbeddingTables): HypernetworkConfig {
  const { rows: vocabularySize, columns: width } = input;
  return {
    width,
    vocabularySize,
    tied: input === output,
    layers: 2,
    heads: Math.max(1, Math.round(width / 32)),
    hiddenWidth: 2 * width,
    longest: longestSurfaceForm,
  };
}

/** Added to the variance under LayerNorm's root. */
export const hypernetworkEpsilon = 1e-5;

/** The two things predicted, as they are called in parameter names. */
export const predicted = ["input", "output"] as const;

/** Frozen affine maps: of the source embeddings, and of both predictions. */
export function scalerShapes({ width, tied }: HypernetworkConfig): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  for (const [name, size] of [
    ["source", tied ? width : 2 * width] as const,
    ...predicted.map((n) => [n, width] as const),
  ]) {
    shapes.set(`scalers.${name}.weight`, [size]);
    shapes.set(`scalers.${name}.bias`, [size]);
  }
  return shapes;
}

/** What is trained. Matrices are [outputs, inputs]. */
export function hypernetworkShapes(config: HypernetworkConfig): Map<string, readonly number[]> {
  const { width, tied, layers, hiddenWidth, longest } = config;
  const shapes = new Map<string, readonly number[]>();
  const linear = (name: string, outputs: number, inputs: number): void => {
    shapes.set(`${name}.weight`, [outputs, inputs]);
    shapes.set(`${name}.bias`, [outputs]);
  };
  const norm = (name: string): void => {
    shapes.set(`${name}.weight`, [width]);
    shapes.set(`${name}.bias`, [width]);
  };
  const projector = (name: string): void => {
    linear(`${name}.up`, hiddenWidth, width);
    linear(`${name}.down`, width, hiddenWidth);
    norm(`${name}.norm`);
  };
  linear("source", width, tied ? width : 2 * width);
  projector("source.projector");
  shapes.set("positions", [longest, width]);
  norm("norm");
  for (let layer = 0; layer < layers; layer++) {
    for (const name of ["query", "key", "value", "mix"]) linear(`layers.${layer}.${name}`, width, width);
    norm(`layers.${layer}.mix.norm`);
    projector(`layers.${layer}`);
  }
  for (const name of predicted) {
    projector(`${name}.projector`);
    linear(name, width, width);
  }
  return shapes;
}

/** The layers behind a name: x + down(gelu(up(x))), normed. In projectors there is a gelu on both. */
interface Block {
  readonly up: Linear;
  readonly down: Linear;
  readonly norm: Norm;
}

interface Norm {
  readonly weight: number;
  readonly bias: number;
}

/** Rows (pieces) in a pass, at most. */
const passRows = 512;

/** The network on kernels, with a model's embeddings. */
export class Hypernetwork implements EmbeddingPredictor {
  readonly name = "hypernetwork";
  readonly width: number;
  readonly vocabularySize: number;
  readonly config: HypernetworkConfig;
  readonly #means: EmbeddingPredictor;
  readonly #layers: HeadLayers;
  readonly #positions: Float32Array;
  readonly #norm: Norm;
  readonly #blocks: readonly (Record<"query" | "key" | "value" | "mix", Linear> & {
    readonly mixNorm: Norm;
    readonly block: Block;
  })[];
  readonly #heads: readonly { readonly projector: Block; readonly linear: Linear; readonly scaler: Scaler }[];
  /** Every token of the model's vocabulary, through scaler, linear and projector: [vocabularySize, width]. */
  readonly #projected: Matrix;
  // Where a pass works, [passRows, width] each; the last [passRows, hiddenWidth].
  readonly #x: number;
  readonly #q: number;
  readonly #k: number;
  readonly #v: number;
  readonly #inner: number;

  /**
   * @param tables of the model it was trained for
   * @param weights by the names of `hypernetworkShapes` and `scalerShapes`
   * @param space where it is placed, for good
   * @throws ArgumentError when tables, config and weights do not fit
   */
  constructor(
    tables: EmbeddingTables,
    config: HypernetworkConfig,
    weights: ReadonlyMap<string, Weights>,
    space: KernelSpace,
  ) {
    checkHypernetworkConfig(config);
    requireTables(tables, config);
    checkHeadWeights(weights, new Map([...hypernetworkShapes(config), ...scalerShapes(config)]));
    const { width, hiddenWidth, vocabularySize } = config;
    this.width = width;
    this.vocabularySize = vocabularySize;
    this.config = config;
    this.#means = meanOfPieces(tables);
    const layers = new HeadLayers(space);
    this.#layers = layers;
    const of = (name: string): Float32Array => weights.get(name)!.data;
    const linear = (name: string): Linear => {
      const [outputs, inputs] = weights.get(`${name}.weight`)!.shape as [number, number];
      return layers.linear(outputs, inputs, of(`${name}.weight`), of(`${name}.bias`));
    };
    const norm = (name: string): Norm => ({
      weight: layers.vector(of(`${name}.weight`)),
      bias: layers.vector(of(`${name}.bias`)),
    });
    const block = (name: string): Block => ({
      up: linear(`${name}.up`),
      down: linear(`${name}.down`),
      norm: norm(`${name}.norm`),
    });
    this.#positions = of("positions");
    this.#norm = norm("norm");
    this.#blocks = Array.from({ length: config.layers }, (_, layer) => ({
      query: linear(`layers.${layer}.query`),
      key: linear(`layers.${layer}.key`),
      value: linear(`layers.${layer}.value`),
      mix: linear(`layers.${layer}.mix`),
      mixNorm: norm(`layers.${layer}.mix.norm`),
      block: block(`layers.${layer}`),
    }));
    this.#heads = predicted.map((name) => ({
      projector: block(`${name}.projector`),
      linear: linear(name),
      scaler: { weight: of(`scalers.${name}.weight`), bias: of(`scalers.${name}.bias`) },
    }));
    [this.#x, this.#q, this.#k, this.#v] = Array.from({ length: 4 }, () => layers.buffer(passRows, width)) as [
      number,
      number,
      number,
      number,
    ];
    this.#inner = layers.buffer(passRows, hiddenWidth);
    const source = linear("source");
    const projector = block("source.projector");
    const scaled = scaledSource(tables, config, {
      weight: of("scalers.source.weight"),
      bias: of("scalers.source.bias"),
    });
    const wide = layers.buffer(passRows, scaled.columns);
    this.#projected = { data: new Float32Array(vocabularySize * width), rows: vocabularySize, columns: width };
    for (let first = 0; first < vocabularySize; first += passRows) {
      const rows = Math.min(passRows, vocabularySize - first);
      const { data, columns } = scaled;
      layers.write({ data: data.subarray(first * columns, (first + rows) * columns), rows, columns }, wide);
      layers.apply(source, wide, rows, this.#x);
      this.#block(projector, rows, true);
      this.#projected.data.set(layers.read(this.#x, rows, width).data, first * width);
    }
  }

  predict(pieces: readonly ArrayLike<number>[]): { readonly input: Matrix; readonly output: Matrix } {
    // Means of single pieces are the pieces: they stay as they are.
    const looked = pieces.map((ids) => Array.from(ids).slice(0, this.config.longest));
    const { input, output } = this.#means.predict(looked);
    // Where the model has one table, the two are one matrix.
    const results = { input, output: { ...output, data: output.data.slice() } };
    let tokens: number[] = [];
    let rows = 0;
    const flush = (): void => {
      if (tokens.length === 0) return;
      const passed = this.corrections(tokens.map((token) => pieces[token]!));
      for (const name of predicted) {
        tokens.forEach((token, t) => {
          const [into, correction] = [row(results[name], token), row(passed[name], t)];
          for (let i = 0; i < into.length; i++) into[i]! += correction[i]!;
        });
      }
      tokens = [];
      rows = 0;
    };
    pieces.forEach((ids, token) => {
      if (ids.length === 1) return;
      const length = Math.min(ids.length, this.config.longest);
      if (rows + length > passRows) flush();
      tokens.push(token);
      rows += length;
    });
    flush();
    return results;
  }

  /** What the network adds to the means of tokens, single pieces too: one pass of at most 512 pieces. */
  corrections(pieces: readonly ArrayLike<number>[]): { readonly input: Matrix; readonly output: Matrix } {
    const { width, config } = this;
    const layers = this.#layers;
    const lengths = pieces.map((ids) => Math.min(ids.length, config.longest));
    const rows = lengths.reduce((a, b) => a + b, 0);
    if (rows > passRows) throw new ArgumentError("pieces", `at most ${passRows} in a pass`, rows);
    const x: Matrix = { data: new Float32Array(rows * width), rows, columns: width };
    let at = 0;
    pieces.forEach((ids, token) => {
      for (let place = 0; place < lengths[token]!; place++, at++) {
        const projected = row(this.#projected, ids[place]!);
        const into = row(x, at);
        for (let i = 0; i < width; i++) into[i] = projected[i]! + this.#positions[place * width + i]!;
      }
    });
    layers.write(x, this.#x);
    this.#layerNorm(this.#norm, rows);
    for (const { query, key, value, mix, mixNorm, block } of this.#blocks) {
      layers.apply(query, this.#x, rows, this.#q);
      layers.apply(key, this.#x, rows, this.#k);
      layers.apply(value, this.#x, rows, this.#v);
      this.#attend(lengths);
      layers.apply(mix, this.#q, rows, this.#x, 1);
      this.#layerNorm(mixNorm, rows);
      this.#block(block, rows, false);
    }
    const states = layers.read(this.#x, rows, width);
    const first: Matrix = { data: new Float32Array(pieces.length * width), rows: pieces.length, columns: width };
    let start = 0;
    lengths.forEach((length, token) => {
      row(first, token).set(row(states, start));
      start += length;
    });
    const [input, output] = this.#heads.map(({ projector, linear, scaler }) => {
      layers.write(first, this.#x);
      this.#block(projector, first.rows, true);
      layers.apply(linear, this.#x, first.rows, this.#q);
      const result = layers.read(this.#q, first.rows, width);
      applyScaler(scaler, result);
      return result;
    });
    return { input: input!, output: output! };
  }

  /** x = LN(x + down(gelu(up(x)))), with another gelu around it in projectors. */
  #block({ up, down, norm }: Block, rows: number, projector: boolean): void {
    const layers = this.#layers;
    const { gelu, add } = layers.space.kernels;
    layers.apply(up, this.#x, rows, this.#inner);
    gelu(this.#inner, rows * stride(this.config.hiddenWidth));
    const count = rows * stride(this.width);
    layers.apply(down, this.#inner, rows, this.#k);
    if (projector) gelu(this.#k, count);
    add(this.#k, count, this.#x);
    this.#layerNorm(norm, rows);
  }

  #layerNorm({ weight, bias }: Norm, rows: number): void {
    const { kernels } = this.#layers.space;
    kernels.layerNorm(this.#x, stride(this.width), rows, this.width, weight, bias, hypernetworkEpsilon, this.#x);
  }

  /** q = softmax(q k^T / sqrt(headWidth)) v, token by token and head by head. */
  #attend(lengths: readonly number[]): void {
    const { floats } = this.#layers;
    const { width } = this;
    const wide = stride(width);
    const headWidth = width / this.config.heads;
    const scores = new Float64Array(this.config.longest ** 2);
    let firstRow = 0;
    for (const length of lengths) {
      for (let head = 0; head < width; head += headWidth) {
        const [q, k, v] = [this.#q, this.#k, this.#v].map((pointer) => pointer / 4 + firstRow * wide + head) as [
          number,
          number,
          number,
        ];
        for (let i = 0; i < length; i++) {
          let sum = 0;
          for (let j = 0; j < length; j++) {
            let score = 0;
            for (let c = 0; c < headWidth; c++) score += floats[q + i * wide + c]! * floats[k + j * wide + c]!;
            // The largest is not taken off: LayerNorm bounds what goes in, doubles hold e^700.
            scores[i * length + j] = Math.exp(score / Math.sqrt(headWidth));
            sum += scores[i * length + j]!;
          }
          for (let j = 0; j < length; j++) scores[i * length + j]! /= sum;
        }
        for (let i = 0; i < length; i++) {
          for (let c = 0; c < headWidth; c++) {
            let value = 0;
            for (let j = 0; j < length; j++) value += scores[i * length + j]! * floats[v + j * wide + c]!;
            floats[q + i * wide + c] = value;
          }
        }
      }
      firstRow += length;
    }
  }
}

/** An affine map per dimension. */
export interface Scaler {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
}

/** In place, row by row. */
function applyScaler({ weight, bias }: Scaler, { data, columns }: Matrix): void {
  for (let i = 0; i < data.length; i++) data[i] = data[i]! * weight[i % columns]! + bias[i % columns]!;
}

/** The model's embeddings as the network reads them, scaled: [vocabularySize, width], inputs beside outputs where untied. */
export function scaledSource({ input, output }: EmbeddingTables, { tied }: HypernetworkConfig, scaler: Scaler): Matrix {
  const { rows, columns: width } = input;
  const columns = tied ? width : 2 * width;
  const source: Matrix = { data: new Float32Array(rows * columns), rows, columns };
  for (let r = 0; r < rows; r++) {
    const into = row(source, r);
    into.set(row(input, r));
    if (!tied) into.set(row(output, r), width);
  }
  applyScaler(scaler, source);
  return source;
}

/** @throws ArgumentError on a config no network can have */
export function checkHypernetworkConfig(config: HypernetworkConfig): void {
  for (const field of ["width", "vocabularySize", "layers", "heads", "hiddenWidth", "longest"] as const) {
    if (!(Number.isSafeInteger(config[field]) && config[field] >= 1)) {
      throw new ArgumentError(`config.${field}`, "an integer >= 1", config[field]);
    }
  }
  if (config.width % config.heads !== 0) {
    throw new ArgumentError("config.heads", `a divisor of the width, ${config.width}`, config.heads);
  }
}

/** @throws ArgumentError when embeddings are another model's than the one the network is for */
export function requireTables({ input, output }: EmbeddingTables, config: HypernetworkConfig): void {
  for (const [name, { rows, columns }] of Object.entries({ input, output })) {
    if (rows !== config.vocabularySize || columns !== config.width) {
      const expected = `[${config.vocabularySize}, ${config.width}], as the hypernetwork was trained with`;
      throw new ArgumentError(`tables.${name}`, expected, [rows, columns], "The hypernetwork fits another model.");
    }
  }
  if ((input === output) !== config.tied) {
    throw new ArgumentError("tables", config.tied ? "one table for both" : "two tables", input === output ? 1 : 2);
  }
}
