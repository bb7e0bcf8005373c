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
  readonly #anySpecial: RegExp | undefined; // undefined: there are none
  readonly #anyAdded: RegExp | undefined;

  /**
   * @param special id by content, governed by options
   * @param added id by content, always recognised
   */
  constructor(special: ReadonlyMap<string, number>, added: ReadonlyMap<string, number>) {
    this.#special = special;
    this.#added = added;
    this.#anySpecial = anyOf([...special.keys()]);
    this.#anyAdded = anyOf([...added.keys()]);
  }

  /** The segments of `text`, in order, none of them empty. Throws ArgumentError on a refused token. */
  split(text: string, options: EncodeOptions): Segment[] {
    const allowed = this.#chosen("allowedSpecial", options.allowedSpecial ?? []);
    const refused = this.#chosen("disallowedSpecial", options.disallowedSpecial ?? "all");
    if (allowed !== "all") this.#refuse(text, refused, allowed);

    let wanted = this.#anyAdded;
    if (allowed === "all" || allowed.length > 0) {
      wanted = anyOf([...(allowed === "all" ? this.#special.keys() : allowed), ...this.#added.keys()]);
    }
    const segments: Segment[] = [];
    let done = 0;
    if (wanted !== undefined) {
      for (const match of text.matchAll(wanted)) {
        const end = match.index + match[0].length;
        if (match.index > done) segments.push({ start: done, end: match.index, id: -1 });
        segments.push({ start: match.index, end, id: (this.#special.get(match[0]) ?? this.#added.get(match[0]))! });
        done = end;
      }
    }
    if (done < text.length) segments.push({ start: done, end: text.length, id: -1 });
    return segments;
  }

  #refuse(text: string, refused: "all" | readonly string[], allowed: readonly string[]): void {
    const isDefault = refused === "all" && allowed.length === 0;
    const contents = refused === "all" ? [...this.#special.keys()] : refused;
    const pattern = isDefault ? this.#anySpecial : anyOf(contents.filter((content) => !allowed.includes(content)));
    const match = pattern === undefined ? undefined : text.matchAll(pattern).next().value;
    if (match === undefined) return;
    throw new ArgumentError(
      "text",
      "no special token outside options.allowedSpecial",
      match[0],
      `It stands at UTF-16 unit ${match.index}. Allow it with { allowedSpecial: [${JSON.stringify(match[0])}] } ` +
        "or read it as ordinary text with { disallowedSpecial: [] }.",
    );
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
