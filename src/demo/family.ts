/** The speculative family in the demo: every technique by its number of guesses, and how sure guesses fare. */
import { catalog } from "../catalog.ts";
import { type ComparisonRow, compareSpeculation } from "../comparison/speculative.ts";
import { calibrationPrompts } from "../held-out-prompts.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { promptSets } from "../prompt-sets.ts";
import { ChainDrafter, generate } from "../speculative/index.ts";
import type { Tokenizer } from "../tokenization/index.ts";

const { declarations, edits } = promptSets;

export interface FamilyFigures {
  /** Prompts of each set. */
  readonly prompts: Readonly<Record<string, number>>;
  readonly maxTokens: number;
  /** The same comparison, by what runs the target. Temperature 0. */
  readonly tensors: readonly ComparisonRow[];
  readonly engine: readonly ComparisonRow[];
  readonly acceptance: AcceptanceByProbability;
}

/** How guesses fared, by the probability the draft gave them. Drawn guesses, temperature 1. */
export interface AcceptanceByProbability {
  readonly guesses: number;
  /** Bins of equal width over (0, 1]: the last one ends at 1. */
  readonly bins: readonly { readonly tested: number; readonly accepted: number }[];
}

export interface FamilyOptions {
  readonly tensors: LanguageModel;
  readonly engine: LanguageModel;
  readonly draft: LanguageModel;
  readonly tokenizer: Tokenizer;
  /** Techniques by name. Default: all that keep the target's text and do not measure the machine first. */
  readonly techniques?: readonly string[];
  /** Default 4, 8, 16 and 32. */
  readonly budgets?: readonly number[];
  /** Texts by set. Default: two declarations and two edits. */
  readonly promptSets?: Readonly<Record<string, readonly string[]>>;
  /** Default 24. */
  readonly maxTokens?: number;
  /** Called after each row. */
  readonly onRow?: (done: number, total: number) => void;
}

export async function measureFamily(options: FamilyOptions): Promise<FamilyFigures> {
  const { tensors, engine, draft, tokenizer, onRow } = options;
  const { budgets = [4, 8, 16, 32], maxTokens = 24 } = options;
  const { promptSets: texts = { declarations: declarations.slice(0, 2), edits: edits.slice(0, 2) } } = options;
  const techniques = catalog.filter(({ name, run, exact }) =>
    options.techniques === undefined
      ? run.kind === "generation" &&
        exact === "lossless" &&
        name !== "random-drafter" &&
        name !== "hardware-aware-drafting"
      : options.techniques.includes(name),
  );
  const encode = (text: string): number[] => Array.from(tokenizer.encode(text, { disallowedSpecial: [] }));
  const prompts = Object.fromEntries(Object.entries(texts).map(([set, own]) => [set, own.map(encode)]));
  const compare = (target: LanguageModel, part: 0 | 1): Promise<ComparisonRow[]> =>
    compareSpeculation({
      target,
      draft,
      techniques,
      promptSets: prompts,
      calibration: calibrationPrompts
        .map(({ text }) => encode(text))
        .filter((ids) => ids.length <= target.contextLength / 2),
      temperatures: [0],
      budgets,
      maxTokens,
      onRow: (_, done, total) => onRow?.(part * total + done, 2 * total),
    });
  return {
    prompts: Object.fromEntries(Object.entries(prompts).map(([set, { length }]) => [set, length])),
    maxTokens,
    tensors: await compare(tensors, 0),
    engine: await compare(engine, 1),
    acceptance: acceptanceByProbability(
      engine,
      draft,
      (options.promptSets ? Object.values(texts).flat() : declarations).map(encode),
    ),
  };
}

/** Chains of drawn guesses on prompts, four at a time. */
export function acceptanceByProbability(
  target: LanguageModel,
  draft: LanguageModel,
  prompts: readonly (readonly number[])[],
  { bins = 10, maxTokens = 96 }: { readonly bins?: number; readonly maxTokens?: number } = {},
): AcceptanceByProbability {
  const counts = Array.from({ length: bins }, () => ({ tested: 0, accepted: 0 }));
  let guesses = 0;
  const drafter = new ChainDrafter(draft, { gamma: 4 });
  for (const [seed, prompt] of prompts.entries()) {
    const generation = generate(target, prompt, { drafter, temperature: 1, maxTokens, seed });
    for (let step = generation.step(); step !== undefined; step = generation.step()) {
      const { draft: tree, path } = step;
      // The accepted guesses, and the one after them, which was turned away. In a chain node d is the guess at depth d.
      for (let node = 1; node < Math.min(path.length + 1, tree.tokens.length); node++) {
        const law = tree.laws[node];
        if (law === null || law === undefined) continue;
        const bin = counts[Math.min(bins - 1, Math.floor(law[tree.tokens[node]!]! * bins))]!;
        bin.tested++;
        if (node < path.length) bin.accepted++;
        guesses++;
      }
    }
  }
  return { guesses, bins: counts };
}
