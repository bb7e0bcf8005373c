/** Where the embedded pair is found. Loads nothing else, so that reading its vocabulary needs no tensor library. */
import { fileURLToPath } from "node:url";
import { ArgumentError } from "../errors.ts";

export const embeddedModels = ["target", "draft"] as const;
export type EmbeddedModel = (typeof embeddedModels)[number];

/** Folder of an embedded model's checkpoint, beside the package's sources or build. */
export function embeddedFolder(which: EmbeddedModel): string {
  if (!embeddedModels.includes(which)) throw new ArgumentError("which", `one of ${embeddedModels.join(", ")}`, which);
  return fileURLToPath(new URL(`../../models/declarations-${which}`, import.meta.url));
}

/** Vocabularies of other kinds, trained on the embedded pair's text to the size of its own. */
export const embeddedTokenizers = ["word-piece", "unigram"] as const;
export type EmbeddedTokenizer = (typeof embeddedTokenizers)[number];

/** Folder of an embedded vocabulary that has no model, beside the package's sources or build. */
export function embeddedTokenizerFolder(which: EmbeddedTokenizer): string {
  if (!embeddedTokenizers.includes(which)) {
    throw new ArgumentError("which", `one of ${embeddedTokenizers.join(", ")}`, which);
  }
  return fileURLToPath(new URL(`../../models/declarations-${which}`, import.meta.url));
}
