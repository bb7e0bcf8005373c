import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, ContextOverflowError, FormatError, MemoryError, TokenthriftError } from "../../src/errors.ts";
import type { KernelKind } from "../../src/kernels/kernels.ts";
import { allowRelaxedSimd } from "../../src/kernels/relaxed-simd.ts";
import type { CachePolicy } from "../../src/model/cache-policy.ts";
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import { Decoder } from "../../src/model/decoder-session.ts";
import { Engine } from "../../src/model/engine.ts";
import type { EngineSessionOptions } from "../../src/model/engine-session.ts";
import {
  type LanguageModel,
  type Matrix,
  type Pass,
  row,
  type Session,
  type Tap,
} from "../../src/model/language-model.ts";
import { loadCheckpoint, loadEmbedded } from "../../src/model/load.ts";
import { useBackend } from "../../src/tensor/backend.ts";
import { floatTensor, toFloat32 } from "../../src/tensor/safetensors.ts";
import { decoderLogits } from "./decoder-oracle.ts";
import { goldenCheckpoints, readGolden, relativeDifference } from "./golden-checkpoints.ts";
import { config, gpt2, lively, scaled, tied } from "./lively-decoders.ts";
import { describeSessionConformance } from "./session-conformance.ts";

/** Heads, widths and a vocabulary that fill no lane, no panel and no tile. */
const ragged: DecoderConfig = {
  ...config,
  width: 13,
  heads: 3,
  keyValueHeads: 1,
  headWidth: 6,
  hiddenWidth: 17,
  vocabularySize: 29,
};
const shapes = { config, tied, scaled, gpt2, ragged } as const;
const kinds: readonly KernelKind[] = ["simd", "plain"];

/** Runs whatever `body` does in a session of both models, and compares what the passes gave. */
function compare(models: readonly [LanguageModel, LanguageModel], body: (session: Session) => Pass[]): void {
  const [ours, theirs] = models.map((model): Ran => {
    const session = model.openSession();
    const passes = body(session);
    const { length, cost } = session;
    session.close();
    return { passes, length, cost };
  }) as unknown as [Ran, Ran];
  expect(ours.length).toBe(theirs.length);
  expect(ours.cost).toEqual(theirs.cost);
  ours.passes.forEach((pass, i) => {
    const other = theirs.passes[i]!;
    expect(relativeDifference(pass.logits.data, other.logits.data), `pass ${i}`).toBeLessThan(1e-4);
    for (const name of ["hidden", "queries", "keys", "attention"] as const) {
      const [mine, its] = [pass.taps?.[name], other.taps?.[name]];
      expect(mine?.map(size)).toEqual(its?.map(size));
      mine?.forEach((matrix, layer) => {
        expect(relativeDifference(matrix.data, its![layer]!.data), `${name} ${layer}`).toBeLessThan(2e-4);
      });
    }
  });
}

interface Ran {
  readonly passes: readonly Pass[];
  readonly length: number;
  readonly cost: unknown;
}

function size({ rows, columns }: Matrix): readonly number[] {
  return [rows, columns];
}

describe.each(kinds)("the engine on %s kernels", (kernels) => {
  describe.each(Object.entries(shapes))("%s", (name, shape) => {
    const weights = lively(shape, 6);
    describeSessionConformance(name, () => Engine.open(shape, weights, { kernels }), {
      tolerance: 2e-4,
      runs: kernels === "plain" ? 6 : 20,
      longest: 8,
    });

    it("gives the logits of a float64 decoder written on its own", async () => {
      const ids = [3, 22, 0, 7, 7, 19, 4, 11];
      const engine = await Engine.open(shape, weights, { kernels });
      const { logits } = engine.openSession().extend(ids, { logits: "all" });
      const oracle = decoderLogits(shape, weights, ids);
      expect(relativeDifference(logits.data, Float32Array.from(oracle.flat()))).toBeLessThan(1e-5);
      engine.close();
    });
  });
});

describe.each(Object.entries(shapes))("engine and tensor decoder, %s", (_, shape) => {
  const weights = lively(shape, 8);
  let models: [Engine, Decoder];
  beforeAll(async () => {
    await useBackend("wasm");
    models = [await Engine.open(shape, weights), new Decoder(shape, weights)];
  });
  afterAll(() => {
    for (const model of models) model.close();
  });

  it("agree on prefixes, trees, acceptances and truncations, taps and costs included", () => {
    const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    const command = fc.record({
      kind: fc.constantFrom("extend", "score", "accept", "truncate"),
      shape: fc.array(fc.tuple(unit, unit), { minLength: 1, maxLength: 7 }),
      pick: unit,
      taps: fc.subarray<Tap>(["hidden", "queries", "keys", "attention"]),
    });
    fc.assert(
      fc.property(fc.array(command, { minLength: 1, maxLength: 8 }), (program) => {
        compare(models, (session) => {
          const passes: Pass[] = [];
          for (const { kind, shape: drawn, pick, taps } of program) {
            const room = shape.contextLength - session.length;
            const nodes = drawn.slice(0, room);
            const tokens = nodes.map(([u]) => Math.floor(u * shape.vocabularySize));
            const parents = nodes.map(([, u], i) => Math.floor(u * (i + 1)) - 1);
            if (kind === "truncate") session.truncate(Math.floor(pick * (session.length + 1)));
            else if (tokens.length === 0) continue;
            else if (kind === "extend") passes.push(session.extend(tokens, { logits: "all", taps }));
            else {
              passes.push(session.score({ tokens, parents }, { taps }));
              if (kind === "accept") session.accept(Math.floor(pick * tokens.length));
            }
          }
          return passes;
        });
      }),
      { numRuns: process.env["TOKENTHRIFT_FULL"] ? 1000 : 60 },
    );
  });

  it("agree on a subset of layers and on embeddings in place of ids", () => {
    compare(models, (session) => {
      const rows = 3;
      const data = Float32Array.from({ length: rows * shape.width }, (_, i) => Math.sin(i));
      return [
        session.extend({ data, rows, columns: shape.width }, { logits: "all", taps: ["hidden"] }),
        session.score({ tokens: [4, 5, 6], parents: [-1, 0, 0] }, { layers: [0, 2], taps: ["hidden", "attention"] }),
      ];
    });
  });
});

describe("the engine", () => {
  const weights = lively(config, 5);
  const open = () => Engine.open(config, weights);

  it("says a model's logits on relaxed kernels as on the others, where the runtime has them", async () => {
    const kernels = (await allowRelaxedSimd()) ? "relaxed" : "simd";
    const models = [
      await Engine.open(config, weights, { kernels }),
      await Engine.open(config, weights, { kernels: "simd" }),
    ] as const;
    expect(models[0].kernels).toBe(kernels);
    compare(models, (session) => [session.extend([1, 2, 3, 4, 5], { logits: "all" })]);
  });

  it("runs 600 positions in chunks, growing its cache, and truncates back", async () => {
    const long = { ...config, contextLength: 600 };
    const engine = await Engine.open(long, weights);
    const ids = Array.from({ length: 580 }, (_, i) => (i * 7) % 23);
    const oracle = decoderLogits(long, weights, ids);
    const session = engine.openSession();
    const { logits } = session.extend(ids, { logits: "all" });
    expect(session.cost.passes).toBe(3);
    for (const r of [0, 63, 64, 255, 256, 579]) {
      expect(
        relativeDifference(logits.data.subarray(r * 23, (r + 1) * 23), Float32Array.from(oracle[r]!)),
        `row ${r}`,
      ).toBeLessThan(1e-5);
    }
    session.truncate(100);
    const again = session.extend(ids.slice(100, 130), { logits: "last" });
    expect(relativeDifference(again.logits.data, Float32Array.from(oracle[129]!))).toBeLessThan(1e-5);
    engine.close();
  });

  it("keeps 16-bit weights 16-bit, with the logits of the widened ones", async () => {
    for (const dtype of ["F16", "BF16"] as const) {
      for (const shape of [config, gpt2]) {
        const rounded = new Map<string, { shape: readonly number[]; data: Float32Array }>();
        const stored = new Map();
        for (const [name, { shape: size, data }] of lively(shape, 5)) {
          const tensor = floatTensor(size, data, dtype);
          rounded.set(name, { shape: size, data: toFloat32(tensor) });
          stored.set(name, { dtype, shape: size, read: async () => tensor.data });
        }
        const narrow = await Engine.open(shape, stored, { weights: "stored" });
        const wide = await Engine.open(shape, stored);
        const exact = await Engine.open(shape, rounded);
        const ids = [3, 1, 22, 9, 5];
        const logits = [narrow, wide, exact].map((e) => e.openSession().extend(ids, { logits: "all" }).logits.data);
        expect(relativeDifference(logits[0]!, logits[2]!)).toBeLessThan(1e-6);
        expect(logits[1]).toEqual(logits[2]);
        expect(narrow.memory.weights).toBeLessThan(0.7 * wide.memory.weights);
        expect(wide.memory.weights).toBe(exact.memory.weights);
      }
    }
  });

  it("gives back the memory of closed sessions: 100,000 of them do not grow the arena", async () => {
    const engine = await open();
    const session = engine.openSession();
    session.extend([1, 2, 3]);
    session.close();
    const { arena, used } = engine.memory;
    for (let i = 0; i < 100_000; i++) {
      const next = engine.openSession();
      if (i % 10 === 0) next.extend([1]);
      next.close();
    }
    expect(engine.memory).toMatchObject({ arena, used });
  });

  it("shares weights between sessions, which do not see each other", async () => {
    const engine = await open();
    const before = engine.memory.used;
    const sessions = Array.from({ length: 5 }, () => engine.openSession());
    const logits = sessions.map((session, i) => session.extend([i, 2 * i, 3]).logits.data);
    const perSession = (engine.memory.used - before) / 5;
    expect(perSession).toBeLessThan(engine.memory.weights);
    sessions.forEach((session, i) => {
      session.truncate(1);
      expect(relativeDifference(session.extend([2 * i, 3]).logits.data, logits[i]!)).toBeLessThan(1e-5);
      session.close();
    });
  });

  it("refuses a model that does not fit, with both sizes, before reading a weight", async () => {
    const large = { ...config, hiddenWidth: 900 };
    let read = 0;
    const counted = new Map(
      [...lively(large, 5)].map(([name, { shape, data }]) => {
        const tensor = {
          dtype: "F32",
          shape,
          read: async () => {
            read++;
            return data;
          },
        } as const;
        return [name, tensor];
      }),
    );
    const fits = await Engine.open(large, counted);
    expect(read).toBe(counted.size);
    const logits = 4 * 32 * 24;
    const tooLittle = Engine.open(large, counted, { maximumBytes: 131_072 });
    await expect(tooLittle).rejects.toThrow(MemoryError);
    await expect(tooLittle).rejects.toMatchObject({ needed: fits.memory.weights + logits, available: 131_072 - 4096 });
    expect(read).toBe(counted.size);
  });

  it("stays usable when a session's cache does not fit any more", async () => {
    const long = { ...config, contextLength: 5000 };
    const engine = await Engine.open(long, weights, { maximumBytes: 2 ** 20 });
    const session = engine.openSession();
    session.extend([1, 2, 3]);
    const ids = Array.from({ length: 4900 }, (_, i) => i % 23);
    expect(() => session.extend(ids, { logits: "none" })).toThrow(MemoryError);
    const { length } = session;
    session.truncate(3);
    expect(length).toBeGreaterThanOrEqual(3);
    const fresh = engine.openSession();
    expect(relativeDifference(session.extend([4]).logits.data, fresh.extend([1, 2, 3, 4]).logits.data)).toBeLessThan(
      1e-5,
    );
  });

  it("names missing, extra and misshapen tensors", async () => {
    const damaged = (change: (copy: Map<string, typeof weights extends Map<string, infer W> ? W : never>) => void) => {
      const copy = new Map(weights);
      change(copy);
      return Engine.open(config, copy);
    };
    const name = "model.layers.1.mlp.up_proj.weight";
    await expect(damaged((copy) => copy.delete(name))).rejects.toThrow(/missing "model.layers.1.mlp.up_proj.weight"/);
    await expect(damaged((copy) => copy.set("extra", copy.get(name)!))).rejects.toThrow(/unexpected "extra"/);
    await expect(damaged((copy) => copy.set(name, { shape: [3, 4], data: new Float32Array(12) }))).rejects.toThrow(
      /model.layers.1.mlp.up_proj.weight.*\[3, 4\]/,
    );
    await expect(
      damaged((copy) => copy.set(name, { ...copy.get(name)!, data: copy.get(name)!.data.map(() => Number.NaN) })),
    ).rejects.toThrow(FormatError);
  });

  it("is over once closed, its sessions too", async () => {
    const engine = await open();
    const session = engine.openSession();
    session.extend([1]);
    engine.close();
    engine.close();
    expect(() => engine.openSession()).toThrow(TokenthriftError);
    expect(() => engine.memory).toThrow(TokenthriftError);
    expect(() => session.extend([1])).toThrow(TokenthriftError);
    session.close();
  });

  it("runs the embedded target as the tensor decoder does", async () => {
    const [ours, theirs] = [await loadEmbedded("target"), await loadEmbedded("target", { runs: "tensors" })];
    const ids = ours.tokenizer.encode(
      "interface ReadonlyArray<T> {\n    readonly length: number;\n    toString(): str",
    );
    compare([ours.model, theirs.model], (session) => [
      session.extend(ids.slice(0, -4), { logits: "all" }),
      session.score({ tokens: ids.slice(-4), parents: [-1, 0, 0, 1] }),
    ]);
    ours.model.close();
    theirs.model.close();
  });
});

describe.each(goldenCheckpoints)("the engine on a $name checkpoint by Hugging Face", (checkpoint) => {
  it.each([
    ["simd", "float32"],
    ["simd", "stored"],
    ["plain", "stored"],
  ] as const)("gives its logits on %s kernels with weights as %s", async (kernels, weights) => {
    const golden = await readGolden(checkpoint);
    const { model, tokenizer } = await loadCheckpoint(checkpoint.folder, { kernels, weights });
    expect([...tokenizer.encode(golden.text)]).toEqual(golden.ids);
    const session = model.openSession();
    const { logits } = session.extend(golden.ids, { logits: "all" });
    expect(relativeDifference(logits.data, golden.logits.data)).toBeLessThan(1e-5);
    session.truncate(0);
    golden.ids.forEach((id, i) => {
      const last = session.extend([id]).logits.data;
      expect(relativeDifference(last, row(golden.logits, i))).toBeLessThan(1e-5);
    });
    model.close();
  });
});

describe("a cache policy", () => {
  const weights = lively(config, 5);
  const ids = [3, 22, 0, 7, 7, 19, 4, 11, 5, 6];
  const tree = { tokens: [1, 2, 3, 9], parents: [-1, 0, 0, 1] };
  const everything: CachePolicy = {
    select: ({ length }) => ({ kind: "positions", forAllHeads: Array.from({ length }, (_, i) => i) }),
  };

  async function logitsWith(options: EngineSessionOptions, kernels: KernelKind = "simd"): Promise<Pass> {
    const engine = await Engine.open(config, weights, { kernels });
    const session = engine.openSession(options);
    for (const id of ids) session.extend([id], { logits: "none" });
    return session.score(tree, { taps: ["attention", "hidden"] });
  }

  it.each(kinds)("that chooses all positions changes nothing, rotated or not, on %s", async (kernels) => {
    const plain = await logitsWith({}, kernels);
    const choices: readonly EngineSessionOptions[] = [
      { cachePolicy: everything },
      { keys: "unrotated" },
      { keys: "unrotated", cachePolicy: everything },
      { cachePolicy: { select: () => ({ kind: "all" }) } },
    ];
    for (const options of choices) {
      const pass = await logitsWith(options, kernels);
      expect(relativeDifference(pass.logits.data, plain.logits.data)).toBeLessThan(1e-5);
      pass.taps!.attention!.forEach((matrix, layer) => {
        expect(relativeDifference(matrix.data, plain.taps!.attention![layer]!.data)).toBeLessThan(1e-5);
      });
    }
  });

  it.each(kinds)("gives what an oracle without the other positions gives, on %s", async (kernels) => {
    // One layer, so that leaving a position out of the cache and out of the text are the same thing for what follows it.
    const single = { ...config, layers: 1 };
    const oneLayer = new Map([...weights].filter(([name]) => !/layers\.[12]\./.test(name)));
    const engine = await Engine.open(single, oneLayer, { kernels });
    const kept = [0, 3, 4, 9];
    const session = engine.openSession({ cachePolicy: { select: () => ({ kind: "positions", forAllHeads: kept }) } });
    // While the prompt runs the policy would choose positions that are not there yet.
    const open = engine.openSession({
      keys: "unrotated",
      cachePolicy: {
        select: ({ length }) => (length < 10 ? { kind: "all" } : { kind: "positions", perHead: [kept, kept] }),
      },
    });
    open.extend(ids);
    const renumbered = open.extend([5]).logits.data;
    // Un-rotated keys are renumbered: the pass sees the kept tokens as if they were the whole text.
    const alone = engine.openSession().extend([...kept.map((position) => ids[position]!), 5]).logits.data;
    expect(relativeDifference(renumbered, alone)).toBeLessThan(1e-5);
    session.extend(ids.slice(0, 10), { logits: "none" });
    const { taps } = session.score({ tokens: [5], parents: [-1] }, { taps: ["attention"] });
    expect([taps!.attention![0]!.rows, taps!.attention![0]!.columns]).toEqual([config.heads, kept.length + 1]);
    expect(open.cost.cacheBytesRead).toBe(4 * 2 * config.keyValueHeads * config.headWidth * 4);
  });

  it("sees queries and keys as the taps give them, and may choose per head", async () => {
    const engine = await Engine.open(config, weights);
    const seen: { layer: number; queries: Matrix; keys: Matrix }[] = [];
    const session = engine.openSession({
      cachePolicy: {
        select: (request) => {
          seen.push({ layer: request.layer, queries: request.queries(), keys: request.keys(1) });
          return {
            kind: "positions",
            perHead: [
              [0, 2],
              [1, 3],
            ],
          };
        },
      },
    });
    const { taps: before } = session.extend([1, 2, 3, 4], { taps: ["keys"] });
    expect(seen).toEqual([]); // nothing is committed yet
    const { taps } = session.extend([5], { taps: ["queries", "attention"] });
    expect(seen.map(({ layer }) => layer)).toEqual([0, 1, 2]);
    seen.forEach(({ layer, queries, keys }) => {
      expect(queries).toEqual(taps!.queries![layer]);
      const { headWidth } = config;
      const own = before!.keys![layer]!;
      const second = Array.from({ length: 4 }, (_, r) => [
        ...own.data.subarray(r * own.columns + headWidth, r * own.columns + 2 * headWidth),
      ]).flat();
      expect([...keys.data]).toEqual(second);
    });
    expect(taps!.attention![0]!.columns).toBe(3);
  });

  it("is refused when it names positions that are not there, out of order, twice, or not for every head", async () => {
    const engine = await Engine.open(config, weights);
    for (const perHead of [
      [[0]],
      [[0], [0, 1]],
      [[4], [4]],
      [[-1], [0]],
      [
        [1, 0],
        [0, 1],
      ],
      [
        [1, 1],
        [0, 1],
      ],
      [[0.5], [0]],
    ]) {
      const session = engine.openSession({ cachePolicy: { select: () => ({ kind: "positions", perHead }) } });
      session.extend([1, 2, 3, 4]);
      expect(() => session.extend([5]), JSON.stringify(perHead)).toThrow(ArgumentError);
      expect(session.length).toBe(4);
    }
    const session = engine.openSession({ keys: "unrotated" });
    const tooLong = Array.from({ length: config.contextLength + 1 }, () => 1);
    expect(() => session.extend(tooLong)).toThrow(ContextOverflowError);
  });

  it("cannot leave GPT-2's keys unrotated", async () => {
    const engine = await Engine.open(gpt2, lively(gpt2, 5));
    expect(() => engine.openSession({ keys: "unrotated" })).toThrow(ArgumentError);
  });
});
