import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, ContextOverflowError, FormatError } from "../../src/errors.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { Engine } from "../../src/model/engine.ts";
import { surprise } from "../../src/model/evaluation.ts";
import { type LanguageModel, row, type Session } from "../../src/model/language-model.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import {
  ChainDrafter,
  type ExitSchedule,
  type ExitScheduleOptions,
  exitSchedule,
  generateAll,
  loadSkipDecode,
  RsdSDrafter,
  skipDecode,
  skipDecodeBatch,
  verifyLossless,
} from "../../src/speculative/index.ts";
import { partFiles, serializePart } from "../../src/speculative/trained-parts.ts";
import { config, lively } from "../model/lively-decoders.ts";

const eightLayers = { ...config, layers: 8 };
/** The card's: 6 6 5 5 4 4 3 3 at positions 4 .. 11. */
const card: ExitScheduleOptions = { layers: 8, most: 6, least: 3, warmUp: 1, promptLength: 4, length: 12 };

let model: Engine;
let draft: Engine;
beforeAll(async () => {
  model = await Engine.open(eightLayers, lively(eightLayers, 1));
  draft = await Engine.open(config, lively(config, 2));
});
afterAll(() => {
  model.close();
  draft.close();
});

const ids = (count: number, start = 0): number[] => Array.from({ length: count }, (_, i) => ((i + start) * 7) % 23);
const columnsOf = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

describe("the schedule", () => {
  it("is the worked example's", () => {
    const schedule = exitSchedule(card);
    expect(columnsOf(4, 12).map(schedule.budget)).toEqual([6, 6, 5, 5, 4, 4, 3, 3]);
    expect(schedule.meanBudget).toBe(4.5);
    expect(columnsOf(4, 12).map((column) => schedule.layersAt(column).join(""))).toEqual([
      "034567",
      "034567",
      "04567",
      "04567",
      "0567",
      "0567",
      "067",
      "067",
    ]);
    expect(schedule.layersAt(3)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(schedule.layersAt(12)).toEqual([0, 6, 7]);
    expect(schedule.layersAt(1000)).toEqual([0, 6, 7]);
  });

  it("is twice as fast on 24 layers from 18 to 6, on average", () => {
    const schedule = exitSchedule({ layers: 24, most: 18, least: 6, promptLength: 40, length: 128 });
    expect(schedule.meanBudget).toBe(12);
  });

  it("rounds half up, in whole numbers", () => {
    // Ramps of 4 steps from 4 to 2: 4, 3.5, 3, 2.5, 2.
    const schedule = exitSchedule({ layers: 4, most: 4, least: 2, promptLength: 1, length: 6 });
    expect(columnsOf(1, 6).map(schedule.budget)).toEqual([4, 4, 3, 3, 2]);
  });

  it("has one column after the prompt at least, and then most and least are where they belong", () => {
    const schedule = exitSchedule({ layers: 4, most: 3, least: 2, promptLength: 1, length: 2 });
    expect([0, 1, 2].map(schedule.budget)).toEqual([4, 3, 2]);
  });

  it("can leave at the bottom instead, as a control", () => {
    const schedule = exitSchedule({ ...card, skips: "upper" });
    expect(schedule.layersAt(4)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(schedule.layersAt(11)).toEqual([0, 1, 2]);
  });

  const anySchedule = fc
    .record({ layers: fc.integer({ min: 1, max: 40 }), a: fc.nat(), b: fc.nat(), w: fc.nat() })
    .chain(({ layers, a, b, w }) => {
      const most = 1 + (a % layers);
      const least = 1 + (b % most);
      const warmUp = w % (least + 1);
      return fc.record({
        layers: fc.constant(layers),
        most: fc.constant(most),
        least: fc.constant(least),
        warmUp: fc.constant(warmUp),
        promptLength: fc.integer({ min: 1, max: 50 }),
        length: fc.integer({ min: 51, max: 200 }),
        skips: fc.constantFrom("lower" as const, "upper" as const),
      });
    });

  it("falls, between most and least, and every set is part of the one before", () => {
    fc.assert(
      fc.property(anySchedule, (options) => {
        const schedule = exitSchedule(options);
        for (let column = options.promptLength; column <= options.length + 2; column++) {
          const layers = schedule.layersAt(column);
          expect(layers.length).toBe(schedule.budget(column));
          expect(layers.length).toBeGreaterThanOrEqual(options.least);
          expect(layers.length).toBeLessThanOrEqual(options.most);
          const before = schedule.layersAt(column - 1);
          expect(layers.every((layer) => before.includes(layer))).toBe(true);
        }
      }),
      { numRuns: 60 },
    );
  });

  it.each<[string, Partial<ExitScheduleOptions>, string]>([
    ["no layers", { layers: 0 }, "layers"],
    ["a budget above the model", { most: 9 }, "most"],
    ["a budget that grows", { most: 3, least: 4 }, "least"],
    ["a budget of nothing", { least: 0, warmUp: 0 }, "least"],
    ["a budget below the warm-up", { least: 2, warmUp: 3 }, "least"],
    ["a negative warm-up", { warmUp: -1 }, "warmUp"],
    ["no prompt", { promptLength: 0 }, "promptLength"],
    ["nothing after the prompt", { length: 4 }, "length"],
    ["half a column", { length: 12.5 }, "length"],
    ["a direction it does not know", { skips: "middle" as "lower" }, "skips"],
  ])("refuses %s", (_, options, argument) => {
    expect(() => exitSchedule({ ...card, ...options })).toThrow(ArgumentError);
    expect(() => exitSchedule({ ...card, ...options })).toThrow(argument);
  });
});

describe("a model under a schedule", () => {
  it("is the model itself, to the bit, where nothing is skipped, and not lossy", () => {
    const schedule = exitSchedule({ ...card, most: 8, least: 8 });
    const whole = skipDecode(model, schedule);
    expect(whole.lossy).toBeUndefined();
    const [plain, scheduled] = [model.openSession(), whole.openSession()];
    for (const part of [ids(5), ids(4, 5), ids(1, 9)]) {
      expect(scheduled.extend(part, { logits: "all" })).toEqual(plain.extend(part, { logits: "all" }));
    }
    const tree = { tokens: [1, 2, 3, 4], parents: [-1, 0, 0, 2] };
    expect(scheduled.score(tree)).toEqual(plain.score(tree));
    scheduled.accept(3);
    plain.accept(3);
    expect(scheduled.extend([5])).toEqual(plain.extend([5]));
    expect(scheduled.cost).toEqual(plain.cost);
  });

  it("runs the layers of each column on top of whole caches, and nothing else", () => {
    const schedule = exitSchedule(card);
    const inner = model.openSession();
    const session = skipDecode({ ...models(inner), config: eightLayers }, schedule).openSession();
    session.extend(ids(4));
    const bytesOfRow = 2 * eightLayers.keyValueHeads * eightLayers.headWidth * 4;
    for (let position = 4; position < 14; position++) {
      const before = inner.cost.cacheBytesRead;
      session.extend([position]);
      // Every layer that ran read a row for every position before it.
      expect(inner.cost.cacheBytesRead - before).toBe(schedule.budget(position) * position * bytesOfRow);
    }
    // What stopped growing stopped where the schedule says.
    for (const [layer, filled] of [
      [1, 4],
      [2, 4],
      [3, 6],
      [4, 8],
      [5, 10],
    ] as const) {
      expect(() => inner.extend([1], { layers: [layer] })).toThrow(`skipped from position ${filled} on`);
    }
    inner.extend([1], { layers: [0, 6, 7] });
  });

  it("cannot follow a budget that grows: keys and values would be missing", () => {
    const falling = exitSchedule(card);
    const growing: ExitSchedule = {
      ...falling,
      layersAt: (column) => falling.layersAt(15 - column),
      budget: (column) => falling.budget(15 - column),
    };
    const session = skipDecode(model, growing).openSession();
    expect(() => session.extend(ids(12))).toThrow(ArgumentError);
    expect(session.length).toBe(0);
  });

  it("gives every row of a long input its own budget, embeddings too", () => {
    const schedule = exitSchedule(card);
    const tokens = ids(14);
    const oneByOne = skipDecode(model, schedule).openSession();
    const rows = tokens.map((id) => oneByOne.extend([id]).logits.data);
    const passes: string[] = [];
    const scheduled = skipDecode(model, schedule, {
      onPass: ({ columns, layers }) => passes.push(`${columns[0]}-${columns.at(-1)}: ${layers.join("")}`),
    });
    const { logits } = scheduled.openSession().extend(tokens, { logits: "all" });
    expect(passes).toEqual(["0-3: 01234567", "4-5: 034567", "6-7: 04567", "8-9: 0567", "10-13: 067"]);
    for (const [r, expected] of rows.entries()) near(row(logits, r), expected);
    near(scheduled.openSession().extend(tokens).logits.data, rows[13]!);
    expect(scheduled.openSession().extend(tokens, { logits: "none" }).logits.rows).toBe(0);

    const table = lively(eightLayers, 1).get("model.embed_tokens.weight")!.data;
    const data = Float32Array.from(tokens.flatMap((id) => [...table.subarray(id * 12, (id + 1) * 12)]));
    const embedded = scheduled.openSession().extend({ data, rows: 14, columns: 12 }, { logits: "all" });
    near(embedded.logits.data, logits.data);
    // Not what a pass of all layers says, nor one of the first row's budget.
    const whole = model.openSession().extend(tokens, { logits: "all" }).logits;
    expect(difference(row(whole, 3), row(logits, 3))).toBeLessThan(1e-4);
    expect(difference(row(whole, 4), row(logits, 4))).toBeGreaterThan(1e-2);
  });

  it("says what every layer is given, skipped ones too", () => {
    const schedule = exitSchedule(card);
    const { taps } = skipDecode(model, schedule)
      .openSession()
      .extend(ids(14), { logits: "none", taps: ["hidden"] });
    expect(taps!.hidden!.map(({ rows }) => rows)).toEqual(new Array(9).fill(14));
    for (let column = 0; column < 14; column++) {
      for (let layer = 0; layer < 8; layer++) {
        const [given, passedOn] = [row(taps!.hidden![layer]!, column), row(taps!.hidden![layer + 1]!, column)];
        expect(difference(given, passedOn) > 0).toBe(schedule.layersAt(column).includes(layer));
      }
    }
    const session = skipDecode(model, schedule).openSession();
    session.extend(ids(4), { taps: ["keys"] });
    expect(() => session.extend([1], { taps: ["hidden", "keys"] })).toThrow("taps");
  });

  it("scores a tree over columns of several budgets as its paths one by one", () => {
    const schedule = exitSchedule(card);
    // In breadth-first order, which is not the order it is walked in.
    const tree = { tokens: [3, 5, 8, 2, 9, 4, 6], parents: [-1, 0, 0, 1, 2, 4, -1] };
    const scored = skipDecode(model, schedule).openSession();
    scored.extend(ids(5));
    const { logits } = scored.score(tree);
    expect(scored.length).toBe(5);
    for (let node = 0; node < 7; node++) {
      const path: number[] = [];
      for (let n = node; n >= 0; n = tree.parents[n]!) path.unshift(tree.tokens[n]!);
      const alone = skipDecode(model, schedule).openSession();
      alone.extend(ids(5));
      near(row(logits, node), alone.extend(path).logits.data);
      // A node whose path the walk has left behind is run again.
      scored.score(tree);
      scored.accept(node);
      expect(scored.length).toBe(5 + path.length);
      near(scored.extend([7]).logits.data, alone.extend([7]).logits.data);
      scored.truncate(5);
    }
    const table = lively(eightLayers, 1).get("model.embed_tokens.weight")!.data;
    const data = Float32Array.from(tree.tokens.flatMap((id) => [...table.subarray(id * 12, (id + 1) * 12)]));
    near(scored.score(tree, { embeddings: { data, rows: 7, columns: 12 } }).logits.data, logits.data);
    expect(() => scored.score(tree, { embeddings: { data, rows: 6, columns: 12 } })).toThrow("embeddings");
    scored.score(tree);
    expect(() => scored.accept(7)).toThrow(ArgumentError);
    expect(() => scored.truncate(6)).toThrow(ArgumentError);
    scored.extend([1]);
    expect(() => scored.accept(0)).toThrow(ArgumentError);
    expect(scored.length).toBe(6);
  });

  it("drafts and verifies to the very tokens it decodes alone", async () => {
    const schedule = exitSchedule(card);
    for (const drafter of [new ChainDrafter(draft, { gamma: 3 }), new RsdSDrafter(draft)]) {
      for (const prompt of [ids(4), ids(4, 11)]) {
        const scheduled = skipDecode(model, schedule);
        const alone = await generateAll(scheduled, prompt, { maxTokens: 14 });
        const drafted = await generateAll(scheduled, prompt, { maxTokens: 14, drafter });
        expect(drafted.tokens).toEqual(alone.tokens);
        expect(drafted.drafted).toBeGreaterThan(0);
        expect(alone.tokens).not.toEqual((await generateAll(model, prompt, { maxTokens: 14 })).tokens);
      }
    }
  });

  it("leaves a session as it was when it refuses an input", () => {
    const session = skipDecode(model, exitSchedule(card)).openSession();
    session.extend(ids(3));
    expect(() => session.extend([1, 2, 3, 4, 23])).toThrow(ArgumentError);
    expect(() => session.extend([])).toThrow(ArgumentError);
    expect(() => session.extend(ids(22))).toThrow(ContextOverflowError);
    expect(() => session.score({ tokens: ids(22), parents: columnsOf(-1, 21) })).toThrow(ContextOverflowError);
    expect(() => session.extend([1], { layers: [0] })).toThrow("layers");
    expect(() => session.score({ tokens: [1], parents: [-1] }, { layers: [0] })).toThrow("layers");
    expect(session.length).toBe(3);
    session.close();
    expect(() => session.extend([1])).toThrow("closed");
  });

  it("refuses a schedule for another model, and a prompt of no tokens", () => {
    expect(() => skipDecode(draft, exitSchedule(card))).toThrow("schedule");
    expect(() => skipDecode(model, exitSchedule(card), { promptLength: 0 })).toThrow("promptLength");
  });
});

describe("a batch", () => {
  const prompts = [ids(4), ids(2, 3), ids(7, 9)];

  it("runs 36 layers in place of 64 for every sequence after the prompt", async () => {
    const schedule = exitSchedule(card);
    const passes: number[][] = [];
    // The token after the prompt comes from its last column, so 9 tokens fill columns 4 .. 11.
    const { reports, layerExecutions } = await skipDecodeBatch(model, prompts, schedule, {
      maxTokens: 9,
      onPass: ({ sequence, columns }) => passes.push([columns.at(-1)!, sequence]),
    });
    expect(layerExecutions).toEqual({ prompt: (4 + 2 + 7) * 8, generated: 3 * 36 });
    expect(reports.map(({ tokens }) => tokens.length)).toEqual([9, 9, 9]);
    expect(reports.every(({ lossy }) => lossy)).toBe(true);
    // Column by column, all sequences in each.
    const steps = passes.filter(([column]) => column! >= 3);
    expect(steps).toEqual(columnsOf(3, 12).flatMap((column) => [0, 1, 2].map((sequence) => [column, sequence])));
    // What the engine counted is what the schedule says.
    const full = await skipDecodeBatch(model, prompts, exitSchedule({ ...card, most: 8, least: 8 }), { maxTokens: 9 });
    expect(full.layerExecutions.generated).toBe(3 * 64);
    const perLayer = reports[0]!.cost.target.cacheBytesRead / full.reports[0]!.cost.target.cacheBytesRead;
    const read = (budget: (column: number) => number) => columnsOf(3, 12).reduce((sum, c) => sum + budget(c) * c, 0);
    expect(perLayer).toBeCloseTo(read(schedule.budget) / read(() => 8), 12);
  });

  it.each([0, 1])("gives a sequence the tokens it gets alone, at temperature %d", async (temperature) => {
    const schedule = exitSchedule(card);
    const { reports } = await skipDecodeBatch(model, prompts, schedule, { maxTokens: 12, temperature, seed: 5 });
    for (const [i, prompt] of prompts.entries()) {
      const alone = skipDecode(model, schedule, { promptLength: prompt.length });
      const report = await generateAll(alone, prompt, { maxTokens: 12, temperature, seed: `5 ${i}` });
      expect(reports[i]!.tokens).toEqual(report.tokens);
    }
  });

  it("lets a sequence that has ended rest", async () => {
    const schedule = exitSchedule(card);
    const all = await skipDecodeBatch(model, prompts, schedule, { maxTokens: 12 });
    const stop = all.reports[0]!.tokens[2]!;
    const { reports } = await skipDecodeBatch(model, prompts, schedule, { maxTokens: 12, stopTokens: [stop] });
    reports.forEach(({ tokens, targetPasses }, i) => {
      const whole = all.reports[i]!.tokens;
      const end = whole.indexOf(stop);
      expect(tokens).toEqual(end < 0 ? whole : whole.slice(0, end + 1));
      expect(targetPasses).toBe(tokens.length);
    });
  });

  it("refuses what has no sequences, or an empty one", async () => {
    await expect(skipDecodeBatch(model, [], exitSchedule(card))).rejects.toThrow("prompts");
    await expect(skipDecodeBatch(model, [[1], []], exitSchedule(card))).rejects.toThrow("prompt");
  });
});

describe("what the proof of losslessness says of it", () => {
  it.each([
    [1, "failed"],
    [2, "lossless"],
  ] as const)("with %d of 2 layers after the prompt: %s", async (least, kind) => {
    const schedule = exitSchedule({ layers: 2, most: 2, least, promptLength: 3, length: 5 });
    const report = await verifyLossless((draft) => ({ drafter: new ChainDrafter(draft, { gamma: 2 }) }), {
      draws: 300,
      budgets: [2],
      dress: (table) => skipDecode(ofTwoLayers(table), schedule),
    });
    expect(report.kind).toBe(kind);
  });

  it("tables have no layers to skip, and say so", () => {
    const session = skipDecode(TableModel.random({ vocabularySize: 5 }), exitSchedule(card)).openSession();
    session.extend([1, 2, 3, 4]);
    expect(() => session.extend([1])).toThrow("A table has no layers");
  });
});

describe("a decoder tuned to skip", () => {
  it("comes from a folder with the schedule it was tuned under", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tokenthrift-skipdecode-"));
    try {
      const write = async (details: unknown) => {
        const bytes = serializePart({ kind: "skipdecode", weights: lively(eightLayers, 1), details });
        await writeFile(join(folder, partFiles.weights), bytes);
      };
      await write({ config: eightLayers, schedule: card });
      const { model: read, schedule } = await loadSkipDecode({ folder });
      expect(columnsOf(3, 13).map(schedule.budget)).toEqual([8, 6, 6, 5, 5, 4, 4, 3, 3, 3]);
      // 8 bits a weight: near, not the same.
      const [got, expected] = [read, model].map((one) => one.openSession().extend(ids(6)).logits.data);
      expect(difference(got!, expected!)).toBeGreaterThan(0);
      expect(difference(got!, expected!)).toBeLessThan(0.2 * Math.max(...expected!));
      read.close();

      await write({ config: eightLayers });
      await expect(loadSkipDecode({ folder })).rejects.toThrow(FormatError);
      await write({ config: eightLayers, schedule: { ...card, least: 7 } });
      await expect(loadSkipDecode({ folder })).rejects.toThrow(FormatError);
      await write({ config: { ...eightLayers, heads: 5 }, schedule: card });
      await expect(loadSkipDecode({ folder })).rejects.toThrow(FormatError);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("is better at it than the target it was made from, says that it is lossy, and costs less", async () => {
    const { model: target, tokenizer } = await loadEmbedded("target");
    const { model: tuned, schedule, training } = await loadSkipDecode();
    const path = new URL("../../src/held-out-prompts.ts", import.meta.url);
    // Text neither has seen: the start of this project's own prompts, 193 tokens.
    const text = tokenizer.encode(await readFile(path, "utf8")).subarray(200, 200 + schedule.length + 1);
    const nats = (scheduled: LanguageModel): number => {
      const { logits } = scheduled.openSession().extend(text.subarray(0, schedule.length), { logits: "all" });
      let bits = 0;
      for (let next = schedule.promptLength; next < text.length; next++) {
        bits += surprise(row(logits, next - 1), text[next]!);
      }
      return bits / (text.length - schedule.promptLength);
    };
    expect(nats(skipDecode(tuned, schedule))).toBeLessThan(nats(skipDecode(target, schedule)));
    expect(training).toMatchObject({ objective: { schedule: { most: 4, least: 2, warmUp: 1 } } });

    const prompt = tokenizer.encode(heldOutPrompts[0]!.text);
    const scheduled = skipDecode(tuned, schedule, { promptLength: prompt.length });
    const report = await generateAll(scheduled, prompt, { maxTokens: 96 });
    const plain = await generateAll(target, prompt, { maxTokens: 96 });
    expect(report.lossy).toBe(true);
    expect(plain.lossy).toBe(false);
    expect(report.cost.target.multiplyAdds).toBeLessThan(plain.cost.target.multiplyAdds);
    target.close();
    tuned.close();
  });
});

/** A table as a model of two layers; one of them alone says the ids backwards. */
function ofTwoLayers(table: LanguageModel): LanguageModel {
  const turned = (pass: ReturnType<Session["extend"]>, layers: readonly number[] | undefined) => {
    if (layers === undefined) return pass;
    const { data, rows, columns } = pass.logits;
    const logits = { data: data.slice(), rows, columns };
    for (let r = 0; r < rows; r++) row(logits, r).reverse();
    return { logits };
  };
  return {
    vocabularySize: table.vocabularySize,
    contextLength: table.contextLength,
    openSession() {
      const session = table.openSession();
      return {
        get length() {
          return session.length;
        },
        get cost() {
          return session.cost;
        },
        extend: (input, { layers, ...options } = {}) => turned(session.extend(input, options), layers),
        score: (tree, { layers, ...options } = {}) => turned(session.score(tree, options), layers),
        accept: (node) => session.accept(node),
        truncate: (length) => session.truncate(length),
        close: () => session.close(),
      };
    },
  };
}

/** A model whose only session is the one given. */
function models(session: Session): LanguageModel {
  return { vocabularySize: 23, contextLength: 24, openSession: () => session };
}

function difference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

function near(got: Float32Array, expected: Float32Array): void {
  const size = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1);
  expect(difference(got, expected)).toBeLessThan(1e-5 * size);
}
