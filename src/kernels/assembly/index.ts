/** What the compiled module exports. Documented where it is called: `Kernels` in ../kernels.ts. */
export { add, gelu, logSoftmax, softmax, swiglu } from "./activations";
export { attend, storeRows } from "./attention";
export { layerNorm, rmsNorm } from "./norms";
export { gatherPanelRows as panelRows, multiply as product } from "./products";
export { gatherRotated, rotate } from "./rotary";
export { argMax, topK } from "./selection";
