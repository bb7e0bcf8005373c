/** Dynamic tokenization in the demo: prefixes of merged tokens, and prompts that end inside a token. Both on unseen text. */
import { embeddedCorpus, endOfText, tokenStream } from "../embedded-pair.ts";
import type { RunningDecoder } from "../model/load.ts";
import type { EmbeddingPredictor } from "../retokenization/embedding-predictor.ts";
import { type MergedPrefillMeasurement, measureMergedPrefill } from "../retokenization/merged-prefill.ts";
import { measureTokenizationBias, type TokenizationBias } from "../retokenization/tokenization-bias.ts";
import type { Bpe } from "../tokenization/bpe.ts";

export interface DynamicTokenFigures {
  /** Prefixes merged further and further, by the predictor's name. */
  readonly merging: Readonly<Record<string, readonly MergedPrefillMeasurement[]>>;
  /** Sequences behind those figures, and the tokens of each one's prefix. */
  readonly sequences: number;
  readonly prefixTokens: number;
  readonly bytes: TokenizationBias;
}

export interface DynamicTokenOptions {
  readonly model: RunningDecoder;
  readonly tokenizer: Bpe;
  readonly predictors: readonly EmbeddingPredictor[];
  /** Per cent of the way to words. Default 0, 50 and 100. */
  readonly reductions?: readonly number[];
  /** Sequences merged together; one batch is measured. Default 32. */
  readonly sequences?: number;
  /** Tokens that are cut. Default 12. */
  readonly cuts?: number;
  /** Called as work goes on. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** @throws FileError where the packages with the text are not installed */
export async function measureDynamicTokens(options: DynamicTokenOptions): Promise<DynamicTokenFigures> {
  const { model, tokenizer, predictors, onProgress = () => {} } = options;
  const { reductions = [0, 50, 100], sequences = 32, cuts = 12 } = options;
  const { heldOut } = embeddedCorpus();
  const [prefixTokens, continuationTokens] = [model.contextLength >> 1, model.contextLength >> 2];
  const stream = tokenStream(tokenizer, heldOut).subarray(0, sequences * (prefixTokens + continuationTokens));
  const end = tokenizer.specialTokens.get(endOfText);
  const merging: Record<string, readonly MergedPrefillMeasurement[]> = {};
  for (const [p, predictor] of predictors.entries()) {
    merging[predictor.name] = measureMergedPrefill(model, stream, predictor, {
      tokenizer,
      reductions,
      batchSize: sequences,
      prefixTokens,
      continuationTokens,
      ...(end !== undefined && { protectedIds: [end] }),
    });
    onProgress(p + 1, predictors.length + 1);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const bytes = measureTokenizationBias(model, tokenizer, heldOut, { cuts });
  onProgress(predictors.length + 1, predictors.length + 1);
  return { merging, sequences, prefixTokens, bytes };
}
