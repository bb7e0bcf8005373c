/**
 * Plots as SVG text: bars, lines, and a text coloured by author. No dependency, no script, no font file.
 *
 * Colours are CSS variables with a light and a dark value, so a plot follows the page or, `standalone`, brings them along.
 * Series differ in more than colour: lines in dash and marker, bars in their order, tokens in an underline. Each plot has
 * a title and a description for those who do not see it; the figures themselves belong in a table beside it.
 *
 * Worked example: `ticks(0, 2.3)` -> [0, 0.5, 1, 1.5, 2]; `linearScale([0, 2], [100, 300])(1)` -> 200.
 */

/** A colour in light and in dark. Contrast against the paper is at least 4.5 for text, 3 for marks (a test checks). */
export const palette = {
  paper: { light: "#ffffff", dark: "#14181d" },
  text: { light: "#1c2024", dark: "#e6e9ec" },
  muted: { light: "#59626b", dark: "#a3acb5" },
  grid: { light: "#dfe3e7", dark: "#323a42" },
  series0: { light: "#0b62b0", dark: "#5aa9f0" },
  series1: { light: "#b8520a", dark: "#f29a4e" },
  series2: { light: "#1a7f4b", dark: "#4fc78a" },
  tint0: { light: "#d3e6f8", dark: "#183c5e" },
  tint1: { light: "#fae3cf", dark: "#57351a" },
} as const;

const variables = (mode: "light" | "dark"): string =>
  Object.entries(palette)
    .map(([name, colour]) => `--${name}:${colour[mode]}`)
    .join(";");

/** The palette as CSS variables on `selector`. */
export function paletteCss(selector: string): string {
  return (
    `${selector}{color-scheme:light dark;${variables("light")}}\n` +
    `@media (prefers-color-scheme:dark){${selector}{${variables("dark")}}}`
  );
}

/** The rules all plots share. */
export const plotCss = [
  ".plot{max-width:100%;height:auto;font:13px system-ui,-apple-system,'Segoe UI',sans-serif}",
  ".plot text{fill:var(--text)}",
  ".plot .muted{fill:var(--muted)}",
  ".plot .grid{stroke:var(--grid);stroke-width:1}",
  ".plot .axis{stroke:var(--muted);stroke-width:1}",
  ".plot .reference{stroke:var(--muted);stroke-width:1.5;stroke-dasharray:2 4}",
  ".plot .small{font-size:11.5px}",
  ".plot .end{text-anchor:end}",
  ".plot .middle{text-anchor:middle}",
  ".plot .code{font:13px ui-monospace,'Cascadia Mono',Consolas,'DejaVu Sans Mono',monospace;white-space:pre}",
  ...[0, 1, 2].map(
    (i) =>
      `.plot .fill${i}{fill:var(--series${i})}` +
      `.plot .line${i}{fill:none;stroke:var(--series${i});stroke-width:2.25;stroke-linejoin:round}`,
  ),
  ".plot .line1{stroke-dasharray:7 4}",
  ".plot .line2{stroke-dasharray:2 4}",
  ".plot .tint0{fill:var(--tint0)}.plot .tint1{fill:var(--tint1)}",
].join("\n");

/** A linear map from `domain` to `range`. */
export function linearScale(
  domain: readonly [number, number],
  range: readonly [number, number],
): (value: number) => number {
  const [d0, d1] = domain;
  const [r0, r1] = range;
  return (value) => (d1 === d0 ? r0 : r0 + ((value - d0) / (d1 - d0)) * (r1 - r0));
}

/**
 * Round numbers inside [low, high], about `count` of them: multiples of 1, 2 or 5 times a power of ten.
 * @returns ascending; a single value where low and high are (all but) equal
 */
export function ticks(low: number, high: number, count = 5): number[] {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  // Equal ends, or so near to each other that their distance has no reciprocal.
  if (!(power > 1e-100)) return [low];
  const step = [1, 2, 5, 10].map((m) => m * power).find((candidate) => candidate >= rough * 0.999) ?? 10 * power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  // Through decimal text: 3 * 0.1 is to be 0.3.
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(digits)));
}

export interface PlotText {
  /** Unique in the page: ids inside the plot begin with it. */
  readonly id: string;
  readonly title: string;
  /** What the plot shows, in a sentence or two, with its main figures. */
  readonly description: string;
  /** A file of its own instead of a part of a page: brings colours and paper along. Default false. */
  readonly standalone?: boolean;
}

export interface BarPlot extends PlotText {
  readonly categories: readonly string[];
  /** One value per category; null leaves a bar out. */
  readonly series: readonly { readonly name: string; readonly values: readonly (number | null)[] }[];
  readonly valueLabel: string;
  /** How a bar's value is written at its end. Default: two decimals. */
  readonly format?: (value: number) => string;
}

const plotWidth = 720;

/** Horizontal bars from zero, grouped by category, each with its value at its end. */
export function barPlot({ categories, series, valueLabel, format = (v) => v.toFixed(2), ...text }: BarPlot): string {
  const bar = series.length === 1 ? 18 : 14;
  const pitch = series.length * bar + 10;
  const left = 14 + textWidth(categories);
  const right = plotWidth - 56;
  const top = series.length > 1 ? 42 : 18;
  const bottom = top + categories.length * pitch;
  const largest = Math.max(0, ...series.flatMap(({ values }) => values.filter((value) => value !== null)));
  const x = linearScale([0, largest === 0 ? 1 : largest], [left, right]);
  const marks: string[] = [];
  for (const tick of ticks(0, largest === 0 ? 1 : largest)) {
    marks.push(
      line("grid", x(tick), top - 4, x(tick), bottom),
      label(x(tick), bottom + 18, String(tick), "muted middle"),
    );
  }
  for (const [c, category] of categories.entries()) {
    const y = top + c * pitch;
    marks.push(label(left - 8, y + (series.length * bar) / 2 + 4.5, category, "end"));
    for (const [s, { values }] of series.entries()) {
      const value = values[c];
      if (value === null || value === undefined) continue;
      const width = Math.max(0, x(value) - left);
      marks.push(
        `<rect class="fill${s}" x="${n(left)}" y="${n(y + s * bar)}" width="${n(width)}" height="${bar - 1.5}"/>`,
        label(left + width + 5, y + s * bar + bar / 2 + 4, format(value), series.length === 1 ? "" : "small"),
      );
    }
  }
  marks.push(
    line("axis", left, top - 4, left, bottom),
    label((left + right) / 2, bottom + 38, valueLabel, "muted middle"),
  );
  if (series.length > 1)
    marks.push(
      legend(
        left,
        20,
        series.map(({ name }) => name),
        "bar",
      ),
    );
  return frame(text, plotWidth, bottom + 48, marks);
}

export interface LinePlot extends PlotText {
  /** Points in ascending x. */
  readonly series: readonly { readonly name: string; readonly points: readonly (readonly [number, number])[] }[];
  readonly xLabel: string;
  readonly yLabel: string;
  /** Where the y axis begins. Default: a little under the smallest value. */
  readonly yFrom?: number;
  /** Ticks of the x axis. Default: round numbers. */
  readonly xTicks?: readonly number[];
  /** A horizontal line that means something. */
  readonly reference?: { readonly y: number; readonly label: string };
}

/** Lines with markers (where there are few enough points to see them), each with a legend entry. */
export function linePlot({ series, xLabel, yLabel, yFrom, xTicks, reference, ...text }: LinePlot): string {
  const height = 340;
  const points = series.flatMap((one) => one.points);
  const xs = points.map(([px]) => px);
  const ys = [...points.map(([, py]) => py), ...(reference === undefined ? [] : [reference.y])];
  const [xLow, xHigh] = extent(xs);
  const [lowest, highest] = extent(ys);
  const margin = (highest - lowest || 1) * 0.06;
  const [yLow, yHigh] = [yFrom ?? lowest - margin, highest + margin];
  const [left, right, top, bottom] = [62, plotWidth - 24, 46, height - 52];
  const x = linearScale([xLow, xHigh], [left + 10, right]);
  const y = linearScale([yLow, yHigh], [bottom, top]);
  const marks: string[] = [];
  for (const tick of ticks(yLow, yHigh)) {
    marks.push(line("grid", left, y(tick), right, y(tick)), label(left - 8, y(tick) + 4, String(tick), "muted end"));
  }
  for (const tick of xTicks ?? ticks(xLow, xHigh, 7)) {
    marks.push(
      line("axis", x(tick), bottom, x(tick), bottom + 5),
      label(x(tick), bottom + 20, short(tick), "muted middle"),
    );
  }
  marks.push(line("axis", left, bottom, right, bottom));
  if (reference !== undefined) {
    // Its label goes above or below, where the lines that end beside it leave more room.
    const gaps = series.map(({ points: own }) => (own.at(-1)?.[1] ?? reference.y) - reference.y);
    const room = (side: 1 | -1): number => Math.min(yHigh, ...gaps.map((gap) => gap * side).filter((gap) => gap > 0));
    const offset = room(1) >= room(-1) ? -6 : 16;
    marks.push(
      line("reference", left, y(reference.y), right, y(reference.y)),
      label(right, y(reference.y) + offset, reference.label, "muted end"),
    );
  }
  for (const [s, { points: own }] of series.entries()) {
    marks.push(`<polyline class="line${s}" points="${own.map(([px, py]) => `${n(x(px))},${n(y(py))}`).join(" ")}"/>`);
    if (own.length <= 24) for (const [px, py] of own) marks.push(marker(s, x(px), y(py)));
  }
  marks.push(
    label((left + right) / 2, height - 10, xLabel, "muted middle"),
    `<text class="muted middle" transform="translate(16 ${n((top + bottom) / 2)}) rotate(-90)">${escaped(yLabel)}</text>`,
    legend(
      left,
      20,
      series.map(({ name }) => name),
      "line",
    ),
  );
  return frame(text, plotWidth, height, marks);
}

export interface TokenPlot extends PlotText {
  /** Text by author, in order. Kind -1 is text nobody wrote here: the prompt. */
  readonly pieces: readonly { readonly text: string; readonly kind: -1 | 0 | 1 }[];
  /** What kinds 0 and 1 are called. */
  readonly kinds: readonly [string, string];
  /** Characters in a line before it is continued on the next. Default 84. */
  readonly columns?: number;
}

/** A text in fixed width, each piece on a tint of its author's; kind 0 is underlined too. */
export function tokenPlot({ pieces, kinds, columns = 84, ...text }: TokenPlot): string {
  const [advance, pitch, left, top] = [8, 24, 12, 56];
  const marks: string[] = [];
  let column = 0;
  let lineNumber = 0;
  for (const { text: piece, kind } of pieces) {
    for (const [i, stretch] of piece.split(/(\n)/).entries()) {
      if (i % 2 === 1) {
        lineNumber++;
        column = 0;
        continue;
      }
      const characters = [...stretch.replaceAll("\t", "  ")];
      while (characters.length > 0) {
        if (column >= columns) {
          lineNumber++;
          column = 0;
        }
        const part = characters.splice(0, columns - column);
        const [px, py] = [left + column * advance, top + lineNumber * pitch];
        const width = part.length * advance;
        if (kind >= 0) {
          marks.push(
            `<rect class="tint${kind}" x="${n(px + 0.75)}" y="${n(py - 15)}" width="${n(width - 1.5)}" height="20" rx="3"/>`,
          );
        }
        if (kind === 0) {
          marks.push(
            `<rect class="fill0" x="${n(px + 0.75)}" y="${n(py + 3.5)}" width="${n(width - 1.5)}" height="1.5"/>`,
          );
        }
        const written = part.join("");
        const start = written.length - written.trimStart().length;
        const trimmed = written.trim();
        if (trimmed !== "") {
          // The length is given, so that the letters meet their tint whatever font there is.
          marks.push(
            `<text class="code${kind < 0 ? " muted" : ""}" x="${n(px + start * advance)}" y="${py}" ` +
              `textLength="${n([...trimmed].length * advance)}" lengthAdjust="spacingAndGlyphs">${escaped(trimmed)}</text>`,
          );
        }
        column += part.length;
      }
    }
  }
  marks.push(legend(left, 22, kinds, "tint"));
  return frame(text, left * 2 + columns * advance, top + lineNumber * pitch + 20, marks);
}

/** Marks as an SVG of that size, with title and description. */
export function frame(text: PlotText, width: number, height: number, marks: readonly string[]): string {
  const { id, title, description, standalone = false } = text;
  return [
    `<svg class="plot" xmlns="http://www.w3.org/2000/svg" width="${width}" height="${n(height)}" ` +
      `viewBox="0 0 ${width} ${n(height)}" role="img" aria-labelledby="${id}-title ${id}-desc">`,
    `<title id="${id}-title">${escaped(title)}</title>`,
    `<desc id="${id}-desc">${escaped(description)}</desc>`,
    ...(standalone
      ? [
          `<style>${paletteCss(".plot")}\n${plotCss}</style>`,
          `<rect width="${width}" height="${n(height)}" rx="6" style="fill:var(--paper)"/>`,
        ]
      : []),
    ...marks,
    "</svg>",
  ].join("\n");
}

function legend(left: number, y: number, names: readonly string[], kind: "bar" | "line" | "tint"): string {
  let x = left;
  return names
    .map((name, s) => {
      const swatch =
        kind === "bar"
          ? `<rect class="fill${s}" x="${n(x)}" y="${y - 9}" width="12" height="12"/>`
          : kind === "tint"
            ? `<rect class="tint${s}" x="${n(x)}" y="${y - 11}" width="22" height="16" rx="3"/>` +
              (s === 0 ? `<rect class="fill0" x="${n(x)}" y="${y + 3.5}" width="22" height="1.5"/>` : "")
            : `<polyline class="line${s}" points="${n(x)},${y - 4} ${n(x + 30)},${y - 4}"/>${marker(s, x + 15, y - 4)}`;
      const space = kind === "bar" ? 18 : kind === "tint" ? 28 : 36;
      const entry = swatch + label(x + space, y, name, "");
      x += space + textWidth([name]) + 22;
      return entry;
    })
    .join("\n");
}

/** A different shape for each series: disc, square, triangle. */
function marker(series: number, x: number, y: number): string {
  if (series === 0) return `<circle class="fill0" cx="${n(x)}" cy="${n(y)}" r="4.5"/>`;
  if (series === 1) return `<rect class="fill1" x="${n(x - 4)}" y="${n(y - 4)}" width="8" height="8"/>`;
  return `<polygon class="fill${series}" points="${n(x)},${n(y - 5.5)} ${n(x + 5.5)},${n(y + 4)} ${n(x - 5.5)},${n(y + 4)}"/>`;
}

function line(classes: string, x1: number, y1: number, x2: number, y2: number): string {
  return `<line class="${classes}" x1="${n(x1)}" y1="${n(y1)}" x2="${n(x2)}" y2="${n(y2)}"/>`;
}

/** Text at a place. */
export function label(x: number, y: number, text: string, classes: string): string {
  return `<text${classes === "" ? "" : ` class="${classes}"`} x="${n(x)}" y="${n(y)}">${escaped(text)}</text>`;
}

/** Room the longest of some labels needs, in pixels: fonts differ, so a little more than most take. */
function textWidth(labels: readonly string[]): number {
  return 7.2 * Math.max(0, ...labels.map((text) => text.length));
}

function extent(values: readonly number[]): [number, number] {
  return values.length === 0 ? [0, 1] : [Math.min(...values), Math.max(...values)];
}

/** 12000 -> "12k": ticks have little room. */
function short(value: number): string {
  return Math.abs(value) >= 10_000 && value % 100 === 0 ? `${value / 1000}k` : String(value);
}

/** A coordinate with at most two decimals. */
export function n(value: number): string {
  return String(Number(value.toFixed(2)));
}

/** Text as it may stand in SVG, HTML and their attributes. Control characters, which XML forbids, become U+FFFD. */
export function escaped(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      .replace(/[\0-\x08\x0b\x0c\x0e-\x1f]/g, "\ufffd")
      .replace(/[&<>"']/g, (character) => entities[character]!)
  );
}
