/** Sequences of one length cut from streams of token ids: what a model of text learns from and is validated on. */
import { ArgumentError } from "../errors.ts";
import type { Random } from "../tensor/random.ts";

/** Token ids to learn from and to validate on. */
export interface TokenStreams {
  readonly training: Uint16Array | Int32Array;
  readonly validation: Uint16Array | Int32Array;
}

export interface SequenceOptions {
  /** Sequences a batch. */
  readonly batchSize: number;
  /** Tokens a sequence. */
  readonly sequenceLength: number;
  /** Sequences to validate on, evenly spread, rounded to whole batches. */
  readonly validationSequences: number;
}

/** Batches of ids, [batchSize * window], sequence after sequence. */
export class Sequences {
  readonly #streams: TokenStreams;
  readonly #options: SequenceOptions;
  readonly #window: number;

  /**
   * @param limits what ids must stay below, and how long a sequence may be
   * @param following tokens cut beyond each sequence's length: 1 where what follows each token is needed. Default 0.
   * @throws ArgumentError on options out of range, streams shorter than one sequence, or ids outside the vocabulary
   */
  constructor(
    streams: TokenStreams,
    options: SequenceOptions,
    limits: { readonly vocabularySize: number; readonly contextLength: number },
    following = 0,
  ) {
    for (const field of ["batchSize", "sequenceLength", "validationSequences"] as const) {
      if (!(Number.isSafeInteger(options[field]) && options[field] >= 1)) {
        throw new ArgumentError(`options.${field}`, "an integer >= 1", options[field]);
      }
    }
    const { sequenceLength } = options;
    if (sequenceLength > limits.contextLength) {
      const expected = `at most the model's context, ${limits.contextLength}`;
      throw new ArgumentError("options.sequenceLength", expected, sequenceLength);
    }
    for (const name of ["training", "validation"] as const) {
      const stream = streams[name];
      if (stream.length <= sequenceLength) {
        throw new ArgumentError(`streams.${name}`, `more than ${sequenceLength} tokens`, stream.length);
      }
      const highest = (stream as Int32Array).reduce((a, b) => Math.max(a, b), 0);
      if (highest >= limits.vocabularySize) {
        throw new ArgumentError(`streams.${name}`, `ids below ${limits.vocabularySize}`, highest);
      }
    }
    this.#streams = streams;
    this.#options = options;
    this.#window = sequenceLength + following;
  }

  /** A batch of the training stream, at random starts. */
  random(random: Random): Int32Array {
    const { training } = this.#streams;
    const starts = Array.from({ length: this.#options.batchSize }, () =>
      random.integer(training.length - this.#window + 1),
    );
    return this.#cut(training, starts);
  }

  /** The batches of the validation stream. */
  *validation(): Iterable<Int32Array> {
    const { batchSize, validationSequences } = this.#options;
    const { validation } = this.#streams;
    const batches = Math.max(1, Math.round(validationSequences / batchSize));
    const room = validation.length - this.#window;
    const last = Math.max(1, batches * batchSize - 1);
    for (let b = 0; b < batches; b++) {
      const starts = Array.from({ length: batchSize }, (_, s) => Math.floor(((b * batchSize + s) * room) / last));
      yield this.#cut(validation, starts);
    }
  }

  #cut(stream: TokenStreams["training"], starts: readonly number[]): Int32Array {
    const ids = new Int32Array(starts.length * this.#window);
    starts.forEach((start, s) => {
      ids.set(stream.subarray(start, start + this.#window), s * this.#window);
    });
    return ids;
  }
}
