/** The speculative family's figures as plots. */
import type { ComparisonRow } from "../comparison/speculative.ts";
import { tableOf } from "../comparison/speculative-report.ts";
import type { FamilyFigures } from "./family.ts";
import { panelPlot } from "./panel-plot.ts";
import { linePlot, type PlotText } from "./plot.ts";

type Style = Pick<PlotText, "standalone">;
type Point = readonly [number, number];

export function familyTokensPicture({ tensors }: Pick<FamilyFigures, "tensors">, style: Style = {}): string {
  const { budgets, lines } = tableOf(tensors, ({ tokensPerPass }) => tokensPerPass);
  const best = lines.reduce((a, b) => (b.values.at(-1)! > a.values.at(-1)! ? b : a));
  return panelPlot({
    id: "family-tokens",
    title: "Tokens per target pass, technique by technique",
    description:
      `By guesses per pass, means over the prompt sets, temperature 0. With ${budgets.at(-1)} guesses ${best.technique} ` +
      `reaches most, ${best.values.at(-1)!.toFixed(2)}.`,
    panels: lines.map(({ technique, values }) => ({ name: technique, lines: [points(budgets, values)] })),
    series: ["this technique; the others in grey"],
    xTicks: budgets,
    xLabel: "guesses per target pass",
    yLabel: "tokens per target pass",
    reference: { y: 1, label: "plain decoding" },
    ...style,
  });
}

export function familySpeedPicture(figures: Pick<FamilyFigures, "tensors" | "engine">, style: Style = {}): string {
  const [tensors, engine] = [figures.tensors, figures.engine].map((rows) => tableOf(rows, ({ speedup }) => speedup));
  const most = (rows: readonly ComparisonRow[]): string =>
    tableOf(rows, ({ speedup }) => speedup)
      .lines.flatMap(({ technique, values }) => values.map((value) => ({ technique, value })))
      .reduce((a, b) => (b.value > a.value ? b : a))
      .value.toFixed(2);
  return panelPlot({
    id: "family-speed",
    title: "Seconds, technique by technique",
    description:
      "Plain decoding's seconds over the technique's, by guesses per pass, temperature 0. The best is " +
      `${most(figures.tensors)} on the tensor decoder and ${most(figures.engine)} on the engine.`,
    panels: tensors!.lines.map(({ technique, values }, i) => ({
      name: technique,
      lines: [points(tensors!.budgets, values), points(engine!.budgets, engine!.lines[i]!.values)],
    })),
    series: ["on the tensor decoder", "on the engine"],
    xTicks: tensors!.budgets,
    xLabel: "guesses per target pass",
    yLabel: "times as fast as plain decoding",
    reference: { y: 1, label: "plain decoding" },
    ...style,
  });
}

export function acceptancePicture({ acceptance }: Pick<FamilyFigures, "acceptance">, style: Style = {}): string {
  const { bins, guesses } = acceptance;
  const middle = (i: number): number => Number(((i + 0.5) / bins.length).toFixed(3));
  const rates = bins.flatMap(({ tested, accepted }, i) =>
    tested === 0 ? [] : [[middle(i), accepted / tested] as const],
  );
  return linePlot({
    id: "acceptance",
    title: "How sure guesses fare",
    description:
      `Share of tested guesses that the target kept, by the probability the draft gave them: ${guesses} drawn guesses, ` +
      `temperature 1, in ${bins.length} bins.`,
    series: [
      { name: "kept, of those tested", points: rates },
      { name: "share of all tested", points: bins.map(({ tested }, i) => [middle(i), tested / guesses] as const) },
    ],
    xLabel: "probability the draft gave the guess",
    yLabel: "share",
    yFrom: 0,
    xTicks: [0.1, 0.3, 0.5, 0.7, 0.9],
    ...style,
  });
}

function points(xs: readonly number[], ys: readonly number[]): Point[] {
  return xs.map((x, i) => [x, ys[i]!] as const);
}
