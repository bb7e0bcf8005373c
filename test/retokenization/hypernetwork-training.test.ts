import { beforeAll, describe, expect, it } from "vitest";
import { hypernetworkShapes, scalerShapes } from "../../src/retokenization/hypernetwork.ts";
import { SurfaceForms } from "../../src/retokenization/surface-forms.ts";
import {
  auxiliaryLoss,
  hypernetworkObjective,
  SampledBatches,
} from "../../src/retokenization/training/hypernetwork-training.ts";
import { useBackend } from "../../src/tensor/backend.ts";
import { aliveTensors, read, tensor } from "../../src/tensor/ops.ts";
import { Random } from "../../src/tensor/random.ts";
import { Trainer, type TrainerOptions } from "../../src/training/trainer.ts";
import { toyConfig, toyText, toyTokenizer, toyWeights } from "./toy-model.ts";

const source = { config: toyConfig, weights: toyWeights, tokenizer: toyTokenizer };
const texts = { training: [toyText], validation: [toyText] };
const small = {
  batchSize: 2,
  sequenceLength: 12,
  sizes: [270, 300],
  negatives: 10,
  pool: 4,
  validationBatches: 2,
} as const;
const open = (options: Partial<TrainerOptions> = {}) =>
  new Trainer(hypernetworkObjective(source, texts, small), {
    steps: 4,
    learningRate: 3e-3,
    validateEvery: 2,
    ...options,
  });
const batches = new SampledBatches(toyTokenizer, { ...small, pattern: toyTokenizer.pattern });

beforeAll(async () => {
  await useBackend("wasm");
});

describe("training the hypernetwork", () => {
  it("reads texts in a new tokenizer each time, single pieces first, each form that of its bytes", () => {
    const batch = batches.random(new Random(1), toyText);
    const { forms, singles, ids, targets, bias } = batch;
    forms.forEach((form, at) => {
      expect(form.length === 1).toBe(at < singles);
    });
    expect(forms).toContainEqual([toyTokenizer.specialTokens.get("<|endoftext|>")]);
    // The second sequence, read back as bytes, is text; a token's target is the next token.
    const pieces = Array.from(ids.subarray(12, 24)).flatMap((id) => forms[id]!);
    expect(toyText).toContain(toyTokenizer.decode(pieces));
    expect(targets.subarray(12, 23)).toEqual(ids.subarray(13, 24));
    expect(batches.random(new Random(1), toyText)).toEqual(batch);
    expect(batches.random(new Random(2), toyText).forms).not.toEqual(forms);
    // Drawn tokens stand for all that are left: with them the vocabulary counts as it is.
    const counted = bias.reduce((sum, b) => sum + Math.exp(b), 0);
    const whole = new SampledBatches(toyTokenizer, { ...small, negatives: 1e6, pattern: toyTokenizer.pattern });
    const all = whole.random(new Random(1), toyText);
    expect(all.bias.every((b) => b === 0)).toBe(true);
    expect(counted).toBeCloseTo(all.forms.length, 3);
    expect(bias.filter((b) => b > 0)).toHaveLength(10);
  });

  it("has an auxiliary loss of 0 for the identity alone; by hand 1 / 5 for [3, 4] said as [3, 5]", () => {
    const loss = (said: number[], own: number[]): number => {
      const x = tensor(Float32Array.from(said), [said.length / 2, 2]);
      const value = auxiliaryLoss(x, Float32Array.from(own));
      const result = read(value)[0]!;
      x.dispose();
      value.dispose();
      return result;
    };
    expect(loss([3, 4, 0, 1], [3, 4, 0, 1])).toBe(0);
    expect(loss([3, 5], [3, 4])).toBeCloseTo(1 / 5, 6);
    expect(loss([3, 5, 0, 1], [3, 4, 0, 1])).toBeCloseTo(0.5 / 3, 6);
  });

  it("stopped and resumed gives the same weights, bit for bit, and leaves no tensors behind", () => {
    const before = aliveTensors();
    const whole = open();
    while (!whole.finished) whole.step();
    const first = open();
    first.step();
    const second = open();
    second.restore(first.save());
    while (!second.finished) second.step();
    for (const [name, { data }] of whole.weights()) expect(second.weights().get(name)!.data).toEqual(data);
    for (const trainer of [whole, first, second]) trainer.close();
    expect(aliveTensors()).toBe(before);
  });

  it("learns: the held-out loss falls, and the scalers stay", () => {
    const trainer = open({ steps: 60, validateEvery: 60, learningRate: 1e-2 });
    const before = trainer.validate();
    const start = trainer.weights();
    while (!trainer.finished) trainer.step();
    expect(trainer.validate()).toBeLessThan(before - 0.1);
    const end = trainer.weights();
    trainer.close();
    const config = {
      width: 12,
      vocabularySize: toyConfig.vocabularySize,
      tied: true,
      layers: 2,
      heads: 1,
      hiddenWidth: 24,
      longest: 7,
    };
    for (const name of scalerShapes(config).keys()) expect(end.get(name)!.data).toEqual(start.get(name)!.data);
    for (const name of hypernetworkShapes(config).keys()) {
      // The key's bias adds the same to all scores of a query: softmax forgets it.
      if (!name.endsWith("key.bias")) expect(end.get(name)!.data, name).not.toEqual(start.get(name)!.data);
    }
  });

  it("begins where it is told, and only from all of its weights", () => {
    const first = open();
    while (!first.finished) first.step();
    const weights = first.weights();
    const second = new Trainer(hypernetworkObjective(source, texts, { ...small, weights }), { steps: 1 });
    expect(second.weights()).toEqual(weights);
    expect(second.validate()).toBe(first.validate());
    first.close();
    second.close();
    const incomplete = new Map([...weights].slice(1));
    expect(() => hypernetworkObjective(source, texts, { ...small, weights: incomplete })).toThrow(/options.weights/);
  });

  it("refuses sizes below the bytes, and too little text", () => {
    const bad = (options: object) => () => hypernetworkObjective(source, texts, { ...small, ...options });
    expect(bad({ sizes: [200, 300] })).toThrow(/options.sizes/);
    expect(bad({ sizes: [400, 300] })).toThrow(/options.sizes/);
    expect(bad({ pool: 0 })).toThrow(/options.pool/);
    expect(bad({ negatives: -1 })).toThrow(/options.negatives/);
    expect(() => batches.random(new Random(1), "short")).toThrow(/text: expected at least/);
  });
});

describe("surface forms", () => {
  it("of the vocabulary itself are one id each, the token's own; of others the pieces of their bytes", () => {
    const forms = new SurfaceForms(toyTokenizer);
    for (let id = 0; id < toyTokenizer.vocabularySize - 1; id++) {
      expect(forms.of(toyTokenizer.tokenBytes(id))).toEqual([id]);
    }
    const bytes = new TextEncoder().encode("lower(new");
    expect(toyTokenizer.decode(forms.of(bytes))).toBe("lower(new");
    // Across what the split pattern would cut, cut characters, and at most seven.
    expect(forms.of(Uint8Array.of(0xc3))).toEqual(Array.from(toyTokenizer.encode("Ã")).slice(0, 1));
    expect(forms.of(new TextEncoder().encode("ÀÁÂÃÄÅ"))).toHaveLength(7);
    expect(new SurfaceForms(toyTokenizer, 2).of(bytes)).toEqual(forms.of(bytes).slice(0, 2));
    expect(() => forms.of(new Uint8Array(0))).toThrow(/bytes/);
    expect(() => new SurfaceForms(toyTokenizer, 0)).toThrow(/longest/);
  });
});
