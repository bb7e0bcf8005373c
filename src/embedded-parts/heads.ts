/**
 * Recipes of Medusa's and Chimera's heads for the embedded target. They learn on the states the finished target has on its
 * text. Their sparse trees are made from accuracies on files neither has seen: of the held-out files, those no prompt of
 * `held-out-prompts.ts` was cut from.
 */
import { heldOutFiles, nodeDeclarations } from "../corpus.ts";
import { tokenStream } from "../embedded-pair.ts";
import { heldOutPrompts } from "../held-out-prompts.ts";
import { openKernels } from "../kernels/kernels.ts";
import { Engine } from "../model/engine.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Weights } from "../model/weights.ts";
import { ChimeraHeads } from "../speculative/chimera-heads.ts";
import { chimeraAccuracies, medusaAccuracies } from "../speculative/head-accuracies.ts";
import { type HeadTarget, headTarget } from "../speculative/head-layers.ts";
import { MedusaHeads } from "../speculative/medusa.ts";
import { chimeraObjective } from "../speculative/training/chimera-training.ts";
import { medusaObjective } from "../speculative/training/medusa-training.ts";
import { TargetStates } from "../speculative/training/target-states.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import type { Objective, TrainerOptions } from "../training/trainer.ts";
import type { EmbeddedTarget, PartRecipe } from "./train-part.ts";

type Accuracies = (model: LanguageModel, prompts: readonly Uint16Array[]) => Promise<number[][]>;

export const medusaRecipe = headRecipe(
  { steps: 4000, learningRate: 1e-3, finalLearningRate: 5e-5, validateEvery: 500, seed: 3 },
  (states) => medusaObjective(states, { heads: 3, decay: 0.8 }),
  async (target, weights) => {
    const heads = new MedusaHeads(target, weights, await openKernels());
    return (model, prompts) => medusaAccuracies(model, heads, prompts);
  },
);

/** The encoder starts as the target's first layer. */
export const chimeraRecipe = headRecipe(
  { steps: 1500, learningRate: 4e-3, finalLearningRate: 2e-4, seed: 4 },
  (states, block) => chimeraObjective(states, { heads: 4, stateWeight: 0.1, block }),
  async (target, weights) => {
    const heads = new ChimeraHeads(target, weights, await openKernels());
    return (model, prompts) => chimeraAccuracies(model, heads, prompts);
  },
);

function headRecipe(
  options: TrainerOptions,
  objective: (states: TargetStates, targetWeights: EmbeddedTarget["weights"]) => Objective<unknown>,
  accuraciesOf: (target: HeadTarget, weights: ReadonlyMap<string, Weights>) => Promise<Accuracies>,
): PartRecipe {
  return {
    options,
    async open({ config, weights: targetWeights, tokenizer, streams }) {
      const model = await Engine.open(config, targetWeights);
      const target = headTarget(config, targetWeights);
      const states = new TargetStates(model, target, streams, { batchSize: 2 });
      return {
        objective: objective(states, targetWeights),
        tokensPerStep: states.options.batchSize * states.options.sequenceLength,
        async measure(weights) {
          const files = filesByPrompts();
          const measure = await accuraciesOf(target, weights);
          const rounded = async (names: readonly string[], count: number): Promise<number[][]> =>
            (await measure(model, cutPrompts(tokenizer, names, count))).map((ranks) => ranks.map((a) => +a.toFixed(4)));
          const accuracies = await rounded(files.others, 40);
          const heldOut = await rounded(files.prompted, 80);
          return {
            details: { accuracies },
            record: {
              // Rank by rank, along the target's own greedy continuations.
              accuracies: {
                ofTree: { files: files.others, byDepth: accuracies },
                heldOut: { files: files.prompted, byDepth: heldOut },
              },
            },
          };
        },
        close: () => model.close(),
      };
    },
  };
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
