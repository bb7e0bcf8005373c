/** The ground floor: backend choice, differentiable operations, seeded randomness, safetensors. */
export { activeBackend, type BackendName, type BackendOptions, backendNames, useBackend } from "./backend.ts";
export * from "./ops.ts";
export * from "./random.ts";
export * from "./safetensors.ts";
export type { Tensor } from "./tf.ts";
