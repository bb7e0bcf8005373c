/**
 * The embedded heads: Medusa's and Chimera's, for the embedded target, trained by this project's own code. This file is the
 * recipe (`tokenthrift train --model medusa`); `models/` holds what it produced.
 *
 * They learn from the text the target learned from, on the states the finished target has there. Their sparse trees are made
 * from accuracies on files neither has seen: of the held-out files, those no prompt of `held-out-prompts.ts` was cut from.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { heldOutFiles, nodeDeclarations, packageVersion } from "./corpus.ts";
import { embeddedCorpus, type TrainEmbeddedResult, tokenStream } from "./embedded-pair.ts";
import { ArgumentError } from "./errors.ts";
import { readFileBytes, writeFileAtomic, writeFilesAtomic } from "./files.ts";
import { heldOutPrompts } from "./held-out-prompts.ts";
import { openKernels } from "./kernels/kernels.ts";
import { readCheckpoint } from "./model/checkpoint.ts";
import { embeddedFolder } from "./model/embedded.ts";
import { Engine } from "./model/engine.ts";
import type { LanguageModel } from "./model/language-model.ts";
import type { Weights } from "./model/weights.ts";
import { duration, Progress } from "./progress.ts";
import { ChimeraHeads } from "./speculative/chimera-heads.ts";
import { chimeraAccuracies, medusaAccuracies } from "./speculative/head-accuracies.ts";
import { type HeadTarget, headTarget } from "./speculative/head-layers.ts";
import { MedusaHeads } from "./speculative/medusa.ts";
import {
  embeddedHeadsFolder,
  type HeadKind,
  headFiles,
  parseHeads,
  serializeHeads,
} from "./speculative/trained-heads.ts";
import { chimeraObjective } from "./speculative/training/chimera-training.ts";
import { type HeadObjective, HeadTrainer, type HeadTrainingOptions } from "./speculative/training/head-trainer.ts";
import { medusaObjective } from "./speculative/training/medusa-training.ts";
import { activeBackend, useBackend } from "./tensor/backend.ts";
import type { Bpe } from "./tokenization/bpe.ts";

interface HeadRecipe {
  readonly objective: { readonly heads: number } & Readonly<Record<string, number>>;
  readonly options: HeadTrainingOptions;
}

/** What is trained and how. Chimera's encoder starts as the target's first layer. */
export const headRecipes: Readonly<Record<HeadKind, HeadRecipe>> = {
  medusa: {
    objective: { heads: 3, decay: 0.8 },
    options: { steps: 4000, batchSize: 2, learningRate: 1e-3, validateEvery: 500, seed: 3 },
  },
  chimera: {
    objective: { heads: 4, stateWeight: 0.1 },
    options: { steps: 1500, batchSize: 2, learningRate: 4e-3, seed: 4 },
  },
};

export interface TrainHeadsOptions {
  readonly kind: HeadKind;
  /** Folder of the finished heads. Default: the embedded ones. */
  readonly out?: string;
  /** Folder for the state of unfinished runs. Default `.checkpoints`. */
  readonly state?: string;
  /** Updates; a short run shows that everything works. Default: the recipe's. */
  readonly steps?: number;
  /** Stops the run after the current step; its state is saved. */
  readonly signal?: AbortSignal;
  /** Called with a line of text now and then: what a log wants. Default: nothing. */
  readonly log?: (line: string) => void;
}

/** Train heads by their recipe, resuming from saved state where there is some, and write them. */
export async function trainHeads(options: TrainHeadsOptions): Promise<TrainEmbeddedResult> {
  const { kind, signal } = options;
  const recipe = headRecipes[kind];
  const steps = options.steps ?? recipe.options.steps;
  if (!Number.isSafeInteger(steps) || steps < 1) throw new ArgumentError("steps", "an integer >= 1", steps);
  const log = options.log ?? (() => {});
  await useBackend();

  const { config, tensors, tokenizer } = await readCheckpoint(embeddedFolder("target"));
  const model = await Engine.open(config, tensors);
  const target = headTarget(config, tensors);
  const corpus = embeddedCorpus();
  const streams = {
    training: tokenStream(tokenizer, corpus.training),
    validation: tokenStream(tokenizer, corpus.heldOut),
  };
  const objective = (batch: number, length: number): HeadObjective =>
    kind === "medusa"
      ? medusaObjective(target, recipe.objective)
      : chimeraObjective(target, batch, length, { ...recipe.objective, block: tensors });
  const trainer = new HeadTrainer(model, target, objective, streams, { ...recipe.options, steps });
  const statePath = join(options.state ?? ".checkpoints", `${kind}-heads-${steps}.safetensors`);
  if (existsSync(statePath)) {
    trainer.restore(await readFileBytes(statePath), statePath);
    log(`resumed at step ${trainer.stepsDone}`);
  }
  const tokensPerStep = trainer.options.batchSize * trainer.options.sequenceLength;
  const first = trainer.stepsDone;
  const started = performance.now();
  const speed = (): number => (tokensPerStep * (trainer.stepsDone - first)) / ((performance.now() - started) / 1000);
  const progress = new Progress(`training ${kind}`, steps, first);
  try {
    while (!trainer.finished) {
      const loss = trainer.step();
      progress.update(trainer.stepsDone, `loss ${loss.toFixed(3)}  ${speed().toFixed(0)} tokens/s`);
      if (trainer.stepsDone % trainer.options.validateEvery === 0) {
        const { step, trainingLoss, validationLoss } = trainer.curve.at(-1)!;
        const left = duration(((steps - trainer.stepsDone) * tokensPerStep) / speed());
        log(
          `step ${step}: training ${trainingLoss.toFixed(4)}, held out ${validationLoss.toFixed(4)}, ` +
            `${speed().toFixed(0)} tokens/s, ${left} left`,
        );
        await writeFileAtomic(statePath, trainer.save());
      }
      // Lets Ctrl-C arrive between steps.
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted && !trainer.finished) {
        await writeFileAtomic(statePath, trainer.save());
        return { kind: "interrupted", statePath, steps: trainer.stepsDone };
      }
    }
  } finally {
    progress.finish();
    trainer.close();
  }
  const tokensPerSecond = speed(); // before measuring, which is not training
  await writeFileAtomic(statePath, trainer.save());

  // Measured as they are stored, in 16 bits.
  const { weights } = parseHeads(serializeHeads({ kind, weights: trainer.weights(), accuracies: [] }), "heads");
  const files = filesByPrompts();
  const accuracies = await measure(kind, model, target, weights, cutPrompts(tokenizer, files.others, 40));
  const heldOut = await measure(kind, model, target, weights, cutPrompts(tokenizer, files.prompted, 80));
  log(`right at first guess, by depth: ${heldOut.map((ranks) => ranks[0]!.toFixed(3)).join(", ")}`);
  model.close();
  const folder = options.out ?? (await embeddedHeadsFolder(kind));
  const record = {
    target: "models/declarations-target",
    corpus: {
      training: ["typescript lib/lib.*.d.ts", "@types/node, all other declarations"],
      validation: heldOutFiles.map((name) => `@types/node/${name}`),
      versions: { typescript: packageVersion("typescript"), "@types/node": packageVersion("@types/node") },
    },
    objective: recipe.objective,
    options: trainer.options,
    tokensSeen: steps * tokensPerStep,
    curve: trainer.curve,
    // Rank by rank, along the target's own greedy continuations.
    accuracies: {
      ofTree: { files: files.others, byDepth: accuracies },
      heldOut: { files: files.prompted, byDepth: heldOut },
    },
    backend: activeBackend(),
    command: `tokenthrift train --model ${kind}`,
  };
  await writeFilesAtomic([
    [join(folder, headFiles.training), `${JSON.stringify(record, undefined, 2)}\n`],
    [join(folder, headFiles.weights), serializeHeads({ kind, weights, accuracies })],
  ]);
  return { kind: "finished", folder, steps, tokensPerSecond: first < steps ? tokensPerSecond : null };
}

async function measure(
  kind: HeadKind,
  model: LanguageModel,
  target: HeadTarget,
  weights: ReadonlyMap<string, Weights>,
  prompts: readonly Uint16Array[],
): Promise<number[][]> {
  const space = await openKernels();
  const accuracies =
    kind === "medusa"
      ? await medusaAccuracies(model, new MedusaHeads(target, weights, space), prompts)
      : await chimeraAccuracies(model, new ChimeraHeads(target, weights, space), prompts);
  return accuracies.map((ranks) => ranks.map((accuracy) => +accuracy.toFixed(4)));
}

/** Held-out files, those that prompts were cut from, and the others. */
function filesByPrompts(): { readonly prompted: readonly string[]; readonly others: readonly string[] } {
  const sources = new Set(heldOutPrompts.map(({ source }) => source));
  return {
    prompted: heldOutFiles.filter((name) => sources.has(name)),
    others: heldOutFiles.filter((name) => !sources.has(name)),
  };
}

const promptTokens = 32;

/** Prompts cut from held-out files, evenly spread over them. */
function cutPrompts(tokenizer: Bpe, files: readonly string[], count: number): Uint16Array[] {
  const texts = nodeDeclarations().heldOut.filter(({ name }) => files.some((file) => name.endsWith(`/${file}`)));
  const stream = tokenStream(
    tokenizer,
    texts.map(({ text }) => text),
  );
  return Array.from({ length: count }, (_, i) => {
    const start = Math.floor((i * (stream.length - promptTokens)) / (count - 1));
    return stream.subarray(start, start + promptTokens);
  });
}
