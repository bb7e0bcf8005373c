/**
 * The README's pictures: `npx tsx scripts/readme-figures.ts [figures.json]` writes docs/images/*.svg.
 * From the figures of an earlier `tokenthrift demo`, where their file is named; else it measures anew (about a minute).
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { measureFigures } from "../src/demo/demo.ts";
import type { Figures } from "../src/demo/figures.ts";
import {
  bitsPicture,
  completionPicture,
  gammaPicture,
  languagePicture,
  learningPicture,
  passCostPicture,
} from "../src/demo/pictures.ts";
import { writeFilesAtomic } from "../src/files.ts";

const [source] = process.argv.slice(2);
const figures: Figures =
  source === undefined ? await measureFigures({ print: console.error }) : JSON.parse(readFileSync(source, "utf8"));

const standalone = { standalone: true };
const pictures: Record<string, string | undefined> = {
  completion: completionPicture(figures.speculation.tensors, standalone),
  speculation: gammaPicture(figures.speculation, standalone),
  "pass-costs": passCostPicture(figures.speculation, standalone),
  languages: "unavailable" in figures.languages ? undefined : languagePicture(figures.languages, standalone),
  "bits-per-byte": bitsPicture(figures, standalone),
  "learning-curves": learningPicture(figures, standalone),
};
const folder = join(import.meta.dirname, "..", "docs", "images");
const files = Object.entries(pictures).flatMap(([name, svg]) =>
  svg === undefined ? [] : [[join(folder, `${name}.svg`), `${svg}\n`] as const],
);
await writeFilesAtomic(files);
for (const [path] of files) console.log(path);
