/**
 * Prefill with merged tokens: a frozen decoder reads a prompt in fewer rows, then writes in its own vocabulary (Feher,
 * Vulić and Minixhofer, arXiv 2411.18553, section 5: dynamic tokenization of decoders, without any training).
 *
 * A prompt costs one row per token, and a row of keys and values for as long as the sequence lives. Neighbours are merged
 * (`src/tokenization/dynamic-merging.ts`), each merged token is one row whose input embedding is predicted from its
 * pieces, and the model goes on from there with its own tokens: outputs are not touched.
 *
 *     x_i = E[t_i]  where token i is one piece,   predict(pieces of i)  where it is several
 *     p(. | prefix) = model(x_1 .. x_L')          L' rows in place of L, positions 1 .. L'
 *
 * **Deviations**: the paper's batch is one matrix, padded on the left; here each row of the batch is a session of its own
 * and nothing is padded. The batch still decides together what merges.
 *
 * **Unlike** the plain prefill it is lossy: the model never saw such rows. With no merges it is the plain prefill, bit for bit.
 *
 * Worked example: pieces "add" "Event" "Listener" as one token by `meanOfPieces`: one row, a third of the sum of theirs.
 */
import { ArgumentError } from "../errors.ts";
import { surprise } from "../model/evaluation.ts";
import { type Matrix, row, type Session } from "../model/language-model.ts";
import type { RunningDecoder } from "../model/load.ts";
import {
  type DynamicMergingOptions,
  type MergedBatch,
  mergeBatch,
  reductionOf,
} from "../tokenization/dynamic-merging.ts";
import type { EmbeddingPredictor } from "./embedding-predictor.ts";

/** A session that holds a merged prefix, and the logits after its last row. */
export interface MergedPrefix {
  readonly session: Session;
  /** [vocabularySize], of the model's own tokens. */
  readonly logits: Float32Array;
}

/**
 * Input embeddings of a merged batch: one matrix [tokens of the row, width] per row. Every token of the batch is predicted
 * once, in one call, however often it occurs.
 * @throws ArgumentError where the batch holds ids that are not in the predictor's vocabulary
 */
export function mergedEmbeddings(batch: MergedBatch, predictor: EmbeddingPredictor): Matrix[] {
  const places = new Map<number, number>();
  for (const { tokens } of batch.rows)
    for (const token of tokens) if (!places.has(token)) places.set(token, places.size);
  const { input } = predictor.predict(Array.from(places.keys(), batch.pieces));
  return batch.rows.map(({ tokens }) => {
    const data = new Float32Array(tokens.length * input.columns);
    tokens.forEach((token, i) => {
      data.set(row(input, places.get(token)!), i * input.columns);
    });
    return { data, rows: tokens.length, columns: input.columns };
  });
}

/**
 * Open a session for each row of a merged batch and read the row into it. Close them when done.
 * @throws ArgumentError where the predictor is of another vocabulary than the model, or of another width, or where a row
 *   is empty; ContextOverflowError on a row that is too long. No session stays open then.
 */
export function prefillMerged(
  model: RunningDecoder,
  batch: MergedBatch,
  predictor: EmbeddingPredictor,
): MergedPrefix[] {
  requireFit(model, predictor);
  batch.rows.forEach(({ tokens }, r) => {
    if (tokens.length === 0) throw new ArgumentError(`batch.rows[${r}]`, "at least one token", "none");
  });
  const prefixes: MergedPrefix[] = [];
  const sessions: Session[] = [];
  try {
    for (const embeddings of mergedEmbeddings(batch, predictor)) {
      const session = model.openSession();
      sessions.push(session);
      prefixes.push({ session, logits: row(session.extend(embeddings).logits, 0).slice() });
    }
  } catch (error) {
    for (const session of sessions) session.close();
    throw error;
  }
  return prefixes;
}

/**
 * The most probable continuation in the model's own vocabulary.
 * @param prefix as `prefillMerged` gave it; its session grows by `tokens - 1`
 * @throws ContextOverflowError where the context ends
 */
export function continueGreedily({ session, logits }: MergedPrefix, tokens: number): Uint32Array {
  const written = new Uint32Array(tokens);
  let next = logits;
  for (let i = 0; i < tokens; i++) {
    written[i] = next.reduce((best, value, id) => (value > next[best]! ? id : best), 0);
    if (i + 1 < tokens) next = row(session.extend([written[i]!]).logits, 0);
  }
  return written;
}

export interface MergedPrefillMeasurement {
  /** What was asked for, in per cent: 0 merges nothing, 100 to the end. */
  readonly reduction: number;
  /** r(M) that the batches reached, on average. */
  readonly reached: number;
  /** Merges per batch, on average. */
  readonly merges: number;
  /** Rows the prefixes took, over those they take unmerged. */
  readonly rows: number;
  /** Bits per byte of the continuations, in the model's own tokens. */
  readonly bitsPerByte: number;
  /** Over that after the unmerged prefix, less one. */
  readonly loss: number;
}

export interface MergedPrefillOptions extends Omit<DynamicMergingOptions, "merges" | "reduction"> {
  /** Per cent, each measured on its own. Default 0, 25, 50, 75, 100. */
  readonly reductions?: readonly number[];
  /** Sequences merged together. Default 32. */
  readonly batchSize?: number;
  /** Tokens of a sequence that are merged. Default half the model's context. */
  readonly prefixTokens?: number;
  /** Tokens behind them that are predicted. Default a quarter of the context. */
  readonly continuationTokens?: number;
}

/**
 * What merging a prefix does to the prediction of what follows it: rows saved against bits per byte.
 * @param stream ids of text the model has not seen; cut into sequences of prefix and continuation, what is left over at
 *   the end that fills no batch is not used
 * @throws ArgumentError where the stream fills no batch, or as `prefillMerged`
 */
export function measureMergedPrefill(
  model: RunningDecoder,
  stream: ArrayLike<number>,
  predictor: EmbeddingPredictor,
  options: MergedPrefillOptions,
): MergedPrefillMeasurement[] {
  const { tokenizer, reductions = [0, 25, 50, 75, 100], batchSize = 32 } = options;
  const prefixTokens = options.prefixTokens ?? model.contextLength >> 1;
  const continuationTokens = options.continuationTokens ?? model.contextLength >> 2;
  for (const [name, value] of Object.entries({ batchSize, prefixTokens, continuationTokens })) {
    if (!(Number.isSafeInteger(value) && value >= 1))
      throw new ArgumentError(`options.${name}`, "an integer >= 1", value);
  }
  const ids = Array.from(stream);
  const length = prefixTokens + continuationTokens;
  const batches = Math.floor(ids.length / (batchSize * length));
  if (batches === 0) throw new ArgumentError("stream", `at least ${batchSize * length} ids, one batch`, ids.length);
  requireFit(model, predictor);

  const session = model.openSession();
  const measure = (reduction: number): Omit<MergedPrefillMeasurement, "reduction" | "loss"> => {
    const sums = { rows: 0, bits: 0, bytes: 0, merges: 0, reached: 0 };
    for (let b = 0; b < batches; b++) {
      const starts = Array.from({ length: batchSize }, (_, r) => (b * batchSize + r) * length);
      const batch = mergeBatch(
        starts.map((start) => ids.slice(start, start + prefixTokens)),
        { ...options, reduction },
      );
      sums.merges += batch.merges.length;
      sums.reached += reductionOf(batch.lengths[0]!, batch.lengths[batch.merges.length]!, batch.lengths.at(-1)!);
      mergedEmbeddings(batch, predictor).forEach((embeddings, r) => {
        const continuation = ids.slice(starts[r]! + prefixTokens, starts[r]! + length);
        sums.rows += embeddings.rows;
        session.truncate(0);
        sums.bits += surprise(row(session.extend(embeddings).logits, 0), continuation[0]!);
        if (continuation.length > 1) {
          const { logits } = session.extend(continuation.slice(0, -1), { logits: "all" });
          for (let i = 1; i < continuation.length; i++) sums.bits += surprise(row(logits, i - 1), continuation[i]!);
        }
        for (const id of continuation) sums.bytes += tokenizer.tokenBytes(id).length;
      });
    }
    return {
      reached: sums.reached / batches,
      merges: sums.merges / batches,
      rows: sums.rows / (batches * batchSize * prefixTokens),
      bitsPerByte: sums.bits / sums.bytes,
    };
  };
  try {
    const unmerged = measure(0).bitsPerByte;
    return reductions.map((reduction) => {
      const measured = measure(reduction);
      return { reduction, ...measured, loss: measured.bitsPerByte / unmerged - 1 };
    });
  } finally {
    session.close();
  }
}

function requireFit(model: RunningDecoder, predictor: EmbeddingPredictor): void {
  const { vocabularySize, width } = model.config;
  if (predictor.vocabularySize !== vocabularySize) {
    throw new ArgumentError(
      "predictor",
      `one for the model's vocabulary of ${vocabularySize} tokens`,
      predictor.vocabularySize,
    );
  }
  if (predictor.width !== width) {
    throw new ArgumentError("predictor", `embeddings of the model's width, ${width}`, predictor.width);
  }
}
