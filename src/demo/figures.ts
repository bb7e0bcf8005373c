/** What the demo finds out, and how some of it is put in words. */
import { type PassCosts, passCost } from "../speculative/pass-costs.ts";
import type { DynamicTokenFigures } from "./dynamic-tokens.ts";
import type { FamilyFigures } from "./family.ts";
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
  /** The same settings and prompts, by what runs the target. The draft runs on the engine both times. */
  readonly speculation: Readonly<Record<TargetRunner, RunnerFigures>>;
  /** Every technique of the family beside the others. */
  readonly family: FamilyFigures;
  /** Merged tokens and cut prompts. */
  readonly dynamicTokens: DynamicTokenFigures | { readonly unavailable: string };
}

/**
 * What runs the target. `"tensors"`: the tensor decoder, which waits longer for each small operation than the arithmetic
 * takes, so that a pass over many tokens costs little more than one over a single token, as where weights have to be
 * fetched first (on a GPU). `"engine"`: the kernels, whose passes cost what their arithmetic costs.
 */
export type TargetRunner = "tensors" | "engine";

export interface RunnerFigures extends SpeculationFigures {
  /** What the target's passes cost by their number of tokens. */
  readonly passCosts: PassCosts;
}

/** Cost of a pass of gamma guesses and the pending token, in passes over one token: what a step's tokens must exceed. */
export function breakEven({ passCosts }: RunnerFigures, gamma: number): number {
  return passCost(passCosts, gamma + 1);
}

/** Why the two runners differ. */
export function runnerRemark(): string {
  return (
    "A step pays when its tokens exceed what its pass costs, in passes over one token, and the drafting. On the tensor " +
    "decoder a pass waits for many small operations and costs nearly the same for one token or several, as on a GPU; on " +
    "the engine a pass costs its arithmetic, and speculation spends more of that."
  );
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

/** How a comparison came out, loud where it must never be overlooked. */
export function yesNo(yes: boolean): string {
  return yes ? "yes" : "NO";
}

/** The table of the fastest gamma, prompt by prompt: a heading row, then one row per prompt. */
export function promptTable({ byGamma, fastestGamma, prompts }: SpeculationFigures): string[][] {
  const fastest = byGamma.find(({ gamma }) => gamma === fastestGamma)!;
  return [
    ["prompt", "file", "tokens", "target passes", "tokens per pass", "seconds ratio", "identical"],
    ...fastest.prompts.map((one, p) => [
      prompts[p]!.kind,
      prompts[p]!.source,
      String(one.tokens),
      String(one.targetPasses),
      one.tokensPerPass.toFixed(2),
      one.secondsRatio.toFixed(2),
      yesNo(one.identical),
    ]),
  ];
}
