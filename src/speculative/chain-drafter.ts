/**
 * Chain drafter: a smaller language model guesses the next gamma tokens, one after another.
 * Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318.
 *
 * The draft model has a session, hence a cache, of its own. Before a step it holds at most the text without the pending
 * token; the first pass feeds what is missing, each further pass the guess just drawn, so a step is gamma passes.
 * The last guess is not fed: its logits would serve nobody. After verification the cache is cut to the accepted path:
 *
 *     before   n - 1 tokens (n: the text with the pending token)
 *     drafted  n - 1 + gamma           pending and x_1 .. x_{gamma-1}
 *     a < gamma accepted: cut to n + a                        pending and x_1 .. x_a
 *     a = gamma accepted: n - 1 + gamma stay, x_gamma is fed with the next pending token, in the same pass
 *
 * **Deviations**: none. Where the draft model's context ends before the target's, drafting stops and decoding is plain.
 *
 * **Unlike** the random drafter, its law is a model's, so acceptance is 1 - TV(p, q) of two models of the same text.
 *
 * Worked example: gamma 2, pending 7: passes over [7] and [3], draft [7, 3, 4]; both accepted and 9 emitted: the next
 * step's first pass is over [4, 9].
 */
import { ArgumentError } from "../errors.ts";
import type { Cost, LanguageModel, Session } from "../model/language-model.ts";
import { row } from "../model/language-model.ts";
import type { Draft, DraftContext, Drafter, Drafting, DraftStart, VerifiedPass } from "./drafter.ts";
import { chainDraft } from "./drafter.ts";
import type { SamplingOptions } from "./sampling.ts";
import { resolveSampling, tokenLaw } from "./sampling.ts";

export interface ChainDrafterOptions {
  /** Guesses per step, an integer >= 0. 0 never guesses. Default 4. */
  readonly gamma?: number;
  /** How guesses are drawn. Default: as the target's tokens are. Any law is exact; like laws are accepted most. */
  readonly sampling?: SamplingOptions;
}

/** A drafter that lets `model` guess a chain of `gamma` tokens per step. It learns nothing across sequences. */
export class ChainDrafter implements Drafter {
  readonly vocabularySize: number;
  readonly gamma: number;
  readonly #model: LanguageModel;
  readonly #sampling: SamplingOptions | undefined;

  /** @throws ArgumentError on a gamma that is not an integer >= 0, or sampling options out of range */
  constructor(model: LanguageModel, { gamma = 4, sampling }: ChainDrafterOptions = {}) {
    if (!(Number.isSafeInteger(gamma) && gamma >= 0)) throw new ArgumentError("gamma", "an integer >= 0", gamma);
    this.vocabularySize = model.vocabularySize;
    this.gamma = gamma;
    this.#model = model;
    this.#sampling = sampling === undefined ? undefined : resolveSampling(sampling);
  }

  open(start: DraftStart): Drafting {
    if (start.vocabularySize !== this.vocabularySize) {
      throw new ArgumentError("drafter", `a vocabulary of ${start.vocabularySize}`, this.vocabularySize);
    }
    return new ChainDrafting(this.#model, this.gamma, this.#sampling);
  }

  reset(): void {}
}

class ChainDrafting implements Drafting {
  readonly #session: Session;
  readonly #contextLength: number;
  readonly #gamma: number;
  readonly #sampling: SamplingOptions | undefined;
  /** Tokens of the text without the pending one, at the last `propose`. */
  #committed = 0;

  constructor(model: LanguageModel, gamma: number, sampling: SamplingOptions | undefined) {
    this.#session = model.openSession();
    this.#contextLength = model.contextLength;
    this.#gamma = gamma;
    this.#sampling = sampling;
  }

  get cost(): Cost {
    return this.#session.cost;
  }

  propose({ tokens, maxNodes, maxDepth, sampling, random }: DraftContext): Draft {
    this.#committed = tokens.length - 1;
    // The cache will hold the text and all guesses but the last.
    const room = this.#contextLength - tokens.length + 1;
    const count = Math.max(0, Math.min(this.#gamma, maxNodes - 1, maxDepth, room));
    const guesses: number[] = [];
    const laws: Float64Array[] = [];
    for (let i = 0; i < count; i++) {
      const { logits } = this.#session.extend(i === 0 ? tokens.slice(this.#session.length) : [guesses[i - 1]!]);
      const law = tokenLaw(row(logits, 0), this.#sampling ?? sampling);
      laws.push(law);
      guesses.push(random.categorical(law));
    }
    return chainDraft(tokens[tokens.length - 1]!, guesses, laws);
  }

  observe({ path }: VerifiedPass): void {
    // The root and the accepted guesses are part of the text now. The last guess may not be in the cache yet.
    const text = this.#committed + path.length;
    if (this.#session.length > text) this.#session.truncate(text);
  }

  close(): void {
    this.#session.close();
  }
}
