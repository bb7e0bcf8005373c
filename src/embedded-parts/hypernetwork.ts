/**
 * Recipe of the hypernetwork for the embedded target. What it is worth is measured on held-out files: bits per byte of the
 * target over other tokenizers, beside embeddings predicted without training.
 */
import { embeddedCorpus } from "../embedded-pair.ts";
import { openKernels } from "../kernels/kernels.ts";
import { Engine } from "../model/engine.ts";
import { embeddingTables, lastPiece, meanOfPieces, randomEmbeddings } from "../retokenization/embedding-predictor.ts";
import { Hypernetwork, hypernetworkConfig } from "../retokenization/hypernetwork.ts";
import { bitsPerByte, retokenized } from "../retokenization/tokenizer-transfer.ts";
import { hypernetworkObjective } from "../retokenization/training/hypernetwork-training.ts";
import { headTarget } from "../speculative/head-layers.ts";
import type { PartRecipe } from "./train-part.ts";
import { transferTokenizers } from "./transfer-tokenizers.ts";

const sampled = { batchSize: 4, sequenceLength: 128 };

/** Characters of each held-out file that are measured. */
const measured = 8000;

export const hypernetworkRecipe: PartRecipe = {
  options: { steps: 800, learningRate: 1e-3, finalLearningRate: 5e-5, validateEvery: 50, seed: 6 },
  async open({ config, weights, tokenizer }) {
    const corpus = embeddedCorpus();
    const source = { config, weights, tokenizer };
    const texts = { training: corpus.training, validation: corpus.heldOut };
    return {
      objective: hypernetworkObjective(source, texts, sampled),
      tokensPerStep: sampled.batchSize * sampled.sequenceLength,
      async measure(trained) {
        const tables = embeddingTables(config, weights);
        const network = hypernetworkConfig(tables);
        const predictors = [
          randomEmbeddings(tables),
          lastPiece(tables),
          meanOfPieces(tables),
          new Hypernetwork(tables, network, trained, await openKernels()),
        ];
        const model = await Engine.open(config, weights);
        const heldOut = corpus.heldOut.map((text) => text.slice(0, measured));
        const transfers: Record<string, unknown> = {};
        for (const [name, other] of Object.entries(transferTokenizers(tokenizer, corpus.training))) {
          const end = other.specialTokens!.get("<|endoftext|>")!;
          const bits: Record<string, number> = {};
          let tokens = 0;
          for (const predictor of other === tokenizer ? predictors.slice(-1) : predictors) {
            const transferred = retokenized(
              { model, target: headTarget(config, weights), tokenizer },
              other,
              predictor,
              await openKernels(),
            );
            const result = bitsPerByte(transferred, other, heldOut, end);
            bits[predictor.name] = +result.bitsPerByte.toFixed(4);
            tokens = result.tokens;
          }
          transfers[name] = { vocabularySize: other.vocabularySize, tokens, bitsPerByte: bits };
        }
        model.close();
        return {
          details: { config: network },
          record: { heldOut: { charactersOfEachFile: measured, transfers } },
        };
      },
      close: () => {},
    };
  },
};
