/** The prompts techniques are compared on, in four sets: where drafts are easy, where they are hard, where text is copied. */
import { heldOutEdits } from "./held-out-edits.ts";
import { heldOutPrompts } from "./held-out-prompts.ts";
import { mixedPrompts } from "./mixed-prompts.ts";

export const promptSetNames = ["declarations", "doc comments", "edits", "mixed domains"] as const;
export type PromptSetName = (typeof promptSetNames)[number];

/** Texts by set. */
export const promptSets: Readonly<Record<PromptSetName, readonly string[]>> = {
  declarations: heldOutPrompts.filter(({ kind }) => kind !== "doc comment").map(({ text }) => text),
  "doc comments": heldOutPrompts.filter(({ kind }) => kind === "doc comment").map(({ text }) => text),
  edits: heldOutEdits.map(({ original, edited }) => original + edited),
  "mixed domains": mixedPrompts.map(({ text }) => text),
};
