/**
 * Special tokens: contents such as `<|endoftext|>` that stand for one id and are never produced by merging.
 *
 * They are found before the text is split into pieces: leftmost first, and of several that start at the same place
 * the longest. What happens to one is governed by `EncodeOptions`.
 */

import { ArgumentError } from "../errors.ts";
import type { EncodeOptions } from "./tokenizer.ts";

/** A stretch of text, in UTF-16 units: ordinary text (`id` -1) or one special token. */
export interface Segment {
  readonly start: number;
  readonly end: number;
  readonly id: number;
}

export class SpecialTokens {
  readonly #special: ReadonlyMap<string, number>;
  readonly #added: ReadonlyMap<string, number>;

  /**
   * @param special id by content, governed by options
   * @param added id by content, always recognised
   */
  constructor(special: ReadonlyMap<string, number>, added: ReadonlyMap<string, number>) {
    this.#special = special;
    this.#added = added;
  }

  /** The segments of `text`, in order, none of them empty. Throws ArgumentError on a refused token. */
  split(text: string, options: EncodeOptions): Segment[] {
    const allowed = this.#chosen("allowedSpecial", options.allowedSpecial ?? []);
    const refused = this.#chosen("disallowedSpecial", options.disallowedSpecial ?? "all").filter(
      (content) => !allowed.includes(content),
    );
    if (refused.length > 0) {
      const match = anyOf(refused).exec(text);
      if (match !== null) {
        throw new ArgumentError(
          "text",
          "no special token outside options.allowedSpecial",
          match[0],
          `It stands at UTF-16 unit ${match.index}. Allow it with { allowedSpecial: [${JSON.stringify(match[0])}] } ` +
            "or read it as ordinary text with { disallowedSpecial: [] }.",
        );
      }
    }
    const segments: Segment[] = [];
    let done = 0;
    const wanted = [...allowed, ...this.#added.keys()];
    if (wanted.length > 0) {
      for (const match of text.matchAll(anyOf(wanted))) {
        const end = match.index + match[0].length;
        if (match.index > done) segments.push({ start: done, end: match.index, id: -1 });
        segments.push({ start: match.index, end, id: (this.#special.get(match[0]) ?? this.#added.get(match[0]))! });
        done = end;
      }
    }
    if (done < text.length) segments.push({ start: done, end: text.length, id: -1 });
    return segments;
  }

  #chosen(option: string, value: "all" | readonly string[]): string[] {
    if (value === "all") return [...this.#special.keys()];
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
    return [...value];
  }
}

/** A pattern for any of the contents, longer ones first. */
function anyOf(contents: readonly string[]): RegExp {
  const longestFirst = [...contents].sort((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map((c) => c.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|"), "gu");
}
