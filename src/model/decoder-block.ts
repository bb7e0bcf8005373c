/** What the blocks of a decoder are written against, whichever architecture's: parameters by name, attention handed in. */
import type { Tensor } from "../tensor/tf.ts";

/** A decoder's parameters by Hugging Face's names, linear weights as [in, out]. */
export type Parameters = Readonly<Record<string, Tensor>>;

/**
 * From a layer's queries and keys (rotated, where the architecture rotates them) and its values, each
 * [rows, heads * headWidth], to [rows, heads * headWidth].
 */
export type Attend = (layer: number, queries: Tensor, keys: Tensor, values: Tensor) => Tensor;
