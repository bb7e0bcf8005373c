/**
 * Training heads on a frozen target's hidden states: AdamW, warm-up and cosine, gradient clipping, validation, and
 * checkpoints a run resumes from exactly. What is trained, and to what end, an objective says.
 *
 * The target runs on the engine, a pass per sequence and step, about a tenth of the time a step takes: so its states are
 * computed when they are needed and nothing of them is kept on disk.
 *
 * **Unlike** `model/training.ts`, which trains a decoder whole, the parameters are whatever the objective has.
 */
import { ArgumentError, FormatError } from "../../errors.ts";
import { adamWStep, clipGlobalNorm, type Moments, warmupCosine } from "../../model/adamw.ts";
import { type LanguageModel, row } from "../../model/language-model.ts";
import type { CurvePoint, TokenStreams } from "../../model/training.ts";
import type { Weights } from "../../model/weights.ts";
import { tensor, tidy, valueAndGradients } from "../../tensor/ops.ts";
import { Random } from "../../tensor/random.ts";
import {
  floatTensor,
  readSafetensors,
  type SafeTensor,
  toFloat32,
  writeSafetensors,
} from "../../tensor/safetensors.ts";
import type { Tensor } from "../../tensor/tf.ts";
import { type HeadTarget, lastHidden } from "../head-layers.ts";

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

/** What is trained. */
export interface HeadObjective {
  /** Parameters to begin with, by name. */
  initialWeights(random: Random): Map<string, Weights>;
  /** The loss of a batch, a scalar, from parameters of the same names and shapes. */
  loss(parameters: Readonly<Record<string, Tensor>>, batch: HeadBatch): Tensor;
  /** Free what it holds. */
  close(): void;
}

export interface HeadTrainingOptions {
  /** Updates in the whole run; the learning rate's schedule ends here. */
  readonly steps: number;
  /** Sequences a step. Default 2. */
  readonly batchSize?: number;
  /** Tokens a sequence. Default: the target's context. */
  readonly sequenceLength?: number;
  /** Highest learning rate. Default 2e-3. */
  readonly learningRate?: number;
  /** Learning rate at the end. Default a twentieth of the highest. */
  readonly finalLearningRate?: number;
  /** Steps of linear warm-up. Default 2 % of the steps. */
  readonly warmupSteps?: number;
  /** Bound on the gradient's global norm. Default 1. */
  readonly clipNorm?: number;
  /** Validate after every so many steps, and at the end. Default 250. */
  readonly validateEvery?: number;
  /** Sequences of the validation stream to measure on, evenly spread. Default 16. */
  readonly validationSequences?: number;
  /** Default 1. */
  readonly seed?: number;
}

const adamW = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };

/** A training run: holds parameters, moments and the step. Call `step` until `finished`, `close` at the end. */
export class HeadTrainer {
  readonly options: Required<HeadTrainingOptions>;
  readonly #model: LanguageModel;
  readonly #target: HeadTarget;
  readonly #objective: HeadObjective;
  readonly #streams: TokenStreams;
  readonly #parameters: Map<string, Weights>;
  readonly #moments: Map<string, Moments>;
  readonly #curve: CurvePoint[] = [];
  readonly #random: Random;
  #step = 0;
  #lossSum = 0;
  #lossCount = 0;

  /**
   * @param model the target, frozen
   * @param target its parts the heads borrow
   * @param objective makes what is trained, for batches of so many sequences of so many tokens; closed with the run
   * @throws ArgumentError on options out of range or streams shorter than one sequence
   */
  constructor(
    model: LanguageModel,
    target: HeadTarget,
    objective: (batch: number, length: number) => HeadObjective,
    streams: TokenStreams,
    options: HeadTrainingOptions,
  ) {
    this.options = settle(options, model);
    for (const name of ["training", "validation"] as const) {
      if (streams[name].length <= this.options.sequenceLength) {
        const expected = `more than ${this.options.sequenceLength} tokens`;
        throw new ArgumentError(`streams.${name}`, expected, streams[name].length);
      }
    }
    this.#model = model;
    this.#target = target;
    this.#objective = objective(this.options.batchSize, this.options.sequenceLength);
    this.#streams = streams;
    this.#random = new Random(this.options.seed);
    this.#parameters = this.#objective.initialWeights(this.#random.fork("weights"));
    this.#moments = new Map(
      [...this.#parameters].map(([name, { data }]) => [
        name,
        { first: new Float32Array(data.length), second: new Float32Array(data.length) },
      ]),
    );
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

  /** The parameters as they are now; copies. */
  weights(): Map<string, Weights> {
    return new Map([...this.#parameters].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]));
  }

  /** One update on the next batch; validates when due. @returns the batch's loss */
  step(): number {
    const { options } = this;
    const { training } = this.#streams;
    // Random starts, a function of (seed, step) alone.
    const stream = this.#random.fork(`batch ${this.#step}`);
    const room = training.length - options.sequenceLength;
    const starts = Array.from({ length: options.batchSize }, () => stream.integer(room));
    const { loss, gradients } = this.#lossAndGradients(this.#batch(training, starts));
    const norm = clipGlobalNorm([...gradients.values()], options.clipNorm);
    if (!Number.isFinite(norm)) {
      throw new ArgumentError("learningRate", "a rate at which training stays finite", options.learningRate);
    }
    const { steps, warmupSteps, learningRate, finalLearningRate } = options;
    const rate = warmupCosine(this.#step, steps, warmupSteps, learningRate, finalLearningRate);
    this.#step++;
    for (const [name, { data }] of this.#parameters) {
      adamWStep(data, gradients.get(name)!, this.#moments.get(name)!, this.#step, rate, 0, adamW);
    }
    this.#lossSum += loss;
    this.#lossCount++;
    if (this.#step % options.validateEvery === 0 || this.finished) {
      const trainingLoss = this.#lossSum / this.#lossCount;
      this.#curve.push({ step: this.#step, trainingLoss, validationLoss: this.validate() });
      this.#lossSum = 0;
      this.#lossCount = 0;
    }
    return loss;
  }

  /** Mean loss over evenly spread sequences of the validation stream. */
  validate(): number {
    const { sequenceLength, validationSequences, batchSize } = this.options;
    const { validation } = this.#streams;
    const room = validation.length - sequenceLength;
    const batches = Math.max(1, Math.round(validationSequences / batchSize));
    const last = Math.max(1, batches * batchSize - 1);
    let sum = 0;
    for (let b = 0; b < batches; b++) {
      const starts = Array.from({ length: batchSize }, (_, s) => Math.floor(((b * batchSize + s) * room) / last));
      const batch = this.#batch(validation, starts);
      const parameters = this.#tensors();
      const loss = tidy(() => this.#objective.loss(parameters, batch));
      sum += loss.dataSync()[0] as number;
      loss.dispose();
      for (const parameter of Object.values(parameters)) parameter.dispose();
    }
    return sum / batches;
  }

  /** Everything a resumed run needs, as the bytes of a safetensors file. */
  save(): Uint8Array {
    const tensors = new Map<string, SafeTensor>();
    for (const [name, { shape, data }] of this.#parameters) {
      const { first, second } = this.#moments.get(name)!;
      tensors.set(`parameter.${name}`, floatTensor(shape, data));
      tensors.set(`first.${name}`, floatTensor(shape, first));
      tensors.set(`second.${name}`, floatTensor(shape, second));
    }
    const run: SavedRun = {
      step: this.#step,
      lossSum: this.#lossSum,
      lossCount: this.#lossCount,
      curve: this.#curve,
      options: this.options,
    };
    return writeSafetensors(tensors, { run: JSON.stringify(run) });
  }

  /**
   * Take up a run where `save` left it.
   * @throws FormatError when the state is damaged, or belongs to a run with other parameters or options
   */
  restore(state: Uint8Array, source = "training state"): void {
    const { tensors, metadata } = readSafetensors(state, source);
    const run = parseRun(metadata["run"], source);
    if (JSON.stringify(run.options) !== JSON.stringify(this.options)) {
      throw new FormatError(
        source,
        "it belongs to a run with other options",
        "Delete it to start anew, or run with the options it was made with.",
      );
    }
    // Everything is checked before anything is set: a damaged state leaves the run as it was.
    const restored: [target: Float32Array, saved: Float32Array][] = [];
    for (const [name, { data: parameter }] of this.#parameters) {
      for (const [kind, target] of Object.entries({ parameter, ...this.#moments.get(name)! })) {
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

  /** Free what the run holds. The model stays open. */
  close(): void {
    this.#objective.close();
  }

  #batch(stream: TokenStreams["training"], starts: readonly number[]): HeadBatch {
    const { sequenceLength: length } = this.options;
    const batch = starts.length;
    const { width, vocabularySize, normEpsilon } = this.#target.config;
    const ids = new Int32Array(batch * length);
    const hidden = new Float32Array(batch * length * width);
    const logits = new Float32Array(batch * length * vocabularySize);
    const session = this.#model.openSession();
    try {
      starts.forEach((start, s) => {
        const sequence = Int32Array.from(stream.subarray(start, start + length));
        session.truncate(0);
        const pass = session.extend(sequence, { logits: "all", taps: ["hidden"] });
        const states = lastHidden(pass.taps, width);
        ids.set(sequence, s * length);
        logits.set(pass.logits.data, s * length * vocabularySize);
        for (let r = 0; r < length; r++) {
          normalize(row(states, r), this.#target.norm, normEpsilon, hidden.subarray((s * length + r) * width));
        }
      });
    } finally {
      session.close();
    }
    return { batch, length, ids, hidden, logits };
  }

  #lossAndGradients(batch: HeadBatch): { loss: number; gradients: Map<string, Float32Array> } {
    const parameters = this.#tensors();
    const { value, gradients } = valueAndGradients((p) => this.#objective.loss(p, batch), parameters);
    const loss = value.dataSync()[0] as number;
    const read = new Map(Object.entries(gradients).map(([name, g]) => [name, g.dataSync() as Float32Array]));
    for (const used of [value, ...Object.values(gradients), ...Object.values(parameters)]) used.dispose();
    return { loss, gradients: read };
  }

  #tensors(): Record<string, Tensor> {
    const tensors: Record<string, Tensor> = {};
    for (const [name, { shape, data }] of this.#parameters) tensors[name] = tensor(data, shape);
    return tensors;
  }
}

/** RMSNorm of one row, in doubles. */
function normalize(x: Float32Array, weight: Float32Array, epsilon: number, to: Float32Array): void {
  let squares = 0;
  for (const value of x) squares += value * value;
  const scale = 1 / Math.sqrt(squares / x.length + epsilon);
  for (let i = 0; i < x.length; i++) to[i] = x[i]! * scale * weight[i]!;
}

function settle(options: HeadTrainingOptions, model: LanguageModel): Required<HeadTrainingOptions> {
  const learningRate = options.learningRate ?? 2e-3;
  const settled: Required<HeadTrainingOptions> = {
    steps: options.steps,
    batchSize: options.batchSize ?? 2,
    sequenceLength: options.sequenceLength ?? model.contextLength,
    learningRate,
    finalLearningRate: options.finalLearningRate ?? learningRate / 20,
    warmupSteps: options.warmupSteps ?? Math.ceil(options.steps / 50),
    clipNorm: options.clipNorm ?? 1,
    validateEvery: options.validateEvery ?? 250,
    validationSequences: options.validationSequences ?? 16,
    seed: options.seed ?? 1,
  };
  for (const field of ["steps", "batchSize", "sequenceLength", "validateEvery", "validationSequences"] as const) {
    if (!(Number.isSafeInteger(settled[field]) && settled[field] >= 1)) {
      throw new ArgumentError(`options.${field}`, "an integer >= 1", settled[field]);
    }
  }
  for (const field of ["learningRate", "clipNorm"] as const) {
    if (!(settled[field] > 0)) throw new ArgumentError(`options.${field}`, "a number > 0", settled[field]);
  }
  if (settled.sequenceLength > model.contextLength) {
    const expected = `at most the target's context, ${model.contextLength}`;
    throw new ArgumentError("options.sequenceLength", expected, settled.sequenceLength);
  }
  return settled;
}

interface SavedRun {
  readonly step: number;
  readonly lossSum: number;
  readonly lossCount: number;
  readonly curve: readonly CurvePoint[];
  readonly options: unknown;
}

function parseRun(text: string | undefined, source: string): SavedRun {
  try {
    const run = JSON.parse(text ?? "null") as Partial<SavedRun> | null;
    if (run !== null && Number.isSafeInteger(run.step) && Array.isArray(run.curve)) return run as SavedRun;
  } catch {
    // Falls through to the error below: what is wrong is the same.
  }
  throw new FormatError(source, "its record of the run is missing or damaged", "Delete it to start anew.");
}
