/**
 * `attend` and `storeRows`: groups, lists and trees of every shape. What a row must not see - positions that are on no
 * list, places behind the pass - is left untouched, so that a glance at it spoils the result.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { attentionScratchFloats, type KernelSpace } from "../../src/kernels/index.ts";
import {
  Draw,
  describeKinds,
  describeTwins,
  near,
  onGround,
  rounding,
  roundUp,
  runs,
  same,
  seeds,
  sumTolerance,
} from "./guarded.ts";

/** Weights below it may be 0: there e^x ends in the compiled kernels. */
const smallest = Math.exp(-87);

/** `skippedHeads` and `leftHeads` key heads at the two ends are not asked for. */
const passes = (longest: number, widest: number) =>
  fc.record({
    rows: fc.oneof(
      { weight: 3, arbitrary: fc.integer({ min: 1, max: 7 }) },
      { weight: 1, arbitrary: fc.integer({ min: 1, max: 40 }) },
    ),
    length: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: longest })),
    spare: fc.nat(5),
    /** Eighths of the committed positions that are on the lists; null: no lists. */
    listed: fc.option(fc.integer({ min: 0, max: 8 }), { freq: 2 }),
    tree: fc.boolean(),
    group: fc.integer({ min: 1, max: 4 }),
    keyValueHeads: fc.integer({ min: 1, max: 3 }),
    skippedHeads: fc.nat(1),
    leftHeads: fc.nat(1),
    width: fc.integer({ min: 2, max: widest }),
    padding: fc.constantFrom(0, 0, 4, 8),
    wider: fc.nat(2),
    loudness: fc.constantFrom(1, 1, 0, 40),
    weighed: fc.boolean(),
    seed: seeds,
  });
type Pass = ReturnType<typeof passes> extends fc.Arbitrary<infer T> ? T : never;

/** [rows, rows], not 0 where the column is the row or one it descends from; above the diagonal, which counts for nothing, too. */
function randomTree(draw: Draw, rows: number): Uint8Array {
  const ancestors = new Uint8Array(rows * rows);
  for (let row = 0; row < rows; row++) {
    const parent = draw.index(row + 1) - 1;
    if (parent >= 0) ancestors.copyWithin(row * rows, parent * rows, parent * rows + row);
    ancestors.fill(255, row * rows + row, (row + 1) * rows);
  }
  return ancestors;
}

function checkAttend(space: KernelSpace, pass: Pass): void {
  const { rows, length, listed, group, keyValueHeads, skippedHeads, leftHeads, width, weighed } = pass;
  const draw = new Draw(pass.seed);
  const keyHeads = skippedHeads + keyValueHeads + leftHeads;
  const endHead = skippedHeads + keyValueHeads;
  const heads = keyHeads * group;
  const headStride = roundUp(width, 4) + pass.padding;
  const capacity = length + rows + pass.spare;
  const qStride = roundUp(heads * headStride, 8) + 8 * pass.wider;
  const scale = 1 / Math.sqrt(width);
  const selected = listed === null ? length : Math.round((length * listed) / 8);
  const span = selected + rows;
  /** For each key head, the committed positions it sees. */
  const lists = Array.from({ length: keyHeads }, () => {
    const positions = Array.from({ length }, (_, i) => i);
    if (listed !== null) {
      for (let i = length - 1; i > 0; i--) {
        const j = draw.index(i + 1);
        [positions[i], positions[j]] = [positions[j]!, positions[i]!];
      }
    }
    return positions.slice(0, selected);
  });
  const ancestors = pass.tree ? randomTree(draw, rows) : undefined;
  const q = Array.from({ length: rows }, () => draw.rows(heads, width, pass.loudness));

  onGround(space, (ground) => {
    const cached = () => {
      const pointer = ground.unset(keyHeads * capacity * headStride * 4);
      const numbers = new Map<number, Float32Array>();
      for (const [head, list] of lists.entries()) {
        for (const position of [...list, ...q.map((_, r) => length + r)]) {
          const row = draw.row(width);
          const place = head * capacity + position;
          numbers.set(place, row);
          ground.floats.fill(0, pointer / 4 + place * headStride, pointer / 4 + (place + 1) * headStride);
          ground.floats.set(row, pointer / 4 + place * headStride);
        }
      }
      return { pointer, row: (head: number, position: number) => numbers.get(head * capacity + position)! };
    };
    const keys = cached();
    const values = cached();
    const padding = new Float32Array(headStride - width);
    const qAt = ground.placeRows(
      q.map((row) => row.flatMap((head) => [...head, ...padding])),
      qStride,
    );
    const indices = listed === null ? 0 : ground.place(Int32Array.from(lists.flat()));
    const tree = ancestors === undefined ? 0 : ground.place(ancestors);
    const y = ground.unset(rows * qStride * 4);
    const scratch = ground.unset(attentionScratchFloats(span) * 4);
    const weights = weighed ? ground.unset(heads * rows * span * 4) : 0;
    // biome-ignore format: as in the interface
    ground.run(
      (k) =>
        k.attend(
          qAt, qStride, rows, keys.pointer, values.pointer, capacity, length,
          indices, listed === null ? 0 : selected, tree,
          heads, keyHeads, headStride, scale, skippedHeads, endHead,
          y, qStride, scratch, weights,
        ),
      { at: y, rows, stride: qStride, from: skippedHeads * group * headStride, to: endHead * group * headStride },
      { at: scratch, to: attentionScratchFloats(span) },
      ...(weighed ? [{ at: weights, from: skippedHeads * group * rows * span, to: endHead * group * rows * span }] : []),
    );

    for (let head = skippedHeads * group; head < endHead * group; head++) {
      const keyHead = Math.floor(head / group);
      for (let r = 0; r < rows; r++) {
        const what = () => `row ${r}, head ${head}`;
        // Every place of the row's span: the position, or null when it is out of sight.
        const sight = [
          ...lists[keyHead]!,
          ...q.map((_, i) =>
            i <= r && (ancestors === undefined || ancestors[r * rows + i] !== 0) ? length + i : null,
          ),
        ];
        let loudest = 0;
        const scores = sight.map((position) => {
          if (position === null) return Number.NEGATIVE_INFINITY;
          const key = keys.row(keyHead, position);
          let score = 0;
          let absolute = 0;
          for (let d = 0; d < width; d++) {
            const product = q[r]![head]![d]! * key[d]! * scale;
            score += product;
            absolute += Math.abs(product);
          }
          loudest = Math.max(loudest, absolute);
          return score;
        });
        const most = Math.max(...scores);
        const powers = scores.map((score) => Math.exp(score - most));
        const sum = powers.reduce((a, b) => a + b, 0);
        // Four sums run beside each other in a score; an error of a score is a relative one of its weight.
        const score = space.kind === "plain" ? rounding : (width / 4 + 6) * rounding;
        const relative =
          2 * (loudest * score + sumTolerance(space.kind, span / 4)) + (space.kind === "plain" ? 0 : 5e-7);
        if (weighed) {
          const row = ground.read(weights, span, (head * rows + r) * span);
          for (const [i, power] of powers.entries())
            near(row[i]!, power / sum, (relative * power) / sum + smallest, what);
        }
        const expected = new Float64Array(headStride);
        const slack = new Float64Array(headStride);
        for (const [i, position] of sight.entries()) {
          if (position === null) continue;
          const weight = powers[i]! / sum;
          for (const [d, value] of values.row(keyHead, position).entries()) {
            expected[d]! += weight * value;
            slack[d]! += ((relative + sumTolerance(space.kind, span)) * weight + smallest) * Math.abs(value);
          }
        }
        const mixed = ground.read(y, headStride, r * qStride + head * headStride);
        for (let d = 0; d < headStride; d++) near(mixed[d]!, expected[d]!, slack[d]!, what);
      }
    }
  });
}

describe("attend", () => {
  describeKinds((space) => {
    it("weighs values 3 : 1 when scores are ln 3 and 0, by hand", () => {
      onGround(space, (ground) => {
        const q = ground.placeRows([[1, 0]], 8);
        const keys = ground.placeRows([[Math.log(3), 9], [0, 9]], 4); // biome-ignore format: two rows
        const values = ground.placeRows([[4, 0], [0, 8]], 4); // biome-ignore format: two rows
        const y = ground.unset(16);
        const weights = ground.unset(8);
        const scratch = ground.unset(4 * attentionScratchFloats(2));
        ground.run(
          (k) => k.attend(q, 8, 1, keys, values, 2, 1, 0, 0, 0, 1, 1, 4, 1, 0, 1, y, 8, scratch, weights),
          { at: y, to: 4 },
          { at: weights, to: 2 },
          { at: scratch, to: attentionScratchFloats(2) },
        );
        for (const [i, value] of ground.read(y, 4).entries()) expect(value).toBeCloseTo([3, 2, 0, 0][i]!, 6);
        for (const [i, value] of ground.read(weights, 2).entries()) expect(value).toBeCloseTo([0.75, 0.25][i]!, 6);
      });
    });

    it("sees of its own pass the ancestors: two siblings do not see each other, by hand", () => {
      onGround(space, (ground) => {
        // Queries of 0 weigh all in sight alike. One committed position, a root and its two children.
        const q = ground.placeRows([[], [], []], 8);
        const keys = ground.placeRows([[1], [1], [1], [1]], 4);
        const values = ground.placeRows([[12], [24], [36], [48]], 4);
        const ancestors = ground.place(Uint8Array.of(1, 0, 0, 1, 1, 0, 1, 0, 1));
        const y = ground.placeRows([[], [], []], 8);
        const scratch = ground.unset(4 * attentionScratchFloats(4));
        ground.run(
          (k) => k.attend(q, 8, 3, keys, values, 4, 1, 0, 0, ancestors, 1, 1, 4, 1, 0, 1, y, 8, scratch, 0),
          { at: y, rows: 3, stride: 8, to: 4 },
          { at: scratch, to: attentionScratchFloats(4) },
        );
        expect([0, 8, 16].map((at) => Math.round(ground.read(y, 1, at)[0]! * 1e4) / 1e4)).toEqual([18, 24, 28]);
      });
    });

    it("property: is the formula in float64, within what sums and exponents round, and no more", () => {
      fc.assert(
        fc.property(passes(40, 64), (pass) => checkAttend(space, pass)),
        runs(space, 25),
      );
    });

    it("property: over long caches, past every block the kernels cut them into", () => {
      fc.assert(
        fc.property(passes(700, 12), (pass) => checkAttend(space, { ...pass, length: pass.length + 120 })),
        runs(space, 5),
      );
    });
  });

  describeTwins(
    "attend",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "does not see the last committed position": (args) => {
        if (args[7] === 0) args[6]--;
      },
      "does not see the last position on the lists": (args) => {
        if (args[8] > 0) args[8]--;
      },
      "gives its heads the list of the next one": (args) => {
        if (args[7] !== 0 && args[14] > 0) args[7] -= args[8] * 4;
      },
      "sees siblings": (args) => {
        args[9] = 0;
      },
      "takes values for keys": (args) => {
        args[3] = args[4];
      },
      "scales by a little more": (args) => {
        args[13] *= 1.001;
      },
      "drops the last head": (args) => {
        args[15]--;
      },
      "computes a head nobody asked for": (args) => {
        if (args[14] > 0) args[14]--;
      },
      "forgets the weights": (args) => {
        args[19] = 0;
      },
    },
    passes(40, 64),
    checkAttend,
  );
});

describe("storeRows", () => {
  const cases = fc.record({
    rows: fc.integer({ min: 1, max: 12 }),
    heads: fc.integer({ min: 1, max: 4 }),
    headStride: fc.integer({ min: 1, max: 17 }).map((fours) => 4 * fours),
    at: fc.nat(20),
    spare: fc.nat(3),
    wider: fc.nat(2),
    seed: seeds,
  });
  type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never;

  function checkStore(space: KernelSpace, { rows, heads, headStride, at, spare, wider, seed }: Case): void {
    const x = new Draw(seed).rows(rows, heads * headStride);
    const stride = roundUp(heads * headStride, 8) + 8 * wider;
    const capacity = at + rows + spare;
    onGround(space, (ground) => {
      const from = ground.placeRows(x, stride);
      const cache = ground.unset(heads * capacity * headStride * 4);
      ground.run((k) => k.storeRows(from, stride, rows, heads, headStride, cache, capacity, at), {
        at: cache,
        rows: heads,
        stride: capacity * headStride,
        from: at * headStride,
        to: (at + rows) * headStride,
      });
      for (const [r, row] of x.entries()) {
        for (let h = 0; h < heads; h++) {
          const stored = ground.read(cache, headStride, (h * capacity + at + r) * headStride);
          same(stored, row.subarray(h * headStride, (h + 1) * headStride), () => `row ${r}, head ${h}`);
        }
      }
    });
  }

  describeKinds((space) => {
    it("puts each head's part of a row into that head's cache, by hand", () => {
      onGround(space, (ground) => {
        const x = ground.place(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8));
        const cache = ground.placeRows([[], [], [], []], 4); // two heads, two places
        const window = { at: cache, rows: 2, stride: 8, from: 4, to: 8 };
        ground.run((k) => k.storeRows(x, 8, 1, 2, 4, cache, 2, 1), window);
        expect([...ground.read(cache, 16)]).toEqual([0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8]);
      });
    });

    it("property: is a copy, and no more", () => {
      fc.assert(
        fc.property(cases, (one) => checkStore(space, one)),
        runs(space, 40),
      );
    });
  });

  describeTwins(
    "storeRows",
    {
      "drops the last row": (args) => {
        args[2]--;
      },
      "stores a place too far": (args) => {
        args[7]++;
      },
      "takes caches to be full": (args) => {
        args[6] = args[7] + args[2];
      },
    },
    cases,
    checkStore,
  );
});
