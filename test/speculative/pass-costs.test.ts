import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import { chainDraft, type Drafter, plainDecoding } from "../../src/speculative/index.ts";
import { flatPassCosts, measureDrafting, measurePassCosts, passCost } from "../../src/speculative/pass-costs.ts";

describe("passCost", () => {
  const curve = { nodes: [1, 2, 8], costs: [1, 1.5, 4.5] };

  it("lies on the lines through the measured points, and on the last one's continuation", () => {
    expect([1, 2, 5, 8, 10].map((nodes) => passCost(curve, nodes))).toEqual([1, 1.5, 3, 4.5, 5.5]);
    expect([1, 64].map((nodes) => passCost(flatPassCosts, nodes))).toEqual([1, 1]);
  });

  it("never falls where the measured costs do not", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.integer({ min: 2, max: 64 }), { minLength: 1, maxLength: 8 }),
        fc.array(fc.double({ min: 0, max: 3, noNaN: true }), { minLength: 8, maxLength: 8 }),
        (sizes, steps) => {
          const nodes = [1, ...sizes.sort((a, b) => a - b)];
          const costs = [1];
          for (let i = 1; i < nodes.length; i++) costs.push(costs[i - 1]! + steps[i - 1]!);
          for (let n = 2; n < 80; n++) {
            expect(passCost({ nodes, costs }, n)).toBeGreaterThanOrEqual(passCost({ nodes, costs }, n - 1) - 1e-9);
          }
          nodes.forEach((size, i) => {
            expect(passCost({ nodes, costs }, size)).toBeCloseTo(costs[i]!, 9);
          });
        },
      ),
    );
  });
});

describe("measurePassCosts", () => {
  const table = TableModel.random({ vocabularySize: 4, contextLength: 40, order: 1, seed: 1 });

  it("takes the least of each size, in turns, after the runtime has warmed up, and leaves no session open", () => {
    let now = 0;
    let passes = 0;
    let open = 0;
    const model: LanguageModel = {
      vocabularySize: 4,
      contextLength: 40,
      openSession() {
        const session = table.openSession();
        open++;
        const score = session.score.bind(session);
        session.score = (tree, options) => {
          const nodes = tree.tokens.length;
          passes++;
          // Slow while cold, disturbed at times: milliseconds by a clock of its own.
          now += (now < 150 ? 5 : 1) * (0.2 + 0.1 * nodes) + (passes % 3 === 0 ? 2 : 0);
          return score(tree, options);
        };
        const close = session.close.bind(session);
        session.close = () => {
          open--;
          close();
        };
        return session;
      },
    };
    const { nodes, costs } = measurePassCosts(model, { sizes: [8, 4], clock: () => now });
    expect(nodes).toEqual([1, 4, 8]);
    [1, 0.6 / 0.3, 1 / 0.3].forEach((cost, i) => {
      expect(costs[i]).toBeCloseTo(cost, 9);
    });
    expect(open).toBe(0);
  });

  it("measures sizes the context has room for", () => {
    const { nodes, costs } = measurePassCosts(table, { seconds: 0.002 });
    expect(nodes).toEqual([1, 2, 3, 4, 6, 8, 12, 16]);
    expect(costs.every((cost) => cost > 0)).toBe(true);
  });

  it("refuses sizes that do not fit, and no time", () => {
    for (const sizes of [[0], [1.5], [41], [Number.NaN]]) {
      expect(() => measurePassCosts(table, { sizes, seconds: 0.001, context: 4 }), String(sizes)).toThrow(
        ArgumentError,
      );
    }
    for (const seconds of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => measurePassCosts(table, { seconds })).toThrow(ArgumentError);
    }
  });
});

describe("measureDrafting", () => {
  const table = TableModel.random({ vocabularySize: 4, contextLength: 200, order: 1, seed: 1 });

  /** Drafts `asked` zeros, and takes 3 ms a step and 0.5 ms a guess by a clock of its own. */
  function timedDrafter(clock: { now: number }): Drafter {
    return {
      vocabularySize: 4,
      open: () => ({
        cost: { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 },
        propose({ tokens, maxNodes, maxDepth }) {
          const guesses = Math.min(maxNodes - 1, maxDepth);
          clock.now += 2 + 0.5 * guesses;
          return chainDraft(tokens.at(-1)!, new Array(guesses).fill(0), new Array(guesses).fill(null));
        },
        observe() {
          clock.now += 1;
        },
        close() {},
      }),
      reset() {},
    };
  }

  it("finds what a step and a guess take, in passes over one node", () => {
    const clock = { now: 0 };
    const costs = measureDrafting(table, timedDrafter(clock), [[0, 1], [2]], {
      clock: () => clock.now,
      onePass: 10,
      maxTokens: 60,
    });
    expect(costs.perStep).toBeCloseTo(0.3, 9);
    expect(costs.perGuess).toBeCloseTo(0.05, 9);
  });

  it("finds no cost where there is none, and refuses to measure on nothing", () => {
    const free = measureDrafting(table, plainDecoding, [[0]], { clock: () => 0, onePass: 1 });
    expect(free).toEqual({ perStep: 0, perGuess: 0 });
    expect(() => measureDrafting(table, plainDecoding, [])).toThrow(ArgumentError);
  });
});
