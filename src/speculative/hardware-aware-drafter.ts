/**
 * Hardware-aware drafting: as many guesses as pay, none where none do.
 *
 * A draft of n nodes brings some tokens and costs a pass over n nodes (`PassCosts`, measured once) and the drafting. This
 * drafter wraps another one and gives it, each step, the node budget n with the most expected tokens per cost:
 *
 *     n* = argmax over n of  E[tokens | n, state] / E[cost | n, state]          plain decoding is n = 1: 1 token for 1
 *
 * Expectations are running means over verified steps, of what each stretch of nodes between two budgets adds. tokens(n) =
 * 1 + nodes of the path among the first n, so a verified draft tells what smaller ones would have brought, and a larger
 * one is never believed to bring less. A stretch not tried yet is believed to go on as the one before it did, and that
 * belief counts as one step once it is tried. Means are kept apart by what came before the step: no guesses, a draft
 * turned away, or one, two, three and more drafts accepted whole in a row. For text that is being copied goes on being
 * copied, and a draft that was wrong is often followed by another.
 *
 * Trying costs. The account `balance` holds what speculation has saved, in passes, plus 1 % of the tokens generated and a
 * few passes to begin with; whatever would overdraw it is not tried. So in these costs it is never slower than plain
 * decoding by more than that, and where guesses do not pay it turns them off, trying again ever more rarely.
 *
 * Sequoia (arXiv 2402.12374, section 4.3) chooses one tree size for a machine in this way; **unlike** that, the size here
 * follows the text as well. The budget depends on the past alone, so the laws of drawn guesses stay what they say.
 *
 * **Deviations**: none from a paper; the means' decay and the prior are this project's choices.
 *
 * Worked example: two nodes cost 1.5 and the guess has been right 6 times in 10: 1.6 / 1.5 > 1, so it is made; at 4 in 10,
 * 1.4 / 1.5 < 1, it is not.
 */
import { ArgumentError } from "../errors.ts";
import type { Tap } from "../model/language-model.ts";
import type { Draft, DraftContext, Drafter, Drafting, DraftStart, VerifiedPass } from "./drafter.ts";
import { type DraftingCosts, type PassCosts, passCost } from "./pass-costs.ts";

export interface HardwareAwareOptions {
  /** The target's costs, from `measurePassCosts`. */
  readonly passCosts: PassCosts;
  /** What drafting costs, from `measureDrafting`. Default nothing. */
  readonly drafting?: DraftingCosts;
  /** Node budgets to choose among, beside 1. Growing integers >= 2. Default 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64. */
  readonly budgets?: readonly number[];
}

const defaultBudgets = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/** What came before a step: no guesses, a draft turned away, then streaks of drafts accepted whole. */
const rested = 0;
const turnedAway = 1;
/** State of three and more drafts accepted whole in a row. */
const longestStreak = turnedAway + 3;
/** Share of right guesses believed in before anything was seen, and the steps that belief is worth. */
const prior = 0.6;
const priorSteps = 2;
/** Least weight of a new step in a running mean: what is older than some twenty steps fades. */
const leastWeight = 0.05;
/** Passes that may be lost before anything was won. */
const credit = 3;
/** Savings are remembered up to here, so that what one text won is not lost on the next. */
const mostBalance = 8;
/** Of each generated token, the share of a pass that may be spent on trying. */
const allowance = 0.01;
/** Longest pause between tries where guesses do not pay, in steps. */
const longestPause = 64;

/** Running means of what a budget brings and costs beyond the next smaller one. */
interface Expectation {
  readonly nodes: number;
  gain: number;
  cost: number;
  /** Steps behind the means; 0: none yet. */
  steps: number;
}

/** What is known, kept across sequences until `reset`. */
class Experience {
  readonly #options: HardwareAwareOptions;
  readonly #budgets: readonly number[];
  /** [state][budget] */
  #expected: Expectation[][] = [];
  #balance = credit;
  #pause = 1;
  #sinceTry = 0;

  constructor(options: HardwareAwareOptions) {
    this.#options = options;
    this.#budgets = options.budgets ?? defaultBudgets;
    this.reset();
  }

  reset(): void {
    this.#expected = Array.from({ length: longestStreak + 1 }, () =>
      this.#budgets.map((nodes, i) => ({
        nodes,
        gain: prior,
        cost: this.#cost(nodes) - this.#cost(this.#budgets[i - 1] ?? 1),
        steps: i === 0 ? priorSteps : 0,
      })),
    );
    this.#balance = credit;
    this.#pause = 1;
    this.#sinceTry = 0;
  }

  /** The budget for the next step: 1 is plain decoding. */
  choose(state: number): number {
    const expected = this.#expected[state]!;
    let nodes = 1;
    let best = 1;
    let [lastNodes, tokens, cost, perNode] = [1, 1, this.#cost(1), 0];
    for (const { nodes: size, gain: seen, cost: mean, steps } of expected) {
      const tried = steps > 0;
      const gain = tried ? seen : perNode * (size - lastNodes);
      tokens += gain;
      cost += tried ? mean : this.#cost(size) - this.#cost(lastNodes);
      const rate = tokens / cost;
      if (rate > best && this.#cost(size) - 1 <= this.#balance) {
        best = rate;
        nodes = size;
      }
      if (!tried) break;
      perNode = gain / (size - lastNodes);
      lastNodes = size;
    }
    if (nodes > 1) return nodes;
    // Nothing pays as far as is known; the smallest draft finds out whether that still holds.
    this.#sinceTry++;
    const smallest = expected[0]!.nodes;
    if (this.#sinceTry < this.#pause || this.#cost(smallest) - 1 > this.#balance) return 1;
    this.#sinceTry = 0;
    this.#pause = Math.min(2 * this.#pause, longestPause);
    return smallest;
  }

  /** A step's outcome: the budget that was given, the nodes that came of it, the accepted ones. */
  learn(state: number, budget: number, nodes: number, path: readonly number[]): void {
    const spent = budget === 1 ? 1 : this.#cost(nodes);
    this.#balance = Math.min(mostBalance, this.#balance + path.length * (1 + allowance) - spent);
    if (budget === 1) return;
    if (path.length > spent) this.#pause = 1;
    let [lastNodes, perNode] = [1, 0];
    for (const one of this.#expected[state]!) {
      // A larger budget than was given would have brought more nodes, unless the drafter had no more to say.
      if (one.nodes > budget && nodes === budget) break;
      if (one.steps === 0) {
        one.gain = perNode * (one.nodes - lastNodes);
        one.steps = 1;
      }
      let gain = 0;
      for (const node of path) if (node >= lastNodes && node < one.nodes) gain++;
      const weight = Math.max(leastWeight, 1 / (one.steps + 1));
      one.gain += weight * (gain - one.gain);
      const cost = this.#cost(Math.min(one.nodes, nodes)) - this.#cost(Math.min(lastNodes, nodes));
      one.cost += weight * (cost - one.cost);
      one.steps++;
      perNode = one.gain / (one.nodes - lastNodes);
      lastNodes = one.nodes;
    }
  }

  /** Cost of a step whose draft has `nodes` nodes, drafting included. */
  #cost(nodes: number): number {
    const { passCosts, drafting = { perStep: 0, perGuess: 0 } } = this.#options;
    return passCost(passCosts, nodes) + drafting.perStep + drafting.perGuess * (nodes - 1);
  }
}

/** Wraps a drafter whose drafts with fewer nodes are the beginnings of those with more. */
export class HardwareAwareDrafter implements Drafter {
  readonly vocabularySize: number | null;
  readonly taps?: readonly Tap[];
  readonly prefillLogits?: boolean;
  readonly #inner: Drafter;
  readonly #experience: Experience;

  /** @throws ArgumentError on budgets that do not grow from 2 on, or costs that are no numbers >= 0 */
  constructor(inner: Drafter, options: HardwareAwareOptions) {
    const { budgets = defaultBudgets, drafting, passCosts } = options;
    for (const [i, size] of budgets.entries()) {
      if (!(Number.isSafeInteger(size) && size > (i === 0 ? 1 : budgets[i - 1]!))) {
        throw new ArgumentError(`budgets[${i}]`, "growing integers >= 2", size);
      }
    }
    const { nodes, costs } = passCosts;
    if (nodes.length === 0 || nodes.length !== costs.length || nodes[0] !== 1 || costs.some((cost) => !(cost > 0))) {
      throw new ArgumentError("passCosts", "as many costs > 0 as sizes, the first for 1 node", passCosts);
    }
    for (const [name, value] of Object.entries(drafting ?? {})) {
      if (!(Number.isFinite(value) && value >= 0)) throw new ArgumentError(`drafting.${name}`, "a number >= 0", value);
    }
    this.vocabularySize = inner.vocabularySize;
    if (inner.taps !== undefined) this.taps = inner.taps;
    if (inner.prefillLogits !== undefined) this.prefillLogits = inner.prefillLogits;
    this.#inner = inner;
    this.#experience = new Experience(options);
  }

  open(start: DraftStart): Drafting {
    return new HardwareAwareDrafting(this.#inner.open(start), this.#experience);
  }

  reset(): void {
    this.#inner.reset();
    this.#experience.reset();
  }
}

class HardwareAwareDrafting implements Drafting {
  readonly #inner: Drafting;
  readonly #experience: Experience;
  #state = rested;
  #budget = 1;

  constructor(inner: Drafting, experience: Experience) {
    this.#inner = inner;
    this.#experience = experience;
  }

  get cost() {
    return this.#inner.cost;
  }

  propose(context: DraftContext): Draft {
    const chosen = this.#experience.choose(this.#state);
    this.#budget = Math.min(chosen, context.maxNodes);
    if (context.maxDepth === 0) this.#budget = 1;
    // Asked for the root alone, drafters draft nothing, but they know that the step was.
    return this.#inner.propose({
      ...context,
      maxNodes: this.#budget,
      maxDepth: Math.min(context.maxDepth, this.#budget - 1),
    });
  }

  observe(pass: VerifiedPass): void {
    const { draft, path } = pass;
    const nodes = draft.tokens.length;
    this.#experience.learn(this.#state, this.#budget, nodes, path);
    const last = path[path.length - 1]!;
    let whole = last > 0;
    for (let i = last + 1; i < nodes; i++) if (draft.parents[i] === last) whole = false;
    if (nodes === 1) this.#state = rested;
    else this.#state = whole ? Math.min(Math.max(this.#state, turnedAway) + 1, longestStreak) : turnedAway;
    this.#inner.observe(pass);
  }

  close(): void {
    this.#inner.close();
  }
}
