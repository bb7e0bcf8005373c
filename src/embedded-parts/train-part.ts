/**
 * The parts trained for the embedded target (`tokenthrift train --model medusa`): a recipe each, one way to train them all.
 * `models/` holds what the recipes produced.
 *
 * They learn from the text the target learned from, and are measured on the files it never saw.
 */
import { join } from "node:path";
import { heldOutFiles, packageVersion } from "../corpus.ts";
import { embeddedCorpus, type TrainEmbeddedOptions, tokenStream } from "../embedded-pair.ts";
import { ArgumentError } from "../errors.ts";
import { writeFilesAtomic } from "../files.ts";
import { readCheckpoint } from "../model/checkpoint.ts";
import type { DecoderConfig } from "../model/decoder-config.ts";
import { embeddedFolder } from "../model/embedded.ts";
import type { Weights } from "../model/weights.ts";
import {
  embeddedPartFolder,
  type PartKind,
  parsePart,
  partFiles,
  serializePart,
} from "../speculative/trained-parts.ts";
import { activeBackend, useBackend } from "../tensor/backend.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import type { TokenStreams } from "../training/sequences.ts";
import { type Objective, Trainer, type TrainerOptions } from "../training/trainer.ts";
import { runTraining, type TrainingOutcome } from "../training/training-run.ts";
import { chimeraRecipe, medusaRecipe } from "./heads.ts";
import { hypernetworkRecipe } from "./hypernetwork.ts";
import { skipDecodeRecipe } from "./skipdecode.ts";
import { sortedDraftRecipe } from "./sorted-draft.ts";

/** What every recipe starts from: the embedded target and its text. */
export interface EmbeddedTarget {
  readonly config: DecoderConfig;
  /** In checkpoint layout. */
  readonly weights: ReadonlyMap<string, Weights>;
  readonly tokenizer: Bpe;
  readonly streams: TokenStreams;
}

/** How a part is trained and measured. */
export interface PartRecipe {
  readonly options: TrainerOptions;
  /** Close it when done. */
  open(target: EmbeddedTarget): Promise<OpenPart>;
}

export interface OpenPart {
  /** Closed by the trainer. */
  readonly objective: Objective<unknown>;
  /** What a step pushes through the model. */
  readonly tokensPerStep: number;
  /** Measure weights as they are stored: what belongs to them, and what `training.json` says beside the run itself. */
  measure(weights: ReadonlyMap<string, Weights>): Promise<{
    readonly details: unknown;
    readonly record: Readonly<Record<string, unknown>>;
  }>;
  close(): void;
}

const recipes: Readonly<Record<PartKind, PartRecipe>> = {
  medusa: medusaRecipe,
  chimera: chimeraRecipe,
  "sorted-draft": sortedDraftRecipe,
  skipdecode: skipDecodeRecipe,
  hypernetwork: hypernetworkRecipe,
};

export interface TrainPartOptions extends Omit<TrainEmbeddedOptions, "model"> {
  readonly kind: PartKind;
}

/** Train a part by its recipe, resuming from saved state where there is some, and write it. */
export async function trainPart(options: TrainPartOptions): Promise<TrainingOutcome & { readonly folder: string }> {
  const { kind, signal, log } = options;
  const recipe = recipes[kind];
  const steps = options.steps ?? recipe.options.steps;
  if (!Number.isSafeInteger(steps) || steps < 1) throw new ArgumentError("steps", "an integer >= 1", steps);
  await useBackend();

  const { config, tensors: weights, tokenizer } = await readCheckpoint(embeddedFolder("target"));
  const corpus = embeddedCorpus();
  const streams = {
    training: tokenStream(tokenizer, corpus.training),
    validation: tokenStream(tokenizer, corpus.heldOut),
  };
  const part = await recipe.open({ config, weights, tokenizer, streams });
  const trainer = new Trainer(part.objective, { ...recipe.options, steps });
  const folder = options.out ?? (await embeddedPartFolder(kind));
  const statePath = join(options.state ?? ".checkpoints", `${kind}-${steps}.safetensors`);
  const { tokensPerStep } = part;
  try {
    const outcome = await runTraining(trainer, { label: kind, statePath, tokensPerStep, signal, log });
    if (outcome.kind === "interrupted") return { ...outcome, folder };
    // Measured as they are stored, in 8 bits.
    const stored = serializePart({ kind, weights: trainer.weights(), details: null });
    const { details, record } = await part.measure(parsePart(stored, "the part").weights);
    log?.(JSON.stringify(details));
    const training = {
      target: "models/declarations-target",
      corpus: {
        training: ["typescript lib/lib.*.d.ts", "@types/node, all other declarations"],
        validation: heldOutFiles.map((name) => `@types/node/${name}`),
        versions: { typescript: packageVersion("typescript"), "@types/node": packageVersion("@types/node") },
      },
      objective: part.objective.settings,
      options: trainer.options,
      tokensSeen: steps * tokensPerStep,
      curve: trainer.curve,
      ...record,
      backend: activeBackend(),
      command: `tokenthrift train --model ${kind}`,
    };
    await writeFilesAtomic([
      [join(folder, partFiles.training), `${JSON.stringify(training, undefined, 2)}\n`],
      [join(folder, partFiles.weights), serializePart({ kind, weights: trainer.weights(), details })],
    ]);
    return { ...outcome, folder };
  } finally {
    trainer.close();
    part.close();
  }
}
