/**
 * The threads: the same bits as one thread, whoever computes what; and no worker, however it ends, that stops the work.
 *
 * Splitting is forced, with every worker left its own share, so that workers really compute; they are recorded as they are
 * made, and some are made wrong.
 */
import { execFile } from "node:child_process";
import { syncBuiltinESMExports } from "node:module";
import threads, { Worker, type WorkerOptions } from "node:worker_threads";
import fc from "fast-check";
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ArgumentError, BackendError, MemoryError, TokenthriftError } from "../../src/errors.ts";
import {
  attentionScratchFloats,
  type KernelSpace,
  type Kernels,
  openKernels,
  WorkerPool,
  type WorkerPoolOptions,
} from "../../src/kernels/index.ts";
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import { Engine, type EngineOptions } from "../../src/model/engine.ts";
import type { EngineSessionOptions } from "../../src/model/engine-session.ts";
import { config, gpt2, lively, tied } from "../model/lively-decoders.ts";
import { describeSessionConformance } from "../model/session-conformance.ts";
import { Draw, roundUp, seeds } from "./guarded.ts";

/** The workers that were made. */
const workers: Worker[] = [];
/** What becomes of a worker's code. */
let rewrite: (code: string, thread: number) => string;

class Recorded extends Worker {
  constructor(code: string, options: WorkerOptions) {
    super(rewrite(code, options.workerData.thread), options);
    workers.push(this);
  }
}
threads.Worker = Recorded as typeof Worker;
syncBuiltinESMExports();
afterAll(() => {
  threads.Worker = Worker;
  syncBuiltinESMExports();
});

/** Where a worker computes. */
const computing = "kernels[number](...call);";

/** Every wait is for something that comes; how soon is up to the machine. */
const until = (condition: () => boolean) => vi.waitUntil(condition, { timeout: 20_000, interval: 5 });

/** Pools to be closed. */
const pools: WorkerPool[] = [];
beforeEach(() => {
  rewrite = (code) => code;
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  for (const pool of pools.splice(0)) await pool.close();
  await until(() => workers.every(({ threadId }) => threadId === -1)); // none is left, after any test
  workers.length = 0;
});

async function open(options: WorkerPoolOptions): Promise<[KernelSpace, WorkerPool]> {
  const space = await openKernels({ kernels: "simd", shared: true });
  const pool = await WorkerPool.open(space, options);
  pools.push(pool);
  return [space, pool];
}

/** A pool that measured these milliseconds: until workers answer, for a product on one thread, and on all. */
async function openMeasured(answer: number, one: number, all: number, threads = 2): Promise<[KernelSpace, WorkerPool]> {
  const space = await openKernels({ kernels: "simd", shared: true });
  const { arena } = space;
  vi.spyOn(arena, "allocate").mockImplementationOnce((bytes) => {
    const times = [0, 0, 8 * answer, 0, 8 * one, 0, 8 * all, 1e9];
    vi.spyOn(performance, "now").mockImplementation(() => times.shift()!);
    return arena.allocate(bytes);
  });
  const pool = await WorkerPool.open(space, { threads });
  vi.restoreAllMocks();
  pools.push(pool);
  return [space, pool];
}

/** A block with numbers in it; it is added to `blocks`. */
function place({ arena }: KernelSpace, floats: number, draw: Draw, blocks: number[]): number {
  const pointer = arena.allocate(4 * floats);
  blocks.push(pointer);
  arena.floats.set(draw.row(floats), pointer / 4);
  return pointer;
}

/** What `call` leaves in a block of numbers, of which it writes some, with either kernels. */
function expectSame(space: KernelSpace, kernels: Kernels, y: number, floats: number, call: (k: Kernels) => void): void {
  const { arena } = space;
  const read = (): Float32Array => arena.floats.slice(y / 4, y / 4 + floats);
  const before = read();
  call(space.kernels);
  const alone = read();
  arena.floats.set(before, y / 4);
  call(kernels);
  const split = read();
  const differs = alone.findIndex((value, i) => !Object.is(value, split[i]));
  if (differs >= 0) throw new Error(`float ${differs}: ${split[differs]}, on one thread ${alone[differs]}`);
}

const products = fc.record({
  rows: fc.integer({ min: 1, max: 40 }),
  inputs: fc.integer({ min: 1, max: 40 }),
  skipped: fc.nat(3),
  panels: fc.integer({ min: 1, max: 30 }),
  left: fc.nat(3),
  format: fc.constantFrom(0, 1, 2),
  biased: fc.boolean(),
  accumulate: fc.constantFrom<0 | 1>(0, 1),
  seed: seeds,
});
type Product = typeof products extends fc.Arbitrary<infer T> ? T : never;

function checkProduct(space: KernelSpace, kernels: Kernels, one: Product): void {
  const { rows, inputs, skipped, format, biased, accumulate } = one;
  const draw = new Draw(one.seed);
  const blocks: number[] = [];
  const panels = skipped + one.panels + one.left;
  const xStride = roundUp(inputs, 8);
  const x = place(space, rows * xStride, draw, blocks);
  const w = place(space, panels * 8 * inputs, draw, blocks);
  if (format > 0) {
    // Numbers of 16 bits that are finite in both formats.
    const halves = new Uint16Array(space.arena.bytes.buffer, w, panels * 8 * inputs);
    for (let i = 0; i < halves.length; i++) halves[i]! &= 0xbbff;
  }
  const bias = biased ? place(space, panels * 8, draw, blocks) : 0;
  const y = place(space, rows * panels * 8, draw, blocks);
  const [first, end, stride] = [skipped, skipped + one.panels, panels * 8];
  expectSame(space, kernels, y, rows * stride, (k) => {
    k.product(x, xStride, rows, w, format, inputs, first, end, y, stride, bias, accumulate);
  });
  for (const block of blocks) space.arena.free(block);
}

const passes = fc.record({
  rows: fc.integer({ min: 1, max: 7 }),
  length: fc.nat(40),
  listed: fc.boolean(),
  tree: fc.boolean(),
  group: fc.integer({ min: 1, max: 3 }),
  skipped: fc.nat(1),
  keyHeads: fc.integer({ min: 1, max: 5 }),
  width: fc.constantFrom(4, 8, 12),
  weighed: fc.boolean(),
  seed: seeds,
});
type Pass = typeof passes extends fc.Arbitrary<infer T> ? T : never;

function checkAttend(space: KernelSpace, kernels: Kernels, pass: Pass): void {
  const { rows, length, group, skipped, width } = pass;
  const draw = new Draw(pass.seed);
  const blocks: number[] = [];
  const { arena } = space;
  const keyHeads = skipped + pass.keyHeads;
  const heads = keyHeads * group;
  const capacity = length + rows;
  const stride = roundUp(heads * width, 8);
  const q = place(space, rows * stride, draw, blocks);
  const keys = place(space, keyHeads * capacity * width, draw, blocks);
  const values = place(space, keyHeads * capacity * width, draw, blocks);
  const selected = pass.listed && length > 0 ? Math.ceil(length / 2) : 0;
  const indices = selected > 0 ? place(space, keyHeads * selected, draw, blocks) : 0;
  for (let i = 0; i < keyHeads * selected; i++) arena.integers[indices / 4 + i] = 2 * (i % selected);
  const ancestors = pass.tree ? place(space, rows * rows, draw, blocks) : 0;
  for (let i = 0; pass.tree && i < rows * rows; i++)
    arena.bytes[ancestors + i] = i % (rows + 1) === 0 ? 1 : draw.index(2);
  const span = (indices === 0 ? length : selected) + rows;
  const scratch = place(space, attentionScratchFloats(span), draw, blocks);
  // Behind the mixed values the weights: in one block, to compare both.
  const mixed = rows * stride;
  const y = place(space, mixed + heads * rows * span, draw, blocks);
  const weights = pass.weighed ? y + 4 * mixed : 0;
  expectSame(space, kernels, y, mixed + heads * rows * span, (k) => {
    k.attend(q, stride, rows, keys, values, capacity, length, indices, selected, ancestors, heads, keyHeads, width, 0.3, skipped, keyHeads, y, stride, scratch, weights); // biome-ignore format: one line
  });
  for (const block of blocks) arena.free(block);
}

/** Thirty-two panels of 64 inputs for `rows` rows, as one call. */
function aProduct(space: KernelSpace, rows: number): { call: Parameters<Kernels["product"]>; floats: number } {
  const draw = new Draw(3);
  const x = place(space, rows * 64, draw, []);
  const w = place(space, 64 * 256, draw, []);
  return { call: [x, 64, rows, w, 0, 64, 0, 32, place(space, rows * 256, draw, []), 256, 0, 0], floats: rows * 256 };
}

function expectSameProduct(space: KernelSpace, pool: WorkerPool, rows = 4): void {
  const { call, floats } = aProduct(space, rows);
  expectSame(space, pool.kernels, call[8], floats, (k) => k.product(...call));
}

describe("kernels on threads", () => {
  it.each([2, 3])("compute products with the bits of one thread, on %i threads", async (threads) => {
    const [space, { kernels }] = await open({ threads, forceSplit: true });
    fc.assert(
      fc.property(products, (one) => checkProduct(space, kernels, one)),
      { numRuns: 40 },
    );
  });

  it.each([2, 3])("attend with the bits of one thread, on %i threads", async (threads) => {
    const [space, { kernels }] = await open({ threads, forceSplit: true });
    fc.assert(
      fc.property(passes, (pass) => checkAttend(space, kernels, pass)),
      { numRuns: 40 },
    );
  });

  it.each([
    ["computes nothing", ";"],
    ["computes a unit too many", "call[range + 1]++; kernels[number](...call);"],
    ["stops a unit early", "call[range + 1]--; if (call[range + 1] > call[range]) kernels[number](...call);"],
    ["starts at the next chunk", "call[range] += step; kernels[number](...call);"],
  ])("are caught by the same properties when a worker %s", async (_, instead) => {
    rewrite = (code) => code.replace(computing, instead);
    const [space, { kernels }] = await open({ threads: 2, forceSplit: true });
    const found = [
      fc.check(
        fc.property(products, (one) => checkProduct(space, kernels, one)),
        { numRuns: 60, seed: 1, endOnFailure: true },
      ),
      fc.check(
        fc.property(passes, (pass) => checkAttend(space, kernels, pass)),
        { numRuns: 60, seed: 1, endOnFailure: true },
      ),
    ];
    expect(found.some(({ failed }) => failed)).toBe(true);
  });

  it("take each other's chunks and leave what has not begun, with the bits of one thread", async () => {
    const [space, pool] = await openMeasured(1e-9, 0.02, 0.01, 3);
    expect(pool.smallestSplit).toBeLessThan(1);
    fc.assert(
      fc.property(products, passes, (one, pass) => {
        checkProduct(space, pool.kernels, one);
        checkAttend(space, pool.kernels, pass);
      }),
      { numRuns: 40 },
    );
    for (let i = 0; i < 150; i++) expectSameProduct(space, pool, 1 + (i % 5));
  });

  it("attend in scratch of their own", async () => {
    const [space, pool] = await open({ threads: 3, forceSplit: true });
    const { arena } = space;
    const draw = new Draw(5);
    const [heads, width, length] = [3, 8, 20];
    const [q, keys, values] = [heads * width, heads * 21 * width, heads * 21 * width].map((floats) =>
      place(space, floats, draw, []),
    ) as [number, number, number];
    const y = arena.allocate(4 * heads * width);
    const floats = attentionScratchFloats(length + 1);
    const attend = (kernels: Kernels, scratch: number, first: number, end: number): number => {
      kernels.attend(q, 24, 1, keys, values, 21, length, 0, 0, 0, heads, heads, width, 0.3, first, end, y, 24, scratch, 0); // biome-ignore format: one line
      return scratch;
    };
    const read = (scratch: number): Float32Array => arena.floats.slice(scratch / 4, scratch / 4 + floats);
    const alone = [0, 1, 2].map((head) => read(attend(space.kernels, arena.allocate(4 * floats), head, head + 1)));
    const own = arena.allocate(4 * floats);
    const allocate = vi.spyOn(arena, "allocate");
    attend(pool.kernels, own, 0, heads);
    const [[bytes]] = allocate.mock.calls as [[number]];
    const workers = allocate.mock.results[0]!.value as number;
    expect([own, workers, workers + bytes / 2].map(read)).toEqual(alone);
    expect(new Set(alone.map(String)).size).toBe(3);
  });

  it("see memory that was added while the workers slept", async () => {
    const [space, pool] = await open({ threads: 2, forceSplit: true });
    const { arena } = space;
    expectSameProduct(space, pool);
    for (let i = 0; i < 3; i++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      const { size } = arena;
      arena.allocate(20 * 2 ** 20);
      expect(arena.size).toBeGreaterThan(size);
      expectSameProduct(space, pool);
    }
  });
});

describe("what is split", () => {
  it("is what was measured to be faster: from (the workers' answer) / (what a multiply-add saves) on", async () => {
    const [space, pool] = await openMeasured(0.002, 0.03, 0.02);
    expect(pool.threads).toBe(2);
    expect(pool.smallestSplit).toBeCloseTo(0.2 * 64 * 64 * 128, 3);
    const offers = vi.spyOn(Atomics, "exchange");
    const multiplyAdds = (rows: number) => rows * 64 * 256;
    for (const [rows, split] of [
      [1, false],
      [6, false],
      [7, true],
      [8, true],
    ] as const) {
      expect(multiplyAdds(rows) >= pool.smallestSplit).toBe(split);
      const { call } = aProduct(space, rows);
      offers.mockClear();
      pool.kernels.product(...call);
      expect(offers.mock.calls.length).toBe(split ? 1 : 0);
    }
  });

  it("is nothing where two threads together are no faster than one; then there are no workers", async () => {
    for (const all of [0.0271, 0.03, 0.05]) {
      const [space, pool] = await openMeasured(0.002, 0.03, all);
      expect([pool.threads, pool.smallestSplit]).toEqual([1, Number.POSITIVE_INFINITY]);
      expect(workers.map(({ threadId }) => threadId)).toEqual([-1]);
      workers.length = 0;
      expectSameProduct(space, pool, 64);
    }
  });

  it("is measured on this machine within a second, and leaves the arena as it was", async () => {
    const [{ arena }, pool] = await open({ threads: 2 });
    expect(arena.usedBytes).toBe(0);
    expect(pool.smallestSplit).toBeGreaterThan(0);
    expect(pool.threads).toBe(pool.smallestSplit === Number.POSITIVE_INFINITY ? 1 : 2);
  });
});

describe("a worker", () => {
  it("that dies between two calls is noticed, said once, and not needed", async () => {
    const warnings = vi.spyOn(console, "warn").mockReturnValue();
    const [space, pool] = await open({ threads: 3, forceSplit: true });
    const ended = workers[1]!.terminate();
    expectSameProduct(space, pool); // nobody knows yet
    await ended;
    await until(() => pool.threads === 1);
    expectSameProduct(space, pool);
    await until(() => workers[0]!.threadId === -1);
    expect(warnings.mock.calls).toEqual([
      ["tokenthrift: a worker thread ended (exit code 1); the kernels go on on one thread."],
    ]);
  });

  it("that throws in a kernel makes the call throw, and the next run on one thread", async () => {
    const warnings = vi.spyOn(console, "warn").mockReturnValue();
    rewrite = (code) => code.replace(computing, 'throw new Error("no such luck");');
    const [space, pool] = await open({ threads: 2, forceSplit: true });
    const { call } = aProduct(space, 4);
    expect(() => pool.kernels.product(...call)).toThrow(TokenthriftError);
    expect([pool.threads, pool.smallestSplit]).toEqual([1, Number.POSITIVE_INFINITY]);
    expectSameProduct(space, pool);
    await until(() => warnings.mock.calls.length > 0);
    await until(() => workers[0]!.threadId === -1);
    expect(warnings.mock.calls).toEqual([[expect.stringMatching(/Error: no such luck.*one thread/)]]);
  });

  it("that never ends a chunk is given up and ended", async () => {
    const warnings = vi.spyOn(console, "warn").mockReturnValue();
    rewrite = (code) => code.replace(computing, "for (;;);");
    const [space, pool] = await open({ threads: 2, forceSplit: true });
    const { call } = aProduct(space, 4);
    const wait = vi.spyOn(Atomics, "wait");
    wait.mockImplementation((...[states, at, value]: unknown[]) => {
      // Wait until the worker has begun; then a minute in no time.
      while (value === 2 && Atomics.load(states as Int32Array, at as number) === 2);
      return "timed-out";
    });
    expect(() => pool.kernels.product(...call)).toThrow(TokenthriftError);
    expect(wait.mock.calls.length).toBeGreaterThanOrEqual(60);
    expect(pool.threads).toBe(1);
    expect(warnings.mock.calls).toEqual([[expect.stringContaining("did not finish a kernel within 60 seconds")]]);
    expectSameProduct(space, pool);
    await until(() => workers[0]!.threadId === -1);
  });

  it("that cannot start is an error, and ends the others", async () => {
    const warnings = vi.spyOn(console, "warn").mockReturnValue();
    const failing = ['throw new Error("not today");', "process.exit(3);"];
    for (const failure of failing) {
      rewrite = (code, thread) => (thread === 2 ? failure + code : code);
      const opening = open({ threads: 3 });
      await expect(opening).rejects.toThrow(BackendError);
      await expect(opening).rejects.toThrow(/a worker cannot be started \(Error: (not today|exit code 3)\)/);
      await until(() => workers.every(({ threadId }) => threadId === -1));
    }
    expect(workers).toHaveLength(4);
    expect(warnings).not.toHaveBeenCalled();
  });

  it("does not hide what a kernel throws on this thread", async () => {
    const [space, pool] = await open({ threads: 2, forceSplit: true });
    vi.spyOn(console, "warn").mockReturnValue();
    const { call } = aProduct(space, 4);
    const outside = call.with(3, space.arena.size) as typeof call; // the weights
    expect(() => pool.kernels.product(...outside)).toThrow(WebAssembly.RuntimeError);
    expectSameProduct(space, pool);
    await until(() => pool.threads === 1);
  });
});

describe("a pool", () => {
  it("closes twice, ends its workers, frees its memory and goes on on one thread", async () => {
    const [space, pool] = await open({ threads: 3, forceSplit: true });
    const used = space.arena.usedBytes;
    checkAttend(space, pool.kernels, { rows: 2, length: 9, listed: false, tree: false, group: 1, skipped: 0, keyHeads: 3, width: 4, weighed: false, seed: 1 }); // biome-ignore format: one line
    expect(space.arena.usedBytes).toBeGreaterThan(used);
    const closed = pool.close();
    await pool.close();
    await closed;
    expect(workers.map(({ threadId }) => threadId)).toEqual([-1, -1]);
    expect(space.arena.usedBytes).toBe(used);
    expect([pool.threads, pool.smallestSplit]).toEqual([1, Number.POSITIVE_INFINITY]);
    expectSameProduct(space, pool);
  });

  it("needs a number of threads, and kernels in shared memory", async () => {
    const space = await openKernels({ kernels: "simd", shared: true });
    for (const threads of [0, 1, -2, 1.5, 65, Number.NaN]) {
      await expect(WorkerPool.open(space, { threads }), String(threads)).rejects.toThrow(ArgumentError);
    }
    for (const kernels of ["simd", "plain"] as const) {
      const alone = await openKernels({ kernels });
      await expect(WorkerPool.open(alone, { threads: 2 }), kernels).rejects.toThrow(BackendError);
    }
    expect(workers).toHaveLength(0);
  });

  it("has an error of its own where memory cannot be shared", async () => {
    vi.stubGlobal("SharedArrayBuffer", undefined);
    const opening = openKernels({ kernels: "simd", shared: true });
    await expect(opening).rejects.toThrow(BackendError);
    await expect(opening).rejects.toThrow(/Cross-Origin-Embedder-Policy/);
  });
});

/** Heads, widths and a vocabulary that fill no lane and no panel. */
const ragged: DecoderConfig = { ...config, width: 13, heads: 6, keyValueHeads: 3, headWidth: 6, hiddenWidth: 17 };

describe("an engine on threads", () => {
  const openEngine = (shape: DecoderConfig, options: EngineOptions = {}) =>
    Engine.open(shape, lively(shape, 4), { kernels: "simd", ...options });

  describe("in sessions", () => {
    let engine: Engine;
    const openOnce = async () => {
      engine = await openEngine(ragged, { threads: 2, forceSplit: true });
      workers.length = 0; // this one stays
      return engine;
    };
    afterAll(() => {
      expect(engine.threads.count).toBe(2);
      engine.close();
    });
    describeSessionConformance("an engine on two threads", openOnce, { tolerance: 2e-4, runs: 3, longest: 6 });
  });

  const somewhere: EngineSessionOptions = {
    cachePolicy: {
      select: ({ length }) => ({
        kind: "positions",
        forAllHeads: Array.from({ length }, (_, i) => i).filter((i) => i % 3 !== 1),
      }),
    },
  };
  it.each([
    ["Llama", config, {}],
    ["Llama without groups", tied, {}],
    ["GPT-2", gpt2, {}],
    ["widths of no kind", ragged, {}],
    ["chosen positions", config, somewhere],
    ["unrotated keys", config, { ...somewhere, keys: "unrotated" }],
  ] as const)("gives the bits of one thread: %s", async (_, shape, options) => {
    const run = (engine: Engine) => {
      const session = engine.openSession(options);
      const taps = ["hidden", "queries", "keys", "attention"] as const;
      const passes = [session.extend([3, 22, 0, 7, 7, 19, 4], { logits: "all", taps })];
      passes.push(session.score({ tokens: [1, 2, 3, 4, 5], parents: [-1, 0, 0, 1, -1] }, { taps }));
      session.accept(3);
      passes.push(session.extend([8]), session.extend([9], { taps }));
      return { passes, cost: session.cost };
    };
    const [alone, split] = [await openEngine(shape), await openEngine(shape, { threads: 2, forceSplit: true })];
    expect(alone.threads).toEqual({ count: 1, smallestSplit: Number.POSITIVE_INFINITY });
    expect(split.threads).toEqual({ count: 2, smallestSplit: 0 });
    expect(run(split)).toEqual(run(alone));
    alone.close();
    split.close();
    split.close();
    expect(split.threads.count).toBe(1);
  });

  it("has no workers left when it could not be opened, or is closed", async () => {
    const tooLittle = openEngine({ ...config, hiddenWidth: 900 }, { threads: 2, maximumBytes: 131_072 });
    await expect(tooLittle).rejects.toThrow(MemoryError);
    expect(workers.map(({ threadId }) => threadId)).toEqual([-1]);
    await expect(openEngine(config, { threads: 0 })).rejects.toThrow(ArgumentError);
    await expect(openEngine(config, { threads: 2, kernels: "plain" })).rejects.toThrow(BackendError);
    for (let i = 0; i < 5; i++) (await openEngine(config, { threads: 2, forceSplit: true })).close();
    expect(workers).toHaveLength(6); // and each test ends by waiting for them
  });

  it("goes on after a worker failed: the session is as before the pass", async () => {
    vi.spyOn(console, "warn").mockReturnValue();
    // The tenth call of a kernel fails.
    rewrite = (code) => `let calls = 0;${code.replace(computing, `if (++calls > 9) throw 0; ${computing}`)}`;
    const [alone, split] = [await openEngine(config), await openEngine(config, { threads: 2, forceSplit: true })];
    const [expected, session] = [alone.openSession(), split.openSession()];
    expect(() => session.extend([1, 2, 3])).toThrow(TokenthriftError);
    expect(session.length).toBe(0);
    expect(session.extend([1, 2, 3]).logits).toEqual(expected.extend([1, 2, 3]).logits);
    expect(split.threads.count).toBe(1);
    split.close();
  });
});

/** What a fresh Node process prints. It must end by itself. */
function inFreshProcess(body: string): Promise<string> {
  const script = `const { openKernels, WorkerPool } = await import("./src/kernels/index.ts");\n${body}`;
  return new Promise((resolve, reject) => {
    const args = ["--import", "tsx", "--input-type=module", "--eval", script];
    execFile(process.execPath, args, { timeout: 20_000 }, (error, output, errors) => {
      if (error === null && errors === "") resolve(output.trim());
      else reject(new Error(`${error?.message}\n${output}${errors}`));
    });
  });
}

const compare = `
  function compare({ arena, kernels }, pool) {
    const [x, w, y] = [arena.allocate(4 * 64), arena.allocate(4 * 64 * 256), arena.allocate(4 * 256)];
    for (let i = 0; i < 64 * 256; i++) arena.floats[w / 4 + i] = Math.sin(i);
    for (let i = 0; i < 64; i++) arena.floats[x / 4 + i] = Math.cos(i);
    const results = [kernels, pool.kernels].map((k) => {
      k.product(x, 64, 1, w, 0, 64, 0, 32, y, 256, 0, 0);
      return arena.floats.slice(y / 4, y / 4 + 256).join();
    });
    return results[0] === results[1];
  }`;

describe("a process", () => {
  it.concurrent("ends with a pool open", async ({ expect }) => {
    const output = await inFreshProcess(`${compare}
      const space = await openKernels({ kernels: "simd", shared: true });
      const pool = await WorkerPool.open(space, { threads: 2, forceSplit: true });
      console.log(pool.threads, compare(space, pool));
    `);
    expect(output).toBe("2 true");
  });

  it.concurrent("that is a browser's page has Web Workers, and waits awake", async ({ expect }) => {
    // What differs in a page, with the workers of Node behind it.
    const output = await inFreshProcess(`${compare}
      const { Worker: NodeWorker } = await import("node:worker_threads");
      const { resolveObjectURL } = await import("node:buffer");
      globalThis.Worker = class {
        #worker;
        constructor(url) {
          this.#worker = resolveObjectURL(url).text().then((code) => {
            const page = 'const { parentPort } = require("node:worker_threads");' +
              "globalThis.onmessage = undefined; globalThis.postMessage = (data) => parentPort.postMessage(data);" +
              'parentPort.once("message", (data) => globalThis.onmessage({ data }));';
            const worker = new NodeWorker(page + ";(0, eval)(" + JSON.stringify(code) + ")", { eval: true, execArgv: [] });
            worker.on("message", (data) => this.onmessage({ data }));
            worker.on("error", ({ message }) => this.onerror({ message }));
            return worker;
          });
        }
        async postMessage(data) { (await this.#worker).postMessage(data); }
        async terminate() { await (await this.#worker).terminate(); }
      };
      Atomics.wait = () => { throw new TypeError("Atomics.wait cannot be called in this context"); };
      const { process } = globalThis;
      globalThis.process = undefined;
      const space = await openKernels({ kernels: "simd", shared: true });
      const pool = await WorkerPool.open(space, { threads: 2, forceSplit: true });
      const same = Array.from({ length: 20 }, () => compare(space, pool)).every(Boolean);
      const threads = pool.threads;
      await pool.close();
      globalThis.process = process;
      console.log(threads, same);
    `);
    expect(output).toBe("2 true");
  });
});
