/** Dynamic tokenization's figures as plots. */
import type { DynamicTokenFigures } from "./dynamic-tokens.ts";
import { barPlot, linePlot, type PlotText } from "./plot.ts";

type Style = Pick<PlotText, "standalone">;

/** The three predictors a reader can tell apart: chance, the mean, and the best of the trained and the untrained. */
export function mergingPicture({ merging, prefixTokens }: DynamicTokenFigures, style: Style = {}): string {
  const names = Object.keys(merging);
  const shown = [names.find((name) => name === "random"), "mean of pieces", names.at(-1)].filter(
    (name, i, all): name is string => name !== undefined && merging[name] !== undefined && all.indexOf(name) === i,
  );
  const last = (name: string): string => {
    const { rows, loss } = merging[name]!.at(-1)!;
    return `${name} + ${(100 * loss).toFixed(1)} % at ${(100 * rows).toFixed(0)} % of the rows`;
  };
  return linePlot({
    id: "merging",
    title: "What merged prefixes cost",
    description:
      `Bits per byte of what follows a prefix of ${prefixTokens} tokens, over those behind the unmerged prefix, by the rows ` +
      `merging saves. ${shown.map(last).join("; ")}.`,
    series: shown.map((name) => ({
      name,
      points: merging[name]!.map(({ rows, loss }) => [100 * (1 - rows), 100 * loss] as const),
    })),
    xLabel: "per cent of the prefix's rows saved",
    yLabel: "per cent more bits",
    yFrom: 0,
    ...style,
  });
}

export function cutPromptPicture({ bytes }: DynamicTokenFigures, style: Style = {}): string {
  const { continuations } = bytes;
  const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);
  return barPlot({
    id: "cut-prompts",
    title: "Prompts that end inside a token",
    description: `Bits per byte of the rest of the token: ${continuations
      .map(({ name, inside }) => `${name} ${inside.bitsPerByte.toFixed(2)}`)
      .join("; ")}.`,
    categories: continuations.map(({ name }) => name),
    series: [{ name: "bits per byte", values: continuations.map(({ inside }) => finite(inside.bitsPerByte)) }],
    valueLabel: "bits per byte of the rest of the token (fewer is better)",
    ...style,
  });
}
