import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Drafter } from "../../src/speculative/index.ts";
import {
  ChainDrafter,
  chainDraft,
  chiSquareFit,
  generate,
  JointLaw,
  plainDecoding,
  randomDrafter,
  tokenLaw,
} from "../../src/speculative/index.ts";

const table = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
const draft = TableModel.random({ vocabularySize: 4, order: 1, seed: "draft" });
const drawn = (law: JointLaw, draws: number) => {
  law.draw(draws);
  return law.fit;
};

describe("JointLaw", () => {
  it("counts the continuations that generate gives for the same seeds, in any number of helpings", () => {
    const options = { temperature: 0.7, topK: 3, tokens: 3, seed: "s", drafter: new ChainDrafter(draft) };
    const law = new JointLaw(table, [2, 1], options);
    const counts = new Map<string, number>();
    let passes = 0;
    for (let i = 0; i < 500; i++) {
      const generation = generate(table, [2, 1], { ...options, seed: `s ${i}`, maxTokens: 5 });
      const tokens: number[] = [];
      for (; tokens.length < 3; passes++) tokens.push(...generation.step()!.tokens);
      const key = tokens.slice(0, 3).join();
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    law.draw(100);
    law.draw(400);
    const { fit } = law;
    const cells = table.enumerate([2, 1], 3, (logits) => tokenLaw(logits, { temperature: 0.7, topK: 3 }));
    const expected = cells.map(({ probability }) => 500 * probability);
    const own = chiSquareFit(
      cells.map(({ tokens }) => counts.get(tokens.join()) ?? 0),
      expected,
    );
    expect(fit).toMatchObject({ draws: 500, degrees: own.degrees });
    expect(fit.chiSquare).toBeCloseTo(own.chiSquare, 9);
    expect(fit.worst.observed).toBe(counts.get(fit.worst.tokens.join()));
    expect(fit.tokensPerPass).toBeCloseTo(1 + fit.accepted / passes, 12);
    expect(drawn(new JointLaw(table, [2, 1], options), 500)).toEqual(fit);
    expect(drawn(new JointLaw(table, [2, 1], { ...options, seed: "t" }), 500)).not.toEqual(fit);
  });

  it("names a continuation that cannot happen", () => {
    const sure = TableModel.fromRows([[0, 1, 0, 0]]);
    const rebel: LanguageModel = {
      vocabularySize: 4,
      contextLength: 9,
      openSession: () => table.openSession(),
    };
    const fit = drawn(new JointLaw(sure, [0], { temperature: 1, model: rebel }), 50);
    expect(fit).toMatchObject({ chiSquare: Number.POSITIVE_INFINITY, pValue: 0, worst: { expected: 0 } });
    expect(fit.worst.observed).toBeGreaterThan(0);
    expect(drawn(new JointLaw(sure, [0], { temperature: 1 }), 50)).toMatchObject({
      chiSquare: 0,
      degrees: 0,
      pValue: 1,
    });
  });

  it("finds guesses that do not come from the law they state, though the verifier may hide it from the output", () => {
    const proposal = (drafter: Drafter) => drawn(new JointLaw(table, [0], { temperature: 1, drafter }), 2000).proposal;
    expect(proposal(plainDecoding)).toBeNull();
    expect(proposal(randomDrafter())!.pValue).toBeGreaterThan(0.01);
    expect(proposal(new ChainDrafter(draft))!.pValue).toBeGreaterThan(0.01);
    const uniform = new Float64Array(4).fill(0.25);
    const partial: Drafter = {
      ...plainDecoding,
      open: (start) => ({
        ...plainDecoding.open(start),
        propose: ({ tokens, random }) => chainDraft(tokens.at(-1)!, [random.integer(3)], [uniform]),
      }),
    };
    // Token 3 is promised 2000 / 4 times and never comes: 500 / sqrt(500 * 3/4) standard deviations.
    const fit = proposal(partial)!;
    expect(fit).toMatchObject({ token: 3, observed: 0, expected: 500 });
    expect(fit.z).toBeCloseTo(-500 / Math.sqrt(375), 9);
    expect(fit.pValue).toBeLessThan(1e-100);
  });

  it("is not fooled by guesses that hang together, each drawn from its law", () => {
    // Eight copies of one draw: the surplus of a token is eightfold, and so is its spread.
    const law = Float64Array.of(0.1, 0.2, 0.3, 0.4);
    const copies: Drafter = {
      ...plainDecoding,
      open: (start) => ({
        ...plainDecoding.open(start),
        propose: ({ tokens, random }) => {
          const guess = random.categorical(law);
          return chainDraft(tokens.at(-1)!, new Array(8).fill(guess), new Array(8).fill(law));
        },
      }),
    };
    let alarms = 0;
    for (let seed = 0; seed < 50; seed++) {
      const options = { temperature: 1, drafter: copies, tokens: 1, maxTokens: 9, seed };
      if (drawn(new JointLaw(table, [0], options), 200).proposal!.pValue < 0.05) alarms += 1;
    }
    expect(alarms).toBeLessThanOrEqual(7);
  });

  it("refuses options out of range and prompts without room", () => {
    for (const tokens of [0, 1.5, 9]) expect(() => new JointLaw(table, [0], { tokens })).toThrow(ArgumentError);
    expect(() => new JointLaw(table, [0], { tokens: 3, maxTokens: 2 })).toThrow(ArgumentError);
    expect(() => new JointLaw(table, [0], { temperature: -1 })).toThrow(ArgumentError);
    const short = TableModel.random({ vocabularySize: 4, contextLength: 2 });
    expect(() => new JointLaw(short, [0, 0]).draw(1)).toThrow(/room/);
  });
});
