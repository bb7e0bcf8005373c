/** `rotate` and `gatherRotated`: heads of every width, halves that are no multiple of four, padding behind heads. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { KernelSpace } from "../../src/kernels/index.ts";
import {
  Draw,
  describeKinds,
  describeTwins,
  type Ground,
  near,
  onGround,
  rounding,
  roundUp,
  runs,
  seeds,
} from "./guarded.ts";

const tablePositions = 40;

/** Cosines and sines of RoPE's angles, [tablePositions][2 * half]. */
function anglesOf(half: number): Float32Array[] {
  return Array.from({ length: tablePositions }, (_, position) =>
    Float32Array.from({ length: 2 * half }, (_, i) => {
      const angle = position * 10_000 ** (-(i % half) / half);
      return i < half ? Math.cos(angle) : Math.sin(angle);
    }),
  );
}

/** Throws unless the head at `pointer` is `x`, turned by `angles`, and zeros. */
function checkTurned(
  ground: Ground,
  pointer: number,
  headStride: number,
  x: Float32Array,
  angles: Float32Array,
  what: () => string,
): void {
  const half = angles.length / 2;
  const tolerance = (ground.kind === "plain" ? 1.01 : 3) * rounding;
  for (const [i, y] of ground.read(pointer, headStride).entries()) {
    const turned = i < 2 * half;
    const cosine = turned ? x[i]! * angles[i % half]! : 0;
    const sine = turned ? x[(i + half) % (2 * half)]! * angles[half + (i % half)]! * (i < half ? -1 : 1) : 0;
    near(y, cosine + sine, tolerance * (Math.abs(cosine) + Math.abs(sine)), () => `${what()}, element ${i}`);
  }
}

const heads = {
  heads: fc.integer({ min: 1, max: 5 }),
  half: fc.integer({ min: 1, max: 32 }),
  padding: fc.constantFrom(0, 4, 8),
  seed: seeds,
};

describe("rotate", () => {
  const cases = fc.record({ ...heads, rows: fc.integer({ min: 1, max: 9 }), wider: fc.nat(2) });
  type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

  function checkRotate(space: KernelSpace, { heads, half, padding, rows, wider, seed }: Case): void {
    const draw = new Draw(seed);
    const headStride = roundUp(2 * half, 4) + padding;
    const stride = roundUp(heads * headStride, 8) + 8 * wider;
    const table = anglesOf(half);
    const positions = Int32Array.from({ length: rows }, () => draw.index(tablePositions));
    const x = Array.from({ length: rows }, () => draw.rows(heads, 2 * half));
    onGround(space, (ground) => {
      const at = ground.placeRows(
        x.map((row) => row.flatMap((head) => [...head, ...new Float32Array(headStride - 2 * half)])),
        stride,
      );
      const p = ground.place(positions);
      const t = ground.placeRows(table, 2 * half);
      ground.run(
        (k) => k.rotate(at, stride, rows, heads, headStride, half, p, t),
        ...Array.from({ length: heads }, (_, h) => ({ at: at + 4 * h * headStride, rows, stride, to: 2 * half })),
      );
      for (const [r, row] of x.entries()) {
        for (const [h, head] of row.entries()) {
          const pointer = at + 4 * (r * stride + h * headStride);
          checkTurned(ground, pointer, headStride, head, table[positions[r]!]!, () => `row ${r}, head ${h}`);
        }
      }
    });
  }

  describeKinds((space) => {
    it("turns (3, 4) by a right angle into (-4, 3), by hand", () => {
      onGround(space, (ground) => {
        const x = ground.placeRows([[3, 4, 0, 0, 3, 4, 0, 0]], 8);
        const positions = ground.place(Int32Array.of(1));
        const table = ground.place(Float32Array.of(1, 0, 0, 1));
        ground.run((k) => k.rotate(x, 8, 1, 2, 4, 1, positions, table), { at: x, to: 8 });
        expect([...ground.read(x, 8)]).toEqual([-4, 3, 0, 0, -4, 3, 0, 0]);
      });
    });

    it("property: is the turn in float64, within 3 roundings of its absolute terms, and no more", () => {
      fc.assert(
        fc.property(cases, (one) => checkRotate(space, one)),
        runs(space, 50),
      );
    });
  });

  describeTwins(
    "rotate",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "drops the last head": (args) => {
        args[3]--;
      },
      "drops the last pair": (args) => {
        args[5]--;
      },
      "takes the position of the next row": (args) => {
        if (args[2] > 1) args[6] += 4;
      },
    },
    cases,
    checkRotate,
  );
});

describe("gatherRotated", () => {
  const cases = fc.record({
    ...heads,
    capacity: fc.integer({ min: 1, max: 30 }),
    count: fc.nat(30),
    spare: fc.nat(3),
  });
  type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

  function checkGather(space: KernelSpace, { heads, half, padding, capacity, count, spare, seed }: Case): void {
    const draw = new Draw(seed);
    const headStride = roundUp(2 * half, 4) + padding;
    const yCapacity = count + spare;
    const table = anglesOf(half);
    const cache = draw.rows(heads * capacity, 2 * half);
    const indices = Int32Array.from({ length: heads * count }, () => draw.index(capacity));
    const positions = Int32Array.from({ length: heads * count }, () => draw.index(tablePositions));
    onGround(space, (ground) => {
      const from = ground.placeRows(cache, headStride);
      const i = ground.place(indices);
      const p = ground.place(positions);
      const t = ground.placeRows(table, 2 * half);
      const y = ground.unset(heads * yCapacity * headStride * 4);
      ground.run((k) => k.gatherRotated(from, capacity, heads, headStride, half, i, count, p, t, y, yCapacity), {
        at: y,
        rows: heads,
        stride: yCapacity * headStride,
        to: count * headStride,
      });
      for (const [place, index] of indices.entries()) {
        const head = Math.floor(place / count);
        const pointer = y + 4 * (head * yCapacity + (place % count)) * headStride;
        const row = cache[head * capacity + index]!;
        checkTurned(ground, pointer, headStride, row, table[positions[place]!]!, () => `head ${head}, index ${index}`);
      }
    });
  }

  describeKinds((space) => {
    it("picks and turns rows, position 0 by nothing: by hand", () => {
      onGround(space, (ground) => {
        const cache = ground.placeRows([[1, 2], [3, 4], [5, 6]], 4); // biome-ignore format: three rows
        const indices = ground.place(Int32Array.of(2, 1, 2));
        const positions = ground.place(Int32Array.of(0, 1, 1));
        const table = ground.place(Float32Array.of(1, 0, 0, 1));
        const y = ground.unset(4 * 16);
        const window = { at: y, to: 12 };
        ground.run((k) => k.gatherRotated(cache, 3, 1, 4, 1, indices, 3, positions, table, y, 4), window);
        expect([...ground.read(y, 12)]).toEqual([5, 6, 0, 0, -4, 3, 0, 0, -6, 5, 0, 0]);
      });
    });

    it("property: is each row picked, turned in float64, within 3 roundings of its absolute terms, and no more", () => {
      fc.assert(
        fc.property(cases, (one) => checkGather(space, one)),
        runs(space, 50),
      );
    });
  });

  describeTwins(
    "gatherRotated",
    {
      "drops the last row": (args) => {
        if (args[2] === 1 && args[6] > 0) args[6]--;
      },
      "drops the last head": (args) => {
        args[2]--;
      },
      "takes indices for positions": (args) => {
        args[7] = args[5];
      },
      "packs heads without their spare rows": (args) => {
        args[10] = args[6];
      },
    },
    cases,
    checkGather,
  );
});
