import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError, ContextOverflowError } from "../../src/errors.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { TableModel, type TableSession } from "../../src/model/table-model.ts";
import type { Drafter, GenerateOptions, Generation, Report, Step, Verifier } from "../../src/speculative/index.ts";
import {
  ChainDrafter,
  chainDraft,
  generate,
  generateAll,
  plainDecoding,
  randomDrafter,
  recursiveRejectionSampling,
  rootDraft,
} from "../../src/speculative/index.ts";

/** Runs to the end without waiting. */
function run(model: LanguageModel, prompt: readonly number[], options: GenerateOptions = {}) {
  const generation = generate(model, prompt, options);
  const steps: Step[] = [];
  for (let step = generation.step(); step !== undefined; step = generation.step()) steps.push(step);
  return { steps, report: generation.report };
}

/** The oracle of temperature 0: arg-max after arg-max, looked up in the table, no session and no loop of ours. */
function greedy(model: TableModel, prompt: readonly number[], count: number): number[] {
  const text = prompt.slice();
  while (text.length < prompt.length + count) {
    const logits = model.logits(text);
    text.push(logits.indexOf(Math.max(...logits)));
  }
  return text.slice(prompt.length);
}

/** A model that remembers every session it opened. */
function spied(model: TableModel) {
  const sessions: TableSession[] = [];
  const spy: LanguageModel = {
    vocabularySize: model.vocabularySize,
    contextLength: model.contextLength,
    openSession() {
      const session = model.openSession();
      sessions.push(session);
      return session;
    },
  };
  return { model: spy, sessions };
}

const vocabularySize = 6;
const contextLength = 64;
const target = TableModel.random({ vocabularySize, contextLength, order: 2, seed: "t", sharpness: 2 });
const stranger = TableModel.random({ vocabularySize, contextLength, order: 1, seed: "s", sharpness: 2 });
/** Often right: the target's own law, mixed with a stranger's. */
const kindred = new TableModel({
  vocabularySize,
  contextLength,
  order: 2,
  law: (context) => target.law(context).map((p, i) => 0.6 * p + 0.4 * stranger.law(context)[i]!),
});
/** Always wrong at temperature 0: it is sure of the token after the target's arg-max. */
const contrary = new TableModel({
  vocabularySize,
  contextLength,
  order: 2,
  law: (context) => {
    const logits = target.logits(context);
    const wrong = (logits.indexOf(Math.max(...logits)) + 1) % vocabularySize;
    return Array.from(logits, (_, i) => (i === wrong ? 1 : 0));
  },
});
const drafts = {
  "the target itself": target,
  "a kindred draft": kindred,
  "an unlike draft": stranger,
  "a contrary draft": contrary,
};

describe("temperature 0", () => {
  for (const [name, draft] of Object.entries(drafts)) {
    it(`equals plain decoding with ${name}, gamma 0 to 8`, () => {
      for (let gamma = 0; gamma <= 8; gamma++) {
        const drafter = new ChainDrafter(draft, { gamma });
        for (const prompt of [[0], [5, 3], [1, 2, 3, 4, 5]]) {
          for (const maxTokens of [1, 2, 8, 9, 10, 40]) {
            const { report } = run(target, prompt, { drafter, maxTokens, seed: gamma });
            expect(report.tokens, `gamma ${gamma}, prompt [${prompt}]`).toEqual(greedy(target, prompt, maxTokens));
            expect(report.finish).toEqual({ kind: "length" });
            const plain = run(target, prompt, { maxTokens }).report;
            expect(report.tokens).toEqual(plain.tokens);
            if (draft === target) expect(report.targetPasses).toBe(Math.ceil(maxTokens / (gamma + 1)));
            if (draft === contrary) expect([report.accepted, report.targetPasses]).toEqual([0, maxTokens]);
          }
        }
      }
    });
  }

  it("equals plain decoding for any pair of tables, and no seed changes it", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 0, max: 2 }),
        fc.string(),
        fc.integer({ min: 0, max: 8 }),
        fc.array(fc.nat(), { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 30 }),
        (size, order, seed, gamma, numbers, maxTokens) => {
          const model = TableModel.random({ vocabularySize: size, order, seed: `${seed} target` });
          const draft = TableModel.random({ vocabularySize: size, order: 1, seed: `${seed} draft` });
          const prompt = numbers.map((n) => n % size);
          for (const drafter of [new ChainDrafter(draft, { gamma }), randomDrafter({ gamma }), plainDecoding]) {
            for (const other of [0, seed]) {
              const { report } = run(model, prompt, { drafter, maxTokens, seed: other });
              expect(report.tokens).toEqual(greedy(model, prompt, maxTokens));
            }
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it("stays exact when the draft alone is hot, and gains passes from a kindred draft", () => {
    const hot = new ChainDrafter(kindred, { gamma: 4, sampling: { temperature: 1.5 } });
    expect(run(target, [0], { drafter: hot, maxTokens: 50 }).report.tokens).toEqual(greedy(target, [0], 50));
    const drafter = new ChainDrafter(kindred, { gamma: 4 });
    expect(run(target, [0], { drafter, maxTokens: 50 }).report.tokensPerPass).toBeGreaterThan(1.3);
  });
});

describe("the caches", () => {
  it("hold exactly the text without the pending token after every step, target and draft alike", () => {
    const models = fc.constantFrom(...Object.values(drafts));
    fc.assert(
      fc.property(
        models,
        fc.integer({ min: 0, max: 8 }),
        fc.constantFrom(0, 0.7, 1.5),
        fc.nat(),
        fc.array(fc.nat(vocabularySize - 1), { minLength: 1, maxLength: 70 }).filter((p) => p.length <= contextLength),
        fc.array(fc.nat(vocabularySize - 1), { maxLength: 1 }),
        (draft, gamma, temperature, seed, prompt, stopTokens) => {
          const ofTarget = spied(target);
          const ofDraft = spied(draft);
          const drafter = new ChainDrafter(ofDraft.model, { gamma });
          const generation = generate(ofTarget.model, prompt, { drafter, temperature, seed, stopTokens });
          const text = prompt.slice();
          let fed = 0;
          for (let step = generation.step(); step !== undefined; step = generation.step()) {
            text.push(...step.tokens);
            const [targetSession] = ofTarget.sessions;
            const [draftSession] = ofDraft.sessions;
            expect(targetSession!.committed).toEqual(text.slice(0, -1));
            const guesses = step.draft.tokens.length - 1;
            // With every guess accepted, the last one was never fed to the draft model; else it is level with the target.
            const allAccepted = guesses > 0 && step.path.length - 1 === guesses;
            if (guesses > 0) fed = text.length - (allAccepted ? 2 : 1);
            expect(draftSession!.committed).toEqual(text.slice(0, fed));
          }
          expect([ofTarget.sessions.length, ofDraft.sessions.length]).toEqual([1, 1]);
          expect(() => ofTarget.sessions[0]!.truncate(0), "closed").toThrow();
          expect(() => ofDraft.sessions[0]!.truncate(0), "closed").toThrow();
        },
      ),
    );
  });
});

describe("the report", () => {
  /** Every identity the documentation states. */
  function expectCountsAddUp(report: Report, steps: readonly Step[], promptLength: number): void {
    const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
    expect(report.targetPasses).toBe(steps.length);
    expect(report.tokens).toEqual(steps.flatMap((step) => step.tokens));
    expect(report.tokens.length).toBe(report.accepted + report.targetPasses - report.discarded);
    expect(report.tokensPerPass).toBe(report.tokens.length / report.targetPasses);
    expect(report.drafted).toBe(sum(steps.map((step) => step.draft.tokens.length - 1)));
    expect(report.drafted).toBe(sum(report.positions.map(({ offered }) => offered)));
    expect(report.accepted).toBe(sum(report.positions.map(({ accepted }) => accepted)));
    report.positions.forEach(({ offered, tested, accepted }, i) => {
      expect(offered).toBeGreaterThanOrEqual(tested);
      expect(tested).toBeGreaterThanOrEqual(accepted);
      expect(offered).toBe(steps.filter((step) => step.draft.tokens.length > i + 1).length);
      if (i === 0) expect(tested).toBe(offered);
      else expect(tested).toBeLessThanOrEqual(report.positions[i - 1]!.accepted);
    });
    const { prefill, target: scored, draft } = report.cost;
    expect([prefill.passes, prefill.tokens]).toEqual([promptLength > 1 ? 1 : 0, promptLength - 1]);
    expect([scored.passes, scored.tokens]).toEqual([report.targetPasses, report.drafted + report.targetPasses]);
    expect(draft.passes).toBe(report.drafted);
  }

  it("adds up for any draft, gamma, temperature, limit and stop token", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Object.values(drafts)),
        fc.integer({ min: 0, max: 8 }),
        fc.constantFrom(0, 1),
        fc.nat(),
        fc.integer({ min: 1, max: 70 }),
        fc.array(fc.nat(vocabularySize - 1), { maxLength: 1 }),
        fc.integer({ min: 1, max: 5 }),
        (draft, gamma, temperature, seed, maxTokens, stopTokens, promptLength) => {
          const prompt = Array.from({ length: promptLength }, (_, i) => i);
          const drafter = new ChainDrafter(draft, { gamma });
          const { steps, report } = run(target, prompt, { drafter, temperature, seed, maxTokens, stopTokens });
          expectCountsAddUp(report, steps, promptLength);
          // Never a guess too many: what is left to generate, less the token every pass gives.
          let left = Math.min(maxTokens, contextLength - promptLength + 1);
          for (const { draft: tree, tokens } of steps) {
            expect(tree.tokens.length - 1).toBeLessThanOrEqual(Math.min(gamma, left - 1));
            left -= tokens.length;
          }
          if (report.finish.kind === "length") expect(report.tokens.length).toBe(maxTokens);
        },
      ),
    );
  });

  it("can be checked by hand: draft equal to target, gamma 3, 10 tokens", () => {
    const { report } = run(target, [0, 1], { drafter: new ChainDrafter(target, { gamma: 3 }), maxTokens: 10 });
    // Passes give 4 + 4 + 2 tokens: the last one drafts a single guess, since only two tokens are left.
    expect(report).toMatchObject({ targetPasses: 3, drafted: 7, accepted: 7, discarded: 0, tokensPerPass: 10 / 3 });
    expect(report.positions).toEqual([
      { offered: 3, tested: 3, accepted: 3 },
      { offered: 2, tested: 2, accepted: 2 },
      { offered: 2, tested: 2, accepted: 2 },
    ]);
    // Draft passes: prompt and pending (2 tokens), 1, 1; then missed guess and pending (2), 1, 1; then 2.
    expect(report.cost.draft).toMatchObject({ passes: 7, tokens: 10 });
    expect(report.cost.target).toMatchObject({ passes: 3, tokens: 10 });
    expect(report.cost.prefill).toMatchObject({ passes: 1, tokens: 1 });
  });

  it("is readable at any time, as a snapshot", () => {
    const generation = generate(target, [0], { drafter: new ChainDrafter(target, { gamma: 1 }), maxTokens: 4 });
    const before = generation.report;
    expect(before).toMatchObject({ tokens: [], finish: { kind: "unfinished" }, targetPasses: 0, tokensPerPass: 0 });
    generation.step();
    const during = generation.report;
    expect(during.tokens).toHaveLength(2);
    generation.step();
    expect(during.tokens).toHaveLength(2);
    expect(during.positions).toEqual([{ offered: 1, tested: 1, accepted: 1 }]);
    expect(before.tokens).toEqual([]);
    expect(generation.report.finish).toEqual({ kind: "length" });
    expect(generation.step()).toBeUndefined();
  });
});

describe("the end", () => {
  // 0 1 2 3 4 5 0 1 2 ... with certainty.
  const cycle = new TableModel({
    vocabularySize,
    contextLength: 20,
    law: ([t = 5]) => Array.from({ length: vocabularySize }, (_, i) => (i === (t + 1) % vocabularySize ? 1 : 0)),
  });

  it("stops at a stop token, inside an accepted path too, and throws the rest away", () => {
    for (let gamma = 0; gamma <= 8; gamma++) {
      const ofTarget = spied(cycle);
      const drafter = new ChainDrafter(cycle, { gamma });
      const { report, steps } = run(ofTarget.model, [0], { drafter, stopTokens: [4], temperature: gamma % 2 });
      expect(report.tokens).toEqual([1, 2, 3, 4]);
      expect(report.finish).toEqual({ kind: "stop", token: 4 });
      const passes = Math.ceil(4 / (gamma + 1));
      expect(report.targetPasses).toBe(passes);
      expect(report.discarded).toBe(passes * (gamma + 1) - 4);
      expect(ofTarget.sessions[0]!.committed).toEqual([0, 1, 2, 3]);
      expect(steps.at(-1)!.tokens.at(-1)).toBe(4);
    }
  });

  it("stops at the first of several, and a stop token in the prompt ends nothing", () => {
    const options = { drafter: new ChainDrafter(cycle, { gamma: 5 }), stopTokens: new Set([5, 3]) };
    expect(run(cycle, [3], options).report.tokens).toEqual([4, 5]);
  });

  it("ends when the context is full, at the same token for every gamma", () => {
    for (let gamma = 0; gamma <= 8; gamma++) {
      const drafter = new ChainDrafter(cycle, { gamma });
      const { report } = run(cycle, [0, 1, 2, 3], { drafter });
      // 20 positions: 4 of the prompt, 16 generated tokens fed back, and the 17th is told by the last position.
      expect(report.tokens).toHaveLength(17);
      expect(report.tokens.slice(0, 4)).toEqual([4, 5, 0, 1]);
      expect(report.finish).toEqual({ kind: "context" });
      expect(run(cycle, [0, 1, 2, 3], { drafter: randomDrafter({ gamma }) }).report.tokens).toEqual(report.tokens);
    }
    const full = Array.from({ length: 20 }, (_, i) => i % vocabularySize);
    const { report } = run(cycle, full, { drafter: new ChainDrafter(cycle), maxTokens: 5 });
    expect(report).toMatchObject({ tokens: [2], finish: { kind: "context" }, drafted: 0 });
    expect(run(cycle, full, { maxTokens: 1 }).report.finish).toEqual({ kind: "length" });
  });

  it("goes on plainly where the draft model's context ends before the target's", () => {
    const short = new TableModel({ vocabularySize, contextLength: 8, law: ([t = 5]) => cycle.law([t]) });
    const { report, steps } = run(cycle, [0, 1, 2], { drafter: new ChainDrafter(short, { gamma: 3 }) });
    expect(report.tokens).toEqual(greedy(cycle, [0, 1, 2], 18));
    expect(steps[0]!.draft.tokens).toHaveLength(4);
    expect(steps.at(-1)!.draft.tokens).toHaveLength(1);
    expect(
      run(cycle, Array.from(steps[0]!.draft.tokens).concat(0, 0, 0, 0, 0), { drafter: new ChainDrafter(short) }).report
        .drafted,
    ).toBe(0);
  });

  it("obeys an abort signal, before the first step or between steps, and keeps what there is", async () => {
    const early = spied(cycle);
    const never = generate(early.model, [0], { signal: AbortSignal.abort("before") });
    expect(never.step()).toBeUndefined();
    expect(never.report).toMatchObject({ tokens: [], finish: { kind: "aborted", reason: "before" } });
    expect(early.sessions).toHaveLength(0);

    const late = spied(cycle);
    const controller = new AbortController();
    const generation = generate(late.model, [0], { signal: controller.signal });
    for await (const step of generation) if (step.tokens[0] === 3) controller.abort("enough");
    expect(generation.report).toMatchObject({ tokens: [1, 2, 3], finish: { kind: "aborted", reason: "enough" } });
    expect(() => late.sessions[0]!.extend([0])).toThrow(/closed/);
  });

  it("lets other work run between steps, so that a timer can abort it", async () => {
    const controller = new AbortController();
    const generation = generate(cycle, [0], { signal: controller.signal });
    setImmediate(() => controller.abort());
    for await (const _ of generation);
    expect(generation.report.finish.kind).toBe("aborted");
    expect(generation.report.tokens.length).toBeLessThan(5);
  });

  it("gives the sessions back when the loop is left, when closed, and when something throws", async () => {
    const left = spied(cycle);
    const leaving = generate(left.model, [0], { drafter: new ChainDrafter(left.model) });
    for await (const _ of leaving) break;
    expect(leaving.report.finish).toEqual({ kind: "aborted", reason: "closed" });
    expect(left.sessions).toHaveLength(2);
    for (const session of left.sessions) expect(() => session.truncate(0)).toThrow(/closed/);
    expect(leaving.step()).toBeUndefined();

    const failing = spied(cycle);
    const bug = new Error("a bug");
    const verifier: Verifier = {
      verify(verification) {
        if (verification.draft.tokens[0] === 2) throw bug;
        return recursiveRejectionSampling.verify(verification);
      },
    };
    const generation = generate(failing.model, [0], { verifier });
    expect([generation.step()?.tokens, generation.step()?.tokens]).toEqual([[1], [2]]);
    expect(() => generation.step()).toThrow(bug);
    expect(generation.report).toMatchObject({ tokens: [1, 2], finish: { kind: "failed", error: bug } });
    expect(() => failing.sessions[0]!.truncate(0)).toThrow(/closed/);
    generation.close();
    expect(generation.report.finish.kind).toBe("failed");

    const unopened = spied(cycle);
    const drafter: Drafter = {
      ...plainDecoding,
      open() {
        throw bug;
      },
    };
    expect(() => generate(unopened.model, [0, 1], { drafter }).step()).toThrow(bug);
    expect(() => unopened.sessions[0]!.truncate(0)).toThrow(/closed/);
  });
});

describe("chance", () => {
  const drafter = new ChainDrafter(kindred, { gamma: 3 });
  const options = { drafter, temperature: 1.2, maxTokens: 30 };
  const finish = (generation: Generation) => {
    while (generation.step() !== undefined);
    return generation.report;
  };

  it("gives the same result for the same seed, another for another, one object or fresh ones", async () => {
    const first = finish(generate(target, [1], { ...options, seed: 5 }));
    expect(finish(generate(target, [1], { ...options, seed: 5 }))).toEqual(first);
    expect(await generateAll(target, [1], { ...options, seed: 5 })).toEqual(first);
    const fresh = new ChainDrafter(kindred, { gamma: 3 });
    expect(finish(generate(target, [1], { ...options, drafter: fresh, seed: 5 }))).toEqual(first);
    drafter.reset();
    expect(finish(generate(target, [1], { ...options, seed: 5 }))).toEqual(first);
    expect(finish(generate(target, [1], { ...options, seed: 6 })).tokens).not.toEqual(first.tokens);
    expect(finish(generate(target, [1], options))).toEqual(finish(generate(target, [1], { ...options, seed: 0 })));
  });

  it("keeps interleaved generations apart, even with one drafter between them", () => {
    const alone = [1, 2, 3].map((seed) => finish(generate(target, [seed], { ...options, seed })));
    const together = [1, 2, 3].map((seed) => generate(target, [seed], { ...options, seed }));
    for (let going = true; going; )
      going = together.map((generation) => generation.step()).some((s) => s !== undefined);
    expect(together.map((generation) => generation.report)).toEqual(alone);
  });

  it("reads the prompt at the call, and leaves it alone", () => {
    const prompt = Int32Array.of(0, 1, 2);
    const generation = generate(target, prompt, { maxTokens: 5 });
    prompt.fill(5);
    expect(finish(generation).tokens).toEqual(greedy(target, [0, 1, 2], 5));
    expect(Array.from(prompt)).toEqual([5, 5, 5]);
  });
});

describe("bad input", () => {
  it("is refused at the call, by name", () => {
    const cases: [string, readonly number[], GenerateOptions][] = [
      ["prompt", [], {}],
      ["prompt[1]", [0, vocabularySize], {}],
      ["prompt[0]", [-1], {}],
      ["prompt[0]", [0.5], {}],
      ["maxTokens", [0], { maxTokens: 0 }],
      ["maxTokens", [0], { maxTokens: 1.5 }],
      ["maxTokens", [0], { maxTokens: Number.NaN }],
      ["stopTokens[0]", [0], { stopTokens: [vocabularySize] }],
      ["temperature", [0], { temperature: -1 }],
      ["topK", [0], { topK: 0 }],
      ["topP", [0], { topP: 0 }],
      ["topP", [0], { topP: 1.1 }],
      ["seed", [0], { seed: Number.NaN }],
      ["drafter", [0], { drafter: new ChainDrafter(TableModel.fromRows([[1, 1]])) }],
    ];
    for (const [argument, prompt, options] of cases) {
      let error: unknown;
      try {
        generate(target, prompt, options);
      } catch (caught) {
        error = caught;
      }
      expect(error, `${argument} ${JSON.stringify(options)}`).toBeInstanceOf(ArgumentError);
      expect(error).toMatchObject({ argument });
    }
    expect(() => generate(target, new Array(contextLength + 1).fill(0))).toThrow(ContextOverflowError);
    for (const gamma of [-1, 1.5, Number.NaN]) {
      expect(() => new ChainDrafter(target, { gamma })).toThrow(ArgumentError);
      expect(() => randomDrafter({ gamma })).toThrow(ArgumentError);
    }
    expect(() => new ChainDrafter(target, { sampling: { topP: 2 } })).toThrow(ArgumentError);
  });

  it("names what is wrong with a draft or a verdict that breaks its contract", () => {
    const law = new Float64Array(vocabularySize).fill(1 / vocabularySize);
    const drafting = (propose: ReturnType<Drafter["open"]>["propose"]): Drafter => ({
      ...plainDecoding,
      open: (start) => ({ ...plainDecoding.open(start), propose }),
    });
    const broken: Record<string, ReturnType<Drafter["open"]>["propose"]> = {
      "draft.tokens": () => ({ tokens: [], parents: [], laws: [] }),
      draft: () => rootDraft(1),
      "draft.parents": () => ({ ...chainDraft(0, [1], [law]), parents: [-1] }),
      "draft.laws": () => chainDraft(0, [1], []),
      "draft.tokens[1]": () => chainDraft(0, [vocabularySize], [law]),
      "draft.parents[1]": () => ({ tokens: [0, 1], parents: [-1, -1], laws: [null, law] }),
      "draft.parents[2]": () => ({ tokens: [0, 1, 1], parents: [-1, 0, 2], laws: [null, law, law] }),
      "draft.laws[1]": () => chainDraft(0, [1], [new Float64Array(2)]),
    };
    for (const [argument, propose] of Object.entries(broken)) {
      const generation = generate(target, [0], { drafter: drafting(propose) });
      expect(() => generation.step(), argument).toThrow(expect.objectContaining({ argument }));
    }
    const deep = drafting(() => chainDraft(0, [1, 1], [law, law]));
    expect(() => generate(target, [0], { drafter: deep, maxTokens: 2 }).step()).toThrow(/depth at most 1/);
    const small = TableModel.random({ vocabularySize, contextLength: 2 });
    expect(() => generate(small, [0], { drafter: deep }).step()).toThrow(/1 to 2 nodes/);

    const verdicts: Record<string, ReturnType<Verifier["verify"]>> = {
      "verdict.path[0]": { kind: "completed", path: [], token: 0 },
      "verdict.path[1]": { kind: "completed", path: [0, 2], token: 0 },
      "verdict.token": { kind: "completed", path: [0], token: vocabularySize },
    };
    for (const [argument, verdict] of Object.entries(verdicts)) {
      const options = {
        drafter: drafting(() => chainDraft(0, [1, 1], [law, law])),
        verifier: { verify: () => verdict },
      };
      expect(() => generate(target, [0], options).step(), argument).toThrow(expect.objectContaining({ argument }));
    }
  });

  it("a model whose logits are NaN is an error, not a token", () => {
    const damaged: LanguageModel = {
      vocabularySize,
      contextLength,
      openSession() {
        const session = target.openSession();
        const { score } = session;
        session.score = (tree) => {
          const pass = score.call(session, tree);
          pass.logits.data.fill(Number.NaN);
          return pass;
        };
        return session;
      },
    };
    expect(() => generate(damaged, [0]).step()).toThrow(/NaN/);
  });
});
