/**
 * One step of draft and verify as a picture: the drafted tree from left to right, what became of each guess, and the token
 * the verifier emitted.
 *
 * A node's guesses stand to its right, the first one tested beside it, the others below in the order they are tested. So a
 * chain is a line, and the accepted path reads as text. What became of a guess shows in more than colour: accepted ones
 * are underlined, those turned away have a cross before them, those never reached are faint.
 *
 * Worked example: tokens [7, 3, 5, 4], parents [-1, 0, 0, 1]: 7, 3 and 4 on the first line, 5 on the second, under 3.
 */
import { childrenOf, type Step } from "../speculative/index.ts";
import { escaped, frame, label, n, type PlotText } from "./plot.ts";

export interface TreePicture extends PlotText {
  readonly step: Pick<Step, "draft" | "path" | "tokens">;
  /** Ids to text. */
  readonly decode: (ids: number[]) => string;
  /** A few characters to stand below a guess: its probability, say. Default none. */
  readonly note?: (node: number) => string;
  /** The text the draft continues, pending token included: its end stands above the tree. Default none. */
  readonly context?: string;
}

/** Of a letter of a token and of a note, in pixels; room beside the letters, between columns, of a node's height. */
const [advance, noteAdvance, padding, gap, pillHeight] = [7.4, 6.3, 7, 28, 22];
const left = 14;
/** Room for the legend. */
const leastWidth = 724;
/** Most characters of a token that are written, and of the line above the tree. */
const [longestLabel, longestContext] = [14, 84];

/** What became of a node. */
export type Fate = "pending" | "accepted" | "rejected" | "unreached";

const legendEntries = [
  ["accepted", "guess, accepted"],
  ["rejected", "tested, turned away"],
  ["unreached", "never reached"],
  ["emitted", "the target's own token"],
] as const;

/** The rules of this picture, beside those all plots share. */
export const treeCss = [
  ".plot .pill{fill:none;stroke:var(--grid);stroke-width:1.25}",
  ".plot .edge{fill:none;stroke:var(--grid);stroke-width:1.5}",
  ".plot .tested{stroke:var(--muted)}",
  ".plot .taken{stroke:var(--series0);stroke-width:2.25}",
  ".plot .own{stroke:var(--series1);stroke-width:2.25;stroke-dasharray:5 3}",
  ".plot .cross{fill:none;stroke:var(--text);stroke-width:1.75}",
].join("\n");

/** The tree of one step. */
export function treePicture({ step, decode, note, context, ...text }: TreePicture): string {
  const { draft, path } = step;
  const size = draft.tokens.length;
  // The emitted token is one node more: the last child of the path's end.
  const emitted = size;
  const end = path[path.length - 1]!;
  const children = Array.from({ length: size }, (_, node) => childrenOf(draft, node));
  children[end]!.push(emitted);
  children.push([]);
  const labels = [...Array.from(draft.tokens), step.tokens[step.tokens.length - 1]!].map((id) => visible(decode([id])));
  const fates = fatesOf(step);

  const depths = new Array<number>(size + 1).fill(0);
  const rows = new Array<number>(size + 1).fill(0);
  let nextRow = 0;
  const place = (node: number, depth: number): void => {
    depths[node] = depth;
    rows[node] = nextRow;
    children[node]!.forEach((child, i) => {
      if (i > 0) nextRow += 1;
      place(child, depth + 1);
    });
  };
  place(0, 0);

  const widths = labels.map((one) => [...one].length * advance + 2 * padding);
  const notes = labels.map((_, node) => (node > 0 && node < size ? (note?.(node) ?? "") : ""));
  const columns: number[] = [];
  depths.forEach((depth, node) => {
    columns[depth] = Math.max(columns[depth] ?? 0, widths[node]!, notes[node]!.length * noteAdvance - 6);
  });
  const starts = columns.map((_, depth) => columns.slice(0, depth).reduce((sum, width) => sum + width + gap, left));
  const pitch = note === undefined ? 30 : 42;
  const top = context === undefined ? 52 : 84;
  const x = (node: number): number => starts[depths[node]!]!;
  const y = (node: number): number => top + rows[node]! * pitch;

  // Siblings' edges share their beginning: what matters more is drawn over what matters less.
  const edges: Record<string, string[]> = { "": [], tested: [], own: [], taken: [] };
  const pills: string[] = [];
  for (let node = 0; node <= size; node++) {
    for (const child of children[node]!) {
      const kind = child === emitted ? "own" : edgeClass[fates[child]!];
      edges[kind]!.push(
        edge(kind, x(node) + widths[node]!, y(node), x(child), y(child), starts[depths[child]!]! - gap),
      );
    }
    pills.push(pill(x(node), y(node), widths[node]!, labels[node]!, node === emitted ? "emitted" : fates[node]!));
    if (notes[node] !== "") pills.push(label(x(node) + 2, y(node) + 24, notes[node]!, "muted small"));
  }

  const marks = [`<style>${treeCss}</style>`, ...legend(new Set([...fates, "emitted"]))];
  if (context !== undefined) {
    const shown = visible(context, Number.POSITIVE_INFINITY);
    const characters = [...shown];
    const cut = characters.length > longestContext ? `\u2026${characters.slice(-longestContext).join("")}` : shown;
    marks.push(code(left, 56, cut, "muted"));
  }
  const width = Math.max(leastWidth, Math.ceil(Math.max(...starts.map((start, i) => start + columns[i]!)) + left));
  const height = top + nextRow * pitch + pillHeight / 2 + (note === undefined ? 12 : 24);
  return frame(text, width, height, [...marks, ...Object.values(edges).flat(), ...pills]);
}

const edgeClass: Record<Fate, string> = { pending: "", accepted: "taken", rejected: "tested", unreached: "" };

/** What became of each node of a step's draft, [nodes]: tested are the children of the path's nodes up to the one that was accepted. */
export function fatesOf({ draft, path }: Pick<Step, "draft" | "path">): Fate[] {
  const fates = new Array<Fate>(draft.tokens.length).fill("unreached");
  for (const [i, node] of path.entries()) {
    fates[node] = i === 0 ? "pending" : "accepted";
    for (const child of childrenOf(draft, node)) {
      if (child === path[i + 1]) break;
      fates[child] = "rejected";
    }
  }
  return fates;
}

/**
 * A token as it can be seen: a dot for a blank, an arrow for the end of a line; of many blanks their number.
 * @param longest characters, before it is cut
 */
function visible(text: string, longest = longestLabel): string {
  const shown = text
    .replace(/ {4,}/g, (blanks) => `\u00b7\u00d7${blanks.length}`)
    .replaceAll(" ", "\u00b7")
    .replaceAll("\n", "\u21b5")
    .replaceAll("\t", "\u2192");
  const characters = [...shown];
  return characters.length > longest ? `${characters.slice(0, longest - 1).join("")}\u2026` : shown;
}

function pill(x: number, y: number, width: number, text: string, fate: Fate | "emitted"): string {
  const tint = fate === "accepted" ? "tint0" : fate === "emitted" ? "tint1" : "pill";
  const outline = fate === "rejected" || fate === "pending" ? " tested" : "";
  const box = `<rect class="${tint}${outline}" x="${n(x)}" y="${n(y - pillHeight / 2)}" width="${n(width)}" height="${pillHeight}" rx="5"/>`;
  const [from, to] = [x + padding, x + width - padding];
  const mark =
    fate === "accepted"
      ? `<rect class="fill0" x="${n(from)}" y="${n(y + 6.5)}" width="${n(to - from)}" height="1.5"/>`
      : fate === "rejected"
        ? `<path class="cross" d="M${n(x - 13)} ${n(y - 4.5)}l9 9m0-9l-9 9"/>`
        : "";
  return box + code(from, y + 4, text, fate === "unreached" ? "muted" : "") + mark;
}

/** In fixed width: the length is given, so that letters meet their box whatever font there is. */
function code(x: number, y: number, text: string, classes: string): string {
  const length = n([...text].length * advance);
  return (
    `<text class="code${classes === "" ? "" : ` ${classes}`}" x="${n(x)}" y="${n(y)}" textLength="${length}" ` +
    `lengthAdjust="spacingAndGlyphs">${escaped(text)}</text>`
  );
}

/** From the right end of a node to the left end of its guess: level to the end of the column, then down. */
function edge(classes: string, x1: number, y1: number, x2: number, y2: number, bend: number): string {
  const name = classes === "" ? "edge" : `edge ${classes}`;
  if (y1 === y2) return `<path class="${name}" d="M${n(x1)} ${n(y1)}H${n(x2)}"/>`;
  const middle = bend + gap / 2;
  return `<path class="${name}" d="M${n(x1)} ${n(y1)}H${n(bend)}C${n(middle)} ${n(y1)} ${n(middle)} ${n(y2)} ${n(x2)} ${n(y2)}"/>`;
}

/** What the marks mean, of those there are. */
function legend(present: ReadonlySet<string>): string[] {
  let x = left;
  const marks: string[] = [];
  for (const [fate, meaning] of legendEntries) {
    if (!present.has(fate)) continue;
    const sample = "abc".length * advance + 2 * padding;
    if (fate === "rejected") x += 12;
    marks.push(pill(x, 22, sample, "abc", fate), label(x + sample + 7, 26.5, meaning, ""));
    x += sample + meaning.length * 6.6 + 24;
  }
  return marks;
}
