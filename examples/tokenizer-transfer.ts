/**
 * Zero-shot tokenizer transfer: the embedded target over vocabularies it was not trained on.
 *
 *     npx tsx examples/tokenizer-transfer.ts [--characters 2000] [--json]
 *
 * Look for: a vocabulary with longer tokens writes the same text in fewer of them, and every token it adds must be predicted
 * from its pieces. How much worse the model gets depends on who predicts. Bytes need no prediction, since all are tokens of
 * the model, and go worst of all: the model has hardly ever seen text spelled that way, and no embedding mends that.
 */
import { parseArgs } from "node:util";
import { embeddedCorpus } from "../src/embedded-pair.ts";
import { transferTokenizers } from "../src/embedded-parts/transfer-tokenizers.ts";
import { openKernels } from "../src/kernels/index.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  bitsPerByte,
  lastPiece,
  loadHypernetwork,
  meanOfPieces,
  randomEmbeddings,
  retokenized,
  targetTables,
} from "../src/retokenization/index.ts";

const { values } = parseArgs({
  options: { characters: { type: "string", default: "2000" }, json: { type: "boolean" } },
});
const { model, tokenizer } = await loadEmbedded("target");
const { hypernetwork, target } = await loadHypernetwork();
const tables = targetTables(target);
const predictors = [randomEmbeddings(tables), lastPiece(tables), meanOfPieces(tables), hypernetwork];
const corpus = embeddedCorpus();
const texts = corpus.heldOut.map((text) => text.slice(0, Number(values.characters)));

const rows = [];
for (const [name, other] of Object.entries(transferTokenizers(tokenizer, corpus.training))) {
  const bits: Record<string, number> = {};
  let tokens = 0;
  for (const predictor of predictors) {
    const transferred = retokenized({ model, target, tokenizer }, other, predictor, await openKernels());
    const end = other.specialTokens!.get("<|endoftext|>")!;
    const measured = bitsPerByte(transferred, other, texts, end);
    bits[predictor.name] = measured.bitsPerByte;
    tokens = measured.tokens;
  }
  rows.push({ name, tokens, bits });
}
model.close();

if (values.json) {
  console.log(JSON.stringify({ texts: texts.length, rows }));
} else {
  console.log(
    `${"bits per byte".padEnd(24)}${"tokens".padStart(8)}${predictors.map(({ name }) => name.padStart(16)).join("")}`,
  );
  for (const { name, tokens, bits } of rows) {
    const cells = predictors.map((predictor) => bits[predictor.name]!.toFixed(3).padStart(16));
    console.log(`${name.padEnd(24)}${String(tokens).padStart(8)}${cells.join("")}`);
  }
}
