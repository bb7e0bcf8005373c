/**
 * What every `LanguageModel` must do, as property tests: `describeSessionConformance(name, makeModel, { tolerance })`.
 *
 * The oracle is the model itself in its simplest use: a fresh session, one `extend` per token. Whatever way a session
 * came to hold a sequence, its logits must be those; and its length must be exact after every call.
 */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { ArgumentError, ContextOverflowError, TokenthriftError } from "../../src/errors.ts";
import type { DraftTree, LanguageModel, Matrix, Session } from "../../src/model/language-model.ts";
import { row, subtractCosts } from "../../src/model/language-model.ts";

export interface ConformanceOptions {
  /** Largest absolute difference of two logits that count as equal; 0 demands the same bits. */
  readonly tolerance: number;
  /** Random cases per property. Default 100. */
  readonly runs?: number;
  /** Longest sequence a random case builds; the overflow test alone fills the whole context. Default 12. */
  readonly longest?: number;
}

/**
 * @param makeModel called once, before the first test; the model needs a context of at least 4 tokens, and the overflow
 *   tests are quick only if it is short
 */
export function describeSessionConformance(
  name: string,
  makeModel: () => LanguageModel | Promise<LanguageModel>,
  { tolerance, runs = 100, longest = 12 }: ConformanceOptions,
): void {
  describe(`${name} is a language model`, () => {
    let model: LanguageModel;
    let limit: number;
    beforeAll(async () => {
      model = await makeModel();
      limit = Math.min(longest, model.contextLength);
    });

    // Cases are drawn as numbers in [0, 1) and scaled inside the test, where the model is known.
    const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    const units = (maxLength: number, minLength = 0) => fc.array(unit, { minLength, maxLength });
    const idOf = (u: number) => Math.floor(u * model.vocabularySize);
    const idsOf = (us: readonly number[]) => us.slice(0, limit).map(idOf);
    const treeShape = (maxLength: number) => fc.array(fc.tuple(unit, unit), { minLength: 1, maxLength });
    const treeOf = (shape: readonly (readonly [number, number])[]): DraftTree => ({
      tokens: shape.map(([u]) => idOf(u)),
      parents: shape.map(([, u], i) => Math.floor(u * (i + 1)) - 1),
    });
    const pathOf = (tree: DraftTree, node: number): number[] => {
      const path: number[] = [];
      for (let i = node; i >= 0; i = tree.parents[i]!) path.unshift(tree.tokens[i]!);
      return path;
    };

    function withSession<T>(body: (session: Session) => T): T {
      const session = model.openSession();
      try {
        return body(session);
      } finally {
        session.close();
      }
    }

    /** The oracle: logits after the last id, one token at a time. */
    function logitsAfter(ids: readonly number[]): Float32Array {
      return withSession((session) => {
        let logits: Matrix | undefined;
        for (const id of ids) logits = session.extend([id]).logits;
        return row(logits!, 0).slice();
      });
    }

    function expectEqual(actual: Float32Array, expected: Float32Array, what: string): void {
      expect(actual.length, what).toBe(expected.length);
      for (let i = 0; i < expected.length; i++) {
        const a = actual[i]!;
        const b = expected[i]!;
        if (a !== b && !(Math.abs(a - b) <= tolerance)) {
          expect.fail(`${what}: logit ${i} is ${a}, expected ${b} within ${tolerance}`);
        }
      }
    }

    /** The session holds exactly `ids`: its length says so and so does what it predicts next. Leaves it unchanged. */
    function expectHolds(session: Session, ids: readonly number[], what: string): void {
      expect(session.length, what).toBe(ids.length);
      if (ids.length === model.contextLength) return;
      const probe = ids.length % model.vocabularySize;
      const { logits } = session.extend([probe]);
      expectEqual(row(logits, 0), logitsAfter([...ids, probe]), `${what}: logits after [${ids}] and ${probe}`);
      session.truncate(ids.length);
      expect(session.length, what).toBe(ids.length);
    }

    const property = (...args: Parameters<typeof fc.assert>) =>
      fc.assert(args[0], { numRuns: runs, seed: 2, ...(args[1] ?? {}) });

    it("extends in one pass, in chunks or token by token alike, with a row for the last or for each", () => {
      property(
        fc.property(units(longest, 2), unit, (us, cut) => {
          const ids = idsOf(us);
          const at = 1 + Math.floor(cut * (ids.length - 1));
          withSession((session) => {
            const { logits } = session.extend(ids, { logits: "all" });
            expect([logits.rows, logits.columns]).toEqual([ids.length, model.vocabularySize]);
            ids.forEach((_, i) => {
              expectEqual(row(logits, i), logitsAfter(ids.slice(0, i + 1)), `row ${i} of extend([${ids}])`);
            });
            expectHolds(session, ids, "extend");
          });
          withSession((session) => {
            const none = session.extend(ids.slice(0, at), { logits: "none" }).logits;
            expect([none.rows, none.data.length]).toEqual([0, 0]);
            const { logits } = session.extend(Int32Array.from(ids.slice(at)));
            expect(logits.rows).toBe(1);
            expectEqual(row(logits, 0), logitsAfter(ids), `extend in two chunks at ${at}`);
          });
        }),
      );
    });

    it("scores every node of a tree as a fresh session that holds its path, and commits nothing", () => {
      property(
        fc.property(units(6), treeShape(8), (us, shape) => {
          const ids = idsOf(us).slice(0, Math.max(0, limit - 1));
          const tree = treeOf(shape.slice(0, limit - ids.length));
          withSession((session) => {
            if (ids.length > 0) session.extend(ids);
            const { logits } = session.score(tree);
            expect([logits.rows, logits.columns]).toEqual([tree.tokens.length, model.vocabularySize]);
            expect(session.length).toBe(ids.length);
            for (let node = 0; node < tree.tokens.length; node++) {
              const path = pathOf(tree, node);
              expectEqual(row(logits, node), logitsAfter([...ids, ...path]), `node ${node}, path [${path}]`);
            }
            expectHolds(session, ids, "after score");
          });
        }),
      );
    });

    it("accepts exactly the path to a node", () => {
      property(
        fc.property(units(6), treeShape(8), unit, (us, shape, pick) => {
          const ids = idsOf(us).slice(0, Math.max(0, limit - 1));
          const tree = treeOf(shape.slice(0, limit - ids.length));
          const node = Math.floor(pick * tree.tokens.length);
          withSession((session) => {
            if (ids.length > 0) session.extend(ids);
            session.score(tree);
            session.accept(node);
            expectHolds(session, [...ids, ...pathOf(tree, node)], `accept(${node})`);
          });
        }),
      );
    });

    it("truncates to any length, and goes on as if the tail had never been", () => {
      property(
        fc.property(units(longest, 1), unit, units(4), (us, cut, more) => {
          const ids = idsOf(us);
          const kept = ids.slice(0, Math.floor(cut * (ids.length + 1)));
          withSession((session) => {
            session.extend(ids);
            session.truncate(kept.length);
            expectHolds(session, kept, "truncate");
            const next = [...kept, ...idsOf(more)].slice(0, limit);
            if (next.length > kept.length) session.extend(next.slice(kept.length));
            expectHolds(session, next, "truncate, then extend");
          });
        }),
      );
    });

    it("holds the right tokens after any program of calls, two sessions at a time", () => {
      const command = fc.record({
        session: fc.constantFrom(0, 1),
        kind: fc.constantFrom("extend", "score", "step", "truncate"),
        shape: treeShape(5),
        pick: unit,
      });
      property(
        fc.property(fc.array(command, { maxLength: 12 }), (program) => {
          const sessions = [model.openSession(), model.openSession()];
          const held: number[][] = [[], []];
          for (const { session: which, kind, shape, pick } of program) {
            const session = sessions[which]!;
            const ids = held[which]!;
            const tree = treeOf(shape.slice(0, limit - ids.length));
            const room = tree.tokens.length > 0;
            if (kind === "extend" && room) {
              session.extend(tree.tokens);
              ids.push(...Array.from(tree.tokens));
            } else if (kind === "score" && room) {
              session.score(tree);
            } else if (kind === "step" && room) {
              const node = Math.floor(pick * tree.tokens.length);
              session.score(tree);
              session.accept(node);
              ids.push(...pathOf(tree, node));
            } else if (kind === "truncate") {
              const length = Math.floor(pick * (ids.length + 1));
              session.truncate(length);
              ids.length = length;
            }
            expect(session.length).toBe(ids.length);
          }
          sessions.forEach((session, i) => {
            expectHolds(session, held[i]!, `session ${i}`);
            session.close();
          });
        }),
        { numRuns: runs },
      );
    });

    it("allows one accept per score, and forgets a scored tree on extend, truncate and a second score", () => {
      const pair: DraftTree = { tokens: [0, 0], parents: [-1, 0] };
      const single: DraftTree = { tokens: [0], parents: [-1] };
      withSession((session) => {
        expect(() => session.accept(0)).toThrow(TokenthriftError);
        session.score(pair);
        session.accept(0);
        expect(() => session.accept(0)).toThrow(TokenthriftError);
        session.score(single);
        session.extend([0]);
        expect(() => session.accept(0)).toThrow(TokenthriftError);
        expectHolds(session, [0, 0], "accept after extend");
        session.score(single);
        session.truncate(1);
        expect(() => session.accept(0)).toThrow(TokenthriftError);
        session.score(pair);
        session.score(single);
        expect(() => session.accept(1)).toThrow(TokenthriftError);
        session.accept(0);
        expectHolds(session, [0, 0], "accept after a second score");
      });
    });

    it("refuses bad input and stays as it was, the scored tree included", () => {
      const v = model.vocabularySize;
      const badIds = [-1, v, 0.5, Number.NaN, Number.POSITIVE_INFINITY];
      const badTrees: DraftTree[] = [
        { tokens: [], parents: [] },
        { tokens: [0, 0], parents: [-1] },
        { tokens: [0], parents: [0] },
        { tokens: [0, 0], parents: [-1, 1] },
        { tokens: [0, 0], parents: [1, -1] },
        { tokens: [0, 0], parents: [-1, -2] },
        { tokens: [0, 0], parents: [-1, 0.5] },
        { tokens: [0, 0], parents: [-1, Number.NaN] },
        ...badIds.map((id) => ({ tokens: [0, id], parents: [-1, 0] })),
      ];
      withSession((session) => {
        session.extend([0, v - 1]);
        session.score({ tokens: [v - 1, 0], parents: [-1, -1] });
        const cost = session.cost;
        expect(() => session.extend([])).toThrow(ArgumentError);
        for (const id of badIds) expect(() => session.extend([0, id]), `extend ${id}`).toThrow(ArgumentError);
        for (const tree of badTrees) {
          expect(() => session.score(tree), JSON.stringify(tree)).toThrow(ArgumentError);
        }
        for (const node of [-1, 2, 0.5, Number.NaN]) expect(() => session.accept(node)).toThrow(ArgumentError);
        for (const length of [-1, 3, 0.5, Number.NaN]) expect(() => session.truncate(length)).toThrow(ArgumentError);
        expect(session.length).toBe(2);
        expect(session.cost).toEqual(cost);
        session.accept(1);
        expectHolds(session, [0, v - 1, 0], "after refused calls");
      });
    });

    it("refuses what exceeds the context by one, takes what just fits, and stays usable", () => {
      const full = Array.from({ length: model.contextLength }, (_, i) => i % model.vocabularySize);
      withSession((session) => {
        expect(() => session.extend([...full, 0])).toThrow(ContextOverflowError);
        expect(session.length).toBe(0);
        session.extend(full.slice(0, -2), { logits: "none" });
        expect(() => session.extend([0, 0, 0])).toThrow(ContextOverflowError);
        expect(() => session.score({ tokens: [0, 0, 0], parents: [-1, -1, -1] })).toThrow(ContextOverflowError);
        expectHolds(session, full.slice(0, -2), "after an overflow");
        session.score({ tokens: full.slice(-2), parents: [-1, 0] });
        session.accept(1);
        expect(session.length).toBe(model.contextLength);
        expect(() => session.extend([0])).toThrow(ContextOverflowError);
        expect(() => session.score({ tokens: [0], parents: [-1] })).toThrow(ContextOverflowError);
        session.truncate(1);
        expectHolds(session, full.slice(0, 1), "truncated after it was full");
      });
    });

    it("counts passes and tokens: one pass per short extend and per score, one token per row; the rest is free", () => {
      withSession((session) => {
        const before = session.cost;
        expect([before.passes, before.tokens, before.multiplyAdds, before.cacheBytesRead]).toEqual([0, 0, 0, 0]);
        session.extend([0, 0, 0]);
        const extended = session.cost;
        expect([extended.passes, extended.tokens]).toEqual([1, 3]);
        session.score({ tokens: [0], parents: [-1] });
        const scored = session.cost;
        expect(subtractCosts(scored, extended)).toMatchObject({ passes: 1, tokens: 1 });
        session.accept(0);
        session.truncate(1);
        expect(session.cost).toEqual(scored);
        expect(session.cost).not.toBe(session.cost);
        session.extend([0], { logits: "none" });
        const last = subtractCosts(session.cost, scored);
        expect(last).toMatchObject({ passes: 1, tokens: 1 });
        expect(last.multiplyAdds).toBeGreaterThanOrEqual(0);
      });
    });

    it("leaves its inputs as they were", () => {
      const ids = [0, model.vocabularySize - 1];
      const tree = { tokens: Int32Array.of(0, model.vocabularySize - 1), parents: Int32Array.of(-1, 0) };
      withSession((session) => {
        session.extend(ids);
        session.score(tree);
        session.accept(1);
        expect(ids).toEqual([0, model.vocabularySize - 1]);
        expect(Array.from(tree.tokens)).toEqual([0, model.vocabularySize - 1]);
        expect(Array.from(tree.parents)).toEqual([-1, 0]);
        ids[0] = model.vocabularySize - 1;
        tree.tokens.fill(0);
        expectHolds(
          session,
          [0, model.vocabularySize - 1, 0, model.vocabularySize - 1],
          "caller's arrays changed later",
        );
      });
    });

    it("keeps the scored tree its own: what the caller writes into the arrays before accept changes nothing", () => {
      const tree = { tokens: [model.vocabularySize - 1, 0], parents: [-1, 0] };
      withSession((session) => {
        session.score(tree);
        tree.tokens.fill(0);
        tree.parents.fill(-1);
        session.accept(1);
        expectHolds(session, [model.vocabularySize - 1, 0], "tree changed between score and accept");
      });
    });

    it("throws once closed, closes twice without complaint, and leaves other sessions alone", () => {
      withSession((other) => {
        other.extend([0]);
        const session = model.openSession();
        session.extend([0]);
        session.close();
        session.close();
        expect(() => session.extend([0])).toThrow(TokenthriftError);
        expect(() => session.score({ tokens: [0], parents: [-1] })).toThrow(TokenthriftError);
        expect(() => session.accept(0)).toThrow(TokenthriftError);
        expect(() => session.truncate(0)).toThrow(TokenthriftError);
        expectHolds(other, [0], "another session");
      });
    });
  });
}
