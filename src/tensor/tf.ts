/**
 * The one place that names the tensor library. Everything else says `Tensor` and calls `src/tensor` by its own names,
 * so that the library underneath can change.
 */
import * as tf from "@tensorflow/tfjs";

export { tf };

/** A tensor of float32 or int32 values, or booleans. Immutable; freed by `dispose` or by the `tidy` around it. */
export type Tensor = tf.Tensor;
