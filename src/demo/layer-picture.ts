/**
 * Which layers ran for which position: a grid, the bottom layer at the bottom, positions from left to right. For methods
 * that save layers instead of passes.
 *
 * Worked example: 2 layers, positions 0 to 3, of which the last two ran layer 1 alone: layer 1 is one bar over all four,
 * layer 0 one over the first two.
 */
import { escaped, frame, label, linearScale, n, type PlotText, ticks } from "./plot.ts";

export interface LayerPicture extends PlotText {
  readonly layers: number;
  /** Layers that ran, by position. */
  readonly ran: readonly (readonly number[])[];
  /** Positions of the prompt: the first ones. */
  readonly promptLength: number;
}

const [width, left, right, top, rowHeight] = [724, 70, 708, 48, 24];

export function layerPicture({ layers, ran, promptLength, ...text }: LayerPicture): string {
  const x = linearScale([0, ran.length], [left, right]);
  const bottom = top + layers * rowHeight;
  const marks: string[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const y = bottom - (layer + 1) * rowHeight;
    marks.push(
      label(left - 8, y + rowHeight / 2 + 4.5, `layer ${layer}`, "end"),
      `<rect class="grid" style="fill:none" x="${n(left)}" y="${n(y + 2)}" width="${n(right - left)}" height="${rowHeight - 4}" rx="3"/>`,
    );
    for (const [from, to] of stretches(ran, layer)) {
      // The prompt and what was generated are told apart by their colour and by the line between them.
      const [prompt, own] = [Math.min(to, promptLength), Math.max(from, promptLength)];
      for (const [kind, a, b] of [
        ["tint0", from, prompt],
        ["tint1", own, to],
      ] as const) {
        if (b <= a) continue;
        marks.push(
          `<rect class="${kind}" x="${n(x(a))}" y="${n(y + 2)}" width="${n(x(b) - x(a))}" height="${rowHeight - 4}"/>`,
        );
      }
    }
  }
  for (const tick of ticks(0, ran.length, 8)) marks.push(label(x(tick), bottom + 18, String(tick), "muted middle"));
  marks.push(
    `<path class="reference" style="fill:none" d="M${n(x(promptLength))} ${top - 6}V${bottom + 4}"/>`,
    label((left + right) / 2, bottom + 38, "position", "muted middle"),
  );
  const legend = ["layers run for the prompt", "for generated tokens", "skipped"];
  let at = left;
  for (const [i, meaning] of legend.entries()) {
    const sample = i < 2 ? `class="tint${i}"` : 'class="grid" style="fill:none"';
    marks.push(`<rect ${sample} x="${n(at)}" y="12" width="22" height="16" rx="3"/>`);
    marks.push(`<text x="${n(at + 29)}" y="24.5">${escaped(meaning)}</text>`);
    at += 29 + meaning.length * 7 + 22;
  }
  return frame(text, width, bottom + 48, marks);
}

/** Where a layer ran without a gap: from, and up to but not with. */
function stretches(ran: readonly (readonly number[])[], layer: number): [number, number][] {
  const found: [number, number][] = [];
  for (const [position, layers] of ran.entries()) {
    if (!layers.includes(layer)) continue;
    const last = found[found.length - 1];
    if (last !== undefined && last[1] === position) last[1] = position + 1;
    else found.push([position, position + 1]);
  }
  return found;
}
