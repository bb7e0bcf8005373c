import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { batchConstants, batchLogits, disposeConstants, parametersFromWeights } from "../../../src/model/decoder.ts";
import { Decoder } from "../../../src/model/decoder-session.ts";
import { surprise } from "../../../src/model/evaluation.ts";
import { row } from "../../../src/model/language-model.ts";
import { type ExitScheduleOptions, exitSchedule, skipDecode } from "../../../src/speculative/skipdecode.ts";
import { SkipDecodeDefinition, skipDecodeObjective } from "../../../src/speculative/training/skipdecode-training.ts";
import { useBackend } from "../../../src/tensor/backend.ts";
import { aliveTensors, read, tensor, tidy, valueAndGradients } from "../../../src/tensor/ops.ts";
import { Random } from "../../../src/tensor/random.ts";
import type { Tensor } from "../../../src/tensor/tf.ts";
import { Trainer } from "../../../src/training/trainer.ts";
import { gpt2, lively, tied } from "../../model/lively-decoders.ts";

const layers = 4;
const shape = { ...tied, layers };
const batch = 2;
const length = 12;
const decaying: ExitScheduleOptions = { layers, most: 4, least: 2, promptLength: 4, length };
const random = new Random("text");
const ids = Int32Array.from({ length: batch * length }, () => random.integer(shape.vocabularySize));
const rows = length - 4 + 1;

describe("the parallel form", () => {
  beforeAll(async () => {
    await useBackend("wasm");
  });
  afterEach(() => expect(aliveTensors()).toBe(0));

  function parallel(config: typeof shape, options: ExitScheduleOptions): Float32Array {
    const definition = new SkipDecodeDefinition(config, exitSchedule(options), batch);
    let logits: Float32Array = new Float32Array(0);
    tidy(() => {
      logits = read(definition.logits(parametersFromWeights(lively(config, 1)), ids));
      return undefined;
    });
    definition.close();
    return logits;
  }

  it.each<[string, typeof shape, ExitScheduleOptions]>([
    ["Llama's", shape, decaying],
    ["GPT-2's", { ...gpt2, layers }, decaying],
    ["without warm-up", shape, { ...decaying, least: 1, warmUp: 0 }],
    ["never all layers", shape, { ...decaying, most: 3, least: 1 }],
    ["leaving at the bottom", shape, { ...decaying, least: 1, skips: "upper" }],
  ])("is what decoding computes step by step with a cache: %s", (_, config, options) => {
    const logits = parallel(config, options);
    expect(logits.length).toBe(batch * rows * config.vocabularySize);
    const model = new Decoder(config, lively(config, 1));
    let [worst, largest] = [0, 0];
    for (let s = 0; s < batch; s++) {
      const session = skipDecode(model, exitSchedule(options)).openSession();
      for (let column = 0; column < length; column++) {
        const step = session.extend([ids[s * length + column]!]).logits.data;
        if (column < 3) continue;
        const at = (s * rows + column - 3) * config.vocabularySize;
        step.forEach((value, i) => {
          worst = Math.max(worst, Math.abs(value - logits[at + i]!));
          largest = Math.max(largest, Math.abs(value));
        });
      }
    }
    model.close();
    expect(worst).toBeLessThan(1e-5 * Math.max(1, largest));
  });

  it("is the decoder's own where nothing is skipped, and another's where something is", () => {
    const constants = batchConstants(shape, batch, length);
    let whole: Float32Array = new Float32Array(0);
    tidy(() => {
      whole = read(batchLogits(shape, parametersFromWeights(lively(shape, 1)), ids, constants));
      return undefined;
    });
    disposeConstants(constants);
    const ofRow = (s: number, r: number) => {
      const at = (s * length + 3 + r) * shape.vocabularySize;
      return whole.subarray(at, at + shape.vocabularySize);
    };
    const full = parallel(shape, { ...decaying, least: 4 });
    const falling = parallel(shape, decaying);
    for (let s = 0; s < batch; s++) {
      for (let r = 0; r < rows; r++) {
        const at = (s * rows + r) * shape.vocabularySize;
        const same = (logits: Float32Array) => ofRow(s, r).every((value, i) => value === logits[at + i]);
        expect(same(full)).toBe(true);
        // 4 4 4 3 3 3 3 2 2 from the prompt's last column on: the first rows run everything.
        if (r >= 4) expect(same(falling)).toBe(false);
      }
    }
  });
});

describe("the objective", () => {
  beforeAll(async () => {
    await useBackend("wasm");
  });
  afterEach(() => expect(aliveTensors()).toBe(0));

  const stream = Int32Array.from({ length: 400 }, (_, i) => (i * i + (i % 5)) % shape.vocabularySize);
  const streams = { training: stream.subarray(0, 300), validation: stream.subarray(300) };
  const open = (options = {}) =>
    skipDecodeObjective(shape, lively(shape, 1), exitSchedule({ ...decaying, ...options }), streams, {
      batchSize: batch,
      validationSequences: 4,
    });
  const tensors = (objective: ReturnType<typeof open>): Record<string, Tensor> => {
    const parameters: Record<string, Tensor> = {};
    for (const [name, { shape, data }] of objective.initialWeights(new Random(0)))
      parameters[name] = tensor(data, shape);
    return parameters;
  };
  const dispose = (parameters: Record<string, Tensor>) => {
    for (const parameter of Object.values(parameters)) parameter.dispose();
  };

  it("is the surprise at the tokens after the prompt, each under its column's budget", () => {
    const objective = open();
    const given = objective.batch(new Random(3));
    const parameters = tensors(objective);
    const loss = tidy(() => objective.loss(parameters, given));
    const got = read(loss)[0]!;
    loss.dispose();
    dispose(parameters);
    objective.close();

    const model = new Decoder(shape, lively(shape, 1));
    let bits = 0;
    for (let s = 0; s < batch; s++) {
      const session = skipDecode(model, exitSchedule(decaying)).openSession();
      const text = given.ids.subarray(s * length, (s + 1) * length);
      const { logits } = session.extend(text, { logits: "all" });
      for (let r = 0; r < rows; r++) {
        const next = given.targets[s * rows + r]!;
        if (r + 1 < rows) expect(next).toBe(text[4 + r]);
        bits += surprise(row(logits, 3 + r), next);
      }
    }
    model.close();
    expect(got).toBeCloseTo((bits * Math.LN2) / (batch * rows), 4);
  });

  it("has the slope that its values say, in layers that run always and in one that rests", () => {
    const objective = open();
    const given = objective.batch(new Random(4));
    const parameters = tensors(objective);
    const { value, gradients } = valueAndGradients((p) => objective.loss(p, given), parameters);
    for (const layer of [0, 1, 3]) {
      const name = `model.layers.${layer}.self_attn.k_proj.weight`;
      const gradient = read(gradients[name]!);
      // Along the gradient itself: the slope is its length.
      const size = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
      expect(size).toBeGreaterThan(1e-4);
      const base = read(parameters[name]!).slice();
      const at = (step: number): number => {
        const moved = tensor(
          base.map((w, i) => w + (step * gradient[i]!) / size),
          parameters[name]!.shape,
        );
        const loss = tidy(() => objective.loss({ ...parameters, [name]: moved }, given));
        const result = read(loss)[0]!;
        loss.dispose();
        moved.dispose();
        return result;
      };
      expect((at(0.01) - at(-0.01)) / 0.02 / size).toBeCloseTo(1, 1);
    }
    for (const used of [value, ...Object.values(gradients)]) used.dispose();
    dispose(parameters);
    objective.close();
  });

  it("teaches a decoder to skip", () => {
    const objective = open();
    const trainer = new Trainer(objective, { steps: 40, learningRate: 1e-2, seed: 1 });
    const before = trainer.validate();
    while (!trainer.finished) trainer.step();
    expect(trainer.curve.at(-1)!.validationLoss).toBeLessThan(before - 0.5);
    // Stored as a checkpoint has them: a decoder takes them as they are.
    const model = new Decoder(shape, trainer.weights());
    trainer.close();
    model.close();
  });

  it("refuses streams shorter than a sequence", () => {
    const short = { ...streams, validation: stream.subarray(0, 12) };
    const schedule = exitSchedule(decaying);
    expect(() => skipDecodeObjective(shape, lively(shape, 1), schedule, short)).toThrow("streams.validation");
  });
});
