import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { TableModel, type TableSession } from "../../src/model/table-model.ts";
import type { DraftContext } from "../../src/speculative/index.ts";
import { ChainDrafter, resolveSampling, tokenLaw } from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const vocabularySize = 5;
const model = TableModel.random({ vocabularySize, order: 2, seed: 4, contextLength: 12 });

/** The model, the ids of every pass its sessions made, and the sessions. */
function recorded() {
  const passes: number[][] = [];
  const sessions: TableSession[] = [];
  const spy: LanguageModel = {
    vocabularySize,
    contextLength: model.contextLength,
    openSession() {
      const session = model.openSession();
      const extend = session.extend.bind(session);
      session.extend = (input, options) => {
        passes.push(Array.from(input as ArrayLike<number>));
        return extend(input, options);
      };
      sessions.push(session);
      return session;
    },
  };
  return { spy, passes, sessions };
}

const start = (prompt: readonly number[]) => ({ prompt, vocabularySize, contextLength: 100, prefill: null });
const context = (tokens: readonly number[], changes: Partial<DraftContext> = {}): DraftContext => ({
  tokens,
  maxNodes: 50,
  maxDepth: 49,
  sampling: resolveSampling({ temperature: 1 }),
  random: new Random(0),
  ...changes,
});
const nothing = { data: new Float32Array(0), rows: 0, columns: vocabularySize };

describe("ChainDrafter", () => {
  it("feeds what is missing, then each guess but the last; cuts back to what was accepted", () => {
    const { spy, passes, sessions } = recorded();
    const drafting = new ChainDrafter(spy, { gamma: 3 }).open(start([0, 1, 2]));
    const first = drafting.propose(context([0, 1, 2]));
    const [, a, b, c] = Array.from(first.tokens);
    expect(first).toMatchObject({ tokens: [2, a, b, c], parents: [-1, 0, 1, 2] });
    expect(passes).toEqual([[0, 1, 2], [a], [b]]);

    // One of three accepted, then token 4.
    drafting.observe({ draft: first, logits: nothing, path: [0, 1], token: 4 });
    expect(sessions[0]!.committed).toEqual([0, 1, 2, a]);
    const second = drafting.propose(context([0, 1, 2, a!, 4]));
    expect(passes.slice(3)).toEqual([[4], [second.tokens[1]], [second.tokens[2]]]);

    // All accepted, then token 0: the third guess was never fed, so it goes with the next pending token.
    drafting.observe({ draft: second, logits: nothing, path: [0, 1, 2, 3], token: 0 });
    const text = [0, 1, 2, a!, 4, ...Array.from(second.tokens).slice(1), 0];
    expect(sessions[0]!.committed).toEqual(text.slice(0, -2));
    drafting.propose(context(text, { maxDepth: 1 }));
    expect(passes.slice(6)).toEqual([text.slice(-2)]);
    expect(drafting.cost).toMatchObject({ passes: 7, tokens: 3 + 1 + 1 + 1 + 1 + 1 + 2 });

    drafting.close();
    expect(() => sessions[0]!.truncate(0)).toThrow(/closed/);
  });

  it("states the law each guess was drawn from: the target's options, or its own", () => {
    const propose = (options: ConstructorParameters<typeof ChainDrafter>[1], changes?: Partial<DraftContext>) =>
      new ChainDrafter(model, options).open(start([3])).propose(context([3], changes));
    for (const [options, sampling, effective] of [
      [{}, { temperature: 0.5, topK: 3 }, { temperature: 0.5, topK: 3 }],
      [{ sampling: { temperature: 2, topP: 0.9 } }, { temperature: 0.5 }, { temperature: 2, topP: 0.9 }],
      [{ sampling: {} }, { temperature: 1 }, { temperature: 0 }],
    ] as const) {
      const { tokens, laws } = propose(options, { sampling: resolveSampling(sampling) });
      expect(laws).toHaveLength(5);
      expect(laws[0]).toBeNull();
      for (let node = 1; node < laws.length; node++) {
        const path = Array.from(tokens).slice(0, node);
        expect(laws[node]).toEqual(tokenLaw(model.logits(path), effective));
        expect(laws[node]![tokens[node]!]).toBeGreaterThan(0);
      }
    }
  });

  it("draws guesses with the frequencies of that law", () => {
    const random = new Random("frequencies");
    const counts = new Array<number>(vocabularySize).fill(0);
    const draws = 20_000;
    const drafter = new ChainDrafter(model, { gamma: 1 });
    for (let i = 0; i < draws; i++) counts[drafter.open(start([3])).propose(context([3], { random })).tokens[1]!]! += 1;
    const chiSquare = Array.from(model.law([3])).reduce(
      (sum, p, i) => sum + (counts[i]! - p * draws) ** 2 / (p * draws),
      0,
    );
    // 99.9 % point for 4 degrees of freedom.
    expect(chiSquare).toBeLessThan(18.47);
  });

  it("keeps within nodes, depth, gamma and its own context, to the last position", () => {
    const nodes = (length: number, changes: Partial<DraftContext>, gamma = 4) => {
      const text = Array.from({ length }, (_, i) => i % vocabularySize);
      return new ChainDrafter(model, { gamma }).open(start(text)).propose(context(text, changes)).tokens.length;
    };
    expect(nodes(1, {})).toBe(5);
    expect(nodes(1, {}, 0)).toBe(1);
    expect(nodes(1, { maxNodes: 3 })).toBe(3);
    expect(nodes(1, { maxNodes: 1 })).toBe(1);
    expect(nodes(1, { maxDepth: 2 })).toBe(3);
    expect(nodes(1, { maxDepth: 0 })).toBe(1);
    // Twelve positions: the text and every guess but the last.
    expect([9, 10, 11, 12, 13, 20].map((length) => nodes(length, {}))).toEqual([5, 4, 3, 2, 1, 1]);
  });

  it("refuses a target with another vocabulary", () => {
    const drafter = new ChainDrafter(model);
    expect(() => drafter.open({ ...start([0]), vocabularySize: 6 })).toThrow(ArgumentError);
  });
});
