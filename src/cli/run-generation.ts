/** `run` for methods of generation: the text, who wrote which token, what it cost, and whether it is plain decoding's. */
import type { TechniqueRun } from "../catalog.ts";
import { calibrationPrompts } from "../held-out-prompts.ts";
import { addCosts } from "../model/language-model.ts";
import { type GenerateOptions, generate, type Report, type SamplingOptions } from "../speculative/index.ts";
import type { Input } from "./command-line.ts";
import { authoredPieces, runToEnd, sameTokens } from "./generated-text.ts";
import { grouped, type Io, painter, printable, table, textWidth, wrap, writeJson } from "./output.ts";

export async function runGeneration(
  name: string,
  run: Extract<TechniqueRun, { kind: "generation" | "model" }>,
  text: string,
  input: Input,
  { stdout, env }: Io,
): Promise<number> {
  const [temperature, topK, topP] = [input.number("temperature"), input.integer("top-k"), input.number("top-p")];
  const [gamma, maxTokens, seed] = [input.integer("gamma"), input.integer("max-tokens") ?? 64, input.integer("seed")];

  const { loadModel, requireSameTokenizer } = await import("./loaded-model.ts");
  const target = await loadModel(input.text("model"), "target");
  const uses = run.kind === "generation" ? run.uses : [];
  const draft = uses.includes("draft") ? await loadModel(input.text("draft"), "draft") : undefined;
  if (draft !== undefined) requireSameTokenizer(target, draft);
  const { model, tokenizer } = target;
  const prompt = Array.from(tokenizer.encode(text, { disallowedSpecial: [] }));
  const end = tokenizer.specialTokens.get("<|endoftext|>");
  const sampling: SamplingOptions = {
    ...(temperature !== undefined && { temperature }),
    ...(topK !== undefined && { topK }),
    ...(topP !== undefined && { topP }),
  };
  const options: GenerateOptions = {
    ...sampling,
    maxTokens,
    seed: seed ?? 0,
    ...(end !== undefined && { stopTokens: [end] }),
  };
  const part =
    run.kind === "model"
      ? {}
      : await run.method({
          ...(gamma !== undefined && { gamma }),
          ...(draft && { draft: draft.model }),
          target: model,
          sampling,
          calibration: calibrationPrompts
            .map((prompt) => tokenizer.encode(prompt.text))
            .filter((ids) => ids.length <= model.contextLength / 2),
        });
  const own = run.kind === "model" ? await run.open(prompt.length) : model;

  const { report, steps } = runToEnd(generate(own, prompt, { ...options, ...part }));
  const greedy = (temperature ?? 0) === 0;
  const plain = name === "plain-decoding" ? undefined : runToEnd(generate(model, prompt, options)).report;
  const identical = plain === undefined || !greedy ? undefined : sameTokens(report.tokens, plain.tokens);
  /** A model that only approximates the target may differ from it. */
  const broken = identical === false && own.lossy !== true;
  draft?.model.close();
  model.close();

  if (input.has("json")) {
    writeJson(stdout, {
      technique: name,
      model: input.text("model") ?? "embedded",
      ...(uses.includes("draft") && { draft: input.text("draft") ?? "embedded" }),
      prompt: text,
      promptTokens: prompt.length,
      options: { ...options, stopTokens: end === undefined ? [] : [end], ...(gamma !== undefined && { gamma }) },
      text: tokenizer.decode(report.tokens),
      pieces: authoredPieces(tokenizer, steps),
      report,
      ...(plain && { plain: { targetPasses: plain.targetPasses, cost: plain.cost } }),
      ...(identical !== undefined && { identicalToPlainDecoding: identical }),
    });
    return broken ? 1 : 0;
  }

  const { paint, enabled } = painter(stdout, env);
  stdout.write(paint(printable(text), "dim"));
  for (const { text: piece, author } of authoredPieces(tokenizer, steps)) {
    const shown = printable(piece);
    if (author === "target") stdout.write(shown);
    else stdout.write(enabled ? paint(shown, "green", "underline") : `\u00ab${shown}\u00bb`);
  }
  stdout.write("\n\n");
  if (report.drafted > 0) {
    const mark = enabled ? paint("underlined green", "green", "underline") : "between \u00ab \u00bb";
    stdout.write(`${mark}: guesses that were accepted; the rest is the target's own\n`);
  }
  stdout.write(`${counts(report, plain)}\n`);
  if (report.positions.length > 0) stdout.write(`\n${acceptance(report)}\n`);
  const verdict = plain === undefined ? "" : wrap(verdictOn(report, plain, identical, own.lossy), textWidth(stdout));
  if (verdict !== "") stdout.write(`\n${verdict}\n`);
  return broken ? 1 : 0;
}

function verdictOn(
  report: Report,
  plain: Report,
  identical: boolean | undefined,
  otherModel: boolean | undefined,
): string {
  if (otherModel && identical !== undefined) {
    const first = report.tokens.findIndex((token, i) => token !== plain.tokens[i]);
    const alike = first < 0 ? report.tokens.length : first;
    return `LOSSY: another text than plain decoding's is to be expected. The first ${alike} of ${report.tokens.length} tokens are the same.`;
  }
  if (identical !== undefined) return `identical to plain decoding, token for token: ${identical ? "yes" : "NO"}`;
  if (report.lossy) {
    const why = otherModel
      ? "by a model that approximates the target"
      : "and verified by a rule that does not keep the target's law";
    return `LOSSY: sampled, ${why}. The text is not one that plain decoding would draw as often.`;
  }
  return (
    "Sampled: the text differs from plain decoding's by chance, its law does not. The proof is a test " +
    "against an enumerated law: test/speculative/conformance.test.ts"
  );
}

function counts(report: Report, plain: Report | undefined): string {
  const cost = (of: Report): number => addCosts(of.cost.target, of.cost.draft).multiplyAdds;
  const rows = [
    ["", "this run", "plain"],
    ["tokens", grouped(report.tokens.length), plain && grouped(plain.tokens.length)],
    ["target passes", grouped(report.targetPasses), plain && grouped(plain.targetPasses)],
    ["tokens per target pass", report.tokensPerPass.toFixed(2), plain?.tokensPerPass.toFixed(2)],
    ["draft passes", grouped(report.cost.draft.passes), plain && grouped(plain.cost.draft.passes)],
    ["guesses accepted", `${report.accepted} of ${report.drafted}`, plain && "-"],
    ["million multiply-adds", (cost(report) / 1e6).toFixed(1), plain && (cost(plain) / 1e6).toFixed(1)],
  ];
  return `${table(rows.map((row) => row.filter((cell) => cell !== undefined).slice(0, plain ? 3 : 2)))}\n(${ending(report)})`;
}

function acceptance({ positions }: Report): string {
  const rate = (part: number, whole: number): string => (whole === 0 ? "-" : `${((100 * part) / whole).toFixed(0)} %`);
  return table([
    ["guess", "offered", "tested", "accepted", "of tested", "of offered"],
    ...positions.map(({ offered, tested, accepted }, i) => [
      String(i + 1),
      String(offered),
      String(tested),
      String(accepted),
      rate(accepted, tested),
      rate(accepted, offered),
    ]),
  ]);
}

function ending({ finish }: Report): string {
  switch (finish.kind) {
    case "length":
      return "ended at --max-tokens";
    case "stop":
      return "the model ended the text";
    case "context":
      return "ended because the model's context is full";
    default:
      return finish.kind;
  }
}
