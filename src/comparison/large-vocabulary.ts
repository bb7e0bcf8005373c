/**
 * Generation over a large vocabulary, measured: how many neighbours it takes, what an approximate index misses, and what a
 * token costs. Seconds are ratios to scoring the whole vocabulary, taken in turns in the same run.
 *
 * Quality is asked of the model itself: texts drawn among k neighbours, read by the frozen model in its own tokens. A law of
 * few tokens writes text it finds probable, as a low temperature does; so the figure of the whole law, not the least one, is
 * what the others should come near.
 */
import { openKernels } from "../kernels/kernels.ts";
import { totalBits } from "../model/evaluation.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { EmbeddingPredictor } from "../retokenization/embedding-predictor.ts";
import { HnswIndex } from "../retokenization/hnsw.ts";
import { largeVocabulary } from "../retokenization/large-vocabulary.ts";
import { exactNeighbours, type NeighbourIndex, recall } from "../retokenization/nearest-neighbours.ts";
import {
  predictedVocabulary,
  retokenized,
  type TransferModel,
  type TransferTokenizer,
} from "../retokenization/tokenizer-transfer.ts";
import { lastHidden, normedStates } from "../speculative/head-layers.ts";
import { generate } from "../speculative/index.ts";

export interface LargeVocabularyFigures {
  readonly vocabularySize: number;
  /** Bytes a token of the prompts and of what follows them carries, in the model's own vocabulary and in the large one. */
  readonly bytesPerToken: { readonly own: number; readonly large: number };
  readonly rows: readonly LargeVocabularyRow[];
}

export interface LargeVocabularyRow {
  /** What the law's tokens are found by; `"all"`: the whole vocabulary is scored. */
  readonly index: "all" | "exact" | "hnsw";
  /** Tokens the law has; the vocabulary's size where all are scored. */
  readonly neighbours: number;
  /** Share of states whose most probable token is among those found. */
  readonly argMax: number;
  /** Share of the true neighbours found. */
  readonly recall: number;
  /** Rows compared per token, over the vocabulary. */
  readonly compared: number;
  /** Bits per byte of drawn texts, by the frozen model in its own tokens. */
  readonly bitsPerByte: number;
  /** Bytes of a drawn token. */
  readonly bytesPerToken: number;
  /** Seconds per token of scoring all, over this row's: above 1 is faster. */
  readonly speedup: number;
}

export interface LargeVocabularyMeasureOptions {
  /** Default 1, 5, 20 and 100. */
  readonly neighbours?: readonly number[];
  /** Tokens drawn after each prompt. Default 32. */
  readonly maxTokens?: number;
  /** Default 1. */
  readonly temperature?: number;
  /** Default 0. */
  readonly seed?: number;
  /** Called after each row. */
  readonly onRow?: (done: number, total: number) => void;
}

/**
 * @param texts prompts: their states are what neighbours are searched for
 * @throws ArgumentError as `retokenized`
 */
export async function measureLargeVocabulary(
  source: TransferModel,
  tokenizer: TransferTokenizer,
  predictor: EmbeddingPredictor,
  texts: readonly string[],
  options: LargeVocabularyMeasureOptions = {},
): Promise<LargeVocabularyFigures> {
  const { neighbours = [1, 5, 20, 100], maxTokens = 32, temperature = 1, seed = 0, onRow } = options;
  const encode = (text: string): number[] => Array.from(tokenizer.encode(text, { disallowedSpecial: [] }));
  const prompts = texts.map(encode);
  const whole = retokenized(source, tokenizer, predictor, await openKernels());
  const { output } = predictedVocabulary(source, tokenizer, predictor);
  const exact = await exactNeighbours(output);
  const hnsw = new HnswIndex(output, { seed });
  const states = statesOf(whole, prompts, source);

  const draw = (
    model: LanguageModel,
  ): { readonly texts: string[]; readonly tokens: number; readonly seconds: number } => {
    const started = performance.now();
    const drawn = prompts.map((prompt, p) => {
      const generation = generate(model, prompt, { temperature, maxTokens, seed: seed + p });
      while (generation.step() !== undefined);
      return generation.report.tokens;
    });
    const seconds = (performance.now() - started) / 1000;
    return { texts: drawn.map((ids) => tokenizer.decode(ids)), tokens: drawn.flat().length, seconds };
  };
  const settings: {
    readonly index: LargeVocabularyRow["index"];
    readonly count: number;
    readonly model: LanguageModel;
  }[] = [{ index: "all", count: tokenizer.vocabularySize, model: whole }];
  for (const [index, built] of [
    ["exact", exact],
    ["hnsw", hnsw],
  ] as const) {
    for (const count of neighbours) {
      // The graph built above serves wherever no id was left out, which is nearly always.
      const model = await largeVocabulary(source, tokenizer, predictor, {
        neighbours: count,
        index: (table) =>
          index === "exact"
            ? exactNeighbours(table)
            : table.rows === built.size
              ? built
              : new HnswIndex(table, { seed }),
      });
      settings.push({ index, count, model });
    }
  }

  const rows: LargeVocabularyRow[] = [];
  draw(whole); // what runs for the first time takes longer than it ever will again
  for (const [done, { index, count, model }] of settings.entries()) {
    const before = draw(whole);
    const own = draw(model);
    const searched: NeighbourIndex = index === "hnsw" ? hnsw : exact;
    const found = Math.min(count, 1024);
    rows.push({
      index,
      neighbours: count,
      argMax:
        index === "hnsw"
          ? share(states, (state) => searched.search(state, found).rows.includes(exact.search(state, 1).rows[0]!))
          : 1,
      recall: index === "hnsw" ? recall(hnsw, exact, states, found) : 1,
      compared: index === "hnsw" ? mean(states.map((state) => hnsw.search(state, found).compared)) / hnsw.size : 1,
      bitsPerByte: bitsByTheModel(source, texts, own.texts),
      bytesPerToken: utf8Length(own.texts) / own.tokens,
      speedup: before.seconds / before.tokens / (own.seconds / own.tokens),
    });
    onRow?.(done + 1, settings.length);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const ids = texts.map((text) => source.tokenizer.encode(text, { disallowedSpecial: [] }).length);
  const bytes = utf8Length(texts);
  return {
    vocabularySize: tokenizer.vocabularySize,
    bytesPerToken: {
      own: bytes / ids.reduce((a, b) => a + b, 0),
      large: bytes / prompts.reduce((sum, prompt) => sum + prompt.length, 0),
    },
    rows,
  };
}

/** States after the final norm at every token of the prompts. */
function statesOf(model: LanguageModel, prompts: readonly number[][], { target }: TransferModel): Float32Array[] {
  const session = model.openSession();
  const states = prompts.flatMap((prompt) => {
    session.truncate(0);
    const { taps } = session.extend(prompt, { logits: "none", taps: ["hidden"] });
    const { data, rows, columns } = normedStates(target, lastHidden(taps, target.config.width));
    return Array.from({ length: rows }, (_, r) => data.slice(r * columns, (r + 1) * columns));
  });
  session.close();
  return states;
}

/** Bits per byte of texts after their prompts, by the frozen model in its own tokens. */
function bitsByTheModel(
  { model, tokenizer }: TransferModel,
  prompts: readonly string[],
  texts: readonly string[],
): number {
  let bits = 0;
  for (const [p, text] of texts.entries()) {
    const prompt = Array.from(tokenizer.encode(prompts[p]!, { disallowedSpecial: [] }));
    const whole = [...prompt, ...tokenizer.encode(text, { disallowedSpecial: [] })];
    bits += totalBits(model, whole) - totalBits(model, prompt);
  }
  return bits / utf8Length(texts);
}

function share<Value>(values: readonly Value[], holds: (value: Value) => boolean): number {
  return values.filter(holds).length / values.length;
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

function utf8Length(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + new TextEncoder().encode(text).length, 0);
}
