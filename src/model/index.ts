/** What the techniques act on: contracts, an exact table model, the decoder and its engine, training and checkpoints. */
export type { CachePolicy, Selection, SelectionRequest } from "./cache-policy.ts";
export {
  type OpenCheckpoint,
  openCheckpoint,
  readCheckpoint,
  type StoredTensor,
  writeCheckpoint,
} from "./checkpoint.ts";
export { type Checkpoint, type CheckpointOptions, parseCheckpoint, serializeCheckpoint } from "./checkpoint-format.ts";
export * from "./decoder.ts";
export type { Attend, Parameters } from "./decoder-block.ts";
export * from "./decoder-config.ts";
export { type Rotation, rotationAt } from "./decoder-llama.ts";
export { Decoder } from "./decoder-session.ts";
export { type DecoderBatch, type DecoderObjectiveOptions, decoderObjective } from "./decoder-training.ts";
export * from "./embedded.ts";
export { Engine, type EngineOptions } from "./engine.ts";
export type { EngineSessionOptions } from "./engine-session.ts";
export * from "./evaluation.ts";
export * from "./kneser-ney.ts";
export * from "./language-model.ts";
export { type Llama2cFile, readLlama2c } from "./llama2c.ts";
export * from "./load.ts";
export * from "./table-model.ts";
export type { Weights } from "./weights.ts";
