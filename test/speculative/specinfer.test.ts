import { describe, expect, it } from "vitest";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Draft, Drafter, ModelDrafterOptions } from "../../src/speculative/index.ts";
import { chiSquareFit, SpecInferDrafter, tokenLaw } from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";
import { draftOf, draws, itIsLossless, target, unlike } from "./lossless-drafter.ts";

const drafterOf = (draft: LanguageModel, options?: ModelDrafterOptions) =>
  new SpecInferDrafter(draft, { branching: [2, 2], ...options });

describe("siblings", () => {
  it("are independent draws from one law, shared by them", () => {
    const random = new Random("pairs");
    const observed = new Float64Array(16);
    const drafter = new SpecInferDrafter(unlike, { branching: [2] });
    for (let i = 0; i < 20_000; i++) {
      const { tokens, laws } = draftOf(drafter, [1], { random });
      observed[tokens[1]! * 4 + tokens[2]!]! += 1;
      expect(laws[1]).toBe(laws[2]);
    }
    const law = tokenLaw(unlike.logits([1]), { temperature: 1 });
    const expected = Float64Array.from(observed, (_, pair) => 20_000 * law[pair >> 2]! * law[pair & 3]!);
    expect(chiSquareFit(observed, expected).pValue).toBeGreaterThan(0.001);
  });

  it("state the draft model's laws after their path; a copy has no children", () => {
    // Two tokens: copies are frequent.
    const draft = TableModel.random({ vocabularySize: 2, order: 3, seed: 2 });
    let copies = 0;
    for (let seed = 0; seed < 200; seed++) {
      const { tokens, parents, laws } = draftOf(new SpecInferDrafter(draft, { branching: [3, 2, 2] }), [0, 1], {
        random: new Random(seed),
      });
      for (let node = 1; node < tokens.length; node++) {
        const path: number[] = [];
        for (let at = parents[node]!; at >= 0; at = parents[at]!) path.unshift(tokens[at]!);
        expect(laws[node]).toEqual(tokenLaw(draft.logits([0, ...path]), { temperature: 1 }));
        const earlier = Array.from(tokens).findIndex(
          (token, i) => parents[i] === parents[node] && token === tokens[node],
        );
        if (earlier === node) continue;
        copies += 1;
        expect(Array.from(parents)).not.toContain(node);
      }
    }
    expect(copies).toBeGreaterThan(100);
  });
});

itIsLossless(drafterOf);

describe("what breaks it", () => {
  /** The drafter's drafts, changed. */
  const twin = (change: (draft: Draft) => Draft): Drafter => {
    const drafter = drafterOf(unlike);
    return {
      vocabularySize: 4,
      open(start) {
        const drafting = drafter.open(start);
        return {
          ...drafting,
          get cost() {
            return drafting.cost;
          },
          propose: (context) => change(drafting.propose(context)),
          // The draft model is asked about the path alone, so its cache may be kept short.
          observe: (pass) => drafting.observe({ ...pass, path: [0] }),
          close: () => drafting.close(),
        };
      },
      reset() {},
    };
  };
  const fitOf = (drafter: Drafter) =>
    fitOfFirstTwoTokens(target, [0, 1], Math.min(draws, 40_000), { temperature: 1, drafter });

  it("dropping copies: the second sibling is then no draw from q", () => {
    const broken = fitOf(
      twin(({ tokens, parents, laws }) => {
        const kept = Array.from(tokens, (_, node) => node).filter(
          (node) =>
            Array.from(tokens).findIndex((token, i) => parents[i] === parents[node] && token === tokens[node]) === node,
        );
        return {
          tokens: kept.map((node) => tokens[node]!),
          parents: kept.map((node) => kept.indexOf(parents[node]!)),
          laws: kept.map((node) => laws[node]!),
        };
      }),
    );
    expect(broken.chiSquare).toBeGreaterThan(2 * broken.limit);
  });

  it("throwing away drawn guesses that are unlikely", () => {
    const broken = fitOf(
      twin(({ tokens, parents, laws }) => {
        const kept = [0];
        for (let node = 1; node < tokens.length; node++) {
          if (kept.includes(parents[node]!) && laws[node]![tokens[node]!]! > 0.2) kept.push(node);
        }
        return {
          tokens: kept.map((node) => tokens[node]!),
          parents: kept.map((node) => kept.indexOf(parents[node]!)),
          laws: kept.map((node) => laws[node]!),
        };
      }),
    );
    expect(broken.chiSquare).toBeGreaterThan(2 * broken.limit);
  });

  it("nothing, when the same wrapping changes nothing", () => {
    const same = fitOf(twin((draft) => draft));
    expect(same.chiSquare).toBeLessThan(same.limit);
  });
});
