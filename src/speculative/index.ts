export {
  BranchingDrafter,
  type BranchingDrafterOptions,
  branchingOfBudget,
  type Guess,
  leavesAndLevels,
} from "./branching-drafter.ts";
export { ChainDrafter, type ChainDrafterOptions } from "./chain-drafter.ts";
export { type ChiSquareFit, chiSquareFit, chiSquarePoint, chiSquareTail } from "./chi-square.ts";
export { ChimeraDrafter, type ChimeraOptions } from "./chimera.ts";
export { ChimeraContext, ChimeraHeads, type EncodedNode, type Trigram, trigramAt } from "./chimera-heads.ts";
export {
  chainDraft,
  checkDraft,
  type Draft,
  type DraftContext,
  type Drafter,
  type Drafting,
  type DraftStart,
  nodeDepths,
  rootDraft,
  type VerifiedPass,
} from "./drafter.ts";
export { DySpecDrafter, type DySpecOptions, depthFirstOrder, maskBlocks } from "./dyspec.ts";
export { Eagle2TreeDrafter, type Eagle2TreeOptions } from "./eagle2-tree.ts";
export {
  type Finish,
  type GenerateOptions,
  Generation,
  generate,
  generateAll,
  type PositionCounts,
  type Report,
  type Step,
} from "./generate.ts";
export { HardwareAwareDrafter, type HardwareAwareOptions } from "./hardware-aware-drafter.ts";
export { chimeraAccuracies, type HeadAccuracyOptions, medusaAccuracies } from "./head-accuracies.ts";
export { type HeadTarget, headTarget } from "./head-layers.ts";
export { JointLaw, type JointLawFit, type JointLawOptions, type ProposalFit } from "./joint-law.ts";
export { LookaheadDrafter, type LookaheadOptions, LookaheadTrie } from "./lookahead.ts";
export type { TablePair } from "./lossless-cases.ts";
export type { ContractCheck, GreedyCheck, LawCheck, LosslessCheck, LosslessReport } from "./lossless-report.ts";
export { MedusaDrafter, MedusaHeads, type MedusaOptions } from "./medusa.ts";
export { type GrowingTree, ModelDrafter, type ModelDrafterOptions } from "./model-drafter.ts";
export {
  type DraftingCosts,
  flatPassCosts,
  type MeasureDraftingOptions,
  type MeasureOptions,
  measureDrafting,
  measurePassCosts,
  type PassCosts,
  passCost,
} from "./pass-costs.ts";
export { plainDecoding } from "./plain-decoding.ts";
export { type PromptLookupOptions, promptLookupDrafter } from "./prompt-lookup.ts";
export { randomDrafter } from "./random-drafter.ts";
export { recursiveRejectionSampling } from "./recursive-rejection-sampling.ts";
export { gumbelTopK, RsdCDrafter } from "./rsd-c.ts";
export { conditionalGumbels, RsdSDrafter, type RsdSOptions } from "./rsd-s.ts";
export {
  type EarlyExitOptions,
  type EarlyExitPass,
  earlyExitModel,
  type NestedModel,
  S2dDrafter,
  type S2dOptions,
} from "./s2d.ts";
export { resolveSampling, type Sampling, type SamplingOptions, tokenLaw } from "./sampling.ts";
export {
  OptimalTrees,
  type PositionalAcceptanceOptions,
  positionalAcceptance,
  SequoiaDrafter,
  type SequoiaOptions,
  type TreeCosts,
  type TreeShape,
} from "./sequoia.ts";
export {
  type ExitSchedule,
  type ExitScheduleOptions,
  exitSchedule,
  type ScheduledPass,
  type SkipDecodeBatch,
  type SkipDecodeBatchOptions,
  type SkipDecodeOptions,
  skipDecode,
  skipDecodeBatch,
} from "./skipdecode.ts";
export { type SparseTree, sparseTree } from "./sparse-tree.ts";
export { SpecInferDrafter } from "./specinfer.ts";
export {
  acceptanceRate,
  acceptsGuess,
  expectedSpeedup,
  expectedTokensPerPass,
  residualLaw,
} from "./speculative-sampling.ts";
export {
  recyclingTemplate,
  TokenRecyclingDrafter,
  type TokenRecyclingOptions,
  type TreeTemplate,
} from "./token-recycling.ts";
export {
  type LoadedHeads,
  type LoadedSkipDecode,
  type LoadedSortedDraft,
  type LoadHeadsOptions,
  type LoadPartOptions,
  type LoadSkipDecodeOptions,
  type LoadSortedDraftOptions,
  loadChimeraHeads,
  loadMedusaHeads,
  loadSkipDecode,
  loadSortedDraft,
} from "./trained-parts.ts";
export {
  type LossyVerifier,
  type TypicalAcceptanceOptions,
  typicalAcceptance,
  typicalThreshold,
} from "./typical-acceptance.ts";
export { checkVerdict, childrenOf, type Verdict, type Verification, type Verifier } from "./verifier.ts";
export { type VerifyLosslessOptions, verifyLossless } from "./verify-lossless.ts";
export type { ContractRule, Strategy, StrategyFactory } from "./watched-generation.ts";
