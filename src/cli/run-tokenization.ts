/** `run` for tokenizers: the text with its token boundaries, and how many bytes a token carries. */
import type { TechniqueRun } from "../catalog.ts";
import { ArgumentError } from "../errors.ts";
import { embeddedFolder, embeddedTokenizerFolder } from "../model/embedded.ts";
import type { Input } from "./command-line.ts";
import { grouped, type Io, type Paint, painter, printable, writeJson } from "./output.ts";
import { readTokenizerJson } from "./tokenizer-file.ts";

export async function runTokenization(
  name: string,
  { open, embedded }: Extract<TechniqueRun, { kind: "tokenization" }>,
  text: string,
  input: Input,
  { stdout, env }: Io,
): Promise<number> {
  const shown = input.integer("max-tokens") ?? 400;
  if (shown < 1) throw new ArgumentError("--max-tokens", "an integer >= 1", shown);
  const folder = input.text("model");
  const own = embedded === undefined ? embeddedFolder("target") : embeddedTokenizerFolder(embedded);
  const tokenizer = await open(await readTokenizerJson(folder ?? own));
  // What a user types is text; the spelling of a special token in it too.
  const ids = tokenizer.encode(text, { disallowedSpecial: [] });
  const bytes = new TextEncoder().encode(text).length;
  const counts = { characters: [...text].length, bytes, tokens: ids.length, bytesPerToken: bytes / ids.length };

  if (input.has("json")) {
    writeJson(stdout, {
      technique: name,
      model: folder ?? "embedded",
      vocabularySize: tokenizer.vocabularySize,
      ...counts,
      roundTrip: tokenizer.decode(ids) === text,
      pieces: Array.from(ids.subarray(0, shown), (id) => {
        const piece = tokenizer.tokenBytes(id);
        return { id, text: wholeText(piece) ?? null, bytes: Buffer.from(piece).toString("hex") };
      }),
    });
    return 0;
  }

  const { paint, enabled } = painter(stdout, env);
  const tokens = Array.from(ids.subarray(0, shown), (id) => tokenizer.tokenBytes(id));
  stdout.write(`${markedTokens(tokens, enabled ? paint : undefined)}\n`);
  if (shown < ids.length) stdout.write(`... and ${grouped(ids.length - shown)} tokens more (--max-tokens)\n`);
  stdout.write(
    `\n${grouped(counts.tokens)} tokens for ${grouped(counts.bytes)} bytes ` +
      `(${grouped(counts.characters)} characters): ${counts.bytesPerToken.toFixed(2)} bytes per token, ` +
      `from a vocabulary of ${grouped(tokenizer.vocabularySize)}\n`,
  );
  return 0;
}

/** Tokens in alternating colours, or with a bar between them where there are no colours. */
export function markedTokens(tokens: readonly Uint8Array[], paint: Paint | undefined): string {
  const pieces = tokens.map((bytes) => printable(wholeText(bytes) ?? `<${Buffer.from(bytes).toString("hex")}>`));
  if (paint === undefined) return pieces.join("\u2502");
  return pieces.map((piece, i) => (i % 2 === 0 ? paint(piece, "blue", "underline") : piece)).join("");
}

/** The text of bytes; undefined where they cut a character. */
export function wholeText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
