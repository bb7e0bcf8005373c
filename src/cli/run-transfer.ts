/** `run` for models over another tokenizer's vocabulary: a text in both, what it costs in bits, and how it goes on. */
import type { TechniqueRun } from "../catalog.ts";
import type { Input } from "./command-line.ts";
import { grouped, type Io, painter, printable, table, writeJson } from "./output.ts";

export async function runTransfer(
  name: string,
  { open }: Extract<TechniqueRun, { kind: "transfer" }>,
  text: string,
  input: Input,
  { stdout, env }: Io,
): Promise<number> {
  const maxTokens = input.integer("max-tokens") ?? 32;
  const { loadModel } = await import("./loaded-model.ts");
  const { bitsPerByte } = await import("../retokenization/index.ts");
  const { generateAll } = await import("../speculative/index.ts");
  const loaded = await loadModel(undefined, "target");
  const own = { name: "its own tokenizer", model: loaded.model, tokenizer: loaded.tokenizer };
  const ways = [];
  for (const { name, model, tokenizer } of [own, ...(await open(loaded))]) {
    const end = tokenizer.specialTokens.get("<|endoftext|>")!;
    const prompt = tokenizer.encode(text, { disallowedSpecial: [] });
    const measured = bitsPerByte(model, tokenizer, [text], end);
    const { tokens } = await generateAll(model, prompt, { maxTokens, stopTokens: [end] });
    ways.push({ name, vocabularySize: model.vocabularySize, ...measured, text: tokenizer.decode(tokens) });
  }
  loaded.model.close();

  if (input.has("json")) {
    writeJson(stdout, { technique: name, prompt: text, maxTokens, ways });
    return 0;
  }
  const { paint } = painter(stdout, env);
  for (const { name, text: written } of ways) {
    stdout.write(`${paint(name, "bold")}\n${paint(printable(text), "dim")}\u2502${printable(written)}\n\n`);
  }
  const rows = ways.map(({ name, vocabularySize, tokens, bitsPerByte }) => [
    name,
    grouped(vocabularySize),
    grouped(tokens),
    bitsPerByte.toFixed(3),
  ]);
  stdout.write(`${table([["prompt and its end", "vocabulary", "tokens", "bits per byte"], ...rows])}\n`);
  return 0;
}
