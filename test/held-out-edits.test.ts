/** The copy-heavy prompts are what they say: real lines of held-out files, repeated for the most part. */
import { expect, it } from "vitest";
import { nodeDeclarations } from "../src/corpus.ts";
import { heldOutEdits } from "../src/held-out-edits.ts";

const { heldOut, others } = nodeDeclarations();

it.each(heldOutEdits)("$edit ($source): lines of that file, then most of their beginning again", (edit) => {
  const { source, original, edited } = edit;
  const file = heldOut.find(({ name }) => name === `@types/node/${source}`)!;
  expect(file.text).toContain(`\n${original}`);
  expect(original).toMatch(/\n$/);
  const known = new Set(original.match(/\w+|\W/g));
  const words = edited.match(/\w+|\W/g)!;
  const repeated = words.filter((word) => known.has(word)).length;
  expect(repeated / words.length).toBeGreaterThan(0.8);
  expect(original).not.toContain(edited);
  expect(others.every(({ text }) => !text.includes(original))).toBe(true);
});
