/**
 * Medusa's heads as one differentiable definition, and what they are trained for. See `medusa.ts` for the idea; this file
 * is the one the running heads are held against.
 */
import type { Weights } from "../../model/weights.ts";
import { add, crossEntropy, matMul, reshape, scale, silu, slice, tensor, transpose } from "../../tensor/ops.ts";
import type { Tensor } from "../../tensor/tf.ts";
import type { Objective } from "../../training/trainer.ts";
import type { HeadTarget } from "../head-layers.ts";
import { medusaNames, medusaShapes } from "../medusa.ts";
import type { HeadBatch, TargetStates } from "./target-states.ts";

export interface MedusaObjectiveOptions {
  /** Default 3. */
  readonly heads?: number;
  /** Without output matrices of their own: the target's serves all heads. Default false. */
  readonly tied?: boolean;
  /** Head k's loss counts decay^k. Default 0.8, the paper's. */
  readonly decay?: number;
}

/**
 * Logits of head k: hidden [rows, width], after the target's final norm -> [rows, vocabularySize].
 * @param k from 0
 * @param outputHead the target's, [width, vocabularySize]: for heads without an output matrix of their own
 */
export function medusaLogits(
  parameters: Readonly<Record<string, Tensor>>,
  k: number,
  hidden: Tensor,
  outputHead: Tensor,
): Tensor {
  const residual = transpose(parameters[medusaNames.residual(k)]!);
  const z = add(hidden, silu(add(matMul(hidden, residual), parameters[medusaNames.bias(k)]!)));
  const own = parameters[medusaNames.output(k)];
  return matMul(z, own === undefined ? outputHead : transpose(own));
}

/** Head k learns the token k + 2 places after its state's own (k from 0): the next but k + 1. The target stays as it is. */
export function medusaObjective(states: TargetStates, options: MedusaObjectiveOptions = {}): Objective<HeadBatch> {
  const { heads = 3, tied = false, decay = 0.8 } = options;
  const { target } = states;
  const { width, vocabularySize } = target.config;
  const outputHead = tensor(transposedHead(target), [width, vocabularySize]);
  return {
    settings: { medusa: { heads, tied, decay }, ...states.options },
    batch: (random) => states.random(random),
    validation: () => states.validation(),
    initialWeights() {
      const weights = new Map<string, Weights>();
      for (const [name, shape] of medusaShapes(target, heads, tied)) {
        const output = shape[0] === vocabularySize && name.endsWith(".1.weight");
        const data = output ? target.outputHead.slice() : new Float32Array(shape.reduce((a, b) => a * b, 1));
        weights.set(name, { shape, data });
      }
      return weights;
    },
    loss(parameters, { batch, length, ids, hidden }: HeadBatch) {
      const hiddenStates = tensor(hidden, [batch, length, width]);
      let loss: Tensor | undefined;
      for (let k = 0; k < heads; k++) {
        const rows = length - k - 2;
        const anchors = reshape(slice(hiddenStates, [0, 0, 0], [batch, rows, width]), [batch * rows, width]);
        const targets = new Int32Array(batch * rows);
        for (let s = 0; s < batch; s++) {
          targets.set(ids.subarray(s * length + k + 2, (s + 1) * length), s * rows);
        }
        const term = scale(crossEntropy(medusaLogits(parameters, k, anchors, outputHead), targets), decay ** (k + 1));
        loss = loss === undefined ? term : add(loss, term);
      }
      return loss!;
    },
    close: () => outputHead.dispose(),
  };
}

/** The target's output head as [width, vocabularySize]. */
export function transposedHead({ config: { width, vocabularySize }, outputHead }: HeadTarget): Float32Array {
  const data = new Float32Array(outputHead.length);
  for (let id = 0; id < vocabularySize; id++) {
    for (let i = 0; i < width; i++) data[i * vocabularySize + id] = outputHead[id * width + i]!;
  }
  return data;
}
