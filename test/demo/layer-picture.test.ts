import { expect, it } from "vitest";
import { layerPicture } from "../../src/demo/layer-picture.ts";
import { attributes, parseXml } from "./xml.ts";

it("draws a bar where a layer ran without a gap, prompt and generated text apart, the bottom layer at the bottom", () => {
  const svg = layerPicture({
    id: "l",
    title: "T",
    description: "D",
    standalone: true,
    layers: 3,
    ran: [
      [0, 1, 2],
      [0, 1, 2],
      [0, 1, 2],
      [0, 2],
      [0, 2],
      [0, 1],
    ],
    promptLength: 2,
  });
  parseXml(svg);
  const bars = attributes(svg, "rect").filter(({ class: kind, height }) => /^tint/.test(kind ?? "") && height === "20");
  const [unit] = bars.map(({ width }) => Number(width) / 2);
  const shown = bars.map(({ class: kind, x, y, width }) => [
    kind,
    Math.round((Number(x) - Number(bars[0]!["x"])) / unit!),
    Math.round(Number(width) / unit!),
    Number(y),
  ]);
  const [bottom, middle, top] = [...new Set(shown.map(([, , , y]) => y as number))] as [number, number, number];
  expect(bottom).toBeGreaterThan(middle);
  expect(middle).toBeGreaterThan(top);
  expect(shown).toEqual([
    ["tint0", 0, 2, bottom],
    ["tint1", 2, 4, bottom],
    ["tint0", 0, 2, middle],
    ["tint1", 2, 1, middle],
    ["tint1", 5, 1, middle],
    ["tint0", 0, 2, top],
    ["tint1", 2, 3, top],
  ]);
});
