/** Text to ids and back. Loads no tensor library. */

export { BERT_UNCASED, type BertNormalizer } from "./bert-normalizer.ts";
export { Bpe } from "./bpe.ts";
export type { BpeDefinition } from "./bpe-definition.ts";
export { BpeDropout, type BpeDropoutEncodeOptions } from "./bpe-dropout.ts";
export type { Merge, TieRule } from "./bpe-trainer.ts";
export type { BpeTrainingOptions } from "./bpe-training.ts";
export {
  type DynamicMerge,
  type DynamicMergingOptions,
  type MergeableTokenizer,
  type MergedBatch,
  type MergedRow,
  type MergingCost,
  mergeBatch,
  mergesForReduction,
  reductionOf,
} from "./dynamic-merging.ts";
export { readHuggingFaceTokenizer } from "./hugging-face.ts";
export type { HuggingFaceTokenizer } from "./hugging-face-format.ts";
export { type MergeBoundary, mergeBoundaries } from "./merge-boundaries.ts";
export { SentencePieceBpe, type SentencePieceEncodeOptions } from "./sentencepiece-bpe.ts";
export { type SplitPattern, type SplitPatternName, splitText } from "./split-patterns.ts";
export { StreamingDecoder } from "./streaming-decoder.ts";
export type { TiktokenOptions } from "./tiktoken-format.ts";
export type { EncodeOptions, EncodingWithOffsets, Tokenizer } from "./tokenizer.ts";
export type { Normalizer } from "./unicode-normalization.ts";
export { type ScoredEncoding, Unigram, type UnigramSampleOptions } from "./unigram.ts";
export type { PrefixSpace, UnigramDefinition } from "./unigram-definition.ts";
export type { UnigramTrainingOptions } from "./unigram-training.ts";
export { WordPiece } from "./word-piece.ts";
export type { WordPieceDefinition } from "./word-piece-definition.ts";
export type { WordPieceTrainingOptions } from "./word-piece-training.ts";
export type { WordSplit } from "./word-split.ts";
