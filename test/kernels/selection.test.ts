/** `argMax` and `topK`: on few distinct numbers, so that ties are everywhere, and on minus infinity. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { KernelSpace } from "../../src/kernels/index.ts";
import { describeKinds, describeTwins, onGround, runs, same } from "./guarded.ts";

const numbers = fc.oneof(
  fc.integer({ min: -3, max: 3 }),
  fc.constantFrom(Number.NEGATIVE_INFINITY, -0, 3e38, 1e-40),
  fc.float({ noNaN: true }),
);
const rows = fc.oneof(
  fc.array(numbers, { minLength: 1, maxLength: 60 }),
  fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 200 }),
  // Longer than what is looked at in one step, the best at a random place.
  fc.record({ length: fc.integer({ min: 1, max: 400 }), at: fc.nat() }).map(({ length, at }) => {
    const row = new Array<number>(length).fill(-1);
    row[at % length] = 1;
    return row;
  }),
);

/** All indices, the best first, the smaller first on ties. */
function ranked(row: readonly number[]): number[] {
  const better = (a: number, b: number) => (row[a]! > row[b]! ? -1 : row[a]! < row[b]! ? 1 : a - b);
  return row.map((_, i) => i).sort(better);
}

describe("argMax", () => {
  function checkArgMax(space: KernelSpace, row: readonly number[]): void {
    onGround(space, (ground) => {
      const x = ground.place(Float32Array.from(row));
      const index = ground.run((k) => k.argMax(x, row.length));
      if (index !== ranked(row)[0]) throw new Error(`expected ${ranked(row)[0]}, got ${index}`);
    });
  }

  describeKinds((space) => {
    it.each([
      [[7], 0],
      [[1, 3, 2, 3, 3, 0], 1],
      [[-5, -4, -4, -9, -9, -9, -9], 1],
      [[Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY], 0],
      [[0, 0, 0, 0, 0, 0, 0, 0, 1], 8],
    ])("of %j is %i", (row, index) => {
      onGround(space, (ground) => {
        const x = ground.place(Float32Array.from(row));
        expect(ground.run((k) => k.argMax(x, row.length))).toBe(index);
      });
    });

    it("property: is the first of the largest, and writes nothing", () => {
      fc.assert(
        fc.property(rows, (row) => checkArgMax(space, row)),
        runs(space, 100),
      );
    });
  });

  describeTwins(
    "argMax",
    {
      "misses the last number": (args) => {
        if (args[1] > 1) args[1]--;
      },
      "misses the first number": (args) => {
        args[0] += 4;
      },
    },
    rows,
    checkArgMax,
  );
});

describe("topK", () => {
  const cases = fc.record({ row: rows, eighths: fc.integer({ min: 0, max: 8 }) });
  type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

  function checkTopK(space: KernelSpace, { row, eighths }: Case): void {
    const k = Math.max(1, Math.round((row.length * eighths) / 8));
    onGround(space, (ground) => {
      const x = ground.place(Float32Array.from(row));
      const indices = ground.unset(4 * k);
      const values = ground.unset(4 * k);
      ground.run((kernels) => kernels.topK(x, row.length, k, indices, values), { at: indices, to: k }, { at: values, to: k }); // biome-ignore format: one line
      const best = ranked(row).slice(0, k);
      same(ground.integers.slice(indices / 4, indices / 4 + k), best, () => "indices");
      same(
        ground.read(values, k),
        Float32Array.from(best, (i) => row[i]!),
        () => "values",
      );
    });
  }

  describeKinds((space) => {
    it("ranks ties by index, to the last number: by hand", () => {
      onGround(space, (ground) => {
        const x = ground.place(Float32Array.of(2, 5, 2, 5, Number.NEGATIVE_INFINITY));
        const indices = ground.unset(20);
        const values = ground.unset(20);
        ground.run((k) => k.topK(x, 5, 5, indices, values), { at: indices, to: 5 }, { at: values, to: 5 });
        expect([...ground.integers.slice(indices / 4, indices / 4 + 5)]).toEqual([1, 3, 0, 2, 4]);
        expect([...ground.read(values, 5)]).toEqual([5, 5, 2, 2, Number.NEGATIVE_INFINITY]);
      });
    });

    it("property: is the head of the sorted row, for k from 1 to all, and no more", () => {
      fc.assert(
        fc.property(cases, (one) => checkTopK(space, one)),
        runs(space, 100),
      );
    });
  });

  describeTwins(
    "topK",
    {
      "misses the last number": (args) => {
        if (args[1] > args[2]) args[1]--;
      },
      "returns one too few": (args) => {
        if (args[2] > 1) args[2]--;
      },
      "swaps its results": (args) => {
        [args[3], args[4]] = [args[4], args[3]];
      },
    },
    cases,
    checkTopK,
  );
});
