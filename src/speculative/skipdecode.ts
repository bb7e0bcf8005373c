/**
 * SkipDecode: the further into the text, the fewer layers a token runs, by a schedule known in advance. LOSSY.
 * Del Corro et al., arXiv 2307.02628. No official code was found.
 *
 * Leaving early token by token is awkward: a batch waits for its last sequence, and a token that left has no keys and
 * values in the upper layers for later tokens to attend to. Here the layers depend on the position alone. All sequences
 * of a batch run the same ones at the same column, a later column runs a subset of an earlier one's, so every key and
 * value that is needed exists; and what is skipped is the lower middle, not the top.
 *
 *     t(pos) = clamp((pos - P) / (S - P - 1), 0, 1)                     P columns of prompt, S columns in all
 *     n(pos) = round((1 - t) n_max + t n_min), half up                  layers that run; all of them for pos < P
 *     A(pos) = {0 .. w - 1} and {L - (n - w) .. L - 1}                  w bottom layers as warm-up, then the top
 *
 * The residual stream passes skipped layers unchanged; the head is the model's own. The quality is what a model gets back
 * by being trained under the schedule (`training/skipdecode-training.ts`, `loadSkipDecode`): an ordinary one breaks.
 *
 * **Conventions** the paper leaves open: the prompt runs ALL layers (not n_max), its last token included, so the first
 * token after it is the full network's. Beyond S the budget stays n_min. A prompt of another length than P is aligned to
 * the right, as left padding does: its last token stands in column P - 1.
 *
 * **Deviations**: the rows of a batch run one after another, each in a session of its own; what is shared is the column,
 * hence the layers. Rows of one `extend`, and nodes of one draft tree, each get their own column's budget, so drafting on
 * top of it gives exactly SkipDecode's tokens; a tree over columns of several budgets is scored node by node.
 *
 * **Unlike** everything that drafts, nothing is checked afterwards: the tokens have another law than the model's.
 * `lossy` says so, and the report of a generation repeats it.
 *
 * Worked example: L = 8, n_max = 6, n_min = 3, w = 1, P = 4, S = 12: budgets 6 6 5 5 4 4 3 3 at positions 4 .. 11, sets
 * {0, 3-7} down to {0, 6, 7}: 36 layer executions in place of 64.
 */
import { ArgumentError, ContextOverflowError } from "../errors.ts";
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
  Taps,
} from "../model/language-model.ts";
import { isMatrix } from "../model/language-model.ts";
import { requireTree } from "../model/session-checks.ts";
import { type GenerateOptions, Generation, type Report } from "./generate.ts";

export interface ExitScheduleOptions {
  /** L: layers of the model. */
  readonly layers: number;
  /** P: columns of the prompt, which run all layers, an integer >= 1. */
  readonly promptLength: number;
  /** S: columns over which the budget falls, prompt included, more than P. */
  readonly length: number;
  /** Layers that run at column P. Default L. */
  readonly most?: number;
  /** Layers that run from column S - 1 on, from max(1, warmUp) to `most`. Default half of L, rounded up. */
  readonly least?: number;
  /** w: bottom layers that always run. Default 1. */
  readonly warmUp?: number;
  /**
   * Which layers are skipped: the lower ones after the warm-up, or, as a control, the top ones: early exit at layer n, with
   * the same budgets. Default `"lower"`.
   */
  readonly skips?: "lower" | "upper";
}

/** Which layers run in which column. */
export interface ExitSchedule extends Required<ExitScheduleOptions> {
  /** n(pos). @param column from 0 */
  budget(column: number): number;
  /** A(pos), growing layer numbers; one array per budget, so that equal sets are the same array. @param column from 0 */
  layersAt(column: number): readonly number[];
  /** Mean budget of the columns P .. S - 1; L over it is the nominal speed-up. */
  readonly meanBudget: number;
}

/**
 * SkipDecode's schedule.
 * @throws ArgumentError on options out of range
 */
export function exitSchedule(options: ExitScheduleOptions): ExitSchedule {
  const { layers, promptLength, length, most = options.layers, warmUp = 1, skips = "lower" } = options;
  const { least = Math.min(most, Math.max(warmUp, Math.ceil(layers / 2))) } = options;
  requireInteger("layers", layers, 1);
  requireInteger("promptLength", promptLength, 1);
  requireInteger("length", length, promptLength + 1);
  requireInteger("warmUp", warmUp, 0, layers);
  requireInteger("most", most, Math.max(1, warmUp), layers);
  requireInteger("least", least, Math.max(1, warmUp), most);
  if (skips !== "lower" && skips !== "upper") throw new ArgumentError("skips", '"lower" or "upper"', skips);
  const steps = length - promptLength - 1;
  const sets = Array.from({ length: layers + 1 }, (_, budget) =>
    Array.from({ length: layers }, (_, layer) => layer).filter((layer) =>
      skips === "upper" ? layer < budget : layer < warmUp || layer >= layers - (budget - warmUp),
    ),
  );
  const budget = (column: number): number => {
    const step = column - promptLength;
    if (step < 0) return layers;
    if (step === 0) return most;
    if (step >= steps) return least;
    // In whole numbers: half up is exact.
    return Math.floor((2 * (most * (steps - step) + least * step) + steps) / (2 * steps));
  };
  let sum = 0;
  for (let column = promptLength; column < length; column++) sum += budget(column);
  return {
    ...{ layers, promptLength, length, most, least, warmUp, skips },
    budget,
    layersAt: (column) => sets[budget(column)]!,
    meanBudget: sum / (length - promptLength),
  };
}

/** One pass of the model under a schedule: consecutive rows (or nodes of a tree) of columns of one budget. */
export interface ScheduledPass {
  /** Column of each row. */
  readonly columns: readonly number[];
  /** What ran for all of them. */
  readonly layers: readonly number[];
}

export interface SkipDecodeOptions {
  /** Tokens of the prompts that sessions will read, an integer >= 1. The last one stands in column P - 1. Default P. */
  readonly promptLength?: number;
  /** Called after every pass. Default: nothing. */
  readonly onPass?: (pass: ScheduledPass) => void;
}

/**
 * The model under a schedule: a model like any other, to generate with, to draft with, to draft for.
 * @param model one whose sessions run subsets of layers; `TableModel`, which has none, only where nothing is skipped
 * @throws ArgumentError on a schedule for another number of layers, or a prompt length out of range
 */
export function skipDecode(
  model: LanguageModel & { readonly config?: { readonly layers: number } },
  schedule: ExitSchedule,
  { promptLength = schedule.promptLength, onPass }: SkipDecodeOptions = {},
): LanguageModel {
  if (model.config !== undefined && model.config.layers !== schedule.layers) {
    throw new ArgumentError("schedule", `one for the model's ${model.config.layers} layers`, schedule.layers);
  }
  requireInteger("promptLength", promptLength, 1);
  const first = schedule.promptLength - promptLength;
  return {
    ...(schedule.least < schedule.layers && { lossy: true }),
    vocabularySize: model.vocabularySize,
    contextLength: model.contextLength,
    openSession: () => new SkipDecodeSession(model, schedule, first, onPass),
  };
}

/** A tree scored node by node: its rows are committed to the inner session one path at a time. */
interface Walk {
  /** Per node: its id, or its row of embeddings. */
  readonly inputs: readonly (ArrayLike<number> | Matrix)[];
  readonly parents: readonly number[];
  /** Committed tokens below the tree. */
  readonly base: number;
  /** Nodes that the inner session holds behind them, root first. */
  path: number[];
}

class SkipDecodeSession implements Session {
  readonly #inner: Session;
  readonly #model: LanguageModel;
  readonly #schedule: ExitSchedule;
  /** Column of position 0. */
  readonly #first: number;
  readonly #onPass: SkipDecodeOptions["onPass"];
  #walk: Walk | undefined;

  constructor(model: LanguageModel, schedule: ExitSchedule, first: number, onPass: SkipDecodeOptions["onPass"]) {
    this.#inner = model.openSession();
    this.#model = model;
    this.#schedule = schedule;
    this.#first = first;
    this.#onPass = onPass;
  }

  get length(): number {
    return this.#walk?.base ?? this.#inner.length;
  }

  get cost(): Cost {
    return this.#inner.cost;
  }

  extend(input: ArrayLike<number> | Matrix, options: ExtendOptions = {}): Pass {
    refuseLayers(options);
    this.#forget();
    const start = this.length;
    const count = isMatrix(input) ? input.rows : input.length;
    const runs = this.#runs(start, count);
    if (runs.length <= 1) return this.#extend(input, options);
    const needed = start + count;
    if (needed > this.#model.contextLength) throw new ContextOverflowError(needed, this.#model.contextLength);
    try {
      const passes = runs.map(([from, to], i) => {
        const logits = options.logits === "all" || i === runs.length - 1 ? options.logits : "none";
        return this.#extend(part(input, from - start, to - start), { ...options, ...(logits && { logits }) });
      });
      return joinPasses(passes);
    } catch (error) {
      // Refused in a later run: the earlier ones go too.
      if (this.#inner.length > start) this.#inner.truncate(start);
      throw error;
    }
  }

  score(tree: DraftTree, options: ScoreOptions = {}): Pass {
    refuseLayers(options);
    this.#forget();
    requireTree(tree, this.#model.vocabularySize);
    const base = this.length;
    const columns: number[] = [];
    for (let node = 0; node < tree.tokens.length; node++) {
      const parent = tree.parents[node]!;
      columns.push(parent < 0 ? this.#first + base : columns[parent]! + 1);
    }
    const layers = this.#schedule.layersAt(columns[0]!);
    if (columns.every((column) => this.#schedule.layersAt(column) === layers)) {
      const pass = this.#inner.score(tree, this.#options(options, layers));
      this.#onPass?.({ columns, layers });
      return this.#withAllLayers(pass, layers);
    }
    const needed = base + columns.length;
    if (needed > this.#model.contextLength) throw new ContextOverflowError(needed, this.#model.contextLength);
    const { embeddings, ...passOptions } = options;
    if (embeddings !== undefined && embeddings.rows !== columns.length) {
      throw new ArgumentError("embeddings", `one row per node (${columns.length})`, embeddings.rows);
    }
    const inputs = columns.map((_, node) => part(embeddings ?? tree.tokens, node, node + 1));
    this.#walk = { inputs, parents: Array.from(tree.parents), base, path: [] };
    try {
      const passes: Pass[] = [];
      for (const node of depthFirst(tree.parents)) passes[node] = this.#stepTo(this.#walk, node, passOptions);
      return joinPasses(passes);
    } catch (error) {
      this.#forget();
      throw error;
    }
  }

  accept(node: number): void {
    const walk = this.#walk;
    if (walk === undefined) {
      this.#inner.accept(node);
      return;
    }
    const { parents, base } = walk;
    if (!(Number.isInteger(node) && node >= 0 && node < parents.length)) {
      throw new ArgumentError("node", `a node of the scored tree, 0 .. ${parents.length - 1}`, node);
    }
    const path = pathTo(parents, node);
    for (const step of path) if (!walk.path.includes(step)) this.#stepTo(walk, step, { logits: "none" });
    this.#inner.truncate(base + path.length);
    this.#walk = undefined;
  }

  truncate(length: number): void {
    this.#forget();
    this.#inner.truncate(length);
  }

  close(): void {
    this.#walk = undefined;
    this.#inner.close();
  }

  /** Forget a tree that was scored node by node. */
  #forget(): void {
    if (this.#walk !== undefined) this.#inner.truncate(this.#walk.base);
    this.#walk = undefined;
  }

  /** Run one node behind its parent, which the inner session holds. */
  #stepTo(walk: Walk, node: number, options: ExtendOptions): Pass {
    const kept = walk.path.indexOf(walk.parents[node]!) + 1;
    this.#inner.truncate(walk.base + kept);
    walk.path = [...walk.path.slice(0, kept), node];
    return this.#extend(walk.inputs[node]!, options);
  }

  /** Positions start .. start + count - 1 as runs [from, to) of one budget. */
  #runs(start: number, count: number): [from: number, to: number][] {
    const runs: [from: number, to: number][] = [];
    for (let position = start; position < start + count; position++) {
      const last = runs.at(-1);
      const column = this.#first + position;
      if (last !== undefined && this.#schedule.budget(column) === this.#schedule.budget(column - 1)) last[1]++;
      else runs.push([position, position + 1]);
    }
    return runs;
  }

  /** Rows of one budget. */
  #extend(input: ArrayLike<number> | Matrix, options: ExtendOptions): Pass {
    const column = this.#first + this.#inner.length;
    const layers = this.#schedule.layersAt(column);
    const pass = this.#inner.extend(input, this.#options(options, layers));
    const rows = isMatrix(input) ? input.rows : input.length;
    this.#onPass?.({ columns: Array.from({ length: rows }, (_, r) => column + r), layers });
    return this.#withAllLayers(pass, layers);
  }

  #options<Options extends PassOptions>(options: Options, layers: readonly number[]): Options {
    if (layers.length === this.#schedule.layers) return options;
    const refused = options.taps?.find((tap) => tap !== "hidden");
    if (refused !== undefined) {
      throw new ArgumentError(
        "taps",
        '"hidden" only where layers are skipped',
        refused,
        "Skipped layers compute none.",
      );
    }
    return { ...options, layers };
  }

  /** Hidden rows at every layer of the model: what a skipped layer is given it passes on. */
  #withAllLayers(pass: Pass, layers: readonly number[]): Pass {
    const hidden = pass.taps?.hidden;
    if (hidden === undefined || layers.length === this.#schedule.layers) return pass;
    const all = Array.from(
      { length: this.#schedule.layers + 1 },
      (_, layer) => hidden[layers.filter((ran) => ran < layer).length]!,
    );
    return { logits: pass.logits, taps: { hidden: all } };
  }
}

export interface SkipDecodeBatchOptions extends Omit<GenerateOptions, "drafter" | "verifier"> {
  /** As `SkipDecodeOptions`. */
  readonly onPass?: (pass: ScheduledPass & { readonly sequence: number }) => void;
}

/** What a batch came to. */
export interface SkipDecodeBatch {
  /** One per prompt. */
  readonly reports: readonly Report[];
  /** Rows times layers they ran, over the whole batch: columns of the prompt, and those after it. */
  readonly layerExecutions: { readonly prompt: number; readonly generated: number };
}

/**
 * Decode a batch of prompts column by column: prompts end together, in column P - 1, and in every column all sequences run
 * the same layers. A sequence that has ended takes no more passes.
 * @param prompts one or more, of any lengths
 * @param options `seed`: sequence i draws from a stream of its own, `${seed} ${i}`
 * @throws ArgumentError as `generate` and `skipDecode`
 */
export async function skipDecodeBatch(
  model: Parameters<typeof skipDecode>[0],
  prompts: readonly ArrayLike<number>[],
  schedule: ExitSchedule,
  { onPass, ...options }: SkipDecodeBatchOptions = {},
): Promise<SkipDecodeBatch> {
  if (prompts.length === 0) throw new ArgumentError("prompts", "at least one", []);
  const layerExecutions = { prompt: 0, generated: 0 };
  const generations = prompts.map((prompt, sequence) => {
    const scheduled = skipDecode(model, schedule, {
      promptLength: Math.max(1, prompt.length), // an empty one is refused as a prompt
      onPass(pass) {
        for (const column of pass.columns) {
          layerExecutions[column < schedule.promptLength ? "prompt" : "generated"] += pass.layers.length;
        }
        onPass?.({ ...pass, sequence });
      },
    });
    return new Generation(scheduled, prompt, { ...options, seed: `${options.seed ?? 0} ${sequence}` });
  });
  try {
    let running = generations;
    while (running.length > 0) {
      running = running.filter((generation) => generation.step() !== undefined);
      await new Promise((resolve) => setTimeout(resolve, 0)); // other work of the process has its turn
    }
  } finally {
    for (const generation of generations) generation.close();
  }
  return { reports: generations.map(({ report }) => report), layerExecutions };
}

function part(input: ArrayLike<number> | Matrix, from: number, to: number): ArrayLike<number> | Matrix {
  if (!isMatrix(input)) return Array.prototype.slice.call(input, from, to) as number[];
  const { data, columns } = input;
  return { data: data.subarray(from * columns, to * columns), rows: to - from, columns };
}

/** Passes over consecutive rows as one; all have the same taps. */
function joinPasses(passes: readonly Pass[]): Pass {
  const logits = joinRows(passes.map((pass) => pass.logits));
  const hidden = passes[0]!.taps?.hidden?.map((_, layer) => joinRows(passes.map((pass) => pass.taps!.hidden![layer]!)));
  const taps: Taps = { ...(hidden && { hidden }) };
  return passes[0]!.taps === undefined ? { logits } : { logits, taps };
}

function joinRows(parts: readonly Matrix[]): Matrix {
  const { columns } = parts[0]!;
  const rows = parts.reduce((sum, one) => sum + one.rows, 0);
  const data = new Float32Array(rows * columns);
  let at = 0;
  for (const one of parts) {
    data.set(one.data, at);
    at += one.data.length;
  }
  return { data, rows, columns };
}

/** Nodes from the root to `node`. */
function pathTo(parents: readonly number[], node: number): number[] {
  const path: number[] = [];
  for (let step = node; step >= 0; step = parents[step]!) path.unshift(step);
  return path;
}

/** Nodes, each right behind its parent's subtree so far. */
function depthFirst(parents: ArrayLike<number>): number[] {
  const order: number[] = [];
  const visit = (parent: number): void => {
    for (let node = parent + 1; node < parents.length; node++) {
      if (parents[node] !== parent) continue;
      order.push(node);
      visit(node);
    }
  };
  visit(-1);
  return order;
}

function refuseLayers({ layers }: PassOptions): void {
  if (layers !== undefined) throw new ArgumentError("layers", "none: the schedule chooses them", layers);
}

function requireInteger(argument: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER): void {
  if (!(Number.isSafeInteger(value) && value >= least && value <= most)) {
    throw new ArgumentError(argument, `an integer from ${least} to ${most}`, value);
  }
}
