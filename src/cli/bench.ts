/** `tokenthrift bench <family>`: every technique of a family beside the others, in one run. */
import { writeFileAtomic } from "../files.ts";
import { promptSetNames } from "../prompt-sets.ts";
import { type Command, type Input, type Option, UsageError, unknown } from "./command-line.ts";
import { type Io, writeJson } from "./output.ts";

const seed: Option = { name: "seed", value: "<n>", help: "same seed, same counts (default: 0)" };

/** Options that mean something to one family only. */
const own: Readonly<Record<string, readonly Option[]>> = {
  tokenization: [
    {
      name: "sections",
      value: "<a,b,..>",
      help: "tokenization: transfer, merging, languages, vocabulary, bytes (default: all)",
    },
  ],
  speculative: [
    { name: "techniques", value: "<a,b,..>", help: "speculative: compare only these (default: all that generate)" },
    { name: "sets", value: "<a,b,..>", help: `speculative: prompt sets (default: ${promptSetNames.join(",")})` },
    { name: "temperatures", value: "<t,..>", help: "speculative: temperatures (default: 0,0.6,1)" },
    { name: "budgets", value: "<n,..>", help: "speculative: guesses per target pass (default: 4,8,16,32,64)" },
    { name: "max-tokens", value: "<n>", help: "speculative: tokens generated after each prompt (default: 48)" },
    { name: "runs", value: "engine|tensors", help: "speculative: what the target runs on (default: engine)" },
  ],
};

export const benchCommand: Command = {
  name: "bench",
  summary: "compare the techniques of a family on the same text, in one run",
  argument: { name: "family", optional: false },
  options: [
    ...Object.values(own).flat(),
    seed,
    { name: "out", value: "<file>", help: "write the whole comparison there too, as JSON" },
    { name: "json", help: "print one JSON document" },
  ],
  examples: [
    "tokenthrift bench speculative --techniques chimera,prompt-lookup --sets edits --temperatures 0 --budgets 4,16",
    "tokenthrift bench tokenization --sections languages",
  ],
  async run(input, io) {
    const family = input.argument!;
    if (own[family] === undefined) throw unknown("family", family, Object.keys(own), benchCommand);
    for (const [other, options] of Object.entries(own)) {
      const stray = other === family ? undefined : options.find(({ name }) => input.has(name));
      if (stray !== undefined) throw new UsageError(`--${stray.name} means nothing to ${family}. It is for: ${other}.`);
    }
    return family === "tokenization" ? tokenization(input, io) : speculative(input, io);
  },
};

async function speculative(input: Input, io: Io): Promise<number> {
  const { compareSpeculative, printSpeculative } = await import("./bench-speculative.ts");
  const comparison = await compareSpeculative(input, benchCommand);
  await report(comparison, input, io, () => printSpeculative(comparison, io));
  return comparison.rows.some(({ identical, lossy }) => identical === false && !lossy) ? 1 : 0;
}

async function tokenization(input: Input, io: Io): Promise<number> {
  const { compareTokens, printTokens } = await import("./bench-tokenization.ts");
  const comparison = await compareTokens(input, benchCommand);
  await report(comparison, input, io, () => printTokens(comparison, io));
  return 0;
}

/** To a file where asked for, and as JSON or as tables. */
async function report(
  comparison: object,
  input: Input,
  { stdout }: Io,
  print: () => void | Promise<void>,
): Promise<void> {
  const out = input.text("out");
  if (out !== undefined) await writeFileAtomic(out, `${JSON.stringify(comparison, undefined, 1)}\n`);
  if (input.has("json")) writeJson(stdout, comparison);
  else await print();
}
