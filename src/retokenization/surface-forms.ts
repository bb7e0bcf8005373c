/**
 * What a model is shown of a token it never had: the token's bytes as pieces of the model's own vocabulary.
 *
 * The bytes are merged as they are, without being split into words before: a new token may reach across what the model's
 * own tokenizer would have cut. So a token that would never come about in running text has pieces too, and every token of
 * the vocabulary that merging reaches is one piece: itself. Paper: arXiv 2405.07883, section 3.
 *
 * Example: where "low" and "er" are tokens and "lower" is not, "lower" has the surface form low, er.
 */
import { ArgumentError } from "../errors.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import { buildMergeTable } from "../tokenization/bpe-definition.ts";
import { BpeMerger } from "../tokenization/bpe-merger.ts";
import { TokenTable } from "../tokenization/token-table.ts";

/** Most pieces of a surface form, as in the paper. */
export const longestSurfaceForm = 7;

/** Surface forms in the vocabulary of `tokenizer`, the model's own. */
export class SurfaceForms {
  readonly #merger: BpeMerger;
  readonly #longest: number;

  /** @param longest pieces after this many are left out. Default 7. */
  constructor(tokenizer: Bpe, longest: number = longestSurfaceForm) {
    if (!Number.isInteger(longest) || longest < 1) throw new ArgumentError("longest", "an integer >= 1", longest);
    const { definition } = tokenizer;
    this.#merger = new BpeMerger(buildMergeTable(definition, new TokenTable(definition.tokens)));
    this.#longest = longest;
  }

  /** @param bytes of a token, whole characters or not @throws ArgumentError when there are none */
  of(bytes: Uint8Array): number[] {
    if (bytes.length === 0) throw new ArgumentError("bytes", "at least one", "none");
    const count = this.#merger.merge(bytes, 0, bytes.length);
    return Array.from(this.#merger.ids.subarray(0, Math.min(count, this.#longest)));
  }
}
