/**
 * A Llama-style decoder in plain TypeScript and float64, written from the formulas and for reading only: no cache, no
 * batch, complex numbers for the rotation. The oracle for every faster decoder.
 */
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import type { Weights } from "../../src/model/weights.ts";

/** Next-token logits after each id: [ids, vocabularySize]. */
export function decoderLogits(
  config: DecoderConfig,
  weights: ReadonlyMap<string, Weights>,
  ids: readonly number[],
): number[][] {
  const { width, headWidth, heads, keyValueHeads } = config;
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
        const angle = position / config.ropeTheta ** ((2 * i) / headWidth);
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
    stream = stream.map((x, t) => {
      const mixed: number[] = [];
      for (let head = 0; head < heads; head++) {
        const shared = Math.floor(head / (heads / keyValueHeads)) * headWidth;
        const query = queries[t]!.slice(head * headWidth, (head + 1) * headWidth);
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
      const attended = linear(mixed, `${prefix}.self_attn.o_proj`);
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
