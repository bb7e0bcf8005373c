/** `run` for models read byte by byte: what may stand behind a prompt cut anywhere, and how it goes on. */
import type { TechniqueRun } from "../catalog.ts";
import { ArgumentError } from "../errors.ts";
import type { ByteGenerationOptions } from "../retokenization/index.ts";
import type { Input } from "./command-line.ts";
import { grouped, type Io, painter, printable, table, writeJson } from "./output.ts";

/** Bytes shown of a law. */
const SHOWN = 4;

export async function runBytes(
  name: string,
  { open }: Extract<TechniqueRun, { kind: "bytes" }>,
  text: string,
  input: Input,
  { stdout, env }: Io,
): Promise<number> {
  const [temperature, topP, seed] = [input.number("temperature"), input.number("top-p"), input.integer("seed")];
  const maxBytes = input.integer("max-bytes") ?? 48;
  if (maxBytes < 1) throw new ArgumentError("--max-bytes", "an integer >= 1", maxBytes);
  const options: ByteGenerationOptions = {
    maxBytes,
    seed: seed ?? 0,
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { topP }),
  };
  const { loadModel } = await import("./loaded-model.ts");
  const { generateBytes } = await import("../retokenization/index.ts");
  const { model, tokenizer } = await loadModel(input.text("model"), "target");
  const prompt = new TextEncoder().encode(text);
  const ways = (await open(model, tokenizer)).map(({ name, bytes }) => {
    const session = bytes.openSession();
    session.start(prompt);
    const law = Array.from(session.next());
    session.close();
    const likeliest = [...law.keys()].sort((a, b) => law[b]! - law[a]!).slice(0, SHOWN);
    const next = likeliest.map((byte) => ({ byte, probability: law[byte]! }));
    const { bytes: written, finish, logProbability, cost } = generateBytes(bytes, prompt, options);
    return { name, next, text: new TextDecoder().decode(written), finish, logProbability, cost };
  });
  model.close();

  if (input.has("json")) {
    writeJson(stdout, { technique: name, model: input.text("model") ?? "embedded", prompt: text, options, ways });
    return 0;
  }
  const { paint } = painter(stdout, env);
  for (const { name, text: written } of ways) {
    stdout.write(`${paint(name, "bold")}\n${paint(printable(text), "dim")}\u2502${printable(written)}\n\n`);
  }
  const rows = ways.map(({ name, next, cost }) => [
    name,
    ...next.map(({ byte, probability }) => `${byteShown(byte)} ${probability.toFixed(3)}`),
    grouped(cost.passes),
    (cost.covers / cost.bytes).toFixed(1),
  ]);
  stdout.write(
    `${table([["behind the prompt", ...Array.from({ length: SHOWN }, (_, i) => `${i + 1}.`), "passes", "covers a byte"], ...rows])}\n`,
  );
  return 0;
}

function byteShown(byte: number): string {
  if (byte === 256) return "end";
  if (byte === 0x20) return "blank";
  if (byte === 0x0a) return "line end";
  return byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `<${byte.toString(16).padStart(2, "0")}>`;
}
