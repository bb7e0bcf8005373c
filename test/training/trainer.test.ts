import { beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import { Decoder } from "../../src/model/decoder-session.ts";
import { type DecoderObjectiveOptions, decoderObjective } from "../../src/model/decoder-training.ts";
import { totalBits } from "../../src/model/evaluation.ts";
import { useBackend } from "../../src/tensor/backend.ts";
import { aliveTensors } from "../../src/tensor/ops.ts";
import { Random } from "../../src/tensor/random.ts";
import { readSafetensors, writeSafetensors } from "../../src/tensor/safetensors.ts";
import type { TokenStreams } from "../../src/training/sequences.ts";
import { Trainer, type TrainerOptions } from "../../src/training/trainer.ts";

const config: DecoderConfig = {
  vocabularySize: 12,
  width: 16,
  layers: 2,
  heads: 2,
  keyValueHeads: 1,
  headWidth: 8,
  hiddenWidth: 32,
  contextLength: 16,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: true,
  projectionBiases: false,
};
const gpt2: DecoderConfig = { ...config, architecture: "gpt2", keyValueHeads: 2, projectionBiases: true };
const both = [
  ["Llama", config],
  ["GPT-2", gpt2],
] as const;
const options: TrainerOptions = { steps: 8, learningRate: 1e-2, warmupSteps: 2, validateEvery: 3, seed: 5 };
const shapes: DecoderObjectiveOptions = { batchSize: 4, sequenceLength: 16, validationSequences: 8 };

/** Words of three ids, each one's last two fixed by its first: 2 of 3 tokens can be learned to certainty. */
function words(seed: number, count: number): Int32Array {
  const random = new Random(seed);
  const stream: number[] = [];
  for (let i = 0; i < count; i++) {
    const first = random.integer(4);
    stream.push(first, 4 + first, 8 + ((first * 3) % 4));
  }
  return Int32Array.from(stream);
}
const streams = { training: words(1, 400), validation: words(2, 100) };

function open(
  changes: Partial<TrainerOptions> = {},
  {
    shape = config,
    text = streams,
    ...sequences
  }: DecoderObjectiveOptions & { shape?: DecoderConfig; text?: TokenStreams } = {},
) {
  return new Trainer(decoderObjective(shape, text, { ...shapes, ...sequences }), { ...options, ...changes });
}

describe("training", () => {
  beforeAll(async () => {
    await useBackend("wasm");
  });

  it("stopped, saved and resumed gives the same weights, bit for bit, as never stopped", () => {
    const whole = open();
    while (!whole.finished) whole.step();
    for (const stop of [1, 3, 7]) {
      const first = open();
      while (first.stepsDone < stop) first.step();
      const state = first.save();
      const second = open();
      second.restore(state);
      expect(second.stepsDone).toBe(stop);
      while (!second.finished) second.step();
      for (const [name, { data }] of whole.weights()) expect(second.weights().get(name)!.data).toEqual(data);
      expect(second.curve).toEqual(whole.curve);
      expect(second.save()).toEqual(whole.save());
      first.close();
      second.close();
    }
    whole.close();
  });

  it("gives other weights for another seed, and the same for the same", () => {
    const run = (seed: number) => {
      const trainer = open({ steps: 2, seed });
      trainer.step();
      trainer.close();
      return trainer.weights().get("model.layers.0.mlp.up_proj.weight")!.data;
    };
    expect(run(1)).toEqual(run(1));
    expect(run(1)).not.toEqual(run(2));
  });

  it.each(both)("%s learns what can be learned, and no more: the law of the held-out words", (_, shape) => {
    const trainer = open({ steps: 150, validateEvery: 50 }, { shape });
    const before = trainer.validate();
    expect(before).toBeCloseTo(Math.log(12), 1);
    while (!trainer.finished) trainer.step();
    // One free choice of four in each word of three: log(4) / 3 nats a token is the floor.
    const floor = Math.log(4) / 3;
    expect(trainer.curve.map(({ step }) => step)).toEqual([50, 100, 150]);
    expect(trainer.curve.at(-1)!.validationLoss).toBeGreaterThan(floor - 0.03);
    expect(trainer.curve.at(-1)!.validationLoss).toBeLessThan(floor + 0.08);
    // The trained weights say the same through the session contract, in bits.
    const model = new Decoder(shape, trainer.weights());
    const bits = totalBits(model, streams.validation) / (streams.validation.length - 1);
    expect(bits).toBeCloseTo(trainer.curve.at(-1)!.validationLoss / Math.LN2, 1);
    model.close();
    trainer.close();
  });

  it.each(both)("%s leaks no tensors", (_, shape) => {
    const before = aliveTensors();
    const trainer = open({}, { shape });
    trainer.step();
    trainer.validate();
    const held = aliveTensors();
    trainer.step();
    trainer.validate();
    expect(aliveTensors()).toBe(held);
    trainer.close();
    expect(aliveTensors()).toBe(before);
  });

  it("refuses options, streams and states that cannot be meant", () => {
    expect(() => open({ steps: 0 })).toThrow(ArgumentError);
    expect(() => open({ learningRate: -1 })).toThrow(/learningRate/);
    expect(() => open({ clipNorm: Number.NaN })).toThrow(/clipNorm/);
    expect(() => open({}, { batchSize: 1.5 })).toThrow(/batchSize/);
    expect(() => open({}, { sequenceLength: 17 })).toThrow(/context/);
    expect(() => open({}, { weights: new Map() })).toThrow(FormatError);
    expect(() => open({}, { text: { ...streams, validation: new Int32Array(5) } })).toThrow(/validation/);
    expect(() => open({}, { text: { ...streams, training: words(1, 99).fill(12) } })).toThrow(/below 12/);

    const trainer = open();
    const state = trainer.save();
    const other = open({ seed: 6 });
    expect(() => other.restore(state)).toThrow(/another objective or other options/);
    expect(() => trainer.restore(state.subarray(0, state.length - 9))).toThrow(FormatError);
    expect(() => trainer.restore(new Uint8Array(4))).toThrow(FormatError);

    // The last moment of the file is not a number: nothing of the state may have been taken over.
    const before = trainer.save();
    const damaged = readSafetensors(open().save());
    const last = damaged.tensors.get("second.model.norm.weight")!;
    (last.data as Float32Array)[3] = Number.NaN;
    for (const [name, saved] of damaged.tensors) {
      if (name.startsWith("parameter.")) (saved.data as Float32Array).fill(1);
    }
    expect(() => trainer.restore(writeSafetensors(damaged.tensors, damaged.metadata))).toThrow(/second.*NaN/);
    expect(trainer.save()).toEqual(before);
    const shorter = open({}, { sequenceLength: 12 });
    expect(() => shorter.restore(state)).toThrow(/another objective/);
    for (const run of [trainer, other, shorter]) run.close();
  });

  it("goes on from weights it is given", () => {
    const first = open({ steps: 40, validateEvery: 40 });
    while (!first.finished) first.step();
    const weights = first.weights();
    const second = open({ steps: 1 }, { weights });
    expect(second.weights()).toEqual(weights);
    expect(second.validate()).toBe(first.validate());
    second.step();
    expect(second.weights()).not.toEqual(weights);
    expect(first.weights()).toEqual(weights);
    first.close();
    second.close();
  });

  it("stops with a clear error when training diverges", () => {
    const trainer = open({ steps: 60, learningRate: 1e30, warmupSteps: 0 });
    expect(() => {
      while (!trainer.finished) trainer.step();
    }).toThrow(/learningRate/);
    trainer.close();
  });
});
