/**
 * What every drafter must do, whatever its trees: `describeDrafterConformance(name, strategy, options)`.
 *
 * Each promise is a function that throws where it is broken, so that broken drafters can be shown to break it. Losslessness
 * and the contracts of a step are `verifyLossless`'s to check; what is added here is what a step does not show: corners
 * of sizes and contexts, sequences side by side and one after another, arrays the drafter was only lent.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { LanguageModel, Pass } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Drafter, GenerateOptions, Step, StrategyFactory } from "../../src/speculative/index.ts";
import { generate, generateAll, plainDecoding, verifyLossless } from "../../src/speculative/index.ts";
import { Watch, type WatchedOptions } from "../../src/speculative/watched-generation.ts";

export interface ConformanceOptions {
  /** It never guesses. Default false: it must. */
  readonly idle?: boolean;
  /** What it learns from one sequence changes what it drafts in the next. Default false: then it must not. */
  readonly learns?: boolean;
  /** It runs layers of its own on the target's states: its passes are not those of a draft model. Default false. */
  readonly ownPasses?: boolean;
  /** Makes a table the target it needs, see `verifyLossless`. Default: the table itself. */
  readonly dress?: (table: LanguageModel) => LanguageModel;
}

const full = process.env["TOKENTHRIFT_FULL"] !== undefined;

type Subject = ConformanceOptions & { readonly strategy: StrategyFactory };

const contextLength = 24;
const sizes = { vocabularySize: 5, contextLength };
const target = TableModel.random({ ...sizes, order: 2, seed: "t" });
const stranger = TableModel.random({ ...sizes, order: 1, seed: "s" });
const drafts = {
  equal: target,
  unlike: stranger,
  short: new TableModel({ ...sizes, contextLength: 11, order: 2, law: (context) => target.law(context) }),
};
/** 0 1 2 3 4 0 1 ... with certainty. */
const cycle = new TableModel({
  ...sizes,
  law: ([last = 4]) => Array.from({ length: 5 }, (_, t) => +(t === (last + 1) % 5)),
});
const text = (length: number) => Array.from({ length }, (_, i) => i % 5);

/** A drafter for a pair of tables, and what it was caught at. */
function watched({ strategy, dress }: Subject, table: TableModel, draft: TableModel) {
  const violations: string[] = [];
  const watch = new Watch(table, draft, strategy, (rule, violation) => violations.push(`${rule}: ${violation}`), dress);
  return {
    drafter: watch.drafter,
    open: (prompt: readonly number[], options: WatchedOptions) => watch.generate(prompt, options),
    run(prompt: readonly number[], options: WatchedOptions) {
      const generation = watch.generate(prompt, options);
      const report = generation.finish();
      expect(violations, `prompt [${prompt}], ${JSON.stringify(options)}`).toEqual([]);
      return { steps: generation.steps, report };
    },
    expectNoViolations: () => expect(violations).toEqual([]),
  };
}

/** Sequences to tell drafters apart by. */
const sequences: readonly (readonly [readonly number[], WatchedOptions])[] = [
  [[3, 1, 4, 1], { temperature: 1, seed: 1, maxTokens: 15 }],
  [[0], { temperature: 0.7, seed: 2, maxTokens: 20 }],
  [text(12), { temperature: 1, topK: 3, seed: 3 }],
];

export const promises: Record<string, (subject: Subject) => void | Promise<void>> = {
  "is lossless and keeps the contracts of every step": async ({ strategy, dress, idle }) => {
    const options = { draws: full ? 40_000 : 150, budgets: [1, 2, 7, 64], ...(dress && { dress }) };
    const report = await verifyLossless(strategy, options);
    expect(report.kind, report.text).toBe(idle ? "never guessed" : "lossless");
  },

  "keeps within any number of nodes, any depth, and what the context holds": (subject) => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(drafts)),
        fc.integer({ min: 1, max: contextLength }),
        fc.integer({ min: 0, max: 9 }),
        fc.integer({ min: 1, max: contextLength }),
        fc.constantFrom(0, 0.8),
        (draft, promptLength, budget, maxTokens, temperature) => {
          const { run } = watched(subject, target, draft);
          const { report } = run(text(promptLength), { budget, maxTokens, temperature });
          expect(report.tokens.length).toBe(Math.min(maxTokens, contextLength + 1 - promptLength));
        },
      ),
      { numRuns: 60, seed: 4 },
    );
  },

  "drafts the root alone where no node or no depth is left, and then goes on": (subject) => {
    const { run } = watched(subject, target, target);
    for (const options of [{ budget: 0 }, { maxTokens: 1 }]) {
      const { steps } = run(text(6), options);
      for (const { draft } of steps) expect(draft.tokens.length).toBe(1);
    }
    for (const length of [contextLength, contextLength - 1])
      expect(run(text(length), {}).steps.length).toBeGreaterThan(0);
    const { drafted } = run(text(10), {}).report;
    if (subject.idle) expect(drafted).toBe(0);
    else expect(drafted).toBeGreaterThan(0);
  },

  "stops at end-of-text inside an accepted path": (subject) => {
    const { run } = watched(subject, cycle, cycle);
    let discarded = 0;
    for (const budget of [1, 2, 3, 5, 8, 20]) {
      for (let stop = 0; stop < 5; stop++) {
        for (const temperature of [0, 1]) {
          // The text ends with 4: what follows is 0, 1, .. to the stop token, a lap later at most.
          const { report } = run(text(10), { budget, temperature, seed: stop, stopTokens: [stop] });
          expect(report.tokens).toEqual(text(stop + 1));
          expect(report.finish).toEqual({ kind: "stop", token: stop });
          discarded += report.discarded;
        }
      }
    }
    if (!subject.idle) expect(discarded).toBeGreaterThan(0);
  },

  "drafts alike for one seed, and after a reset as if it were new": (subject) => {
    const all = (of: ReturnType<typeof watched>) => sequences.map(([prompt, options]) => of.run(prompt, options).steps);
    const first = watched(subject, target, stranger);
    const steps = all(first);
    expect(all(watched(subject, target, stranger))).toEqual(steps);
    first.drafter.reset();
    expect(all(first)).toEqual(steps);
  },

  "starts every sequence anew, or learns from the one before where it says so": (subject) => {
    const { run } = watched(subject, target, stranger);
    const [[prompt, options]] = sequences as [(typeof sequences)[number]];
    const first = run(prompt, options).steps;
    run(text(7), { maxTokens: 9 });
    const again = run(prompt, options).steps;
    if (subject.learns) expect(again).not.toEqual(first);
    else expect(again).toEqual(first);
  },

  "keeps interleaved sequences apart": (subject) => {
    const together = (temperature: number) => {
      const { open, expectNoViolations } = watched(subject, target, stranger);
      const generations = sequences.map(([prompt, options]) => open(prompt, { ...options, temperature }));
      for (let going = true; going; ) {
        going = generations.map((generation) => generation.step()).some((step) => step !== undefined);
      }
      expectNoViolations();
      return generations.map(({ steps }) => steps);
    };
    const alone = (temperature: number) =>
      sequences.map(([prompt, options]) => watched(subject, target, stranger).run(prompt, { ...options, temperature }));
    if (!subject.learns) expect(together(1)).toEqual(alone(1).map(({ steps }) => steps));
    const tokens = together(0).map((steps) => steps.flatMap((step) => step.tokens));
    expect(tokens).toEqual(alone(0).map(({ report }) => report.tokens));
  },

  "copies what it keeps: arrays it was lent may change once it has returned": (subject) => {
    const runWith = (wrap: (drafter: Drafter) => Drafter) => {
      const { strategy, dress = (table) => table } = subject;
      const { drafter = plainDecoding, verifier } = strategy(stranger);
      const wrapped = wrap(drafter);
      return sequences.map(([prompt, options]) => {
        const generation = generate(dress(target), prompt, {
          ...options,
          drafter: wrapped,
          ...(verifier && { verifier }),
        });
        const steps: Step[] = [];
        for (let step = generation.step(); step !== undefined; step = generation.step()) steps.push(step);
        return steps;
      });
    };
    expect(runWith(scrambling)).toEqual(runWith((drafter) => drafter));
  },

  "can be closed at any time, twice, and be used again": (subject) => {
    const { open, run, expectNoViolations } = watched(subject, target, stranger);
    for (let steps = 0; steps < 4; steps++) {
      const generation = open(text(5), { temperature: 1, seed: steps });
      for (let i = 0; i < steps; i++) generation.step();
      generation.close();
    }
    expectNoViolations();
    run(text(5), { maxTokens: 5 });
    const { drafter = plainDecoding } = subject.strategy(stranger);
    const drafting = openPlainly(drafter, sizes.vocabularySize);
    drafting.close();
    drafting.close();
  },

  "manages with fewer tokens than siblings: vocabularies of 1, 2 and 3, laws of one token": (subject) => {
    for (const vocabularySize of [1, 2, 3]) {
      const free = TableModel.random({ vocabularySize, contextLength, order: 1, seed: vocabularySize });
      const sure = TableModel.fromRows([Array.from({ length: vocabularySize }, (_, token) => +(token === 0))], {
        contextLength,
      });
      for (const [table, draft] of [
        [free, free],
        [free, sure],
        [sure, free],
        [sure, sure],
      ] as const) {
        const { run } = watched(subject, table, draft);
        for (const temperature of [0, 1]) {
          const { report } = run([0, vocabularySize - 1, 0, vocabularySize - 1], { temperature, maxTokens: 12 });
          expect(report.tokens.length).toBe(12);
        }
      }
    }
  },

  "drafts for its own vocabulary only": (subject) => {
    const { drafter = plainDecoding } = subject.strategy(stranger);
    if (drafter.vocabularySize === null) return;
    expect(drafter.vocabularySize).toBe(sizes.vocabularySize);
    expect(() => openPlainly(drafter, sizes.vocabularySize + 1)).toThrow(ArgumentError);
  },

  "counts no pass of its own where it runs no model, and as many as it makes where it does": async (subject) => {
    // `verifyLossless` sees to it that no pass is missing; here, that none is made up.
    let passes = 0;
    let tokens = 0;
    const counted: LanguageModel = {
      ...sizes,
      openSession() {
        const session = stranger.openSession();
        const close = session.close.bind(session);
        session.close = () => {
          passes += session.cost.passes;
          tokens += session.cost.tokens;
          close();
        };
        return session;
      },
    };
    const { dress = (table: LanguageModel) => table } = subject;
    const strategy = subject.strategy(counted);
    const options: GenerateOptions = { ...strategy, temperature: 1, maxTokens: 12 };
    const { cost } = await generateAll(dress(target), text(6), options);
    if (subject.ownPasses) expect(Math.min(cost.draft.passes, cost.draft.multiplyAdds)).toBeGreaterThan(0);
    else expect(cost.draft).toMatchObject({ passes, tokens });
  },
};

/** Registers every promise as a test of the drafter `strategy` makes. */
export function describeDrafterConformance(
  name: string,
  strategy: StrategyFactory,
  options: ConformanceOptions = {},
): void {
  describe(`${name} is a drafter`, () => {
    for (const [promise, check] of Object.entries(promises)) {
      it(promise, () => check({ strategy, ...options }), full ? 1_200_000 : 60_000);
    }
  });
}

/** A drafting after a prompt of one token, as `generate` opens it. */
function openPlainly(drafter: Drafter, vocabularySize: number) {
  return drafter.open({ prompt: [0], vocabularySize, contextLength, prefill: null });
}

/** The drafter, with everything it is lent made worthless once it has returned. */
function scrambling(drafter: Drafter): Drafter {
  return {
    vocabularySize: drafter.vocabularySize,
    ...(drafter.taps && { taps: drafter.taps }),
    ...(drafter.prefillLogits !== undefined && { prefillLogits: drafter.prefillLogits }),
    reset: () => drafter.reset(),
    open(start) {
      const prompt = start.prompt.slice();
      const drafting = drafter.open({ ...start, prompt });
      prompt.fill(0);
      spoil(start.prefill);
      return {
        get cost() {
          return drafting.cost;
        },
        propose(context) {
          const tokens = context.tokens.slice();
          const draft = drafting.propose({ ...context, tokens });
          tokens.fill(0);
          return draft;
        },
        observe(pass) {
          const path = pass.path.slice();
          const logits = { ...pass.logits, data: pass.logits.data.slice() };
          drafting.observe({ ...pass, path, logits });
          path.fill(0);
          spoil({ ...pass, logits });
        },
        close: () => drafting.close(),
      };
    },
  };
}

/** Logits and tapped values of a pass become worthless. */
function spoil(pass: Pass | null): void {
  pass?.logits.data.fill(Number.NaN);
  for (const { data } of pass?.taps?.hidden ?? []) data.fill(Number.NaN);
}
