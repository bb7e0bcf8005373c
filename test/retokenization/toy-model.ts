/** A tiny byte-level model with a tokenizer of its own, and other tokenizers of the same text. */
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import { Bpe } from "../../src/tokenization/bpe.ts";
import { tinyConfig, tinyWeights } from "../speculative/tiny-target.ts";

export const endOfText = "<|endoftext|>";
export const toyText = Array.from(
  { length: 60 },
  (_, i) => `const low${i % 7} = lower(new${(i * 5) % 11}, wider); // the newest, the lowest of ${i}\n`,
).join("");

const train = (vocabSize: number) => Bpe.train([toyText], { vocabSize, pattern: "cl100k", specialTokens: [endOfText] });
export const toyTokenizer = train(277);
export const longerTokenizer = train(310);
export const toyConfig: DecoderConfig = {
  ...tinyConfig,
  vocabularySize: toyTokenizer.vocabularySize,
  contextLength: 64,
};
export const toyWeights = tinyWeights(toyConfig);
