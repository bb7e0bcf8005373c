/**
 * Prompt lookup decoding: what followed the last few tokens when they stood in the text before is the guess.
 * Saxena 2023 (github.com/apoorvumang/prompt-lookup-decoding); the form in Hugging Face transformers
 * (`PromptLookupCandidateGenerator`, `prompt_lookup_num_tokens`).
 *
 * Answers copy from what they answer: names, quotations, code to be edited. So the text itself is the draft model, and
 * looking into it costs no pass. The longest n-gram goes first, because the longer the match, the likelier the copy.
 *
 *     for n = maxNgramSize .. 1:
 *         s = smallest i with text[i .. i+n) = text[length-n .. length) and i + n < length
 *         found: guess text[s+n .. min(s+n+predictedTokens, length)), stop
 *
 * The first of several matches is taken, as in both sources. Guesses may run into the n-gram itself, which is how a
 * loop of fewer tokens than `predictedTokens` is guessed.
 *
 * **Deviations**: transformers ends a guess before an end-of-text token and skips guesses its logits processors forbid;
 * here `generate` ends the text inside an accepted path, and there are no processors. The first release takes n-grams
 * of up to 3 and only matches followed by all `num_pred_tokens`, so it guesses nothing where transformers, and this,
 * guess a shorter tail.
 *
 * **Unlike** the chain drafter it runs no model: `laws` are null, a guess is chosen without chance.
 *
 * Worked example: [1, 2, 3, 4, 5, 6, 2, 3], n-grams of 2: [2, 3] stood at 1, so guess [4, 5] for 2 tokens, and
 * [4, 5, 6, 2, 3], all there is, for 10.
 */
import { ArgumentError } from "../errors.ts";
import { addCosts } from "../model/language-model.ts";
import type { Drafter } from "./drafter.ts";
import { chainDraft } from "./drafter.ts";

export interface PromptLookupOptions {
  /** Longest n-gram looked up; shorter ones are tried when it is not found. An integer >= 1. Default 2. */
  readonly maxNgramSize?: number;
  /** Most guesses per step, an integer >= 1. Default 10. */
  readonly predictedTokens?: number;
}

/**
 * A drafter that keeps nothing: all it knows is the text so far.
 * @throws ArgumentError on an option that is not an integer >= 1
 */
export function promptLookupDrafter(options: PromptLookupOptions = {}): Drafter {
  const { maxNgramSize = 2, predictedTokens = 10 } = options;
  for (const [name, value] of Object.entries({ maxNgramSize, predictedTokens })) {
    if (!(Number.isSafeInteger(value) && value >= 1)) throw new ArgumentError(name, "an integer >= 1", value);
  }
  return {
    vocabularySize: null,
    open: () => ({
      cost: addCosts(),
      propose({ tokens, maxNodes, maxDepth }) {
        const count = Math.min(predictedTokens, maxNodes - 1, maxDepth);
        const guesses = lookUp(tokens, maxNgramSize, count);
        return chainDraft(tokens[tokens.length - 1]!, guesses, new Array<null>(guesses.length).fill(null));
      },
      observe() {},
      close() {},
    }),
    reset() {},
  };
}

/** What followed the longest of the text's last n-grams where it first stood: at most `count` tokens, [] if it is new. */
function lookUp(text: readonly number[], maxNgramSize: number, count: number): number[] {
  for (let n = Math.min(maxNgramSize, text.length - 1); n >= 1; n--) {
    const suffix = text.length - n;
    for (let start = 0; start < suffix; start++) {
      let same = 0;
      while (same < n && text[start + same] === text[suffix + same]) same++;
      if (same === n) return text.slice(start + n, start + n + count);
    }
  }
  return [];
}
