/**
 * Dynamic merging: a batch cut by a fixed vocabulary, and cut again by what occurs in it; what a frozen model makes of it.
 *
 *     npx tsx examples/dynamic-merging.ts
 *
 * Look for: the first merges are those the batch has most of; a name that stands in it often becomes one token, however
 * many pieces it had, while the text stays the same byte for byte. In the table rows fall steadily, bits rise slowly: nothing
 * was trained, and the last piece's embedding already serves for the whole. Random embeddings show what is at stake. Languages
 * the vocabulary was not made for have most to gain. (Chinese and Japanese have no spaces: whole phrases become one token.)
 */

import { measureMergingByLanguage } from "../src/comparison/merging-by-language.ts";
import { nodeDeclarations, parallelMessages } from "../src/corpus.ts";
import { readCheckpoint } from "../src/model/checkpoint.ts";
import { embeddedFolder } from "../src/model/embedded.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  EmbeddingCache,
  embeddingTables,
  lastPiece,
  meanOfPieces,
  measureMergedPrefill,
  randomEmbeddings,
} from "../src/retokenization/index.ts";
import { mergeBatch } from "../src/tokenization/index.ts";

const { model, tokenizer } = await loadEmbedded("target");
const shown = (bytes: Uint8Array): string => new TextDecoder().decode(bytes).replaceAll("\n", "\\n");

const lines = [
  "unwatchFile(filename: PathLike, listener?: StatsListener): void;",
  "watchFile(filename: PathLike, listener: BigIntStatsListener): StatWatcher;",
  "watch(filename: PathLike, options?: WatchOptions): FSWatcher;",
];
const rows = lines.map((line) => tokenizer.encode(line));
for (const merges of [0, 8, 16, undefined]) {
  const batch = mergeBatch(rows, { tokenizer, ...(merges !== undefined && { merges }) });
  console.log(`\n${batch.merges.length} merges, ${batch.lengths[batch.merges.length]} tokens`);
  for (const { tokens } of batch.rows) console.log(`  ${Array.from(tokens, (t) => shown(batch.bytes(t))).join("|")}`);
  if (merges !== 16) continue;
  const names = batch.merges.map((m) => `${shown(batch.bytes(m.left))}+${shown(batch.bytes(m.right))} ${m.count}x`);
  console.log(`  in this order: ${names.join(", ")}`);
}

const { config, tensors } = await readCheckpoint(embeddedFolder("target"));
const tables = embeddingTables(config, tensors);
const unseen = nodeDeclarations().heldOut.map(({ text }) => text);
const ids = tokenizer.encode(unseen.join("")).subarray(0, 32 * 192);
console.log(
  "\nunseen declarations, a prefix of 128 tokens merged: rows it takes, and bits per byte of the 64 tokens behind it",
);
for (const predictor of [meanOfPieces, lastPiece, randomEmbeddings].map((make) => new EmbeddingCache(make(tables)))) {
  const measured = measureMergedPrefill(model, ids, predictor, { tokenizer });
  const cells = measured.map((one) => `${(100 * one.rows).toFixed(0)} %: ${one.bitsPerByte.toFixed(3)}`);
  console.log(`  ${predictor.name.padEnd(14)} ${cells.join("   ")}`);
}

const { languages } = measureMergingByLanguage(await parallelMessages(), tokenizer);
console.log("\n256 messages in 14 languages: tokens for one of English, before merging and after");
for (const { language, relativeBefore, relativeAfter, shorter } of languages) {
  const bar = "#".repeat(Math.round(8 * relativeBefore)).padEnd(38);
  console.log(
    `  ${language.padEnd(6)} ${relativeBefore.toFixed(2)} -> ${relativeAfter.toFixed(2)}  ${bar} ${(-100 * shorter).toFixed(0)} %`,
  );
}
model.close();
