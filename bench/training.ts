/**
 * Tokens per second of one training step (loss, gradients read back, AdamW) of a 0.8 M-parameter decoder on the wasm
 * backend: our layer against plain TensorFlow.js (`plain-decoder.ts`), interleaved in one run on the same batch.
 * Checked first: both compute the same loss and the same gradients, so it is the same work. Each figure stands beside
 * the same by processor time, which other jobs on the machine disturb less (every step here runs on one thread).
 *
 *     npx tsx bench/training.ts [--json]
 */
import { pathToFileURL } from "node:url";
import { batchConstants, batchLogits, initialWeights, isTransposed, transposed } from "../src/model/decoder.ts";
import { type DecoderConfig, parameterCount, parameterShapes } from "../src/model/decoder-config.ts";
import { decoderObjective } from "../src/model/decoder-training.ts";
import { useBackend } from "../src/tensor/backend.ts";
import { crossEntropy, read, tensor, valueAndGradients } from "../src/tensor/ops.ts";
import { Random } from "../src/tensor/random.ts";
import { type Tensor, tf } from "../src/tensor/tf.ts";
import { adamWStep, clipGlobalNorm, type Moments } from "../src/training/adamw.ts";
import { Trainer } from "../src/training/trainer.ts";
import { PlainDecoder } from "./plain-decoder.ts";

export const trainingBenchConfig: DecoderConfig = {
  vocabularySize: 1024,
  width: 128,
  layers: 4,
  heads: 4,
  keyValueHeads: 2,
  headWidth: 32,
  hiddenWidth: 344,
  contextLength: 128,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: true,
  projectionBiases: false,
};
const batch = 8;
const length = 128;
const learningRate = 1e-3;
const rounds = 7;

/** Median, least and most over the rounds. */
export interface Spread {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

/** Tokens per second of the clock and of processor time. */
export interface Speed {
  readonly wall: Spread;
  readonly processor: Spread;
}

export interface TrainingBench {
  readonly parameters: number;
  readonly tokensPerStep: number;
  readonly rounds: number;
  /** The step's parts on a fixed batch: `valueAndGradients`, clipping, `adamWStep`. */
  readonly ours: Speed;
  /** `Trainer.step()` as it is, with its own batches. */
  readonly trainer: Speed;
  readonly plain: Speed;
  /** ours / plain, round by round. */
  readonly ratio: Speed;
  readonly sameWork: {
    readonly ourLoss: number;
    readonly plainLoss: number;
    /** Largest difference of a gradient's element, over the largest element of that parameter's gradient. */
    readonly worstGradientDifference: number;
  };
}

/** Runs the bench and prints a table, or one JSON document. Takes about a minute. */
export async function benchTraining(options: { json?: boolean } = {}): Promise<TrainingBench> {
  const config = trainingBenchConfig;
  await useBackend("wasm");
  const random = new Random("training bench");
  const weights = initialWeights(config, random.fork("weights"));
  const ids = Int32Array.from({ length: batch * length }, () => random.integer(config.vocabularySize));
  const targets = Int32Array.from({ length: batch * length }, () => random.integer(config.vocabularySize));

  const parameters = new Map<string, Float32Array>();
  const shapes = new Map<string, readonly number[]>();
  const moments = new Map<string, Moments>();
  for (const [name, { shape, data }] of weights) {
    const [rows, columns] = shape as [number, number];
    parameters.set(name, isTransposed(name) ? transposed(data, rows, columns) : Float32Array.from(data));
    shapes.set(name, isTransposed(name) ? [columns, rows] : shape);
    moments.set(name, { first: new Float32Array(data.length), second: new Float32Array(data.length) });
  }
  const constants = batchConstants(config, batch, length);
  let step = 0;
  const ourGradients = (): { loss: number; gradients: Map<string, Float32Array> } => {
    const tensors: Record<string, Tensor> = {};
    for (const [name, data] of parameters) tensors[name] = tensor(data, shapes.get(name)!);
    const { value, gradients } = valueAndGradients(
      (p) => crossEntropy(batchLogits(config, p, ids, constants), targets),
      tensors,
    );
    const loss = read(value)[0]!;
    const arrays = new Map(Object.entries(gradients).map(([name, g]) => [name, g.dataSync() as Float32Array]));
    for (const t of [value, ...Object.values(gradients), ...Object.values(tensors)]) t.dispose();
    return { loss, gradients: arrays };
  };
  const ourStep = (): void => {
    const { gradients } = ourGradients();
    clipGlobalNorm([...gradients.values()], 1);
    step++;
    for (const [name, parameter] of parameters) {
      const decay = shapes.get(name)!.length > 1 ? 0.1 : 0;
      const rates = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };
      adamWStep(parameter, gradients.get(name)!, moments.get(name)!, step, learningRate, decay, rates);
    }
  };

  const plain = new PlainDecoder(config, weights, length, learningRate);
  const idTensor = tf.tensor2d(ids, [batch, length], "int32");
  const targetTensor = tf.tensor2d(targets, [batch, length], "int32");
  const sameWork = compare(config, ourGradients(), plain.gradients(idTensor, targetTensor));

  const stream = Int32Array.from({ length: 20_000 }, () => random.integer(config.vocabularySize));
  const streams = { training: stream, validation: stream };
  const trainer = new Trainer(decoderObjective(config, streams, { batchSize: batch, sequenceLength: length }), {
    steps: 1000,
    validateEvery: 1000,
  });

  interface Times {
    readonly wall: number[];
    readonly processor: number[];
  }
  const times: Record<"ours" | "trainer" | "plain", Times> = {
    ours: { wall: [], processor: [] },
    trainer: { wall: [], processor: [] },
    plain: { wall: [], processor: [] },
  };
  const runs = {
    ours: ourStep,
    trainer: () => trainer.step(),
    plain: () => plain.step(idTensor, targetTensor),
  };
  // The first round warms up and is not counted.
  for (let round = 0; round <= rounds; round++) {
    for (const name of ["ours", "plain", "trainer"] as const) {
      const used = process.cpuUsage();
      const start = performance.now();
      runs[name]();
      const wall = (performance.now() - start) / 1000;
      const { user, system } = process.cpuUsage(used);
      if (round === 0) continue;
      times[name].wall.push(wall);
      times[name].processor.push((user + system) / 1e6);
    }
  }
  trainer.close();
  plain.close();

  const tokens = batch * length;
  const perSecond = ({ wall, processor }: Times): Speed => ({
    wall: spread(wall.map((s) => tokens / s)),
    processor: spread(processor.map((s) => tokens / s)),
  });
  const ratio = (kind: "wall" | "processor"): Spread =>
    spread(times.plain[kind].map((s, i) => s / times.ours[kind][i]!));
  const result: TrainingBench = {
    parameters: parameterCount(config),
    tokensPerStep: tokens,
    rounds,
    ours: perSecond(times.ours),
    trainer: perSecond(times.trainer),
    plain: perSecond(times.plain),
    ratio: { wall: ratio("wall"), processor: ratio("processor") },
    sameWork,
  };
  print(result, options.json ?? false);
  return result;
}

/** @throws Error when losses differ by more than 1e-4 or a gradient by more than 1e-3 of its largest element */
function compare(
  config: DecoderConfig,
  ours: { loss: number; gradients: Map<string, Float32Array> },
  plain: { value: tf.Scalar; grads: tf.NamedTensorMap },
): TrainingBench["sameWork"] {
  const plainLoss = plain.value.dataSync()[0] as number;
  let worst = 0;
  for (const [name, shape] of parameterShapes(config)) {
    const theirs = plain.grads[name]!.dataSync() as Float32Array;
    const raw = ours.gradients.get(name)!;
    const mine = isTransposed(name) ? transposed(raw, shape[1]!, shape[0]!) : raw;
    let largest = 0;
    let difference = 0;
    for (let i = 0; i < theirs.length; i++) {
      largest = Math.max(largest, Math.abs(theirs[i]!));
      difference = Math.max(difference, Math.abs(theirs[i]! - mine[i]!));
    }
    if (!(largest > 0)) throw new Error(`the gradient of ${name} is zero: it proves nothing`);
    worst = Math.max(worst, difference / largest);
  }
  plain.value.dispose();
  for (const gradient of Object.values(plain.grads)) gradient.dispose();
  const sameWork = { ourLoss: ours.loss, plainLoss, worstGradientDifference: worst };
  if (!(Math.abs(ours.loss - plainLoss) <= 1e-4 && worst <= 1e-3)) {
    throw new Error(`the two decoders differ, so their times do not compare: ${JSON.stringify(sameWork)}`);
  }
  return sameWork;
}

function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  return { median: sorted[sorted.length >> 1]!, lowest: sorted[0]!, highest: sorted.at(-1)! };
}

function print(result: TrainingBench, json: boolean): void {
  if (json) {
    console.log(JSON.stringify(result, undefined, 2));
    return;
  }
  const { sameWork } = result;
  const column = (values: readonly (number | string)[], digits = 0): string =>
    values.map((v) => (typeof v === "number" ? v.toFixed(digits) : v).padStart(8)).join("");
  const line = (what: string, { wall, processor }: Speed, digits: number): void => {
    const shown = [wall, processor].map(({ median, lowest, highest }) => column([median, lowest, highest], digits));
    console.log(`${what.padEnd(32)}${shown.join("  |")}`);
  };
  console.log(
    `One training step, ${result.parameters} parameters, ${result.tokensPerStep} tokens, wasm, ${result.rounds} rounds`,
  );
  const heads = column(["median", "least", "most"]);
  console.log(`${"tokens per second".padEnd(32)}${heads}  |${heads} by processor time`);
  line("tokenthrift", result.ours, 0);
  line("tokenthrift, Trainer.step()", result.trainer, 0);
  line("plain TensorFlow.js", result.plain, 0);
  line("ratio, tokenthrift / plain", result.ratio, 2);
  console.log(
    `same work: losses ${sameWork.ourLoss.toFixed(6)} and ${sameWork.plainLoss.toFixed(6)}, ` +
      `gradients within ${sameWork.worstGradientDifference.toExponential(1)} of each one's largest element`,
  );
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await benchTraining({ json: process.argv.includes("--json") });
}
