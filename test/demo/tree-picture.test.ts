import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fatesOf, treePicture } from "../../src/demo/tree-picture.ts";
import { attributes, parseXml } from "./xml.ts";

/** Pending 7; guesses 3 and 5 after it, 4 and 6 after 5, 8 after 3. */
const draft = { tokens: [7, 3, 5, 4, 6, 8], parents: [-1, 0, 0, 2, 2, 1], laws: new Array<null>(6).fill(null) };
const step = { draft, path: [0, 2, 4], tokens: [5, 6, 9] };
const text = { id: "t", title: "T", description: "D", standalone: true };
const decode = (ids: number[]): string => ids.map((id) => `<${id}`).join("");

describe("fates", () => {
  it("tested are siblings up to the accepted one, and all where none was accepted", () => {
    expect(fatesOf(step)).toEqual(["pending", "rejected", "accepted", "rejected", "accepted", "unreached"]);
    expect(fatesOf({ draft, path: [0, 1] })[5]).toBe("rejected");
    expect(fatesOf({ draft, path: [0] }).slice(1)).toEqual([
      "rejected",
      "rejected",
      "unreached",
      "unreached",
      "unreached",
    ]);
  });
});

describe("the picture", () => {
  it("has every guess on a line of its own but the first child, and the target's token last", () => {
    const svg = treePicture({ ...text, step, decode });
    parseXml(svg);
    const nodes = attributes(svg, "rect").filter(({ rx, x }) => rx === "5" && Number(x) >= 0);
    // Four entries of the legend, then six nodes and the target's token.
    const drawn = nodes.slice(4);
    expect(drawn).toHaveLength(7);
    const place = (i: number) => [Number(drawn[i]!["x"]), Number(drawn[i]!["y"])] as const;
    const [root, three, five, four, six, eight, nine] = [0, 1, 2, 3, 4, 5, 6].map(place);
    expect(root![1]).toBe(three![1]);
    expect(three![1]).toBe(eight![1]);
    expect(five![1]).toBeGreaterThan(three![1]);
    expect([four![1], six![1]]).toEqual([five![1], nine![1]]);
    expect(six![1]).toBeGreaterThan(four![1]);
    expect(three![0]).toBe(five![0]);
    expect(nine![0]).toBeGreaterThan(six![0]);
    expect(drawn.map((one) => one["class"])).toEqual([
      "pill tested",
      "pill tested",
      "tint0",
      "pill tested",
      "tint0",
      "pill",
      "tint1",
    ]);
  });

  it("writes blanks and line ends so that they can be seen, notes below guesses, and the text's end above", () => {
    const svg = treePicture({
      ...text,
      step,
      decode: ([id]) => (id === 9 ? "     x\n" : " y"),
      note: (node) => `note ${node}`,
      context: `begun${"-".repeat(100)} end`,
    });
    expect(svg).toContain(">\u00b7\u00d75x\u21b5</text>");
    expect(svg.match(/>\u00b7y<\/text>/g)).toHaveLength(6);
    for (let node = 1; node < 6; node++) expect(svg).toContain(`>note ${node}<`);
    expect(svg).not.toContain("note 0");
    expect(svg).toContain("-\u00b7end</text>");
    expect(svg).not.toContain("begun");
  });

  it("is well-formed whatever tree, path and tokens there are, and lies within its size", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(), { maxLength: 12 }),
        fc.nat(),
        fc.string({ unit: "grapheme", maxLength: 20 }),
        (choices, end, piece) => {
          const parents = [-1, ...choices.map((choice, i) => choice % (i + 1))];
          const path = [end % parents.length];
          while (path[0] !== 0) path.unshift(parents[path[0]!]!);
          const tokens = parents.map((_, i) => i);
          const laws = new Array<null>(tokens.length).fill(null);
          const one = { draft: { tokens, parents, laws }, path, tokens: [...path.slice(1), 0] };
          const svg = treePicture({ ...text, step: one, decode: () => piece, context: piece });
          parseXml(svg);
          expect(svg).not.toMatch(/NaN|Infinity|undefined/);
          const [size, ...rects] = [...attributes(svg, "svg"), ...attributes(svg, "rect")];
          for (const { x = "0", y = "0", width, height } of rects) {
            expect(Number(x) + Number(width)).toBeLessThanOrEqual(Number(size!["width"]));
            expect(Number(y) + Number(height)).toBeLessThanOrEqual(Number(size!["height"]));
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});
