/**
 * A decoder's shape as Hugging Face's `config.json`, and back.
 *
 * Two of its model types are this decoder: `llama`, and `qwen2` when the query, key and value projections have biases
 * (Qwen2's output projection has none; Llama's `attention_bias` would add one, so it is refused).
 *
 * Fields that are absent take the defaults of `transformers`. Fields that would change the model's function in a way the
 * decoder does not know are errors; others (`use_cache`, token ids, versions) are ignored.
 */
import { FormatError } from "../errors.ts";
import type { FloatDtype } from "../tensor/safetensors.ts";
import { checkDecoderConfig, type DecoderConfig } from "./decoder-config.ts";

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
    rope_scaling: null,
    rms_norm_eps: config.normEpsilon,
    tie_word_embeddings: config.tiedEmbeddings,
    hidden_act: "silu",
    ...(config.projectionBiases ? { use_sliding_window: false } : { attention_bias: false, mlp_bias: false }),
    torch_dtype: dtypes[options.dtype ?? "F32"],
    bos_token_id: null,
    eos_token_id: options.endOfText ?? null,
  };
}

/** Upper bounds: beyond every published model of this kind, below what would make a damaged number expensive. */
const limits = {
  vocab_size: 2 ** 24,
  hidden_size: 2 ** 17,
  intermediate_size: 2 ** 20,
  num_hidden_layers: 1024,
  num_attention_heads: 2 ** 12,
  num_key_value_heads: 2 ** 12,
  head_dim: 2 ** 12,
  max_position_embeddings: 2 ** 27,
} as const;

/**
 * @param json parsed `config.json`
 * @param source what errors call it; default `"config.json"`
 * @throws FormatError when a field is missing, out of range or contradicts another, or when the model is not this decoder
 */
export function configFromHuggingFace(json: unknown, source = "config.json"): DecoderConfig {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new FormatError(source, "expected a JSON object");
  }
  const fields = json as Readonly<Record<string, unknown>>;
  // `null` is how transformers writes "not set".
  const get = (name: string): unknown => (Object.hasOwn(fields, name) ? (fields[name] ?? undefined) : undefined);
  const fail = (name: string, expected: string, advice?: string): never => {
    throw new FormatError(source, `${name} must be ${expected}, got ${shown(get(name))}`, advice);
  };
  const count = (name: keyof typeof limits, fallback?: number): number => {
    const value = get(name) ?? fallback;
    if (!Number.isSafeInteger(value) || (value as number) < 1 || (value as number) > limits[name]) {
      fail(name, `an integer from 1 to ${limits[name]}`);
    }
    return value as number;
  };
  const positive = (name: string, value: unknown, limit: number): number => {
    if (!(typeof value === "number" && value > 0 && value <= limit)) {
      throw new FormatError(source, `${name} must be a number > 0 and <= ${limit}, got ${shown(value)}`);
    }
    return value;
  };
  const flag = (name: string): boolean => {
    const value = get(name) ?? false;
    if (typeof value !== "boolean") fail(name, "true or false");
    return value as boolean;
  };
  const unsupported = "This decoder does not compute that.";

  const type = get("model_type");
  if (type !== "llama" && type !== "qwen2") fail("model_type", '"llama" or "qwen2"', unsupported);
  if ((get("hidden_act") ?? "silu") !== "silu") fail("hidden_act", '"silu"', unsupported);
  for (const name of ["attention_bias", "mlp_bias", "use_sliding_window"]) {
    if (flag(name)) fail(name, "false", unsupported);
  }
  if (get("quantization_config") !== undefined) fail("quantization_config", "absent", "Use the unquantized weights.");
  const layerTypes = get("layer_types") ?? [];
  if (!Array.isArray(layerTypes) || layerTypes.some((layerType) => layerType !== "full_attention")) {
    fail("layer_types", '"full_attention" for every layer', unsupported);
  }
  for (const name of ["rope_scaling", "rope_parameters"]) {
    const rope = get(name);
    if (rope === undefined) continue;
    if (typeof rope !== "object") fail(name, "an object or null");
    const kind = (rope as Record<string, unknown>)["rope_type"] ?? (rope as Record<string, unknown>)["type"];
    if (kind !== "default") fail(name, 'null or of rope_type "default"', unsupported);
  }
  if ((get("partial_rotary_factor") ?? 1) !== 1) fail("partial_rotary_factor", "1", unsupported);

  const width = count("hidden_size");
  const heads = count("num_attention_heads");
  const keyValueHeads = count("num_key_value_heads", heads);
  if (heads % keyValueHeads !== 0) fail("num_key_value_heads", `a divisor of num_attention_heads (${heads})`);
  if (get("head_dim") === undefined && width % heads !== 0) {
    fail("hidden_size", `a multiple of num_attention_heads (${heads}), or head_dim be given`);
  }
  const headWidth = count("head_dim", width / heads);
  if (headWidth % 2 !== 0) {
    throw new FormatError(source, `the width of a head must be even, got ${headWidth}`, "Rotation works on pairs.");
  }
  const ropeParameters = get("rope_parameters") as Record<string, unknown> | undefined; // transformers 5
  return {
    vocabularySize: count("vocab_size"),
    width,
    layers: count("num_hidden_layers"),
    heads,
    keyValueHeads,
    headWidth,
    hiddenWidth: count("intermediate_size"),
    contextLength: count("max_position_embeddings", type === "llama" ? 2048 : 32_768),
    ropeTheta: positive("rope_theta", ropeParameters?.["rope_theta"] ?? get("rope_theta") ?? 10_000, 1e12),
    normEpsilon: positive("rms_norm_eps", get("rms_norm_eps") ?? 1e-6, 1),
    tiedEmbeddings: flag("tie_word_embeddings"),
    projectionBiases: type === "qwen2",
  };
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
