/**
 * `tokenizer.json` files of Unigram tokenizers.
 *
 * Pieces come as `[piece, score]` in order of their ids, with U+2581 for the space. The pre-tokenizer is Metaspace; of the
 * normalizers NFC and NFKC are read. What a file gives to the "legacy" `add_prefix_space` is understood.
 */

import { SPECIAL_ID_REACH } from "./bpe-definition.ts";
import {
  array,
  fileOf,
  flag,
  type HuggingFaceTokenizer,
  isNothing,
  object,
  openFile,
  refuse,
  SOURCE,
  shortened,
  typeOf,
} from "./hugging-face-format.ts";
import type { PrefixSpace, UnigramDefinition } from "./unigram-definition.ts";
import type { Piece } from "./unigram-trainer.ts";

export interface HuggingFaceUnigram {
  readonly type: "Unigram";
  readonly unk_id: number | null;
  readonly vocab: readonly (readonly [piece: string, score: number])[];
  readonly byte_fallback: boolean;
}

const METASPACE = "\u2581";

/** What `Unigram.toHuggingFace` is built on. */
export function writeUnigram(definition: UnigramDefinition): HuggingFaceTokenizer<HuggingFaceUnigram> {
  const { pieces, unknownId, byteFallback, prefixSpace, split } = definition;
  const metaspace = { type: "Metaspace", replacement: METASPACE, prepend_scheme: prefixSpace, split };
  return fileOf(definition, {
    pre_tokenizer: metaspace,
    post_processor: null,
    decoder: byteFallback ? { type: "Sequence", decoders: [{ type: "ByteFallback" }, metaspace] } : metaspace,
    model: {
      type: "Unigram",
      unk_id: unknownId ?? null,
      vocab: pieces.map(({ text, score }) => [text.replaceAll(" ", METASPACE), score] as const),
      byte_fallback: byteFallback,
    },
  });
}

/** What `Unigram.fromHuggingFace` is built on; throws as documented there. */
export function readUnigram(json: string | object): UnigramDefinition {
  const { file, model, added } = openFile(json, "Unigram", ["NFC", "NFKC"]);
  const byteFallback = flag(model, "byte_fallback", false);
  const { prefixSpace, split } = readMetaspace(file["pre_tokenizer"], "pre-tokenizer");
  checkDecoder(file["decoder"], prefixSpace, byteFallback);
  const pieces = array(model["vocab"], '"model.vocab"').map(readPiece);
  const unknownId = model["unk_id"] ?? undefined;
  if (unknownId !== undefined && !(Number.isInteger(unknownId) && pieces[unknownId as number] !== undefined)) {
    refuse("model.unk_id is not the id of a piece");
  }
  if (unknownId === undefined && !byteFallback) refuse("model.unk_id is missing, so there is text without an encoding");
  for (const [content, id] of [...added.specialTokens, ...added.addedTokens]) {
    const name = `added token ${shortened(content)}`;
    const owner = pieces[id];
    if (owner !== undefined && owner.text !== content.replaceAll(METASPACE, " ")) {
      refuse(`${name} has the id ${id} of ${shortened(owner.text)}`);
    }
    if (id >= pieces.length + SPECIAL_ID_REACH) refuse(`${name} has the id ${id}, too far beyond the others`);
  }
  return {
    source: SOURCE,
    pieces,
    unknownId: unknownId as number | undefined,
    byteFallback,
    prefixSpace,
    split,
    ...added,
  };
}

function readPiece(entry: unknown, id: number): Piece {
  const [text, score] = array(entry, `piece ${id}`);
  if (typeof text !== "string" || text === "") refuse(`piece ${id} has no text`);
  if (typeof score !== "number" || !Number.isFinite(score)) refuse(`piece ${id} has no score`);
  if (text.includes(" ")) refuse(`piece ${id} holds a space, which is written as U+2581`);
  return { text: text.replaceAll(METASPACE, " "), score };
}

function readMetaspace(value: unknown, role: string): { prefixSpace: PrefixSpace; split: boolean } {
  if (typeOf(value) !== "Metaspace") refuse(`${role} ${typeOf(value)} is not supported, only Metaspace`);
  const metaspace = object(value, `the ${role}`);
  if ((metaspace["replacement"] ?? METASPACE) !== METASPACE) {
    refuse(`${role} Metaspace has a replacement other than U+2581, which is not supported`);
  }
  const scheme = metaspace["prepend_scheme"] ?? (flag(metaspace, "add_prefix_space", true) ? "always" : "never");
  if (scheme !== "always" && scheme !== "first" && scheme !== "never") {
    refuse(`${role} Metaspace has a prepend_scheme other than "always", "first" and "never"`);
  }
  return { prefixSpace: scheme, split: flag(metaspace, "split", true) };
}

/** Metaspace, and with byte fallback that too, in front of it. */
function checkDecoder(value: unknown, prefixSpace: PrefixSpace, byteFallback: boolean): void {
  if (isNothing(value)) refuse("decoder null is not supported, only Metaspace");
  const outer = object(value, '"decoder"');
  const steps = typeOf(outer) === "Sequence" ? array(outer["decoders"], '"decoder.decoders"') : [outer];
  const wanted = byteFallback ? ["ByteFallback", "Metaspace"] : ["Metaspace"];
  const names = steps.map((step) => typeOf(step));
  if (names.join() !== wanted.join()) {
    refuse(`decoder ${names.join(", ")} is not supported, only ${wanted.join(", ")}`);
  }
  const last = readMetaspace(steps.at(-1), "decoder");
  if ((last.prefixSpace === "never") !== (prefixSpace === "never")) {
    refuse("decoder and pre-tokenizer Metaspace differ in prepend_scheme");
  }
}
