/**
 * A tokenizer at random from some text: what the hypernetwork of ZeTT sees a new one of in every step of its training
 * (Minixhofer et al., arXiv 2405.07883, section 3, algorithm 2).
 *
 * It is a unigram model over substrings of words. A substring's score is how often it occurs times its length; noise, of a
 * strength that is drawn itself, makes each tokenizer another one, from nearly the best to nearly arbitrary.
 *
 *     p(t) = frequency(t) length(t) / sum        sigma = median e^(spread z),   z ~ N(0, 1)
 *     score(t) = log(p(t) + N(0, sigma^2)),      -1e5 where that has no logarithm
 *
 * The best `size` - 256 are kept; the 256 bytes belong to every vocabulary and get the least score among them. A word is
 * cut by the segmentation of the highest sum of scores (Viterbi, `unigram-lattice.ts`).
 *
 * **Deviations**: a length counts a token's bytes (the released code counts the characters it prints them as, a space two);
 * tokens are whole characters; sums run over the text of one step, not over a queue of earlier ones, so that a step is a
 * function of its seed; the noise is weaker (median 0.02 / size and spread 2; released: 0.33 / size at its 32,768 tokens and 4):
 * on a step's little text the released one leaves hardly any of the longer tokens that occur; runs of blanks are substrings
 * like others, where there they always are tokens.
 *
 * **Unlike** `unigram-trainer.ts` nothing is fitted: no likelihood, one count and one sort.
 *
 * Worked example: words " low" and " lower", every start, no noise: the sum is 76, " low" has 8 of it and " lo", "low",
 * " lower" 6 each, so the scores are -2.2513 and -2.5390.
 */
import { ArgumentError } from "../errors.ts";
import type { Random } from "../tensor/random.ts";
import { ByteTrie } from "../tokenization/byte-trie.ts";
import { UNKNOWN, UnigramLattice } from "../tokenization/unigram-lattice.ts";

export interface TokenizerSamplerOptions {
  /** Tokens, the 256 bytes among them. */
  readonly size: number;
  /** Longest token, in bytes. Default 15. */
  readonly longest?: number;
  /** Substrings begin at every so many characters of a word. Default 4. */
  readonly stride?: number;
  /** Median of the noise's deviation; 0: none. Default 0.02 / size. */
  readonly noise?: number;
  /** Deviation of its logarithm. Default 2. */
  readonly noiseSpread?: number;
}

const UTF8 = new TextEncoder();
const impossible = -1e5;

/** A sampled vocabulary: ids 0 .. 255 are the bytes, then the other tokens by falling score. */
export class SampledTokenizer {
  /** Bytes of each id. */
  readonly tokens: readonly Uint8Array[];
  /** Log-probability of each id. */
  readonly scores: Float64Array;
  readonly #lattice: UnigramLattice;
  readonly #words = new Map<string, readonly number[]>();

  /** Use `sampleTokenizer`. */
  constructor(tokens: readonly Uint8Array[], scores: Float64Array) {
    this.tokens = tokens;
    this.scores = scores;
    const trie = new ByteTrie(8 * tokens.length);
    tokens.forEach((bytes, id) => {
      trie.add(bytes, id);
    });
    // A character that is no token is spelled in bytes, at least two of them.
    this.#lattice = new UnigramLattice(trie, scores, { unknownScore: 2 * scores[0]!, split: false });
  }

  /** Ids of a word, by the segmentation of the highest score. */
  encode(word: string): readonly number[] {
    let ids = this.#words.get(word);
    if (ids !== undefined) return ids;
    const bytes = UTF8.encode(word);
    this.#lattice.build(bytes, 0, bytes.length);
    let start = 0;
    const path = this.#lattice.best();
    ids = path.ids.flatMap((id, i) => {
      const spelled = id === UNKNOWN ? Array.from(bytes.subarray(start, path.ends[i])) : [id];
      start = path.ends[i]!;
      return spelled;
    });
    this.#words.set(word, ids);
    return ids;
  }
}

/** How often each substring occurs times its length, and the sum over all. @param words with their frequencies */
export function substringScores(
  words: ReadonlyMap<string, number>,
  { longest = 15, stride = 4 }: Pick<TokenizerSamplerOptions, "longest" | "stride"> = {},
): { readonly scores: Map<string, number>; readonly sum: number } {
  const scores = new Map<string, number>();
  let sum = 0;
  for (const [word, frequency] of words) {
    const characters = Array.from(word);
    const lengths = characters.map((character) => UTF8.encode(character).length);
    for (let start = 0; start < characters.length; start += stride) {
      let token = "";
      let length = 0;
      for (let end = start; end < characters.length; end++) {
        length += lengths[end]!;
        if (length > longest) break;
        token += characters[end]!;
        scores.set(token, (scores.get(token) ?? 0) + frequency * length);
        sum += frequency * length;
      }
    }
  }
  return { scores, sum };
}

/**
 * A tokenizer of the substrings of words.
 * @param words with their frequencies, at least one
 * @throws ArgumentError on options out of range
 */
export function sampleTokenizer(
  words: ReadonlyMap<string, number>,
  random: Random,
  options: TokenizerSamplerOptions,
): SampledTokenizer {
  const { size, longest = 15, stride = 4, noise = 0.02 / size, noiseSpread = 2 } = options;
  if (words.size === 0) throw new ArgumentError("words", "at least one", "none");
  for (const [name, value, least] of [
    ["size", size, 257],
    ["longest", longest, 1],
    ["stride", stride, 1],
  ] as const) {
    if (!Number.isInteger(value) || value < least) {
      throw new ArgumentError(`options.${name}`, `an integer >= ${least}`, value);
    }
  }
  for (const [name, value] of Object.entries({ noise, noiseSpread })) {
    if (!(value >= 0 && value < Number.POSITIVE_INFINITY)) {
      throw new ArgumentError(`options.${name}`, "a finite number >= 0", value);
    }
  }
  const { scores, sum } = substringScores(words, { longest, stride });
  const sigma = noise * Math.exp(noiseSpread * random.normal());
  const candidates: [token: string, score: number][] = [];
  for (const [token, score] of scores) {
    if (token.length === 1 && token < "\u0080") continue; // a byte
    const p = score / sum + (sigma === 0 ? 0 : sigma * random.normal());
    candidates.push([token, p > 0 ? Math.log(p) : impossible]);
  }
  candidates.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const kept = candidates.slice(0, size - 256);
  const least = kept.at(-1)?.[1] ?? 0;
  return new SampledTokenizer(
    [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), ...kept.map(([token]) => UTF8.encode(token))],
    Float64Array.from([...new Float64Array(256).fill(least), ...kept.map(([, score]) => score)]),
  );
}
