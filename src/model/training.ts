/**
 * Training a decoder on a stream of token ids: AdamW, warm-up and cosine, gradient clipping, validation, and checkpoints
 * a run resumes from exactly (stopped and resumed gives the same weights, bit for bit, as never stopped).
 *
 * Exactness rests on two things: batches are a function of (seed, step) alone, and the saved state holds everything the
 * next step reads (parameters, both moments, step, curve) in full precision.
 */
import { ArgumentError, FormatError } from "../errors.ts";
import { crossEntropy, tensor, tidy, valueAndGradients } from "../tensor/ops.ts";
import { Random } from "../tensor/random.ts";
import { floatTensor, readSafetensors, type SafeTensor, toFloat32, writeSafetensors } from "../tensor/safetensors.ts";
import type { Tensor } from "../tensor/tf.ts";
import { type AdamWOptions, adamWStep, clipGlobalNorm, type Moments, warmupCosine } from "./adamw.ts";
import {
  type BatchConstants,
  batchConstants,
  batchLogits,
  disposeConstants,
  initialWeights,
  isTransposed,
  transposed,
} from "./decoder.ts";
import { checkDecoderConfig, type DecoderConfig } from "./decoder-config.ts";
import type { Weights } from "./weights.ts";

export interface TrainingOptions {
  /** Updates in the whole run; the learning rate's schedule ends here. */
  readonly steps: number;
  /** Sequences a step. Default 8. */
  readonly batchSize?: number;
  /** Tokens a sequence, at most the model's context. Default 128. */
  readonly sequenceLength?: number;
  /** Highest learning rate. Default 2e-3. */
  readonly learningRate?: number;
  /** Learning rate at the end. Default a tenth of the highest. */
  readonly finalLearningRate?: number;
  /** Steps of linear warm-up. Default 2 % of the steps. */
  readonly warmupSteps?: number;
  /** Decoupled decay of matrices (not of norms and biases). Default 0.1. */
  readonly weightDecay?: number;
  /** Bound on the gradient's global norm. Default 1. */
  readonly clipNorm?: number;
  /** Default { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 }. */
  readonly adamW?: AdamWOptions;
  /** Validate after every so many steps, and at the end. Default 250. */
  readonly validateEvery?: number;
  /** Sequences of the validation stream to measure on, evenly spread. Default 32. */
  readonly validationSequences?: number;
  /** Default 1. */
  readonly seed?: number;
}

/** One point of the learning curve. Losses are mean nats per token; the training loss averages the steps since the last point. */
export interface CurvePoint {
  readonly step: number;
  readonly trainingLoss: number;
  readonly validationLoss: number;
}

/** Token ids to learn from and to validate on. */
export interface TokenStreams {
  readonly training: Uint16Array | Int32Array;
  readonly validation: Uint16Array | Int32Array;
}

/** What one step reports. `loss` in nats per token, `gradientNorm` before clipping. */
export interface StepReport {
  readonly step: number;
  readonly loss: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
}

type Settled = Required<TrainingOptions>;

/** A training run: holds parameters, moments and the step. Call `step` until `finished`, `close` at the end. */
export class Trainer {
  readonly config: DecoderConfig;
  readonly options: Settled;
  readonly #streams: TokenStreams;
  readonly #shapes = new Map<string, readonly number[]>();
  readonly #parameters: Map<string, Float32Array>;
  readonly #moments: Map<string, Moments>;
  readonly #curve: CurvePoint[] = [];
  readonly #random: Random;
  readonly #constants: BatchConstants;
  #step = 0;
  #lossSum = 0;
  #lossCount = 0;

  /**
   * @throws ArgumentError on options out of range, streams shorter than one sequence, or ids outside the vocabulary
   */
  constructor(config: DecoderConfig, streams: TokenStreams, options: TrainingOptions) {
    checkDecoderConfig(config);
    this.config = config;
    this.options = settle(options, config);
    for (const name of ["training", "validation"] as const) {
      const stream = streams[name];
      if (stream.length <= this.options.sequenceLength) {
        throw new ArgumentError(`streams.${name}`, `more than ${this.options.sequenceLength} tokens`, stream.length);
      }
      const highest = (stream as Int32Array).reduce((a, b) => Math.max(a, b), 0);
      if (highest >= config.vocabularySize) {
        throw new ArgumentError(`streams.${name}`, `ids below ${config.vocabularySize}`, highest);
      }
    }
    this.#streams = streams;
    this.#random = new Random(this.options.seed);
    this.#parameters = new Map();
    for (const [name, weight] of initialWeights(config, this.#random.fork("weights"))) {
      const [rows, columns] = weight.shape as [number, number];
      this.#shapes.set(name, isTransposed(name) ? [columns, rows] : weight.shape);
      this.#parameters.set(name, isTransposed(name) ? transposed(weight.data, rows, columns) : weight.data);
    }
    this.#moments = new Map(
      [...this.#parameters].map(([name, { length }]) => [
        name,
        { first: new Float32Array(length), second: new Float32Array(length) },
      ]),
    );
    this.#constants = batchConstants(config, this.options.batchSize, this.options.sequenceLength);
  }

  /** Updates made so far. */
  get stepsDone(): number {
    return this.#step;
  }

  get finished(): boolean {
    return this.#step >= this.options.steps;
  }

  get curve(): readonly CurvePoint[] {
    return this.#curve;
  }

  /** One update on the next batch; validates when due. */
  step(): StepReport {
    const { options } = this;
    const { ids, targets } = this.#batch(this.#step);
    const { loss, gradients } = this.#lossAndGradients(ids, targets);
    const gradientNorm = clipGlobalNorm([...gradients.values()], options.clipNorm);
    if (!Number.isFinite(gradientNorm)) {
      throw new ArgumentError("learningRate", "a rate at which training stays finite", options.learningRate);
    }
    const learningRate = warmupCosine(
      this.#step,
      options.steps,
      options.warmupSteps,
      options.learningRate,
      options.finalLearningRate,
    );
    this.#step++;
    for (const [name, parameter] of this.#parameters) {
      const decay = this.#shapes.get(name)!.length > 1 ? options.weightDecay : 0;
      const moments = this.#moments.get(name)!;
      adamWStep(parameter, gradients.get(name)!, moments, this.#step, learningRate, decay, options.adamW);
    }
    this.#lossSum += loss;
    this.#lossCount++;
    if (this.#step % options.validateEvery === 0 || this.finished) {
      this.#curve.push({
        step: this.#step,
        trainingLoss: this.#lossSum / this.#lossCount,
        validationLoss: this.validate(),
      });
      this.#lossSum = 0;
      this.#lossCount = 0;
    }
    return { step: this.#step, loss, gradientNorm, learningRate };
  }

  /** Mean loss over evenly spread sequences of the validation stream, nats per token. */
  validate(): number {
    const { batchSize, sequenceLength, validationSequences } = this.options;
    const stream = this.#streams.validation;
    const room = stream.length - sequenceLength - 1;
    const batches = Math.max(1, Math.round(validationSequences / batchSize));
    let sum = 0;
    for (let b = 0; b < batches; b++) {
      const starts = Array.from({ length: batchSize }, (_, s) =>
        Math.floor(((b * batchSize + s) * room) / Math.max(1, batches * batchSize - 1)),
      );
      const { ids, targets } = cut(stream, starts, sequenceLength);
      const parameters = this.#tensors();
      const loss = tidy(() => crossEntropy(batchLogits(this.config, parameters, ids, this.#constants), targets));
      sum += loss.dataSync()[0] as number;
      loss.dispose();
      for (const parameter of Object.values(parameters)) parameter.dispose();
    }
    return sum / batches;
  }

  /** The weights as they are now, in checkpoint layout; copies. */
  weights(): Map<string, Weights> {
    const result = new Map<string, Weights>();
    for (const [name, parameter] of this.#parameters) {
      const shape = this.#shapes.get(name)!;
      const [rows, columns] = shape as [number, number];
      result.set(
        name,
        isTransposed(name)
          ? { shape: [columns, rows], data: transposed(parameter, rows, columns) }
          : { shape, data: Float32Array.from(parameter) },
      );
    }
    return result;
  }

  /** Everything a resumed run needs, as the bytes of a safetensors file. */
  save(): Uint8Array {
    const tensors = new Map<string, SafeTensor>();
    for (const [name, parameter] of this.#parameters) {
      const shape = this.#shapes.get(name)!;
      const { first, second } = this.#moments.get(name)!;
      tensors.set(`parameter.${name}`, floatTensor(shape, parameter));
      tensors.set(`first.${name}`, floatTensor(shape, first));
      tensors.set(`second.${name}`, floatTensor(shape, second));
    }
    const run = {
      step: this.#step,
      lossSum: this.#lossSum,
      lossCount: this.#lossCount,
      curve: this.#curve,
      config: this.config,
      options: this.options,
    };
    return writeSafetensors(tensors, { run: JSON.stringify(run) });
  }

  /**
   * Take up a run where `save` left it.
   * @throws FormatError when the state is damaged, or belongs to a run with another config or other options
   */
  restore(state: Uint8Array, source = "training state"): void {
    const { tensors, metadata } = readSafetensors(state, source);
    const run = parseRun(metadata["run"], source);
    const same = JSON.stringify([run.config, run.options]) === JSON.stringify([this.config, this.options]);
    if (!same) {
      throw new FormatError(
        source,
        "it belongs to a run with another config or other options",
        "Delete it to start anew, or run with the options it was made with.",
      );
    }
    // Everything is checked before anything is set: a damaged state leaves the run as it was.
    const restored: [target: Float32Array, saved: Float32Array][] = [];
    for (const [name, parameter] of this.#parameters) {
      const { first, second } = this.#moments.get(name)!;
      for (const [kind, target] of Object.entries({ parameter, first, second })) {
        const saved = tensors.get(`${kind}.${name}`);
        if (saved === undefined) throw new FormatError(source, `tensor ${kind}.${name} is missing`);
        const data = toFloat32(saved);
        if (data.length !== target.length) throw new FormatError(source, `tensor ${kind}.${name} has the wrong size`);
        const bad = data.findIndex((value) => !Number.isFinite(value));
        if (bad >= 0) throw new FormatError(source, `tensor ${kind}.${name} holds ${data[bad]} at index ${bad}`);
        restored.push([target, data]);
      }
    }
    for (const [target, saved] of restored) target.set(saved);
    this.#step = run.step;
    this.#lossSum = run.lossSum;
    this.#lossCount = run.lossCount;
    this.#curve.splice(0, this.#curve.length, ...run.curve);
  }

  /** Free the tensors the run holds. */
  close(): void {
    disposeConstants(this.#constants);
  }

  /** The batch of a step: random starts, a function of (seed, step) alone. */
  #batch(step: number): { ids: Int32Array; targets: Int32Array } {
    const { batchSize, sequenceLength } = this.options;
    const stream = this.#random.fork(`batch ${step}`);
    const room = this.#streams.training.length - sequenceLength;
    const starts = Array.from({ length: batchSize }, () => stream.integer(room));
    return cut(this.#streams.training, starts, sequenceLength);
  }

  #lossAndGradients(ids: Int32Array, targets: Int32Array): { loss: number; gradients: Map<string, Float32Array> } {
    const parameters = this.#tensors();
    const { value, gradients } = valueAndGradients(
      (p) => crossEntropy(batchLogits(this.config, p, ids, this.#constants), targets),
      parameters,
    );
    const loss = value.dataSync()[0] as number;
    const read = new Map(Object.entries(gradients).map(([name, g]) => [name, g.dataSync() as Float32Array]));
    value.dispose();
    for (const gradient of Object.values(gradients)) gradient.dispose();
    for (const parameter of Object.values(parameters)) parameter.dispose();
    return { loss, gradients: read };
  }

  #tensors(): Record<string, Tensor> {
    const tensors: Record<string, Tensor> = {};
    for (const [name, parameter] of this.#parameters) tensors[name] = tensor(parameter, this.#shapes.get(name)!);
    return tensors;
  }
}

/** Sequences at `starts` and the same shifted by one: ids and targets, each [starts * length]. */
function cut(
  stream: Uint16Array | Int32Array,
  starts: readonly number[],
  length: number,
): { ids: Int32Array; targets: Int32Array } {
  const ids = new Int32Array(starts.length * length);
  const targets = new Int32Array(starts.length * length);
  starts.forEach((start, s) => {
    ids.set(stream.subarray(start, start + length), s * length);
    targets.set(stream.subarray(start + 1, start + length + 1), s * length);
  });
  return { ids, targets };
}

function settle(options: TrainingOptions, config: DecoderConfig): Settled {
  const learningRate = options.learningRate ?? 2e-3;
  const settled: Settled = {
    steps: options.steps,
    batchSize: options.batchSize ?? 8,
    sequenceLength: options.sequenceLength ?? Math.min(128, config.contextLength),
    learningRate,
    finalLearningRate: options.finalLearningRate ?? learningRate / 10,
    warmupSteps: options.warmupSteps ?? Math.ceil(options.steps / 50),
    weightDecay: options.weightDecay ?? 0.1,
    clipNorm: options.clipNorm ?? 1,
    adamW: options.adamW ?? { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 },
    validateEvery: options.validateEvery ?? 250,
    validationSequences: options.validationSequences ?? 32,
    seed: options.seed ?? 1,
  };
  for (const field of ["steps", "batchSize", "sequenceLength", "validateEvery", "validationSequences"] as const) {
    if (!Number.isSafeInteger(settled[field]) || settled[field] < 1) {
      throw new ArgumentError(`options.${field}`, "an integer >= 1", settled[field]);
    }
  }
  for (const field of ["learningRate", "clipNorm"] as const) {
    if (!(settled[field] > 0)) throw new ArgumentError(`options.${field}`, "a number > 0", settled[field]);
  }
  if (settled.sequenceLength > config.contextLength) {
    const expected = `at most the model's context, ${config.contextLength}`;
    throw new ArgumentError("options.sequenceLength", expected, settled.sequenceLength);
  }
  return settled;
}

interface SavedRun {
  readonly step: number;
  readonly lossSum: number;
  readonly lossCount: number;
  readonly curve: readonly CurvePoint[];
  readonly config: unknown;
  readonly options: unknown;
}

function parseRun(text: string | undefined, source: string): SavedRun {
  try {
    const run = JSON.parse(text ?? "null") as Partial<SavedRun> | null;
    if (run !== null && Number.isSafeInteger(run.step) && Array.isArray(run.curve)) return run as SavedRun;
  } catch {
    // Falls through to the error below: what is wrong is the same.
  }
  throw new FormatError(source, "it does not hold the state of a training run");
}
