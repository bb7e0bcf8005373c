/** Where models are, and a tokenizer without its model. Loads no tensor library; `loaded-model.ts` does. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FormatError } from "../errors.ts";
import { readFileBytes } from "../files.ts";
import { checkpointFiles, parseJson } from "../model/checkpoint-format.ts";

/** Folder of an embedded checkpoint: beside the sources in a checkout, beside the build in an installed package. */
export function embeddedModelFolder(which: "target" | "draft"): string {
  return fileURLToPath(new URL(`../../models/declarations-${which}`, import.meta.url));
}

/** The parsed `tokenizer.json` of a checkpoint folder. */
export async function readTokenizerJson(folder: string): Promise<object> {
  const path = join(folder, checkpointFiles.tokenizer);
  const json = parseJson(await readFileBytes(path), path);
  if (typeof json !== "object" || json === null) throw new FormatError(path, "expected a JSON object");
  return json;
}
