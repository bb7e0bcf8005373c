/**
 * GPT-2's block (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): LayerNorm (arXiv
 * 1607.06450), full attention heads, GELU in its tanh form (arXiv 1606.08415), biases on everything.
 *
 *     x = wte[id] + wpe[position]        h = x + Attention(LN(x))        y = h + W_proj GELU(W_fc LN(h))
 *
 * **Unlike** `decoder-llama.ts`, positions enter once, as learned vectors added to the embeddings, and queries, keys and
 * values come from one product. **Deviations** from Hugging Face's GPT-2: no dropout.
 */
import { add, gather, gelu, integers, layerNorm, matMul, slice } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tf.ts";
import type { Attend, Parameters } from "./decoder-block.ts";
import type { DecoderConfig } from "./decoder-config.ts";

/** Token embeddings [rows, width] plus the learned vectors of their positions -> [rows, width]. */
export function addPositions(parameters: Parameters, x: Tensor, positions: ArrayLike<number>): Tensor {
  const ids = integers(Int32Array.from(positions), [positions.length]);
  return add(x, gather(parameters["transformer.wpe.weight"]!, ids));
}

/** Layer `layer`: x [rows, width] -> [rows, width]. */
export function gpt2Block(
  config: DecoderConfig,
  parameters: Parameters,
  layer: number,
  x: Tensor,
  attend: Attend,
): Tensor {
  const rows = x.shape[0]!;
  const name = `transformer.h.${layer}`;
  const project = (input: Tensor, part: string): Tensor => linear(parameters, `${name}.${part}`, input);

  const fused = project(gpt2Norm(config, parameters, `${name}.ln_1`, x), "attn.c_attn"); // -> [rows, 3 * width]
  const third = (i: number): Tensor => slice(fused, [0, i * config.width], [rows, config.width]);
  const mixed = attend(layer, third(0), third(1), third(2)); // -> [rows, width]
  const h = add(x, project(mixed, "attn.c_proj"));

  const inner = project(gpt2Norm(config, parameters, `${name}.ln_2`, h), "mlp.c_fc"); // -> [rows, hiddenWidth]
  return add(h, project(gelu(inner), "mlp.c_proj"));
}

/** LayerNorm by the parameters `name`: [rows, width] -> [rows, width]. */
export function gpt2Norm(config: DecoderConfig, parameters: Parameters, name: string, x: Tensor): Tensor {
  return layerNorm(x, parameters[`${name}.weight`]!, parameters[`${name}.bias`]!, config.normEpsilon);
}

/** [rows, in] -> [rows, out] */
function linear(parameters: Parameters, name: string, x: Tensor): Tensor {
  return add(matMul(x, parameters[`${name}.weight`]!), parameters[`${name}.bias`]!);
}
