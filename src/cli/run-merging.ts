/** `run` for dynamic merging: the text with its token boundaries before and after, and what merged, in order. */
import type { TechniqueRun } from "../catalog.ts";
import { ArgumentError } from "../errors.ts";
import { embeddedFolder } from "../model/embedded.ts";
import { mergeBatch } from "../tokenization/index.ts";
import type { Input } from "./command-line.ts";
import { grouped, type Io, painter, printable, textWidth, wrap, writeJson } from "./output.ts";
import { markedTokens, wholeText } from "./run-tokenization.ts";
import { readTokenizerJson } from "./tokenizer-file.ts";

const shownMerges = 12;

export async function runMerging(
  name: string,
  { open }: Extract<TechniqueRun, { kind: "merging" }>,
  text: string,
  input: Input,
  { stdout, env }: Io,
): Promise<number> {
  const shown = input.integer("max-tokens") ?? 400;
  if (shown < 1) throw new ArgumentError("--max-tokens", "an integer >= 1", shown);
  const folder = input.text("model");
  const tokenizer = await open(await readTokenizerJson(folder ?? embeddedFolder("target")));
  const ids = tokenizer.encode(text, { disallowedSpecial: [] });
  const { rows, merges, bytes, pieces, cost } = mergeBatch([ids], { tokenizer });
  const { tokens } = rows[0]!;
  const shorter = 1 - tokens.length / ids.length;

  if (input.has("json")) {
    const spelled = (token: number) => ({
      text: wholeText(bytes(token)) ?? null,
      bytes: Buffer.from(bytes(token)).toString("hex"),
    });
    writeJson(stdout, {
      technique: name,
      model: folder ?? "embedded",
      tokens: { before: ids.length, after: tokens.length, shorter },
      merges: merges.map(({ left, right, count }) => ({ left: spelled(left), right: spelled(right), count })),
      merged: Array.from(tokens.subarray(0, shown), (token) => ({
        ...spelled(token),
        pieces: [...pieces(token)],
      })),
      cost,
    });
    return 0;
  }

  const { paint, enabled } = painter(stdout, env);
  const colours = enabled ? paint : undefined;
  const before = Array.from(ids.subarray(0, shown), (id) => tokenizer.tokenBytes(id));
  stdout.write(`before\n${markedTokens(before, colours)}\n\n`);
  stdout.write(`after\n${markedTokens(Array.from(tokens.subarray(0, shown), bytes), colours)}\n`);
  if (shown < ids.length) stdout.write(`(the first ${grouped(shown)} tokens of each: --max-tokens)\n`);
  if (merges.length > 0) {
    const spelled = (token: number): string => printable(wholeText(bytes(token)) ?? "<cut>");
    const first = merges.slice(0, shownMerges).map(({ left, right, count }) => {
      return `${spelled(left)}+${spelled(right)} ${grouped(count)}x`;
    });
    const rest = merges.length > shownMerges ? `, and ${grouped(merges.length - shownMerges)} more` : "";
    stdout.write(`\n${wrap(`merged: ${first.join(", ")}${rest}`, textWidth(stdout))}\n`);
  }
  stdout.write(
    `\n${grouped(ids.length)} tokens became ${grouped(tokens.length)} in ${grouped(merges.length)} merges: ` +
      `${(100 * shorter).toFixed(1)} % fewer rows\n`,
  );
  return 0;
}
