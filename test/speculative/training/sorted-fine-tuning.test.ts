import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { batchConstants, disposeConstants, parametersFromWeights } from "../../../src/model/decoder.ts";
import { decoderObjective } from "../../../src/model/decoder-training.ts";
import { Engine } from "../../../src/model/engine.ts";
import type { Weights } from "../../../src/model/weights.ts";
import { earlyExitModel } from "../../../src/speculative/index.ts";
import { exitLogits, sortedFineTuningObjective } from "../../../src/speculative/training/sorted-fine-tuning.ts";
import { useBackend } from "../../../src/tensor/backend.ts";
import { aliveTensors, read, tidy } from "../../../src/tensor/ops.ts";
import { Random } from "../../../src/tensor/random.ts";
import type { Tensor } from "../../../src/tensor/tf.ts";
import { Trainer } from "../../../src/training/trainer.ts";
import { tinyConfig, tinyWeights } from "../tiny-target.ts";

const config = { ...tinyConfig, layers: 4 };
const weights = tinyWeights(config);
/** A text with something to learn: every token is the one before and seven. */
const stream = Int32Array.from({ length: 200 }, (_, i) => (7 * i) % config.vocabularySize);
const streams = { training: stream, validation: stream };
const sizes = { batchSize: 2, sequenceLength: 7, validationSequences: 4 };

/** The objective's loss of one batch at some weights. */
function lossOf(
  objective: ReturnType<typeof sortedFineTuningObjective>,
  at: ReadonlyMap<string, Weights> = weights,
): number {
  const parameters = parametersFromWeights(at);
  const batch = objective.batch(new Random("batch"));
  const loss = tidy(() => objective.loss(parameters, batch));
  const value = loss.dataSync()[0]!;
  loss.dispose();
  for (const parameter of Object.values<Tensor>(parameters)) parameter.dispose();
  objective.close();
  return value;
}

const sorted = (exits: readonly number[]) => sortedFineTuningObjective(config, weights, streams, { exits, ...sizes });

describe("sorted fine-tuning", () => {
  beforeAll(async () => {
    await useBackend("wasm");
  });
  afterEach(() => expect(aliveTensors()).toBe(0));

  it("trains the logits that the running exits give", async () => {
    const batch = 2;
    const length = 6;
    const exits = [1, 3, 4];
    const ids = stream.slice(0, batch * length);
    const constants = batchConstants(config, batch, length);
    const parameters = parametersFromWeights(weights);
    const expected: Float32Array[] = [];
    tidy(() => {
      expected.push(...exitLogits(config, parameters, ids, constants, exits).map(read));
      return undefined;
    });
    for (const parameter of Object.values<Tensor>(parameters)) parameter.dispose();
    disposeConstants(constants);
    const engine = await Engine.open(config, weights);
    exits.forEach((exit, e) => {
      for (let s = 0; s < batch; s++) {
        const session = earlyExitModel(engine, { exits: [exit] }).openSession();
        const { data } = session.extend(ids.subarray(s * length, (s + 1) * length), { logits: "all" }).logits;
        data.forEach((logit, i) => {
          expect(Math.abs(logit - expected[e]![s * data.length + i]!)).toBeLessThan(1e-4);
        });
        session.close();
      }
    });
    engine.close();
  });

  it("means the cross-entropies of its exits, each the plain one where it is the only exit", () => {
    const alone = [1, 2, 4].map((exit) => lossOf(sorted([exit])));
    expect(new Set(alone.map((loss) => loss.toFixed(3))).size).toBe(3);
    expect(lossOf(sorted([1, 2, 4]))).toBeCloseTo(alone.reduce((a, b) => a + b) / 3, 5);
    expect(alone[2]).toBeCloseTo(lossOf(decoderObjective(config, streams, { weights, ...sizes })), 5);
  });

  it("is the plain cross-entropy where the layers above the first exit change nothing", () => {
    const idle = new Map(weights);
    for (const [name, { shape, data }] of weights) {
      if (/layers\.[1-3]\..*(o_proj|down_proj)/.test(name))
        idle.set(name, { shape, data: new Float32Array(data.length) });
    }
    const plain = lossOf(decoderObjective(config, streams, { weights, ...sizes }), idle);
    for (const exits of [[1, 2, 3, 4], [1, 4], [4]]) expect(lossOf(sorted(exits), idle)).toBeCloseTo(plain, 6);
    expect(lossOf(sorted([1, 4]))).not.toBeCloseTo(plain, 2);
  });

  it("makes every exit better, where the control makes the last one better", () => {
    const losses = (exits: readonly number[]): number[] => {
      const trainer = new Trainer(sorted(exits), { steps: 20, learningRate: 1e-2, weightDecay: 0, validateEvery: 20 });
      while (!trainer.finished) trainer.step();
      const trained = trainer.weights();
      trainer.close();
      return [1, 4].map((exit) => lossOf(sorted([exit]), trained));
    };
    const [first, last] = [lossOf(sorted([1])), lossOf(sorted([4]))];
    const soft = losses([1, 4]);
    const sft = losses([4]);
    expect(soft[0]).toBeLessThan(first - 0.3);
    expect(soft[1]).toBeLessThan(last - 0.3);
    expect(sft[1]).toBeLessThan(last - 0.3);
    expect(sft[0]).toBeGreaterThan(soft[0]! + 0.1);
  });

  it("refuses exits the decoder has not", () => {
    for (const exits of [[], [0], [2, 1], [5]]) expect(() => sorted(exits)).toThrow(/exits/);
  });
});
