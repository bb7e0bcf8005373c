/** Small decoders of every kind, with weights that make mistakes visible. */
import { initialWeights } from "../../src/model/decoder.ts";
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import type { Weights } from "../../src/model/weights.ts";
import { Random } from "../../src/tensor/random.ts";

/** Free head, biases, grouped heads. */
export const config: DecoderConfig = {
  vocabularySize: 23,
  width: 12,
  layers: 3,
  heads: 6,
  keyValueHeads: 2,
  headWidth: 4,
  hiddenWidth: 20,
  contextLength: 24,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
  projectionBiases: true,
};
/** Tied head, no biases, a key head for each query head. */
export const tied: DecoderConfig = { ...config, tiedEmbeddings: true, projectionBiases: false, keyValueHeads: 6 };
/** With so short an original context the two pairs of a head fall on either side of the scaling's bounds. */
export const scaled: DecoderConfig = {
  ...config,
  ropeTheta: 100,
  ropeScaling: {
    kind: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContextLength: 16,
  },
};
export const gpt2: DecoderConfig = {
  ...config,
  architecture: "gpt2",
  heads: 3,
  keyValueHeads: 3,
  tiedEmbeddings: true,
};

/** Weights ten times the initial ones, and biases: at initial size every law is nearly uniform and hides mistakes. */
export function lively(shape: DecoderConfig, seed: number): Map<string, Weights> {
  const random = new Random(seed);
  const weights = initialWeights(shape, random);
  for (const [name, { data }] of weights) {
    if (name.endsWith(".bias")) for (let i = 0; i < data.length; i++) data[i] = random.normal();
    else
      for (let i = 0; i < data.length; i++) data[i]! *= /(norm|ln_.)\.weight$/.test(name) ? 0.5 + random.uniform() : 10;
  }
  return weights;
}
