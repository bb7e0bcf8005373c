/** A tokenizer without its model. Loads no tensor library, **unlike** `model/load.ts`. */
import { join } from "node:path";
import { FormatError } from "../errors.ts";
import { readFileBytes } from "../files.ts";
import { checkpointFiles, parseJson } from "../model/checkpoint-format.ts";

/** The parsed `tokenizer.json` of a checkpoint folder. */
export async function readTokenizerJson(folder: string): Promise<object> {
  const path = join(folder, checkpointFiles.tokenizer);
  const json = parseJson(await readFileBytes(path), path);
  if (typeof json !== "object" || json === null) throw new FormatError(path, "expected a JSON object");
  return json;
}
