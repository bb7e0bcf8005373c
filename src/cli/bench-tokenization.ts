/** `bench tokenization`: what predicted embeddings, merging, a large vocabulary and exact bytes are worth, as tables. */
import type { TokenizationComparison } from "../comparison/tokenization.ts";
import { Progress } from "../progress.ts";
import { type Command, chosen, type Input } from "./command-line.ts";
import { grouped, type Io, painter, table, textWidth, wrap } from "./output.ts";

/** Measure as the options say. @throws UsageError on options out of range */
export async function compareTokens(input: Input, command: Command): Promise<TokenizationComparison> {
  const { compareTokenization, tokenizationSections } = await import("../comparison/tokenization.ts");
  const sections = chosen(input.text("sections"), tokenizationSections, "section", command);
  let shown: { readonly what: string; readonly progress: Progress } | undefined;
  try {
    return await compareTokenization({
      sections,
      seed: input.integer("seed") ?? 0,
      onProgress(what, done, total) {
        if (shown === undefined) shown = { what, progress: new Progress("comparing", total) };
        shown.progress.update(done, what);
      },
    });
  } finally {
    shown?.progress.finish();
  }
}

/** Tables for people. */
export function printTokens(comparison: TokenizationComparison, { stdout, env }: Io): void {
  const { predictors, transfer, merging, vocabulary, bytes } = comparison;
  const { paint } = painter(stdout, env);
  const heading = (text: string): void => void stdout.write(`${paint(text, "bold")}\n`);
  const say = (text: string): void => void stdout.write(`${wrap(text, textWidth(stdout))}\n\n`);
  const rows = (lines: readonly (readonly string[])[]): void => void stdout.write(`${table(lines)}\n\n`);
  const percent = (value: number, digits = 1): string => `${(100 * value).toFixed(digits)} %`;

  if (transfer !== undefined) {
    heading("The frozen target over other tokenizers, held-out declarations: bits per byte, by predictor");
    rows([
      ["tokenizer", "tokens", "against its own", ...predictors],
      ...transfer.map((one) => [
        one.tokenizer,
        grouped(one.tokens),
        percent(one.relativeTokens - 1),
        ...predictors.map((name) => one.bitsPerByte[name]!.toFixed(3)),
      ]),
    ]);
  }
  if (merging !== undefined) {
    heading("Merged prefixes: rows saved, and bits per byte of what follows against the unmerged prefix");
    const steps = merging[predictors[0]!]!;
    rows([
      ["reduction asked for", "rows", ...predictors],
      ...steps.map((step, i) => [
        `${step.reduction} %`,
        percent(step.rows - 1),
        ...predictors.map((name) => `+${(100 * merging[name]![i]!.loss).toFixed(2)} %`),
      ]),
    ]);
  }
  for (const [what, languages] of [
    ["messages", comparison.languages],
    ["region names", comparison.names],
  ] as const) {
    if (languages === undefined) continue;
    heading(`Merging by language, words: tokens of the same ${what}`);
    rows([
      ["language", "before", "after", "shorter", "relative before", "after"],
      ...languages.languages.map((one) => [
        one.language,
        grouped(one.before),
        grouped(one.after),
        percent(one.shorter),
        one.relativeBefore.toFixed(2),
        one.relativeAfter.toFixed(2),
      ]),
    ]);
    say(
      `Most tokens of a language over fewest: ${languages.spread.before.toFixed(2)} before, ` +
        `${languages.spread.after.toFixed(2)} after. Deviation over mean: ${languages.variation.before.toFixed(2)}, ` +
        `${languages.variation.after.toFixed(2)}.`,
    );
  }
  if (vocabulary !== undefined) {
    const { own, large } = vocabulary.bytesPerToken;
    heading(`Drawing from ${grouped(vocabulary.vocabularySize)} tokens, hypernetwork's embeddings`);
    rows([
      ["index", "neighbours", "arg-max found", "recall", "compared", "bits per byte", "bytes per token", "speed"],
      ...vocabulary.rows.map((row) => [
        row.index,
        grouped(row.neighbours),
        percent(row.argMax),
        percent(row.recall),
        percent(row.compared),
        row.bitsPerByte.toFixed(2),
        row.bytesPerToken.toFixed(2),
        `${row.speedup.toFixed(2)}x`,
      ]),
    ]);
    say(
      `Prompts take ${own.toFixed(2)} bytes a token in the model's own vocabulary, ${large.toFixed(2)} in the large one. ` +
        "Bits per byte: the drawn text, read by the frozen model in its own tokens. Speed: against scoring all tokens.",
    );
  }
  if (bytes !== undefined) {
    heading(
      `Prompts cut inside a token: ${grouped(bytes.continuations[0]!.prompts)} cuts of ${grouped(bytes.tokens)} tokens`,
    );
    rows([
      [
        "continuation",
        "bits per byte",
        "inside a token",
        "token completed",
        "calls per byte",
        "multiply-adds per byte",
      ],
      ...bytes.continuations.map((one) => [
        one.name,
        one.bitsPerByte.toFixed(3),
        one.inside.bitsPerByte.toFixed(3),
        percent(one.inside.greedyAccuracy),
        one.callsPerByte.toFixed(2),
        grouped(one.multiplyAddsPerByte),
      ]),
    ]);
  }
}
