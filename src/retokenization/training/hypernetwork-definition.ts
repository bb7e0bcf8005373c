/**
 * The hypernetwork as one differentiable definition: what it is trained by, and what the running one is held against. See
 * `hypernetwork.ts` for the mathematics.
 */

import type { Matrix } from "../../model/language-model.ts";
import type { Weights } from "../../model/weights.ts";
import { add, gather, gelu, integers, layerNorm, matMul, multiply, tensor, transpose } from "../../tensor/ops.ts";
import type { Random } from "../../tensor/random.ts";
import { segmentAttention } from "../../tensor/segment-attention.ts";
import type { Tensor } from "../../tensor/tf.ts";
import { columnStatistics, type EmbeddingTables } from "../embedding-predictor.ts";
import {
  checkHypernetworkConfig,
  type HypernetworkConfig,
  hypernetworkEpsilon,
  hypernetworkShapes,
  predicted,
  requireTables,
  type Scaler,
  scaledSource,
} from "../hypernetwork.ts";

type Parameters = Readonly<Record<string, Tensor>>;

/** The scaler of the source embeddings: to mean 0 and deviation 1 in every dimension. */
export function sourceScaler(tables: EmbeddingTables, config: HypernetworkConfig): Scaler {
  const width = config.tied ? config.width : 2 * config.width;
  const plain = { weight: new Float32Array(width).fill(1), bias: new Float32Array(width) };
  return scalerBetween(scaledSource(tables, config, plain), {
    means: new Float64Array(width),
    deviations: new Float64Array(width).fill(1),
  });
}

/** The affine map that gives a matrix's columns other means and deviations. */
export function scalerBetween(from: Matrix, to: ReturnType<typeof columnStatistics>): Scaler {
  const { means, deviations } = columnStatistics(from);
  const weight = Float32Array.from(to.deviations, (deviation, i) => deviation / Math.max(deviations[i]!, 1e-12));
  return { weight, bias: Float32Array.from(to.means, (mean, i) => mean - weight[i]! * means[i]!) };
}

/** The network over one model's embeddings. Close it. */
export class HypernetworkDefinition {
  readonly config: HypernetworkConfig;
  /** The model's embeddings as the network reads them, [vocabularySize, width or twice that]. */
  readonly #source: Tensor;
  readonly #scalers: Readonly<Record<(typeof predicted)[number], Record<"weight" | "bias", Tensor>>>;

  /** Not to be called within a `tidy`: it makes what lasts. */
  constructor(tables: EmbeddingTables, config: HypernetworkConfig, scalers: Readonly<Record<string, Scaler>>) {
    checkHypernetworkConfig(config);
    requireTables(tables, config);
    this.config = config;
    const { data, rows, columns } = scaledSource(tables, config, scalers["source"]!);
    this.#source = tensor(data, [rows, columns]);
    const constants = ({ weight, bias }: Scaler) => ({
      weight: tensor(weight, [config.width]),
      bias: tensor(bias, [config.width]),
    });
    this.#scalers = { input: constants(scalers["input"]!), output: constants(scalers["output"]!) };
  }

  /**
   * @param pieces at least one id each; those after `config.longest` are not looked at
   * @returns what is added to the mean of the pieces, [pieces.length, width] each, of single pieces too
   */
  run(
    parameters: Parameters,
    pieces: readonly ArrayLike<number>[],
  ): { readonly input: Tensor; readonly output: Tensor } {
    const { layers, heads, longest } = this.config;
    const lengths = pieces.map((ids) => Math.min(ids.length, longest));
    const rows = lengths.reduce((a, b) => a + b, 0);
    const ids = new Int32Array(rows);
    const places = new Int32Array(rows);
    const firsts = new Int32Array(pieces.length);
    let at = 0;
    pieces.forEach((piece, token) => {
      firsts[token] = at;
      for (let place = 0; place < lengths[token]!; place++, at++) {
        ids[at] = piece[place]!;
        places[at] = place;
      }
    });

    // What pieces are alone does not depend on their token: once for the whole vocabulary.
    const projected = projector(parameters, "source.projector", linear(parameters, "source", this.#source));
    const positions = gather(parameters["positions"]!, integers(places, [rows]));
    let x = norm(parameters, "norm", add(gather(projected, integers(ids, [rows])), positions));
    for (let layer = 0; layer < layers; layer++) {
      const of = (name: string): Tensor => linear(parameters, `layers.${layer}.${name}`, x);
      const mixed = segmentAttention(of("query"), of("key"), of("value"), lengths, heads);
      x = norm(parameters, `layers.${layer}.mix.norm`, add(x, linear(parameters, `layers.${layer}.mix`, mixed)));
      const inner = gelu(linear(parameters, `layers.${layer}.up`, x));
      x = norm(parameters, `layers.${layer}.norm`, add(x, linear(parameters, `layers.${layer}.down`, inner)));
    }
    const first = gather(x, integers(firsts, [pieces.length]));
    const [input, output] = predicted.map((name) => {
      const { weight, bias } = this.#scalers[name];
      return add(multiply(linear(parameters, name, projector(parameters, `${name}.projector`, first)), weight), bias);
    });
    return { input: input!, output: output! };
  }

  close(): void {
    this.#source.dispose();
    for (const { weight, bias } of Object.values(this.#scalers)) {
      weight.dispose();
      bias.dispose();
    }
  }
}

function linear(parameters: Parameters, name: string, x: Tensor): Tensor {
  return add(matMul(x, transpose(parameters[`${name}.weight`]!)), parameters[`${name}.bias`]!);
}

function norm(parameters: Parameters, name: string, x: Tensor): Tensor {
  return layerNorm(x, parameters[`${name}.weight`]!, parameters[`${name}.bias`]!, hypernetworkEpsilon);
}

function projector(parameters: Parameters, name: string, x: Tensor): Tensor {
  const inner = gelu(linear(parameters, `${name}.up`, x));
  return norm(parameters, `${name}.norm`, add(x, gelu(linear(parameters, `${name}.down`, inner))));
}

/**
 * Weights to begin with: matrices normal(0, 0.02), the source's with the identity added, those of the corrections zero, so
 * that a network that has learned nothing yet says the mean of the pieces; norms one; biases zero. And the scalers, which
 * stay: of the source's embeddings, and for corrections in units of the embeddings' deviations.
 */
export function initialHypernetwork(
  tables: EmbeddingTables,
  config: HypernetworkConfig,
  random: Random,
): { readonly weights: Map<string, Weights>; readonly scalers: Map<string, Weights> } {
  const weights = new Map<string, Weights>();
  for (const [name, shape] of hypernetworkShapes(config)) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    if (name.endsWith("norm.weight")) data.fill(1);
    else if (shape.length === 2 && name !== "input.weight" && name !== "output.weight") {
      const stream = random.fork(name);
      for (let i = 0; i < data.length; i++) data[i] = 0.02 * stream.normal();
      if (name === "source.weight") for (let i = 0; i < config.width; i++) data[i * shape[1]! + i]! += 1;
    }
    weights.set(name, { shape, data });
  }
  const scalers = new Map<string, Weights>();
  const put = (name: string, { weight, bias }: Scaler): void => {
    scalers.set(`scalers.${name}.weight`, { shape: [weight.length], data: weight });
    scalers.set(`scalers.${name}.bias`, { shape: [bias.length], data: bias });
  };
  put("source", sourceScaler(tables, config));
  for (const name of predicted) {
    const { deviations } = columnStatistics(tables[name]);
    put(name, { weight: Float32Array.from(deviations), bias: new Float32Array(config.width) });
  }
  return { weights, scalers };
}

/** Scalers by what they scale, from stored weights. */
export function scalersOf(weights: ReadonlyMap<string, Weights>): Record<"source" | "input" | "output", Scaler> {
  const of = (name: string): Scaler => ({
    weight: weights.get(`scalers.${name}.weight`)!.data,
    bias: weights.get(`scalers.${name}.bias`)!.data,
  });
  return { source: of("source"), input: of("input"), output: of("output") };
}
