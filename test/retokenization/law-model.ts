/** Language models for tests that are nothing but a law, in doubles: what a table's float32 logarithms would blur. */
import type { Cost, LanguageModel, Matrix, Session } from "../../src/model/language-model.ts";
import type { Tokenizer } from "../../src/tokenization/tokenizer.ts";

/** A model whose next token has the law `lawOf(all tokens so far)`, [vocabularySize]. Counts its passes. */
export class LawModel implements LanguageModel {
  readonly vocabularySize: number;
  readonly contextLength = 4096;
  readonly #lawOf: (tokens: readonly number[]) => ArrayLike<number>;
  readonly #known = new Map<string, Float64Array>();

  constructor(vocabularySize: number, lawOf: (tokens: readonly number[]) => ArrayLike<number>) {
    this.vocabularySize = vocabularySize;
    this.#lawOf = lawOf;
  }

  /** log p, in doubles. */
  logits(tokens: readonly number[]): Float64Array {
    const key = tokens.join();
    let logits = this.#known.get(key);
    if (logits === undefined) {
      logits = Float64Array.from(this.#lawOf(tokens), Math.log);
      this.#known.set(key, logits);
    }
    return logits;
  }

  openSession(): Session {
    let tokens: number[] = [];
    let tree: number[][] = [];
    const cost = { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 };
    const matrix = (contexts: readonly number[][]): Matrix => {
      const columns = this.vocabularySize;
      const data = new Float64Array(contexts.length * columns);
      contexts.forEach((context, i) => {
        data.set(this.logits(context), i * columns);
      });
      // The contract says float32; nothing that reads it cares.
      return { data: data as unknown as Float32Array, rows: contexts.length, columns };
    };
    return {
      get length() {
        return tokens.length;
      },
      get cost(): Cost {
        return { ...cost };
      },
      extend(input) {
        cost.passes++;
        for (const id of Array.from(input as ArrayLike<number>)) tokens.push(id);
        return { logits: matrix([tokens.slice()]) };
      },
      score({ tokens: nodes, parents }) {
        cost.passes++;
        cost.tokens += nodes.length;
        tree = [];
        for (let i = 0; i < nodes.length; i++) {
          tree.push([...(parents[i]! < 0 ? tokens : tree[parents[i]!]!), nodes[i]!]);
        }
        return { logits: matrix(tree) };
      },
      accept(node) {
        tokens = tree[node]!.slice();
      },
      truncate(length) {
        tokens.length = length;
      },
      close() {},
    };
  }
}

/** Longest match from the left over an explicit vocabulary, for toy alphabets. */
export class LongestMatch implements Tokenizer {
  readonly vocabularySize: number;
  readonly #tokens: readonly string[];

  constructor(tokens: readonly string[]) {
    this.#tokens = tokens;
    this.vocabularySize = tokens.length;
  }

  encode(text: string): Uint32Array {
    const ids: number[] = [];
    for (let at = 0; at < text.length; ) {
      let best = -1;
      this.#tokens.forEach((token, id) => {
        if (text.startsWith(token, at) && (best < 0 || token.length > this.#tokens[best]!.length)) best = id;
      });
      if (best < 0) return Uint32Array.of(); // no encoding: nothing is admitted
      ids.push(best);
      at += this.#tokens[best]!.length;
    }
    return Uint32Array.from(ids);
  }

  decode(ids: ArrayLike<number>): string {
    return Array.from(ids, (id) => this.#tokens[id]!).join("");
  }

  decodeBytes(ids: ArrayLike<number>): Uint8Array {
    return new TextEncoder().encode(this.decode(ids));
  }

  tokenBytes(id: number): Uint8Array {
    return this.decodeBytes([id]);
  }
}

/** A chain over characters: the law of the next one after the last, or at the start. */
export type Chain = (last: string | undefined) => Readonly<Record<string, number>>;

export function chainProbability(chain: Chain, text: string, after?: string): number {
  let p = 1;
  let last = after;
  for (const character of text) {
    p *= chain(last)[character] ?? 0;
    last = character;
  }
  return p;
}

/** All texts of a length over the characters of a chain. */
export function texts(chain: Chain, length: number): string[] {
  let level = [""];
  for (let i = 0; i < length; i++) level = level.flatMap((text) => Object.keys(chain(undefined)).map((c) => text + c));
  return level;
}

/**
 * The law a model learns from the encodings of endless texts of a chain; tokens begin behind `begin`, whose id is that of the
 * last one of the model.
 * @param ahead characters behind a sequence after which its tokens are settled
 */
export function encodedChain(chain: Chain, tokenizer: Tokenizer, ids: readonly number[], ahead: number): LawModel {
  const longest = Math.max(...ids.map((id) => tokenizer.tokenBytes(id).length));
  return new LawModel(tokenizer.vocabularySize + 1, ([, ...tokens]) => {
    const law = new Float64Array(tokenizer.vocabularySize + 1);
    const done = tokenizer.decode(tokens);
    for (const rest of texts(chain, longest + ahead)) {
      const encoded = tokenizer.encode(done + rest);
      if (!tokens.every((id, i) => encoded[i] === id)) continue;
      law[encoded[tokens.length]!]! += chainProbability(chain, rest, done.at(-1));
    }
    // A sequence no text's encoding begins with is never met; a law is needed all the same.
    if (law.every((p) => p === 0)) law.fill(1);
    const sum = law.reduce((a, b) => a + b, 0);
    return law.map((p) => p / sum);
  });
}

/** The law of a model that has learnt some texts by heart, each ended by `end`, which texts begin behind too. */
export function memorizedTexts(
  corpus: readonly { readonly text: string; readonly weight: number }[],
  tokenizer: Tokenizer,
  vocabularySize: number,
  end: number,
): LawModel {
  const encoded = corpus.map(({ text, weight }) => ({
    ids: [...tokenizer.encode(text, { disallowedSpecial: [] }), end],
    weight,
  }));
  return new LawModel(vocabularySize, ([, ...tokens]) => {
    const law = new Float64Array(vocabularySize);
    for (const { ids, weight } of encoded) {
      if (ids.length > tokens.length && tokens.every((id, i) => ids[i] === id)) law[ids[tokens.length]!]! += weight;
    }
    const sum = law.reduce((a, b) => a + b, 0);
    return sum === 0 ? law.fill(1 / vocabularySize) : law.map((p) => p / sum);
  });
}
