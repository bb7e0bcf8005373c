/**
 * `tokenizer.json` files of WordPiece tokenizers.
 *
 * Of the normalizers BertNormalizer, NFC and NFKC are read, of the pre-tokenizers those of `word-split.ts`. Special tokens may
 * stand in the vocabulary too, as BERT's do.
 */

import {
  fileOf,
  flag,
  type HuggingFaceTokenizer,
  object,
  openFile,
  readVocabulary,
  refuse,
  SOURCE,
  typeOf,
} from "./hugging-face-format.ts";
import type { WordPieceDefinition } from "./word-piece-definition.ts";
import type { WordSplit } from "./word-split.ts";

export interface HuggingFaceWordPiece {
  readonly type: "WordPiece";
  readonly unk_token: string;
  readonly continuing_subword_prefix: string;
  readonly max_input_chars_per_word: number;
  readonly vocab: Readonly<Record<string, number>>;
}

const PRE_TOKENIZERS: Record<WordSplit, string> = {
  bert: "BertPreTokenizer",
  words: "Whitespace",
  "white-space": "WhitespaceSplit",
};

/** What `WordPiece.toHuggingFace` is built on. */
export function writeWordPiece(definition: WordPieceDefinition): HuggingFaceTokenizer<HuggingFaceWordPiece> {
  const vocab: Record<string, number> = {};
  const added = new Map([...definition.specialTokens, ...definition.addedTokens].map(([content, id]) => [id, content]));
  definition.tokens.forEach((token, id) => {
    const content = token ?? added.get(id);
    if (content !== undefined) vocab[content] = id;
  });
  const unknown = definition.tokens[definition.unknownId] ?? added.get(definition.unknownId)!;
  vocab[unknown] = definition.unknownId;
  return fileOf(definition, {
    pre_tokenizer: { type: PRE_TOKENIZERS[definition.split] },
    post_processor: null,
    decoder: { type: "WordPiece", prefix: definition.prefix, cleanup: definition.cleanUp },
    model: {
      type: "WordPiece",
      unk_token: unknown,
      continuing_subword_prefix: definition.prefix,
      max_input_chars_per_word: definition.longestWord,
      vocab,
    },
  });
}

/** What `WordPiece.fromHuggingFace` is built on; throws as documented there. */
export function readWordPiece(json: string | object): WordPieceDefinition {
  const { file, model, added } = openFile(json, "WordPiece", ["BertNormalizer", "NFC", "NFKC"]);
  const type = typeOf(file["pre_tokenizer"]);
  const split = (Object.keys(PRE_TOKENIZERS) as WordSplit[]).find((name) => PRE_TOKENIZERS[name] === type);
  if (split === undefined) {
    refuse(`pre-tokenizer ${type} is not supported`, `Only ${Object.values(PRE_TOKENIZERS).join(", ")} are read.`);
  }
  const prefix = model["continuing_subword_prefix"] ?? "##";
  if (typeof prefix !== "string" || prefix === "") refuse("model.continuing_subword_prefix is not a text");
  const decoder = file["decoder"];
  if (typeOf(decoder) !== "WordPiece") refuse(`decoder ${typeOf(decoder)} is not supported, only WordPiece`);
  const { prefix: decoded = "##", ...decoderOptions } = object(decoder, '"decoder"');
  if (decoded !== prefix) refuse("the decoder WordPiece has another prefix than the model");
  const longestWord = model["max_input_chars_per_word"] ?? 100;
  if (typeof longestWord !== "number" || !Number.isInteger(longestWord) || longestWord < 1) {
    refuse("model.max_input_chars_per_word is not an integer >= 1");
  }
  const vocab = object(model["vocab"], '"model.vocab"');
  const unknown = model["unk_token"] ?? "[UNK]";
  const { tokens, idOf } = readVocabulary(vocab, added, (token) => token, "text");
  const unknownId =
    typeof unknown === "string"
      ? (idOf.get(unknown) ?? added.specialTokens.get(unknown) ?? added.addedTokens.get(unknown))
      : undefined;
  if (unknownId === undefined) refuse("model.unk_token is not in the vocabulary");
  const cleanUp = flag(decoderOptions, "cleanup", true);
  return { source: SOURCE, tokens, unknownId, prefix, longestWord, split, cleanUp, ...added };
}
