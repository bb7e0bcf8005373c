/** `tokenthrift explain <technique>`: the idea, the formula, the cost. */
import { catalog, findTechnique, type Technique } from "../catalog.ts";
import { type Command, unknown } from "./command-line.ts";
import { described } from "./list.ts";
import { painter, textWidth, wrap, writeJson } from "./output.ts";

export const explainCommand: Command = {
  name: "explain",
  summary: "one technique: idea, formula, cost, deviations",
  argument: { name: "technique", optional: false },
  options: [{ name: "json", help: "print one JSON document" }],
  examples: ["tokenthrift explain speculative-sampling"],
  async run(input, { stdout, env }) {
    const technique = requireTechnique(input.argument!);
    if (input.has("json")) {
      writeJson(stdout, described(technique));
      return 0;
    }
    const { paint } = painter(stdout, env);
    const width = textWidth(stdout);
    const { title, paper, summary, explain, saves, exact, family, module, example, command } = technique;
    const source = paper === null ? "a baseline; no paper" : `${paper.title}, arXiv ${paper.arXiv}, ${paper.year}`;
    stdout.write(`${paint(title, "bold")}\n${wrap(source, width)}\n\n${wrap(summary, width)}\n\n`);
    for (const paragraph of explain) {
      const formula = paragraph.startsWith("  ");
      stdout.write(`${formula ? paint(`  ${paragraph}`, "green") : wrap(paragraph, width)}\n\n`);
    }
    const facts = [
      ["saves", saves],
      ["exact", exact],
      ["family", family],
      ["source", module],
      ...(example === null ? [] : [["example", example]]),
      ["try", command],
    ];
    for (const [label, value] of facts) stdout.write(`${paint(label!.padEnd(8), "dim")}${value}\n`);
    return 0;
  },
};

/** @throws UsageError that suggests the nearest name */
export function requireTechnique(name: string): Technique {
  const technique = findTechnique(name);
  if (technique === undefined) {
    throw unknown(
      "technique",
      name,
      catalog.map((entry) => entry.name),
    );
  }
  return technique;
}
