/**
 * One line of code, cut by every tokenizer there is here, all of 1,024 tokens learned from the same text.
 *
 *     npx tsx examples/tokenizers.ts
 *
 * Look for: Unigram and BPE find much the same pieces by opposite ways, one taking tokens away from too many, the other
 * adding to too few. WordPiece forgets the spaces, so its count is not to be compared. BPE-dropout and Unigram sampling
 * spell the same text differently each time, and decode to it every time; the n best of Unigram say how sure it is.
 */

import { readTokenizerJson } from "../src/cli/tokenizer-file.ts";
import { embeddedCorpus } from "../src/embedded-pair.ts";
import { embeddedFolder, embeddedTokenizerFolder } from "../src/model/embedded.ts";
import { Bpe, BpeDropout, type Tokenizer, Unigram, WordPiece } from "../src/tokenization/index.ts";

const line = "export function unwatchFile(filename: PathLike, listener?: StatsListener): void;";
const unseen = embeddedCorpus().heldOut.join("");

const bpe = Bpe.fromHuggingFace(await readTokenizerJson(embeddedFolder("target")));
const wordPiece = WordPiece.fromHuggingFace(await readTokenizerJson(embeddedTokenizerFolder("word-piece")));
const unigram = Unigram.fromHuggingFace(await readTokenizerJson(embeddedTokenizerFolder("unigram")));
const dropout = new BpeDropout(bpe, { dropout: 0.1 });

const cut = (tokenizer: Tokenizer, ids: Uint32Array): string =>
  Array.from(ids, (id) => new TextDecoder().decode(tokenizer.tokenBytes(id))).join("|");

console.log("tokenizer     tokens  bytes per token, unseen files  comes back");
for (const [name, tokenizer] of Object.entries({ bpe, "bpe-dropout": dropout, "word-piece": wordPiece, unigram })) {
  const ids = tokenizer.encode(line);
  const ratio = Buffer.byteLength(unseen) / tokenizer.encode(unseen).length;
  const comesBack = tokenizer.decode(ids) === line ? "yes" : "no";
  console.log(`${name.padEnd(13)} ${String(ids.length).padStart(6)}  ${ratio.toFixed(2).padStart(29)}  ${comesBack}`);
  console.log(`  ${cut(tokenizer, ids)}`);
}

console.log("\nUnigram's best segmentations, with the share of each in the thousand best:");
const best = unigram.nBest(line, 1000);
const logSum = best.reduce((sum, { score }) => sum + Math.exp(score - best[0]!.score), 0);
for (const { ids, score } of best.slice(0, 4)) {
  console.log(`  ${(Math.exp(score - best[0]!.score) / logSum).toFixed(3)}  ${cut(unigram, ids)}`);
}

console.log("\ndrawn, dropout 0.1 and alpha 0.3:");
for (let seed = 1; seed <= 3; seed++) {
  console.log(`  ${cut(bpe, dropout.encode(line, { seed }))}`);
  console.log(`  ${cut(unigram, unigram.sample(line, { seed, alpha: 0.3 }))}`);
}
