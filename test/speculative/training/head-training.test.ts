import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, FormatError } from "../../../src/errors.ts";
import { openKernels } from "../../../src/kernels/kernels.ts";
import { Engine } from "../../../src/model/engine.ts";
import { type LanguageModel, row } from "../../../src/model/language-model.ts";
import { TableModel } from "../../../src/model/table-model.ts";
import { chimeraNames } from "../../../src/speculative/chimera-heads.ts";
import {
  ChimeraHeads,
  chimeraAccuracies,
  MedusaHeads,
  medusaAccuracies,
  trigramAt,
} from "../../../src/speculative/index.ts";
import { medusaNames } from "../../../src/speculative/medusa.ts";
import { chimeraObjective } from "../../../src/speculative/training/chimera-training.ts";
import { medusaObjective } from "../../../src/speculative/training/medusa-training.ts";
import { TargetStates } from "../../../src/speculative/training/target-states.ts";
import { useBackend } from "../../../src/tensor/backend.ts";
import { aliveTensors } from "../../../src/tensor/ops.ts";
import { Random } from "../../../src/tensor/random.ts";
import { readSafetensors, writeSafetensors } from "../../../src/tensor/safetensors.ts";
import type { SequenceOptions } from "../../../src/training/sequences.ts";
import { type Objective, Trainer, type TrainerOptions } from "../../../src/training/trainer.ts";
import { withHidden } from "../hidden-table.ts";
import { tinyConfig, tinyTarget, tinyWeights } from "../tiny-target.ts";

const target = tinyTarget();
const random = new Random("text");
const noise = Int32Array.from({ length: 400 }, () => random.integer(tinyConfig.vocabularySize));
const streams = { training: noise, validation: noise.slice(200) };
const options: TrainerOptions = { steps: 6, learningRate: 1e-2, warmupSteps: 2, validateEvery: 4, seed: 5 };
const shapes: SequenceOptions = { batchSize: 2, sequenceLength: 12, validationSequences: 4 };
type MakeObjective = (states: TargetStates) => Objective<unknown>;
const objectives = {
  Medusa: (states: TargetStates) => medusaObjective(states, { heads: 2 }),
  Chimera: (states: TargetStates) => chimeraObjective(states, { heads: 2 }),
};

describe("training heads", () => {
  let model: Engine;
  beforeAll(async () => {
    await useBackend("wasm");
    model = await Engine.open(tinyConfig, tinyWeights());
  });
  afterAll(() => {
    expect(aliveTensors()).toBe(0);
    model.close();
  });
  const trainer = (
    objective: MakeObjective,
    changes: Partial<TrainerOptions> = {},
    {
      text = streams,
      reader = model,
      ...sequences
    }: Partial<SequenceOptions> & { text?: typeof streams; reader?: LanguageModel } = {},
  ) =>
    new Trainer(objective(new TargetStates(reader, target, text, { ...shapes, ...sequences })), {
      ...options,
      ...changes,
    });

  it.each(Object.entries(objectives))(
    "%s: stopped, saved and resumed gives the same weights, bit for bit, as never stopped",
    (_, objective) => {
      const whole = trainer(objective);
      while (!whole.finished) whole.step();
      const first = trainer(objective);
      for (let i = 0; i < 3; i++) first.step();
      const state = first.save();
      first.close();
      const second = trainer(objective);
      second.restore(state);
      expect(second.stepsDone).toBe(3);
      while (!second.finished) second.step();
      expect(second.weights()).toEqual(whole.weights());
      expect(second.curve).toEqual(whole.curve);
      expect(whole.curve.map(({ step }) => step)).toEqual([4, 6]);
      whole.close();
      second.close();
    },
  );

  it("refuses options out of range, short texts, and states of other runs or none, and is unchanged then", () => {
    for (const bad of [{ batchSize: 1.5 }, { sequenceLength: 33 }, { validationSequences: 0 }]) {
      expect(() => trainer(objectives.Medusa, {}, bad)).toThrow(ArgumentError);
    }
    const text = { ...streams, training: noise.slice(0, 12) };
    expect(() => trainer(objectives.Medusa, {}, { text })).toThrow(/more than 12/);
    const run = trainer(objectives.Medusa);
    run.step();
    const before = run.weights();
    const { tensors, metadata } = readSafetensors(run.save());
    const name = `first.${medusaNames.bias(0)}`;
    const changed = new Map(tensors);
    changed.delete(name);
    expect(() => run.restore(writeSafetensors(changed, metadata))).toThrow(name);
    expect(() => run.restore(writeSafetensors(tensors, {}))).toThrow(FormatError);
    const other = trainer(objectives.Medusa, { seed: 6 });
    expect(() => other.restore(run.save())).toThrow(/other options/);
    expect(run.weights()).toEqual(before);
    run.close();
    other.close();
  });

  it("begins where it should: Medusa as the target's head, Chimera as what it is given, read out by the target's head", () => {
    const medusa = trainer(objectives.Medusa);
    expect(medusa.weights().get(medusaNames.output(1))!.data).toEqual(target.outputHead);
    expect(
      medusa
        .weights()
        .get(medusaNames.residual(0))!
        .data.every((x) => x === 0),
    ).toBe(true);
    medusa.close();
    const tied = trainer((states) => medusaObjective(states, { heads: 2, tied: true }));
    expect([...tied.weights().keys()].filter((name) => name === medusaNames.output(0))).toEqual([]);
    tied.step();
    tied.close();
    const block = tinyWeights();
    const chimera = trainer((states) => chimeraObjective(states, { heads: 2, block }));
    const name = "model.layers.0.mlp.gate_proj.weight";
    expect(chimera.weights().get(name)).toEqual(block.get(name));
    const { data } = chimera.weights().get(chimeraNames.head(1))!;
    const { width } = tinyConfig;
    data.forEach((value, i) => {
      expect(value).toBe(i % (2 * width) === width + Math.floor(i / (2 * width)) ? 1 : 0);
    });
    chimera.close();
  });

  // Guards against a target one place off: where the text is a function of the token before, every head must become sure
  // of its own place, and the places beside it are other tokens.
  const cycle = Int32Array.from({ length: 600 }, (_, i) => (5 * (i % 7)) % 19);
  const learning = { steps: 60, learningRate: 2e-2, validateEvery: 1000 };
  const reading = { sequenceLength: 20, batchSize: 1, text: { training: cycle, validation: cycle } };

  it("Medusa's head k learns the token k places after the pending one", async () => {
    const run = trainer(objectives.Medusa, { ...learning, steps: 150 }, reading);
    while (!run.finished) run.step();
    const heads = new MedusaHeads(target, run.weights(), await openKernels());
    run.close();
    const session = model.openSession();
    const { taps } = session.extend(cycle.slice(0, 20), { taps: ["hidden"] });
    session.close();
    for (let t = 1; t < 20; t++) {
      // The state at t gave the token at t + 1, which is pending.
      const best = heads.best(row(taps!.hidden!.at(-1)!, t), [1, 1]);
      expect(best.map(([token]) => token)).toEqual([cycle[t + 2], cycle[t + 3]]);
    }
  });

  it("Chimera's head i learns what the target says after the token at its depth", async () => {
    // A target that knows the cycle.
    const knowing = withHidden(
      new TableModel({
        vocabularySize: tinyConfig.vocabularySize,
        contextLength: tinyConfig.contextLength,
        law: ([last = 0]) => Array.from({ length: 19 }, (_, id) => (id === cycle[cycle.indexOf(last) + 1] ? 100 : 1)),
      }),
      tinyConfig.width,
    );
    const run = trainer(objectives.Chimera, learning, { ...reading, reader: knowing });
    const before = run.validate();
    while (!run.finished) run.step();
    expect(run.validate()).toBeLessThan(before / 2);
    const heads = new ChimeraHeads(target, run.weights(), await openKernels());
    run.close();
    const session = knowing.openSession();
    const text = Array.from(cycle.slice(0, 20));
    const { taps } = session.extend(text, { taps: ["hidden"] });
    const context = heads.open(40);
    for (let t = 0; t < 16; t++) {
      context.commit(taps!.hidden!.at(-1)!, [t]);
      for (let depth = 0; depth < 2; depth++) {
        const trigram = trigramAt(text.slice(Math.max(0, t + depth - 1), t + depth + 2));
        context.encode([{ node: depth, depth, trigram, ancestors: depth === 0 ? [] : [0], kept: true }], depth);
        expect(context.best(0, 1)[0]).toBe(cycle[t + depth + 2]);
      }
    }
    context.close();
  });

  it("accuracies are shares along the target's own text, level by level", async () => {
    const space = await openKernels();
    const run = trainer(objectives.Chimera);
    const medusa = trainer(objectives.Medusa);
    const prompts = [noise.slice(0, 5), noise.slice(50, 51), noise.slice(100, 110)];
    const measured = [
      await medusaAccuracies(model, new MedusaHeads(target, medusa.weights(), space), prompts, {
        ranks: 19,
        maxTokens: 12,
      }),
      await chimeraAccuracies(model, new ChimeraHeads(target, run.weights(), space), prompts, {
        ranks: 19,
        maxTokens: 12,
      }),
    ];
    run.close();
    medusa.close();
    for (const accuracies of measured) {
      expect(accuracies.map(({ length }) => length)).toEqual([19, 19]);
      // Every token is somewhere among all ranks.
      for (const ranks of accuracies) expect(ranks.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9);
    }
    const heads = new MedusaHeads(target, medusa.weights(), space);
    await expect(medusaAccuracies(model, heads, [])).rejects.toThrow(/prompts/);
    for (const bad of [{ ranks: 0 }, { maxTokens: 1 }]) {
      await expect(medusaAccuracies(model, heads, prompts, bad)).rejects.toThrow(ArgumentError);
    }
  });
});
