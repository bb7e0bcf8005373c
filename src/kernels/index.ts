/** The engine's ground floor: an arena of memory and the kernels that work in it. */
export { Arena, type ArenaOptions, type GrowableMemory } from "./arena.ts";
export {
  attentionScratchFloats,
  bestKernels,
  type KernelKind,
  type KernelOptions,
  type KernelSpace,
  type Kernels,
  kernelKinds,
  openKernels,
  panelWidth,
  type WeightFormat,
  weightFormats,
} from "./kernels.ts";
export { plainKernels } from "./plain.ts";
export { allowRelaxedSimd } from "./relaxed-simd.ts";
export { WorkerPool, type WorkerPoolOptions } from "./worker-pool.ts";
