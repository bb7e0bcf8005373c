/**
 * S2D, sorted speculative decoding: one draft model for many targets, whose guesses leave it as early as they are sure.
 * Kavehzadeh et al., arXiv 2407.01955; code of the extended version by parsareal/SD2.
 *
 * A draft model is one depth, and the best depth depends on the target: a small target wants cheap guesses, a large one
 * good guesses. Here one shallow model is trained so that several prefixes of its layers are drafters (sorted
 * fine-tuning: `training/sorted-fine-tuning.ts`, `loadSortedDraft`), all with one norm and one head. Easy tokens leave
 * after the first exit, hard ones go on.
 *
 *     for e in exits, shallow to deep:   q = softmax(head(norm(state after layer e)))
 *                                        leave if max q > threshold of e, or e is the last
 *
 * A token that left has no keys and values above its exit, which deeper tokens after it must attend to. So its state waits
 * there, in a buffer, until a token goes deeper: then all that waits runs with it, in one pass. Nothing is approximated,
 * only put off. Each stretch of layers between two exits is a session of its own, which is behind by just its buffer.
 *
 * The decision looks at max q and not at the token drawn, so that what is drawn has the law q of the exit it left at,
 * which is what verification needs to know. The text has exactly the target's law.
 *
 * **Deviations**: the released code always takes the arg-max and states q as its law, which is biased when sampling (worked
 * example). Here guesses are drawn from q, or chosen and stated as chosen: `sampling: { temperature: 0 }`. Its first pass
 * takes the prompt, pending token and all, through every layer; here the prompt waits like any other token, which gives the
 * same laws for fewer layers. A threshold of 1 or more computes no logits at its exit. Of the code's tree, the levels:
 * `new Eagle2TreeDrafter(earlyExitModel(draft, exits))`; there, what waits is caught up with in a pass of its own.
 *
 * **Unlike** the chain drafter, whose guesses all cost the whole draft model.
 *
 * Worked examples. Exits 6, 9, 12 and four tokens leaving at 6, 9, 12, 6: rows times layers 6 + (6 + 3 * 2) + (6 + 3 + 3 *
 * 3) + 6 = 42, layers one after another 6 + 9 + 12 + 6 = 33, in place of 48 and 48. And the bias: p = [.3, .4, .3], q = [.6,
 * .3, .1], guess 0 always, stated as drawn from q: [.5, .1667, .3333] comes out.
 */
import { ArgumentError } from "../errors.ts";
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
} from "../model/language-model.ts";
import { addCosts, isMatrix, row } from "../model/language-model.ts";
import { ChainDrafter } from "./chain-drafter.ts";
import type { Drafter, Drafting, DraftStart } from "./drafter.ts";
import type { ModelDrafterOptions } from "./model-drafter.ts";

/** A model whose layers can be run in parts: an `Engine` or a `Decoder` of Llama's blocks. */
export type NestedModel = LanguageModel & {
  readonly config?: { readonly layers: number; readonly architecture?: "llama" | "gpt2" };
};

export interface EarlyExitOptions {
  /** Layers that run before each exit, growing. Layers above the last are never run. */
  readonly exits: readonly number[];
  /**
   * One for each exit but the last, >= 0: a token leaves where the largest probability, at temperature 1, exceeds it. 0
   * always leaves, 1 never does. Default 0.5 each.
   */
  readonly thresholds?: readonly number[];
  /** Called after every pass. Default: nothing. */
  readonly onPass?: (pass: EarlyExitPass) => void;
}

/** One pass, and what it cost. */
export interface EarlyExitPass {
  /** Layers below the exit its rows left at: the sub-model whose logits these are. */
  readonly exit: number;
  /** Rows times layers they ran, with the rows that had waited. */
  readonly layerRows: number;
  /** Layers run one after another. */
  readonly layerCalls: number;
}

/** @throws ArgumentError on exits that do not grow, or exceed the model's layers */
export function checkExits(exits: readonly number[], layers = Number.POSITIVE_INFINITY): void {
  if (exits.length === 0) throw new ArgumentError("exits", "at least one", exits);
  for (const [i, exit] of exits.entries()) {
    if (!(Number.isSafeInteger(exit) && exit > (exits[i - 1] ?? 0) && exit <= layers)) {
      throw new ArgumentError("exits", `growing integers from 1 to ${layers}`, exits);
    }
  }
}

/**
 * The model with its exits: a model like any other, whose logits are those of the sub-model its last row left at. A scored
 * tree leaves as a whole, where the surest of its leaves does.
 *
 * `cost.passes` counts the passes over each stretch of layers: a token that leaves at the second exit is two.
 * @throws ArgumentError on options out of range, or a GPT-2, whose positions enter with the embeddings only
 */
export function earlyExitModel(model: NestedModel, options: EarlyExitOptions): LanguageModel {
  const { exits, onPass = () => {} } = options;
  const { thresholds = exits.slice(1).map(() => 0.5) } = options;
  checkExits(exits, model.config?.layers);
  if (thresholds.length !== exits.length - 1) {
    throw new ArgumentError("thresholds", `one for each exit but the last (${exits.length - 1})`, thresholds.length);
  }
  for (const [i, threshold] of thresholds.entries()) {
    if (!(threshold >= 0)) throw new ArgumentError(`thresholds[${i}]`, "a number >= 0", threshold);
  }
  if (model.config?.architecture === "gpt2") {
    throw new ArgumentError("model", "one whose layers take states as they are: Llama's", "gpt2");
  }
  const stretches = exits.map((exit, e) => ({
    layers: Array.from({ length: exit - (exits[e - 1] ?? 0) }, (_, i) => (exits[e - 1] ?? 0) + i),
    threshold: thresholds[e] ?? 0,
  }));
  return {
    vocabularySize: model.vocabularySize,
    contextLength: model.contextLength,
    lossy: true,
    openSession: () =>
      new EarlyExitSession(
        stretches.map((stretch) => ({ ...stretch, session: model.openSession(), waiting: [] })),
        onPass,
      ),
  };
}

/** The layers between two exits, on one sequence. */
interface Stage {
  readonly layers: readonly number[];
  /** Confidence at its end above which a token leaves. */
  readonly threshold: number;
  readonly session: Session;
  /** States its session has yet to take: those of the tokens by which it is behind the stage below. */
  readonly waiting: Float32Array[];
}

class EarlyExitSession implements Session {
  readonly #stages: readonly Stage[];
  readonly #onPass: (pass: EarlyExitPass) => void;
  /** The tree last scored, how many stages it ran, and the states it left with. */
  #scored: { readonly parents: readonly number[]; readonly stages: number; readonly states: Matrix } | undefined;

  constructor(stages: readonly Stage[], onPass: (pass: EarlyExitPass) => void) {
    this.#stages = stages;
    this.#onPass = onPass;
  }

  get length(): number {
    return this.#stages[0]!.session.length;
  }

  get cost(): Cost {
    return addCosts(...this.#stages.map(({ session }) => session.cost));
  }

  extend(input: ArrayLike<number> | Matrix, options: ExtendOptions = {}): Pass {
    refuseParts(options);
    this.#scored = undefined;
    const { logits: wanted = "last" } = options;
    const count = isMatrix(input) ? input.rows : input.length;
    const counts = new LayerCounts();
    let rows = input;
    for (const [s, { session, layers, threshold }] of this.#stages.entries()) {
      const next = this.#stages[s + 1];
      const logits = threshold < 1 ? wanted : "none";
      const pass = session.extend(rows, { layers, logits, ...(next && { taps: ["hidden"] }) });
      counts.add(layers, isMatrix(rows) ? rows.rows : rows.length);
      if (next !== undefined) wait(next, statesOf(pass));
      // Where nobody asks for a law, nothing has to go on.
      if (wanted === "none" || (logits !== "none" && confidence(pass.logits, pass.logits.rows - 1) > threshold)) {
        this.#onPass(counts.pass(layers));
        return { logits: lastRows(pass.logits, wanted === "all" ? count : pass.logits.rows) };
      }
      rows = takeWaiting(next!);
    }
    throw new Error("unreachable: the last exit lets everything leave");
  }

  score(tree: DraftTree, options: ScoreOptions = {}): Pass {
    refuseParts(options);
    this.#scored = undefined;
    const parents = Array.from(tree.parents);
    const leaves = Array.from(parents.keys()).filter((node) => !parents.includes(node));
    const counts = new LayerCounts();
    let states = options.embeddings;
    for (const [s, stage] of this.#stages.entries()) {
      const { session, layers, threshold } = stage;
      const next = this.#stages[s + 1];
      if (stage.waiting.length > 0) {
        const rows = takeWaiting(stage);
        const pass = session.extend(rows, { layers, logits: "none", taps: ["hidden"] });
        counts.add(layers, rows.rows);
        if (next !== undefined) wait(next, statesOf(pass));
      }
      const pass = session.score(tree, { layers, taps: ["hidden"], ...(states && { embeddings: states }) });
      counts.add(layers, parents.length);
      states = statesOf(pass);
      if (leaves.some((leaf) => confidence(pass.logits, leaf) > threshold)) {
        this.#scored = { parents, stages: s + 1, states };
        this.#onPass(counts.pass(layers));
        return { logits: pass.logits };
      }
    }
    throw new Error("unreachable: the last exit lets everything leave");
  }

  accept(node: number): void {
    const scored = this.#scored;
    if (scored === undefined) throw new ArgumentError("accept", "a tree scored since the last change", "none");
    for (const { session } of this.#stages.slice(0, scored.stages)) session.accept(node);
    this.#scored = undefined;
    const next = this.#stages[scored.stages];
    if (next === undefined) return;
    const path: number[] = [];
    for (let at = node; at >= 0; at = scored.parents[at]!) path.push(at);
    for (const at of path.reverse()) next.waiting.push(row(scored.states, at).slice());
  }

  truncate(length: number): void {
    this.#scored = undefined;
    for (const [s, { session, waiting }] of this.#stages.entries()) {
      session.truncate(s === 0 ? length : Math.min(length, session.length));
      if (s > 0) waiting.length = this.#stages[s - 1]!.session.length - session.length;
    }
  }

  close(): void {
    for (const { session, waiting } of this.#stages) {
      session.close();
      waiting.length = 0;
    }
  }
}

export interface S2dOptions extends ModelDrafterOptions, EarlyExitOptions {
  /** Guesses of a step, or of the first one, an integer >= 0. Default 5. */
  readonly gamma?: number;
  /** Two guesses more after a draft that was accepted whole, one less (but one at least) after any other. Default true. */
  readonly adaptive?: boolean;
}

/** A drafter whose guesses leave `model` at the first exit that is sure of them. It learns nothing across sequences. */
export class S2dDrafter implements Drafter {
  readonly vocabularySize: number;
  readonly #gamma: number;
  readonly #chain: ChainDrafter;
  readonly #adaptive: boolean;

  /** @throws ArgumentError on options out of range */
  constructor(model: NestedModel, { gamma = 5, adaptive = true, sampling, ...exits }: S2dOptions) {
    if (!(Number.isSafeInteger(gamma) && gamma >= 0)) throw new ArgumentError("gamma", "an integer >= 0", gamma);
    this.vocabularySize = model.vocabularySize;
    this.#gamma = gamma;
    this.#adaptive = adaptive && gamma > 0;
    this.#chain = new ChainDrafter(earlyExitModel(model, exits), {
      gamma: this.#adaptive ? Number.MAX_SAFE_INTEGER : gamma,
      ...(sampling && { sampling }),
    });
  }

  /** @throws ArgumentError when the target's vocabulary is not the draft model's */
  open(start: DraftStart): Drafting {
    const drafting = this.#chain.open(start);
    if (!this.#adaptive) return drafting;
    let length = this.#gamma;
    return {
      get cost() {
        return drafting.cost;
      },
      propose: (context) => drafting.propose({ ...context, maxDepth: Math.min(context.maxDepth, length) }),
      observe(pass) {
        drafting.observe(pass);
        const guesses = pass.draft.tokens.length - 1;
        if (guesses > 0) length = pass.path.length - 1 === guesses ? length + 2 : Math.max(1, length - 1);
      },
      close: () => drafting.close(),
    };
  }

  reset(): void {}
}

/** What a pass has cost so far. */
class LayerCounts {
  #layerRows = 0;
  #layerCalls = 0;

  add(layers: readonly number[], rows: number): void {
    this.#layerRows += layers.length * rows;
    this.#layerCalls += layers.length;
  }

  /** @param layers those of the last stage it ran */
  pass(layers: readonly number[]): EarlyExitPass {
    return { exit: layers[layers.length - 1]! + 1, layerRows: this.#layerRows, layerCalls: this.#layerCalls };
  }
}

/** max softmax(row r), in doubles. */
function confidence(logits: Matrix, r: number): number {
  const values = row(logits, r);
  let highest = Number.NEGATIVE_INFINITY;
  for (const value of values) if (value > highest) highest = value;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - highest);
  return 1 / sum;
}

/** Output of the last layer that ran. */
function statesOf({ taps }: Pass): Matrix {
  const hidden = taps?.hidden;
  if (hidden === undefined) throw new ArgumentError("model", 'one whose sessions tap "hidden"', taps);
  return hidden[hidden.length - 1]!;
}

function wait({ waiting }: Stage, states: Matrix): void {
  for (let r = 0; r < states.rows; r++) waiting.push(row(states, r).slice());
}

/** All that waits, as one matrix; nothing waits then. */
function takeWaiting({ waiting }: Stage): Matrix {
  const columns = waiting[0]!.length;
  const data = new Float32Array(waiting.length * columns);
  for (const [r, state] of waiting.entries()) data.set(state, r * columns);
  const rows = waiting.length;
  waiting.length = 0;
  return { data, rows, columns };
}

function lastRows({ data, rows, columns }: Matrix, count: number): Matrix {
  return count === rows
    ? { data, rows, columns }
    : { data: data.slice((rows - count) * columns), rows: count, columns };
}

function refuseParts({ layers, taps }: PassOptions): void {
  if (layers !== undefined) throw new ArgumentError("layers", "none: the exits decide", layers);
  if (taps !== undefined && taps.length > 0) {
    throw new ArgumentError("taps", "none: rows run different layers", taps);
  }
}
