/**
 * Recipe of the sorted draft: the embedded target's first three layers, fine-tuned so that one, two and three of them are
 * drafters. It learns from text, not from the target, and drafts for every model of the vocabulary.
 */
import { type DecoderConfig, parameterShapes } from "../model/decoder-config.ts";
import { Engine } from "../model/engine.ts";
import { totalBits } from "../model/evaluation.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Weights } from "../model/weights.ts";
import { earlyExitModel } from "../speculative/s2d.ts";
import { sortedFineTuningObjective } from "../speculative/training/sorted-fine-tuning.ts";
import type { PartRecipe } from "./train-part.ts";

const exits = [1, 2, 3];

export const sortedDraftRecipe: PartRecipe = {
  options: {
    steps: 600,
    learningRate: 1e-3,
    finalLearningRate: 1e-4,
    warmupSteps: 24,
    weightDecay: 0,
    validateEvery: 100,
    seed: 5,
  },
  async open({ config: targetConfig, weights: targetWeights, streams }) {
    const config: DecoderConfig = { ...targetConfig, layers: exits[exits.length - 1]! };
    const weights = new Map<string, Weights>();
    for (const name of parameterShapes(config).keys()) weights.set(name, targetWeights.get(name)!);
    const objective = sortedFineTuningObjective(config, weights, streams, { exits, validationSequences: 16 });
    return {
      objective,
      tokensPerStep: 4 * config.contextLength,
      async measure(weights) {
        const model = await Engine.open(config, weights);
        // Bits per held-out token at each exit.
        const bitsPerToken = exits.map((exit) => {
          const subModel: LanguageModel = earlyExitModel(model, { exits: [exit] });
          return +(totalBits(subModel, streams.validation) / (streams.validation.length - 1)).toFixed(4);
        });
        model.close();
        return { details: { config, exits }, record: { heldOutBitsPerToken: { exits, bitsPerToken } } };
      },
      close: () => {},
    };
  },
};
