/** The shape of a Llama-style decoder: what its tensors must measure. */
import { ArgumentError } from "../errors.ts";

export interface DecoderConfig {
  readonly vocabularySize: number;
  /** Width of the residual stream. */
  readonly width: number;
  readonly layers: number;
  /** Query heads. */
  readonly heads: number;
  /** Heads of keys and values; divides `heads` (grouped-query attention, arXiv 2305.13245). */
  readonly keyValueHeads: number;
  /** Width of one head; even, since rotation works on pairs. */
  readonly headWidth: number;
  /** Inner width of the SwiGLU feed-forward part. */
  readonly hiddenWidth: number;
  /** Longest sequence. */
  readonly contextLength: number;
  /** Base of the rotary angles (RoPE, arXiv 2104.09864). */
  readonly ropeTheta: number;
  /** Added to the mean square under RMSNorm's root. */
  readonly normEpsilon: number;
  /** The output head is the embedding table, transposed. Default of the format: false. */
  readonly tiedEmbeddings: boolean;
  /** Biases on the query, key and value projections (as in Qwen2). */
  readonly projectionBiases: boolean;
}

/** @throws ArgumentError naming the first field that is not a usable number or contradicts another */
export function checkDecoderConfig(config: DecoderConfig): void {
  const counts = [
    "vocabularySize",
    "width",
    "layers",
    "heads",
    "keyValueHeads",
    "headWidth",
    "hiddenWidth",
    "contextLength",
  ] as const;
  for (const field of counts) {
    const value = config[field];
    if (!Number.isSafeInteger(value) || value < 1) throw new ArgumentError(`config.${field}`, "an integer >= 1", value);
  }
  for (const field of ["ropeTheta", "normEpsilon"] as const) {
    const value = config[field];
    if (!(Number.isFinite(value) && value > 0)) throw new ArgumentError(`config.${field}`, "a number > 0", value);
  }
  if (config.headWidth % 2 !== 0) throw new ArgumentError("config.headWidth", "an even number", config.headWidth);
  if (config.heads % config.keyValueHeads !== 0) {
    throw new ArgumentError("config.keyValueHeads", `a divisor of heads (${config.heads})`, config.keyValueHeads);
  }
}

/** Trainable numbers of a decoder of this shape. */
export function parameterCount(config: DecoderConfig): number {
  let count = 0;
  for (const shape of parameterShapes(config).values()) count += shape.reduce((a, b) => a * b, 1);
  return count;
}

/**
 * Every parameter's name and shape, by the names of Hugging Face's Llama. Linear weights are [out, in], as in that
 * layout.
 */
export function parameterShapes(config: DecoderConfig): Map<string, readonly number[]> {
  const { vocabularySize, width, hiddenWidth, headWidth } = config;
  const queryWidth = config.heads * headWidth;
  const keyWidth = config.keyValueHeads * headWidth;
  const shapes = new Map<string, readonly number[]>();
  shapes.set("model.embed_tokens.weight", [vocabularySize, width]);
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`;
    shapes.set(`${prefix}.input_layernorm.weight`, [width]);
    for (const [name, out] of [
      ["q_proj", queryWidth],
      ["k_proj", keyWidth],
      ["v_proj", keyWidth],
    ] as const) {
      shapes.set(`${prefix}.self_attn.${name}.weight`, [out, width]);
      if (config.projectionBiases) shapes.set(`${prefix}.self_attn.${name}.bias`, [out]);
    }
    shapes.set(`${prefix}.self_attn.o_proj.weight`, [width, queryWidth]);
    shapes.set(`${prefix}.post_attention_layernorm.weight`, [width]);
    shapes.set(`${prefix}.mlp.gate_proj.weight`, [hiddenWidth, width]);
    shapes.set(`${prefix}.mlp.up_proj.weight`, [hiddenWidth, width]);
    shapes.set(`${prefix}.mlp.down_proj.weight`, [width, hiddenWidth]);
  }
  shapes.set("model.norm.weight", [width]);
  if (!config.tiedEmbeddings) shapes.set("lm_head.weight", [vocabularySize, width]);
  return shapes;
}
