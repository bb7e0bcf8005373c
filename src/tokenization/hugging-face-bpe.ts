/**
 * `tokenizer.json` files of byte-level BPE tokenizers.
 *
 * Tokens are written in the byte alphabet (`byte-alphabet.ts`), merges as pairs of tokens, best first. Of the normalizers
 * NFC is read (`unicode-normalization.ts`).
 *
 * **Deviations**: where Hugging Face would silently drop a byte that has no token, the file is refused.
 */

import { ArgumentError } from "../errors.ts";
import type { BpeDefinition } from "./bpe-definition.ts";
import type { Merge } from "./bpe-trainer.ts";
import { alphabetToBytes, bytesToAlphabet } from "./byte-alphabet.ts";
import {
  array,
  fileOf,
  flag,
  type HuggingFaceTokenizer,
  isNothing,
  object,
  openFile,
  readVocabulary,
  refuse,
  SOURCE,
  typeOf,
} from "./hugging-face-format.ts";
import { patternFromReference, patternToReference, type SplitPattern } from "./split-patterns.ts";

export interface HuggingFaceBpe {
  readonly type: "BPE";
  /** Share of merges left out at random (`bpe-dropout.ts`). */
  readonly dropout: number | null;
  readonly unk_token: null;
  readonly continuing_subword_prefix: null;
  readonly end_of_word_suffix: null;
  readonly fuse_unk: false;
  readonly byte_fallback: false;
  readonly ignore_merges: boolean;
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly (readonly [string, string])[];
}

/** What `Bpe.toHuggingFace` is built on. `merges` in the definition's ids. */
export function writeBpe(definition: BpeDefinition, merges: readonly Merge[]): HuggingFaceTokenizer {
  const vocab: Record<string, number> = {};
  const symbols = definition.tokens.map((bytes) => (bytes === undefined ? "" : bytesToAlphabet(bytes)));
  symbols.forEach((symbol, id) => {
    if (symbol !== "") vocab[symbol] = id;
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false };
  return fileOf(definition, {
    pre_tokenizer: writePreTokenizer(definition.pattern, byteLevel),
    post_processor: { ...byteLevel, use_regex: true },
    decoder: { ...byteLevel, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: definition.wholePieces,
      vocab,
      merges: merges.map(([left, right]) => [symbols[left]!, symbols[right]!] as const),
    },
  });
}

function writePreTokenizer(pattern: SplitPattern, byteLevel: object): object {
  if (pattern === "gpt2") return { ...byteLevel, use_regex: true };
  const plain = { ...byteLevel, use_regex: false };
  if (pattern === "none") return plain;
  const reference = patternToReference(pattern);
  if (reference === undefined) {
    throw new ArgumentError(
      "pattern",
      "an expression that Hugging Face's tokenizers read as JavaScript does",
      String(pattern),
      "Spell out \\s, \\w, \\d and the dot as classes; leave out flags, anchors, lazy quantifiers and look-behind.",
    );
  }
  const split = { type: "Split", pattern: { Regex: reference }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, plain] };
}

/** What `Bpe.fromHuggingFace` is built on; throws as documented there. */
export function readBpe(json: string | object): BpeDefinition {
  const { file, model, added } = openFile(json, "BPE", ["NFC"]);
  const decoder = file["decoder"];
  if (typeOf(decoder) !== "ByteLevel") refuse(`decoder ${typeOf(decoder)} is not supported, only ByteLevel`);
  const pattern = readPreTokenizer(file["pre_tokenizer"]);
  checkModelOptions(model);
  const vocab = object(model["vocab"], '"model.vocab"');
  const { tokens, idOf } = readVocabulary(vocab, added, alphabetToBytes, "the byte alphabet");
  return {
    source: SOURCE,
    tokens,
    merges: readMerges(model["merges"], idOf),
    wholePieces: model["ignore_merges"] === true,
    pattern,
    ...added,
  };
}

function readPreTokenizer(value: unknown): SplitPattern {
  if (isNothing(value)) refuse("there is no pre-tokenizer, so it is not byte-level");
  const outer = object(value, '"pre_tokenizer"');
  const steps = typeOf(outer) === "Sequence" ? array(outer["pretokenizers"], '"pre_tokenizer.pretokenizers"') : [outer];
  const last = object(steps.at(-1), '"pre_tokenizer"');
  if (typeOf(last) !== "ByteLevel")
    refuse(`pre-tokenizer ${typeOf(last)} is not byte-level`, "Only ByteLevel is read, alone or after one Split.");
  if (flag(last, "add_prefix_space", true))
    refuse('pre-tokenizer ByteLevel has "add_prefix_space", which is not supported');
  const useRegex = flag(last, "use_regex", true);
  if (steps.length === 1) return useRegex ? "gpt2" : "none";
  const split = object(steps[0], '"pre_tokenizer.pretokenizers[0]"');
  if (steps.length > 2 || typeOf(split) !== "Split" || useRegex) {
    const names = steps.map((step) => typeOf(step)).join(", ");
    refuse(`pre-tokenizer sequence ${names} is not supported`, "Only Split, then ByteLevel without its own regex.");
  }
  if (split["behavior"] !== "Isolated" || flag(split, "invert", false)) {
    refuse('pre-tokenizer Split must have the behavior "Isolated" and not be inverted');
  }
  const expression = object(split["pattern"], '"pattern" of the pre-tokenizer Split')["Regex"];
  if (typeof expression !== "string") refuse('pre-tokenizer Split must have a pattern {"Regex": "..."}');
  const pattern = patternFromReference(expression);
  if (pattern === undefined) refuse(`split pattern ${JSON.stringify(expression.slice(0, 80))} cannot be read exactly`);
  return pattern;
}

function checkModelOptions(model: Record<string, unknown>): void {
  if (!isNothing(model["dropout"]) && model["dropout"] !== 0) refuse("model.dropout is set: encoding would be random");
  for (const name of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if (!isNothing(model[name]) && model[name] !== "") refuse(`model.${name} is set, so the model is not byte-level`);
  }
  if (model["byte_fallback"] === true) refuse("model.byte_fallback is set, so the model is not byte-level");
}

function readMerges(value: unknown, idOf: ReadonlyMap<string, number>): Merge[] {
  return array(value, '"model.merges"').map((entry, rank) => {
    // The older form is one string; its only ASCII space is the separator, for the alphabet writes a space as "Ġ".
    const pair: unknown = typeof entry === "string" ? entry.split(" ") : entry;
    if (!Array.isArray(pair) || pair.length !== 2) refuse(`merge ${rank} is not a pair`);
    const [left, right] = pair.map((symbol) => {
      const id = typeof symbol === "string" ? idOf.get(symbol) : undefined;
      if (id === undefined) refuse(`merge ${rank} names a token that is not in the vocabulary`);
      return id;
    });
    return [left!, right!];
  });
}
