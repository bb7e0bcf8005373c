/**
 * The speculative family compared: every technique on every set of prompts, at every temperature, with every number of
 * guesses, against plain decoding of the same prompts in the same run.
 *
 * Counts (tokens per pass, acceptance, multiply-adds) are the same on every machine. Seconds are a ratio: before each
 * technique runs, plain decoding does, and the two are as far apart as the machine's mood changes. Both read their prompts
 * anew, so the ratio is that of a whole request.
 *
 * What is learnt is learnt within a row: a drafter starts a row cold, and goes from prompt to prompt as it is.
 */
import type { Technique } from "../catalog.ts";
import { ArgumentError } from "../errors.ts";
import { addCosts, type LanguageModel } from "../model/language-model.ts";
import { type GenerateOptions, generate, type PositionCounts, type Report } from "../speculative/index.ts";

export interface ComparisonOptions {
  readonly target: LanguageModel;
  /** For techniques that draft with a model. */
  readonly draft: LanguageModel;
  /** Techniques of generation, from the catalog. */
  readonly techniques: readonly Technique[];
  /** Token ids of prompts, by the name of their set. */
  readonly promptSets: Readonly<Record<string, readonly (readonly number[])[]>>;
  /** Prompts for techniques that measure before they start; none of those they are measured on. */
  readonly calibration: readonly (readonly number[])[];
  /** Default 0, 0.6 and 1. */
  readonly temperatures?: readonly number[];
  /** Guesses per target pass. Default 4, 8, 16, 32 and 64. */
  readonly budgets?: readonly number[];
  /** Tokens generated after each prompt. Default 48. */
  readonly maxTokens?: number;
  /** Prompt p is sampled with seed `seed + p`. Default 0. */
  readonly seed?: number;
  /** Called after each row. */
  readonly onRow?: (row: ComparisonRow, done: number, total: number) => void;
}

/** One technique with one number of guesses on one set of prompts at one temperature. */
export interface ComparisonRow {
  readonly technique: string;
  readonly promptSet: string;
  readonly temperature: number;
  /** Guesses per target pass it may make. */
  readonly budget: number;
  /** Guesses per target pass it made. */
  readonly guesses: number;
  /** Generated tokens per target pass, the one after each accepted path included: plain decoding has 1. */
  readonly tokensPerPass: number;
  /** Summed over prompts: steps that offered, tested and accepted a guess at depth 1, 2, ... */
  readonly positions: readonly PositionCounts[];
  /** Passes of whatever drafts, its pass over the prompt included, per generated token. */
  readonly draftPassesPerToken: number;
  /** Per generated token; the target's pass over the prompt, which is everyone's, is left out. */
  readonly multiplyAddsPerToken: { readonly target: number; readonly draft: number };
  /** Plain decoding's multiply-adds per generated token on the same prompts. */
  readonly plainMultiplyAddsPerToken: number;
  /** Plain decoding's seconds over this technique's; above 1 is faster. */
  readonly speedup: number;
  /** The rule it was verified by does not keep the target's law. */
  readonly lossy: boolean;
  /** At temperature 0: whether all tokens are plain decoding's. Null when sampling. */
  readonly identical: boolean | null;
}

/**
 * Compare techniques. Rows are grouped by temperature, then technique, then number of guesses; one per set of prompts.
 * @throws ArgumentError on a technique that does not generate
 */
export async function compareSpeculation(options: ComparisonOptions): Promise<ComparisonRow[]> {
  const { target, draft, techniques, promptSets, calibration, onRow } = options;
  const { temperatures = [0, 0.6, 1], budgets = [4, 8, 16, 32, 64], maxTokens = 48, seed = 0 } = options;
  const runs = techniques.map(({ name, run }) => {
    if (run.kind !== "generation") throw new ArgumentError("techniques", "techniques of generation", name);
    return { name, run };
  });
  const total = Object.keys(promptSets).length * temperatures.length * budgets.length * runs.length;
  const rows: ComparisonRow[] = [];
  for (const temperature of temperatures) {
    for (const { name, run } of runs) {
      for (const budget of budgets) {
        const method = await run.method({ gamma: budget, draft, target, sampling: { temperature }, calibration });
        for (const [promptSet, prompts] of Object.entries(promptSets)) {
          const decode = (part: GenerateOptions): { reports: Report[]; seconds: number } => {
            const started = performance.now();
            const reports = prompts.map((prompt, p) => {
              const generation = generate(target, prompt, { ...part, temperature, maxTokens, seed: seed + p });
              while (generation.step() !== undefined);
              return generation.report;
            });
            return { reports, seconds: (performance.now() - started) / 1000 };
          };
          method.drafter?.reset();
          const plain = decode({});
          const own = decode(method);
          rows.push(row({ technique: name, promptSet, temperature, budget }, own, plain));
          onRow?.(rows.at(-1)!, rows.length, total);
          // Lets Ctrl-C and progress have their turn.
          await new Promise((resolve) => setImmediate(resolve));
        }
      }
    }
  }
  return rows;
}

interface Decoded {
  readonly reports: readonly Report[];
  readonly seconds: number;
}

function row(
  what: Pick<ComparisonRow, "technique" | "promptSet" | "temperature" | "budget">,
  { reports, seconds }: Decoded,
  plain: Decoded,
): ComparisonRow {
  const sum = (value: (report: Report) => number): number =>
    reports.reduce((total, report) => total + value(report), 0);
  const [tokens, passes] = [sum((r) => r.tokens.length), sum((r) => r.targetPasses)];
  const [target, draft] = (["target", "draft"] as const).map((who) => addCosts(...reports.map((r) => r.cost[who])));
  const depths = Math.max(0, ...reports.map(({ positions }) => positions.length));
  const plainTokens = plain.reports.reduce((total, r) => total + r.tokens.length, 0);
  return {
    ...what,
    guesses: sum((r) => r.drafted) / passes,
    tokensPerPass: tokens / passes,
    positions: Array.from({ length: depths }, (_, d) => ({
      offered: sum((r) => r.positions[d]?.offered ?? 0),
      tested: sum((r) => r.positions[d]?.tested ?? 0),
      accepted: sum((r) => r.positions[d]?.accepted ?? 0),
    })),
    draftPassesPerToken: draft!.passes / tokens,
    multiplyAddsPerToken: { target: target!.multiplyAdds / tokens, draft: draft!.multiplyAdds / tokens },
    plainMultiplyAddsPerToken: addCosts(...plain.reports.map((r) => r.cost.target)).multiplyAdds / plainTokens,
    speedup: plain.seconds / plainTokens / (seconds / tokens),
    lossy: reports.some(({ lossy }) => lossy),
    identical:
      what.temperature > 0
        ? null
        : reports.every((report, p) => report.tokens.join() === plain.reports[p]!.tokens.join()),
  };
}
