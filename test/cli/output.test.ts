import { describe, expect, it } from "vitest";
import { grouped, painter, printable, table, wrap } from "../../src/cli/output.ts";

const write = (): boolean => true;
const terminal = { write, isTTY: true };

describe("painter", () => {
  it("paints on a terminal", () => {
    expect(painter(terminal, {}).paint("a", "bold", "green")).toBe("\x1b[1m\x1b[32ma\x1b[22m\x1b[39m");
  });

  it.each([
    ["not a terminal", { write }, {}],
    ["NO_COLOR", terminal, { NO_COLOR: "1" }],
    ["a dumb terminal", terminal, { TERM: "dumb" }],
  ])("leaves text alone: %s", (_, output, env) => {
    expect(painter(output, env)).toMatchObject({ enabled: false });
    expect(painter(output, env).paint("a", "bold")).toBe("a");
  });

  it("heeds NO_COLOR only when it is not empty, as no-color.org has it", () => {
    expect(painter(terminal, { NO_COLOR: "" }).enabled).toBe(true);
  });
});

it("printable spells out what a terminal would obey, and leaves text as it is", () => {
  expect(printable("a\tb\nc")).toBe("a\tb\nc");
  expect(printable("\x1b[2J\x07\r\x9b\u202e")).toBe("<1b>[2J<07><0d><9b><202e>");
  expect(printable("häß 漢 😉")).toBe("häß 漢 😉");
});

it("table sets words to the left and numbers to the right", () => {
  const rows = [
    ["name", "count", "share"],
    ["a", "1,000", "5 %"],
    ["longer", "20", "-"],
  ];
  expect(table(rows)).toBe("name    count  share\na       1,000    5 %\nlonger     20      -");
});

it("wrap breaks at spaces and never inside a word", () => {
  expect(wrap("one two three four", 9)).toBe("one two\nthree\nfour");
  expect(wrap("incomprehensibilities are long", 10, "  ")).toBe("  incomprehensibilities\n  are long");
});

it.each([
  [0, "0"],
  [999, "999"],
  [1000, "1,000"],
  [1234567, "1,234,567"],
])("grouped(%i) is %s", (value, text) => {
  expect(grouped(value)).toBe(text);
});
