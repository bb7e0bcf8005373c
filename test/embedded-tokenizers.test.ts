/** The vocabularies that come with the library are what their records say. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { embeddedCorpus } from "../src/embedded-pair.ts";
import { ArgumentError } from "../src/errors.ts";
import { embeddedTokenizerFolder, embeddedTokenizers } from "../src/model/embedded.ts";
import { readHuggingFaceTokenizer, Unigram, WordPiece } from "../src/tokenization/index.ts";

const { training, heldOut } = embeddedCorpus();
const unseen = heldOut.join("");

it.each(embeddedTokenizers)(
  "%s: the size and the bytes per token of its record",
  (name) => {
    const read = (file: string): string => readFileSync(join(embeddedTokenizerFolder(name), file), "utf8");
    const tokenizer = readHuggingFaceTokenizer(read("tokenizer.json"));
    const { options, heldOut: figures } = JSON.parse(read("training.json"));
    expect(tokenizer.vocabularySize).toBe(options.vocabSize);
    const ids = tokenizer.encode(unseen);
    expect(Buffer.byteLength(unseen) / ids.length).toBeCloseTo(figures.bytesPerToken, 3);
    if (name === "unigram") expect(tokenizer.decode(ids)).toBe(unseen);
    if (name === "unigram" && process.env["TOKENTHRIFT_FULL"] === undefined) return;
    const again = name === "unigram" ? Unigram.train(training, options) : WordPiece.train(training, options);
    expect(`${JSON.stringify(again.toHuggingFace())}\n`).toBe(read("tokenizer.json"));
  },
  120_000,
);

it("knows no others", () => {
  expect(() => embeddedTokenizerFolder("bpe" as "unigram")).toThrow(ArgumentError);
});
