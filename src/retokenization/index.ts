/** Other tokens than a model was trained on: embeddings predicted for them, and the model run over them. */

export {
  addByteCosts,
  BYTE_OUTCOMES,
  type ByteCost,
  type ByteGeneration,
  type ByteGenerationOptions,
  type ByteModel,
  type ByteSession,
  byteEnsemble,
  byteLogProbability,
  END_OF_TEXT,
  generateBytes,
} from "./byte-model.ts";
export { EmbeddingCache, type EmbeddingCacheStatistics } from "./embedding-cache.ts";
export {
  type EmbeddingPredictor,
  type EmbeddingTables,
  embeddingTables,
  lastPiece,
  meanOfPieces,
  randomEmbeddings,
} from "./embedding-predictor.ts";
export { type EncodingRules, type EncodingState, encodingRules } from "./encoding-rules.ts";
export {
  type ByteOptions,
  ByteSampler,
  type Cover,
  coverEncodings,
  exactBytes,
} from "./exact-byte-probabilities.ts";
export { HnswIndex, type HnswOptions } from "./hnsw.ts";
export { Hypernetwork, type HypernetworkConfig, hypernetworkConfig } from "./hypernetwork.ts";
export { type LargeVocabularyOptions, largeVocabulary } from "./large-vocabulary.ts";
export { type LoadedHypernetwork, type LoadHypernetworkOptions, loadHypernetwork } from "./load-hypernetwork.ts";
export {
  continueGreedily,
  type MergedPrefillMeasurement,
  type MergedPrefillOptions,
  type MergedPrefix,
  measureMergedPrefill,
  mergedEmbeddings,
  prefillMerged,
} from "./merged-prefill.ts";
export { exactNeighbours, type NeighbourIndex, type Neighbours, recall } from "./nearest-neighbours.ts";
export { allEncodings, naivePrompt, type PromptRule, tokenHealing } from "./prompt-rules.ts";
export { longestSurfaceForm, SurfaceForms } from "./surface-forms.ts";
export {
  type BiasFigures,
  type ContinuationFigures,
  type ContinuationName,
  continuations,
  measureTokenizationBias,
  type TokenizationBias,
  type TokenizationBiasOptions,
} from "./tokenization-bias.ts";
export { SampledTokenizer, sampleTokenizer, type TokenizerSamplerOptions } from "./tokenizer-sampler.ts";
export {
  bitsPerByte,
  retokenized,
  type TransferModel,
  type TransferTokenizer,
  targetTables,
  vocabularyForms,
} from "./tokenizer-transfer.ts";
