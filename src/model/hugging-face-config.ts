/**
 * A decoder's shape as Hugging Face's `config.json`, and back.
 *
 * Three of its model types are this decoder: `llama`; `qwen2`, whose query, key and value projections have biases
 * (Qwen2's output projection has none; Llama's `attention_bias` would add one, so it is refused); and `gpt2`.
 *
 * Fields that are absent take the defaults of `transformers`. Fields that would change the model's function in a way the
 * decoder does not know are errors; others (`use_cache`, token ids, dropout, versions) are ignored. Rotary settings are
 * read as version 4 of the library writes them (`rope_theta`, `rope_scaling`) and as version 5 does (`rope_parameters`);
 * they are written as version 4 does, which both read.
 */
import { FormatError } from "../errors.ts";
import type { FloatDtype } from "../tensor/safetensors.ts";
import { checkDecoderConfig, type DecoderConfig, type RopeScaling } from "./decoder-config.ts";

/** What `configToHuggingFace` writes. */
export type HuggingFaceConfig = Readonly<Record<string, unknown>>;

export interface HuggingFaceConfigOptions {
  /** How the weights are stored. Default `"F32"`. */
  readonly dtype?: FloatDtype;
  /** Id of the token that ends a text; default none. */
  readonly endOfText?: number | undefined;
}

/**
 * @returns the fields of `config.json`, with which `transformers` opens the checkpoint
 * @throws ArgumentError when the config is not usable
 */
export function configToHuggingFace(config: DecoderConfig, options: HuggingFaceConfigOptions = {}): HuggingFaceConfig {
  checkDecoderConfig(config);
  const dtypes = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;
  return {
    ...(config.architecture === "gpt2" ? gpt2Fields(config) : llamaFields(config)),
    tie_word_embeddings: config.tiedEmbeddings,
    torch_dtype: dtypes[options.dtype ?? "F32"],
    bos_token_id: null,
    eos_token_id: options.endOfText ?? null,
  };
}

function llamaFields(config: DecoderConfig): HuggingFaceConfig {
  return {
    architectures: [config.projectionBiases ? "Qwen2ForCausalLM" : "LlamaForCausalLM"],
    model_type: config.projectionBiases ? "qwen2" : "llama",
    vocab_size: config.vocabularySize,
    hidden_size: config.width,
    intermediate_size: config.hiddenWidth,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.keyValueHeads,
    head_dim: config.headWidth,
    max_position_embeddings: config.contextLength,
    rope_theta: config.ropeTheta,
    rope_scaling: config.ropeScaling === undefined ? null : scalingFields(config.ropeScaling),
    rms_norm_eps: config.normEpsilon,
    hidden_act: "silu",
    ...(config.projectionBiases ? { use_sliding_window: false } : { attention_bias: false, mlp_bias: false }),
  };
}

function scalingFields(scaling: RopeScaling): HuggingFaceConfig {
  if (scaling.kind === "linear") return { rope_type: "linear", factor: scaling.factor };
  return {
    rope_type: "llama3",
    factor: scaling.factor,
    low_freq_factor: scaling.lowFrequencyFactor,
    high_freq_factor: scaling.highFrequencyFactor,
    original_max_position_embeddings: scaling.originalContextLength,
  };
}

function gpt2Fields(config: DecoderConfig): HuggingFaceConfig {
  return {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    vocab_size: config.vocabularySize,
    n_embd: config.width,
    n_inner: config.hiddenWidth,
    n_layer: config.layers,
    n_head: config.heads,
    n_positions: config.contextLength,
    layer_norm_epsilon: config.normEpsilon,
    activation_function: "gelu_new",
  };
}

/** Upper bounds: beyond every published model of this kind, below what would make a damaged number expensive. */
const limits = {
  vocab_size: 2 ** 24,
  hidden_size: 2 ** 17,
  n_embd: 2 ** 17,
  intermediate_size: 2 ** 20,
  n_inner: 2 ** 20,
  num_hidden_layers: 1024,
  n_layer: 1024,
  num_attention_heads: 2 ** 12,
  n_head: 2 ** 12,
  num_key_value_heads: 2 ** 12,
  head_dim: 2 ** 12,
  max_position_embeddings: 2 ** 27,
  n_positions: 2 ** 27,
  n_ctx: 2 ** 27,
  original_max_position_embeddings: 2 ** 27,
} as const;

const unsupported = "This decoder does not compute that.";

/**
 * @param json parsed `config.json`
 * @param source what errors call it; default `"config.json"`
 * @throws FormatError when a field is missing, out of range or contradicts another, or when the model is not this decoder
 */
export function configFromHuggingFace(json: unknown, source = "config.json"): DecoderConfig {
  if (!isRecord(json)) throw new FormatError(source, "expected a JSON object");
  const fields = new Fields(json, source);
  const type = fields.get("model_type");
  if (fields.get("quantization_config") !== undefined) {
    fields.fail("quantization_config", "absent", "Use the unquantized weights.");
  }
  if (type === "gpt2") return readGpt2(fields);
  if (type === "llama" || type === "qwen2") return readLlama(fields, type);
  return fields.fail("model_type", '"llama", "qwen2" or "gpt2"', unsupported);
}

function readLlama(fields: Fields, type: "llama" | "qwen2"): DecoderConfig {
  if ((fields.get("hidden_act") ?? "silu") !== "silu") fields.fail("hidden_act", '"silu"', unsupported);
  for (const name of ["attention_bias", "mlp_bias", "use_sliding_window"]) {
    if (fields.flag(name, false)) fields.fail(name, "false", unsupported);
  }
  const layerTypes = fields.get("layer_types") ?? [];
  if (!Array.isArray(layerTypes) || layerTypes.some((layerType) => layerType !== "full_attention")) {
    fields.fail("layer_types", '"full_attention" for every layer', unsupported);
  }

  const width = fields.count("hidden_size");
  const heads = fields.count("num_attention_heads");
  const keyValueHeads = fields.count("num_key_value_heads", heads);
  if (heads % keyValueHeads !== 0) fields.fail("num_key_value_heads", `a divisor of num_attention_heads (${heads})`);
  if (fields.get("head_dim") === undefined && width % heads !== 0) {
    fields.fail("hidden_size", `a multiple of num_attention_heads (${heads}), or head_dim be given`);
  }
  const headWidth = fields.count("head_dim", width / heads);
  if (headWidth % 2 !== 0) fields.fail("head_dim", `even, as ${headWidth} is not`, "Rotation works on pairs.");
  const contextLength = fields.count("max_position_embeddings", type === "llama" ? 2048 : 32_768);
  return {
    vocabularySize: fields.count("vocab_size"),
    width,
    layers: fields.count("num_hidden_layers"),
    heads,
    keyValueHeads,
    headWidth,
    hiddenWidth: fields.count("intermediate_size"),
    contextLength,
    ...readRotation(fields, contextLength),
    normEpsilon: fields.number("rms_norm_eps", "> 0", 1, 1e-6),
    tiedEmbeddings: fields.flag("tie_word_embeddings", false),
    projectionBiases: type === "qwen2",
  };
}

type Rotation = Pick<DecoderConfig, "ropeTheta" | "ropeScaling">;

/** From `rope_scaling` (transformers 4) or `rope_parameters` (5); where both are given they must agree. */
function readRotation(fields: Fields, contextLength: number): Rotation {
  if ((fields.get("partial_rotary_factor") ?? 1) !== 1) fields.fail("partial_rotary_factor", "1", unsupported);
  const parts = [fields.part("rope_scaling"), fields.part("rope_parameters")].filter((part) => part !== undefined);
  const ropeTheta = fields.number("rope_theta", "> 0", 1e12, 10_000);
  const [first, second] = parts.map((part) => readRotaryPart(part, ropeTheta, contextLength));
  if (first !== undefined && second !== undefined && JSON.stringify(first) !== JSON.stringify(second)) {
    fields.fail("rope_scaling", "absent where there are other rope_parameters", "Keep the one that is meant.");
  }
  return first ?? { ropeTheta };
}

function readRotaryPart(rope: Fields, outerTheta: number, contextLength: number): Rotation {
  if ((rope.get("partial_rotary_factor") ?? 1) !== 1) rope.fail("partial_rotary_factor", "1", unsupported);
  const ropeTheta = rope.number("rope_theta", "> 0", 1e12, outerTheta);
  const kind = rope.get("rope_type") ?? rope.get("type");
  if (kind === "default") return { ropeTheta };
  if (kind === "linear") return { ropeTheta, ropeScaling: { kind, factor: rope.number("factor", ">= 1", 1e6) } };
  if (kind !== "llama3") return rope.fail("rope_type", '"default", "linear" or "llama3"', unsupported);
  const ropeScaling = {
    kind,
    factor: rope.number("factor", ">= 1", 1e6),
    lowFrequencyFactor: rope.number("low_freq_factor", "> 0", 1e6),
    highFrequencyFactor: rope.number("high_freq_factor", "> 0", 1e6),
    originalContextLength: rope.count("original_max_position_embeddings", contextLength),
  } as const;
  if (ropeScaling.highFrequencyFactor <= ropeScaling.lowFrequencyFactor) {
    rope.fail("high_freq_factor", `above low_freq_factor (${ropeScaling.lowFrequencyFactor})`);
  }
  return { ropeTheta, ropeScaling };
}

function readGpt2(fields: Fields): DecoderConfig {
  const activation = fields.get("activation_function") ?? "gelu_new";
  if (activation !== "gelu_new" && activation !== "gelu_pytorch_tanh") {
    fields.fail("activation_function", '"gelu_new" or "gelu_pytorch_tanh"', unsupported);
  }
  for (const name of ["scale_attn_by_inverse_layer_idx", "add_cross_attention"]) {
    if (fields.flag(name, false)) fields.fail(name, "false", unsupported);
  }
  for (const name of ["scale_attn_weights", "tie_word_embeddings"]) {
    if (!fields.flag(name, true)) fields.fail(name, "true", unsupported);
  }
  const width = fields.count("n_embd");
  const heads = fields.count("n_head");
  if (width % heads !== 0) fields.fail("n_embd", `a multiple of n_head (${heads})`);
  return {
    architecture: "gpt2",
    vocabularySize: fields.count("vocab_size"),
    width,
    layers: fields.count("n_layer"),
    heads,
    keyValueHeads: heads,
    headWidth: width / heads,
    hiddenWidth: fields.count("n_inner", 4 * width),
    contextLength: fields.count("n_positions", fields.count("n_ctx", 1024)),
    ropeTheta: 10_000, // not used
    normEpsilon: fields.number("layer_norm_epsilon", "> 0", 1, 1e-5),
    tiedEmbeddings: true,
    projectionBiases: true,
  };
}

/** The members of a JSON object, each checked as it is read. */
class Fields {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #source: string;
  /** What stands before a member's name in messages. */
  readonly #owner: string;

  constructor(fields: Readonly<Record<string, unknown>>, source: string, owner = "") {
    this.#fields = fields;
    this.#source = source;
    this.#owner = owner;
  }

  /** A member's value; `null` is how transformers writes "not set". */
  get(name: string): unknown {
    return Object.hasOwn(this.#fields, name) ? (this.#fields[name] ?? undefined) : undefined;
  }

  fail(name: string, expected: string, advice?: string): never {
    throw new FormatError(
      this.#source,
      `${this.#owner}${name} must be ${expected}, got ${shown(this.get(name))}`,
      advice,
    );
  }

  count(name: keyof typeof limits, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 1 && value <= limits[name]) return value;
    return this.fail(name, `an integer from 1 to ${limits[name]}`);
  }

  number(name: string, least: "> 0" | ">= 1", most: number, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === "number" && (least === "> 0" ? value > 0 : value >= 1) && value <= most) return value;
    return this.fail(name, `a number ${least} and <= ${most}`);
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    return typeof value === "boolean" ? value : this.fail(name, "true or false");
  }

  /** A member that is an object itself; undefined where it is not set. */
  part(name: string): Fields | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    return isRecord(value)
      ? new Fields(value, this.#source, `${this.#owner}${name}.`)
      : this.fail(name, "an object or null");
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  let text: string;
  try {
    text = JSON.stringify(value);
  } catch {
    text = "a value nested too deep to show";
  }
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
