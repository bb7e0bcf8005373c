/** What the demo finds out, and how some of it is put in words. */
import type { LanguageFigures } from "./languages.ts";
import type { SpeculationFigures } from "./speculation.ts";
import type { TrainingFigures } from "./training-record.ts";

/** Everything the demo found out: the content of `figures.json`. */
export interface Figures {
  readonly run: {
    readonly tokenthrift: string;
    readonly node: string;
    readonly backend: string;
    readonly processor: string;
    readonly seconds: number;
  };
  readonly models: {
    readonly vocabularySize: number;
    readonly target: TrainingFigures & { readonly parameters: number };
    readonly draft: TrainingFigures & { readonly parameters: number };
  };
  readonly languages: LanguageFigures | { readonly unavailable: string };
  readonly speculation: SpeculationFigures;
}

/** What can honestly be said of one sampled run. */
export function sampledRemark({
  temperature,
  gamma,
  seed,
  tokens,
  targetPasses,
  tokensPerPass,
}: SpeculationFigures["sampled"]): string {
  return (
    `Sampled at temperature ${temperature} (gamma ${gamma}, seed ${seed}): ${tokens} tokens in ${targetPasses} target ` +
    `passes, ${tokensPerPass.toFixed(2)} per pass. One run shows that it works, not that its law is the target's: two ` +
    "samplers agree in law, not token for token. That is proven on a model whose law can be enumerated, in " +
    "test/speculative/speculative-sampling.test.ts."
  );
}

/** `"38 %"`; `"-"` of nothing. */
export function share(part: number, whole: number): string {
  return whole === 0 ? "-" : `${((100 * part) / whole).toFixed(0)} %`;
}
