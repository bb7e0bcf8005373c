/**
 * Random drafter: a chain of tokens drawn uniformly from the vocabulary. The baseline that knows nothing.
 *
 * A drafter worth its passes must beat it. It also shows that a lossless verifier stays lossless for any draft: its
 * guesses are accepted with probability sum_x min(p(x), 1/V), and the output's law is still the target's.
 *
 *     q(x) = 1 / V
 *
 * **Unlike** plain decoding it does guess, at no cost but the rows the target scores.
 *
 * Worked example: gamma 2, vocabulary 4, pending 7 -> tokens [7, 2, 0], laws [null, [1/4 ...], [1/4 ...]].
 */
import { ArgumentError } from "../errors.ts";
import { addCosts } from "../model/language-model.ts";
import type { Drafter } from "./drafter.ts";
import { chainDraft } from "./drafter.ts";

/**
 * @param options `gamma`: guesses per step, an integer >= 0, default 4
 * @throws ArgumentError on a gamma that is not an integer >= 0
 */
export function randomDrafter({ gamma = 4 }: { readonly gamma?: number } = {}): Drafter {
  if (!(Number.isSafeInteger(gamma) && gamma >= 0)) throw new ArgumentError("gamma", "an integer >= 0", gamma);
  return {
    vocabularySize: null,
    open({ vocabularySize }) {
      const law = new Float64Array(vocabularySize).fill(1 / vocabularySize);
      return {
        cost: addCosts(),
        propose({ tokens, maxNodes, maxDepth, random }) {
          const count = Math.min(gamma, maxNodes - 1, maxDepth);
          const guesses = Array.from({ length: count }, () => random.integer(vocabularySize));
          return chainDraft(tokens[tokens.length - 1]!, guesses, new Array(count).fill(law));
        },
        observe() {},
        close() {},
      };
    },
    reset() {},
  };
}
