/** The demo: measures, prints as it goes, and writes the report. Loads TensorFlow.js, for the tensor decoder. */
import { cpus } from "node:os";
import { join } from "node:path";
import { loadModel, requireSameTokenizer } from "../cli/loaded-model.ts";
import { grouped, table, wrap } from "../cli/output.ts";
import { version } from "../cli/version.ts";
import { tableOf } from "../comparison/speculative-report.ts";
import { FileError } from "../errors.ts";
import { writeFilesAtomic } from "../files.ts";
import { heldOutPrompts } from "../held-out-prompts.ts";
import { parameterCount } from "../model/decoder-config.ts";
import { embeddedFolder } from "../model/embedded.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { duration, Progress } from "../progress.ts";
import {
  type EmbeddingPredictor,
  lastPiece,
  loadHypernetwork,
  meanOfPieces,
  randomEmbeddings,
  targetTables,
} from "../retokenization/index.ts";
import { measurePassCosts } from "../speculative/pass-costs.ts";
import { readHeadTarget } from "../speculative/trained-parts.ts";
import { activeBackend } from "../tensor/backend.ts";
import { type DynamicTokenFigures, type DynamicTokenOptions, measureDynamicTokens } from "./dynamic-tokens.ts";
import { type FamilyFigures, type FamilyOptions, measureFamily } from "./family.ts";
import {
  breakEven,
  type Figures,
  promptTable,
  type RunnerFigures,
  runnerRemark,
  sampledRemark,
  share,
  yesNo,
} from "./figures.ts";
import { type LanguageFigures, measureLanguages } from "./languages.ts";
import { reportHtml } from "./report.ts";
import { measureSpeculation, type SpeculationOptions } from "./speculation.ts";
import { trainingFigures } from "./training-record.ts";

export interface DemoOptions {
  /** Called with each finished stretch of the printed report, a line or several. Default: nothing. */
  readonly print?: (lines: string) => void;
  /** Checkpoint folders. Default: the embedded pair. */
  readonly target?: string;
  readonly draft?: string;
  /** What to measure other than by default. */
  readonly speculation?: Partial<Pick<SpeculationOptions, "prompts" | "gammas" | "maxTokens" | "repetitions">>;
  /** The same of the family. With other models than the embedded pair: which techniques, as trained parts fit only that. */
  /** The same of dynamic tokenization. */
  readonly dynamicTokens?: Partial<Pick<DynamicTokenOptions, "reductions" | "sequences" | "cuts">>;
  readonly family?: Partial<Pick<FamilyOptions, "techniques" | "budgets" | "promptSets" | "maxTokens">>;
}

/** Measure everything. Throws what reading the checkpoints throws. */
export async function measureFigures(options: DemoOptions = {}): Promise<Figures> {
  const { print = () => {} } = options;
  const started = performance.now();
  const target = await loadModel(options.target, "target");
  const draft = await loadModel(options.draft, "draft");
  requireSameTokenizer(target, draft);
  const onTensors = await loadModel(options.target, "target", { runs: "tensors" });
  try {
    const { tokenizer } = target;
    const progress = new Progress("counting tokens", 14);
    const languages = await measureLanguages(tokenizer, (done) => progress.update(done));
    progress.finish();
    print(languageText(languages));

    const end = tokenizer.specialTokens.get("<|endoftext|>");
    const decode = async (model: LanguageModel, label: string): Promise<RunnerFigures> => {
      const passCosts = measurePassCosts(model);
      let decoding: Progress | undefined;
      const figures = await measureSpeculation({
        target: model,
        draft: draft.model,
        tokenizer,
        prompts: heldOutPrompts,
        stopTokens: end === undefined ? [] : [end],
        ...options.speculation,
        onRun: (done, total) => {
          decoding ??= new Progress(label, total);
          decoding.update(done);
        },
      });
      decoding?.finish();
      return { ...figures, passCosts };
    };
    const speculation = {
      tensors: await decode(onTensors.model, "decoding, tensors"),
      engine: await decode(target.model, "decoding, engine"),
    };
    print(speculationText(speculation));
    let comparing: Progress | undefined;
    const family = await measureFamily({
      tensors: onTensors.model,
      engine: target.model,
      draft: draft.model,
      tokenizer,
      ...options.family,
      onRow: (done, total) => {
        comparing ??= new Progress("comparing techniques", total);
        comparing.update(done);
      },
    });
    comparing?.finish();
    print(familyText(family));
    const merging = new Progress("merging tokens", 1);
    const dynamicTokens = await measureDynamicTokens({
      model: target.model,
      tokenizer,
      predictors: await predictorsOf(options.target),
      ...options.dynamicTokens,
      onProgress: (done, total) => merging.update(done / total),
    }).catch(unavailable);
    merging.finish();
    print(dynamicTokenText(dynamicTokens));
    return {
      run: {
        tokenthrift: version(),
        node: process.versions.node,
        backend: activeBackend() ?? "none",
        processor: `${cpus()[0]?.model.trim() ?? "unknown"}, ${cpus().length} threads`,
        seconds: (performance.now() - started) / 1000,
      },
      models: {
        vocabularySize: tokenizer.vocabularySize,
        target: { ...trainingFigures(target.training), parameters: parameterCount(target.model.config) },
        draft: { ...trainingFigures(draft.training), parameters: parameterCount(draft.model.config) },
      },
      languages,
      speculation,
      family,
      dynamicTokens,
    };
  } finally {
    for (const { model } of [target, draft, onTensors]) model.close();
  }
}

/** Predictors that need no training, and the hypernetwork where the target is the one it was trained for. */
async function predictorsOf(folder: string | undefined): Promise<EmbeddingPredictor[]> {
  const tables = targetTables(await readHeadTarget(folder ?? embeddedFolder("target")));
  const untrained = [randomEmbeddings(tables), lastPiece(tables), meanOfPieces(tables)];
  return folder === undefined ? [...untrained, (await loadHypernetwork()).hypernetwork] : untrained;
}

/** Sections that need packages of text are left out where those are not installed. */
function unavailable(error: unknown): { readonly unavailable: string } {
  if (!(error instanceof FileError)) throw error;
  return { unavailable: error.message };
}

/**
 * Measure and write `report.html` and `figures.json` to a folder.
 * @throws FileError when they cannot be written; earlier ones are untouched then
 */
export async function runDemo({ out, ...options }: DemoOptions & { readonly out: string }): Promise<Figures> {
  const figures = await measureFigures(options);
  const report = join(out, "report.html");
  await writeFilesAtomic([
    [join(out, "figures.json"), `${JSON.stringify(figures, null, 2)}\n`],
    [report, reportHtml(figures)],
  ]);
  options.print?.(`\n${report} written (${duration(figures.run.seconds)} in all)`);
  return figures;
}

function languageText(figures: LanguageFigures | { readonly unavailable: string }): string {
  if ("unavailable" in figures) return `Bytes per token: not measured. ${figures.unavailable}\n`;
  const { vocabularies, languages, messages, source, missing } = figures;
  return [
    `Bytes per token in ${languages.length} languages (${grouped(messages)} messages each; ${source})`,
    table([
      ["language", ...vocabularies.flatMap(({ name, size }) => [`${name} (${grouped(size)})`, "tokens / English"])],
      ...languages.map(({ name, byVocabulary }) => [
        name,
        ...byVocabulary.flatMap((v) => [v.bytesPerToken.toFixed(2), v.relativeToEnglish.toFixed(2)]),
      ]),
    ]),
    ...missing.map((reason) => `left out: ${reason}`),
    "",
  ].join("\n");
}

function speculationText({ tensors, engine }: Figures["speculation"]): string {
  const { prompts, maxTokens, byGamma, fastestGamma, repetitions, sampled } = tensors;
  const completions = [tensors, engine].flatMap((runner) => runner.byGamma.flatMap((one) => one.prompts));
  const identical = completions.filter((prompt) => prompt.identical).length;
  return [
    `Plain against speculative decoding (${prompts.length} held-out prompts, up to ${maxTokens} tokens each, temperature 0)`,
    table([
      ["", "", "", "", "tensor decoder", "", "engine", "", ""],
      ["gamma", "tokens per", "multiply-", "accepted", "pass costs", "speed", "pass costs", "speed", "identical"],
      ["", "target pass", "adds", "", "", "", "", "", ""],
      ["plain", "1.00", "1.00", "-", "1.00", "1.00", "1.00", "1.00", "-"],
      ...byGamma.map((one, i) => [
        String(one.gamma),
        one.tokensPerPass.toFixed(2),
        one.multiplyAddsRatio.toFixed(2),
        share(one.accepted, one.drafted),
        breakEven(tensors, one.gamma).toFixed(2),
        one.secondsRatio.toFixed(2),
        breakEven(engine, one.gamma).toFixed(2),
        engine.byGamma[i]!.secondsRatio.toFixed(2),
        yesNo(one.identical && engine.byGamma[i]!.identical),
      ]),
    ]),
    "",
    wrap(
      "Speed: plain decoding's seconds over the method's on the same runner, medians of " +
        `${repetitions}, interleaved in this run; above 1 is faster. ${runnerRemark()} ` +
        "Multiply-adds: target and draft together, over plain decoding's.",
      100,
    ),
    "",
    `By prompt, gamma ${fastestGamma} (the fastest of this run on the tensor decoder)`,
    table(promptTable(tensors)),
    "",
    `identical: ${yesNo(identical === completions.length)} (${identical} of ${completions.length} completions equal plain decoding's, token for token)`,
    "",
    wrap(sampledRemark(sampled), 100),
  ].join("\n");
}

function familyText({ tensors, engine, prompts, maxTokens }: FamilyFigures): string {
  const tokens = tableOf(tensors, ({ tokensPerPass }) => tokensPerPass);
  const speeds = [tensors, engine].map((rows) => tableOf(rows, ({ speedup }) => speedup));
  const rows = [...tensors, ...engine];
  const identical = rows.filter(({ identical }) => identical).length;
  const sets = Object.entries(prompts).map(([set, count]) => `${count} ${set}`);
  return [
    "",
    `Every technique beside the others (${sets.join(", ")}; ${maxTokens} tokens each, temperature 0)`,
    table([
      ["tokens per target pass, by guesses", ...tokens.budgets.map(String), "best speed, tensors", "engine"],
      ...tokens.lines.map(({ technique, values }, i) => [
        technique,
        ...values.map((value) => value.toFixed(2)),
        ...speeds.map(({ lines }) => Math.max(...lines[i]!.values).toFixed(2)),
      ]),
    ]),
    `identical: ${yesNo(identical === rows.length)} (${identical} of ${rows.length} rows). All prompts, temperatures and budgets: tokenthrift bench speculative`,
  ].join("\n");
}

function dynamicTokenText(figures: DynamicTokenFigures | { readonly unavailable: string }): string {
  if ("unavailable" in figures) return `\nDynamic tokenization: not measured. ${figures.unavailable}`;
  const { merging, sequences, prefixTokens, bytes } = figures;
  const names = Object.keys(merging);
  return [
    "",
    `Merged prefixes (${sequences} sequences, ${prefixTokens} tokens each): more bits per byte of what follows`,
    table([
      ["rows", ...names],
      ...merging[names[0]!]!.map(({ rows }, i) => [
        `${(100 * rows).toFixed(0)} %`,
        ...names.map((name) => `${(100 * merging[name]![i]!.loss).toFixed(2)} %`),
      ]),
    ]),
    "",
    `Prompts cut inside a token (${bytes.continuations[0]!.inside.prompts} prompts): bits per byte of its rest`,
    table([
      ["", "bits per byte", "token completed"],
      ...bytes.continuations.map(({ name, inside }) => [
        name,
        inside.bitsPerByte.toFixed(2),
        `${(100 * inside.greedyAccuracy).toFixed(0)} %`,
      ]),
    ]),
  ].join("\n");
}
