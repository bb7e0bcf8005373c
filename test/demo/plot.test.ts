import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { barPlot, escaped, linearScale, linePlot, palette, paletteCss, ticks, tokenPlot } from "../../src/demo/plot.ts";
import { attributes, parseXml, texts } from "./xml.ts";

describe("ticks", () => {
  it.each([
    [0, 2.3, 5, [0, 0.5, 1, 1.5, 2]],
    [0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]], // 0.6, not 0.6000000000000001
    [0, 4.63, 5, [0, 1, 2, 3, 4]],
    [3.5, 4.2, 5, [3.6, 3.8, 4, 4.2]],
    [0, 12000, 7, [0, 2000, 4000, 6000, 8000, 10000, 12000]],
    [-1, 1, 4, [-1, -0.5, 0, 0.5, 1]],
    [7, 7, 5, [7]],
  ])("from %d to %d, about %i", (low, high, count, expected) => {
    expect(ticks(low, high, count)).toEqual(expected);
  });

  it("are round, evenly spaced, inside the range, and about as many as asked for", () => {
    const range = fc.tuple(
      fc.double({ min: -1e6, max: 1e6, noNaN: true }),
      fc.double({ min: 1e-3, max: 1e6, noNaN: true }),
    );
    fc.assert(
      fc.property(range, fc.integer({ min: 2, max: 10 }), ([low, span], count) => {
        const high = low + span;
        const values = ticks(low, high, count);
        expect(values.length).toBeGreaterThanOrEqual(Math.floor(count / 2.5));
        expect(values.length).toBeLessThanOrEqual(count + 2);
        const slack = span * 1e-6;
        for (const value of values) {
          expect(value).toBeGreaterThanOrEqual(low - slack);
          expect(value).toBeLessThanOrEqual(high + slack);
        }
        const step = (values[1] ?? values[0]! + 1) - values[0]!;
        for (let i = 1; i < values.length; i++) expect(values[i]! - values[i - 1]!).toBeCloseTo(step, 6);
      }),
    );
  });
});

describe("linearScale", () => {
  it("maps the ends of its domain to the ends of its range, and what is between in proportion", () => {
    const scale = linearScale([0, 2], [100, 300]);
    expect([0, 1, 2, 3].map(scale)).toEqual([100, 200, 300, 400]);
    expect(linearScale([0, 10], [50, 0])(4)).toBe(30); // downwards, as y axes are
  });

  it("does not divide by an empty domain", () => {
    expect(linearScale([3, 3], [10, 20])(3)).toBe(10);
  });
});

describe("barPlot", () => {
  const plot = barPlot({
    id: "b",
    title: "Title",
    description: "Description",
    categories: ["one", "two"],
    series: [
      { name: "first", values: [1, 4] },
      { name: "second", values: [2, null] },
    ],
    valueLabel: "units",
  });

  it("draws bars in proportion to their values, from one start, and leaves null out", () => {
    const bars = attributes(plot, "rect").filter(({ x }) => x === attributes(plot, "line").at(-1)!["x1"]);
    // The legend's first swatch begins there too; it is 12 wide and high.
    const widths = bars.filter(({ height }) => height !== "12").map(({ width }) => Number(width));
    expect(widths).toHaveLength(3);
    const [one, two, four] = widths.sort((a, b) => a - b);
    expect(two! / one!).toBeCloseTo(2, 3);
    expect(four! / one!).toBeCloseTo(4, 3);
  });

  it("writes every value, category, series and the axis", () => {
    const written = texts(plot);
    for (const text of ["1.00", "4.00", "2.00", "one", "two", "first", "second", "units"])
      expect(written).toContain(text);
  });
});

describe("linePlot", () => {
  const plot = linePlot({
    id: "l",
    title: "T",
    description: "D",
    series: [
      {
        name: "up",
        points: [
          [1, 1],
          [2, 2],
          [3, 3],
        ],
      },
      {
        name: "flat",
        points: [
          [1, 2],
          [3, 2],
        ],
      },
    ],
    xLabel: "x",
    yLabel: "y",
    yFrom: 0,
    xTicks: [1, 2, 3],
    reference: { y: 1, label: "same" },
  });
  const points = attributes(plot, "polyline")
    .map(({ points: list }) => list!.split(" ").map((pair) => pair.split(",").map(Number) as [number, number]))
    .filter((list) => list[0]![1] > 40); // the legend's strokes are above

  it("puts points where the axes say", () => {
    const [[a, b, c], [d, e]] = points as [[number, number][], [number, number][]];
    expect(b![0] - a![0]).toBeCloseTo(c![0] - b![0], 1);
    expect(a![1] - b![1]).toBeCloseTo(b![1] - c![1], 1); // up is towards smaller y
    expect(d![1]).toBe(e![1]);
    expect(d![1]).toBe(b![1]); // both are 2
    const reference = attributes(plot, "line").find((line) => line["class"] === "reference")!;
    expect(Number(reference["y1"])).toBe(a![1]);
  });

  it("does not break on a single point or none", () => {
    for (const list of [[], [[5, 5] as const]]) {
      const one = linePlot({
        id: "o",
        title: "T",
        description: "D",
        series: [{ name: "s", points: list }],
        xLabel: "",
        yLabel: "",
      });
      expect(one).not.toMatch(/NaN|Infinity|undefined/);
      parseXml(one);
    }
  });
});

describe("tokenPlot", () => {
  const plot = tokenPlot({
    id: "t",
    title: "T",
    description: "D",
    pieces: [
      { text: "in <", kind: -1 },
      { text: "ab", kind: 0 },
      { text: "cdefgh\n  i", kind: 1 },
    ],
    kinds: ["guessed", "written"],
    columns: 10,
  });

  it("writes all of the text, in lines no longer than asked for, each letter eight wide", () => {
    const code = attributes(plot, "text").filter((one) => one["class"]?.startsWith("code"));
    expect(code.map((one) => Number(one["textLength"]) / 8)).toEqual([4, 2, 4, 2, 1]);
    expect(texts(plot).slice(0, 5)).toEqual(["in <", "ab", "cdef", "gh", "i"]);
    for (const one of code) expect(Number(one["x"]) + Number(one["textLength"])).toBeLessThanOrEqual(12 + 80);
    // Three lines: the first is full, the second is its continuation, the third was a line of its own.
    expect(new Set(code.map(({ y }) => y)).size).toBe(3);
  });

  it("marks the first kind by more than a colour", () => {
    const classes = attributes(plot, "rect").map((one) => one["class"]);
    expect(classes.filter((name) => name === "tint0")).toHaveLength(2); // piece and legend
    expect(classes.filter((name) => name === "fill0")).toHaveLength(2); // their underlines
    expect(classes.filter((name) => name === "tint1")).toHaveLength(4); // its three stretches, and the legend
  });
});

describe("every plot", () => {
  const anything = fc.string({ unit: "grapheme", maxLength: 12 });

  it("is well-formed XML whatever its texts hold, with title and description", () => {
    fc.assert(
      fc.property(
        anything,
        anything,
        fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { maxLength: 4 }),
        (title, name, values) => {
          const text = { id: "x", title, description: name, standalone: true };
          const plots = [
            barPlot({ ...text, categories: values.map(() => name), series: [{ name, values }], valueLabel: name }),
            linePlot({
              ...text,
              series: [{ name, points: values.map((v, i) => [i, v] as const) }],
              xLabel: name,
              yLabel: name,
            }),
            tokenPlot({
              ...text,
              pieces: [
                { text: title, kind: 0 },
                { text: name, kind: -1 },
              ],
              kinds: [name, title],
            }),
          ];
          for (const plot of plots) {
            parseXml(plot);
            expect(plot).not.toMatch(/NaN|Infinity|undefined/);
            const [svg] = attributes(plot, "svg");
            expect(svg).toMatchObject({ role: "img", "aria-labelledby": "x-title x-desc" });
            expect(plot).toContain(`<title id="x-title">${escaped(title)}</title>`);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it("brings its colours and paper along only when it stands alone", () => {
    const text = {
      id: "s",
      title: "T",
      description: "D",
      categories: ["a"],
      series: [{ name: "n", values: [1] }],
      valueLabel: "v",
    };
    expect(barPlot(text)).not.toContain("<style>");
    const alone = barPlot({ ...text, standalone: true });
    expect(alone).toContain("prefers-color-scheme:dark");
    expect(alone).toContain("var(--paper)");
  });
});

describe("palette", () => {
  const modes = ["light", "dark"] as const;
  const marks = ["series0", "series1", "series2"] as const;

  it.each(modes)("has enough contrast in %s (WCAG 2.2: 4.5 for text, 3 for marks)", (mode) => {
    const paper = palette.paper[mode];
    for (const text of ["text", "muted"] as const)
      expect(contrast(palette[text][mode], paper)).toBeGreaterThanOrEqual(4.5);
    for (const mark of marks) expect(contrast(palette[mark][mode], paper)).toBeGreaterThanOrEqual(3);
    for (const tint of ["tint0", "tint1"] as const) {
      expect(contrast(palette.text[mode], palette[tint][mode])).toBeGreaterThanOrEqual(4.5);
    }
  });

  it("the contrast formula gives the published extremes", () => {
    expect(contrast("#000000", "#ffffff")).toBeCloseTo(21, 6);
    expect(contrast("#777777", "#ffffff")).toBeCloseTo(4.48, 2);
  });

  it("gives every colour in both modes", () => {
    const css = paletteCss(":root");
    for (const [name, { light, dark }] of Object.entries(palette)) {
      expect(css).toContain(`--${name}:${light}`);
      expect(css).toContain(`--${name}:${dark}`);
    }
  });
});

/** Contrast of two colours by WCAG 2.2, from 1 to 21. */
function contrast(a: string, b: string): number {
  const luminance = (colour: string): number => {
    const [red, green, blue] = [1, 3, 5].map((at) => {
      const channel = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
      return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
  };
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (light! + 0.05) / (dark! + 0.05);
}
