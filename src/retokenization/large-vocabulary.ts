/**
 * Generation over a vocabulary far larger than the model's own: words and phrases as single tokens, each step choosing among
 * the few nearest. Feher, Vulic and Minixhofer, arXiv 2411.18553, section on generation with a large dynamic vocabulary.
 *
 * The larger the vocabulary, the fewer tokens a text takes, and the dearer every one of them: an output head over a million
 * tokens costs more than the model below it. But only the most probable tokens matter, and those are the rows of the
 * predicted output embeddings with the largest products with the state, which an index finds without looking at all:
 *
 *     h          final norm of the last state
 *     neighbours the k rows of E_out with the largest h . e, by the index
 *     logits     h . e for those, nothing for the rest: the law is a softmax over k tokens
 *
 * The token drawn enters the model as its predicted input embedding. What comes out is a `LanguageModel` over the large
 * vocabulary; `generate` and all that is written on the contract run on it.
 *
 * **Deviations**: the paper's index searches by cosine, and scores what it found by products: rows differ in length, so the
 * most probable token can be missed. Here the index searches by products. Prompts are encoded by the large tokenizer itself,
 * the paper's by longest prefix match.
 *
 * **Unlike** `retokenized`, which scores every token, this law has k tokens. With k the vocabulary's size and an exact index
 * the two are the same.
 *
 * Worked example: h = [1, 4], rows [3, 0], [0, 1], [5, 5]: with k = 2 the logits are [-1e9, 4, 25].
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel, Matrix } from "../model/language-model.ts";
import { row } from "../model/language-model.ts";
import { type HeadTarget, normedStates } from "../speculative/head-layers.ts";
import type { EmbeddingPredictor } from "./embedding-predictor.ts";
import { exactNeighbours, type NeighbourIndex } from "./nearest-neighbours.ts";
import {
  never,
  type OutputHead,
  predictedVocabulary,
  RetokenizedModel,
  type TransferModel,
  type TransferTokenizer,
} from "./tokenizer-transfer.ts";

export interface LargeVocabularyOptions {
  /** k: tokens a law has, an integer >= 1. Default 20. */
  readonly neighbours?: number;
  /** Index over the output embeddings. Default `exactNeighbours`. */
  readonly index?: (table: Matrix) => NeighbourIndex | Promise<NeighbourIndex>;
}

/**
 * A model over a large vocabulary, choosing among the neighbours an index finds.
 * @throws ArgumentError as `retokenized`, or on a number of neighbours that is not an integer >= 1
 */
export async function largeVocabulary(
  source: TransferModel,
  tokenizer: TransferTokenizer,
  predictor: EmbeddingPredictor,
  options: LargeVocabularyOptions = {},
): Promise<LanguageModel> {
  const { neighbours = 20, index = exactNeighbours } = options;
  if (!(Number.isSafeInteger(neighbours) && neighbours >= 1)) {
    throw new ArgumentError("neighbours", "an integer >= 1", neighbours);
  }
  const { input, output, dead } = predictedVocabulary(source, tokenizer, predictor);
  const gone = new Set(dead);
  const live = Array.from({ length: output.rows }, (_, id) => id).filter((id) => !gone.has(id));
  const table = { data: new Float32Array(live.length * output.columns), rows: live.length, columns: output.columns };
  live.forEach((id, r) => {
    row(table, r).set(row(output, id));
  });
  const head = new NeighbourHead(source.target, await index(table), live, output.rows, neighbours);
  return new RetokenizedModel(source.model, input, head);
}

class NeighbourHead implements OutputHead {
  readonly width: number;
  readonly vocabularySize: number;
  readonly #target: HeadTarget;
  readonly #index: NeighbourIndex;
  /** Token ids of the index's rows. */
  readonly #ids: readonly number[];
  readonly #neighbours: number;
  multiplyAdds = 0;

  constructor(
    target: HeadTarget,
    index: NeighbourIndex,
    ids: readonly number[],
    vocabularySize: number,
    neighbours: number,
  ) {
    this.width = index.width;
    this.vocabularySize = vocabularySize;
    this.#target = target;
    this.#index = index;
    this.#ids = ids;
    this.#neighbours = neighbours;
  }

  logits(states: Matrix): Matrix {
    const normed = normedStates(this.#target, states);
    const logits = {
      data: new Float32Array(states.rows * this.vocabularySize).fill(never),
      rows: states.rows,
      columns: this.vocabularySize,
    };
    for (let r = 0; r < states.rows; r++) {
      const { rows, products, compared } = this.#index.search(row(normed, r), this.#neighbours);
      this.multiplyAdds += compared * this.width;
      rows.forEach((found, i) => {
        row(logits, r)[this.#ids[found]!] = products[i]!;
      });
    }
    return logits;
  }
}
