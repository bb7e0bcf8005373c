/**
 * Byte-level BPE: how a vocabulary grows, and what each merge saves.
 *
 *     npx tsx examples/bpe.ts
 *
 * Look for: the first merges join letters that stand together most often; by a thousand tokens whole words and runs of
 * indentation are one token. Bytes per token rise, but each doubling of the vocabulary brings less.
 */
import { nodeDeclarations } from "../src/corpus.ts";
import { Bpe } from "../src/tokenization/index.ts";

const { heldOut, others } = nodeDeclarations();
const training = others.map(({ text }) => text);
const unseen = heldOut.map(({ text }) => text).join("");
const bytes = Buffer.byteLength(unseen);

console.log("vocabulary  bytes per token on unseen files");
for (const vocabSize of [256, 320, 512, 1024, 2048, 4096]) {
  const tokenizer = Bpe.train(training, { vocabSize });
  const ratio = bytes / tokenizer.encode(unseen).length;
  console.log(`${String(vocabSize).padStart(10)}  ${ratio.toFixed(2)}  ${"#".repeat(Math.round(10 * ratio))}`);
  if (vocabSize === 320) {
    const first = Array.from({ length: 12 }, (_, i) => JSON.stringify(tokenizer.decode([256 + i])));
    console.log(`            its first merges: ${first.join(" ")}`);
  }
}
