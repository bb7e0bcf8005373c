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
