import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { addCosts, row } from "../../src/model/language-model.ts";
import type {
  Draft,
  Drafter,
  Drafting,
  GrowingTree,
  LawCheck,
  LosslessReport,
  StrategyFactory,
  Verifier,
  VerifyLosslessOptions,
} from "../../src/speculative/index.ts";
import {
  ChainDrafter,
  childrenOf,
  ModelDrafter,
  plainDecoding,
  randomDrafter,
  recursiveRejectionSampling,
  residualLaw,
  tokenLaw,
  verifyLossless,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const full = process.env["TOKENTHRIFT_FULL"] !== undefined;
/** What is right must pass at many draws, what is wrong must be found at few. */
const many: VerifyLosslessOptions = { draws: full ? 100_000 : 500 };
const few: VerifyLosslessOptions = { draws: 300, budgets: [4] };

type VerifierBug =
  | "the replacement is drawn from p"
  | "accepts with min(1, q / p)"
  | "the bonus is drawn from the draft's law"
  | "accepts whatever is drafted"
  | "siblings are tested against p, not against what is left of it"
  | "of equal arg-maxes it takes the last"
  | "typical acceptance";

/** Recursive rejection sampling with a mistake in it. */
function wrongVerifier(bug: VerifierBug): Verifier {
  return {
    verify({ draft, logits, sampling, random }) {
      const path = [0];
      for (;;) {
        const node = path.at(-1)!;
        const p = tokenLaw(row(logits, node), sampling);
        if (bug === "of equal arg-maxes it takes the last" && sampling.temperature === 0) {
          const scores = row(logits, node);
          p.fill(0)[scores.lastIndexOf(Math.max(...scores))] = 1;
        }
        const entropy = -p.reduce((sum, x) => sum + x * Math.log(x + 1e-5), 0);
        const children = childrenOf(draft, node);
        if (children.length === 0) {
          const bonus = bug === "the bonus is drawn from the draft's law" && draft.laws[node];
          return { kind: "completed", path, token: random.categorical(bonus || p) };
        }
        let left = p;
        const accepted = children.find((child) => {
          const guess = draft.tokens[child]!;
          const q = draft.laws[child] ?? p.map((_, token) => (token === guess ? 1 : 0));
          const ratio = left[guess]! / q[guess]!;
          const kept =
            bug === "accepts whatever is drafted" ||
            (bug === "typical acceptance"
              ? left[guess]! > Math.min(0.09, 0.3 * Math.exp(-entropy))
              : random.uniform() < (bug === "accepts with min(1, q / p)" ? 1 / ratio : ratio));
          if (!kept && bug !== "siblings are tested against p, not against what is left of it") {
            left = residualLaw(left, q);
          }
          return kept;
        });
        if (accepted === undefined) {
          const law = bug === "the replacement is drawn from p" ? p : left;
          return { kind: "corrected", path, token: random.categorical(law) };
        }
        path.push(accepted);
      }
    },
  };
}

type DrafterBug =
  | "drawn guesses are pruned by their probability"
  | "an arg-max is stated as drawn"
  | "the laws of siblings are not renormalised"
  | "siblings without replacement are stated as with it"
  | "siblings are sorted by probability"
  | "the temperature is forgotten in the stated law";

/** Two children a node, three levels, siblings without replacement; right unless told otherwise. */
class Pairs extends ModelDrafter {
  readonly #bug: DrafterBug | undefined;
  readonly #chosen: boolean;

  constructor(model: LanguageModel, bug?: DrafterBug, chosen = false) {
    super(model);
    this.#bug = bug;
    this.#chosen = chosen;
  }

  protected override grow(tree: GrowingTree): void {
    const bug = this.#bug;
    const pruned = bug === "drawn guesses are pruned by their probability";
    const chances = [1];
    const expand = (node: number): void => {
      if (tree.depths[node] === Math.min(3, tree.maxDepth)) return;
      const law = tree.law(node);
      if (law === null) return;
      let left: Float64Array = law;
      const pair: { token: number; law: Float64Array | null }[] = [];
      for (let sibling = 0; sibling < 2 && left.some((p) => p > 0); sibling++) {
        const best = left.indexOf(Math.max(...left));
        const token = this.#chosen || bug === "an arg-max is stated as drawn" ? best : tree.random.categorical(left);
        let stated: Float64Array | null = this.#chosen ? null : left;
        if (bug === "siblings without replacement are stated as with it") stated = law;
        if (bug === "the laws of siblings are not renormalised") stated = law.map((p, x) => (left[x]! > 0 ? p : 0));
        if (bug === "the temperature is forgotten in the stated law") {
          const hot = tree.law(node, { temperature: 1 })!;
          const rest = hot.map((p, x) => (left[x]! > 0 ? p : 0));
          stated = rest.map((p) => p / rest.reduce((a, b) => a + b, 0));
        }
        pair.push({ token, law: stated });
        const removed = left;
        const mass = left.reduce((sum, p, x) => (x === token ? sum : sum + p), 0);
        left = removed.map((p, x) => (x === token || mass === 0 ? 0 : p / mass));
      }
      if (bug === "siblings are sorted by probability") pair.sort((a, b) => law[b.token]! - law[a.token]!);
      for (const { token, law: stated } of pair) {
        if (tree.room === 0 && !pruned) return;
        const child = tree.add(node, token, stated);
        chances[child] = chances[node]! * law[token]!;
        expand(child);
      }
    };
    expand(0);
    if (!pruned) return;
    const order = chances.map((_, node) => node).sort((a, b) => chances[b]! - chances[a]! || a - b);
    tree.keep(order.slice(0, Math.min(5, tree.maxNodes)));
  }
}

/** A drafter with something about its draftings replaced. */
function changed(drafter: Drafter, change: (drafting: Drafting) => Partial<Drafting>): Drafter {
  return {
    vocabularySize: drafter.vocabularySize,
    reset: () => drafter.reset(),
    open(start) {
      const drafting = drafter.open(start);
      const own: Drafting = {
        get cost() {
          return drafting.cost;
        },
        propose: (context) => drafting.propose(context),
        observe: (pass) => drafting.observe(pass),
        close: () => drafting.close(),
      };
      return Object.defineProperties(own, Object.getOwnPropertyDescriptors(change(drafting)));
    },
  };
}

const failures = ({ checks }: LosslessReport) => checks.filter(({ passed }) => !passed);
const failedRules = (report: LosslessReport) =>
  failures(report).flatMap((check) => (check.kind === "contract" ? [check.rule] : []));
const failedLaws = (report: LosslessReport) =>
  failures(report).filter((check): check is LawCheck => check.kind === "law");

describe("what is lossless passes", () => {
  it.each<[string, StrategyFactory]>([
    ["a chain", (draft) => ({ drafter: new ChainDrafter(draft) })],
    ["an arg-max chain", (draft) => ({ drafter: new ChainDrafter(draft, { sampling: {} }) })],
    ["trees without replacement", (draft) => ({ drafter: new Pairs(draft) })],
    ["chosen trees", (draft) => ({ drafter: new Pairs(draft, undefined, true) })],
  ])(
    "%s",
    async (_, strategy) => {
      const report = await verifyLossless(strategy, many);
      expect(report.kind, report.text).toBe("lossless");
      expect(failures(report)).toEqual([]);
      expect(report.text).toMatch(/^LOSSLESS/);
      expect(report.drafted).toBeGreaterThan(report.accepted);
      expect(report.accepted).toBeGreaterThan(500);
    },
    1_200_000,
  );

  it("and what never guesses is told from it", async () => {
    for (const strategy of [
      () => ({}),
      () => ({ drafter: plainDecoding }),
      () => ({ drafter: randomDrafter({ gamma: 0 }) }),
    ]) {
      const report = await verifyLossless(strategy, { draws: 50, budgets: [4] });
      expect(report).toMatchObject({ kind: "never guessed", drafted: 0, accepted: 0 });
      expect(failures(report)).toEqual([]);
    }
  });
});

describe("what is wrong fails, with the statistic", () => {
  it.each<VerifierBug>([
    "the replacement is drawn from p",
    "accepts with min(1, q / p)",
    "the bonus is drawn from the draft's law",
    "accepts whatever is drafted",
    "siblings are tested against p, not against what is left of it",
    "typical acceptance",
  ])("verifier: %s", async (bug) => {
    const report = await verifyLossless((draft) => ({ drafter: new Pairs(draft), verifier: wrongVerifier(bug) }), few);
    expect(report.kind).toBe("failed");
    const laws = failedLaws(report);
    expect(laws.length).toBeGreaterThan(0);
    const worst = laws.reduce((a, b) => (b.fit!.chiSquare / b.limit > a.fit!.chiSquare / a.limit ? b : a));
    expect(worst.fit!.chiSquare, report.text).toBeGreaterThan(2 * worst.limit);
    expect(worst.fit!.pValue).toBeLessThan(1e-9);
    // The drafts are what they say: the verifier alone is to blame.
    for (const { fit, level } of laws) expect(fit!.proposal!.pValue).toBeGreaterThan(level);
    expect(failedRules(report)).toEqual([]);
    expect(report.text).toMatch(
      /FAIL {2}unlike, temperature 1, .*\n +chi-square \d+\.\d, \d+ degrees of freedom, limit/,
    );
  });

  // Some mistakes are small in the law of the tokens, and plain in that of the guesses.
  it.each<[DrafterBug, number]>([
    ["drawn guesses are pruned by their probability", 1000],
    ["an arg-max is stated as drawn", 300],
    ["the laws of siblings are not renormalised", 300],
    ["siblings without replacement are stated as with it", 300],
    ["siblings are sorted by probability", 300],
    ["the temperature is forgotten in the stated law", 1500],
  ])("drafter: %s, %i draws", async (bug, draws) => {
    const strategy: StrategyFactory = (draft) => ({ drafter: new Pairs(draft, bug) });
    const report = await verifyLossless(strategy, { ...few, draws });
    expect(report.kind).toBe("failed");
    const laws = failedLaws(report);
    const chiSquare = laws.filter(({ fit, limit }) => fit!.chiSquare > limit);
    expect(chiSquare.length, report.text).toBeGreaterThan(0);
    // And the drafter is to blame: its guesses do not come from the laws it states.
    const proposals = laws.filter(({ fit, level }) => fit!.proposal!.pValue < level);
    expect(proposals.length, report.text).toBeGreaterThan(0);
    expect(failedRules(report)).toEqual(bug === "the laws of siblings are not renormalised" ? ["laws"] : []);
  });

  it("at temperature 0, where chance cannot tell: ties broken the other way", async () => {
    const verifier = wrongVerifier("of equal arg-maxes it takes the last");
    const report = await verifyLossless((draft) => ({ drafter: new Pairs(draft), verifier }), few);
    expect(failures(report)).toMatchObject([{ kind: "greedy", pair: "tied" }]);
    const [check] = failures(report);
    if (check?.kind !== "greedy") throw new Error("a greedy check failed");
    expect(check.mismatch!.got).not.toEqual(check.mismatch!.expected);
    expect(report.text).toMatch(/FAIL {2}tied, .*\n +token \d+ is \d, expected \d; budget 4, prompt of/);
  });
});

describe("broken contracts are named", () => {
  const chain = (draft: LanguageModel) => new ChainDrafter(draft);
  const cases: Record<string, [rule: string, violation: RegExp, StrategyFactory]> = {
    "a cache that is not cut after a rejection": [
      "draft cache",
      /the draft model's cache holds \[.+\], the text is \[/,
      (draft) => ({ drafter: changed(chain(draft), () => ({ observe() {} })) }),
    ],
    "more guesses than asked for": [
      "draft",
      /draft.tokens: expected 1 to 2 nodes, got/,
      (draft) => ({
        drafter: changed(chain(draft), (drafting) => ({
          propose: (context) => drafting.propose({ ...context, maxNodes: 5 }),
        })),
      }),
    ],
    "deeper guesses than asked for": [
      "draft",
      /depth at most/,
      (draft) => ({
        drafter: changed(chain(draft), (drafting) => ({
          propose: (context) => drafting.propose({ ...context, maxDepth: 50 }),
        })),
      }),
    ],
    "chance of its own": [
      "seed",
      /a second run took other steps/,
      (draft) => {
        drafters += 1;
        const random = new Random(drafters);
        return {
          drafter: changed(chain(draft), (drafting) => ({
            propose: (context) => drafting.propose({ ...context, random }),
          })),
        };
      },
    ],
    "passes that are not counted": [
      "cost",
      /0 passes stated, \d+ made/,
      (draft) => ({ drafter: changed(chain(draft), () => ({ cost: addCosts() })) }),
    ],
    "a session left open": [
      "sessions",
      /1 of 1 sessions of the draft model were left open/,
      (draft) => ({ drafter: changed(chain(draft), () => ({ close() {} })) }),
    ],
    "a text that is written to": [
      "inputs",
      /propose wrote to context.tokens/,
      () => ({
        drafter: changed(randomDrafter(), (drafting) => ({
          propose(context) {
            const draft = drafting.propose(context);
            (context.tokens as number[])[0] = 0;
            return draft;
          },
        })),
      }),
    ],
    "a draft that is used again": [
      "inputs",
      /the draft of step \d+ was changed after it was given/,
      () => {
        const kept = { tokens: [] as number[], parents: [] as number[], laws: [] as (Float64Array | null)[] };
        return {
          drafter: changed(randomDrafter(), (drafting) => ({
            propose(context): Draft {
              const { tokens, parents, laws } = drafting.propose(context);
              Object.assign(kept, { parents: Array.from(parents), laws: laws.slice() });
              kept.tokens.splice(0, kept.tokens.length, ...Array.from(tokens));
              return kept;
            },
          })),
        };
      },
    ],
    "logits that are written to": [
      "inputs",
      /verify wrote to the draft or the logits/,
      (draft) => ({
        drafter: chain(draft),
        verifier: {
          verify(verification) {
            const verdict = recursiveRejectionSampling.verify(verification);
            verification.logits.data.fill(0);
            return verdict;
          },
        },
      }),
    ],
    "a leaf called a rejection": [
      "verdict",
      /the path ends at a leaf, the verdict says corrected/,
      (draft) => ({
        drafter: chain(draft),
        verifier: { verify: (v) => ({ ...recursiveRejectionSampling.verify(v), kind: "corrected" }) },
      }),
    ],
    "a path that is none": [
      "verdict",
      /verdict.path\[0\]: expected 0/,
      (draft) => ({ drafter: chain(draft), verifier: { verify: () => ({ kind: "completed", path: [1], token: 0 }) } }),
    ],
    "a law that does not give its token": [
      "laws",
      /draft.laws\[1\]: expected a positive probability/,
      () => ({
        drafter: changed(randomDrafter(), (drafting) => ({
          propose(context): Draft {
            const draft = drafting.propose(context);
            const laws = draft.laws.map((law, i) => law?.map((p, x) => (x === draft.tokens[i] ? 0 : p)) ?? null);
            return { ...draft, laws };
          },
        })),
      }),
    ],
    "a bug": [
      "errors",
      /TypeError: not a function/,
      () => ({
        drafter: changed(plainDecoding, () => ({
          propose() {
            throw new TypeError("not a function");
          },
        })),
      }),
    ],
    "a factory that throws": [
      "errors",
      /RangeError: no weights/,
      () => {
        throw new RangeError("no weights");
      },
    ],
    "another vocabulary": [
      "errors",
      /drafter: expected one for the target's vocabulary/,
      () => ({ drafter: { ...plainDecoding, vocabularySize: 5 } }),
    ],
  };
  let drafters = 0;

  it.each(Object.entries(cases))("%s", async (_, [rule, violation, strategy]) => {
    const report = await verifyLossless(strategy, { draws: 50, budgets: [1, 4] });
    expect(report.kind).toBe("failed");
    expect(failedRules(report), report.text).toContain(rule);
    const check = report.checks.find((check) => check.kind === "contract" && check.rule === rule);
    expect(check).toMatchObject({ passed: false, first: expect.stringMatching(violation) });
    expect(report.text).toMatch(violation);
  });
});

describe("the report", () => {
  const strategy: StrategyFactory = (draft) => ({ drafter: new ChainDrafter(draft, { gamma: 2 }) });
  const quick: VerifyLosslessOptions = { draws: 200, budgets: [2] };

  it("is the same for the same seed, another for another", async () => {
    const report = await verifyLossless(strategy, { ...quick, seed: "a" });
    expect(await verifyLossless(strategy, { ...quick, seed: "a" })).toEqual(report);
    expect((await verifyLossless(strategy, { ...quick, seed: "b" })).text).not.toBe(report.text);
  });

  it("sees smaller deviations with more draws, and says so", async () => {
    const [seen, seenWithMore] = await Promise.all(
      [200, 800].map(async (draws) => {
        const { checks } = await verifyLossless(strategy, { ...quick, draws });
        const check = checks.find((check) => check.kind === "law");
        return check?.kind === "law" ? check.detectable : Number.NaN;
      }),
    );
    expect(seenWithMore).toBeLessThan(seen!);
  });

  it("tells how far it is, lets other work run, and can be aborted", async () => {
    const progress: [number, number][] = [];
    let turns = 0;
    const timer = setInterval(() => {
      turns += 1;
    }, 0);
    await verifyLossless(strategy, { ...quick, onProgress: (done, total) => progress.push([done, total]) });
    clearInterval(timer);
    const [, total] = progress[0]!;
    expect(progress).toEqual(Array.from({ length: total + 1 }, (_, done) => [done, total]));
    expect(turns).toBeGreaterThan(5);

    const controller = new AbortController();
    const onProgress = (done: number) => done === 20 && controller.abort(new Error("enough"));
    const { signal } = controller;
    await expect(verifyLossless(strategy, { ...quick, signal, onProgress })).rejects.toThrow("enough");
  });

  it("dresses tables for drafters that tap hidden states", async () => {
    const tapping: StrategyFactory = (draft) => {
      const drafter = changed(new ChainDrafter(draft), (drafting) => ({
        observe(pass) {
          if (pass.taps?.hidden?.[0]?.rows !== pass.draft.tokens.length) throw new Error("no hidden states");
          drafting.observe(pass);
        },
      }));
      return { drafter: { ...drafter, taps: ["hidden"] } };
    };
    const naked = await verifyLossless(tapping, quick);
    expect(naked.kind).toBe("failed");
    expect(naked.text).toMatch(/options.taps: expected none/);

    /** Hidden states: the logits, as probabilities. */
    const dress = (table: LanguageModel): LanguageModel => ({
      vocabularySize: table.vocabularySize,
      contextLength: table.contextLength,
      openSession() {
        const session = table.openSession();
        const extend = session.extend.bind(session);
        const score = session.score.bind(session);
        const states = ({ rows, columns, data }: { rows: number; columns: number; data: Float32Array }) => ({
          hidden: [{ rows, columns, data: data.map(Math.exp) }],
        });
        session.extend = (input) => {
          const pass = extend(input, { logits: "all" });
          return { ...pass, taps: states(pass.logits) };
        };
        session.score = (tree) => {
          const pass = score(tree);
          return { ...pass, taps: states(pass.logits) };
        };
        return session;
      },
    });
    const dressed = await verifyLossless(tapping, { ...quick, dress });
    expect(dressed.kind, dressed.text).toBe("lossless");
  });

  it("refuses options out of range", async () => {
    for (const options of [
      { draws: 0 },
      { draws: 1.5 },
      { budgets: [] },
      { budgets: [-1] },
      { budgets: [0.5] },
      { falseAlarm: 0 },
      { falseAlarm: 1 },
      { seed: Number.NaN },
    ]) {
      await expect(verifyLossless(strategy, options), JSON.stringify(options)).rejects.toThrow(ArgumentError);
    }
  });
});
