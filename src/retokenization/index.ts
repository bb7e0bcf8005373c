/** Other tokens than a model was trained on: embeddings predicted for them, and the model run over them. */

export {
  type EmbeddingPredictor,
  type EmbeddingTables,
  embeddingTables,
  lastPiece,
  meanOfPieces,
  randomEmbeddings,
} from "./embedding-predictor.ts";
