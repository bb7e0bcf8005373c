/**
 * Hugging Face `tokenizer.json` files (https://github.com/huggingface/tokenizers): what those of all models have in common.
 *
 * A file names its parts (normalizer, pre-tokenizer, model, post-processor, decoder) and each model type goes with a few
 * of them: `hugging-face-bpe.ts`, `hugging-face-word-piece.ts` and `hugging-face-unigram.ts` say which. A reader takes
 * what it can reproduce exactly and refuses the rest by name: a tokenizer that is nearly right is worse than none.
 *
 * **Deviations**: templates of the post-processor are accepted and not applied (ids are those of
 * `add_special_tokens = false`).
 */

import { FormatError } from "../errors.ts";
import type { BertNormalizer } from "./bert-normalizer.ts";
import { ID_LIMIT, SPECIAL_ID_REACH } from "./bpe-definition.ts";
import type { HuggingFaceBpe } from "./hugging-face-bpe.ts";
import type { AddedTokens } from "./special-tokens.ts";
import { type Normalizer, normalize } from "./unicode-normalization.ts";

/** The parts of a `tokenizer.json` that are written here, in Hugging Face's names. Plain JSON. */
export interface HuggingFaceTokenizer<Model extends { readonly type: string } = HuggingFaceBpe> {
  readonly version: "1.0";
  readonly truncation: null;
  readonly padding: null;
  readonly added_tokens: readonly AddedToken[];
  readonly normalizer: null | { readonly type: string };
  readonly pre_tokenizer: object;
  readonly post_processor: object | null;
  readonly decoder: object;
  readonly model: Model;
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

/** How errors name the file. */
export const SOURCE = "tokenizer.json";

/** What of a file does not depend on its model. */
export interface OpenedFile {
  readonly file: Record<string, unknown>;
  readonly model: Record<string, unknown>;
  readonly added: AddedTokens;
}

/** Types of normalizers as files name them. */
export type NormalizerType = "NFC" | "NFKC" | "BertNormalizer";

/**
 * Open a file for one model type and read the parts that all have.
 * @param json the file's text, or parsed
 * @param type the model type wanted
 * @param normalizers the normalizers that go with it
 * @throws FormatError naming what is missing, malformed or not supported
 */
export function openFile(json: string | object, type: string, normalizers: readonly NormalizerType[]): OpenedFile {
  const file = parseFile(json);
  const model = object(file["model"], '"model"');
  const found = modelType(file);
  if (found !== type) refuse(`model type ${found} is not supported, only ${type}`);
  for (const part of ["truncation", "padding"]) {
    if (!isNothing(file[part])) {
      refuse(`"${part}" is set, which would change the ids`, `Set it to null and do it outside the tokenizer.`);
    }
  }
  const normalizer = readNormalizer(file["normalizer"], normalizers);
  checkPostProcessor(file["post_processor"]);
  return { file, model, added: readAddedTokens(file["added_tokens"], normalizer) };
}

/** The content of a file as an object. */
export function parseFile(json: string | object): Record<string, unknown> {
  return object(typeof json === "string" ? parse(json) : json, "the file");
}

/** The type of a file's model. Files from before the field existed leave it out and hold BPE. */
export function modelType(file: Record<string, unknown>): string {
  const model = object(file["model"], '"model"');
  return model["type"] === undefined ? "BPE" : typeOf(model);
}

/** A file of a model and the parts that go with it. */
export function fileOf<Model extends { readonly type: string }>(
  added: AddedTokens,
  parts: Pick<HuggingFaceTokenizer<Model>, "pre_tokenizer" | "post_processor" | "decoder" | "model">,
): HuggingFaceTokenizer<Model> {
  const listed = (tokens: ReadonlyMap<string, number>, special: boolean): AddedToken[] =>
    [...tokens].map(([content, id]) => {
      const normalized = added.normalizedTokens.has(content);
      return { id, content, single_word: false, lstrip: false, rstrip: false, normalized, special };
    });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [...listed(added.specialTokens, true), ...listed(added.addedTokens, false)].sort(
      (a, b) => a.id - b.id,
    ),
    normalizer: writeNormalizer(added.normalizer),
    ...parts,
  };
}

function writeNormalizer(normalizer: Normalizer): HuggingFaceTokenizer["normalizer"] {
  if (normalizer === "none") return null;
  if (typeof normalizer === "string") return { type: normalizer };
  const { cleanText, chineseCharacters, stripAccents, lowercase } = normalizer;
  return {
    type: "BertNormalizer",
    clean_text: cleanText,
    handle_chinese_chars: chineseCharacters,
    strip_accents: stripAccents,
    lowercase,
  } as { type: string };
}

/** None, or one of those allowed; NFC twice is NFC, and a sequence of none is none. */
function readNormalizer(value: unknown, allowed: readonly NormalizerType[]): Normalizer {
  if (isNothing(value)) return "none";
  const outer = object(value, '"normalizer"');
  const steps = typeOf(outer) === "Sequence" ? array(outer["normalizers"], '"normalizer.normalizers"') : [outer];
  const only = `Only ${allowed.join(" or ")} is read, alone or in a sequence, or none.`;
  let normalizer: Normalizer = "none";
  for (const step of steps) {
    const entry = object(step, 'an entry of "normalizer.normalizers"');
    const type = typeOf(entry) as NormalizerType;
    if (!allowed.includes(type)) refuse(`normalizer ${type} is not supported`, only);
    const read = type === "BertNormalizer" ? readBertNormalizer(entry) : type;
    if (normalizer !== "none" && normalizer !== read)
      refuse("a sequence of different normalizers is not supported", only);
    normalizer = read;
  }
  return normalizer;
}

function readBertNormalizer(entry: Record<string, unknown>): BertNormalizer {
  const lowercase = flag(entry, "lowercase", true);
  return {
    cleanText: flag(entry, "clean_text", true),
    chineseCharacters: flag(entry, "handle_chinese_chars", true),
    stripAccents: flag(entry, "strip_accents", lowercase),
    lowercase,
  };
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

function readAddedTokens(value: unknown, normalizer: Normalizer): AddedTokens {
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
  return { normalizer, specialTokens, addedTokens, normalizedTokens };
}

/**
 * The tokens of a vocabulary `{symbol: id}` that are not added tokens, by id and by symbol.
 * @param spell from a token as the file writes it to what it stands for; undefined where it is not written in `alphabet`
 */
export function readVocabulary<Token>(
  vocab: Record<string, unknown>,
  added: AddedTokens,
  spell: (symbol: string) => Token | undefined,
  alphabet: string,
): { tokens: (Token | undefined)[]; idOf: Map<string, number> } {
  const addedIds = new Map([...added.specialTokens, ...added.addedTokens].map(([content, id]) => [id, content]));
  const byId = new Map<number, string>();
  const idOf = new Map<string, number>();
  for (const [symbol, value] of Object.entries(vocab)) {
    const name = `token ${shortened(symbol)}`;
    const id = readId(value, name);
    const owner = addedIds.get(id);
    if (owner === symbol) continue; // Hugging Face's trainer lists special tokens here too
    if (symbol === "" || spell(symbol) === undefined) refuse(`${name} is not written in ${alphabet}`);
    if (byId.has(id) || owner !== undefined) refuse(`${name} has the id ${id} of ${shortened(owner ?? byId.get(id)!)}`);
    byId.set(id, symbol);
    idOf.set(symbol, id);
  }
  const tokens: (Token | undefined)[] = [];
  for (let found = 0; found < byId.size; ) {
    const id = tokens.length;
    const symbol = byId.get(id);
    tokens.push(symbol === undefined ? undefined : spell(symbol));
    if (symbol !== undefined) found++;
    else if (!addedIds.has(id)) refuse(`no token has the id ${id}`, "Ids must have no gaps.");
  }
  for (const [id, content] of addedIds) {
    const name = `added token ${shortened(content)}`;
    if (idOf.has(content)) refuse(`${name} has the id ${id}, in the vocabulary ${idOf.get(content)}`);
    if (id >= tokens.length + SPECIAL_ID_REACH) refuse(`${name} has the id ${id}, too far beyond the others`);
  }
  return { tokens, idOf };
}

export function readId(value: unknown, name: string): number {
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

export function refuse(problem: string, advice?: string): never {
  throw new FormatError(SOURCE, problem, advice);
}

export function shortened(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}

export function isNothing(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}

export function object(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) refuse(`${name} is not an object`);
  return value as Record<string, unknown>;
}

export function array(value: unknown, name: string): readonly unknown[] {
  if (!Array.isArray(value)) refuse(`${name} is not an array`);
  return value;
}

export function flag(owner: Record<string, unknown>, name: string, absent: boolean): boolean {
  const value = owner[name] ?? absent;
  if (typeof value !== "boolean") refuse(`"${name}" is neither true nor false`);
  return value;
}

/** The `type` field, for dispatch and for messages. */
export function typeOf(value: unknown): string {
  const type = typeof value === "object" && value !== null ? (value as Record<string, unknown>)["type"] : value;
  if (type === undefined || type === null) return "null";
  // Not String(type): an object's own toString, or endless nesting, would make it throw.
  return typeof type === "string" ? type : `with a type that is not text (${typeof type})`;
}
