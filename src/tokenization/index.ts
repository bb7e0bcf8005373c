/** Text to ids and back. Loads no tensor library. */

export { Bpe } from "./bpe.ts";
export type { BpeDefinition } from "./bpe-definition.ts";
export type { Merge, TieRule } from "./bpe-trainer.ts";
export type { BpeTrainingOptions } from "./bpe-training.ts";
export type { HuggingFaceTokenizer } from "./hugging-face-format.ts";
export { SentencePieceBpe, type SentencePieceEncodeOptions } from "./sentencepiece-bpe.ts";
export { type SplitPattern, type SplitPatternName, splitText } from "./split-patterns.ts";
export { StreamingDecoder } from "./streaming-decoder.ts";
export type { TiktokenOptions } from "./tiktoken-format.ts";
export type { EncodeOptions, EncodingWithOffsets, Tokenizer } from "./tokenizer.ts";
export type { Normalizer } from "./unicode-normalization.ts";
