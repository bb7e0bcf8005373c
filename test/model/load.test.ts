import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { FileError, FormatError } from "../../src/errors.ts";
import { Decoder, Engine, embeddedFolder, loadCheckpoint, loadEmbedded, loadLlama2c } from "../../src/model/index.ts";
import { ChainDrafter, generateAll } from "../../src/speculative/index.ts";

const shared = join(import.meta.dirname, "..", "..", "..", "shared", "models");
const weights = join(shared, "stories260K.bin");
const vocabulary = join(shared, "tok512.bin");

// Real weights beside the project, not part of it: skipped, visibly, where they are absent.
describe.skipIf(!existsSync(weights))("loadLlama2c", () => {
  it("tells llama2.c's own story to the byte, alone and by speculation", async () => {
    const { model, tokenizer } = await loadLlama2c(weights, vocabulary);
    const golden = readFileSync(join(shared, "stories260K-greedy.txt"), "utf8");
    // llama2.c stops when the model begins a new text (id 1), and then ends the line.
    const options = { maxTokens: 400, stopTokens: [1] };
    const plain = await generateAll(model, [1], options);
    expect(plain.finish).toEqual({ kind: "stop", token: 1 });
    expect(`${tokenizer.decode([1, ...plain.tokens.slice(0, -1)])}\n`).toBe(golden);

    const drafter = new ChainDrafter(model, { gamma: 5 });
    const fast = await generateAll(model, [1], { ...options, maxTokens: 60, drafter });
    expect(fast.tokens).toEqual(plain.tokens.slice(0, 60));
    expect(fast.targetPasses).toBe(10);
    model.close();
  });

  it("names the file that does not fit", async () => {
    await expect(loadLlama2c(vocabulary, vocabulary)).rejects.toThrow(FormatError);
    await expect(loadLlama2c(weights, weights)).rejects.toThrow(FormatError);
    await expect(loadLlama2c(join(shared, "absent.bin"), vocabulary)).rejects.toThrow(/absent\.bin/);
  });
});

describe("what runs a model", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it("is the engine, or the tensor decoder when asked for by option or environment", async () => {
    vi.stubEnv("TOKENTHRIFT_RUNS", "");
    expect((await loadEmbedded("draft")).model).toBeInstanceOf(Engine);
    expect((await loadEmbedded("draft", { runs: "tensors" })).model).toBeInstanceOf(Decoder);
    vi.stubEnv("TOKENTHRIFT_RUNS", "tensors");
    expect((await loadEmbedded("draft")).model).toBeInstanceOf(Decoder);
    expect((await loadEmbedded("draft", { runs: "engine" })).model).toBeInstanceOf(Engine);
    vi.stubEnv("TOKENTHRIFT_RUNS", "motor");
    await expect(loadEmbedded("draft")).rejects.toThrow(/TOKENTHRIFT_RUNS: expected "engine" or "tensors"/);
  });
});

describe("loadCheckpoint", () => {
  it("names a folder that is not there and a file that contradicts another", async () => {
    await expect(loadCheckpoint(join(tmpdir(), "no such checkpoint"))).rejects.toThrow(FileError);
    const folder = mkdtempSync(join(tmpdir(), "tokenthrift-load-"));
    try {
      for (const name of ["model.safetensors", "tokenizer.json", "config.json"]) {
        writeFileSync(join(folder, name), readFileSync(join(embeddedFolder("draft"), name)));
      }
      const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as Record<string, unknown>;
      for (const [change, complaint] of [
        [{ num_hidden_layers: 2 }, /missing "model\.layers\.1/],
        [{ vocab_size: 1000 }, /1000|1,000/],
        [{ intermediate_size: 99 }, /gate_proj/],
      ] as const) {
        writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, ...change }));
        await expect(loadCheckpoint(folder)).rejects.toThrow(complaint);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
