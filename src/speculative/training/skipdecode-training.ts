/**
 * Training a decoder under SkipDecode's schedule: the cross-entropy of the tokens after the prompt, every row running the
 * layers of its own column. See `skipdecode.ts`; this file is the parallel form of what it decodes step by step.
 *
 * The columns at which a layer runs are a prefix, 0 .. T_l - 1, because budgets only fall. So a layer takes the prefix of
 * every sequence as an ordinary causal batch, of length T_l, and the rest of the rows pass it by:
 *
 *     x = [ block_l(x[0 .. T_l - 1]) | x[T_l .. S - 1] ]
 *
 * Row t of layer l so attends to exactly the rows whose keys a cache would hold: all before it, which ran the layer too.
 */
import {
  type BatchConstants,
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
import { concat, crossEntropy, matMul, reshape, slice } from "../../tensor/ops.ts";
import type { Tensor } from "../../tensor/tf.ts";
import { Sequences, type TokenStreams } from "../../training/sequences.ts";
import type { Objective } from "../../training/trainer.ts";
import type { ExitSchedule } from "../skipdecode.ts";

export interface SkipDecodeObjectiveOptions {
  /** Sequences a step. Default 4. */
  readonly batchSize?: number;
  /** Sequences of the validation stream to measure on, evenly spread. Default 32. */
  readonly validationSequences?: number;
}

/** A decoder under a schedule, over batches of whole sequences of its length. Close it. */
export class SkipDecodeDefinition {
  readonly #config: DecoderConfig;
  readonly #schedule: ExitSchedule;
  readonly #batch: number;
  /** By how many columns a layer runs. */
  readonly #constants = new Map<number, BatchConstants>();
  /** Per layer: it runs in columns 0 .. this - 1. */
  readonly #columns: readonly number[];

  /** Not to be called within a `tidy`: it makes what lasts. */
  constructor(config: DecoderConfig, schedule: ExitSchedule, batch: number) {
    this.#config = config;
    this.#schedule = schedule;
    this.#batch = batch;
    this.#columns = Array.from({ length: config.layers }, (_, layer) => {
      let columns = 0;
      while (columns < schedule.length && schedule.layersAt(columns).includes(layer)) columns++;
      return columns;
    });
    for (const columns of [schedule.length, ...this.#columns]) {
      if (!this.#constants.has(columns)) this.#constants.set(columns, batchConstants(config, batch, columns));
    }
  }

  /**
   * Next-token logits from the prompt's last column on, differentiable in the parameters.
   * @param ids [batch * S]
   * @returns [batch * (S - P + 1), vocabularySize], sequence after sequence
   */
  logits(parameters: Parameters, ids: Int32Array): Tensor {
    const config = this.#config;
    const { length, promptLength } = this.#schedule;
    const { width } = config;
    const batch = this.#batch;
    const whole = this.#constants.get(length)!;
    /** Columns from .. to - 1 of all sequences: [batch * length, width] -> [batch * (to - from), width]. */
    const cut = (rows: Tensor, from: number, to: number): Tensor =>
      from === 0 && to === length
        ? rows
        : reshape(slice(reshape(rows, [batch, length, width]), [0, from, 0], [batch, to - from, width]), [
            batch * (to - from),
            width,
          ]);
    let x = firstInput(config, parameters, embed(config, parameters, ids), whole.placement);
    this.#columns.forEach((columns, layer) => {
      const constants = this.#constants.get(columns)!;
      const run = block(config, parameters, layer, cut(x, 0, columns), constants.placement, (_, q, k, v) =>
        causalAttention(config, q, k, v, constants),
      );
      if (columns === length) {
        x = run;
        return;
      }
      const passed = reshape(cut(x, columns, length), [batch, length - columns, width]);
      x = reshape(concat([reshape(run, [batch, columns, width]), passed], 1), [batch * length, width]);
    });
    return matMul(finalNorm(config, parameters, cut(x, promptLength - 1, length)), outputHead(config, parameters));
  }

  close(): void {
    for (const constants of this.#constants.values()) disposeConstants(constants);
  }
}

/**
 * The mean nats per token after the prompt. All parameters are trained, beginning with `weights` (checkpoint layout).
 * Weight decay applies to matrices. What the trainer stores is in checkpoint layout.
 * @throws ArgumentError on options out of range, or streams that do not fit
 */
export function skipDecodeObjective(
  config: DecoderConfig,
  weights: ReadonlyMap<string, Weights>,
  schedule: ExitSchedule,
  streams: TokenStreams,
  { batchSize = 4, validationSequences = 32 }: SkipDecodeObjectiveOptions = {},
): Objective<DecoderBatch> {
  checkWeights(config, weights, "weights");
  const { promptLength, length } = schedule;
  const sequences = new Sequences(streams, { batchSize, sequenceLength: length, validationSequences }, config, 1);
  const definition = new SkipDecodeDefinition(config, schedule, batchSize);
  const matrices = new Set<string>();
  /** The tokens after the prompt. */
  const afterPrompt = (windows: Int32Array): DecoderBatch => {
    const { ids, targets } = idsAndTargets(windows, length);
    const rows = length - promptLength + 1;
    const kept = new Int32Array(batchSize * rows);
    for (let s = 0; s < batchSize; s++) {
      kept.set(targets.subarray(s * length + promptLength - 1, (s + 1) * length), s * rows);
    }
    return { ids, targets: kept };
  };
  const { layers, most, least, warmUp, skips } = schedule;
  return {
    settings: {
      config,
      schedule: { layers, promptLength, length, most, least, warmUp, skips },
      batchSize,
      validationSequences,
    },
    initialWeights() {
      const parameters = parameterLayout(weights);
      for (const [name, { shape }] of parameters) if (shape.length > 1) matrices.add(name);
      return parameters;
    },
    batch: (random) => afterPrompt(sequences.random(random)),
    *validation() {
      for (const windows of sequences.validation()) yield afterPrompt(windows);
    },
    loss: (parameters, { ids, targets }) => crossEntropy(definition.logits(parameters, ids), targets),
    decays: (name) => matrices.has(name),
    stored: storedLayout,
    close: () => definition.close(),
  };
}
