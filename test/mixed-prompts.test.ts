/** The prompts of other domains are what they say: cuts of those files. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { libraryDeclarations, nodeDeclarations } from "../src/corpus.ts";
import { mixedPrompts } from "../src/mixed-prompts.ts";
import { promptSetNames, promptSets } from "../src/prompt-sets.ts";

const require = createRequire(import.meta.url);
const { others } = nodeDeclarations();
const learned = [...libraryDeclarations(), ...others];

it.each(mixedPrompts)("$domain: of $source, and of nothing the embedded pair learned from", ({ source, text }) => {
  const [name, ...path] = source.split("/");
  const folder = dirname(require.resolve(`${name}/package.json`));
  expect(readFileSync(join(folder, ...path), "utf8").replaceAll("\r\n", "\n")).toContain(text);
  expect(learned.some((document) => document.text.includes(text))).toBe(false);
});

it("sets have at least three prompts each, and share none", () => {
  const all = promptSetNames.flatMap((name) => promptSets[name]);
  expect(new Set(all).size).toBe(all.length);
  for (const name of promptSetNames) expect(promptSets[name].length).toBeGreaterThanOrEqual(3);
});
