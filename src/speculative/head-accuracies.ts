/**
 * How often heads are right, along the target's own greedy text: what their sparse tree is made from.
 *
 * Text that the target wrote itself, because that is the text drafts are made in: where a file surprises the target, no
 * guess at its next token would be accepted anyway. A level's ranks are counted given that the path before it was right,
 * as the path is the text. `FasterDecoding/Medusa` measures its heads in the same way (`heads_accuracy.py`).
 *
 *     accuracies[d - 1][r] = share of places where rank r of the guesses at depth d is the token that stands there
 */
import { ArgumentError } from "../errors.ts";
import { type LanguageModel, type Matrix, row } from "../model/language-model.ts";
import { type ChimeraHeads, type EncodedNode, trigramAt } from "./chimera-heads.ts";
import { generateAll } from "./generate.ts";
import { lastHidden } from "./head-layers.ts";
import type { MedusaHeads } from "./medusa.ts";

export interface HeadAccuracyOptions {
  /** Ranks to count, an integer >= 1. Default 10. */
  readonly ranks?: number;
  /** Tokens to generate after each prompt, an integer >= 2. Default 64. */
  readonly maxTokens?: number;
}

/**
 * Measures Medusa's heads.
 * @param prompts token ids, each continued by the target; not the ones to be evaluated later
 * @returns [heads][ranks]
 * @throws ArgumentError on options out of range, or when no prompt left room for a guess
 */
export function medusaAccuracies(
  target: LanguageModel,
  heads: MedusaHeads,
  prompts: Iterable<ArrayLike<number>>,
  options: HeadAccuracyOptions = {},
): Promise<number[][]> {
  return accuracies(target, heads.width, heads.count, prompts, options, (_, hidden, ranks, count) => {
    for (let t = 0; t < hidden.rows; t++) {
      const best = heads.best(row(hidden, t), new Array<number>(heads.count).fill(ranks));
      best.forEach((guesses, level) => {
        count(t + 1, level, guesses);
      });
    }
  });
}

/**
 * Measures Chimera's heads, each path being the text.
 * @param prompts as for `medusaAccuracies`
 */
export function chimeraAccuracies(
  target: LanguageModel,
  heads: ChimeraHeads,
  prompts: Iterable<ArrayLike<number>>,
  options: HeadAccuracyOptions = {},
): Promise<number[][]> {
  return accuracies(target, heads.width, heads.count, prompts, options, (text, hidden, ranks, count) => {
    const context = heads.open(text.length + heads.count);
    try {
      for (let t = 0; t < hidden.rows; t++) {
        context.commit(hidden, [t]);
        const pending = t + 1;
        for (let depth = 0; depth < heads.count && pending + depth + 1 < text.length; depth++) {
          const node: EncodedNode = {
            node: depth,
            depth,
            trigram: trigramAt(text.slice(Math.max(0, pending + depth - 2), pending + depth + 1)),
            ancestors: Array.from({ length: depth }, (_, i) => i),
            kept: true,
          };
          context.encode([node], depth);
          count(pending, depth, context.best(0, ranks));
        }
      }
    } finally {
      context.close();
    }
  });
}

/** Told of the guesses at `level` (from 0) after the pending token, which stands at `pending`. */
type Count = (pending: number, level: number, guesses: Int32Array) => void;

async function accuracies(
  target: LanguageModel,
  width: number,
  levels: number,
  prompts: Iterable<ArrayLike<number>>,
  { ranks = 10, maxTokens = 64 }: HeadAccuracyOptions,
  probe: (text: readonly number[], hidden: Matrix, ranks: number, count: Count) => void,
): Promise<number[][]> {
  if (!(Number.isSafeInteger(ranks) && ranks >= 1)) throw new ArgumentError("ranks", "an integer >= 1", ranks);
  if (!(Number.isSafeInteger(maxTokens) && maxTokens >= 2)) {
    throw new ArgumentError("maxTokens", "an integer >= 2", maxTokens);
  }
  const right = Array.from({ length: levels }, () => new Float64Array(Math.min(ranks, target.vocabularySize)));
  const places = new Float64Array(levels);
  let prompted = 0;
  for (const prompt of prompts) {
    prompted += 1;
    const { tokens } = await generateAll(target, prompt, { maxTokens });
    const text = [...Array.from(prompt), ...tokens].slice(0, target.contextLength);
    const session = target.openSession();
    try {
      const { taps } = session.extend(text, { logits: "none", taps: ["hidden"] });
      probe(text, lastHidden(taps, width), ranks, (pending, level, guesses) => {
        const place = pending + level + 1;
        // Only what the target wrote.
        if (pending < prompt.length - 1 || place >= text.length) return;
        places[level]! += 1;
        const rank = guesses.indexOf(text[place]!);
        if (rank >= 0) right[level]![rank]! += 1;
      });
    } finally {
      session.close();
    }
  }
  if (places.some((count) => count === 0)) {
    throw new ArgumentError("prompts", "prompts with room for a guess of every head", prompted);
  }
  return right.map((counts, level) => Array.from(counts, (count) => count / places[level]!));
}
