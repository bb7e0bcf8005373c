/**
 * Branching drafter: trees whose nodes all have the same number of children on one level. What SpecInfer and RSD-C share;
 * they differ in how siblings are drawn.
 *
 *     nodes below the root = sum over levels l of b_1 b_2 .. b_l        (2, 2): 6   (2, 2, 2): 14   (3, 2, 2): 21
 *
 * One draft pass per level. At temperature 0 a law has one token and would give one child, so siblings are the most
 * probable tokens there, chosen without chance: what drawing without replacement comes to as the temperature falls.
 *
 * A copy of an earlier sibling gets no children: it is never accepted, because the earlier one's rejection has left
 * nothing of the target's law there.
 *
 * Worked example: (2, 1), pending 7: tokens [7, 3, 5, 4, 9], parents [-1, 0, 0, 1, 2].
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Random } from "../tensor/random.ts";
import type { GrowingTree, ModelDrafterOptions } from "./model-drafter.ts";
import { ModelDrafter } from "./model-drafter.ts";

/** A sibling, and the law it was drawn from given the earlier ones; null where it was chosen without chance. */
export interface Guess {
  readonly token: number;
  readonly law: Float64Array | null;
}

export interface BranchingDrafterOptions extends ModelDrafterOptions {
  /** `branching[l]`: children of each node at depth l, integers >= 1. As many levels as entries. Default [2, 2, 2]. */
  readonly branching?: readonly number[];
}

/** A drafter of trees with constant branching factors. A subclass says how siblings are drawn. */
export abstract class BranchingDrafter extends ModelDrafter {
  readonly branching: readonly number[];

  /** @throws ArgumentError on a branching factor that is not an integer >= 1, or sampling options out of range */
  constructor(model: LanguageModel, options: BranchingDrafterOptions = {}) {
    const { branching = [2, 2, 2] } = options;
    branching.forEach((factor, level) => {
      if (!(Number.isSafeInteger(factor) && factor >= 1)) {
        throw new ArgumentError(`branching[${level}]`, "an integer >= 1", factor);
      }
    });
    super(model, options);
    this.branching = branching.slice();
  }

  /**
   * Up to `count` siblings in the order they were drawn; fewer where the law has no more to give.
   * @param law [vocabularySize]
   */
  protected abstract siblings(law: Float64Array, count: number, random: Random): Guess[];

  protected override grow(tree: GrowingTree): void {
    const greedy = tree.sampling.temperature === 0;
    let level = [0];
    for (const factor of this.branching.slice(0, tree.maxDepth)) {
      // Nobody is asked about whose children have no room.
      const parents = level.slice(0, Math.ceil(tree.room / factor));
      const laws = tree.laws(parents, greedy ? { temperature: 1 } : tree.sampling);
      level = parents.flatMap((parent, i) => {
        const law = laws[i]!;
        if (law === null) return [];
        const count = Math.min(factor, tree.room);
        const guesses = greedy ? mostProbable(law, count) : this.siblings(law, count, tree.random);
        const tokens = guesses.map(({ token }) => token);
        const nodes = guesses.map(({ token, law }) => tree.add(parent, token, law));
        return nodes.filter((_, sibling) => tokens.indexOf(tokens[sibling]!) === sibling);
      });
    }
  }
}

/** The `count` most probable tokens, chosen without chance; fewer where fewer are possible at all. */
export function mostProbable(law: Float64Array, count: number): Guess[] {
  return largest(law, count)
    .filter((token) => law[token]! > 0)
    .map((token) => ({ token, law: null }));
}

/** Indices of the `count` largest values, the largest first; of equal ones the lower first. -Infinity is none. */
export function largest(values: Float64Array, count: number): number[] {
  const best: number[] = [];
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value === Number.NEGATIVE_INFINITY) continue;
    if (best.length === count && !(value > values[best[count - 1]!]!)) continue;
    let place = best.length;
    while (place > 0 && value > values[best[place - 1]!]!) place--;
    best.splice(place, 0, i);
    if (best.length > count) best.pop();
  }
  return best;
}

/**
 * A shape for `budget` guesses where a method leaves the choice: leaves that are half as many as the tree is deep. Deep pays
 * where the draft is often right, wide where it is not; a method's own paper has settings of its own.
 * @param budget an integer >= 1
 * @returns leaves (a beam's width) and levels, leaves * levels <= max(budget, 1)
 */
export function leavesAndLevels(budget: number): { readonly leaves: number; readonly levels: number } {
  if (!(Number.isSafeInteger(budget) && budget >= 1)) throw new ArgumentError("budget", "an integer >= 1", budget);
  const leaves = Math.max(1, Math.round(Math.sqrt(budget / 2)));
  return { leaves, levels: Math.floor(budget / leaves) };
}

/**
 * Branching factors for `budget` guesses: all branching in the first two levels, chains below, see `leavesAndLevels`.
 * 4: [1, 1, 1, 1]; 8: [2, 1, 1, 1]; 32: [2, 2, 1, 1, 1, 1, 1, 1].
 */
export function branchingOfBudget(budget: number): number[] {
  const { leaves } = leavesAndLevels(budget);
  const second = leaves >= 4 ? 2 : 1;
  const first = Math.round(leaves / second);
  const levels = 1 + Math.floor((budget - first) / (first * second));
  return Array.from({ length: levels }, (_, level) => (level === 0 ? first : level === 1 ? second : 1));
}
