/** The arena against a model of it: a sorted list of blocks, first fit. Over WebAssembly's memory and the stand-in. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError, MemoryError } from "../../src/errors.ts";
import { Arena, PlainMemory } from "../../src/kernels/arena.ts";
import { type GrowableMemory, plainKernels } from "../../src/kernels/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { roundUp } from "./guarded.ts";

const page = 65_536;
/** Where the first block lies. */
const first = 4096;

const webAssembly = (descriptor: WebAssembly.MemoryDescriptor) => new WebAssembly.Memory(descriptor) as GrowableMemory;
const memories: Record<string, () => GrowableMemory> = {
  "WebAssembly.Memory": () => webAssembly({ initial: 1 }),
  "shared WebAssembly.Memory": () => webAssembly({ initial: 1, maximum: 1000, shared: true }),
  "WebAssembly.Memory without a page": () => webAssembly({ initial: 0 }),
  PlainMemory: () => new PlainMemory(),
};

type Step =
  | { readonly kind: "allocate"; readonly bytes: number }
  | { readonly kind: "free"; readonly which: number }
  | { readonly kind: "reserve"; readonly bytes: number };
const sizes = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 100_000 }));
const programs = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ kind: fc.constant("allocate" as const), bytes: sizes }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("free" as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("reserve" as const), bytes: sizes }) },
  ),
  { minLength: 1, maxLength: 80 },
);
const limits = fc.option(fc.integer({ min: page, max: 10 * page }), { nil: 2 ** 32 - page });

/** What an arena is to do, in the plainest way. */
class Model {
  readonly limit: number;
  size: number;
  blocks: { readonly start: number; readonly end: number; readonly bytes: number; readonly mark: number }[] = [];

  constructor(size: number, limit: number) {
    this.size = size;
    this.limit = Math.floor(limit / page) * page;
  }

  /** Room up to the end of the last block. */
  get end(): number {
    return this.blocks.at(-1)?.end ?? first;
  }

  /** Where a block goes; undefined when it does not fit. */
  allocate(bytes: number, mark: number): number | undefined {
    const length = roundUp(bytes, 64);
    const before = [first, ...this.blocks.map((block) => block.end)];
    const after = [...this.blocks.map((block) => block.start), Math.max(this.size, first)];
    let at = before.findIndex((start, i) => after[i]! - start >= length);
    if (at < 0) {
      if (!this.reserve(length)) return undefined;
      at = this.blocks.length;
    }
    this.blocks.splice(at, 0, { start: before[at]!, end: before[at]! + length, bytes, mark });
    return before[at]!;
  }

  /** Whether there is or can be that much behind the last block. */
  reserve(bytes: number): boolean {
    if (this.end + bytes > this.limit) return false;
    this.size = Math.max(this.size, roundUp(this.end + bytes, page));
    return true;
  }
}

/** Throws when the arena does anything else than the model, or touches a block's bytes. */
function checkProgram(open: (maximumBytes: number) => Arena, steps: readonly Step[], limit: number): void {
  const arena = open(limit);
  const model = new Model(arena.size, limit);
  const refuses = (needed: number, call: () => void) => {
    const state = [arena.size, arena.usedBytes];
    expect(call).toThrow(MemoryError);
    expect(call).toThrow(expect.objectContaining({ needed, available: model.limit - model.end }));
    expect([arena.size, arena.usedBytes]).toEqual(state);
  };
  const agree = () => {
    expect(arena.size).toBe(model.size);
    expect(arena.usedBytes).toBe(model.blocks.reduce((sum, { start, end }) => sum + end - start, 0));
    expect([arena.bytes, arena.floats, arena.integers].map((view) => view.byteLength)).toEqual(
      Array(3).fill(model.size),
    );
    for (const { start, bytes, mark } of model.blocks) {
      if (arena.bytes.subarray(start, start + bytes).some((byte) => byte !== mark))
        throw new Error(`${start} was changed`);
    }
  };
  for (const [i, step] of steps.entries()) {
    if (step.kind === "allocate") {
      const mark = 1 + (i % 255);
      const expected = model.allocate(step.bytes, mark);
      if (expected === undefined) refuses(roundUp(step.bytes, 64), () => arena.allocate(step.bytes));
      else {
        const pointer = arena.allocate(step.bytes);
        expect(pointer).toBe(expected);
        const block = arena.bytes.subarray(pointer, pointer + step.bytes);
        if (block.some((byte) => byte !== 0)) throw new Error(`the block at ${pointer} is not zero`);
        block.fill(mark);
      }
    } else if (step.kind === "free") {
      const [block] = model.blocks.splice(step.which % (model.blocks.length + 1), 1);
      if (block !== undefined) arena.free(block.start);
    } else if (model.reserve(step.bytes)) arena.reserve(step.bytes);
    else refuses(step.bytes, () => arena.reserve(step.bytes));
    agree();
  }
  // Freed in an order that has nothing to do with where they lie, they are one block again.
  for (const { start } of model.blocks.sort((a, b) => a.mark - b.mark)) arena.free(start);
  expect(arena.usedBytes).toBe(0);
  if (model.size > first) expect(arena.allocate(model.size - first)).toBe(first);
  expect(arena.size).toBe(model.size);
}

const property = (open: (maximumBytes: number) => Arena) =>
  fc.property(programs, limits, (steps, limit) => checkProgram(open, steps, limit));

describe.each(Object.entries(memories))("Arena in %s", (_, memory) => {
  it("property: any program of allocations, frees and reservations does what the model does", () => {
    fc.assert(
      property((maximumBytes) => new Arena(memory(), { maximumBytes })),
      { numRuns: 30 },
    );
  });

  it("does not grow over 100,000 cycles of blocks that fit", () => {
    const arena = new Arena(memory());
    const random = new Random("cycles");
    const slots = new Array<number>(16).fill(0);
    arena.reserve(2 * slots.length * 1024);
    const { size } = arena;
    for (let cycle = 0; cycle < 100_000; cycle++) {
      const slot = Math.floor(random.uniform() * slots.length);
      if (slots[slot] !== 0) arena.free(slots[slot]!);
      slots[slot] = cycle % 3 === 0 ? 0 : arena.allocate(1 + Math.floor(random.uniform() * 1024));
    }
    expect(arena.size).toBe(size);
    for (const pointer of slots) if (pointer !== 0) arena.free(pointer);
    expect(arena.usedBytes).toBe(0);
    expect(arena.allocate(size - first)).toBe(first);
    expect(arena.size).toBe(size);
  });

  it("keeps what it holds when it grows, and shows the new memory", () => {
    const arena = new Arena(memory());
    const small = arena.allocate(8);
    arena.floats.set([1.5, -2], small / 4);
    const stale = arena.bytes;
    const large = arena.allocate(5 * page);
    expect([arena.size, arena.size % page]).toEqual([6 * page, 0]);
    expect(stale.length).toBeLessThanOrEqual(page);
    expect([...arena.floats.subarray(small / 4, small / 4 + 2)]).toEqual([1.5, -2]);
    arena.integers[(large + 5 * page - 4) / 4] = 7;
    expect([arena.bytes[large + 5 * page - 4], arena.memory.buffer.byteLength]).toEqual([7, arena.size]);
  });

  it("refuses more than `maximumBytes` before anything changes, and says how much there is", () => {
    const arena = new Arena(memory(), { maximumBytes: 2 * page + 5 }); // whole pages count
    const pointer = arena.allocate(1000);
    const { size } = arena;
    const available = 2 * page - first - 1024;
    for (const call of [() => arena.allocate(available + 1), () => arena.reserve(available + 64)]) {
      expect(call).toThrow(expect.objectContaining({ name: "MemoryError", needed: available + 64, available }));
      expect([arena.size, arena.usedBytes]).toEqual([size, 1024]);
    }
    arena.reserve(available);
    expect(arena.allocate(available)).toBe(pointer + 1024);
    expect(arena.size).toBe(2 * page);
    expect(() => arena.allocate(1)).toThrow(expect.objectContaining({ needed: 64, available: 0 }));
    arena.free(pointer);
    expect(arena.allocate(1000)).toBe(pointer);
  });

  it("refuses pointers that are not in use, and goes on", () => {
    const arena = new Arena(memory());
    const pointer = arena.allocate(200);
    for (const wrong of [0, first - 64, pointer + 64, pointer + 256, -1, Number.NaN]) {
      expect(() => arena.free(wrong)).toThrow(expect.objectContaining({ name: "ArgumentError", argument: "pointer" }));
    }
    arena.free(pointer);
    expect(() => arena.free(pointer)).toThrow(ArgumentError);
    expect([arena.usedBytes, arena.allocate(1)]).toEqual([0, pointer]);
  });
});

describe("Arena", () => {
  it("refuses sizes that are none", () => {
    const arena = new Arena(new PlainMemory());
    for (const bytes of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, "64" as unknown as number]) {
      expect(() => arena.allocate(bytes)).toThrow(
        expect.objectContaining({ name: "ArgumentError", argument: "bytes" }),
      );
    }
    for (const maximumBytes of [0, -page, page - 1, 1.5 * page + 0.5, Number.NaN, 2 ** 32, 2 ** 32 - page + 1]) {
      expect(() => new Arena(new PlainMemory(), { maximumBytes })).toThrow(
        expect.objectContaining({ name: "ArgumentError", argument: "maximumBytes" }),
      );
    }
    // Less than there is already.
    expect(() => new Arena(webAssembly({ initial: 3 }), { maximumBytes: 2 * page })).toThrow(ArgumentError);
    expect(new Arena(webAssembly({ initial: 3 }), { maximumBytes: 3 * page }).size).toBe(3 * page);
  });

  it("ends where pointers of 32 bits do, without asking the runtime", () => {
    const memory = new PlainMemory();
    memory.grow = () => {
      throw new Error("asked");
    };
    const arena = new Arena(memory);
    expect(arena.maximumBytes).toBe(2 ** 32 - page);
    const available = 2 ** 32 - page - first;
    for (const needed of [available + 64, 2 ** 40]) {
      expect(() => arena.allocate(needed)).toThrow(expect.objectContaining({ needed, available }));
    }
  });

  it("says what is left when the runtime has no more, and stays as it was", () => {
    const arena = new Arena(webAssembly({ initial: 1, maximum: 2 }));
    const pointer = arena.allocate(1);
    const available = page - first - 64;
    for (const call of [() => arena.allocate(2 * page), () => arena.reserve(2 * page)]) {
      expect(call).toThrow(expect.objectContaining({ name: "MemoryError", needed: 2 * page, available }));
      expect([arena.size, arena.usedBytes]).toEqual([page, 64]);
    }
    expect(arena.allocate(page)).toBe(pointer + 64);
    const none = new Arena(webAssembly({ initial: 0, maximum: 0 }));
    expect(() => none.allocate(1)).toThrow(expect.objectContaining({ needed: 64, available: 0 }));
  });

  it("is what kernels compute in after it has grown: they see its memory, not the one they were made with", () => {
    const arena = new Arena(new PlainMemory());
    const kernels = plainKernels(arena);
    const x = arena.allocate(16);
    const y = arena.allocate(4 * page);
    arena.floats.fill(1, x / 4, x / 4 + 4);
    kernels.add(x, 4, y);
    expect([...arena.floats.subarray(y / 4, y / 4 + 5)]).toEqual([1, 1, 1, 1, 0]);
  });

  /** Arenas with one mistake each. */
  const twins: Record<string, new (...args: ConstructorParameters<typeof Arena>) => Arena> = {
    "hands out blocks that overlap": class extends Arena {
      override allocate(bytes: number): number {
        return super.allocate(Math.max(1, bytes - 64));
      }
    },
    "hands out what the last owner left": class extends Arena {
      override allocate(bytes: number): number {
        const kept = this.bytes.slice();
        const pointer = super.allocate(bytes);
        this.bytes.set(kept.subarray(pointer, pointer + bytes), pointer);
        return pointer;
      }
    },
    "forgets to free every fourth block": class extends Arena {
      override free(pointer: number): void {
        if (pointer % 256 !== 0) super.free(pointer);
      }
    },
    "grows past its limit": class extends Arena {
      constructor(memory: GrowableMemory, { maximumBytes = 2 ** 32 - page } = {}) {
        super(memory, { maximumBytes: Math.min(maximumBytes + page, 2 ** 32 - page) });
      }
    },
  };
  it.each(Object.entries(twins))("a twin that %s is caught by the same property", (_, Twin) => {
    const broken = property((maximumBytes) => new Twin(new PlainMemory(), { maximumBytes }));
    expect(fc.check(broken, { numRuns: 200, seed: 1, endOnFailure: true }).failed).toBe(true);
  });
});
