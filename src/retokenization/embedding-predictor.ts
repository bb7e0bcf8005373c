/**
 * Embeddings for tokens a frozen model never had, from the pieces they are spelled with in the model's own vocabulary: the
 * contract, and the baselines that need no training.
 *
 *     mean of pieces   e = (1 / n) sum E[piece_i]      FVT (Gee et al., arXiv 2402.09977)
 *     last piece       e = E[piece_n]                  what the model last saw before it went on
 *     random           e ~ normal, with mean and variance of E dimension by dimension
 *
 * Each is applied to the table of inputs and to that of outputs. A token that is one piece is the model's own and keeps its
 * rows bit for bit, whatever the predictor. Rows are independent: a token's embeddings depend on its pieces alone, not
 * on its neighbours in the call; a random one is drawn from a stream named by its pieces.
 *
 * **Unlike** `hypernetwork.ts`, nothing here knows in which order pieces stand (the mean) or that there were others (the
 * last piece).
 *
 * Worked example: E = [1, 2], [3, 6], [5, 0]; pieces [0, 1] give the mean [2, 4] and the last piece [3, 6].
 */
import { ArgumentError } from "../errors.ts";
import type { DecoderConfig } from "../model/decoder-config.ts";
import { embeddingName } from "../model/decoder-config.ts";
import { type Matrix, row } from "../model/language-model.ts";
import { requireIds } from "../model/session-checks.ts";
import type { Weights } from "../model/weights.ts";
import { Random } from "../tensor/random.ts";

/** A model's embeddings, [vocabularySize, width] each: one and the same matrix where the model ties the two. */
export interface EmbeddingTables {
  readonly input: Matrix;
  /** Rows of the output head: logits are hidden states times these. */
  readonly output: Matrix;
}

/** What a new token's embeddings should be, from its pieces in a frozen model's own vocabulary. */
export interface EmbeddingPredictor {
  /** "hypernetwork", "mean of pieces", ... */
  readonly name: string;
  readonly width: number;
  /** Pieces are ids below this. */
  readonly vocabularySize: number;
  /**
   * @param pieces ids in the model's own vocabulary, at least one for each new token. A single piece keeps its own
   *   embedding, bit for bit.
   * @returns [pieces.length, width] each
   * @throws ArgumentError on a token without pieces, or an id outside the vocabulary
   */
  predict(pieces: readonly ArrayLike<number>[]): { readonly input: Matrix; readonly output: Matrix };
}

/** A model's embeddings from its weights, by Hugging Face's names. @throws ArgumentError when they are not there */
export function embeddingTables(config: DecoderConfig, weights: ReadonlyMap<string, Weights>): EmbeddingTables {
  const table = (name: string): Matrix => {
    const { vocabularySize: rows, width: columns } = config;
    const data = weights.get(name)?.data;
    if (data?.length !== rows * columns) {
      throw new ArgumentError("weights", `a tensor ${name} [${rows}, ${columns}]`, weights.get(name)?.shape);
    }
    return { data, rows, columns };
  };
  const input = table(embeddingName(config));
  return { input, output: config.tiedEmbeddings ? input : table("lm_head.weight") };
}

/** FVT: the mean of the pieces' embeddings. */
export function meanOfPieces(tables: EmbeddingTables): EmbeddingPredictor {
  return predictor("mean of pieces", tables, (pieces, table, into) => {
    for (let p = 0; p < pieces.length; p++) {
      const piece = row(table, pieces[p]!);
      for (let i = 0; i < into.length; i++) into[i]! += piece[i]! / pieces.length;
    }
  });
}

/** The embedding of the last piece. */
export function lastPiece(tables: EmbeddingTables): EmbeddingPredictor {
  return predictor("last piece", tables, (pieces, table, into) => {
    into.set(row(table, pieces[pieces.length - 1]!));
  });
}

/**
 * Normal draws with each dimension's mean and deviation.
 * @param seed the same seed and pieces give the same embedding. Default 0.
 */
export function randomEmbeddings(tables: EmbeddingTables, seed: number | string = 0): EmbeddingPredictor {
  const random = new Random(seed);
  const statistics = new Map([tables.input, tables.output].map((table) => [table, columnStatistics(table)] as const));
  return predictor("random", tables, (pieces, table, into) => {
    const stream = random.fork(Array.from(pieces).join(" "));
    const { means, deviations } = statistics.get(table)!;
    for (let i = 0; i < into.length; i++) into[i] = means[i]! + deviations[i]! * stream.normal();
  });
}

/** Mean and standard deviation of each column. */
export function columnStatistics({ data, rows, columns }: Matrix): {
  readonly means: Float64Array;
  readonly deviations: Float64Array;
} {
  const means = new Float64Array(columns);
  const deviations = new Float64Array(columns);
  for (let i = 0; i < data.length; i++) means[i % columns]! += data[i]! / rows;
  for (let i = 0; i < data.length; i++) deviations[i % columns]! += (data[i]! - means[i % columns]!) ** 2 / rows;
  return { means, deviations: deviations.map(Math.sqrt) };
}

/** @throws ArgumentError on a token without pieces, or an id outside the vocabulary */
export function requirePieces(pieces: readonly ArrayLike<number>[], vocabularySize: number): void {
  pieces.forEach((ids, token) => {
    if (ids.length === 0) throw new ArgumentError(`pieces[${token}]`, "at least one id", []);
    requireIds(`pieces[${token}]`, ids, vocabularySize);
  });
}

/** A predictor of several pieces, `fill` writing into zeros; single pieces are copied. Tied tables give one matrix. */
function predictor(
  name: string,
  tables: EmbeddingTables,
  fill: (pieces: ArrayLike<number>, table: Matrix, into: Float32Array) => void,
): EmbeddingPredictor {
  const { rows: vocabularySize, columns: width } = tables.input;
  const from = (table: Matrix, pieces: readonly ArrayLike<number>[]): Matrix => {
    const predicted = { data: new Float32Array(pieces.length * width), rows: pieces.length, columns: width };
    pieces.forEach((ids, token) => {
      if (ids.length === 1) row(predicted, token).set(row(table, ids[0]!));
      else fill(ids, table, row(predicted, token));
    });
    return predicted;
  };
  return {
    name,
    width,
    vocabularySize,
    predict(pieces) {
      requirePieces(pieces, vocabularySize);
      const input = from(tables.input, pieces);
      return { input, output: tables.output === tables.input ? input : from(tables.output, pieces) };
    },
  };
}
