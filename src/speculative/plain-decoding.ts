/**
 * Plain decoding as a drafter: it never guesses, so every target pass gives one token. The baseline of this family.
 *
 * Worked example: pending token 7 -> draft [7], and the target's law after 7 gives the next token.
 */
import { addCosts } from "../model/language-model.ts";
import type { Drafter, Drafting } from "./drafter.ts";
import { rootDraft } from "./drafter.ts";

const drafting: Drafting = {
  cost: addCosts(),
  propose: ({ tokens }) => rootDraft(tokens[tokens.length - 1]!),
  observe() {},
  close() {},
};

/** The drafter that drafts nothing. What `generate` uses when it is given none. */
export const plainDecoding: Drafter = {
  vocabularySize: null,
  open: () => drafting,
  reset() {},
};
