/**
 * Plain against speculative decoding on the held-out prompts: counts, seconds and proof that not one token changed.
 *
 * Counts come from the reports of `generate` and are the same on every machine. Seconds are measured interleaved (each
 * repetition runs every setting once, in turning order), so that a machine that slows down slows all of them down; per
 * prompt and setting the median of the repetitions counts, and only ratios of their sums are reported:
 *
 *     seconds ratio = sum over prompts of median seconds, plain  /  the same, speculative
 *
 * The comparison with plain decoding is made on every prompt, for every setting, token by token.
 */
import { setImmediate } from "node:timers/promises";
import { authoredPieces, type Piece, runToEnd, sameTokens } from "../cli/generated-text.ts";
import type { HeldOutPrompt } from "../held-out-prompts.ts";
import { addCosts, type LanguageModel } from "../model/language-model.ts";
import {
  ChainDrafter,
  type GenerateOptions,
  generate,
  type PositionCounts,
  type Report,
} from "../speculative/index.ts";
import type { Tokenizer } from "../tokenization/index.ts";

/** One setting on one prompt. */
export interface PromptFigures {
  readonly tokens: number;
  readonly targetPasses: number;
  readonly tokensPerPass: number;
  /** Plain decoding's seconds over this setting's. */
  readonly secondsRatio: number;
  readonly identical: boolean;
}

/** One number of guesses per pass, over all prompts. */
export interface GammaFigures {
  readonly gamma: number;
  readonly tokens: number;
  readonly targetPasses: number;
  /** All tokens over all target passes. */
  readonly tokensPerPass: number;
  readonly draftPasses: number;
  readonly drafted: number;
  readonly accepted: number;
  /** Summed over the prompts; see `PositionCounts`. */
  readonly positions: readonly PositionCounts[];
  /** Multiply-adds of target and draft, over plain decoding's. */
  readonly multiplyAddsRatio: number;
  readonly secondsRatio: number;
  /** Every prompt's tokens equal plain decoding's. */
  readonly identical: boolean;
  /** In the order of the prompts. */
  readonly prompts: readonly PromptFigures[];
}

export interface SpeculationFigures {
  readonly maxTokens: number;
  readonly repetitions: number;
  readonly prompts: readonly HeldOutPrompt[];
  readonly plain: {
    readonly tokens: number;
    readonly targetPasses: number;
    readonly multiplyAdds: number;
    /** Sum over prompts of the median. This machine's, in this run: for ratios only. */
    readonly seconds: number;
  };
  readonly byGamma: readonly GammaFigures[];
  /** The gamma with the best seconds ratio of this run. */
  readonly fastestGamma: number;
  /** One completion, cut by author. */
  readonly completion: { readonly gamma: number; readonly prompt: HeldOutPrompt; readonly pieces: readonly Piece[] };
  /** One run that draws by chance. */
  readonly sampled: {
    readonly gamma: number;
    readonly temperature: number;
    readonly seed: number;
    readonly prompt: HeldOutPrompt;
    readonly tokens: number;
    readonly targetPasses: number;
    readonly tokensPerPass: number;
    readonly pieces: readonly Piece[];
  };
}

export interface SpeculationOptions {
  readonly target: LanguageModel;
  readonly draft: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly prompts: readonly HeldOutPrompt[];
  /** Tokens that end a text. Default none. */
  readonly stopTokens?: readonly number[];
  /** Default 1 to 6. */
  readonly gammas?: readonly number[];
  /** Tokens per completion. Default 48. */
  readonly maxTokens?: number;
  /** Timed runs of each setting. Default 3. */
  readonly repetitions?: number;
  /** Index of the prompt whose completion is shown. Default 0. */
  readonly shownPrompt?: number;
  /** Gamma of the completion that is shown and of the sampled run. Default 4, or the nearest to it. */
  readonly shownGamma?: number;
  /** Called after each run. */
  readonly onRun?: (done: number, total: number) => void;
}

export async function measureSpeculation(options: SpeculationOptions): Promise<SpeculationFigures> {
  const { target, draft, tokenizer, prompts, stopTokens = [], onRun = () => {} } = options;
  const { gammas = [1, 2, 3, 4, 5, 6], maxTokens = 48, repetitions = 3, shownPrompt = 0 } = options;
  const shownGamma = options.shownGamma ?? gammas.reduce((a, b) => (Math.abs(b - 4) < Math.abs(a - 4) ? b : a));
  const encoded = prompts.map(({ text }) => Array.from(tokenizer.encode(text, { disallowedSpecial: [] })));
  const common: GenerateOptions = { maxTokens, stopTokens };
  // Setting 0 is plain decoding.
  const settings: GenerateOptions[] = [
    common,
    ...gammas.map((gamma) => ({ ...common, drafter: new ChainDrafter(draft, { gamma }) })),
  ];

  for (const setting of settings) {
    // Warm-up: shapes met for the first time cost more than they ever will again.
    runToEnd(generate(target, encoded[0]!, { ...setting, maxTokens: Math.min(maxTokens, 12) }));
  }
  const total = repetitions * prompts.length * settings.length;
  let done = 0;
  const reports: Report[][] = prompts.map(() => []);
  const seconds: number[][][] = prompts.map(() => settings.map(() => []));
  for (let repetition = 0; repetition < repetitions; repetition++) {
    for (const [p, prompt] of encoded.entries()) {
      for (let i = 0; i < settings.length; i++) {
        const s = (i + p + repetition) % settings.length;
        const started = performance.now();
        const { report } = runToEnd(generate(target, prompt, settings[s]!));
        seconds[p]![s]!.push((performance.now() - started) / 1000);
        reports[p]![s] ??= report;
        // Every run counts for the proof, not only the first.
        if (!sameTokens(report.tokens, reports[p]![s]!.tokens)) reports[p]![s] = report;
        onRun(++done, total);
        await setImmediate();
      }
    }
  }

  const medians = seconds.map((bySetting) => bySetting.map(median));
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const plainReports = reports.map((bySetting) => bySetting[0]!);
  const plainSeconds = sum(medians.map((bySetting) => bySetting[0]!));
  const plainMultiplyAdds = sum(plainReports.map(multiplyAdds));
  const byGamma = gammas.map((gamma, g): GammaFigures => {
    const own = reports.map((bySetting) => bySetting[g + 1]!);
    const perPrompt = own.map(({ tokens, targetPasses, tokensPerPass }, p) => ({
      tokens: tokens.length,
      targetPasses,
      tokensPerPass,
      secondsRatio: medians[p]![0]! / medians[p]![g + 1]!,
      identical: sameTokens(tokens, plainReports[p]!.tokens),
    }));
    const [tokens, targetPasses] = [sum(own.map((r) => r.tokens.length)), sum(own.map((r) => r.targetPasses))];
    return {
      gamma,
      tokens,
      targetPasses,
      tokensPerPass: tokens / targetPasses,
      draftPasses: sum(own.map((r) => r.cost.draft.passes)),
      drafted: sum(own.map((r) => r.drafted)),
      accepted: sum(own.map((r) => r.accepted)),
      positions: Array.from({ length: gamma }, (_, d) => ({
        offered: sum(own.map((r) => r.positions[d]?.offered ?? 0)),
        tested: sum(own.map((r) => r.positions[d]?.tested ?? 0)),
        accepted: sum(own.map((r) => r.positions[d]?.accepted ?? 0)),
      })),
      multiplyAddsRatio: sum(own.map(multiplyAdds)) / plainMultiplyAdds,
      secondsRatio: plainSeconds / sum(medians.map((bySetting) => bySetting[g + 1]!)),
      identical: perPrompt.every(({ identical }) => identical),
      prompts: perPrompt,
    };
  });

  const drafter = new ChainDrafter(draft, { gamma: shownGamma });
  const shown = runToEnd(generate(target, encoded[shownPrompt]!, { ...common, drafter }));
  const sampling = { temperature: 0.8, seed: 1 };
  const drawn = runToEnd(generate(target, encoded[shownPrompt]!, { ...common, drafter, ...sampling }));
  return {
    maxTokens,
    repetitions,
    prompts,
    plain: {
      tokens: sum(plainReports.map((r) => r.tokens.length)),
      targetPasses: sum(plainReports.map((r) => r.targetPasses)),
      multiplyAdds: plainMultiplyAdds,
      seconds: plainSeconds,
    },
    byGamma,
    fastestGamma: byGamma.reduce((a, b) => (b.secondsRatio > a.secondsRatio ? b : a)).gamma,
    completion: {
      gamma: shownGamma,
      prompt: prompts[shownPrompt]!,
      pieces: authoredPieces(tokenizer, shown.steps),
    },
    sampled: {
      gamma: shownGamma,
      ...sampling,
      prompt: prompts[shownPrompt]!,
      tokens: drawn.report.tokens.length,
      targetPasses: drawn.report.targetPasses,
      tokensPerPass: drawn.report.tokensPerPass,
      pieces: authoredPieces(tokenizer, drawn.steps),
    },
  };
}

/** Of the passes that generated: the target's pass over the prompt is the same in every setting and left out. */
function multiplyAdds({ cost }: Report): number {
  return addCosts(cost.target, cost.draft).multiplyAdds;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
