/**
 * Zero-shot tokenizer transfer: a frozen model over another tokenizer's vocabulary, with no training of the model.
 * Minixhofer, Ponti and Vulic, arXiv 2405.07883.
 *
 * Every token of the new vocabulary is spelled in pieces of the model's own (its surface form); a predictor makes of them
 * what the token looks like to the model and how the model says it. The model in between is untouched.
 *
 *     id -> predicted input embedding -> the model's layers, final norm -> . predicted output embeddings -> logits
 *
 * What comes out is a `LanguageModel` over the new ids: it generates, drafts, verifies and is measured like any other. How
 * the new tokenizer cuts a text plays no part: BPE, Unigram and words all go the same way.
 *
 * Special tokens of the same content keep the model's rows bit for bit, and so does every token of a single piece; with its
 * own tokenizer the model is what it was. Ids that can never occur get a logit of -1e9: unused ones, and of several tokens
 * with the same bytes (the bytes of a Unigram, say) those that the tokenizer does not make of these bytes.
 *
 * **Deviations**: none in the transfer. What the paper trains afterwards (n-shot) is not here.
 *
 * **Unlike** merging tokens as the text goes (dynamic tokenization), the vocabulary is fixed and its embeddings are
 * predicted once, when the model is made.
 *
 * Worked example: a model that knows "low" and "er", a tokenizer with "lower" = 7: the surface form of 7 is [low, er], with
 * the mean of pieces its input embedding is (E[low] + E[er]) / 2.
 */
import { ArgumentError } from "../errors.ts";
import type { KernelSpace } from "../kernels/kernels.ts";
import type { DecoderConfig } from "../model/decoder-config.ts";
import { type EvaluationOptions, totalBits } from "../model/evaluation.ts";
import {
  type Cost,
  type DraftTree,
  type ExtendOptions,
  isMatrix,
  type LanguageModel,
  type Matrix,
  type Pass,
  type PassOptions,
  row,
  type ScoreOptions,
  type Session,
} from "../model/language-model.ts";
import { requireIds, requireTree } from "../model/session-checks.ts";
import { HeadLayers, type HeadTarget, type Linear, lastHidden } from "../speculative/head-layers.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import type { Tokenizer } from "../tokenization/tokenizer.ts";
import type { EmbeddingPredictor, EmbeddingTables } from "./embedding-predictor.ts";
import { SurfaceForms } from "./surface-forms.ts";

/** A model as the transfer needs it. It stays as it is and is closed by its owner. */
export interface TransferModel {
  /** Runs embeddings and reports hidden states, as the engine does. */
  readonly model: LanguageModel & { readonly config: DecoderConfig };
  /** Its embeddings and final norm, of `headTarget` or `readHeadTarget`. */
  readonly target: HeadTarget;
  /** Its own tokenizer. */
  readonly tokenizer: Bpe;
}

/** A tokenizer to transfer to. Special tokens of the contents of the model's own keep its rows. */
export type TransferTokenizer = Tokenizer & { readonly specialTokens?: ReadonlyMap<string, number> };

/** The embeddings of a target as tables. */
export function targetTables({ config, embeddings, outputHead }: HeadTarget): EmbeddingTables {
  const { vocabularySize: rows, width: columns } = config;
  const input = { data: embeddings, rows, columns };
  return { input, output: outputHead === embeddings ? input : { data: outputHead, rows, columns } };
}

/**
 * Pieces of each token of a vocabulary in the model's own; undefined for ids that never occur.
 * @param own the model's tokenizer
 */
export function vocabularyForms(tokenizer: TransferTokenizer, own: Bpe): (readonly number[] | undefined)[] {
  const forms = new SurfaceForms(own);
  const result: (readonly number[] | undefined)[] = [];
  const specials = new Map([...(tokenizer.specialTokens ?? [])].map(([content, id]) => [id, content]));
  const byBytes = new Map<string, number[]>();
  for (let id = 0; id < tokenizer.vocabularySize; id++) {
    const special = own.specialTokens.get(specials.get(id) ?? "");
    const bytes = bytesOf(tokenizer, id);
    result.push(special !== undefined ? [special] : bytes === undefined ? undefined : forms.of(bytes));
    if (special !== undefined || bytes === undefined) continue;
    const key = bytes.join();
    byBytes.set(key, [...(byBytes.get(key) ?? []), id]);
  }
  for (const ids of byBytes.values()) {
    if (ids.length === 1) continue;
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(tokenizer.tokenBytes(ids[0]!));
    const encoded = tokenizer.encode(text, { disallowedSpecial: [] });
    const kept = encoded.length === 1 && ids.includes(encoded[0]!) ? encoded[0]! : ids[0]!;
    for (const id of ids) if (id !== kept) result[id] = undefined;
  }
  return result;
}

/**
 * A model over another tokenizer's vocabulary.
 * @param space kernels for its output head, placed for good
 * @throws ArgumentError when predictor, target and model do not belong together
 */
export function retokenized(
  source: TransferModel,
  tokenizer: TransferTokenizer,
  predictor: EmbeddingPredictor,
  space: KernelSpace,
): LanguageModel {
  const { input, output, dead } = predictedVocabulary(source, tokenizer, predictor);
  return new RetokenizedModel(source.model, input, new TransferHead(source.target, output, dead, space));
}

/** A vocabulary as a predictor sees it. */
export interface PredictedVocabulary {
  /** Input and output embeddings, [vocabularySize, width]; zeros at ids that never occur. */
  readonly input: Matrix;
  readonly output: Matrix;
  /** Ids that never occur. */
  readonly dead: readonly number[];
}

/**
 * Embeddings of another tokenizer's vocabulary for a model.
 * @throws ArgumentError when predictor, target and model do not belong together
 */
export function predictedVocabulary(
  { model, target, tokenizer: own }: TransferModel,
  tokenizer: TransferTokenizer,
  predictor: EmbeddingPredictor,
): PredictedVocabulary {
  const { config } = model;
  if (predictor.width !== config.width || predictor.vocabularySize !== config.vocabularySize) {
    const got = [predictor.vocabularySize, predictor.width];
    throw new ArgumentError("predictor", `one for embeddings [${config.vocabularySize}, ${config.width}]`, got);
  }
  if (target.config.width !== config.width || target.config.vocabularySize !== config.vocabularySize) {
    const got = [target.config.vocabularySize, target.config.width];
    throw new ArgumentError("target", `embeddings [${config.vocabularySize}, ${config.width}], the model's`, got);
  }
  if (own.vocabularySize !== config.vocabularySize) {
    const expected = `the model's own tokenizer, of ${config.vocabularySize} ids`;
    throw new ArgumentError("tokenizer", expected, own.vocabularySize);
  }
  const forms = vocabularyForms(tokenizer, own);
  const live = forms.flatMap((form, id) => (form === undefined ? [] : [id]));
  const { input, output } = predictor.predict(live.map((id) => forms[id]!));
  return {
    input: spread(input, live, forms.length),
    output: spread(output, live, forms.length),
    dead: forms.flatMap((form, id) => (form === undefined ? [id] : [])),
  };
}

/** Bits a model spends per byte of some texts, and tokens it takes for them: comparable between tokenizers. */
export function bitsPerByte(
  model: LanguageModel,
  tokenizer: Tokenizer,
  texts: readonly string[],
  endOfText: number,
  options: EvaluationOptions = {},
): { readonly bitsPerByte: number; readonly tokens: number; readonly bytes: number } {
  const stream = [endOfText];
  let bytes = 0;
  for (const text of texts) {
    for (const id of tokenizer.encode(text, { disallowedSpecial: [] })) stream.push(id);
    stream.push(endOfText);
    bytes += new TextEncoder().encode(text).length;
  }
  const tokens = stream.length - 1;
  return { bitsPerByte: totalBits(model, stream, options) / bytes, tokens, bytes };
}

/** The logit of what cannot be. */
export const never = -1e9;

/** What makes logits of a model's states. */
export interface OutputHead {
  readonly width: number;
  readonly vocabularySize: number;
  /** Of all logits so far. */
  readonly multiplyAdds: number;
  /** States [rows, width], before the final norm -> [rows, vocabularySize]. */
  logits(states: Matrix): Matrix;
}

/** A model between other embeddings: rows of `input` enter, `head` reads what comes out. */
export class RetokenizedModel implements LanguageModel {
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly #model: LanguageModel;
  readonly #embeddings: Matrix;
  readonly #head: OutputHead;

  constructor(model: LanguageModel, input: Matrix, head: OutputHead) {
    this.vocabularySize = input.rows;
    this.contextLength = model.contextLength;
    this.#model = model;
    this.#embeddings = input;
    this.#head = head;
  }

  openSession(): Session {
    return new RetokenizedSession(this.#model.openSession(), this.#embeddings, this.#head);
  }
}

/** Hidden states to logits over the new vocabulary. */
class TransferHead implements OutputHead {
  readonly width: number;
  readonly vocabularySize: number;
  readonly #layers: HeadLayers;
  readonly #linear: Linear;
  readonly #norm: number;
  readonly #epsilon: number;
  readonly #dead: readonly number[];
  readonly #x: number;
  readonly #y: number;
  multiplyAdds = 0;

  constructor(target: HeadTarget, output: Matrix, dead: readonly number[], space: KernelSpace) {
    this.width = output.columns;
    this.vocabularySize = output.rows;
    this.#layers = new HeadLayers(space);
    this.#linear = this.#layers.linear(output.rows, output.columns, output.data);
    this.#norm = this.#layers.vector(target.norm);
    this.#epsilon = target.config.normEpsilon;
    this.#dead = dead;
    this.#x = this.#layers.buffer(headRows, this.width);
    this.#y = this.#layers.buffer(headRows, this.vocabularySize);
  }

  logits({ data, rows, columns }: Matrix): Matrix {
    this.multiplyAdds += rows * columns * this.vocabularySize;
    const logits = new Float32Array(rows * this.vocabularySize);
    for (let first = 0; first < rows; first += headRows) {
      const count = Math.min(headRows, rows - first);
      const part = data.subarray(first * columns, (first + count) * columns);
      this.#layers.write({ data: part, rows: count, columns }, this.#x);
      this.#layers.norm(this.#norm, this.#epsilon, this.#x, count, columns, this.#x);
      this.#layers.apply(this.#linear, this.#x, count, this.#y);
      logits.set(this.#layers.read(this.#y, count, this.vocabularySize).data, first * this.vocabularySize);
    }
    const result = { data: logits, rows, columns: this.vocabularySize };
    for (let r = 0; r < rows; r++) for (const id of this.#dead) row(result, r)[id] = never;
    return result;
  }
}

/** Rows whose logits are computed at once. */
const headRows = 32;

class RetokenizedSession implements Session {
  readonly #inner: Session;
  readonly #embeddings: Matrix;
  readonly #head: OutputHead;
  #headMultiplyAdds = 0;

  constructor(inner: Session, embeddings: Matrix, head: OutputHead) {
    this.#inner = inner;
    this.#embeddings = embeddings;
    this.#head = head;
  }

  get length(): number {
    return this.#inner.length;
  }

  /** The model's, its own output head included where it computed one (`score`), and the new head's. */
  get cost(): Cost {
    const cost = this.#inner.cost;
    return { ...cost, multiplyAdds: cost.multiplyAdds + this.#headMultiplyAdds };
  }

  extend(input: ArrayLike<number> | Matrix, options: ExtendOptions = {}): Pass {
    const wanted = options.logits ?? "last";
    const rows = isMatrix(input) ? input : this.#embed(input, "input");
    const pass = this.#inner.extend(rows, { ...withHidden(options), logits: "none" });
    const hidden = lastHidden(pass.taps, this.#head.width);
    const from = wanted === "all" ? 0 : wanted === "last" ? hidden.rows - 1 : hidden.rows;
    return this.#pass(hidden, from, pass, options);
  }

  score(tree: DraftTree, options: ScoreOptions = {}): Pass {
    requireTree(tree, this.#head.vocabularySize);
    const { embeddings = this.#embed(tree.tokens, "tree.tokens"), ...rest } = options;
    // The nodes' own ids mean nothing to the model: it runs the embeddings.
    const nodes = { tokens: new Int32Array(tree.tokens.length), parents: tree.parents };
    const pass = this.#inner.score(nodes, { ...withHidden(rest), embeddings });
    return this.#pass(lastHidden(pass.taps, this.#head.width), 0, pass, options);
  }

  accept(node: number): void {
    this.#inner.accept(node);
  }

  truncate(length: number): void {
    this.#inner.truncate(length);
  }

  close(): void {
    this.#inner.close();
  }

  #embed(ids: ArrayLike<number>, argument: string): Matrix {
    requireIds(argument, ids, this.#head.vocabularySize);
    const { columns } = this.#embeddings;
    const rows = { data: new Float32Array(ids.length * columns), rows: ids.length, columns };
    for (let r = 0; r < ids.length; r++) row(rows, r).set(row(this.#embeddings, ids[r]!));
    return rows;
  }

  /** Logits of the rows of `hidden` from `from` on, and the taps that were asked for. */
  #pass({ data, rows, columns }: Matrix, from: number, { taps }: Pass, { taps: asked }: PassOptions): Pass {
    const before = this.#head.multiplyAdds;
    const logits = this.#head.logits({ data: data.subarray(from * columns), rows: rows - from, columns });
    this.#headMultiplyAdds += this.#head.multiplyAdds - before;
    if (asked === undefined) return { logits };
    if (asked.includes("hidden")) return { logits, taps: taps! };
    const { hidden: _, ...others } = taps!;
    return { logits, taps: others };
  }
}

function withHidden<Options extends PassOptions>(options: Options): Options {
  return { ...options, taps: [...new Set([...(options.taps ?? []), "hidden" as const])] };
}

/** Rows of `live` ids to their places among `rows`, zeros elsewhere. */
function spread(matrix: Matrix, live: readonly number[], rows: number): Matrix {
  const { columns } = matrix;
  const result = { data: new Float32Array(rows * columns), rows, columns };
  live.forEach((id, r) => {
    row(result, id).set(row(matrix, r));
  });
  return result;
}

function bytesOf(tokenizer: Tokenizer, id: number): Uint8Array | undefined {
  try {
    return tokenizer.tokenBytes(id);
  } catch (error) {
    if (error instanceof ArgumentError) return undefined; // an unused id
    throw error;
  }
}
