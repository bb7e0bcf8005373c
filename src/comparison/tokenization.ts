/**
 * Dynamic tokenization compared: what embeddings predicted for new tokens are worth (another tokenizer's, merged ones, those
 * of a large vocabulary), what merging does for 14 languages, and what a prompt that ends inside a token costs.
 *
 * Everything runs on the embedded target, frozen, and on text it never saw. Bits are per byte, so that tokenizers compare.
 */
import { parallelMessages, regionNames } from "../corpus.ts";
import { embeddedCorpus, endOfText, tokenStream } from "../embedded-pair.ts";
import { transferTokenizers } from "../embedded-parts/transfer-tokenizers.ts";
import { openKernels } from "../kernels/kernels.ts";
import { readCheckpoint } from "../model/checkpoint.ts";
import { embeddedFolder } from "../model/embedded.ts";
import { Engine } from "../model/engine.ts";
import { promptSets } from "../prompt-sets.ts";
import {
  type EmbeddingPredictor,
  lastPiece,
  meanOfPieces,
  randomEmbeddings,
} from "../retokenization/embedding-predictor.ts";
import { loadHypernetwork } from "../retokenization/load-hypernetwork.ts";
import { type MergedPrefillMeasurement, measureMergedPrefill } from "../retokenization/merged-prefill.ts";
import { measureTokenizationBias, type TokenizationBias } from "../retokenization/tokenization-bias.ts";
import { bitsPerByte, retokenized, type TransferModel, targetTables } from "../retokenization/tokenizer-transfer.ts";
import { headTarget } from "../speculative/head-layers.ts";
import { Bpe } from "../tokenization/bpe.ts";
import { type LargeVocabularyFigures, measureLargeVocabulary } from "./large-vocabulary.ts";
import { type MergingByLanguage, measureMergingByLanguage } from "./merging-by-language.ts";

export const tokenizationSections = ["transfer", "merging", "languages", "vocabulary", "bytes"] as const;
export type TokenizationSection = (typeof tokenizationSections)[number];

/** The frozen model over another tokenizer, by predictor. */
export interface TransferFigures {
  readonly tokenizer: string;
  readonly vocabularySize: number;
  readonly tokens: number;
  /** Tokens over those of the model's own tokenizer. */
  readonly relativeTokens: number;
  /** By the predictor's name. */
  readonly bitsPerByte: Readonly<Record<string, number>>;
}

export interface TokenizationComparison {
  readonly family: "tokenization";
  readonly seed: number;
  /** Predictors, in the order of the tables. */
  readonly predictors: readonly string[];
  readonly transfer?: readonly TransferFigures[];
  /** Prefixes merged further and further, by the predictor's name. */
  readonly merging?: Readonly<Record<string, readonly MergedPrefillMeasurement[]>>;
  /** The messages of 14 languages. */
  readonly languages?: MergingByLanguage;
  /** Names of regions in as many languages as the runtime knows of the list. */
  readonly names?: MergingByLanguage;
  readonly vocabulary?: LargeVocabularyFigures;
  readonly bytes?: TokenizationBias;
}

export interface TokenizationComparisonOptions {
  /** Default: all. */
  readonly sections?: readonly TokenizationSection[];
  /** Characters of each held-out file that are measured. Default 8,000. */
  readonly characters?: number;
  /** Tokens of the large vocabulary. Default 20,480. */
  readonly largeVocabulary?: number;
  /** Default 0. */
  readonly seed?: number;
  /** Called as work goes on, with what is being done. */
  readonly onProgress?: (what: string, done: number, total: number) => void;
}

/** @throws FileError where the text packages or the trained hypernetwork are missing */
export async function compareTokenization(
  options: TokenizationComparisonOptions = {},
): Promise<TokenizationComparison> {
  const { sections = tokenizationSections, characters = 8000, seed = 0, onProgress = () => {} } = options;
  const { largeVocabulary: largeSize = 20_480 } = options;
  const { config, tensors, tokenizer } = await readCheckpoint(embeddedFolder("target"));
  const model = await Engine.open(config, tensors);
  const wanted = (section: TokenizationSection): boolean => sections.includes(section);
  const target = headTarget(config, tensors);
  const tables = targetTables(target);
  const predicts = wanted("transfer") || wanted("merging") || wanted("vocabulary");
  const predictors: readonly EmbeddingPredictor[] = predicts
    ? [randomEmbeddings(tables, seed), lastPiece(tables), meanOfPieces(tables), (await loadHypernetwork()).hypernetwork]
    : [];
  const source: TransferModel = { model, target, tokenizer };
  const corpus = embeddedCorpus();
  const heldOut = corpus.heldOut.map((text) => text.slice(0, characters));
  const merging = { tokenizer, protectedIds: [tokenizer.specialTokens.get(endOfText)!] };

  const transfer: TransferFigures[] = [];
  if (wanted("transfer")) {
    const others = Object.entries(transferTokenizers(tokenizer, corpus.training));
    let own = 0;
    for (const [t, [name, other]] of others.entries()) {
      const end = other.specialTokens!.get(endOfText)!;
      const bits: Record<string, number> = {};
      let tokens = 0;
      for (const [p, predictor] of predictors.entries()) {
        onProgress(`${name}, ${predictor.name}`, t * predictors.length + p, others.length * predictors.length);
        const transferred = retokenized(source, other, predictor, await openKernels());
        const result = bitsPerByte(transferred, other, heldOut, end);
        bits[predictor.name] = result.bitsPerByte;
        tokens = result.tokens;
        await breathe();
      }
      if (other === tokenizer) own = tokens;
      transfer.push({
        tokenizer: name,
        vocabularySize: other.vocabularySize,
        tokens,
        relativeTokens: tokens / own,
        bitsPerByte: bits,
      });
    }
  }
  const merged: Record<string, readonly MergedPrefillMeasurement[]> = {};
  if (wanted("merging")) {
    const stream = tokenStream(tokenizer, corpus.heldOut);
    for (const [p, predictor] of predictors.entries()) {
      onProgress(`merged prefixes, ${predictor.name}`, p, predictors.length);
      merged[predictor.name] = measureMergedPrefill(model, stream.subarray(0, 3 * 32 * 192), predictor, merging);
      await breathe();
    }
  }
  onProgress("languages", 0, 1);
  const languages = wanted("languages")
    ? measureMergingByLanguage(await parallelMessages(), tokenizer, { boundary: "word" })
    : undefined;
  const names = wanted("languages")
    ? measureMergingByLanguage(regionNames(), tokenizer, { boundary: "word" })
    : undefined;
  let vocabulary: LargeVocabularyFigures | undefined;
  if (wanted("vocabulary")) {
    const specialTokens = [endOfText];
    const large = Bpe.train(corpus.training, { vocabSize: largeSize, pattern: tokenizer.pattern, specialTokens });
    const prompts = [...promptSets.declarations, ...promptSets.edits].slice(0, 8);
    vocabulary = await measureLargeVocabulary(source, large, predictors.at(-1)!, prompts, {
      seed,
      onRow: (done, total) => onProgress(`${largeSize} tokens`, done, total),
    });
  }
  onProgress("cut prompts", 0, 1);
  const bytes = wanted("bytes") ? measureTokenizationBias(model, tokenizer, heldOut, { cuts: 60 }) : undefined;
  model.close();
  return {
    family: "tokenization",
    seed,
    predictors: predictors.map(({ name }) => name),
    ...(wanted("transfer") && { transfer }),
    ...(wanted("merging") && { merging: merged }),
    ...(languages && { languages }),
    ...(names && { names }),
    ...(vocabulary && { vocabulary }),
    ...(bytes && { bytes }),
  };
}

/** Lets Ctrl-C and progress have their turn. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
