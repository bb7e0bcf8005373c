/**
 * Every kind of kernels this runtime can have, and ground for them on which nothing they do goes unseen: around all that a
 * test placed lies `untouched`, which spoils the result when it is read, and after a call all bytes but those the kernel
 * is documented to write must be what they were.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  Arena,
  allowRelaxedSimd,
  type KernelKind,
  type KernelSpace,
  type Kernels,
  openKernels,
} from "../../src/kernels/index.ts";
import { Random } from "../../src/tensor/random.ts";

/** A signalling NaN: even a kernel that only computes on it in place leaves another one. Far outside as an index. */
const untouched = 0x7fa00001;

/** Half the distance from 1 to the next float32: what one rounding may cost. */
export const rounding = 2 ** -24;

const relaxed = await allowRelaxedSimd();
const openRelaxed = async (shared: boolean) => (relaxed ? openKernels({ kernels: "relaxed", shared }) : undefined);

/** Simd kernels on blocks around 2 GiB, where signed and unsigned part. Memory nobody touches costs address space only. */
async function openFar(): Promise<KernelSpace> {
  const space = await openKernels({ kernels: "simd" });
  const first = 2 ** 31 - 8192;
  space.arena.memory.grow((2 ** 31 + 2 ** 26) / 65_536);
  class FarArena extends Arena {
    #next = first;
    #inUse = 0;

    override allocate(bytes: number): number {
      const pointer = this.#next;
      this.#next += roundUp(bytes, 64);
      this.#inUse++;
      return pointer;
    }

    override free(): void {
      if (--this.#inUse === 0) this.#next = first;
    }
  }
  return { ...space, arena: new FarArena(space.arena.memory) };
}

/** By name; undefined where the runtime lacks it. */
export const spaces: ReadonlyMap<string, KernelSpace | undefined> = new Map([
  ["relaxed", await openRelaxed(false)],
  ["relaxed, shared memory", await openRelaxed(true)],
  ["simd", await openKernels({ kernels: "simd" })],
  ["simd, shared memory", await openKernels({ kernels: "simd", shared: true })],
  ["plain", await openKernels({ kernels: "plain" })],
  ...(process.env["TOKENTHRIFT_FULL"] ? [["simd, around 2 GiB", await openFar()] as const] : []),
]);

/** Runs `tests` for every kind; skips, visibly, those the runtime lacks. */
export function describeKinds(tests: (space: KernelSpace) => void): void {
  for (const [name, space] of spaces) {
    if (space === undefined) describe.skip(`${name}: this runtime lacks it`, () => tests(spaces.get("plain")!));
    else describe(name, () => tests(space));
  }
}

/** How many cases to try. Shared memory is computed in by the same code, compiled once more: a quarter will do. */
export function runs(space: KernelSpace, count: number): { readonly numRuns: number } {
  return { numRuns: space.arena.memory.buffer instanceof ArrayBuffer ? count : Math.ceil(count / 4) };
}

/** How far a sum of `terms` products may be from the exact one, as a part of the sum of its absolute terms. */
export function sumTolerance(kind: KernelKind, terms: number): number {
  return (kind === "plain" ? 1.01 : Math.min(terms + 3, 160)) * rounding;
}

/** Where a kernel may write: columns `from` to `to` of `rows` rows, all numbers of four bytes. */
export interface Window {
  readonly at: number;
  readonly rows?: number;
  readonly stride?: number;
  readonly from?: number;
  readonly to: number;
}

export class Ground {
  readonly kind: KernelKind;
  readonly #space: KernelSpace;
  readonly #blocks: number[] = [];
  /** What is looked at: not all the memory, which stays as large as it ever was, but the blocks and 4096 bytes around. */
  #start = Number.POSITIVE_INFINITY;
  #end = 0;

  constructor(space: KernelSpace) {
    this.kind = space.kind;
    this.#space = space;
  }

  get floats(): Float32Array<ArrayBufferLike> {
    return this.#space.arena.floats;
  }

  get integers(): Int32Array<ArrayBufferLike> {
    return this.#space.arena.integers;
  }

  /** A block of `bytes` bytes untouched, between at least 16 more; aligned to 16 bytes and, mostly, no further. */
  unset(bytes: number): number {
    const { arena } = this.#space;
    const size = roundUp(bytes + 96, 64);
    const block = arena.allocate(size);
    arena.integers.fill(untouched, block / 4, (block + size) / 4);
    this.#blocks.push(block);
    this.#start = Math.min(this.#start, block - 4096);
    this.#end = Math.max(this.#end, block + size + 4096);
    return block + 16 * (1 + (this.#blocks.length % 4));
  }

  /** A block with these numbers. */
  place(values: Float32Array | Int32Array | Uint16Array | Uint8Array): number {
    const pointer = this.unset(values.byteLength);
    this.#space.arena.bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), pointer);
    return pointer;
  }

  /** A block of rows, each filled up to `stride` with `filler`. */
  placeRows(rows: readonly ArrayLike<number>[], stride: number, filler = 0): number {
    const values = new Float32Array(rows.length * stride).fill(filler);
    for (const [r, row] of rows.entries()) values.set(row, r * stride);
    return this.place(values);
  }

  /** Call a kernel. Throws when it changes a byte outside `windows`. */
  run<T>(call: (kernels: Kernels) => T, ...windows: readonly Window[]): T {
    const { arena, kernels } = this.#space;
    const before = arena.bytes.slice(this.#start, this.#end);
    const result = call(kernels);
    const after = arena.bytes.slice(this.#start, this.#end);
    for (const { at, rows = 1, stride = 0, from = 0, to } of windows) {
      for (let r = 0; r < rows; r++) {
        const start = at - this.#start + 4 * (r * stride + from);
        after.set(before.subarray(start, start + 4 * (to - from)), start);
      }
    }
    if (Buffer.compare(before, after) !== 0) {
      const where = this.#start + before.findIndex((byte, i) => byte !== after[i]);
      throw new Error(`byte ${where} was written: ${windows.map((window) => JSON.stringify(window)).join(", ")}`);
    }
    return result;
  }

  /** `count` floats from the `offset`-th behind `pointer` on. */
  read(pointer: number, count: number, offset = 0): Float32Array {
    return this.floats.slice(pointer / 4 + offset, pointer / 4 + offset + count);
  }

  clear(): void {
    for (const block of this.#blocks) this.#space.arena.free(block);
    this.#blocks.length = 0;
  }
}

/** Runs `body` on ground of its own. */
export function onGround<T>(space: KernelSpace, body: (ground: Ground) => T): T {
  const ground = new Ground(space);
  try {
    return body(ground);
  } finally {
    ground.clear();
  }
}

/** Throws unless |actual - expected| <= slack, which NaN never is. Slack of no float32 is below the smallest of them. */
export function near(actual: number, expected: number, slack: number, what: () => string): void {
  if (Math.abs(actual - expected) <= slack + 2 ** -149) return;
  throw new Error(`${what()}: expected ${expected} within ${slack}, got ${actual}`);
}

export function same(actual: ArrayLike<number>, expected: ArrayLike<number>, what: () => string): void {
  for (let i = 0; i < expected.length; i++) {
    if (actual[i] !== expected[i]) throw new Error(`${what()}[${i}]: expected ${expected[i]}, got ${actual[i]}`);
  }
}

const pool = (() => {
  const random = new Random("kernels");
  return Float32Array.from({ length: 40_009 }, (_, i) => (i % 31 === 0 ? 0 : random.normal()));
})();

/** Numbers of the standard normal law, some of them 0. */
export class Draw {
  #at: number;

  constructor(seed: number) {
    this.#at = seed % pool.length;
  }

  next(): number {
    this.#at = (this.#at + 1) % pool.length;
    return pool[this.#at]!;
  }

  row(length: number, scale = 1): Float32Array {
    return Float32Array.from({ length }, () => this.next() * scale);
  }

  rows(count: number, length: number, scale = 1): Float32Array[] {
    return Array.from({ length: count }, () => this.row(length, scale));
  }

  /** An integer from 0 to `below` - 1. */
  index(below: number): number {
    return Math.floor((Math.abs(this.next()) * 1e4) % below);
  }
}

export const seeds = fc.nat(pool.length - 1);

export function roundUp(x: number, multiple: number): number {
  return Math.ceil(x / multiple) * multiple;
}

/** What is wrong with a kernel -> what it makes of the arguments, before the right kernel is called with them. */
export type Twins<Name extends keyof Kernels> = Readonly<Record<string, (args: Parameters<Kernels[Name]>) => void>>;

/** Tests that `check` fails for a kernel that is wrong: what it would not see then, it does not see in ours either. */
export function describeTwins<Name extends keyof Kernels, Case>(
  name: Name,
  twins: Twins<Name>,
  cases: fc.Arbitrary<Case>,
  check: (space: KernelSpace, one: Case) => void,
): void {
  const space = spaces.get("simd")!;
  it.each(Object.entries(twins))(`a twin of ${name} that %s is caught by the same property`, (_, spoil) => {
    const right = space.kernels[name] as (...args: unknown[]) => unknown;
    const wrong = (...args: Parameters<Kernels[Name]>) => {
      spoil(args);
      return right(...args);
    };
    const twin: KernelSpace = { ...space, kernels: { ...space.kernels, [name]: wrong } };
    const property = fc.property(cases, (one) => check(twin, one));
    expect(fc.check(property, { numRuns: 200, seed: 1, endOnFailure: true }).failed).toBe(true);
  });
}
