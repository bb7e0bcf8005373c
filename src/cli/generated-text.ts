/** What a generation wrote, and who wrote which part of it. */
import type { Generation, Report, Step } from "../speculative/index.ts";
import { StreamingDecoder, type Tokenizer } from "../tokenization/index.ts";

/** A stretch of generated text by one author: a guess that was accepted, or the target itself. */
export interface Piece {
  readonly text: string;
  readonly author: "draft" | "target";
}

/** Runs a generation without waiting in between. */
export function runToEnd(generation: Generation): { report: Report; steps: Step[] } {
  const steps: Step[] = [];
  for (let step = generation.step(); step !== undefined; step = generation.step()) steps.push(step);
  return { report: generation.report, steps };
}

export function sameTokens(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((token, i) => token === b[i]);
}

/**
 * The generated text cut by author, step by step. A character whose bytes several tokens share belongs to the token that
 * completes it.
 */
export function authoredPieces(tokenizer: Tokenizer, steps: readonly Step[]): Piece[] {
  const pieces: Piece[] = [];
  const decoder = new StreamingDecoder(tokenizer);
  const add = (author: Piece["author"], ids: readonly number[]): void => {
    const text = ids.map((id) => decoder.push(id)).join("");
    if (text !== "") pieces.push({ author, text });
  };
  for (const { tokens } of steps) {
    add("draft", tokens.slice(0, -1));
    add("target", tokens.slice(-1));
  }
  const rest = decoder.flush();
  if (rest !== "") pieces.push({ author: "target", text: rest });
  return pieces;
}
