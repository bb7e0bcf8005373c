/** `tokenthrift demo`: the library's main job on real input, measured, with a report. */
import type { Command } from "./command-line.ts";
import { writeJson } from "./output.ts";
import { requireWritableFolder } from "./writable-folder.ts";

export const demoCommand: Command = {
  name: "demo",
  summary: "tokens in 14 languages, plain against speculative decoding, and a report with plots",
  options: [
    { name: "out", value: "<dir>", help: "folder for report.html and figures.json (default: report)" },
    { name: "json", help: "print the figures as one JSON document" },
  ],
  examples: ["tokenthrift demo --out report"],
  async run(input, io) {
    const out = input.text("out") ?? "report";
    await requireWritableFolder(out);
    const { runDemo } = await import("../demo/demo.ts");
    const print = input.has("json") ? () => {} : (line: string) => io.stdout.write(`${line}\n`);
    const figures = await runDemo({ out, print });
    if (input.has("json")) writeJson(io.stdout, figures);
    const { speculation, family } = figures;
    const compared = [
      ...speculation.tensors.byGamma,
      ...speculation.engine.byGamma,
      ...family.tensors,
      ...family.engine,
    ];
    return compared.every(({ identical }) => identical) ? 0 : 1;
  },
};
