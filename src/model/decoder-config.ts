/** The shape of a decoder, Llama's or GPT-2's: what its tensors must measure. */
import { ArgumentError } from "../errors.ts";

export interface DecoderConfig {
  /**
   * Which block is computed. `"llama"`: RMSNorm, rotary positions, SwiGLU (Llama, Qwen2). `"gpt2"`: LayerNorm, learned
   * positions, GELU in its tanh form, biases everywhere; then heads = keyValueHeads = width / headWidth,
   * `projectionBiases` and `tiedEmbeddings` are true, and the rotary fields are not used. Default `"llama"`.
   */
  readonly architecture?: "llama" | "gpt2";
  readonly vocabularySize: number;
  /** Width of the residual stream. */
  readonly width: number;
  readonly layers: number;
  /** Query heads. */
  readonly heads: number;
  /** Heads of keys and values; divides `heads` (grouped-query attention, arXiv 2305.13245). */
  readonly keyValueHeads: number;
  /** Width of one head; even where heads are rotated, since rotation works on pairs. */
  readonly headWidth: number;
  /** Inner width of the feed-forward part. */
  readonly hiddenWidth: number;
  /** Longest sequence. */
  readonly contextLength: number;
  /** Base of the rotary angles (RoPE, arXiv 2104.09864). */
  readonly ropeTheta: number;
  /** How the rotary angles are changed for contexts longer than those first trained on. Default: not at all. */
  readonly ropeScaling?: RopeScaling;
  /** Added to the mean square under RMSNorm's root, or to the variance under LayerNorm's. */
  readonly normEpsilon: number;
  /** The output head is the embedding table, transposed. Default of the format: false. */
  readonly tiedEmbeddings: boolean;
  /** Biases on the query, key and value projections (as in Qwen2). */
  readonly projectionBiases: boolean;
}

/** Position interpolation (arXiv 2306.15595): every angle is divided by `factor`. */
export interface LinearRopeScaling {
  readonly kind: "linear";
  readonly factor: number;
}

/**
 * Llama 3.1's scaling (arXiv 2407.21783), by the number of turns a pair makes within the original context: with
 * `highFrequencyFactor` turns and more its angle stays, with `lowFrequencyFactor` and fewer it is divided by `factor`,
 * and between the two the divisor's inverse grows linearly in the turns.
 */
export interface Llama3RopeScaling {
  readonly kind: "llama3";
  /** At least 1; 8 in Llama 3.1. */
  readonly factor: number;
  /** 1 in Llama 3.1. */
  readonly lowFrequencyFactor: number;
  /** Above `lowFrequencyFactor`; 4 in Llama 3.1. */
  readonly highFrequencyFactor: number;
  /** Tokens; 8,192 in Llama 3.1. */
  readonly originalContextLength: number;
}

export type RopeScaling = LinearRopeScaling | Llama3RopeScaling;

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
  if (config.heads % config.keyValueHeads !== 0) {
    throw new ArgumentError("config.keyValueHeads", `a divisor of heads (${config.heads})`, config.keyValueHeads);
  }
  const { architecture = "llama" } = config;
  if (architecture === "gpt2") checkGpt2(config);
  else if (architecture === "llama") checkRotation(config);
  else throw new ArgumentError("config.architecture", '"llama" or "gpt2"', architecture);
}

/** GPT-2 leaves no choice in what some of the fields could say. */
function checkGpt2(config: DecoderConfig): void {
  const { heads, width } = config;
  const fixed = {
    headWidth: width / heads,
    keyValueHeads: heads,
    projectionBiases: true,
    tiedEmbeddings: true,
  } as const;
  for (const field of Object.keys(fixed) as (keyof typeof fixed)[]) {
    if (config[field] === fixed[field]) continue;
    const expected = `${fixed[field]}, as a GPT-2 of width ${width} with ${heads} heads has it`;
    throw new ArgumentError(`config.${field}`, expected, config[field]);
  }
  if (config.ropeScaling !== undefined) {
    throw new ArgumentError("config.ropeScaling", "nothing: GPT-2 rotates no heads", config.ropeScaling);
  }
}

function checkRotation({ headWidth, ropeScaling }: DecoderConfig): void {
  if (headWidth % 2 !== 0) throw new ArgumentError("config.headWidth", "an even number", headWidth);
  if (ropeScaling !== undefined) checkRopeScaling(ropeScaling);
}

function checkRopeScaling(scaling: RopeScaling): void {
  const require = (field: string, good: boolean, expected: string): void => {
    const got = (scaling as unknown as Readonly<Record<string, unknown>>)[field];
    if (!good) throw new ArgumentError(`config.ropeScaling.${field}`, expected, got);
  };
  require("kind", scaling.kind === "linear" || scaling.kind === "llama3", '"linear" or "llama3"');
  require("factor", Number.isFinite(scaling.factor) && scaling.factor >= 1, "a number >= 1");
  if (scaling.kind === "linear") return;
  const { lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength: original } = scaling;
  require("lowFrequencyFactor", Number.isFinite(low) && low > 0, "a number > 0");
  require("highFrequencyFactor", Number.isFinite(high) && high > low, `a number above lowFrequencyFactor (${low})`);
  require("originalContextLength", Number.isSafeInteger(original) && original >= 1, "an integer >= 1");
}

/**
 * The angle by which each pair of a rotated head turns from one position to the next: pair i, elements i and
 * i + headWidth / 2, by theta^(-2i / headWidth), scaled as the config says.
 *
 * Worked example: heads 4 wide, theta 100: [1, 0.1]; with linear scaling by 2: [0.5, 0.05].
 * @returns [headWidth / 2], radians
 * @throws ArgumentError for a GPT-2, whose heads are not rotated
 */
export function rotaryFrequencies(config: DecoderConfig): Float64Array {
  if (config.architecture === "gpt2") {
    throw new ArgumentError("config.architecture", "one whose heads are rotated", config.architecture);
  }
  const { headWidth, ropeTheta, ropeScaling } = config;
  return Float64Array.from({ length: headWidth / 2 }, (_, i) => {
    const frequency = ropeTheta ** ((-2 * i) / headWidth);
    return ropeScaling === undefined ? frequency : frequency * frequencyScale(ropeScaling, frequency);
  });
}

/** What a scaling multiplies a frequency (radians per position) with: from 1 / factor to 1. */
function frequencyScale(scaling: RopeScaling, frequency: number): number {
  if (scaling.kind === "linear") return 1 / scaling.factor;
  const { factor, lowFrequencyFactor, highFrequencyFactor, originalContextLength } = scaling;
  const turns = (originalContextLength * frequency) / (2 * Math.PI);
  const kept = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
  const share = Math.min(1, Math.max(0, kept));
  return share + (1 - share) / factor;
}

/** Multiply-adds of one layer's linear products for one row: what `Cost` counts beside attention and the output head. */
export function linearMultiplyAdds(config: DecoderConfig): number {
  const { width, heads, keyValueHeads, headWidth, hiddenWidth } = config;
  const feedForward = config.architecture === "gpt2" ? 2 : 3; // up and down; gate, up and down
  return 2 * width * (heads + keyValueHeads) * headWidth + feedForward * width * hiddenWidth;
}

/** Trainable numbers of a decoder of this shape. */
export function parameterCount(config: DecoderConfig): number {
  let count = 0;
  for (const shape of parameterShapes(config).values()) count += shape.reduce((a, b) => a * b, 1);
  return count;
}

/**
 * Every parameter's name and shape, by the names of Hugging Face's checkpoints. Linear weights are [out, in] for Llama
 * and [in, out] for GPT-2, as in those.
 */
export function parameterShapes(config: DecoderConfig): Map<string, readonly number[]> {
  return config.architecture === "gpt2" ? gpt2Shapes(config) : llamaShapes(config);
}

/** The parameter that is the embedding table, [vocabularySize, width]. */
export function embeddingName(config: DecoderConfig): string {
  return config.architecture === "gpt2" ? "transformer.wte.weight" : "model.embed_tokens.weight";
}

function llamaShapes(config: DecoderConfig): Map<string, readonly number[]> {
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

function gpt2Shapes(config: DecoderConfig): Map<string, readonly number[]> {
  const { vocabularySize, contextLength, width, hiddenWidth } = config;
  const shapes = new Map<string, readonly number[]>();
  const norm = (name: string): void => {
    shapes.set(`${name}.weight`, [width]).set(`${name}.bias`, [width]);
  };
  const linear = (name: string, input: number, output: number): void => {
    shapes.set(`${name}.weight`, [input, output]).set(`${name}.bias`, [output]);
  };
  shapes.set("transformer.wte.weight", [vocabularySize, width]);
  shapes.set("transformer.wpe.weight", [contextLength, width]);
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `transformer.h.${layer}`;
    norm(`${prefix}.ln_1`);
    linear(`${prefix}.attn.c_attn`, width, 3 * width); // queries, keys, values beside each other
    linear(`${prefix}.attn.c_proj`, width, width);
    norm(`${prefix}.ln_2`);
    linear(`${prefix}.mlp.c_fc`, width, hiddenWidth);
    linear(`${prefix}.mlp.c_proj`, hiddenWidth, width);
  }
  norm("transformer.ln_f");
  return shapes;
}
