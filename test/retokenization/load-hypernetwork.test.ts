import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { nodeDeclarations } from "../../src/corpus.ts";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import { openKernels } from "../../src/kernels/kernels.ts";
import { embeddedFolder, embeddedTokenizerFolder } from "../../src/model/embedded.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import {
  bitsPerByte,
  loadHypernetwork,
  meanOfPieces,
  randomEmbeddings,
  retokenized,
  targetTables,
} from "../../src/retokenization/index.ts";
import { embeddedPartFolder, parsePart, partFiles, serializePart } from "../../src/speculative/trained-parts.ts";
import { Unigram } from "../../src/tokenization/unigram.ts";

const folder = mkdtempSync(join(tmpdir(), "tokenthrift-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("comes with the package, in less than 1.5 MB", async () => {
  const { hypernetwork } = await loadHypernetwork();
  expect([hypernetwork.width, hypernetwork.vocabularySize, hypernetwork.config.longest]).toEqual([128, 1024, 7]);
  const part = await embeddedPartFolder("hypernetwork");
  let bytes = 0;
  for (const name of Object.values(partFiles)) bytes += (await stat(join(part, name))).size;
  expect(bytes).toBeLessThan(1.5e6);
});

it("predicts better than the mean of pieces, and that better than chance: held-out text in a Unigram's tokens", async () => {
  const { model, tokenizer } = await loadEmbedded("target");
  const { hypernetwork, target } = await loadHypernetwork();
  const tables = targetTables(target);
  const unigram = Unigram.fromHuggingFace(
    await readFile(join(embeddedTokenizerFolder("unigram"), "tokenizer.json"), "utf8"),
  );
  const texts = nodeDeclarations().heldOut.map(({ text }) => text.slice(0, 1500));
  const end = unigram.specialTokens.get("<|endoftext|>")!;
  const bits = [];
  for (const predictor of [hypernetwork, meanOfPieces(tables), randomEmbeddings(tables)]) {
    const transferred = retokenized({ model, target, tokenizer }, unigram, predictor, await openKernels());
    bits.push(bitsPerByte(transferred, unigram, texts, end).bitsPerByte);
  }
  model.close();
  const [predicted, mean, random] = bits as [number, number, number];
  expect(predicted).toBeLessThan(mean - 0.02);
  expect(mean).toBeLessThan(random - 0.1);
});

it("refuses a damaged part, and the embeddings of another model", async () => {
  const stored = parsePart(await readFile(join(await embeddedPartFolder("hypernetwork"), partFiles.weights)), "part");
  const { config } = stored.details as { readonly config: object };
  const load = (details: unknown) => {
    writeFileSync(join(folder, partFiles.weights), serializePart({ ...stored, details }));
    return loadHypernetwork({ folder });
  };
  await expect(load({})).rejects.toThrow(FormatError);
  await expect(load({ config: { ...config, heads: 3 } })).rejects.toThrow(/metadata is damaged.*config.heads/);
  await expect(load({ config: { ...config, layers: 5 } })).rejects.toThrow(/layers.2.query/);
  await expect(loadHypernetwork({ target: embeddedFolder("draft") })).rejects.toThrow(ArgumentError);
});
