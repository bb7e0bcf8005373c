/**
 * Special tokens: contents such as `<|endoftext|>` that stand for one id and are never produced by merging.
 *
 * They are found before the text is split into pieces: leftmost first, and of several that start at the same place
 * the longest. What happens to one is governed by `EncodeOptions`.
 *
 * As in Hugging Face's tokenizers there are two passes. The first goes over the text as it is, so that what it finds keeps
 * its own spelling. What lies between is normalized, each stretch by itself, and the second pass goes over that, for the
 * tokens that are meant to be found in normalized text. A pass that has nothing to find does not look.
 */

import { ArgumentError } from "../errors.ts";
import type { EncodeOptions } from "./tokenizer.ts";
import { alignNormalized, type Normalizer, normalize } from "./unicode-normalization.ts";

/** Ordinary text (`id` -1) or one special or added token. */
export interface Segment {
  readonly id: number;
  readonly text: string;
}

/** A segment with its first UTF-16 unit in the text it was cut from. */
export interface Stretch extends Segment {
  readonly start: number;
}

/** The tokens that are found before a text is split, and what happens to the text between them. */
export interface AddedTokens {
  /** What happens to a text before it is split. */
  readonly normalizer: Normalizer;
  /** Tokens that `EncodeOptions` govern, by content. */
  readonly specialTokens: ReadonlyMap<string, number>;
  /** Tokens cut out of every text before it is split (added tokens of Hugging Face files that are not special). */
  readonly addedTokens: ReadonlyMap<string, number>;
  /**
   * Contents of the special and added tokens that are found in normalized text, and only in what the others leave
   * (`normalized` in Hugging Face files). Each must be normalized itself.
   */
  readonly normalizedTokens: ReadonlySet<string>;
}

/** What one pass looks for; undefined where there is nothing. */
interface Pass {
  readonly refused: RegExp | undefined;
  readonly wanted: RegExp | undefined;
}

export class SpecialTokens {
  readonly #special: ReadonlyMap<string, number>;
  readonly #added: ReadonlyMap<string, number>;
  readonly #second: ReadonlySet<string>;
  readonly #normalizer: Normalizer;
  /** Both passes with the default options: special tokens are refused, added ones wanted. */
  readonly #default: readonly [Pass, Pass];

  constructor({ specialTokens, addedTokens, normalizedTokens, normalizer }: AddedTokens) {
    this.#special = specialTokens;
    this.#added = addedTokens;
    this.#second = normalizedTokens;
    this.#normalizer = normalizer;
    this.#default = [
      { refused: anyOf(this.#named(0, "all")), wanted: anyOf(this.#ofPass(0, addedTokens.keys())) },
      { refused: anyOf(this.#named(1, "all")), wanted: anyOf(this.#ofPass(1, addedTokens.keys())) },
    ];
  }

  /**
   * The segments of `text` as they are to be encoded, in order, none of them empty; ordinary text is normalized.
   * @throws ArgumentError on a refused token
   */
  split(text: string, options: EncodeOptions): readonly Segment[] {
    const [first, second] = this.#passes(options);
    const stretches = this.#cut(text, first, (unit) => unit);
    if (this.#normalizer === "none" && second.refused === undefined && second.wanted === undefined) return stretches;
    return stretches.flatMap((stretch): Segment | Segment[] => {
      if (stretch.id >= 0) return stretch;
      return this.#cut(normalize(stretch.text, this.#normalizer), second, (unit) =>
        this.#normalizer === "none" ? stretch.start + unit : alignNormalized([stretch], this.#normalizer).starts[unit]!,
      );
    });
  }

  /** What the first pass makes of `text`: tokens as they stand there, and the stretches between, not yet normalized. */
  stretches(text: string, options: EncodeOptions): readonly Stretch[] {
    return this.#cut(text, this.#passes(options)[0], (unit) => unit);
  }

  #passes(options: EncodeOptions): readonly [Pass, Pass] {
    const allowed = this.#chosen("allowedSpecial", options.allowedSpecial ?? []);
    const refused = this.#chosen("disallowedSpecial", options.disallowedSpecial ?? "all");
    if (refused === "all" && allowed.length === 0) return this.#default;
    return [this.#pass(0, allowed, refused), this.#pass(1, allowed, refused)];
  }

  #pass(pass: 0 | 1, allowed: "all" | readonly string[], refused: "all" | readonly string[]): Pass {
    const mayRefuse = allowed !== "all" && refused.length > 0;
    return {
      refused: mayRefuse
        ? anyOf(this.#named(pass, refused).filter((content) => !allowed.includes(content)))
        : undefined,
      wanted:
        allowed.length === 0
          ? this.#default[pass].wanted
          : anyOf([...this.#named(pass, allowed), ...this.#ofPass(pass, this.#added.keys())]),
    };
  }

  #named(pass: 0 | 1, chosen: "all" | readonly string[]): string[] {
    return this.#ofPass(pass, chosen === "all" ? this.#special.keys() : chosen);
  }

  #ofPass(pass: 0 | 1, contents: Iterable<string>): string[] {
    return [...contents].filter((content) => this.#second.has(content) === (pass === 1));
  }

  /** @param unitBefore from a UTF-16 unit of `text` to that of the caller's text, for the message */
  #cut(text: string, { refused, wanted }: Pass, unitBefore: (unit: number) => number): Stretch[] {
    const match = refused === undefined ? undefined : text.matchAll(refused).next().value;
    if (match !== undefined) {
      throw new ArgumentError(
        "text",
        "no special token outside options.allowedSpecial",
        match[0],
        `It stands at UTF-16 unit ${unitBefore(match.index)}. Allow it with ` +
          `{ allowedSpecial: [${JSON.stringify(match[0])}] } or read it as ordinary text with { disallowedSpecial: [] }.`,
      );
    }
    const stretches: Stretch[] = [];
    let done = 0;
    if (wanted !== undefined) {
      for (const { 0: content, index } of text.matchAll(wanted)) {
        if (index > done) stretches.push({ start: done, text: text.slice(done, index), id: -1 });
        stretches.push({ start: index, text: content, id: (this.#special.get(content) ?? this.#added.get(content))! });
        done = index + content.length;
      }
    }
    if (done < text.length) stretches.push({ start: done, text: text.slice(done), id: -1 });
    return stretches;
  }

  #chosen(option: string, value: "all" | readonly string[]): "all" | readonly string[] {
    if (value === "all") return value;
    if (!Array.isArray(value)) throw new ArgumentError(`options.${option}`, '"all" or an array of strings', value);
    for (const content of value) {
      if (!this.#special.has(content)) {
        const known = [...this.#special.keys()].slice(0, 5).join(", ");
        throw new ArgumentError(
          `options.${option}`,
          `special tokens of this vocabulary (${known === "" ? "it has none" : known})`,
          content,
        );
      }
    }
    return value;
  }
}

/** A pattern for any of the contents, longer ones first. `matchAll` leaves it as it was. */
function anyOf(contents: readonly string[]): RegExp | undefined {
  if (contents.length === 0) return undefined;
  const longestFirst = [...contents].sort((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map((c) => c.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"), "gu");
}
