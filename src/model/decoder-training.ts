/** Training a decoder whole: the cross-entropy of the next token. */
import { crossEntropy } from "../tensor/ops.ts";
import { Sequences, type TokenStreams } from "../training/sequences.ts";
import type { Objective } from "../training/trainer.ts";
import {
  batchConstants,
  batchLogits,
  disposeConstants,
  initialWeights,
  parameterLayout,
  storedLayout,
} from "./decoder.ts";
import { checkDecoderConfig, type DecoderConfig } from "./decoder-config.ts";
import { checkWeights, type Weights } from "./weights.ts";

export interface DecoderObjectiveOptions {
  /** Sequences a step. Default 8. */
  readonly batchSize?: number;
  /** Tokens a sequence, at most the model's context. Default 128, or the context where that is less. */
  readonly sequenceLength?: number;
  /** Sequences of the validation stream to measure on, evenly spread. Default 32. */
  readonly validationSequences?: number;
  /** Weights to begin with, in checkpoint layout. Default: fresh ones. */
  readonly weights?: ReadonlyMap<string, Weights>;
}

/** Sequences and the tokens that follow each of their tokens, both [batch * length]. */
export interface DecoderBatch {
  readonly ids: Int32Array;
  readonly targets: Int32Array;
}

/**
 * The mean nats per token of a decoder on text. Weight decay applies to matrices, not to norms and biases. What the trainer
 * stores is in checkpoint layout.
 * @throws ArgumentError on options out of range, streams shorter than one sequence, or ids outside the vocabulary
 */
export function decoderObjective(
  config: DecoderConfig,
  streams: TokenStreams,
  options: DecoderObjectiveOptions = {},
): Objective<DecoderBatch> {
  checkDecoderConfig(config);
  const { batchSize = 8, sequenceLength = Math.min(128, config.contextLength) } = options;
  const { validationSequences = 32, weights } = options;
  if (weights !== undefined) checkWeights(config, weights, "weights");
  const settings = { batchSize, sequenceLength, validationSequences };
  const sequences = new Sequences(streams, settings, config, 1);
  const constants = batchConstants(config, batchSize, sequenceLength);
  const matrices = new Set<string>();
  return {
    settings: { config, ...settings },
    initialWeights(random) {
      const parameters = parameterLayout(weights ?? initialWeights(config, random));
      for (const [name, { shape }] of parameters) if (shape.length > 1) matrices.add(name);
      return parameters;
    },
    batch: (random) => idsAndTargets(sequences.random(random), sequenceLength),
    *validation() {
      for (const ids of sequences.validation()) yield idsAndTargets(ids, sequenceLength);
    },
    loss: (parameters, { ids, targets }) => crossEntropy(batchLogits(config, parameters, ids, constants), targets),
    decays: (name) => matrices.has(name),
    stored: storedLayout,
    close: () => disposeConstants(constants),
  };
}

/** Windows of length + 1 ids as ids and the ids after them. */
export function idsAndTargets(windows: Int32Array, length: number): DecoderBatch {
  const batch = windows.length / (length + 1);
  const ids = new Int32Array(batch * length);
  const targets = new Int32Array(batch * length);
  for (let s = 0; s < batch; s++) {
    const start = s * (length + 1);
    ids.set(windows.subarray(start, start + length), s * length);
    targets.set(windows.subarray(start + 1, start + length + 1), s * length);
  }
  return { ids, targets };
}
