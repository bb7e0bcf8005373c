/**
 * Training anything: AdamW, warm-up and cosine, gradient clipping, validation, and checkpoints a run resumes from exactly
 * (stopped and resumed gives the same weights, bit for bit, as never stopped). What is trained, on what and to what end,
 * an `Objective` says: `decoderObjective` trains a decoder whole, others heads on a frozen one, or one to leave early.
 *
 * Exactness rests on two things: batches are a function of (seed, step) alone, and the saved state holds everything the
 * next step reads (parameters, both moments, step, curve) in full precision.
 */
import { ArgumentError, FormatError } from "../errors.ts";
import type { Weights } from "../model/weights.ts";
import { tensor, tidy, valueAndGradients } from "../tensor/ops.ts";
import { Random } from "../tensor/random.ts";
import { floatTensor, readSafetensors, type SafeTensor, toFloat32, writeSafetensors } from "../tensor/safetensors.ts";
import type { Tensor } from "../tensor/tf.ts";
import { type AdamWOptions, adamWStep, clipGlobalNorm, type Moments, warmupCosine } from "./adamw.ts";

/** What is trained, on what, and to what end. */
export interface Objective<Batch> {
  /** What makes this objective the one it is, as JSON. A saved run resumes only where it is the same. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Parameters to begin with, by name, in the layout `loss` takes. */
  initialWeights(random: Random): Map<string, Weights>;
  /** The batch of a step: a function of the random stream alone. */
  batch(random: Random): Batch;
  /** Batches to validate on: the same ones each time. */
  validation(): Iterable<Batch>;
  /** The loss of a batch, a scalar tensor, from parameters of the names and shapes of `initialWeights`. */
  loss(parameters: Readonly<Record<string, Tensor>>, batch: Batch): Tensor;
  /** Whether weight decay applies to a parameter. Default: to none. */
  decays?(name: string): boolean;
  /** Parameters in the layout they are stored in. Default: as they are. */
  stored?(parameters: ReadonlyMap<string, Weights>): Map<string, Weights>;
  /** Free what it holds. */
  close(): void;
}

export interface TrainerOptions {
  /** Updates in the whole run; the learning rate's schedule ends here. */
  readonly steps: number;
  /** Highest learning rate. Default 2e-3. */
  readonly learningRate?: number;
  /** Learning rate at the end. Default a tenth of the highest. */
  readonly finalLearningRate?: number;
  /** Steps of linear warm-up. Default 2 % of the steps. */
  readonly warmupSteps?: number;
  /** Decoupled decay of the parameters the objective names. Default 0.1. */
  readonly weightDecay?: number;
  /** Bound on the gradient's global norm. Default 1. */
  readonly clipNorm?: number;
  /** Default { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 }. */
  readonly adamW?: AdamWOptions;
  /** Validate after every so many steps, and at the end. Default 250. */
  readonly validateEvery?: number;
  /** Default 1. */
  readonly seed?: number;
}

/** One point of the learning curve: the objective's mean losses. The training loss averages the steps since the last point. */
export interface CurvePoint {
  readonly step: number;
  readonly trainingLoss: number;
  readonly validationLoss: number;
}

/** What one step reports. `gradientNorm` before clipping. */
export interface StepReport {
  readonly step: number;
  readonly loss: number;
  readonly gradientNorm: number;
  readonly learningRate: number;
}

/** A training run: holds parameters, moments and the step. Call `step` until `finished`, `close` at the end. */
export class Trainer<Batch> {
  readonly options: Required<TrainerOptions>;
  readonly #objective: Objective<Batch>;
  readonly #parameters: Map<string, Weights>;
  readonly #moments: Map<string, Moments>;
  readonly #curve: CurvePoint[] = [];
  readonly #random: Random;
  #step = 0;
  #lossSum = 0;
  #lossCount = 0;

  /**
   * @param objective closed with the run
   * @throws ArgumentError on options out of range
   */
  constructor(objective: Objective<Batch>, options: TrainerOptions) {
    this.options = settle(options);
    this.#objective = objective;
    this.#random = new Random(this.options.seed);
    this.#parameters = objective.initialWeights(this.#random.fork("weights"));
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

  /**
   * One update on the next batch; validates when due.
   * @throws ArgumentError naming the learning rate when the gradient is not finite any more
   */
  step(): StepReport {
    const { options } = this;
    const { loss, gradients } = this.#lossAndGradients(this.#objective.batch(this.#random.fork(`batch ${this.#step}`)));
    const gradientNorm = clipGlobalNorm([...gradients.values()], options.clipNorm);
    if (!Number.isFinite(gradientNorm)) {
      throw new ArgumentError("learningRate", "a rate at which training stays finite", options.learningRate);
    }
    const { steps, warmupSteps, learningRate: peak, finalLearningRate } = options;
    const learningRate = warmupCosine(this.#step, steps, warmupSteps, peak, finalLearningRate);
    this.#step++;
    for (const [name, { data }] of this.#parameters) {
      const decay = this.#objective.decays?.(name) ? options.weightDecay : 0;
      const moments = this.#moments.get(name)!;
      adamWStep(data, gradients.get(name)!, moments, this.#step, learningRate, decay, options.adamW);
    }
    this.#lossSum += loss;
    this.#lossCount++;
    if (this.#step % options.validateEvery === 0 || this.finished) {
      const trainingLoss = this.#lossSum / this.#lossCount;
      this.#curve.push({ step: this.#step, trainingLoss, validationLoss: this.validate() });
      this.#lossSum = 0;
      this.#lossCount = 0;
    }
    return { step: this.#step, loss, gradientNorm, learningRate };
  }

  /** Mean loss over the objective's validation batches. */
  validate(): number {
    const parameters = this.#tensors();
    let sum = 0;
    let batches = 0;
    for (const batch of this.#objective.validation()) {
      const loss = tidy(() => this.#objective.loss(parameters, batch));
      sum += loss.dataSync()[0] as number;
      batches++;
      loss.dispose();
    }
    for (const parameter of Object.values(parameters)) parameter.dispose();
    return sum / batches;
  }

  /** The weights as they are now, as they are stored; copies. */
  weights(): Map<string, Weights> {
    const copies = new Map(
      [...this.#parameters].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]),
    );
    return this.#objective.stored?.(copies) ?? copies;
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
      settings: this.#objective.settings,
      options: this.options,
    };
    return writeSafetensors(tensors, { run: JSON.stringify(run) });
  }

  /**
   * Take up a run where `save` left it.
   * @throws FormatError when the state is damaged, or belongs to a run with another objective or other options
   */
  restore(state: Uint8Array, source = "training state"): void {
    const { tensors, metadata } = readSafetensors(state, source);
    const run = parseRun(metadata["run"], source);
    const own = JSON.stringify([this.#objective.settings, this.options]);
    if (JSON.stringify([run.settings, run.options]) !== own) {
      throw new FormatError(
        source,
        "it belongs to a run with another objective or other options",
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

  /** Free what the run holds. */
  close(): void {
    this.#objective.close();
  }

  #lossAndGradients(batch: Batch): { loss: number; gradients: Map<string, Float32Array> } {
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

function settle(options: TrainerOptions): Required<TrainerOptions> {
  const learningRate = options.learningRate ?? 2e-3;
  const settled: Required<TrainerOptions> = {
    steps: options.steps,
    learningRate,
    finalLearningRate: options.finalLearningRate ?? learningRate / 10,
    warmupSteps: options.warmupSteps ?? Math.ceil(options.steps / 50),
    weightDecay: options.weightDecay ?? 0.1,
    clipNorm: options.clipNorm ?? 1,
    adamW: options.adamW ?? { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 },
    validateEvery: options.validateEvery ?? 250,
    seed: options.seed ?? 1,
  };
  for (const field of ["steps", "validateEvery"] as const) {
    if (!(Number.isSafeInteger(settled[field]) && settled[field] >= 1)) {
      throw new ArgumentError(`options.${field}`, "an integer >= 1", settled[field]);
    }
  }
  for (const field of ["learningRate", "clipNorm"] as const) {
    if (!(settled[field] > 0)) throw new ArgumentError(`options.${field}`, "a number > 0", settled[field]);
  }
  return settled;
}

interface SavedRun {
  readonly step: number;
  readonly lossSum: number;
  readonly lossCount: number;
  readonly curve: readonly CurvePoint[];
  readonly settings: unknown;
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
