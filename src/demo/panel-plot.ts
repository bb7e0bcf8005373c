/**
 * Small multiples: one little plot for each of many subjects, all on the same axes, so that fifteen lines can be told apart.
 * In each panel the subject's lines are drawn over everybody's first line in grey.
 */
import { escaped, frame, label, linearScale, n, type PlotText, ticks } from "./plot.ts";

export interface PanelPlot extends PlotText {
  readonly panels: readonly {
    readonly name: string;
    /** By series: points in ascending x. */
    readonly lines: readonly (readonly (readonly [number, number])[])[];
  }[];
  /** Names of the lines, the same in every panel. */
  readonly series: readonly string[];
  /** Values of x, evenly spaced as they come. */
  readonly xTicks: readonly number[];
  readonly xLabel: string;
  readonly yLabel: string;
  /** A horizontal line that means something. */
  readonly reference?: { readonly y: number; readonly label: string };
}

const columns = 4;
const [panelWidth, panelHeight] = [168, 118];
const [left, top, gapX, gapY] = [44, 64, 12, 34];

export function panelPlot({ panels, series, xTicks, xLabel, yLabel, reference, ...text }: PanelPlot): string {
  const ys = panels.flatMap(({ lines }) => lines.flatMap((points) => points.map(([, y]) => y)));
  const high = Math.max(reference?.y ?? 0, ...ys) * 1.06;
  const rows = Math.ceil(panels.length / columns);
  const marks: string[] = [];
  const place = (points: readonly (readonly [number, number])[], x0: number, y0: number): string => {
    const x = linearScale([0, Math.max(1, xTicks.length - 1)], [x0 + 8, x0 + panelWidth - 8]);
    const y = linearScale([0, high], [y0 + panelHeight, y0]);
    return points.map(([px, py]) => `${n(x(xTicks.indexOf(px)))},${n(y(py))}`).join(" ");
  };
  for (const [p, { name, lines }] of panels.entries()) {
    const [column, row] = [p % columns, Math.floor(p / columns)];
    const [x0, y0] = [left + column * (panelWidth + gapX), top + row * (panelHeight + gapY)];
    const y = linearScale([0, high], [y0 + panelHeight, y0]);
    for (const tick of ticks(0, high, 4)) {
      marks.push(`<line class="grid" x1="${n(x0)}" y1="${n(y(tick))}" x2="${n(x0 + panelWidth)}" y2="${n(y(tick))}"/>`);
      if (column === 0) marks.push(label(x0 - 6, y(tick) + 4, String(tick), "muted small end"));
    }
    if (reference !== undefined) {
      marks.push(
        `<line class="reference" x1="${n(x0)}" y1="${n(y(reference.y))}" x2="${n(x0 + panelWidth)}" y2="${n(y(reference.y))}"/>`,
      );
    }
    for (const other of panels) {
      if (other.name !== name) {
        marks.push(
          `<polyline points="${place(other.lines[0] ?? [], x0, y0)}" style="fill:none;stroke:var(--muted);stroke-opacity:.28"/>`,
        );
      }
    }
    for (const [s, points] of lines.entries()) {
      marks.push(`<polyline class="line${s}" points="${place(points, x0, y0)}"/>`);
    }
    marks.push(label(x0 + 4, y0 - 5, name, "small"));
    const last = row === rows - 1 || p + columns >= panels.length;
    const x = linearScale([0, Math.max(1, xTicks.length - 1)], [x0 + 8, x0 + panelWidth - 8]);
    if (last) {
      for (const [i, tick] of xTicks.entries()) {
        marks.push(label(x(i), y0 + panelHeight + 15, String(tick), "muted small middle"));
      }
    }
  }
  const bottom = top + rows * (panelHeight + gapY);
  const width = left + columns * (panelWidth + gapX);
  const keys = [...series.map((name, s) => ({ name, mark: (x: number) => lineKey(`line${s}`, x) }))];
  if (reference !== undefined) keys.push({ name: reference.label, mark: (x) => lineKey("reference", x) });
  let x = left;
  for (const { name, mark } of keys) {
    marks.push(mark(x), label(x + 36, 24, name, ""));
    x += 36 + 7.2 * name.length + 22;
  }
  marks.push(
    label((left + width) / 2, bottom + 8, xLabel, "muted middle"),
    `<text class="muted middle" transform="translate(14 ${n((top + bottom) / 2)}) rotate(-90)">${escaped(yLabel)}</text>`,
  );
  return frame(text, width, bottom + 20, marks);
}

function lineKey(kind: string, x: number): string {
  return `<line class="${kind}" x1="${n(x)}" y1="20" x2="${n(x + 30)}" y2="20"/>`;
}
