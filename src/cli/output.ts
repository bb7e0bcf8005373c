/** What commands write to, and how: colours where a terminal shows them, tables, wrapped paragraphs. */

/** The part of a writable stream that commands use. */
export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** The world of a command: everything it may print to or be told by. */
export interface Io {
  /** Results. With `--json`, one document and nothing else. */
  readonly stdout: Output;
  /** Errors, progress, remarks. */
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Asks to be told when the user presses Ctrl-C. Without asking, a command is simply ended. */
  readonly onInterrupt?: (stop: () => void) => void;
}

const codes = {
  bold: [1, 22],
  dim: [2, 22],
  underline: [4, 24],
  green: [32, 39],
  blue: [34, 39],
  red: [31, 39],
} as const;
export type Style = keyof typeof codes;

/**
 * How to style text for `output`: unchanged unless it is a terminal, and never where the variable NO_COLOR is set
 * (https://no-color.org) or the terminal says it is dumb.
 */
export function painter(output: Output, env: Io["env"]): { readonly enabled: boolean; paint: Paint } {
  const enabled = output.isTTY === true && !env["NO_COLOR"] && env["TERM"] !== "dumb";
  const paint: Paint = (text, ...styles) => {
    if (!enabled || text === "") return text;
    const on = styles.map((style) => `\x1b[${codes[style][0]}m`).join("");
    const off = styles.map((style) => `\x1b[${codes[style][1]}m`).join("");
    return `${on}${text}${off}`;
  };
  return { enabled, paint };
}
export type Paint = (text: string, ...styles: Style[]) => string;

/**
 * Text from a file or a model, safe to show: control characters, which a terminal would obey, are spelled out.
 * Line feeds and tabs stay.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (character) =>
    character === "\n" || character === "\t"
      ? character
      : `<${character.codePointAt(0)!.toString(16).padStart(2, "0")}>`,
  );
}

/**
 * Rows as aligned columns, two spaces apart. Numbers should come formatted; a column whose cells below the first row all
 * look like numbers is set to the right.
 */
export function table(rows: readonly (readonly string[])[]): string {
  const columns = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, c) => Math.max(...rows.map((row) => row[c]?.length ?? 0)));
  const numeric = widths.map((_, c) => rows.slice(1).every((row) => /^[-+]?[\d,.]*\s?[%x]?$|^-$/.test(row[c] ?? "")));
  return rows
    .map((row) =>
      row
        .map((cell, c) => (numeric[c] ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A paragraph broken at spaces so that no line is longer than `width`, as far as words allow. */
export function wrap(text: string, width: number, indent = ""): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && indent.length + line.length + 1 + word.length > width) {
      lines.push(indent + line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  lines.push(indent + line);
  return lines.join("\n");
}

/** Width to wrap at: the terminal's, within reason. */
export function textWidth(output: Output): number {
  return Math.min(100, Math.max(40, output.columns ?? 80));
}

/** `1234567` -> `"1,234,567"`, alike in every locale. */
export function grouped(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",");
}

/** One JSON document, and the line feed that ends a text file. */
export function writeJson(output: Output, value: unknown): void {
  output.write(`${JSON.stringify(value, null, 2)}\n`);
}
