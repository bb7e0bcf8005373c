/**
 * Tokenization bias, measured: prompts cut at every place inside a token, and what three ways of continuing them say of the
 * bytes that stand there.
 *
 * The truth is the rest of the token that was cut. Each way is asked for its law before each byte of it, the true bytes being
 * given. It has completed the token greedily where its most probable byte was the true one throughout.
 *
 *     bits per byte = - sum log2 p(byte | prompt, bytes before) / bytes
 *
 * At offset 0 the prompt ends between two tokens of the text's own encoding: what is lost there is what every cut loses.
 *
 * Worked example: "interface" cut behind "int", as the tokens "int" + "er" + ...: three bytes in, "erface" is the truth.
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Tokenizer } from "../tokenization/tokenizer.ts";
import { addByteCosts, type ByteCost, type ByteModel } from "./byte-model.ts";
import { type ByteOptions, exactBytes } from "./exact-byte-probabilities.ts";
import { naivePrompt, tokenHealing } from "./prompt-rules.ts";

export interface TokenizationBiasOptions extends Omit<ByteOptions, "prompt"> {
  /** Tokens in front of the one that is cut, at most; at least 1. Default 48. */
  readonly contextTokens?: number;
  /** Tokens to cut, evenly spread over the texts, of those of two bytes or more. Default 100. */
  readonly cuts?: number;
}

/** Ways of continuing a prompt, in the order they are reported. */
export const continuations = ["naive", "token healing", "exact"] as const;
export type ContinuationName = (typeof continuations)[number];

/** What one way of continuing said, over some prompts. */
export interface BiasFigures {
  readonly prompts: number;
  /** Bytes that were to be predicted. */
  readonly bytes: number;
  /** -log2 of the probability of the true bytes, per byte. Infinity where one had probability 0. */
  readonly bitsPerByte: number;
  /** Mean probability of the first true byte. */
  readonly firstByte: number;
  /** Share of prompts after which the rest of the token came out greedily, byte for byte. */
  readonly greedyAccuracy: number;
}

export interface ContinuationFigures extends BiasFigures {
  readonly name: ContinuationName;
  /** Prompts that end inside a token: offset 1 and more. */
  readonly inside: BiasFigures;
  /** By how many bytes of the token the prompt holds, from 0; the last entry holds all that are deeper. */
  readonly byOffset: readonly BiasFigures[];
  /** Of all prompts and bytes. */
  readonly cost: ByteCost;
  /** The passes over prompts left out: model calls per byte predicted. */
  readonly callsPerByte: number;
  /** Multiply-adds per byte predicted, the passes over prompts left out. */
  readonly multiplyAddsPerByte: number;
  /** Encodings carried, per byte predicted. */
  readonly coversPerByte: number;
}

export interface TokenizationBias {
  readonly tokens: number;
  /** Bytes of a token of the texts, in the mean: decoding by tokens makes one call for so many bytes. */
  readonly bytesPerToken: number;
  readonly continuations: readonly ContinuationFigures[];
}

/** Offsets reported one by one; deeper ones are taken together with the last. */
const DEEPEST = 6;

/**
 * Cut prompts from texts at every offset inside a token and compare naive continuation, token healing and the exact law.
 * @param texts held-out texts; a prompt never crosses from one to the next
 * @throws ArgumentError on options out of range, or texts without a token of two bytes or more
 */
export function measureTokenizationBias(
  model: LanguageModel,
  tokenizer: Tokenizer,
  texts: readonly string[],
  options: TokenizationBiasOptions = {},
): TokenizationBias {
  const { contextTokens = 48, cuts = 100, ...vocabulary } = options;
  for (const [name, value] of Object.entries({ contextTokens, cuts })) {
    if (!(Number.isSafeInteger(value) && value >= 1))
      throw new ArgumentError(`options.${name}`, "an integer >= 1", value);
  }
  const encoded = texts.map((text) => tokenizer.encode(text, { disallowedSpecial: [] }));
  const places = encoded.flatMap((ids, text) =>
    Array.from(ids, (id, at) => ({ text, at, length: tokenizer.tokenBytes(id).length })),
  );
  const long = places.filter(({ at, length }) => at > 0 && length > 1);
  if (long.length === 0) throw new ArgumentError("texts", "texts with tokens of two bytes or more", texts.length);
  const chosen = Array.from({ length: Math.min(cuts, long.length) }, (_, i) => {
    return long[Math.floor(((i + 0.5) * long.length) / Math.min(cuts, long.length))]!;
  });

  const ways: Readonly<Record<ContinuationName, ByteModel>> = {
    naive: exactBytes(model, tokenizer, { ...vocabulary, prompt: naivePrompt }),
    "token healing": exactBytes(model, tokenizer, { ...vocabulary, prompt: tokenHealing }),
    exact: exactBytes(model, tokenizer, vocabulary),
  };
  const figures = continuations.map((name): ContinuationFigures => {
    const session = ways[name].openSession();
    const counts = Array.from({ length: DEEPEST + 1 }, () => new Counts());
    let atStart = addByteCosts();
    let afterwards = addByteCosts();
    try {
      for (const { text, at, length } of chosen) {
        const ids = encoded[text]!;
        const context = tokenizer.decodeBytes(ids.subarray(Math.max(0, at - contextTokens), at));
        // From the first whole character on.
        const before = context.subarray(
          Math.max(
            0,
            context.findIndex((byte) => byte < 0x80 || byte > 0xbf),
          ),
        );
        const token = tokenizer.tokenBytes(ids[at]!);
        for (let offset = 0; offset < length; offset++) {
          const opened = session.cost;
          session.start(Uint8Array.of(...before, ...token.subarray(0, offset)));
          session.next();
          const begun = session.cost;
          const steps: Step[] = [];
          for (const byte of token.subarray(offset)) {
            if (steps.length > 0) session.push(token[offset + steps.length - 1]!);
            const law = session.next();
            const probability = law[byte]!;
            steps.push({ probability, best: law.every((p, other) => p < probability || other === byte) });
            if (probability === 0) break;
          }
          counts[Math.min(offset, DEEPEST)]!.add(steps, length - offset);
          atStart = addByteCosts(atStart, difference(begun, opened));
          afterwards = addByteCosts(afterwards, difference(session.cost, begun));
        }
      }
    } finally {
      session.close();
    }
    const all = Counts.sum(counts);
    const pushed = Math.max(1, afterwards.bytes);
    return {
      name,
      ...all.figures(),
      inside: Counts.sum(counts.slice(1)).figures(),
      byOffset: counts.map((count) => count.figures()),
      cost: addByteCosts(atStart, afterwards),
      callsPerByte: afterwards.passes / pushed,
      multiplyAddsPerByte: afterwards.multiplyAdds / pushed,
      coversPerByte: afterwards.covers / pushed,
    };
  });
  return {
    tokens: chosen.length,
    bytesPerToken: places.reduce((sum, { length }) => sum + length, 0) / places.length,
    continuations: figures,
  };
}

function difference(later: ByteCost, earlier: ByteCost): ByteCost {
  return {
    passes: later.passes - earlier.passes,
    tokens: later.tokens - earlier.tokens,
    multiplyAdds: later.multiplyAdds - earlier.multiplyAdds,
    cacheBytesRead: later.cacheBytesRead - earlier.cacheBytesRead,
    bytes: later.bytes - earlier.bytes,
    covers: later.covers - earlier.covers,
    tested: later.tested - earlier.tested,
  };
}

/** What was said of one true byte. */
interface Step {
  readonly probability: number;
  /** Whether no other outcome is as probable. */
  readonly best: boolean;
}

class Counts {
  #prompts = 0;
  #bytes = 0;
  #bits = 0;
  #firstByte = 0;
  #completed = 0;

  static sum(all: readonly Counts[]): Counts {
    const sum = new Counts();
    for (const one of all) {
      sum.#prompts += one.#prompts;
      sum.#bytes += one.#bytes;
      sum.#bits += one.#bits;
      sum.#firstByte += one.#firstByte;
      sum.#completed += one.#completed;
    }
    return sum;
  }

  /** The true bytes behind one prompt, up to the first of probability 0. */
  add(steps: readonly Step[], bytes: number): void {
    this.#prompts++;
    this.#bytes += bytes;
    for (const { probability } of steps) this.#bits -= Math.log2(probability);
    this.#firstByte += steps[0]!.probability;
    if (steps.every(({ best }) => best)) this.#completed++;
  }

  figures(): BiasFigures {
    return {
      prompts: this.#prompts,
      bytes: this.#bytes,
      bitsPerByte: this.#bytes === 0 ? 0 : this.#bits / this.#bytes,
      firstByte: this.#prompts === 0 ? 0 : this.#firstByte / this.#prompts,
      greedyAccuracy: this.#prompts === 0 ? 0 : this.#completed / this.#prompts,
    };
  }
}
