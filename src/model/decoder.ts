/**
 * The decoder as one differentiable definition, for training and for inference: embedding, blocks, final norm, output
 * head. The blocks are Llama's (`decoder-llama.ts`) or GPT-2's (`decoder-gpt2.ts`), by the config's `architecture`.
 *
 * This file is the mathematics on tensors; `decoder-session.ts` adds the cache and the contract, `training.ts` the
 * optimizer. Rows are tokens: every activation is [rows, width].
 */

import { add, gather, integers, matMul, reshape, rmsNorm, scale, softmax, tensor, transpose } from "../tensor/ops.ts";
import type { Random } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tf.ts";
import type { Attend, Parameters } from "./decoder-block.ts";
import { type DecoderConfig, embeddingName, parameterShapes } from "./decoder-config.ts";
import { addPositions, gpt2Block, gpt2Norm } from "./decoder-gpt2.ts";
import { llamaBlock, type Rotation, rotationAt } from "./decoder-llama.ts";
import type { Weights } from "./weights.ts";

/** Where a pass's rows stand: their positions and, for a decoder that rotates its heads, the tables that do it. */
export interface Placement {
  readonly positions: ArrayLike<number>;
  readonly rotation?: Rotation;
}

export function placementAt(config: DecoderConfig, positions: ArrayLike<number>): Placement {
  return config.architecture === "gpt2" ? { positions } : { positions, rotation: rotationAt(config, positions) };
}

/** Token ids -> their rows of the embedding table, [rows, width]. */
export function embed(config: DecoderConfig, parameters: Parameters, ids: Int32Array): Tensor {
  return gather(parameters[embeddingName(config)]!, integers(ids, [ids.length]));
}

/** Token embeddings [rows, width] -> the first layer's input [rows, width]. */
export function firstInput(config: DecoderConfig, parameters: Parameters, x: Tensor, placement: Placement): Tensor {
  return config.architecture === "gpt2" ? addPositions(parameters, x, placement.positions) : x;
}

/** One block: x [rows, width] -> [rows, width]. */
export function block(
  config: DecoderConfig,
  parameters: Parameters,
  layer: number,
  x: Tensor,
  placement: Placement,
  attend: Attend,
): Tensor {
  return config.architecture === "gpt2"
    ? gpt2Block(config, parameters, layer, x, attend)
    : llamaBlock(config, parameters, layer, x, placement.rotation!, attend);
}

/** The final norm: [rows, width] -> [rows, width]. */
export function finalNorm(config: DecoderConfig, parameters: Parameters, x: Tensor): Tensor {
  return config.architecture === "gpt2"
    ? gpt2Norm(config, parameters, "transformer.ln_f", x)
    : rmsNorm(x, parameters["model.norm.weight"]!, config.normEpsilon);
}

/** The output head as [width, vocabularySize]: its own weight, or the embedding table transposed. */
export function outputHead(config: DecoderConfig, parameters: Parameters): Tensor {
  return config.tiedEmbeddings ? transpose(parameters[embeddingName(config)]!) : parameters["lm_head.weight"]!;
}

/** What a batch of equally long sequences shares: positions and causal mask. Made once, used for many steps. */
export interface BatchConstants {
  readonly batch: number;
  readonly length: number;
  readonly placement: Placement;
  /** `[length, length]`: 0 on and below the diagonal, -1e9 above */
  readonly causalMask: Tensor;
}

export function batchConstants(config: DecoderConfig, batch: number, length: number): BatchConstants {
  const mask = new Float32Array(length * length);
  for (let q = 0; q < length; q++) mask.fill(-1e9, q * length + q + 1, (q + 1) * length);
  const positions = Array.from({ length: batch * length }, (_, r) => r % length);
  return { batch, length, placement: placementAt(config, positions), causalMask: tensor(mask, [length, length]) };
}

/** Free the tensors of `batchConstants`. */
export function disposeConstants({ placement, causalMask }: BatchConstants): void {
  causalMask.dispose();
  if (placement.rotation === undefined) return;
  const { queries, keys, swap } = placement.rotation;
  for (const table of [queries.cosines, queries.sines, keys.cosines, keys.sines, swap]) table.dispose();
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
  const { placement } = constants;
  let x = firstInput(config, parameters, embed(config, parameters, ids), placement);
  for (let layer = 0; layer < config.layers; layer++) {
    x = block(config, parameters, layer, x, placement, attend);
  }
  return matMul(finalNorm(config, parameters, x), outputHead(config, parameters));
}

/** Causal attention over whole sequences, no cache. [batch * length, heads * headWidth] -> the same. */
export function causalAttention(
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

/**
 * True for the parameters held transposed against the checkpoint layout: Llama's linear weights, which are [out, in]
 * there and [in, out] here. GPT-2's are [in, out] in both.
 */
export function isTransposed(name: string): boolean {
  return name === "lm_head.weight" || (name.startsWith("model.layers.") && name.endsWith("_proj.weight"));
}

/** Weights in checkpoint layout to parameters as the functions above take them; copies. */
export function parameterLayout(weights: ReadonlyMap<string, Weights>): Map<string, Weights> {
  return new Map([...weights].map(([name, weight]) => [name, isTransposed(name) ? turned(weight) : copied(weight)]));
}

/** Parameters back to checkpoint layout; copies. Turning a matrix twice gives it back. */
export const storedLayout = parameterLayout;

function turned({ shape, data }: Weights): Weights {
  const [rows, columns] = shape as [number, number];
  return { shape: [columns, rows], data: transposed(data, rows, columns) };
}

function copied({ shape, data }: Weights): Weights {
  return { shape, data: data.slice() };
}

/** Checkpoint weights to parameters. The caller has checked names and shapes, and disposes the tensors. */
export function parametersFromWeights(weights: ReadonlyMap<string, Weights>): Record<string, Tensor> {
  const parameters: Record<string, Tensor> = {};
  for (const [name, { shape, data }] of parameterLayout(weights)) parameters[name] = tensor(data, shape);
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
    if (/(norm|ln_\w)\.weight$/.test(name)) data.fill(1);
    else if (!name.endsWith(".bias")) {
      const residual = /\.(o_proj|down_proj|c_proj)\./.test(name);
      const deviation = residual ? 0.02 / Math.sqrt(2 * config.layers) : 0.02;
      const stream = random.fork(name);
      for (let i = 0; i < data.length; i++) data[i] = deviation * stream.normal();
    }
    weights.set(name, { shape, data });
  }
  return weights;
}
