import { describe, expect, it } from "vitest";
import { acceptanceByProbability } from "../../src/demo/family.ts";
import { acceptancePicture } from "../../src/demo/family-pictures.ts";
import { panelPlot } from "../../src/demo/panel-plot.ts";
import { TableModel } from "../../src/model/table-model.ts";
import { parseXml } from "./xml.ts";

/** One law whatever came before. */
const always = (law: number[]) => new TableModel({ vocabularySize: law.length, contextLength: 4096, law: () => law });

describe("acceptance by the draft's probability", () => {
  it("is min(1, p / q) of each guess: drawn ones that the target finds likelier are always kept", () => {
    const [p, q] = [
      [0.3125, 0.4, 0.2875],
      [0.625, 0.25, 0.125],
    ];
    const { guesses, bins } = acceptanceByProbability(always(p!), always(q!), [[0], [1], [2]], { maxTokens: 1200 });
    // Token 0 has q = 0.625 and is kept half of the time; 1 and 2 always.
    expect(bins.reduce((sum, { tested }) => sum + tested, 0)).toBe(guesses);
    expect(bins.flatMap(({ tested }, i) => (tested > 0 ? [i] : []))).toEqual(
      [1, 3, 6].map((tenth) => tenth - (tenth === 3 ? 1 : 0)),
    );
    const rate = (i: number) => bins[i]!.accepted / bins[i]!.tested;
    expect(rate(1)).toBe(1);
    expect(Math.abs(rate(6) - 0.5)).toBeLessThan(4 * Math.sqrt(0.25 / bins[6]!.tested));
  });

  it("puts a certain guess into the last bin", () => {
    const { bins } = acceptanceByProbability(always([0, 1]), always([0, 1]), [[1]], { maxTokens: 20 });
    expect(bins.at(-1)!.tested).toBe(bins.at(-1)!.accepted);
    expect(bins.at(-1)!.tested).toBeGreaterThan(0);
  });

  it("leaves out of the picture what was never tested", () => {
    const bins = [
      { tested: 0, accepted: 0 },
      { tested: 4, accepted: 3 },
    ];
    const svg = acceptancePicture({ acceptance: { guesses: 4, bins } });
    expect(svg.match(/<polyline class="line0" points="[^" ]+"/)).not.toBeNull();
  });
});

describe("small multiples", () => {
  const svg = panelPlot({
    id: "panels",
    title: "t",
    description: "d",
    panels: ["a", "b", "c", "d", "e"].map((name, i) => ({
      name,
      lines: [
        [
          [4, 1 + i],
          [8, 2 + i],
        ],
      ],
    })),
    series: ["s"],
    xTicks: [4, 8],
    xLabel: "x",
    yLabel: "y",
    reference: { y: 1, label: "one" },
  });

  it("are well-formed: each panel its line and everybody else's", () => {
    parseXml(svg);
    expect(svg.match(/<polyline class="line0"/g)).toHaveLength(5);
    expect(svg.match(/<polyline /g)).toHaveLength(5 * 5);
  });

  it("share their axes: equal values stand at equal heights", () => {
    const heights = [...svg.matchAll(/class="line0" points="([^"]*)"/g)].map((match) =>
      match[1]!.split(" ").map((point) => Number(point.split(",")[1])),
    );
    // Panel b begins where panel a ends.
    expect(heights[1]![0]).toBe(heights[0]![1]);
    expect(heights[0]![0]! - heights[0]![1]!).toBeCloseTo(heights[3]![0]! - heights[3]![1]!, 1);
  });
});
