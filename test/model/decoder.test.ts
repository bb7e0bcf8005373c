import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import { batchConstants, batchLogits, parametersFromWeights } from "../../src/model/decoder.ts";
import { Decoder } from "../../src/model/decoder-session.ts";
import { row, subtractCosts } from "../../src/model/language-model.ts";
import type { Weights } from "../../src/model/weights.ts";
import { type BackendName, backendNames, useBackend } from "../../src/tensor/backend.ts";
import { aliveTensors, read, tidy } from "../../src/tensor/ops.ts";
import { decoderLogits } from "./decoder-oracle.ts";
import { config, gpt2, lively, scaled, tied } from "./lively-decoders.ts";
import { describeSessionConformance } from "./session-conformance.ts";

const loading: BackendName[] = ["wasm", "cpu"];

describe.each(loading)("decoder on %s", (backend) => {
  beforeAll(async () => {
    expect(backendNames).toContain(await useBackend(backend));
  });
  afterAll(async () => {
    await useBackend("wasm");
  });

  describe.each([
    ["free head, biases, grouped heads", config],
    ["tied head, no biases, one key head a query head", tied],
    ["angles scaled as in Llama 3.1", scaled],
    ["GPT-2", gpt2],
  ] as const)("%s", (_, shape) => {
    const weights = lively(shape, 3);
    const ids = [3, 22, 0, 7, 7, 19, 4, 11];

    it("gives the logits of a float64 decoder written on its own", () => {
      const oracle = decoderLogits(shape, weights, ids);
      const model = new Decoder(shape, weights);
      const { logits } = model.openSession().extend(ids, { logits: "all" });
      for (let r = 0; r < ids.length; r++) {
        row(logits, r).forEach((value, c) => {
          expect(value).toBeCloseTo(oracle[r]![c]!, 3);
        });
      }
      model.close();
    });

    it("gives the same logits in training form, batch by batch, as in a session", () => {
      const model = new Decoder(shape, weights);
      const other = [1, 2, 3, 4, 5, 6, 8, 9];
      const parameters = parametersFromWeights(weights);
      const constants = batchConstants(shape, 2, ids.length);
      const together = tidy(() => batchLogits(shape, parameters, Int32Array.from([...ids, ...other]), constants));
      const batched = read(together);
      [ids, other].forEach((sequence, s) => {
        const { data } = model.openSession().extend(sequence, { logits: "all" }).logits;
        data.forEach((value, i) => {
          expect(batched[s * data.length + i]).toBeCloseTo(value, 4);
        });
      });
      model.close();
      together.dispose();
      for (const parameter of Object.values(parameters)) parameter.dispose();
    });

    it("leaks no tensors over passes, trees and sessions", () => {
      const before = aliveTensors();
      const model = new Decoder(shape, weights);
      const held = aliveTensors();
      const session = model.openSession();
      session.extend(ids);
      session.score({ tokens: [1, 2, 3], parents: [-1, 0, 0] });
      session.accept(1);
      session.truncate(4);
      session.close();
      expect(aliveTensors()).toBe(held);
      model.close();
      expect(aliveTensors()).toBe(before);
    });
  });
});

describe("decoder session", () => {
  const weights = lively(config, 5);
  const model = async () => {
    await useBackend("wasm");
    return new Decoder(config, weights);
  };

  describeSessionConformance("the decoder", model, { tolerance: 2e-4, runs: 25, longest: 8 });
  describe.each([
    ["a decoder with scaled angles", scaled],
    ["GPT-2", gpt2],
  ] as const)("%s", (name, shape) => {
    const make = async () => {
      await useBackend("wasm");
      return new Decoder(shape, lively(shape, 6));
    };
    describeSessionConformance(name, make, { tolerance: 2e-4, runs: 10, longest: 8 });
  });

  it("takes embeddings in place of ids", async () => {
    const decoder = await model();
    const ids = [4, 9, 2];
    const table = weights.get("model.embed_tokens.weight")!.data;
    const data = Float32Array.from(
      ids.flatMap((id) => [...table.subarray(id * config.width, (id + 1) * config.width)]),
    );
    const byIds = decoder.openSession().extend(ids).logits.data;
    const byRows = decoder.openSession().extend({ data, rows: 3, columns: config.width }).logits.data;
    expect(byRows).toEqual(byIds);
    expect(() => decoder.openSession().extend({ data, rows: 4, columns: config.width })).toThrow(ArgumentError);
  });

  it("taps hidden states, queries, keys and attention that fit together", async () => {
    const decoder = await model();
    const session = decoder.openSession();
    session.extend([1, 2, 3]);
    const { taps } = session.score(
      { tokens: [4, 5, 6], parents: [-1, 0, 0] },
      { taps: ["hidden", "queries", "keys", "attention"] },
    );
    expect(taps!.hidden).toHaveLength(config.layers + 1);
    expect(taps!.hidden![0]!.columns).toBe(config.width);
    const { heads, keyValueHeads, headWidth } = config;
    expect([taps!.queries![0]!.rows, taps!.queries![0]!.columns]).toEqual([3, heads * headWidth]);
    expect([taps!.keys![0]!.rows, taps!.keys![0]!.columns]).toEqual([3, keyValueHeads * headWidth]);
    const attention = taps!.attention![1]!;
    expect([attention.rows, attention.columns]).toEqual([heads * 3, 6]);
    for (let r = 0; r < attention.rows; r++) {
      const law = row(attention, r);
      expect(law.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
      const node = r % 3;
      // Siblings 1 and 2 do not see each other; the root sees neither.
      if (node !== 1) expect(law[4]).toBe(0);
      if (node !== 2) expect(law[5]).toBe(0);
      if (node > 0) expect(law[3]).toBeGreaterThan(0);
    }
    // Attention is what queries and keys say: softmax(q k / sqrt(headWidth)) of head 4, which reads key head 1.
    const [q, k] = [row(taps!.queries![1]!, 1), taps!.keys![1]!];
    const dot = (node: number) => {
      let sum = 0;
      for (let i = 0; i < headWidth; i++) sum += q[4 * headWidth + i]! * row(k, node)[headWidth + i]!;
      return Math.exp(sum / Math.sqrt(headWidth));
    };
    const law = row(attention, 4 * 3 + 1);
    expect(law[4]! / law[3]!).toBeCloseTo(dot(1) / dot(0), 3);
  });

  it("runs a subset of layers, and refuses a layer whose cache has a hole", async () => {
    const decoder = await model();
    const session = decoder.openSession();
    session.extend([1, 2, 3]);
    const draft = session.extend([4], { layers: [0, 2] }).logits.data;
    expect(() => session.extend([5])).toThrow(/Layer 1 was skipped from position 3 on/);
    session.truncate(3);
    const full = session.extend([4]).logits.data;
    expect(full).not.toEqual(draft);
    const fresh = decoder.openSession();
    const again = fresh.extend([1, 2, 3, 4]).logits.data;
    full.forEach((value, i) => {
      expect(value).toBeCloseTo(again[i]!, 4);
    });
    for (const layers of [[], [1, 0], [3], [0, 0]]) {
      expect(() => fresh.extend([5], { layers })).toThrow(ArgumentError);
    }
  });

  it("counts multiply-adds and cache bytes as the formulas say", async () => {
    const decoder = await model();
    const session = decoder.openSession();
    session.extend([1, 2, 3]);
    const before = session.cost;
    session.score({ tokens: [4, 5], parents: [-1, 0] });
    const cost = subtractCosts(session.cost, before);
    const linear = 2 * 12 * (6 + 2) * 4 + 3 * 12 * 20; // q, o, k, v; gate, up, down
    const attention = 2 * 6 * 4 * 5; // scores and mix over 3 cached and 2 new positions
    expect(cost).toEqual({
      passes: 1,
      tokens: 2,
      multiplyAdds: 2 * 3 * (linear + attention) + 2 * 12 * 23,
      cacheBytesRead: 3 * 3 * 2 * 2 * 4 * 4,
    });
  });

  it("counts GPT-2's multiply-adds: no gate, one head of keys a head of queries", async () => {
    await useBackend("wasm");
    const decoder = new Decoder(gpt2, lively(gpt2, 5));
    const session = decoder.openSession();
    session.extend([1, 2, 3]);
    const linear = 4 * 12 * 12 + 2 * 12 * 20;
    const attention = 2 * 3 * 4 * 3;
    expect(session.cost).toEqual({
      passes: 1,
      tokens: 3,
      multiplyAdds: 3 * 3 * (linear + attention) + 12 * 23,
      cacheBytesRead: 0,
    });
    decoder.close();
  });

  it("adds GPT-2's positions to embeddings given in place of ids", async () => {
    await useBackend("wasm");
    const weights = lively(gpt2, 5);
    const decoder = new Decoder(gpt2, weights);
    const table = weights.get("transformer.wte.weight")!.data;
    const data = Float32Array.from([4, 9, 2].flatMap((id) => [...table.subarray(id * 12, (id + 1) * 12)]));
    const byIds = decoder.openSession().extend([4, 9, 2]).logits.data;
    expect(decoder.openSession().extend({ data, rows: 3, columns: 12 }).logits.data).toEqual(byIds);
    decoder.close();
  });

  it("runs long inputs in chunks, with the logits of one pass", async () => {
    const long = { ...config, contextLength: 600 };
    const decoder = new Decoder(long, weights);
    const ids = Array.from({ length: 580 }, (_, i) => (i * 7) % 23);
    const session = decoder.openSession();
    const { logits, taps } = session.extend(ids, { logits: "all", taps: ["hidden"] });
    expect(session.cost.passes).toBe(3);
    expect([logits.rows, taps!.hidden![0]!.rows]).toEqual([580, 580]);
    expect(row(session.extend([1]).logits, 0)).toHaveLength(23);
    const oracle = decoderLogits(long, weights, ids);
    for (const r of [0, 255, 256, 579]) {
      row(logits, r).forEach((value, c) => {
        expect(value).toBeCloseTo(oracle[r]![c]!, 3);
      });
    }
    expect(() => decoder.openSession().extend(ids, { taps: ["attention"] })).toThrow(/attention/);
  });

  it("keeps sessions of one model apart", async () => {
    const decoder = await model();
    fc.assert(
      fc.property(fc.array(fc.nat(22), { minLength: 1, maxLength: 6 }), (ids) => {
        const [a, b] = [decoder.openSession(), decoder.openSession()];
        for (const id of ids) {
          a.extend([id]);
          b.extend([(id + 1) % 23]);
        }
        const alone = decoder.openSession().extend([...ids, 5]).logits.data;
        a.extend([5]).logits.data.forEach((value, i) => {
          expect(value).toBeCloseTo(alone[i]!, 3);
        });
      }),
      { numRuns: 10 },
    );
  });
});

describe("bad weights", () => {
  const weights = lively(config, 7);
  const changed = (change: (copy: Map<string, Weights>) => void) => {
    const copy = new Map([...weights].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]));
    change(copy);
    return () => new Decoder(config, copy);
  };

  it("names what is missing, extra, misshapen or not a number", () => {
    expect(changed((w) => w.delete("model.norm.weight"))).toThrow(/model\.norm\.weight/);
    expect(changed((w) => w.set("model.extra", w.get("model.norm.weight")!))).toThrow(/model\.extra/);
    expect(changed((w) => w.set("lm_head.weight", { ...w.get("lm_head.weight")!, shape: [12, 23] }))).toThrow(/shape/);
    const bad = changed((w) => {
      w.get("model.layers.1.mlp.up_proj.weight")!.data[17] = Number.NaN;
    });
    expect(bad).toThrow(FormatError);
    expect(bad).toThrow(/up_proj\.weight.*17/s);
  });
});
