/** Holds sampled pairs of tokens against a table's exactly enumerated law: Pearson's chi-square over the cells. */
import type { TableModel } from "../../src/model/table-model.ts";
import type { GenerateOptions, SamplingOptions } from "../../src/speculative/index.ts";
import { generate, tokenLaw } from "../../src/speculative/index.ts";

export interface Fit {
  /** Sum over cells of (observed - expected)^2 / expected; infinite when a continuation of probability 0 was drawn. */
  readonly chiSquare: number;
  /** Value that a correct sampler exceeds once in a thousand (99.9 % point, cells - 1 degrees of freedom). */
  readonly limit: number;
  /** Generated tokens per target pass, over all draws. */
  readonly tokensPerPass: number;
}

/**
 * Draws the first two tokens after `prompt` from `draws` generations, seeds 0, 1, 2 ...
 * Each generation may run to four tokens, so that drafts of up to three guesses are not cut short.
 */
export function fitOfFirstTwoTokens(
  target: TableModel,
  prompt: readonly number[],
  draws: number,
  options: Omit<GenerateOptions, "seed" | "maxTokens"> & SamplingOptions,
): Fit {
  const { vocabularySize } = target;
  const counts = new Map<number, number>();
  let passes = 0;
  let produced = 0;
  for (let seed = 0; seed < draws; seed++) {
    const generation = generate(target, prompt, { ...options, seed, maxTokens: 4 });
    const tokens: number[] = [];
    while (tokens.length < 2) {
      tokens.push(...(generation.step()?.tokens ?? []));
      passes += 1;
    }
    produced += tokens.length;
    generation.close();
    const cell = tokens[0]! * vocabularySize + tokens[1]!;
    counts.set(cell, (counts.get(cell) ?? 0) + 1);
  }

  const cells = target.enumerate(prompt, 2, (logits) => tokenLaw(logits, options));
  let chiSquare = 0;
  let inside = 0;
  for (const { tokens, probability } of cells) {
    const observed = counts.get(tokens[0]! * vocabularySize + tokens[1]!) ?? 0;
    const expected = probability * draws;
    chiSquare += (observed - expected) ** 2 / expected;
    inside += observed;
  }
  if (inside < draws) chiSquare = Number.POSITIVE_INFINITY;
  return { chiSquare, limit: chiSquareLimit(cells.length - 1), tokensPerPass: produced / passes };
}

/** 99.9 % point of the chi-square law, by Wilson and Hilferty's cube (1931): within 1 % from 3 degrees of freedom on. */
export function chiSquareLimit(degrees: number): number {
  const variance = 2 / (9 * degrees);
  return degrees * (1 - variance + 3.0902 * Math.sqrt(variance)) ** 3;
}
