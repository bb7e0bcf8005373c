/**
 * What heads on a frozen target learn from: sequences of text with the target's own states and laws.
 *
 * The target runs on the engine, a pass per sequence and step, about a tenth of the time a step takes: so its states are
 * computed when they are needed and nothing of them is kept on disk.
 */
import type { LanguageModel } from "../../model/language-model.ts";
import { type SequenceOptions, Sequences, type TokenStreams } from "../../training/sequences.ts";
import { type HeadTarget, lastHidden, normedStates } from "../head-layers.ts";

/** Sequences of one length and what the target made of them. */
export interface HeadBatch {
  readonly batch: number;
  readonly length: number;
  /** [batch * length], sequence after sequence */
  readonly ids: Int32Array;
  /** The target's states after its final norm, [batch * length, width]. */
  readonly hidden: Float32Array;
  /** The target's logits, [batch * length, vocabularySize]. */
  readonly logits: Float32Array;
}

export class TargetStates {
  /** Its parts the heads borrow. */
  readonly target: HeadTarget;
  readonly options: SequenceOptions;
  readonly #model: LanguageModel;
  readonly #sequences: Sequences;

  /**
   * @param model the target, frozen
   * @param options default: 2 sequences of the target's whole context, 16 to validate on
   * @throws ArgumentError as `Sequences`
   */
  constructor(
    model: LanguageModel,
    target: HeadTarget,
    streams: TokenStreams,
    { batchSize = 2, sequenceLength = model.contextLength, validationSequences = 16 }: Partial<SequenceOptions> = {},
  ) {
    this.options = { batchSize, sequenceLength, validationSequences };
    this.target = target;
    this.#model = model;
    this.#sequences = new Sequences(streams, this.options, model);
  }

  random(...given: Parameters<Sequences["random"]>): HeadBatch {
    return this.#batch(this.#sequences.random(...given));
  }

  *validation(): Iterable<HeadBatch> {
    for (const ids of this.#sequences.validation()) yield this.#batch(ids);
  }

  #batch(ids: Int32Array): HeadBatch {
    const { batchSize: batch, sequenceLength: length } = this.options;
    const { width, vocabularySize } = this.target.config;
    const hidden = new Float32Array(batch * length * width);
    const logits = new Float32Array(batch * length * vocabularySize);
    const session = this.#model.openSession();
    try {
      for (let s = 0; s < batch; s++) {
        session.truncate(0);
        const pass = session.extend(ids.subarray(s * length, (s + 1) * length), { logits: "all", taps: ["hidden"] });
        logits.set(pass.logits.data, s * length * vocabularySize);
        hidden.set(normedStates(this.target, lastHidden(pass.taps, width)).data, s * length * width);
      }
    } finally {
      session.close();
    }
    return { batch, length, ids, hidden, logits };
  }
}
