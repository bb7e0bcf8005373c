/**
 * Any `tokenizer.json` whose model is known here. Another model type is one more file beside `hugging-face-bpe.ts` and one
 * more line.
 */

import { BpeDropout } from "./bpe-dropout.ts";
import { modelType, parseFile, refuse } from "./hugging-face-format.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { Unigram } from "./unigram.ts";
import { WordPiece } from "./word-piece.ts";

const READERS: Readonly<Record<string, (file: object) => Tokenizer>> = {
  BPE: (file) => {
    const dropping = BpeDropout.fromHuggingFace(file);
    return dropping.dropout === 0 ? dropping.bpe : dropping;
  },
  WordPiece: (file) => WordPiece.fromHuggingFace(file),
  Unigram: (file) => Unigram.fromHuggingFace(file),
};

/**
 * Read a Hugging Face `tokenizer.json`, as text or parsed: a `Bpe`, `BpeDropout`, `WordPiece` or `Unigram`.
 * @throws FormatError on another model type, and where the type's own `fromHuggingFace` throws
 */
export function readHuggingFaceTokenizer(json: string | object): Tokenizer {
  const file = parseFile(json);
  const type = modelType(file);
  const read = Object.hasOwn(READERS, type) ? READERS[type] : undefined;
  if (read === undefined) refuse(`model type ${type} is not supported, only ${Object.keys(READERS).join(", ")}`);
  return read(file);
}
