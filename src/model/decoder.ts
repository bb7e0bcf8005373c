/**
 * The decoder: Llama's block as one differentiable definition, for training and for inference.
 *
 *     h = x + Attention(RMSNorm(x))        y = h + W_down (SiLU(W_gate RMSNorm(h)) * W_up RMSNorm(h))
 *
 * RMSNorm (arXiv 1910.07467), rotary positions (arXiv 2104.09864), grouped-query attention (arXiv 2305.13245), SwiGLU
 * (arXiv 2002.05202). This file is the mathematics on tensors; `decoder-session.ts` adds the cache and the contract,
 * `training.ts` the optimizer. Rows are tokens: every activation is [rows, width].
 *
 * **Deviations** from Hugging Face's Llama: none in value; linear weights are held as [in, out], so that no product
 * needs a transpose.
 */

import {
  add,
  gather,
  integers,
  matMul,
  multiply,
  reshape,
  rmsNorm,
  scale,
  silu,
  softmax,
  tensor,
  transpose,
} from "../tensor/ops.ts";
import type { Random } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tf.ts";
import { type DecoderConfig, parameterShapes, rotaryFrequencies } from "./decoder-config.ts";
import type { Weights } from "./weights.ts";

/** A decoder's parameters by Hugging Face's names, linear weights as [in, out]. */
export type Parameters = Readonly<Record<string, Tensor>>;

/** From a layer's rotated queries and keys and its values, each [rows, heads * headWidth], to [rows, heads * headWidth]. */
export type Attend = (layer: number, queries: Tensor, keys: Tensor, values: Tensor) => Tensor;

/** Rotary tables for a run of rows, tiled over the heads: each [rows * heads, headWidth]. */
interface RotaryTables {
  readonly cosines: Tensor;
  readonly sines: Tensor;
}

/** The rotation of a pass: tables for queries and keys, and the constant that swaps the halves of a head. */
export interface Rotation {
  readonly queries: RotaryTables;
  readonly keys: RotaryTables;
  /** [headWidth, headWidth]: (x1, x2) -> (-x2, x1) */
  readonly swap: Tensor;
}

/**
 * Tables that rotate row r to `positions[r]`. The halves of a head are the pairs, as in Hugging Face's Llama:
 * element i turns with element i + headWidth / 2 by the angle position * frequency i.
 */
export function rotationAt(config: DecoderConfig, positions: ArrayLike<number>): Rotation {
  const half = config.headWidth / 2;
  const frequencies = rotaryFrequencies(config);
  const tables = (heads: number): RotaryTables => {
    const size = positions.length * heads * config.headWidth;
    const cosines = new Float32Array(size);
    const sines = new Float32Array(size);
    for (let r = 0, at = 0; r < positions.length; r++) {
      for (let i = 0; i < half; i++) {
        const angle = positions[r]! * frequencies[i]!;
        cosines[at + i] = cosines[at + half + i] = Math.cos(angle);
        sines[at + i] = sines[at + half + i] = Math.sin(angle);
      }
      const next = at + heads * config.headWidth;
      for (let copy = at + config.headWidth; copy < next; copy += config.headWidth) {
        cosines.copyWithin(copy, at, at + config.headWidth);
        sines.copyWithin(copy, at, at + config.headWidth);
      }
      at = next;
    }
    const shape = [positions.length * heads, config.headWidth];
    return { cosines: tensor(cosines, shape), sines: tensor(sines, shape) };
  };
  const swap = new Float32Array(config.headWidth ** 2);
  for (let i = 0; i < half; i++) {
    swap[(i + half) * config.headWidth + i] = -1;
    swap[i * config.headWidth + i + half] = 1;
  }
  return {
    queries: tables(config.heads),
    keys: tables(config.keyValueHeads),
    swap: tensor(swap, [config.headWidth, config.headWidth]),
  };
}

/** x [rows, heads * headWidth] -> the same, each head rotated: x cos + swap(x) sin. */
function rotate(x: Tensor, tables: RotaryTables, swap: Tensor): Tensor {
  const heads = reshape(x, tables.cosines.shape); // [rows, heads * headWidth] -> [rows * heads, headWidth]
  return reshape(add(multiply(heads, tables.cosines), multiply(matMul(heads, swap), tables.sines)), x.shape);
}

/** Token ids -> [rows, width]. */
export function embed(parameters: Parameters, ids: Int32Array): Tensor {
  return gather(parameters["model.embed_tokens.weight"]!, integers(ids, [ids.length]));
}

/** One block: x [rows, width] -> [rows, width]. */
export function block(
  config: DecoderConfig,
  parameters: Parameters,
  layer: number,
  x: Tensor,
  rotation: Rotation,
  attend: Attend,
): Tensor {
  const of = (name: string): Tensor => parameters[`model.layers.${layer}.${name}`]!;
  const project = (input: Tensor, name: string): Tensor => {
    const product = matMul(input, of(`self_attn.${name}.weight`));
    return config.projectionBiases ? add(product, of(`self_attn.${name}.bias`)) : product;
  };

  const normed = rmsNorm(x, of("input_layernorm.weight"), config.normEpsilon);
  const queries = rotate(project(normed, "q_proj"), rotation.queries, rotation.swap); // -> [rows, heads * headWidth]
  const keys = rotate(project(normed, "k_proj"), rotation.keys, rotation.swap); // -> [rows, keyValueHeads * headWidth]
  const values = project(normed, "v_proj");
  const h = add(x, matMul(attend(layer, queries, keys, values), of("self_attn.o_proj.weight")));

  const inner = rmsNorm(h, of("post_attention_layernorm.weight"), config.normEpsilon);
  const gate = silu(matMul(inner, of("mlp.gate_proj.weight"))); // -> [rows, hiddenWidth]
  const up = matMul(inner, of("mlp.up_proj.weight"));
  return add(h, matMul(multiply(gate, up), of("mlp.down_proj.weight")));
}

/** The final norm: [rows, width] -> [rows, width]. */
export function finalNorm(config: DecoderConfig, parameters: Parameters, x: Tensor): Tensor {
  return rmsNorm(x, parameters["model.norm.weight"]!, config.normEpsilon);
}

/** The output head as [width, vocabularySize]: its own weight, or the embedding table transposed. */
export function outputHead(config: DecoderConfig, parameters: Parameters): Tensor {
  return config.tiedEmbeddings ? transpose(parameters["model.embed_tokens.weight"]!) : parameters["lm_head.weight"]!;
}

/** What a batch of equally long sequences shares: rotation and causal mask. Made once, used for many steps. */
export interface BatchConstants {
  readonly batch: number;
  readonly length: number;
  readonly rotation: Rotation;
  /** `[length, length]`: 0 on and below the diagonal, -1e9 above */
  readonly causalMask: Tensor;
}

export function batchConstants(config: DecoderConfig, batch: number, length: number): BatchConstants {
  const mask = new Float32Array(length * length);
  for (let q = 0; q < length; q++) mask.fill(-1e9, q * length + q + 1, (q + 1) * length);
  const positions = Array.from({ length: batch * length }, (_, r) => r % length);
  return { batch, length, rotation: rotationAt(config, positions), causalMask: tensor(mask, [length, length]) };
}

/**
 * Next-token logits for a whole batch, differentiable in the parameters: what training calls.
 * @param ids [batch * length], sequence after sequence
 * @returns [batch * length, vocabularySize]
 */
export function batchLogits(
  config: DecoderConfig,
  parameters: Parameters,
  ids: Int32Array,
  constants: BatchConstants,
): Tensor {
  const attend: Attend = (_, queries, keys, values) => causalAttention(config, queries, keys, values, constants);
  let x = embed(parameters, ids);
  for (let layer = 0; layer < config.layers; layer++) {
    x = block(config, parameters, layer, x, constants.rotation, attend);
  }
  return matMul(finalNorm(config, parameters, x), outputHead(config, parameters));
}

/** Causal attention over whole sequences, no cache. [batch * length, heads * headWidth] -> the same. */
function causalAttention(
  config: DecoderConfig,
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  { batch, length, causalMask }: BatchConstants,
): Tensor {
  const { heads, keyValueHeads, headWidth } = config;
  const group = heads / keyValueHeads;
  const pairs = batch * keyValueHeads;
  // The query heads that share a key head stand below each other: one product serves the group.
  const q = reshape(transpose(reshape(queries, [batch, length, heads, headWidth]), [0, 2, 1, 3]), [
    pairs,
    group * length,
    headWidth,
  ]);
  const k = reshape(transpose(reshape(keys, [batch, length, keyValueHeads, headWidth]), [0, 2, 3, 1]), [
    pairs,
    headWidth,
    length,
  ]);
  const v = reshape(transpose(reshape(values, [batch, length, keyValueHeads, headWidth]), [0, 2, 1, 3]), [
    pairs,
    length,
    headWidth,
  ]);
  const scores = reshape(matMul(scale(q, 1 / Math.sqrt(headWidth)), k), [pairs * group, length, length]);
  const attention = reshape(softmax(add(scores, causalMask)), [pairs, group * length, length]);
  const mixed = reshape(matMul(attention, v), [batch, heads, length, headWidth]);
  return reshape(transpose(mixed, [0, 2, 1, 3]), [batch * length, heads * headWidth]);
}

/** True for the parameters that are products' right sides and are held transposed against the checkpoint layout. */
export function isLinear(name: string): boolean {
  return name === "lm_head.weight" || name.includes("_proj.weight");
}

/** Checkpoint weights to parameters. The caller has checked names and shapes, and disposes the tensors. */
export function parametersFromWeights(weights: ReadonlyMap<string, Weights>): Record<string, Tensor> {
  const parameters: Record<string, Tensor> = {};
  for (const [name, weight] of weights) {
    parameters[name] = isLinear(name)
      ? tensor(transposed(weight.data, weight.shape[0]!, weight.shape[1]!), [weight.shape[1]!, weight.shape[0]!])
      : tensor(weight.data, weight.shape);
  }
  return parameters;
}

/** A row-major [rows, columns] matrix, transposed. */
export function transposed(data: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) result[c * rows + r] = data[r * columns + c]!;
  return result;
}

/**
 * Fresh weights in checkpoint layout: normal(0, 0.02), products that write into the residual stream smaller by
 * sqrt(2 layers) (GPT-2's rule), norms one, biases zero. Each parameter draws from its own fork of the stream.
 */
export function initialWeights(config: DecoderConfig, random: Random): Map<string, Weights> {
  const weights = new Map<string, Weights>();
  for (const [name, shape] of parameterShapes(config)) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    if (name.endsWith("norm.weight")) data.fill(1);
    else if (!name.endsWith(".bias")) {
      const residual = name.includes("o_proj") || name.includes("down_proj");
      const deviation = residual ? 0.02 / Math.sqrt(2 * config.layers) : 0.02;
      const stream = random.fork(name);
      for (let i = 0; i < data.length; i++) data[i] = deviation * stream.normal();
    }
    weights.set(name, { shape, data });
  }
  return weights;
}
