import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, FileError, FormatError } from "../../src/errors.ts";
import { readCheckpoint, writeCheckpoint } from "../../src/model/checkpoint.ts";
import { type Checkpoint, parseCheckpoint, serializeCheckpoint } from "../../src/model/checkpoint-format.ts";
import { type DecoderConfig, parameterShapes } from "../../src/model/decoder-config.ts";
import { configFromHuggingFace, configToHuggingFace } from "../../src/model/hugging-face-config.ts";
import type { Weights } from "../../src/model/weights.ts";
import { Random } from "../../src/tensor/random.ts";
import { floatTensor, readSafetensors, writeSafetensors } from "../../src/tensor/safetensors.ts";
import { Bpe } from "../../src/tokenization/bpe.ts";

const tokenizer = Bpe.train(["the cat sat on the mat, the hat"], { vocabSize: 262, specialTokens: ["<|endoftext|>"] });

const config: DecoderConfig = {
  vocabularySize: 262,
  width: 8,
  layers: 2,
  heads: 2,
  keyValueHeads: 1,
  headWidth: 4,
  hiddenWidth: 12,
  contextLength: 32,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: true,
  projectionBiases: false,
};

function checkpoint(changed: Partial<DecoderConfig> = {}, seed = 1): Checkpoint {
  const full = { ...config, ...changed };
  const random = new Random(seed);
  const tensors = new Map<string, Weights>();
  for (const [name, shape] of parameterShapes(full)) {
    const length = shape.reduce((product, size) => product * size, 1);
    tensors.set(name, { shape, data: Float32Array.from({ length }, () => random.normal()) });
  }
  return { config: full, tensors, tokenizer, training: { steps: 3, curve: [[1, 2.5]] } };
}

const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const bytesOf = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

describe("config.json", () => {
  const fixture = async (name: string): Promise<unknown> =>
    JSON.parse(await readFile(new URL(`../fixtures/checkpoint/${name}-config.json`, import.meta.url), "utf8"));
  const shape = { vocabularySize: 300, width: 32, layers: 2, heads: 4, keyValueHeads: 2, headWidth: 8 };

  it("as transformers writes it", async () => {
    expect(configFromHuggingFace(await fixture("llama"))).toEqual({
      ...shape,
      hiddenWidth: 80,
      contextLength: 128,
      ropeTheta: 50_000,
      normEpsilon: 1e-5,
      tiedEmbeddings: true,
      projectionBiases: false,
    });
    expect(configFromHuggingFace(await fixture("qwen2"))).toMatchObject({
      ...shape,
      ropeTheta: 10_000,
      tiedEmbeddings: false,
      projectionBiases: true,
    });
    expect(configFromHuggingFace(await fixture("llama-scaled"))).toMatchObject({
      ...shape,
      ropeTheta: 10_000,
      ropeScaling: { kind: "linear", factor: 2 },
    });
    const sliding = await fixture("qwen2-sliding");
    expect(() => configFromHuggingFace(sliding)).toThrow(/use_sliding_window must be false, got true/);
  });

  it("defaults are those of transformers", () => {
    const least = { model_type: "llama", vocab_size: 9, hidden_size: 8, intermediate_size: 7 };
    expect(configFromHuggingFace({ ...least, num_hidden_layers: 1, num_attention_heads: 2 })).toEqual({
      vocabularySize: 9,
      width: 8,
      layers: 1,
      heads: 2,
      keyValueHeads: 2,
      headWidth: 4,
      hiddenWidth: 7,
      contextLength: 2048,
      ropeTheta: 10_000,
      normEpsilon: 1e-6,
      tiedEmbeddings: false,
      projectionBiases: false,
    });
  });

  it("rotary settings in both spellings of transformers", () => {
    const { rope_theta: _, rope_scaling: __, ...rest } = configToHuggingFace(config);
    const numbers = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 20 };
    const ropeScaling = {
      kind: "llama3",
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextLength: 20,
    };
    const four = { rope_theta: 5e5, rope_scaling: { rope_type: "llama3", ...numbers } };
    const five = { rope_parameters: { rope_type: "llama3", rope_theta: 5e5, ...numbers } };
    for (const rope of [four, five, { ...four, ...five }]) {
      expect(configFromHuggingFace({ ...rest, ...rope })).toEqual({ ...config, ropeTheta: 5e5, ropeScaling });
    }
    // The older name of the type, and the original context that transformers assumes.
    const { original_max_position_embeddings: ___, ...fewer } = numbers;
    expect(configFromHuggingFace({ ...rest, rope_scaling: { type: "llama3", ...fewer } }).ropeScaling).toEqual({
      ...ropeScaling,
      originalContextLength: config.contextLength,
    });
    const other = { rope_parameters: { ...five.rope_parameters, factor: 2 } };
    expect(() => configFromHuggingFace({ ...rest, ...four, ...other })).toThrow(
      /rope_scaling must be absent where there are other rope_parameters/,
    );
  });

  it("GPT-2, with the defaults of transformers", () => {
    const least = { model_type: "gpt2", vocab_size: 9, n_embd: 8, n_layer: 1, n_head: 2 };
    const read: DecoderConfig = {
      architecture: "gpt2",
      vocabularySize: 9,
      width: 8,
      layers: 1,
      heads: 2,
      keyValueHeads: 2,
      headWidth: 4,
      hiddenWidth: 32,
      contextLength: 1024,
      ropeTheta: 10_000,
      normEpsilon: 1e-5,
      tiedEmbeddings: true,
      projectionBiases: true,
    };
    expect(configFromHuggingFace(least)).toEqual(read);
    expect(configFromHuggingFace({ ...least, n_inner: null, n_ctx: 64, reorder_and_upcast_attn: true })).toEqual({
      ...read,
      contextLength: 64,
    });
    const written = configToHuggingFace({ ...read, hiddenWidth: 20, contextLength: 32, normEpsilon: 1e-6 });
    expect(written).toMatchObject({ model_type: "gpt2", n_inner: 20, n_positions: 32, layer_norm_epsilon: 1e-6 });
    expect(configFromHuggingFace(written)).toEqual({ ...read, hiddenWidth: 20, contextLength: 32, normEpsilon: 1e-6 });

    for (const [changed, message] of [
      [{ activation_function: "relu" }, /activation_function must be "gelu_new" or "gelu_pytorch_tanh", got "relu"/],
      [{ scale_attn_by_inverse_layer_idx: true }, /scale_attn_by_inverse_layer_idx must be false, got true/],
      [{ scale_attn_weights: false }, /scale_attn_weights must be true, got false/],
      [{ add_cross_attention: true }, /add_cross_attention must be false/],
      [{ tie_word_embeddings: false }, /tie_word_embeddings must be true/],
      [{ n_head: 3 }, /n_embd must be a multiple of n_head \(3\), got 8/],
      [{ n_layer: undefined }, /n_layer must be an integer from 1 to 1024, got nothing/],
      [{ n_positions: 2 ** 40 }, /n_positions/],
      [{ layer_norm_epsilon: 0 }, /layer_norm_epsilon must be a number > 0/],
      [{ n_inner: "32" }, /n_inner must be an integer/],
    ] as const) {
      expect(() => configFromHuggingFace({ ...least, ...changed })).toThrow(message);
    }
  });

  it("what is written is read", () => {
    const scaling = fc.oneof(
      fc.constant({}),
      fc.record({
        ropeScaling: fc.record({ kind: fc.constant("linear" as const), factor: fc.integer({ min: 1, max: 1e6 }) }),
      }),
      fc.record({
        ropeScaling: fc.record({
          kind: fc.constant("llama3" as const),
          factor: fc.double({ min: 1, max: 100, noNaN: true }),
          lowFrequencyFactor: fc.double({ min: 0.1, max: 2, noNaN: true }),
          highFrequencyFactor: fc.double({ min: 2.1, max: 9, noNaN: true }),
          originalContextLength: fc.integer({ min: 1, max: 1e6 }),
        }),
      }),
    );
    const some = fc.record({
      vocabularySize: fc.integer({ min: 1, max: 1e6 }),
      width: fc.integer({ min: 1, max: 1e4 }),
      layers: fc.integer({ min: 1, max: 1000 }),
      keyValueHeads: fc.integer({ min: 1, max: 30 }),
      groups: fc.integer({ min: 1, max: 30 }),
      half: fc.integer({ min: 1, max: 500 }),
      hiddenWidth: fc.integer({ min: 1, max: 1e5 }),
      contextLength: fc.integer({ min: 1, max: 1e6 }),
      ropeTheta: fc.double({ min: 1, max: 1e7, noNaN: true }),
      normEpsilon: fc.double({ min: 1e-12, max: 1e-2, noNaN: true }),
      tiedEmbeddings: fc.boolean(),
      projectionBiases: fc.boolean(),
    });
    fc.assert(
      fc.property(some, scaling, ({ groups, half, ...rest }, scaled) => {
        const made: DecoderConfig = { ...rest, ...scaled, heads: rest.keyValueHeads * groups, headWidth: 2 * half };
        const json: unknown = JSON.parse(JSON.stringify(configToHuggingFace(made)));
        expect(configFromHuggingFace(json)).toEqual(made);
      }),
    );
  });

  const good = configToHuggingFace(config);
  const bad: [changed: Record<string, unknown>, message: RegExp][] = [
    [{ model_type: "bert" }, /model_type must be "llama", "qwen2" or "gpt2", got "bert"\. This decoder does not/],
    [{ model_type: undefined }, /model_type must be .*, got nothing/],
    [{ hidden_act: "gelu" }, /hidden_act must be "silu", got "gelu"/],
    [{ rope_scaling: { type: "yarn", factor: 2 } }, /rope_scaling\.rope_type must be "default", "linear" or "llama3"/],
    [{ rope_scaling: { type: "linear", factor: 0.5 } }, /rope_scaling\.factor must be a number >= 1 .*, got 0\.5/],
    [{ rope_scaling: { type: "linear" } }, /rope_scaling\.factor must be a number .*, got nothing/],
    [
      { rope_scaling: { rope_type: "llama3", factor: 2, low_freq_factor: 4, high_freq_factor: 4 } },
      /rope_scaling\.high_freq_factor must be above low_freq_factor \(4\), got 4/,
    ],
    [
      { rope_parameters: { rope_type: "default", partial_rotary_factor: 0.5 } },
      /rope_parameters\.partial_rotary_factor/,
    ],
    [{ rope_parameters: { full_attention: { rope_type: "default" } } }, /rope_parameters\.rope_type .*, got nothing/],
    [{ rope_parameters: { rope_type: "default", rope_theta: "big" } }, /rope_parameters\.rope_theta must be a number/],
    [{ rope_scaling: 3 }, /rope_scaling must be an object or null/],
    [{ attention_bias: true }, /attention_bias must be false, got true/],
    [{ mlp_bias: true }, /mlp_bias/],
    [{ mlp_bias: "no" }, /mlp_bias must be true or false, got "no"/],
    [{ layer_types: ["sliding_attention"] }, /layer_types/],
    [{ quantization_config: { bits: 4 } }, /quantization_config must be absent/],
    [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor must be 1, got 0.5/],
    [{ vocab_size: undefined }, /vocab_size must be an integer from 1 to 16777216, got nothing/],
    [{ vocab_size: 0 }, /vocab_size/],
    [{ hidden_size: 8.5 }, /hidden_size must be an integer/],
    [{ hidden_size: "8" }, /hidden_size must be an integer .* got "8"/],
    [{ hidden_size: 1e300 }, /hidden_size must be an integer from 1 to/],
    [{ num_hidden_layers: 1e9 }, /num_hidden_layers must be an integer from 1 to 1024/],
    [{ num_hidden_layers: -1 }, /num_hidden_layers/],
    [{ intermediate_size: [12] }, /intermediate_size/],
    [{ num_key_value_heads: 3 }, /num_key_value_heads must be a divisor of num_attention_heads \(2\), got 3/],
    [{ head_dim: 3 }, /head_dim must be even/],
    [{ head_dim: undefined, hidden_size: 6 }, /head_dim must be even, as 3 is not, got nothing/],
    [{ head_dim: undefined, hidden_size: 9 }, /hidden_size must be a multiple of num_attention_heads/],
    [{ rope_theta: 0 }, /rope_theta must be a number > 0/],
    [{ rope_theta: "1e4" }, /rope_theta/],
    [{ rms_norm_eps: -1e-5 }, /rms_norm_eps/],
    [{ rms_norm_eps: 2 }, /rms_norm_eps must be a number > 0 and <= 1, got 2/],
    [{ tie_word_embeddings: 1 }, /tie_word_embeddings must be true or false, got 1/],
    [{ max_position_embeddings: 2 ** 40 }, /max_position_embeddings/],
  ];
  for (const [changed, message] of bad) {
    it(`refuses ${JSON.stringify(changed)}`, () => {
      const read = () => configFromHuggingFace({ ...good, ...changed }, "m/config.json");
      expect(read).toThrow(FormatError);
      expect(read).toThrow(message);
      expect(read).toThrow(/^m\/config\.json: /);
    });
  }

  it("refuses what is no object, and survives what is nested without end", () => {
    for (const value of [null, 3, "llama", [], undefined])
      expect(() => configFromHuggingFace(value)).toThrow(FormatError);
    const deep: unknown = JSON.parse("[".repeat(50_000) + "]".repeat(50_000));
    expect(() => configFromHuggingFace({ ...good, model_type: deep })).toThrow(/model_type.*nested too deep/);
  });

  it("an unusable config is not written", () => {
    expect(() => configToHuggingFace({ ...config, headWidth: 3 })).toThrow(ArgumentError);
  });
});

describe("a checkpoint as bytes", () => {
  for (const changed of [{}, { tiedEmbeddings: false }, { projectionBiases: true }]) {
    it(`F32 is read as it was written: ${JSON.stringify(changed)}`, () => {
      const written = checkpoint(changed);
      const files = serializeCheckpoint(written);
      expect([...files.keys()]).toEqual(["config.json", "tokenizer.json", "training.json", "model.safetensors"]);
      const read = parseCheckpoint(files);
      expect(read.config).toEqual(written.config);
      expect(read.training).toEqual(written.training);
      expect(new Map([...read.tensors].sort())).toEqual(new Map([...written.tensors].sort()));
      expect([...read.tokenizer.encode("the hat")]).toEqual([...tokenizer.encode("the hat")]);
      expect([...serializeCheckpoint(read)]).toEqual([...files]);
    });
  }

  for (const dtype of ["F16", "BF16"] as const) {
    it(`${dtype} is read rounded`, () => {
      const written = checkpoint();
      const files = serializeCheckpoint(written, { dtype });
      expect(readSafetensors(files.get("model.safetensors")!).tensors.get("model.norm.weight")!.dtype).toBe(dtype);
      expect(text(files.get("config.json"))).toContain(dtype === "F16" ? '"float16"' : '"bfloat16"');
      const bound = dtype === "F16" ? 2 ** -11 : 2 ** -8; // half a step, relative; normal draws stay above F16's subnormals
      for (const [name, { data }] of parseCheckpoint(files).tensors) {
        const exact = written.tensors.get(name)!.data;
        data.forEach((value, i) => {
          expect(Math.abs(value - exact[i]!)).toBeLessThanOrEqual(bound * Math.max(Math.abs(exact[i]!), 2 ** -14));
        });
      }
    });
  }

  it("without a training record there is no such file", () => {
    const { training: _, ...rest } = checkpoint();
    const files = serializeCheckpoint(rest);
    expect(files.has("training.json")).toBe(false);
    expect("training" in parseCheckpoint(files)).toBe(false);
  });

  it("the end of text is named for other tools", () => {
    const { eos_token_id: end } = JSON.parse(text(serializeCheckpoint(checkpoint()).get("config.json")));
    expect(end).toBe(tokenizer.specialTokens.get("<|endoftext|>"));
  });
});

describe("files that do not belong together, or are damaged", () => {
  const files = serializeCheckpoint(checkpoint());
  const read = (changed: Record<string, Uint8Array | undefined>) => {
    const all = new Map(files);
    for (const [name, bytes] of Object.entries(changed)) bytes === undefined ? all.delete(name) : all.set(name, bytes);
    return () => parseCheckpoint(all, "models/target");
  };
  const withConfig = (changed: Record<string, unknown>) =>
    read({ "config.json": bytesOf({ ...JSON.parse(text(files.get("config.json"))), ...changed }) });
  const withTensors = (change: (tensors: Map<string, Weights>) => void) => {
    const tensors = new Map(checkpoint().tensors);
    change(tensors);
    const stored = [...tensors].map(([name, { shape, data }]) => [name, floatTensor(shape, data)] as const);
    return read({ "model.safetensors": writeSafetensors(new Map(stored)) });
  };

  it("config against tensors", () => {
    expect(withConfig({ num_hidden_layers: 1 })).toThrow(
      /^models\/target\/model\.safetensors: the tensors are not those of the config: unexpected "model\.layers\.1\..* and 6 more\. Check the number of layers/,
    );
    expect(withConfig({ num_hidden_layers: 3 })).toThrow(
      /missing "model\.layers\.2\.input_layernorm\.weight",.* more\./,
    );
    expect(withConfig({ num_hidden_layers: 1000 })).toThrow(
      /the config has 1000 layers, but there are 20 tensors in all/,
    );
    expect(withConfig({ tie_word_embeddings: false })).toThrow(/missing "lm_head\.weight"\./);
    expect(withConfig({ model_type: "qwen2" })).toThrow(/missing "model\.layers\.0\.self_attn\.q_proj\.bias"/);
    expect(withConfig({ intermediate_size: 13 })).toThrow(
      /tensor "model\.layers\.0\.mlp\.gate_proj\.weight" has shape \[12, 8\], the config asks for \[13, 8\]/,
    );
    expect(withConfig({ hidden_size: 4 })).toThrow(/"model\.embed_tokens\.weight" has shape \[262, 8\]/);
  });

  it("names, shapes, values and dtypes of tensors", () => {
    expect(withTensors((tensors) => tensors.delete("model.norm.weight"))).toThrow(/missing "model\.norm\.weight"/);
    expect(withTensors((tensors) => tensors.set("extra", { shape: [0], data: new Float32Array(0) }))).toThrow(
      /unexpected "extra"\./,
    );
    const transposed = { shape: [8, 262], data: new Float32Array(8 * 262) };
    expect(withTensors((tensors) => tensors.set("model.embed_tokens.weight", transposed))).toThrow(/shape \[8, 262\]/);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const data = new Float32Array(8).fill(1);
      data[5] = value;
      expect(withTensors((tensors) => tensors.set("model.norm.weight", { shape: [8], data }))).toThrow(
        `tensor "model.norm.weight" holds ${value} at index 5`,
      );
    }
    const integers = writeSafetensors(new Map([["w", { dtype: "I32", shape: [1], data: new Int32Array(1) } as const]]));
    expect(read({ "model.safetensors": integers })).toThrow(/tensor "w" holds I32, weights are F32, F16 or BF16/);
    expect(read({ "model.safetensors": files.get("model.safetensors")!.subarray(0, -1) })).toThrow(FormatError);
  });

  it("tokenizer of another size", () => {
    const larger = Bpe.train(["the cat sat on the mat, the hat"], { vocabSize: 263 });
    expect(read({ "tokenizer.json": bytesOf(larger.toHuggingFace()) })).toThrow(
      /^models\/target\/tokenizer\.json: the tokenizer has 263 tokens, the model 262\. Use the tokenizer/,
    );
    expect(() => serializeCheckpoint({ ...checkpoint(), tokenizer: larger })).toThrow(/263 tokens, the model 262/);
    // Added tokens count: 261 in the vocabulary, and two added.
    const special = Bpe.train(["the cat sat on the mat"], { vocabSize: 263, specialTokens: ["<a>", "<b>"] });
    expect(read({ "tokenizer.json": bytesOf(special.toHuggingFace()) })).toThrow(/263 tokens, the model 262/);
    // A model whose embedding was filled up with ids that are no tokens.
    const smaller = Bpe.train(["the cat sat"], { vocabSize: 258 });
    expect(read({ "tokenizer.json": bytesOf(smaller.toHuggingFace()) })().tokenizer.vocabularySize).toBe(258);
    expect(parseCheckpoint(serializeCheckpoint({ ...checkpoint(), tokenizer: smaller })).config.vocabularySize).toBe(
      262,
    );
  });

  it("missing files and files that are not JSON", () => {
    for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
      expect(read({ [name]: undefined })).toThrow(`models/target/${name}: it is missing`);
    }
    for (const name of ["config.json", "tokenizer.json", "training.json"]) {
      expect(read({ [name]: new Uint8Array(0) })).toThrow(/not valid JSON/);
      expect(read({ [name]: new TextEncoder().encode('{"a":') })).toThrow(FormatError);
      expect(read({ [name]: new Uint8Array([0x22, 0xff, 0x22]) })).toThrow(/not valid UTF-8/);
    }
    for (const name of ["config.json", "tokenizer.json", "training.json"]) {
      const nested = `{"a":${"[".repeat(256)}${"]".repeat(256)}}`;
      expect(read({ [name]: new TextEncoder().encode(nested) })).toThrow(/nested deeper than 256 levels/);
    }
    for (const name of ["config.json", "tokenizer.json"]) {
      for (const value of [null, 1, "text", [], {}]) expect(read({ [name]: bytesOf(value) })).toThrow(FormatError);
    }
  });

  it("brackets inside strings do not nest", () => {
    const training = ["[".repeat(300), '\\"[{'.repeat(300)];
    expect(parseCheckpoint(serializeCheckpoint({ ...checkpoint(), training })).training).toEqual(training);
  });

  it("what would not be readable is not written", () => {
    const good = checkpoint();
    const broken = new Map(good.tensors);
    broken.set("model.norm.weight", { shape: [8], data: new Float32Array(8).fill(Number.NaN) });
    expect(() => serializeCheckpoint({ ...good, tensors: broken })).toThrow(
      /"model\.norm\.weight" holds NaN at index 0/,
    );
    broken.set("model.norm.weight", { shape: [8], data: new Float32Array(8).fill(70_000) });
    expect(() => serializeCheckpoint({ ...good, tensors: broken }, { dtype: "F16" })).toThrow(
      'tensors["model.norm.weight"][0]: expected a weight within F16\'s range, got 70000. Store the checkpoint as F32.',
    );
    expect(serializeCheckpoint({ ...good, tensors: broken }, { dtype: "BF16" }).size).toBe(4);
    broken.set("model.norm.weight", { shape: [8], data: new Float32Array(7) });
    expect(() => serializeCheckpoint({ ...good, tensors: broken })).toThrow(/of shape \[8\] holds 7 numbers/);
    broken.delete("model.norm.weight");
    expect(() => serializeCheckpoint({ ...good, tensors: broken })).toThrow(/missing/);
    const circular: Record<string, unknown> = {};
    circular["self"] = circular;
    const deep: unknown = JSON.parse("[".repeat(257) + "]".repeat(257));
    for (const training of [circular, 10n, () => 1, deep]) {
      expect(() => serializeCheckpoint({ ...good, training })).toThrow(/training: expected a JSON value/);
    }
  });
});

describe("a checkpoint folder", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tokenthrift-checkpoint-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("write, read, write another over it", async () => {
    const path = join(folder, "new", "model");
    await writeCheckpoint(path, checkpoint());
    expect((await readCheckpoint(path)).tensors.get("model.norm.weight")).toEqual(
      checkpoint().tensors.get("model.norm.weight"),
    );
    const { training: _, ...other } = checkpoint({ layers: 1 }, 2);
    await writeCheckpoint(path, other, { dtype: "BF16" });
    const read = await readCheckpoint(path);
    expect(read.config.layers).toBe(1);
    expect(read.training).toBeUndefined(); // the older one's record is gone with it
    expect((await readdir(path)).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
  });

  it("a write that fails leaves the old checkpoint as it was", async () => {
    const path = join(folder, "kept");
    await writeCheckpoint(path, checkpoint());
    const before = await contents(path);
    const broken = { ...checkpoint(), tensors: new Map() };
    await expect(writeCheckpoint(path, broken)).rejects.toThrow(FormatError);
    expect(await contents(path)).toEqual(before);

    // The weights' name is taken by a folder: refused at the last rename, and nothing is left beside.
    const blocked = join(folder, "blocked");
    await mkdir(join(blocked, "model.safetensors"), { recursive: true });
    await expect(writeCheckpoint(blocked, checkpoint())).rejects.toThrow(FileError);
    expect((await readdir(blocked)).filter((name) => name.endsWith(".tmp"))).toEqual([]);

    // The folder's name is taken by a file.
    const file = join(folder, "file");
    await writeFile(file, "kept");
    await expect(writeCheckpoint(file, checkpoint())).rejects.toThrow(/cannot be written/);
    expect(await readFile(file, "utf8")).toBe("kept");
  });

  it("a folder without a checkpoint", async () => {
    await expect(readCheckpoint(join(folder, "none"))).rejects.toThrow(/config\.json: cannot be read: no such file/);
  });
});

async function contents(folder: string): Promise<Record<string, string>> {
  const all: Record<string, string> = {};
  for (const name of await readdir(folder)) all[name] = (await readFile(join(folder, name))).toString("base64");
  return all;
}
