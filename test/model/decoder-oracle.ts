/**
 * The decoders in plain TypeScript and float64, written from the formulas and for reading only: no cache, no batch,
 * complex numbers for the rotation. The oracle for every faster decoder.
 */
import type { DecoderConfig, RopeScaling } from "../../src/model/decoder-config.ts";
import type { Weights } from "../../src/model/weights.ts";

/** Next-token logits after each id: [ids, vocabularySize]. */
export function decoderLogits(
  config: DecoderConfig,
  weights: ReadonlyMap<string, Weights>,
  ids: readonly number[],
): number[][] {
  return config.architecture === "gpt2" ? gpt2Logits(config, weights, ids) : llamaLogits(config, weights, ids);
}

function llamaLogits(config: DecoderConfig, weights: ReadonlyMap<string, Weights>, ids: readonly number[]): number[][] {
  const { width, headWidth } = config;
  const of = (name: string) => weights.get(name)!.data;
  const linear = (x: readonly number[], name: string): number[] => {
    const data = of(`${name}.weight`);
    const bias = weights.get(`${name}.bias`)?.data;
    return Array.from({ length: data.length / x.length }, (_, o) =>
      x.reduce((sum, value, i) => sum + value * data[o * x.length + i]!, bias?.[o] ?? 0),
    );
  };
  const norm = (x: readonly number[], name: string): number[] => {
    const root = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + config.normEpsilon);
    return x.map((value, i) => (value / root) * of(name)[i]!);
  };
  const turn = (x: readonly number[], position: number): number[] => {
    const result = [...x];
    const half = headWidth / 2;
    for (let start = 0; start < x.length; start += headWidth) {
      for (let i = 0; i < half; i++) {
        const wavelength = 2 * Math.PI * config.ropeTheta ** ((2 * i) / headWidth);
        const angle = (2 * Math.PI * position) / stretched(wavelength, config.ropeScaling);
        const [re, im] = [x[start + i]!, x[start + i + half]!];
        result[start + i] = re * Math.cos(angle) - im * Math.sin(angle);
        result[start + i + half] = re * Math.sin(angle) + im * Math.cos(angle);
      }
    }
    return result;
  };

  let stream = ids.map((id) => [...of("model.embed_tokens.weight").subarray(id * width, (id + 1) * width)]);
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}`;
    const normed = stream.map((x) => norm(x, `${prefix}.input_layernorm.weight`));
    const queries = normed.map((x, t) => turn(linear(x, `${prefix}.self_attn.q_proj`), t));
    const keys = normed.map((x, t) => turn(linear(x, `${prefix}.self_attn.k_proj`), t));
    const values = normed.map((x) => linear(x, `${prefix}.self_attn.v_proj`));
    const mixed = attention(config, queries, keys, values);
    stream = stream.map((x, t) => {
      const attended = linear(mixed[t]!, `${prefix}.self_attn.o_proj`);
      const h = x.map((value, i) => value + attended[i]!);
      const inner = norm(h, `${prefix}.post_attention_layernorm.weight`);
      const gate = linear(inner, `${prefix}.mlp.gate_proj`);
      const up = linear(inner, `${prefix}.mlp.up_proj`);
      const down = linear(
        gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!),
        `${prefix}.mlp.down_proj`,
      );
      return h.map((value, i) => value + down[i]!);
    });
  }
  const head = config.tiedEmbeddings ? "model.embed_tokens" : "lm_head";
  return stream.map((x) => linear(norm(x, "model.norm.weight"), head));
}

/** A pair's wavelength in tokens, as the scaling makes it: long ones longer, short ones kept. */
function stretched(wavelength: number, scaling: RopeScaling | undefined): number {
  if (scaling === undefined) return wavelength;
  if (scaling.kind === "linear") return scaling.factor * wavelength;
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength: original } = scaling;
  if (wavelength < original / high) return wavelength;
  if (wavelength > original / low) return factor * wavelength;
  const smooth = (original / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / (factor * wavelength) + smooth / wavelength);
}

function gpt2Logits(config: DecoderConfig, weights: ReadonlyMap<string, Weights>, ids: readonly number[]): number[][] {
  const { width } = config;
  const of = (name: string) => weights.get(name)!.data;
  const linear = (x: readonly number[], name: string): number[] => {
    const data = of(`${name}.weight`);
    const bias = of(`${name}.bias`);
    return Array.from(bias, (b, o) => x.reduce((sum, value, i) => sum + value * data[i * bias.length + o]!, b));
  };
  const norm = (x: readonly number[], name: string): number[] => {
    const mean = x.reduce((a, b) => a + b, 0) / width;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    const root = Math.sqrt(variance + config.normEpsilon);
    return x.map((value, i) => ((value - mean) / root) * of(`${name}.weight`)[i]! + of(`${name}.bias`)[i]!);
  };
  const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

  const [tokens, places] = [of("transformer.wte.weight"), of("transformer.wpe.weight")];
  let stream = ids.map((id, t) =>
    Array.from({ length: width }, (_, i) => tokens[id * width + i]! + places[t * width + i]!),
  );
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `transformer.h.${layer}`;
    const fused = stream.map((x) => linear(norm(x, `${prefix}.ln_1`), `${prefix}.attn.c_attn`));
    const [queries, keys, values] = [0, 1, 2].map((i) => fused.map((x) => x.slice(i * width, (i + 1) * width)));
    const mixed = attention(config, queries!, keys!, values!);
    stream = stream.map((x, t) => {
      const attended = linear(mixed[t]!, `${prefix}.attn.c_proj`);
      const h = x.map((value, i) => value + attended[i]!);
      const inner = linear(norm(h, `${prefix}.ln_2`), `${prefix}.mlp.c_fc`).map(gelu);
      const down = linear(inner, `${prefix}.mlp.c_proj`);
      return h.map((value, i) => value + down[i]!);
    });
  }
  return stream.map((x) => {
    const last = norm(x, "transformer.ln_f");
    return Array.from({ length: config.vocabularySize }, (_, id) =>
      last.reduce((sum, value, i) => sum + value * tokens[id * width + i]!, 0),
    );
  });
}

/** Causal: row t mixes the values of rows 0 .. t. queries [rows, heads * headWidth] -> the same. */
function attention(
  { heads, keyValueHeads, headWidth }: DecoderConfig,
  queries: readonly number[][],
  keys: readonly number[][],
  values: readonly number[][],
): number[][] {
  return queries.map((row, t) => {
    const mixed: number[] = [];
    for (let head = 0; head < heads; head++) {
      const shared = Math.floor(head / (heads / keyValueHeads)) * headWidth;
      const query = row.slice(head * headWidth, (head + 1) * headWidth);
      const scores = keys
        .slice(0, t + 1)
        .map((key) => query.reduce((sum, value, i) => sum + value * key[shared + i]!, 0) / Math.sqrt(headWidth));
      const highest = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - highest));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let i = 0; i < headWidth; i++) {
        mixed.push(weights.reduce((sum, weight, s) => sum + (weight / total) * values[s]![shared + i]!, 0));
      }
    }
    return mixed;
  });
}
