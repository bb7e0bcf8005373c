/**
 * Table model: a language model that is nothing but a table of conditional probabilities (a Markov chain of order k).
 *
 * The next token's law depends on the last k tokens, so a test can enumerate the joint law of the next n tokens and hold
 * samples against it. Near the start, where fewer than k tokens exist, the shorter context has a row of its own.
 * Sessions keep the ids they committed: they are the oracle for what a cache must hold after each call.
 *
 *     logits(context) = log p(. | last k tokens of context), stored in float32; log 0 = -Infinity
 *
 * A float32 logarithm carries about 7 digits, so softmax(logits) differs from the probabilities given by up to 1e-6
 * relative. The law that counts is the one a caller can see, softmax of the float32 logits in doubles, and that is what
 * `law` and `enumerate` return.
 *
 * **Unlike** the decoder, nothing is learnt, no row costs a multiply-add and no cache is read: `cost` counts passes and
 * tokens only. There is no hidden state, hence no taps, no layers and no embeddings.
 *
 * Worked example: `TableModel.fromRows([[0.3, 0.7]])` has order 0 and gives token 1 with probability 0.7 everywhere.
 */
import { ArgumentError, ContextOverflowError, TokenthriftError } from "../errors.ts";
import { Random } from "../tensor/random.ts";
import type {
  Cost,
  DraftTree,
  ExtendOptions,
  LanguageModel,
  Matrix,
  Pass,
  PassOptions,
  ScoreOptions,
  Session,
} from "./language-model.ts";
import { isMatrix } from "./language-model.ts";
import { requireIds, requireTree } from "./session-checks.ts";

export interface TableModelOptions {
  /** Number of token ids. */
  readonly vocabularySize: number;
  /** How many tokens the law looks back, 0 to 64; vocabularySize^order rows must stay payable. Default 1. */
  readonly order?: number;
  /** Longest sequence a session may hold. Default 1024. */
  readonly contextLength?: number;
  /**
   * The next token's probabilities after `context`, the last `order` tokens (fewer near the start). They need not sum
   * to 1. Asked once per context, when first met: it must give the same answer each time.
   */
  readonly law: (context: readonly number[]) => ArrayLike<number>;
}

export interface RandomTableOptions {
  readonly vocabularySize: number;
  /** Default 1. */
  readonly order?: number;
  /** Default 1024. */
  readonly contextLength?: number;
  /** Default 0. */
  readonly seed?: number | string;
  /**
   * How far the rows are from uniform: each is softmax(sharpness * g) for standard normal g. 0 is uniform, 1 mild,
   * 4 nearly deterministic. Default 1.
   */
  readonly sharpness?: number;
}

/** One continuation and its probability. */
export interface Continuation {
  readonly tokens: readonly number[];
  readonly probability: number;
}

/** A table may hold this many numbers at most (256 MiB of float32). */
const largestTable = 2 ** 26;

export class TableModel implements LanguageModel {
  readonly vocabularySize: number;
  readonly contextLength: number;
  /** How many tokens the law looks back. */
  readonly order: number;
  readonly #law: (context: readonly number[]) => ArrayLike<number>;
  /** Logits by row, filled when first met; rows of contexts of length j start at `#starts[j]`. */
  readonly #rows: (Float32Array | undefined)[] = [];
  readonly #starts: readonly number[];

  /** @throws ArgumentError on sizes out of range, or a table of more than 2^26 numbers */
  constructor(options: TableModelOptions) {
    const { vocabularySize, order = 1, contextLength = 1024, law } = options;
    requireInteger("vocabularySize", vocabularySize, 1);
    requireInteger("order", order, 0, 64);
    requireInteger("contextLength", contextLength, 1);
    const starts = [0];
    for (let j = 0; j <= order; j++) {
      starts.push(starts[j]! + vocabularySize ** j);
      const numbers = starts[j + 1]! * vocabularySize;
      if (numbers > largestTable) {
        throw new ArgumentError(
          "order",
          "a table of at most 2^26 numbers",
          order,
          "Lower the order or the vocabulary.",
        );
      }
    }
    this.vocabularySize = vocabularySize;
    this.contextLength = contextLength;
    this.order = order;
    this.#law = law;
    this.#starts = starts;
  }

  /** A table of random laws, the same for the same seed. */
  static random(options: RandomTableOptions): TableModel {
    const { vocabularySize, order = 1, contextLength = 1024, seed = 0, sharpness = 1 } = options;
    if (!(sharpness >= 0 && Number.isFinite(sharpness))) {
      throw new ArgumentError("sharpness", "a finite number >= 0", sharpness);
    }
    const random = new Random(seed);
    return new TableModel({
      vocabularySize,
      order,
      contextLength,
      law: (context) => {
        // A stream of its own per context: the table does not depend on the order in which rows are met.
        const stream = random.fork(context.join(","));
        return Float64Array.from({ length: vocabularySize }, () => Math.exp(sharpness * stream.normal()));
      },
    });
  }

  /**
   * A table from explicit rows.
   * @param rows one row: order 0, the same law everywhere. `vocabularySize` rows: order 1, `rows[t]` follows token t,
   *   and an empty context has the law of `start`
   * @param options `start`: probabilities of the first token, default uniform; `contextLength`: default 1024
   */
  static fromRows(
    rows: readonly ArrayLike<number>[],
    options: { readonly start?: ArrayLike<number>; readonly contextLength?: number } = {},
  ): TableModel {
    const vocabularySize = rows[0]?.length ?? 0;
    if (rows.length !== 1 && rows.length !== vocabularySize) {
      throw new ArgumentError("rows", `1 row, or one per token of the first row (${vocabularySize})`, rows.length);
    }
    const { start = new Float64Array(vocabularySize).fill(1), contextLength = 1024 } = options;
    const order = rows.length === 1 ? 0 : 1;
    return new TableModel({
      vocabularySize,
      order,
      contextLength,
      law: (context) => (order === 0 ? rows[0]! : context.length === 0 ? start : rows[context[0]!]!),
    });
  }

  openSession(): TableSession {
    return new TableSession(this);
  }

  /** Float32 logits after `context`, [vocabularySize]. The table's own row: read, do not write. */
  logits(context: ArrayLike<number>): Float32Array {
    requireIds("context", context, this.vocabularySize);
    let state = this.initialState();
    for (let i = Math.max(0, context.length - this.order); i < context.length; i++) {
      state = this.nextState(state, context[i]!);
    }
    return this.rowOf(state);
  }

  /** The law a caller sees after `context`: softmax of the float32 logits, in doubles, [vocabularySize]. */
  law(context: ArrayLike<number>): Float64Array {
    return softmax(this.logits(context));
  }

  /**
   * The exact joint law of the next `count` tokens, continuations of probability 0 left out, in lexicographic order.
   * @param prompt the context the continuations follow
   * @param count how many tokens, 0 or more; at most vocabularySize^count continuations are returned
   * @param lawOf how a row of logits becomes a law; default softmax. Pass the sampler under test
   *   (`(logits) => tokenLaw(logits, { temperature: 0.5 })`) to enumerate what it should draw
   */
  enumerate(
    prompt: ArrayLike<number>,
    count: number,
    lawOf: (logits: Float32Array) => Float64Array = softmax,
  ): Continuation[] {
    requireInteger("count", count, 0);
    let level: Continuation[] = [{ tokens: [], probability: 1 }];
    const context = Array.from(prompt);
    for (let i = 0; i < count; i++) {
      level = level.flatMap(({ tokens, probability }) =>
        Array.from(lawOf(this.logits([...context, ...tokens])), (p, token) => ({
          tokens: [...tokens, token],
          probability: probability * p,
        })).filter((continuation) => continuation.probability > 0),
      );
    }
    return level;
  }

  // A state is the row of the last min(length, order) tokens, so that a session walks the table one addition at a time.

  /** @internal State of the empty context. */
  initialState(): number {
    return 0;
  }

  /** @internal State after one more token. */
  nextState(state: number, token: number): number {
    let length = this.order;
    while (state < this.#starts[length]!) length--;
    const code = (state - this.#starts[length]!) * this.vocabularySize + token;
    return length < this.order
      ? this.#starts[length + 1]! + code
      : this.#starts[length]! + (code % this.vocabularySize ** this.order);
  }

  /** @internal The logits of a state, [vocabularySize]. */
  rowOf(state: number): Float32Array {
    const known = this.#rows[state];
    if (known !== undefined) return known;
    const context = this.#contextOf(state);
    const weights = this.#law(context);
    if (weights.length !== this.vocabularySize) {
      throw new ArgumentError(`law([${context}])`, `${this.vocabularySize} probabilities`, weights.length);
    }
    let sum = 0;
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i]!;
      if (!(weight >= 0)) throw new ArgumentError(`law([${context}])[${i}]`, "a number >= 0", weight);
      sum += weight;
    }
    if (!(sum > 0 && sum < Number.POSITIVE_INFINITY)) {
      throw new ArgumentError(`law([${context}])`, "a positive, finite sum", sum);
    }
    const logits = Float32Array.from({ length: this.vocabularySize }, (_, i) => Math.log(weights[i]! / sum));
    this.#rows[state] = logits;
    return logits;
  }

  #contextOf(state: number): number[] {
    let length = this.order;
    while (state < this.#starts[length]!) length--;
    let code = state - this.#starts[length]!;
    const context = new Array<number>(length);
    for (let i = length - 1; i >= 0; i--) {
      context[i] = code % this.vocabularySize;
      code = Math.floor(code / this.vocabularySize);
    }
    return context;
  }
}

/** A session of a `TableModel`. `committed` is the ground truth for what any cache should hold. */
export class TableSession implements Session {
  readonly #model: TableModel;
  /** `#states[i]` is the table's state after i committed tokens. */
  #states: number[];
  #tokens: number[] = [];
  #tree: { readonly tokens: readonly number[]; readonly parents: readonly number[] } | undefined;
  #passes = 0;
  #rows = 0;
  #closed = false;

  /** Use `model.openSession()`. */
  constructor(model: TableModel) {
    this.#model = model;
    this.#states = [model.initialState()];
  }

  get length(): number {
    return this.#tokens.length;
  }

  /** The ids in the cache, a copy. */
  get committed(): number[] {
    return this.#tokens.slice();
  }

  get cost(): Cost {
    return { passes: this.#passes, tokens: this.#rows, multiplyAdds: 0, cacheBytesRead: 0 };
  }

  extend(input: ArrayLike<number> | Matrix, options: ExtendOptions = {}): Pass {
    this.#requireOpen();
    if (isMatrix(input)) {
      throw new ArgumentError(
        "input",
        "token ids",
        `a matrix of ${input.rows} embeddings`,
        "A table looks tokens up and has no embedding space. Use a decoder for embeddings.",
      );
    }
    requirePlainPass(options);
    const { logits = "last" } = options;
    if (logits !== "last" && logits !== "all" && logits !== "none") {
      throw new ArgumentError("options.logits", `"last", "all" or "none"`, logits);
    }
    const count = input.length;
    if (count === 0) throw new ArgumentError("input", "at least one token id", []);
    requireIds("input", input, this.#model.vocabularySize);
    this.#requireRoom(count);

    const first = this.length + 1;
    for (let i = 0; i < count; i++) {
      this.#states.push(this.#model.nextState(this.#states[this.length]!, input[i]!));
      this.#tokens.push(input[i]!);
    }
    this.#tree = undefined;
    this.#passes += 1;
    this.#rows += count;
    const from = logits === "all" ? first : logits === "last" ? first + count - 1 : first + count;
    return { logits: this.#matrix(this.#states.slice(from)) };
  }

  score(tree: DraftTree, options: ScoreOptions = {}): Pass {
    this.#requireOpen();
    requirePlainPass(options);
    if (options.embeddings !== undefined) {
      throw new ArgumentError("options.embeddings", "none", options.embeddings, "A table has no embedding space.");
    }
    const count = tree.tokens.length;
    requireTree(tree, this.#model.vocabularySize);
    this.#requireRoom(count);

    const states = new Array<number>(count);
    for (let i = 0; i < count; i++) {
      const parent = tree.parents[i]!;
      states[i] = this.#model.nextState(parent < 0 ? this.#states[this.length]! : states[parent]!, tree.tokens[i]!);
    }
    this.#tree = { tokens: Array.from(tree.tokens), parents: Array.from(tree.parents) };
    this.#passes += 1;
    this.#rows += count;
    return { logits: this.#matrix(states) };
  }

  accept(node: number): void {
    this.#requireOpen();
    const tree = this.#tree;
    if (tree === undefined) {
      throw new TokenthriftError(
        "accept: there is no scored tree to accept from. Call score first, accept once after it.",
      );
    }
    if (!(Number.isInteger(node) && node >= 0 && node < tree.tokens.length)) {
      throw new ArgumentError("node", `a node of the tree last scored, 0 to ${tree.tokens.length - 1}`, node);
    }
    const path: number[] = [];
    for (let i = node; i >= 0; i = tree.parents[i]!) path.push(tree.tokens[i]!);
    for (const token of path.reverse()) {
      this.#states.push(this.#model.nextState(this.#states[this.length]!, token));
      this.#tokens.push(token);
    }
    this.#tree = undefined;
  }

  truncate(length: number): void {
    this.#requireOpen();
    if (!(Number.isInteger(length) && length >= 0 && length <= this.length)) {
      throw new ArgumentError("length", `an integer from 0 to the session's length ${this.length}`, length);
    }
    this.#tokens.length = length;
    this.#states.length = length + 1;
    this.#tree = undefined;
  }

  close(): void {
    this.#closed = true;
    this.#tree = undefined;
  }

  #matrix(states: readonly number[]): Matrix {
    const columns = this.#model.vocabularySize;
    const data = new Float32Array(states.length * columns);
    for (let i = 0; i < states.length; i++) data.set(this.#model.rowOf(states[i]!), i * columns);
    return { data, rows: states.length, columns };
  }

  #requireOpen(): void {
    if (this.#closed) throw new TokenthriftError("session: it is closed. Open another with model.openSession().");
  }

  #requireRoom(count: number): void {
    const needed = this.length + count;
    if (needed > this.#model.contextLength) throw new ContextOverflowError(needed, this.#model.contextLength);
  }
}

function softmax(logits: Float32Array): Float64Array {
  let max = Number.NEGATIVE_INFINITY;
  for (const logit of logits) max = Math.max(max, logit);
  const law = Float64Array.from(logits, (logit) => Math.exp(logit - max));
  const sum = law.reduce((a, b) => a + b, 0);
  return law.map((p) => p / sum);
}

function requireInteger(argument: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (!(Number.isInteger(value) && value >= least && value <= most)) {
    throw new ArgumentError(argument, `an integer from ${least} to ${most}`, value);
  }
}

function requirePlainPass(options: PassOptions): void {
  if (options.taps !== undefined && options.taps.length > 0) {
    throw new ArgumentError("options.taps", "none", options.taps, "A table has no layers to tap.");
  }
  if (options.layers !== undefined) {
    throw new ArgumentError("options.layers", "none", options.layers, "A table has no layers to choose from.");
  }
}
