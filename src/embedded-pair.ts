/**
 * The embedded pair: a target and a draft decoder trained by this project's own code on declarations, one vocabulary.
 * This file is the recipe (`tokenthrift train`); `models/` holds what it produced.
 *
 * Trained on TypeScript's library declarations and Node's, less the held-out files (`corpus.ts`).
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { heldOutFiles, libraryDeclarations, nodeDeclarations, packageVersion } from "./corpus.ts";
import { ArgumentError } from "./errors.ts";
import { writeCheckpoint } from "./model/checkpoint.ts";
import { type DecoderConfig, parameterCount } from "./model/decoder-config.ts";
import { Decoder } from "./model/decoder-session.ts";
import { decoderObjective } from "./model/decoder-training.ts";
import { type EmbeddedModel, embeddedFolder } from "./model/embedded.ts";
import { totalBits } from "./model/evaluation.ts";
import { KneserNey } from "./model/kneser-ney.ts";
import type { Weights } from "./model/weights.ts";
import { Progress } from "./progress.ts";
import { activeBackend, useBackend } from "./tensor/backend.ts";
import { floatTensor, toFloat32 } from "./tensor/safetensors.ts";
import { Bpe } from "./tokenization/bpe.ts";
import { Trainer, type TrainerOptions } from "./training/trainer.ts";
import { runTraining, type TrainingOutcome } from "./training/training-run.ts";

export const endOfText = "<|endoftext|>";
export const embeddedVocabularySize = 1024;

const shared = {
  vocabularySize: embeddedVocabularySize,
  contextLength: 256,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: true,
  projectionBiases: false,
} as const;

interface Recipe {
  readonly config: DecoderConfig;
  readonly sequences: { readonly batchSize: number; readonly sequenceLength: number };
  readonly options: TrainerOptions;
}

/** Shapes and training options. The draft has one layer, because a draft is only worth what its passes cost. */
export const recipes: Readonly<Record<EmbeddedModel, Recipe>> = {
  target: {
    config: { ...shared, width: 128, layers: 4, heads: 4, keyValueHeads: 2, headWidth: 32, hiddenWidth: 384 },
    sequences: { batchSize: 4, sequenceLength: 256 },
    options: { steps: 7000, learningRate: 2e-3, finalLearningRate: 1e-4, seed: 1 },
  },
  draft: {
    config: { ...shared, width: 64, layers: 1, heads: 2, keyValueHeads: 2, headWidth: 32, hiddenWidth: 176 },
    sequences: { batchSize: 4, sequenceLength: 256 },
    options: { steps: 9000, learningRate: 4e-3, finalLearningRate: 1e-4, seed: 2 },
  },
};

/** The corpus as documents of text: what is learned from and what is held out. */
export function embeddedCorpus(): { training: string[]; heldOut: string[] } {
  const { heldOut, others } = nodeDeclarations();
  return {
    training: [...libraryDeclarations(), ...others].map(({ text }) => text),
    heldOut: heldOut.map(({ text }) => text),
  };
}

/** Byte-level BPE of the embedded pair, trained on the training documents. */
export function trainEmbeddedTokenizer(training: readonly string[]): Bpe {
  return Bpe.train(training, { vocabSize: embeddedVocabularySize, pattern: "cl100k", specialTokens: [endOfText] });
}

/** Documents as one stream, each ended by the end-of-text token. */
export function tokenStream(tokenizer: Bpe, documents: readonly string[]): Uint16Array {
  const end = tokenizer.encode(endOfText, { allowedSpecial: "all" });
  const parts = documents.flatMap((text) => [tokenizer.encode(text, { disallowedSpecial: [] }), end]);
  const stream = new Uint16Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    stream.set(part, at);
    at += part.length;
  }
  return stream;
}

export interface TrainEmbeddedOptions {
  readonly model: EmbeddedModel;
  /** Folder of the finished checkpoint. Default: the embedded one. */
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

/** Train one of the pair by its recipe, resuming from saved state where there is some, and write its checkpoint. */
export async function trainEmbedded(
  options: TrainEmbeddedOptions,
): Promise<TrainingOutcome & { readonly folder: string }> {
  const { model, signal } = options;
  const recipe = recipes[model];
  const steps = options.steps ?? recipe.options.steps;
  if (!Number.isSafeInteger(steps) || steps < 1) throw new ArgumentError("steps", "an integer >= 1", steps);
  const log = options.log ?? (() => {});
  await useBackend();

  const corpus = embeddedCorpus();
  const tokenizer = trainEmbeddedTokenizer(corpus.training);
  const streams = {
    training: tokenStream(tokenizer, corpus.training),
    validation: tokenStream(tokenizer, corpus.heldOut),
  };
  log(`${streams.training.length} tokens to learn from, ${parameterCount(recipe.config)} parameters, ${steps} steps`);

  const objective = decoderObjective(recipe.config, streams, recipe.sequences);
  const trainer = new Trainer(objective, { ...recipe.options, steps });
  const statePath = join(options.state ?? ".checkpoints", `declarations-${model}-${steps}.safetensors`);
  const tokensPerStep = recipe.sequences.batchSize * recipe.sequences.sequenceLength;
  const outcome = await runTraining(trainer, { label: model, statePath, tokensPerStep, signal, log }).finally(() =>
    trainer.close(),
  );
  const folder = options.out ?? embeddedFolder(model);
  if (outcome.kind === "interrupted") return { ...outcome, folder };
  const evaluation = await evaluateHeldOut(recipe.config, trainer.weights(), tokenizer, corpus);
  log(`held out: ${JSON.stringify(evaluation)}`);
  await writeCheckpoint(
    folder,
    {
      config: recipe.config,
      tensors: trainer.weights(),
      tokenizer,
      training: {
        corpus: {
          training: ["typescript lib/lib.*.d.ts", "@types/node, all other declarations"],
          validation: heldOutFiles.map((name) => `@types/node/${name}`),
          versions: { typescript: packageVersion("typescript"), "@types/node": packageVersion("@types/node") },
          trainingTokens: streams.training.length,
          validationTokens: streams.validation.length,
        },
        options: { ...trainer.options, ...recipe.sequences },
        tokensSeen: steps * tokensPerStep,
        curve: trainer.curve,
        evaluation,
        backend: activeBackend(),
        command: `tokenthrift train --model ${model}`,
      },
    },
    { dtype: "F16" },
  );
  return { ...outcome, folder };
}

/** Bits per byte of the held-out files: the model's, and what it is compared with. */
export interface HeldOutEvaluation {
  /** Bytes of the held-out files together. */
  readonly bytes: number;
  readonly bitsPerByte: number;
  /** gzip -9 over the files as one. */
  readonly gzip: number;
  /** xz -9e over the files as one; null where the machine has no xz. */
  readonly xz: number | null;
  /** Kneser-Ney 5-gram over the same tokens, trained on the same text. */
  readonly fiveGram: number;
}

/** Measure weights as they are stored, in 16 bits, on the held-out files. Takes about half a minute for the target. */
async function evaluateHeldOut(
  config: DecoderConfig,
  weights: ReadonlyMap<string, Weights>,
  tokenizer: Bpe,
  corpus: { readonly training: readonly string[]; readonly heldOut: readonly string[] },
): Promise<HeldOutEvaluation> {
  const text = Buffer.from(corpus.heldOut.join(""), "utf8");
  // The stream starts with an end of text, so that the first token of the first file is predicted too.
  const stream = tokenStream(tokenizer, ["", ...corpus.heldOut]);
  const rounded = new Map(
    [...weights].map(([name, { shape, data }]) => [name, { shape, data: toFloat32(floatTensor(shape, data, "F16")) }]),
  );
  const model = new Decoder(config, rounded);
  const progress = new Progress("measuring on held-out text", stream.length);
  const bits = totalBits(model, stream, { onProgress: (done) => progress.update(done) });
  progress.finish();
  model.close();

  const fiveGram = new KneserNey(tokenStream(tokenizer, corpus.training), { vocabularySize: config.vocabularySize });
  let fiveGramBits = 0;
  for (let i = 1; i < stream.length; i++) {
    fiveGramBits -= Math.log2(fiveGram.probability(stream.subarray(Math.max(0, i - 4), i), stream[i]!));
  }
  const xz = spawnSync("xz", ["-9e", "-c"], { input: text, maxBuffer: 2 * text.length });
  return {
    bytes: text.length,
    bitsPerByte: bits / text.length,
    gzip: (8 * gzipSync(text, { level: 9 }).length) / text.length,
    xz: xz.status === 0 ? (8 * xz.stdout.length) / text.length : null,
    fiveGram: fiveGramBits / text.length,
  };
}
