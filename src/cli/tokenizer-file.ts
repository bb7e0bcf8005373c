/** A tokenizer without its model. Loads no tensor library, **unlike** `model/load.ts`. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FormatError } from "../errors.ts";
import { readFileBytes } from "../files.ts";
import { checkpointFiles, parseJson } from "../model/checkpoint-format.ts";

/** Folder whose vocabulary is the embedded one; the same as `embeddedFolder("target")`. */
export const embeddedTokenizerFolder = fileURLToPath(new URL("../../models/declarations-target", import.meta.url));

/** The parsed `tokenizer.json` of a checkpoint folder. */
export async function readTokenizerJson(folder: string): Promise<object> {
  const path = join(folder, checkpointFiles.tokenizer);
  const json = parseJson(await readFileBytes(path), path);
  if (typeof json !== "object" || json === null) throw new FormatError(path, "expected a JSON object");
  return json;
}
