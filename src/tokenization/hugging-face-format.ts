/**
 * Hugging Face `tokenizer.json` files (https://github.com/huggingface/tokenizers) of byte-level BPE tokenizers.
 *
 * Tokens are written in the byte alphabet (`byte-alphabet.ts`), merges as pairs of tokens, best first. The reader takes
 * what it can reproduce exactly and refuses the rest by name: a tokenizer that is nearly right is worse than none. Of the
 * normalizers that is NFC (`unicode-normalization.ts`).
 *
 * **Deviations**: templates of the post-processor are accepted and not applied (ids are those of
 * `add_special_tokens = false`); where Hugging Face would silently drop a byte that has no token, the file is refused.
 */

import { ArgumentError, FormatError } from "../errors.ts";
import { type BpeDefinition, ID_LIMIT, SPECIAL_ID_REACH } from "./bpe-definition.ts";
import type { Merge } from "./bpe-trainer.ts";
import { alphabetToBytes, bytesToAlphabet } from "./byte-alphabet.ts";
import { patternFromReference, patternToReference, type SplitPattern } from "./split-patterns.ts";
import { type Normalizer, normalize } from "./unicode-normalization.ts";

/** The parts of a `tokenizer.json` that are written here, in Hugging Face's names. Plain JSON. */
export interface HuggingFaceTokenizer {
  readonly version: "1.0";
  readonly truncation: null;
  readonly padding: null;
  readonly added_tokens: readonly AddedToken[];
  readonly normalizer: null | { readonly type: "NFC" };
  readonly pre_tokenizer: object;
  readonly post_processor: object;
  readonly decoder: object;
  readonly model: {
    readonly type: "BPE";
    readonly dropout: null;
    readonly unk_token: null;
    readonly continuing_subword_prefix: null;
    readonly end_of_word_suffix: null;
    readonly fuse_unk: false;
    readonly byte_fallback: false;
    readonly ignore_merges: boolean;
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges: readonly (readonly [string, string])[];
  };
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

const SOURCE = "tokenizer.json";

/** What `Bpe.toHuggingFace` is built on. `merges` in the definition's ids. */
export function writeHuggingFace(definition: BpeDefinition, merges: readonly Merge[]): HuggingFaceTokenizer {
  const vocab: Record<string, number> = {};
  const symbols = definition.tokens.map((bytes) => (bytes === undefined ? "" : bytesToAlphabet(bytes)));
  symbols.forEach((symbol, id) => {
    if (symbol !== "") vocab[symbol] = id;
  });
  const added = (tokens: ReadonlyMap<string, number>, special: boolean): AddedToken[] =>
    [...tokens].map(([content, id]) => {
      const normalized = definition.normalizedTokens.has(content);
      return { id, content, single_word: false, lstrip: false, rstrip: false, normalized, special };
    });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: false };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [...added(definition.specialTokens, true), ...added(definition.addedTokens, false)].sort(
      (a, b) => a.id - b.id,
    ),
    normalizer: definition.normalizer === "none" ? null : { type: definition.normalizer },
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
  };
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
export function readHuggingFace(json: string | object): BpeDefinition {
  const file = object(typeof json === "string" ? parse(json) : json, "the file");
  for (const part of ["truncation", "padding"]) {
    if (!isNothing(file[part])) {
      refuse(`"${part}" is set, which would change the ids`, `Set it to null and do it outside the tokenizer.`);
    }
  }
  const normalizer = readNormalizer(file["normalizer"]);
  const decoder = file["decoder"];
  if (typeOf(decoder) !== "ByteLevel") refuse(`decoder ${typeOf(decoder)} is not supported, only ByteLevel`);
  checkPostProcessor(file["post_processor"]);
  const pattern = readPreTokenizer(file["pre_tokenizer"]);

  const model = object(file["model"], '"model"');
  // Files from before the field existed leave the type out.
  if (model["type"] !== undefined && model["type"] !== "BPE")
    refuse(`model type ${typeOf(model)} is not supported, only BPE`);
  checkModelOptions(model);

  const { specialTokens, addedTokens, normalizedTokens } = readAddedTokens(file["added_tokens"], normalizer);
  const addedIds = new Map([...specialTokens, ...addedTokens].map(([content, id]) => [id, content]));
  const { tokens, idOf } = readVocabulary(object(model["vocab"], '"model.vocab"'), addedIds);
  return {
    source: SOURCE,
    tokens,
    merges: readMerges(model["merges"], idOf),
    wholePieces: model["ignore_merges"] === true,
    normalizer,
    pattern,
    specialTokens,
    addedTokens,
    normalizedTokens,
  };
}

/** None, or NFC; NFC twice is NFC, and a sequence of none is none. */
function readNormalizer(value: unknown): Normalizer {
  if (isNothing(value)) return "none";
  const outer = object(value, '"normalizer"');
  const steps = typeOf(outer) === "Sequence" ? array(outer["normalizers"], '"normalizer.normalizers"') : [outer];
  for (const step of steps) {
    const type = typeOf(object(step, 'an entry of "normalizer.normalizers"'));
    if (type !== "NFC")
      refuse(`normalizer ${type} is not supported`, "Only NFC is read, alone or in a sequence, or none.");
  }
  return steps.length === 0 ? "none" : "NFC";
}

function checkPostProcessor(processor: unknown, nested = false): void {
  if (isNothing(processor)) return;
  const type = typeOf(processor);
  if (type === "Sequence" && !nested) {
    for (const part of array(object(processor, '"post_processor"')["processors"], '"post_processor.processors"')) {
      checkPostProcessor(part, true);
    }
  } else if (!["ByteLevel", "TemplateProcessing", "RobertaProcessing", "BertProcessing"].includes(type)) {
    refuse(`post-processor ${type} is not supported`);
  }
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

function readAddedTokens(
  value: unknown,
  normalizer: Normalizer,
): Pick<BpeDefinition, "specialTokens" | "addedTokens" | "normalizedTokens"> {
  const specialTokens = new Map<string, number>();
  const addedTokens = new Map<string, number>();
  const normalizedTokens = new Set<string>();
  const ids = new Set<number>();
  for (const entry of isNothing(value) ? [] : array(value, '"added_tokens"')) {
    const token = object(entry, 'an entry of "added_tokens"');
    const content = token["content"];
    if (typeof content !== "string" || content === "") refuse('an entry of "added_tokens" has no content');
    const name = `added token ${shortened(content)}`;
    const id = readId(token["id"], name);
    if (ids.has(id)) refuse(`${name} has the id ${id} of another added token`);
    if (specialTokens.has(content) || addedTokens.has(content)) refuse(`${name} is listed twice`);
    for (const option of ["single_word", "lstrip", "rstrip"]) {
      if (flag(token, option, false)) refuse(`${name} has "${option}", which is not supported`);
    }
    const isSpecial = flag(token, "special", false);
    if (flag(token, "normalized", !isSpecial)) {
      // Hugging Face would look for its normalized form and decode to the other, or to neither.
      if (normalize(content, normalizer) !== content) refuse(`${name} is to be normalized, but its content is not`);
      normalizedTokens.add(content);
    }
    ids.add(id);
    (isSpecial ? specialTokens : addedTokens).set(content, id);
  }
  return { specialTokens, addedTokens, normalizedTokens };
}

function readVocabulary(
  vocab: Record<string, unknown>,
  addedIds: ReadonlyMap<number, string>,
): { tokens: (Uint8Array | undefined)[]; idOf: Map<string, number> } {
  const byId = new Map<number, Uint8Array>();
  const idOf = new Map<string, number>();
  for (const [symbol, value] of Object.entries(vocab)) {
    const name = `token ${shortened(symbol)}`;
    const id = readId(value, name);
    const added = addedIds.get(id);
    if (added === symbol) continue; // Hugging Face's trainer lists special tokens here too
    const bytes = alphabetToBytes(symbol);
    if (bytes === undefined || bytes.length === 0) refuse(`${name} is not written in the byte alphabet`);
    if (byId.has(id) || added !== undefined) {
      refuse(`${name} has the id ${id} of ${shortened(added ?? bytesToAlphabet(byId.get(id)!))}`);
    }
    byId.set(id, bytes);
    idOf.set(symbol, id);
  }
  const tokens: (Uint8Array | undefined)[] = [];
  for (let found = 0; found < byId.size; ) {
    const id = tokens.length;
    const bytes = byId.get(id);
    tokens.push(bytes);
    if (bytes !== undefined) found++;
    else if (!addedIds.has(id)) refuse(`no token has the id ${id}`, "Ids must have no gaps.");
  }
  for (const [id, content] of addedIds) {
    const name = `added token ${shortened(content)}`;
    if (idOf.has(content)) refuse(`${name} has the id ${id}, in the vocabulary ${idOf.get(content)}`);
    if (id >= tokens.length + SPECIAL_ID_REACH) refuse(`${name} has the id ${id}, too far beyond the others`);
  }
  return { tokens, idOf };
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

function readId(value: unknown, name: string): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value >= ID_LIMIT) {
    const shown = typeof value === "object" ? "of an object" : String(value); // an object's own toString could throw
    refuse(`${name} has the id ${shown}, expected an integer from 0 to ${ID_LIMIT - 1}`);
  }
  return value;
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    refuse(`it is not JSON: ${(error as Error).message}`);
  }
}

function refuse(problem: string, advice?: string): never {
  throw new FormatError(SOURCE, problem, advice);
}

function shortened(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}

function isNothing(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}

function object(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(`${name} is not an object`);
  return value as Record<string, unknown>;
}

function array(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value)) refuse(`${name} is not an array`);
  return value;
}

function flag(owner: Record<string, unknown>, name: string, absent: boolean): boolean {
  const value = owner[name] ?? absent;
  if (typeof value !== "boolean") refuse(`"${name}" is neither true nor false`);
  return value;
}

/** The `type` field, for dispatch and for messages. */
function typeOf(value: unknown): string {
  const type = typeof value === "object" && value !== null ? (value as Record<string, unknown>)["type"] : value;
  if (type === undefined || type === null) return "null";
  // Not String(type): an object's own toString, or endless nesting, would make it throw.
  return typeof type === "string" ? type : `with a type that is not text (${typeof type})`;
}
