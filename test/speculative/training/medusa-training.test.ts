import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { openKernels } from "../../../src/kernels/kernels.ts";
import { TableModel } from "../../../src/model/table-model.ts";
import { MedusaHeads } from "../../../src/speculative/index.ts";
import { medusaLogits, medusaObjective, transposedHead } from "../../../src/speculative/training/medusa-training.ts";
import { TargetStates } from "../../../src/speculative/training/target-states.ts";
import { useBackend } from "../../../src/tensor/backend.ts";
import { aliveTensors, read, tensor, tidy } from "../../../src/tensor/ops.ts";
import { Random } from "../../../src/tensor/random.ts";
import type { Tensor } from "../../../src/tensor/tf.ts";
import { medusaWeights, tinyConfig, tinyTarget } from "../tiny-target.ts";

const target = tinyTarget();
const { width, vocabularySize, normEpsilon } = tinyConfig;
const count = 3;
const rows = 5;

describe("Medusa's definition", () => {
  beforeAll(async () => {
    await useBackend("wasm");
  });
  afterEach(() => expect(aliveTensors()).toBe(0));

  const kinds = (["simd", "plain"] as const).flatMap((kernels) =>
    [false, true].map((tied) => [kernels, tied] as const),
  );
  it.each(kinds)("is what the running heads compute: %s, tied %s", async (kernels, tied) => {
    const weights = medusaWeights(target, count, tied);
    const random = new Random("states");
    const raw = Array.from({ length: rows }, () => Float32Array.from({ length: width }, () => 2 * random.normal()));
    const hidden = new Float32Array(rows * width);
    raw.forEach((state, r) => {
      const size = Math.sqrt(state.reduce((sum, x) => sum + x * x, 0) / width + normEpsilon);
      state.forEach((x, i) => {
        hidden[r * width + i] = (x / size) * target.norm[i]!;
      });
    });
    const expected: Float32Array[] = [];
    tidy(() => {
      const parameters: Record<string, Tensor> = {};
      for (const [name, { shape, data }] of weights) parameters[name] = tensor(data, shape);
      const head = tensor(transposedHead(target), [width, vocabularySize]);
      for (let k = 0; k < count; k++) {
        expected.push(read(medusaLogits(parameters, k, tensor(hidden, [rows, width]), head)));
      }
      return undefined;
    });
    const heads = new MedusaHeads(target, weights, await openKernels({ kernels }));
    let worst = 0;
    raw.forEach((state, r) => {
      const { data } = heads.logits(state);
      data.forEach((logit, i) => {
        const [k, id] = [Math.floor(i / vocabularySize), i % vocabularySize];
        worst = Math.max(worst, Math.abs(logit - expected[k]![r * vocabularySize + id]!));
      });
    });
    expect(worst).toBeLessThan(1e-4);
  });

  it("weighs head k's loss by decay^k, against the token k places after the pending one", () => {
    const batch = 2;
    const length = 6;
    const random = new Random("loss");
    const ids = Int32Array.from({ length: batch * length }, () => random.integer(vocabularySize));
    const hidden = Float32Array.from({ length: batch * length * width }, () => random.normal());
    const weights = medusaWeights(target, 2);
    const text = { training: ids, validation: ids };
    const model = new TableModel({ vocabularySize, contextLength: 32, law: () => new Array(vocabularySize).fill(1) });
    const states = new TargetStates(model, target, text, { sequenceLength: length });
    const objective = medusaObjective(states, { heads: 2, decay: 0.5 });
    let expected = 0;
    const losses = tidy(() => {
      const parameters: Record<string, Tensor> = {};
      for (const [name, { shape, data }] of weights) parameters[name] = tensor(data, shape);
      const head = tensor(transposedHead(target), [width, vocabularySize]);
      for (let k = 0; k < 2; k++) {
        const logits = read(medusaLogits(parameters, k, tensor(hidden, [batch * length, width]), head));
        let sum = 0;
        let places = 0;
        for (let s = 0; s < batch; s++) {
          for (let t = 0; t + k + 2 < length; t++) {
            const row = Array.from(logits.subarray((s * length + t) * vocabularySize).subarray(0, vocabularySize));
            const logSum = Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0));
            sum += logSum - row[ids[s * length + t + k + 2]!]!;
            places += 1;
          }
        }
        expected += 0.5 ** (k + 1) * (sum / places);
      }
      return objective.loss(parameters, { batch, length, ids, hidden, logits: new Float32Array(0) });
    });
    expect(losses.dataSync()[0]).toBeCloseTo(expected, 4);
    losses.dispose();
    objective.close();
  });
});
