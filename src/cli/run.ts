/** `tokenthrift run <technique>`: one technique at work on a text. */
import { basename } from "node:path";
import { catalog, type Technique } from "../catalog.ts";
import { ArgumentError, FormatError } from "../errors.ts";
import { readFileBytes } from "../files.ts";
import { heldOutPrompts } from "../held-out-prompts.ts";
import { type Command, type Input, UsageError } from "./command-line.ts";
import { requireTechnique } from "./explain.ts";
import { runBytes } from "./run-bytes.ts";
import { runGeneration } from "./run-generation.ts";
import { runMerging } from "./run-merging.ts";
import { runTokenization } from "./run-tokenization.ts";
import { runTransfer } from "./run-transfer.ts";

export const runCommand: Command = {
  name: "run",
  summary: "run a technique on a text and count what it cost",
  argument: { name: "technique", optional: false },
  options: [
    { name: "prompt", value: "<text>", help: "the text to work on (default: a held-out declaration)" },
    { name: "file", value: "<path>", help: "read the text from a UTF-8 file instead" },
    { name: "model", value: "<dir>", help: "checkpoint folder of the model (default: the embedded target)" },
    { name: "draft", value: "<dir>", help: "checkpoint folder of the draft (default: the embedded draft)" },
    { name: "gamma", value: "<n>", help: "guesses per target pass (default: the technique's own)" },
    { name: "max-tokens", value: "<n>", help: "tokens to generate (default: 64), or to show (default: 400)" },
    { name: "max-bytes", value: "<n>", help: "bytes to generate (default: 48)" },
    { name: "temperature", value: "<t>", help: "0 takes the most probable token (default: 0)" },
    { name: "top-k", value: "<k>", help: "draw among the k most probable tokens only" },
    { name: "top-p", value: "<p>", help: "draw among the fewest tokens whose mass reaches p" },
    { name: "seed", value: "<n>", help: "same seed, same text (default: 0)" },
    { name: "json", help: "print one JSON document" },
  ],
  examples: [
    'tokenthrift run bpe --prompt "const words: Map<string, number> = new Map();"',
    "tokenthrift run speculative-sampling --gamma 4 --max-tokens 48",
    'tokenthrift run plain-decoding --prompt "interface Point {" --temperature 0.8 --seed 7 --max-tokens 24',
  ],
  async run(input, io) {
    const technique = requireTechnique(input.argument!);
    requireApplicable(technique, input);
    const text = await readText(input);
    if (technique.run.kind === "tokenization") return runTokenization(technique.name, technique.run, text, input, io);
    if (technique.run.kind === "merging") return runMerging(technique.name, technique.run, text, input, io);
    if (technique.run.kind === "bytes") return runBytes(technique.name, technique.run, text, input, io);
    if (technique.run.kind === "transfer") return runTransfer(technique.name, technique.run, text, input, io);
    return runGeneration(technique.name, technique.run, text, input, io);
  },
};

/** What every technique of a kind understands; the rest of the options are each technique's own. */
const understood = {
  tokenization: ["prompt", "file", "model", "max-tokens", "json"],
  merging: ["prompt", "file", "model", "max-tokens", "json"],
  bytes: ["prompt", "file", "model", "max-bytes", "temperature", "top-p", "seed", "json"],
  transfer: ["prompt", "file", "max-tokens", "json"],
  generation: ["prompt", "file", "model", "max-tokens", "temperature", "top-k", "top-p", "seed", "json"],
  model: ["prompt", "file", "max-tokens", "temperature", "top-k", "top-p", "seed", "json"],
} as const;

/** An option that would be ignored is a misunderstanding: better said than passed over. */
function requireApplicable({ name, run }: Technique, input: Input): void {
  const own: readonly string[] = run.kind === "generation" ? run.uses : [];
  for (const option of runCommand.options) {
    const applies = (understood[run.kind] as readonly string[]).includes(option.name) || own.includes(option.name);
    if (input.has(option.name) && !applies) {
      const others = catalog.filter((entry) => entry.run.kind === "generation" && uses(entry, option.name));
      const hint = others.length === 0 ? "" : ` It is for: ${others.map((entry) => entry.name).join(", ")}.`;
      throw new UsageError(`--${option.name} means nothing to ${name}.${hint}`);
    }
  }
}

function uses({ run }: Technique, option: string): boolean {
  if (run.kind !== "generation") return false;
  return ([...understood.generation, ...run.uses] as readonly string[]).includes(option);
}

async function readText(input: Input): Promise<string> {
  const [prompt, file] = [input.text("prompt"), input.text("file")];
  if (prompt !== undefined && file !== undefined) throw new UsageError("give --prompt or --file, not both.");
  if (prompt !== undefined) {
    if (prompt === "") throw new ArgumentError("--prompt", "at least one character", prompt);
    return prompt;
  }
  if (file === undefined) return heldOutPrompts[0]!.text;
  const bytes = await readFileBytes(file);
  if (bytes.length === 0) throw new FormatError(basename(file), "the file is empty", "There is nothing to work on.");
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new FormatError(basename(file), "the file is not UTF-8 text", "Convert it first.");
  }
}
