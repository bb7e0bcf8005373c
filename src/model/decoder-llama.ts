/**
 * Llama's block (arXiv 2302.13971): RMSNorm (arXiv 1910.07467), rotary positions (arXiv 2104.09864), grouped-query
 * attention (arXiv 2305.13245), SwiGLU (arXiv 2002.05202). With biases on queries, keys and values it is Qwen2's.
 *
 *     h = x + Attention(RMSNorm(x))        y = h + W_down (SiLU(W_gate RMSNorm(h)) * W_up RMSNorm(h))
 *
 * **Unlike** `decoder-gpt2.ts`, positions enter in every layer, as angles by which the heads are turned.
 * **Deviations** from Hugging Face's Llama: none in value; linear weights are held as [in, out], so that no product
 * needs a transpose.
 */
import { add, matMul, multiply, reshape, rmsNorm, silu, tensor } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tf.ts";
import type { Attend, Parameters } from "./decoder-block.ts";
import { type DecoderConfig, rotaryFrequencies } from "./decoder-config.ts";

/** Rotary tables for a run of rows, tiled over the heads: each [rows * heads, headWidth]. */
export interface RotaryTables {
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
export function rotate(x: Tensor, tables: RotaryTables, swap: Tensor): Tensor {
  const heads = reshape(x, tables.cosines.shape); // [rows, heads * headWidth] -> [rows * heads, headWidth]
  return reshape(add(multiply(heads, tables.cosines), multiply(matMul(heads, swap), tables.sines)), x.shape);
}

/** Layer `layer`: x [rows, width] -> [rows, width]. */
export function llamaBlock(
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
