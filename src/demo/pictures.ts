/** The demo's figures as plots: the same pictures for the report and for the README. */
import { passCost } from "../speculative/pass-costs.ts";
import type { Figures, RunnerFigures } from "./figures.ts";
import type { LanguageFigures } from "./languages.ts";
import { barPlot, linePlot, type PlotText, tokenPlot } from "./plot.ts";
import type { SpeculationFigures } from "./speculation.ts";

type Style = Pick<PlotText, "standalone">;

export function languagePicture(figures: LanguageFigures, style: Style = {}): string {
  const { vocabularies, languages } = figures;
  const first = languages.map(({ byVocabulary }) => byVocabulary[0]!.bytesPerToken);
  return barPlot({
    id: "languages",
    title: "Bytes per token by language",
    description:
      `Bars for ${vocabularies.map(({ name }) => name).join(" and ")} on the same messages in ${languages.length} ` +
      `languages. The embedded vocabulary carries from ${Math.min(...first).toFixed(2)} to ` +
      `${Math.max(...first).toFixed(2)} bytes per token.`,
    categories: languages.map(({ name }) => name),
    series: vocabularies.map(({ name, size }, v) => ({
      name: `${name}, ${size.toLocaleString("en-US")} tokens`,
      values: languages.map(({ byVocabulary }) => byVocabulary[v]!.bytesPerToken),
    })),
    valueLabel: "UTF-8 bytes per token",
    ...style,
  });
}

export function gammaPicture({ tensors, engine }: Figures["speculation"], style: Style = {}): string {
  const { byGamma } = tensors;
  const [first, last] = [byGamma[0]!, byGamma.at(-1)!];
  const best = ({ byGamma: rows }: RunnerFigures): string =>
    Math.max(...rows.map(({ secondsRatio }) => secondsRatio)).toFixed(2);
  return linePlot({
    id: "gamma",
    title: "Speculative decoding against plain decoding",
    description:
      `By guesses per pass. Tokens per target pass go from ${first.tokensPerPass.toFixed(2)} at ${first.gamma} to ` +
      `${last.tokensPerPass.toFixed(2)} at ${last.gamma}; the best speed is ${best(tensors)} times plain decoding's on ` +
      `the tensor decoder and ${best(engine)} times on the engine.`,
    series: [
      { name: "tokens per target pass", points: byGamma.map((one) => [one.gamma, one.tokensPerPass]) },
      { name: "speed, tensor decoder", points: byGamma.map((one) => [one.gamma, one.secondsRatio]) },
      { name: "speed, engine", points: engine.byGamma.map((one) => [one.gamma, one.secondsRatio]) },
    ],
    xLabel: "gamma: guesses per target pass",
    yLabel: "relative to plain decoding",
    yFrom: 0,
    xTicks: byGamma.map(({ gamma }) => gamma),
    reference: { y: 1, label: "plain decoding" },
    ...style,
  });
}

export function passCostPicture({ tensors, engine }: Figures["speculation"], style: Style = {}): string {
  const points = ({ passCosts: { nodes, costs } }: RunnerFigures) =>
    nodes.flatMap((size, i) => (size <= 16 ? [[size, costs[i]!] as const] : []));
  const at = (runner: RunnerFigures, size: number): string => passCost(runner.passCosts, size).toFixed(1);
  return linePlot({
    id: "pass-costs",
    title: "What a pass costs by the tokens in it",
    description:
      `In passes over one token. Eight tokens cost ${at(tensors, 8)} on the tensor decoder and ${at(engine, 8)} on the ` +
      `engine, sixteen ${at(tensors, 16)} and ${at(engine, 16)}.`,
    series: [
      { name: "tensor decoder", points: points(tensors) },
      { name: "engine", points: points(engine) },
    ],
    xLabel: "tokens in the pass",
    yLabel: "passes over one token",
    yFrom: 0,
    xTicks: [1, 2, 4, 8, 16],
    reference: { y: 1, label: "one token" },
    ...style,
  });
}

export function positionPicture({ byGamma }: SpeculationFigures, style: Style = {}): string {
  const { gamma, positions } = byGamma.at(-1)!;
  const rate = (part: number, whole: number): number | null => (whole === 0 ? null : (100 * part) / whole);
  return barPlot({
    id: "positions",
    title: "Acceptance by position of the guess",
    description:
      `At gamma ${gamma}. Of the guesses that were tested, because all before them had been accepted, and of all ` +
      "guesses offered at that position.",
    categories: positions.map((_, i) => `guess ${i + 1}`),
    series: [
      { name: "of those tested", values: positions.map(({ accepted, tested }) => rate(accepted, tested)) },
      { name: "of those offered", values: positions.map(({ accepted, offered }) => rate(accepted, offered)) },
    ],
    valueLabel: "per cent accepted",
    format: (value) => value.toFixed(0),
    ...style,
  });
}

export function completionPicture({ completion }: SpeculationFigures, style: Style = {}): string {
  const drafted = completion.pieces.filter(({ author }) => author === "draft").length;
  return tokenPlot({
    id: "completion",
    title: "A completion, coloured by who wrote it",
    description:
      `The prompt in grey, then the generated text at gamma ${completion.gamma}: ${drafted} stretches are guesses of ` +
      "the draft model that the target accepted, the rest the target wrote itself.",
    pieces: [
      { text: completion.prompt.text, kind: -1 },
      ...completion.pieces.map(({ text, author }) => ({
        text,
        kind: author === "draft" ? (0 as const) : (1 as const),
      })),
    ],
    kinds: ["guessed by the draft, accepted", "written by the target"],
    ...style,
  });
}

/** Undefined where no learning curve was recorded. */
export function learningPicture({ models }: Figures, style: Style = {}): string | undefined {
  const series = (["target", "draft"] as const)
    .map((name) => ({
      name: `${name}, ${models[name].parameters.toLocaleString("en-US")} parameters`,
      points: models[name].curve.map(({ step, validationLoss }) => [step, validationLoss] as const),
    }))
    .filter(({ points }) => points.length > 0);
  if (series.length === 0) return undefined;
  const ends = series.map(({ name, points }) => `${name}: ${points.at(-1)![1].toFixed(2)}`).join("; ");
  return linePlot({
    id: "learning",
    title: "Learning curves on held-out text",
    description: `Loss on held-out files by training step, in nats per token. At the end, ${ends}.`,
    series,
    xLabel: "training step",
    yLabel: "nats per token, held out",
    ...style,
  });
}

/** Undefined where nothing was evaluated. */
export function bitsPicture({ models }: Figures, style: Style = {}): string | undefined {
  const { target, draft } = models;
  const measured = [
    ["gzip -9", target.bitsPerByte.gzip ?? draft.bitsPerByte.gzip],
    ["5-gram", target.bitsPerByte.fiveGram ?? draft.bitsPerByte.fiveGram],
    ["xz -9", target.bitsPerByte.xz ?? draft.bitsPerByte.xz],
    ["draft", draft.bitsPerByte.model],
    ["target", target.bitsPerByte.model],
  ].filter((entry): entry is [string, number] => entry[1] !== null);
  if (measured.length === 0) return undefined;
  return barPlot({
    id: "bits",
    title: "Held-out bits per byte",
    description: `Fewer is better. ${measured.map(([name, value]) => `${name}: ${value.toFixed(3)}`).join("; ")}.`,
    categories: measured.map(([name]) => name),
    series: [{ name: "bits per byte", values: measured.map(([, value]) => value) }],
    valueLabel: "bits per byte of held-out declarations (fewer is better)",
    format: (value) => value.toFixed(3),
    ...style,
  });
}
