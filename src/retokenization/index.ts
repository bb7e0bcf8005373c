/** Other tokens than a model was trained on: embeddings predicted for them, and the model run over them. */

export { EmbeddingCache, type EmbeddingCacheStatistics } from "./embedding-cache.ts";
export {
  type EmbeddingPredictor,
  type EmbeddingTables,
  embeddingTables,
  lastPiece,
  meanOfPieces,
  randomEmbeddings,
} from "./embedding-predictor.ts";
export {
  continueGreedily,
  type MergedPrefillMeasurement,
  type MergedPrefillOptions,
  type MergedPrefix,
  measureMergedPrefill,
  mergedEmbeddings,
  prefillMerged,
} from "./merged-prefill.ts";
