/**
 * Sorted fine-tuning (SoFT): one decoder whose shallow prefixes are language models too. See `s2d.ts`, which drafts with it;
 * the objective is Valipour et al.'s (Sorted LLaMA, arXiv 2309.08968).
 *
 *     loss = (1 / |exits|) sum over exits e of  cross-entropy(head(norm(state after layer e)), next token)
 *
 * One forward pass through all layers, one norm and one head for all exits: no exit has a parameter of its own, so what
 * fits the head at depth 1 must still be something layer 2 can go on from. No target teaches it: it learns from text, and
 * serves every target of its vocabulary.
 *
 * **Unlike** heads trained on a frozen model's layers afterwards, the layers themselves learn to be left. With the last
 * layer as the only exit it is ordinary fine-tuning, the control (SFT).
 */

import type { BatchConstants } from "../../model/decoder.ts";
import {
  batchConstants,
  block,
  causalAttention,
  disposeConstants,
  embed,
  finalNorm,
  firstInput,
  outputHead,
  parameterLayout,
  storedLayout,
} from "../../model/decoder.ts";
import type { Parameters } from "../../model/decoder-block.ts";
import type { DecoderConfig } from "../../model/decoder-config.ts";
import { type DecoderBatch, idsAndTargets } from "../../model/decoder-training.ts";
import { checkWeights, type Weights } from "../../model/weights.ts";
import { add, crossEntropy, matMul, scale } from "../../tensor/ops.ts";
import type { Tensor } from "../../tensor/tf.ts";
import { Sequences, type TokenStreams } from "../../training/sequences.ts";
import type { Objective } from "../../training/trainer.ts";
import { checkExits } from "../s2d.ts";

export interface SortedFineTuningOptions {
  /** Layers that run before each exit, growing; the last is the decoder's number of layers. Default: every layer. */
  readonly exits?: readonly number[];
  /** Sequences a step. Default 4. */
  readonly batchSize?: number;
  /** Tokens a sequence. Default: the decoder's context. */
  readonly sequenceLength?: number;
  /** Sequences of the validation stream to measure on, evenly spread. Default 32. */
  readonly validationSequences?: number;
}

/**
 * The mean nats per token over all exits. All parameters are trained, beginning with `weights` (checkpoint layout). Weight
 * decay applies to matrices. What the trainer stores is in checkpoint layout.
 * @throws ArgumentError on options out of range, or streams that do not fit
 */
export function sortedFineTuningObjective(
  config: DecoderConfig,
  weights: ReadonlyMap<string, Weights>,
  streams: TokenStreams,
  options: SortedFineTuningOptions = {},
): Objective<DecoderBatch> {
  checkWeights(config, weights, "weights");
  const { exits = Array.from({ length: config.layers }, (_, layer) => layer + 1) } = options;
  const { batchSize = 4, sequenceLength = config.contextLength, validationSequences = 32 } = options;
  checkExits(exits, config.layers);
  const settings = { batchSize, sequenceLength, validationSequences };
  const sequences = new Sequences(streams, settings, config, 1);
  const constants = batchConstants(config, batchSize, sequenceLength);
  const matrices = new Set<string>();
  return {
    settings: { config, exits, ...settings },
    initialWeights() {
      const parameters = parameterLayout(weights);
      for (const [name, { shape }] of parameters) if (shape.length > 1) matrices.add(name);
      return parameters;
    },
    batch: (random) => idsAndTargets(sequences.random(random), sequenceLength),
    *validation() {
      for (const windows of sequences.validation()) yield idsAndTargets(windows, sequenceLength);
    },
    loss(parameters, { ids, targets }) {
      const losses = exitLogits(config, parameters, ids, constants, exits).map((logits) =>
        crossEntropy(logits, targets),
      );
      return scale(losses.reduce(add), 1 / losses.length);
    },
    decays: (name) => matrices.has(name),
    stored: storedLayout,
    close: () => disposeConstants(constants),
  };
}

/**
 * Next-token logits at every exit from one forward pass, differentiable in the parameters.
 * @param ids [batch * length], sequence after sequence
 * @returns one [batch * length, vocabularySize] per exit
 */
export function exitLogits(
  config: DecoderConfig,
  parameters: Parameters,
  ids: Int32Array,
  constants: BatchConstants,
  exits: readonly number[],
): Tensor[] {
  const { placement } = constants;
  const head = outputHead(config, parameters);
  const logits: Tensor[] = [];
  let x = firstInput(config, parameters, embed(config, parameters, ids), placement);
  for (let layer = 0; layer < exits[exits.length - 1]!; layer++) {
    x = block(config, parameters, layer, x, placement, (_, queries, keys, values) =>
      causalAttention(config, queries, keys, values, constants),
    );
    if (exits.includes(layer + 1)) logits.push(matMul(finalNorm(config, parameters, x), head));
  }
  return logits;
}
