/**
 * tokenthrift: every published way to spend fewer tokens, as small, exact, runnable TypeScript.
 *
 * The areas are entry points of their own: `tokenthrift/tokenization`, `tokenthrift/speculative`, `tokenthrift/model`,
 * `tokenthrift/tensor`. This one holds what all of them share, and loads none of them.
 */
export { catalog, type Technique } from "./catalog.ts";
export * from "./errors.ts";
export { Random, type RandomState } from "./tensor/random.ts";
