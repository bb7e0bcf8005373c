import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint, readCheckpoint } from "../../src/model/checkpoint.ts";
import type { Checkpoint } from "../../src/model/checkpoint-format.ts";
import { batchConstants, batchLogits, disposeConstants, parametersFromWeights } from "../../src/model/decoder.ts";
import { Decoder } from "../../src/model/decoder-session.ts";
import { row } from "../../src/model/language-model.ts";
import type { FloatTensor } from "../../src/model/weights.ts";
import { useBackend } from "../../src/tensor/backend.ts";
import { read, tidy } from "../../src/tensor/ops.ts";
import { toFloat32 } from "../../src/tensor/safetensors.ts";
import { type Golden, goldenCheckpoints, readGolden, relativeDifference } from "./golden-checkpoints.ts";

/** Reached: 8e-7 (llama), 1.3e-6 (qwen2), 5e-7 (gpt2). */
const tolerance = 1e-5;

const expected = {
  llama: {
    dtype: "BF16",
    config: {
      vocabularySize: 320,
      width: 32,
      heads: 4,
      keyValueHeads: 2,
      headWidth: 12,
      contextLength: 96,
      ropeTheta: 100,
      ropeScaling: {
        kind: "llama3",
        factor: 8,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
        originalContextLength: 32,
      },
      tiedEmbeddings: false,
      projectionBiases: false,
    },
  },
  qwen2: {
    dtype: "F32",
    config: {
      vocabularySize: 328,
      keyValueHeads: 1,
      ropeTheta: 1e6,
      normEpsilon: 1e-6,
      tiedEmbeddings: true,
      projectionBiases: true,
    },
  },
  gpt2: {
    dtype: "F16",
    config: { architecture: "gpt2", vocabularySize: 320, width: 32, hiddenWidth: 128, contextLength: 72 },
  },
} as const;

describe.each(goldenCheckpoints)("$name as Hugging Face wrote and computes it", (checkpoint) => {
  const { dtype, config } = expected[checkpoint.name as keyof typeof expected];
  let golden: Golden;
  let loaded: Checkpoint;
  let model: Decoder;
  beforeAll(async () => {
    await useBackend("wasm");
    golden = await readGolden(checkpoint);
    loaded = await readCheckpoint(checkpoint.folder);
    model = new Decoder(loaded.config, loaded.tensors);
  });
  afterAll(() => model.close());

  it("has its config, its tokenizer and its dtype", async () => {
    expect(loaded.config).toMatchObject(config);
    expect(loaded.tokenizer.vocabularySize).toBe(320);
    expect([...loaded.tokenizer.encode(golden.text)]).toEqual(golden.ids);
    expect(loaded.tokenizer.decode(golden.ids)).toBe(golden.text);
    const opened = await openCheckpoint(checkpoint.folder);
    expect([...opened.tensors.keys()].sort()).toEqual([...loaded.tensors.keys()].sort());
    for (const [name, stored] of opened.tensors) {
      expect(stored.dtype).toBe(dtype);
      const data = await stored.read();
      expect(data.byteLength).toBe(stored.bytes);
      const tensor = { dtype: stored.dtype, shape: stored.shape, data } as FloatTensor;
      expect(toFloat32(tensor)).toEqual(loaded.tensors.get(name)!.data);
    }
    await opened.close();
  });

  it("gives the same logits in one pass", () => {
    const session = model.openSession();
    const { logits } = session.extend(golden.ids, { logits: "all" });
    expect(relativeDifference(logits.data, golden.logits.data)).toBeLessThan(tolerance);
    session.close();
  });

  it("gives the same logits token by token, and along a draft tree", () => {
    const session = model.openSession();
    const half = golden.ids.length / 2;
    golden.ids.slice(0, half).forEach((id, i) => {
      const { logits } = session.extend([id]);
      expect(relativeDifference(logits.data, row(golden.logits, i))).toBeLessThan(tolerance);
    });
    // The right continuation, a wrong sibling beside each of its tokens.
    const tokens = golden.ids.slice(half).flatMap((id) => [id, (id + 1) % 320]);
    const parents = tokens.map((_, i) => (i < 2 ? -1 : i - 2 - (i % 2)));
    const { logits } = session.score({ tokens, parents });
    for (let i = half; i < golden.ids.length; i++) {
      const node = 2 * (i - half);
      expect(relativeDifference(row(logits, node), row(golden.logits, i))).toBeLessThan(tolerance);
      expect(relativeDifference(row(logits, node + 1), row(golden.logits, i))).toBeGreaterThan(100 * tolerance);
    }
    session.close();
  });

  it("gives the same logits in training form", () => {
    const parameters = parametersFromWeights(loaded.tensors);
    const constants = batchConstants(loaded.config, 1, golden.ids.length);
    const logits = tidy(() => batchLogits(loaded.config, parameters, Int32Array.from(golden.ids), constants));
    expect(relativeDifference(read(logits), golden.logits.data)).toBeLessThan(tolerance);
    logits.dispose();
    disposeConstants(constants);
    for (const parameter of Object.values(parameters)) parameter.dispose();
  });
});

it("Llama without its scaling computes something else, so that the scaling is tested", async () => {
  await useBackend("wasm");
  const [llama] = goldenCheckpoints;
  const { ids, logits } = await readGolden(llama!);
  const { config, tensors } = await readCheckpoint(llama!.folder);
  const { ropeScaling: _, ...unscaled } = config;
  const model = new Decoder(unscaled, tensors);
  const plain = model.openSession().extend(ids, { logits: "all" }).logits;
  expect(relativeDifference(plain.data, logits.data)).toBeGreaterThan(0.1);
  expect(relativeDifference(row(plain, 0), row(logits, 0))).toBeLessThan(tolerance); // position 0 does not turn
  model.close();
});
