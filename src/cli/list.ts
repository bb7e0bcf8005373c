/** `tokenthrift list`: the techniques there are. */
import { catalog, families, type Technique } from "../catalog.ts";
import type { Command } from "./command-line.ts";
import { painter, table, writeJson } from "./output.ts";

export const listCommand: Command = {
  name: "list",
  summary: "the techniques there are, by family",
  options: [{ name: "json", help: "print one JSON document" }],
  examples: ["tokenthrift list"],
  async run(input, { stdout, env }) {
    if (input.has("json")) {
      writeJson(stdout, { techniques: catalog.map(described) });
      return 0;
    }
    const { paint } = painter(stdout, env);
    const rows = catalog.map(({ name, saves, exact, paper }) => [
      name,
      saves,
      exact,
      paper === null ? "-" : `arXiv ${paper.arXiv}, ${paper.year}`,
    ]);
    const [head, ...lines] = table([["technique", "saves", "exact", "paper"], ...rows]).split("\n");
    stdout.write(`  ${paint(head!, "dim")}\n`);
    for (const family of families) {
      stdout.write(`${paint(family, "bold")}\n`);
      for (const [i, technique] of catalog.entries()) {
        if (technique.family === family) stdout.write(`  ${lines[i]}\n`);
      }
    }
    stdout.write("\nMore about one: tokenthrift explain <technique>\n");
    return 0;
  },
};

/** An entry as JSON: everything but its code. */
export function described({ run: _, ...entry }: Technique): Omit<Technique, "run"> {
  return entry;
}
