/** Training on the tensor layer: a trainer that resumes exactly, its optimizer, and text as batches. */
export { type AdamWOptions, adamWStep, clipGlobalNorm, globalNorm, type Moments, warmupCosine } from "./adamw.ts";
export { type SequenceOptions, Sequences, type TokenStreams } from "./sequences.ts";
export {
  type CurvePoint,
  type Objective,
  type StepReport,
  Trainer,
  type TrainerOptions,
} from "./trainer.ts";
export { type RunTrainingOptions, runTraining, type TrainingOutcome } from "./training-run.ts";
