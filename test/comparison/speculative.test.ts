import { describe, expect, it } from "vitest";
import { catalog } from "../../src/catalog.ts";
import { type ComparisonRow, compareSpeculation } from "../../src/comparison/speculative.ts";
import { allowedSpeedup, bestRows, ceilingOf, tableOf } from "../../src/comparison/speculative-report.ts";
import { TableModel } from "../../src/model/table-model.ts";
import { generateAll } from "../../src/speculative/index.ts";

const target = TableModel.random({ vocabularySize: 12, order: 2, seed: 1 });
const draft = TableModel.random({ vocabularySize: 12, order: 1, seed: 2 });
const named = (...names: string[]) => catalog.filter(({ name }) => names.includes(name));
const options = {
  target,
  draft,
  techniques: named("plain-decoding", "random-drafter", "speculative-sampling", "rsd-s", "token-recycling"),
  promptSets: { one: [[1, 2, 3]], two: [[4], [5, 6, 4]] },
  calibration: [[7, 8]],
  temperatures: [0, 1],
  budgets: [2, 8],
  maxTokens: 20,
};

describe("comparing techniques of generation", () => {
  it("has a row for every technique, set, temperature and budget; counts are those of generate", async () => {
    const seen: number[] = [];
    const rows = await compareSpeculation({ ...options, onRow: (_, done, total) => seen.push(done / total) });
    expect(rows).toHaveLength(5 * 2 * 2 * 2);
    expect(seen).toHaveLength(rows.length);
    expect(seen.at(-1)).toBe(1);
    for (const row of rows) {
      expect(row.guesses).toBeLessThanOrEqual(row.budget);
      expect(row.identical).toBe(row.temperature === 0 ? true : null);
      expect(row.lossy).toBe(false);
      const accepted = row.positions.reduce((sum, p) => sum + p.accepted, 0);
      const tokens = 20 * options.promptSets[row.promptSet as "one" | "two"].length;
      const passes = tokens / row.tokensPerPass;
      // The last pass may have guessed one token more than was asked for; it is cut before it counts.
      expect(accepted + passes).toBeCloseTo(tokens, 6);
      if (row.technique === "plain-decoding") {
        expect(row).toMatchObject({ tokensPerPass: 1, guesses: 0, draftPassesPerToken: 0, positions: [] });
        expect(row.multiplyAddsPerToken).toEqual({ target: row.plainMultiplyAddsPerToken, draft: 0 });
      }
    }
    const { drafter } = await (
      named("speculative-sampling")[0]!.run as Extract<(typeof catalog)[number]["run"], { kind: "generation" }>
    ).method({ gamma: 8, draft, target, sampling: { temperature: 1 }, calibration: [] });
    const reports = await Promise.all(
      options.promptSets.two.map((prompt, seed) =>
        generateAll(target, prompt, { drafter: drafter!, temperature: 1, maxTokens: 20, seed }),
      ),
    );
    const chain = rows.find(
      (r) => r.technique === "speculative-sampling" && r.promptSet === "two" && r.temperature === 1 && r.budget === 8,
    )!;
    expect(chain.tokensPerPass).toBe(40 / reports.reduce((sum, r) => sum + r.targetPasses, 0));
  });

  it("starts every row cold: the order of rows changes no count", async () => {
    const counts = async (budgets: number[]) => {
      const rows = await compareSpeculation({ ...options, budgets, temperatures: [0] });
      return new Map(rows.map((r) => [`${r.technique} ${r.promptSet} ${r.budget}`, r.tokensPerPass]));
    };
    const [forwards, backwards] = [await counts([2, 8]), await counts([8, 2])];
    for (const [key, value] of forwards) expect(backwards.get(key), key).toBe(value);
  });

  it("refuses techniques that do not generate", async () => {
    await expect(compareSpeculation({ ...options, techniques: named("bpe") })).rejects.toThrow(/bpe/);
  });
});

describe("a comparison as tables", () => {
  const rows = [
    { technique: "a", budget: 2, promptSet: "x", speedup: 1, tokensPerPass: 2, guesses: 2 },
    { technique: "a", budget: 2, promptSet: "y", speedup: 3, tokensPerPass: 3, guesses: 2 },
    { technique: "a", budget: 4, promptSet: "x", speedup: 2, tokensPerPass: 3, guesses: 3 },
    { technique: "b", budget: 2, promptSet: "x", speedup: 0.5, tokensPerPass: 1, guesses: 0 },
  ] as ComparisonRow[];
  const costs = { nodes: [1, 2, 4], costs: [1, 1.25, 2] };

  it("means over sets, best rows, what the pass costs allow, and the ceiling", () => {
    expect(tableOf(rows, ({ speedup }) => speedup)).toEqual({
      budgets: [2, 4],
      lines: [
        { technique: "a", values: [2, 2] },
        { technique: "b", values: [0.5, Number.NaN] },
      ],
    });
    expect(bestRows(rows, ({ speedup }) => speedup)).toEqual([rows[1], rows[3]]);
    expect(rows.map((row) => allowedSpeedup(row, costs))).toEqual([2 / 1.625, 3 / 1.625, 1.5, 1]);
    expect(ceilingOf(costs)).toEqual({ nodes: 4, speedup: 2 });
  });
});
