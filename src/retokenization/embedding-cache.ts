/**
 * A bounded cache of predicted embeddings, least recently used out first: what lets a frozen model stream over dynamically
 * merged text (Feher, Vulić and Minixhofer, arXiv 2411.18553; the released code keeps 5,000 tokens).
 *
 * Batches of one stream share most of their tokens; those predicted before are copied. A call first marks all it needs as
 * just used, so what is pushed out is never needed by the batch at hand, and never more is kept than the capacity between
 * calls. Keys are the pieces, and a prediction depends on nothing else, so cached and recomputed rows are the same numbers.
 *
 * **Deviations**: the released cache refuses a batch of more distinct tokens than it holds; here such a batch is served,
 * and the first of its tokens are forgotten afterwards.
 *
 * **Unlike** the predictor it wraps it has a state; it is one itself, so it stands wherever a predictor does.
 *
 * Worked example: capacity 2, calls [a, b], [a], [c]: c pushes out b. One hit, three misses, one eviction.
 */
import { ArgumentError } from "../errors.ts";
import { type Matrix, row } from "../model/language-model.ts";
import { type EmbeddingPredictor, requirePieces } from "./embedding-predictor.ts";

export interface EmbeddingCacheStatistics {
  /** Tokens asked for that were there; one that a call asks for twice counts twice. */
  readonly hits: number;
  /** Tokens that had to be predicted. */
  readonly misses: number;
  /** Tokens pushed out. */
  readonly evictions: number;
  /** Tokens held now. */
  readonly size: number;
}

/** One token's rows; the same array twice where the model ties its tables. */
interface Rows {
  readonly input: Float32Array;
  readonly output: Float32Array;
}

export class EmbeddingCache implements EmbeddingPredictor {
  readonly name: string;
  readonly width: number;
  readonly vocabularySize: number;
  readonly capacity: number;
  readonly #predictor: EmbeddingPredictor;
  readonly #rows = new Map<string, Rows>(); // by pieces, least recently used first
  #hits = 0;
  #misses = 0;
  #evictions = 0;

  /**
   * @param capacity tokens kept between calls, an integer >= 1. Default 5000.
   * @throws ArgumentError on another capacity
   */
  constructor(predictor: EmbeddingPredictor, capacity = 5000) {
    if (!(Number.isSafeInteger(capacity) && capacity >= 1)) {
      throw new ArgumentError("capacity", "an integer >= 1", capacity);
    }
    this.#predictor = predictor;
    this.name = predictor.name;
    this.width = predictor.width;
    this.vocabularySize = predictor.vocabularySize;
    this.capacity = capacity;
  }

  get statistics(): EmbeddingCacheStatistics {
    return { hits: this.#hits, misses: this.#misses, evictions: this.#evictions, size: this.#rows.size };
  }

  /** Whether a token's embeddings are held. Does not count as use. */
  has(pieces: ArrayLike<number>): boolean {
    return this.#rows.has(keyOf(pieces));
  }

  predict(pieces: readonly ArrayLike<number>[]): { readonly input: Matrix; readonly output: Matrix } {
    requirePieces(pieces, this.vocabularySize);
    const keys = pieces.map(keyOf);
    const missing = new Map<string, ArrayLike<number>>();
    keys.forEach((key, token) => {
      const known = this.#rows.get(key);
      if (known !== undefined) {
        this.#rows.delete(key);
        this.#rows.set(key, known); // now the most recent
      }
      if (known !== undefined || missing.has(key)) this.#hits++;
      else missing.set(key, pieces[token]!);
    });
    this.#misses += missing.size;
    if (missing.size > 0) this.#fill(missing);

    const first = this.#rows.get(keys[0] ?? "");
    const tied = first !== undefined && first.input === first.output;
    const input = this.#gather(keys, "input");
    const output = tied ? input : this.#gather(keys, "output");
    for (const key of this.#rows.keys()) {
      if (this.#rows.size <= this.capacity) break;
      this.#rows.delete(key);
      this.#evictions++;
    }
    return { input, output };
  }

  #fill(missing: ReadonlyMap<string, ArrayLike<number>>): void {
    const { input, output } = this.#predictor.predict([...missing.values()]);
    let at = 0;
    for (const key of missing.keys()) {
      const own = row(input, at).slice();
      this.#rows.set(key, { input: own, output: output === input ? own : row(output, at).slice() });
      at++;
    }
  }

  #gather(keys: readonly string[], table: keyof Rows): Matrix {
    const data = new Float32Array(keys.length * this.width);
    keys.forEach((key, token) => {
      data.set(this.#rows.get(key)![table], token * this.width);
    });
    return { data, rows: keys.length, columns: this.width };
  }
}

function keyOf(pieces: ArrayLike<number>): string {
  return Array.prototype.join.call(pieces, " ");
}
