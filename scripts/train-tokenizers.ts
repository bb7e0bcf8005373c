/**
 * Train the WordPiece and Unigram vocabularies that come with the library, on the text and to the size of the embedded
 * pair's BPE. About half a minute.
 *
 *     npx tsx scripts/train-tokenizers.ts
 */
import { join } from "node:path";
import { packageVersion } from "../src/corpus.ts";
import { embeddedCorpus, embeddedVocabularySize, endOfText, trainEmbeddedTokenizer } from "../src/embedded-pair.ts";
import { writeFileAtomic } from "../src/files.ts";
import { embeddedTokenizerFolder } from "../src/model/embedded.ts";
import { type Tokenizer, Unigram, WordPiece } from "../src/tokenization/index.ts";

const { training, heldOut } = embeddedCorpus();
const unseen = heldOut.join("");
const characters = training.reduce((sum, text) => sum + text.length, 0);
const common = { vocabSize: embeddedVocabularySize, specialTokens: [endOfText] };

// By frequency: with the likelihood score a vocabulary of this size is spent on rare words (1.4 characters per token).
const wordPiece = { ...common, score: "frequency" } as const;
// Without the split at spaces, so that indentation can be a piece.
const unigram = { ...common, pattern: "cl100k", split: false } as const;

const bytesPerToken = (tokenizer: Tokenizer): number =>
  Number((Buffer.byteLength(unseen) / tokenizer.encode(unseen).length).toFixed(4));
const baseline = bytesPerToken(trainEmbeddedTokenizer(training));
for (const [name, tokenizer, options] of [
  ["word-piece", WordPiece.train(training, wordPiece), wordPiece],
  ["unigram", Unigram.train(training, unigram), unigram],
] as const) {
  const folder = embeddedTokenizerFolder(name);
  const record = {
    command: "npx tsx scripts/train-tokenizers.ts",
    options,
    text: { typescript: packageVersion("typescript"), "@types/node": packageVersion("@types/node"), characters },
    heldOut: { bytesPerToken: bytesPerToken(tokenizer), bytesPerTokenOfBpe: baseline },
  };
  await writeFileAtomic(join(folder, "tokenizer.json"), `${JSON.stringify(tokenizer.toHuggingFace())}\n`);
  await writeFileAtomic(join(folder, "training.json"), `${JSON.stringify(record, undefined, 2)}\n`);
  console.log(name, record.heldOut);
}
