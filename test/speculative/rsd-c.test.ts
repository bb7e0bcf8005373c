import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { LanguageModel } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Guess, ModelDrafterOptions } from "../../src/speculative/index.ts";
import {
  BranchingDrafter,
  chiSquareFit,
  gumbelTopK,
  RsdCDrafter,
  SpecInferDrafter,
  tokenLaw,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";
import { draftOf, draws, itIsLossless, target, unlike } from "./lossless-drafter.ts";

const drafterOf = (draft: LanguageModel, options?: ModelDrafterOptions) =>
  new RsdCDrafter(draft, { branching: [2, 2], ...options });

describe("Gumbel-top-k", () => {
  const law = Float64Array.of(0.6, 0.3, 0.1);

  it("gives ordered pairs the probabilities of drawing one after another", () => {
    const expected = { "0,1": 0.45, "0,2": 0.15, "1,0": 0.257143, "1,2": 0.042857, "2,0": 0.066667, "2,1": 0.033333 };
    const random = new Random("order");
    const counts = new Map<string, number>();
    for (let i = 0; i < 40_000; i++) {
      const pair = gumbelTopK(law, 2, random).join();
      counts.set(pair, (counts.get(pair) ?? 0) + 1);
    }
    const pairs = Object.entries(expected);
    expect(counts.size).toBe(6);
    const fit = chiSquareFit(
      pairs.map(([pair]) => counts.get(pair)!),
      pairs.map(([, probability]) => 40_000 * probability),
    );
    expect(fit.pValue).toBeGreaterThan(0.001);
  });

  it("gives every index once, and none that cannot be", () => {
    const random = new Random(1);
    for (let k = 0; k <= 6; k++) {
      const drawn = gumbelTopK(Float64Array.of(0.5, 0, 1e-300, 0.5, 0), k, random);
      expect(new Set(drawn).size).toBe(Math.min(k, 3));
      expect(drawn).toHaveLength(Math.min(k, 3));
      expect(drawn.every((i) => [0, 2, 3].includes(i))).toBe(true);
    }
  });
});

describe("siblings", () => {
  it("all differ, and state the law without the earlier ones", () => {
    const { tokens, parents, laws } = draftOf(new RsdCDrafter(unlike, { branching: [3, 2] }), [2]);
    expect(parents).toEqual([-1, 0, 0, 0, 1, 1, 2, 2, 3, 3]);
    for (let node = 1; node < tokens.length; node++) {
      const path = parents[node] === 0 ? [2] : [2, tokens[parents[node]!]!];
      const left = tokenLaw(unlike.logits(path), { temperature: 1 });
      for (let i = 1; i < node; i++) if (parents[i] === parents[node]) left[tokens[i]!] = 0;
      const mass = left.reduce((a, b) => a + b, 0);
      left.forEach((share, token) => {
        expect(laws[node]![token]).toBeCloseTo(share / mass, 12);
      });
      expect(laws[node]![tokens[node]!]).toBeGreaterThan(0);
    }
  });

  it("are as many as the law has tokens", () => {
    const few = TableModel.fromRows([[0, 3, 1, 0]]);
    const { tokens, parents } = draftOf(new RsdCDrafter(few, { branching: [3, 3] }), [0]);
    expect(parents).toEqual([-1, 0, 0, 1, 1, 2, 2]);
    expect([...new Set(Array.from(tokens))].sort()).toEqual([0, 1, 2]);
    // All tokens the target has are offered: one is accepted, in both levels.
    const fit = fitOfFirstTwoTokens(few, [0], 200, {
      temperature: 1,
      drafter: new RsdCDrafter(few, { branching: [3, 3] }),
    });
    expect(fit.tokensPerPass).toBe(3);
  });

  it("and their children are those of an independent implementation, given its noise", () => {
    const path = join(import.meta.dirname, "../fixtures/rsd/trees.json");
    const cases: Fixture[] = JSON.parse(readFileSync(path, "utf8"));
    let nodes = 0;
    for (const { rows, first, noise, branching, tokens, parents, laws } of cases) {
      if (branching === undefined) continue;
      const random = new Noise(noise);
      const draft = draftOf(new RsdCDrafter(TableModel.fromRows(rows), { branching }), [first], { random });
      expect([draft.tokens, draft.parents]).toEqual([tokens, parents]);
      expect(random.left).toBe(0);
      draft.laws.forEach((law, node) => {
        law?.forEach((share, token) => {
          expect(share).toBeCloseTo(laws[node]![token]!, 6);
        });
      });
      nodes += tokens.length - 1;
    }
    expect(nodes).toBeGreaterThan(100);
  });
});

interface Fixture {
  readonly rows: number[][];
  readonly first: number;
  readonly noise: number[];
  readonly branching?: number[];
  readonly tokens: number[];
  readonly parents: number[];
  readonly laws: (number[] | null)[];
}

class Noise extends Random {
  readonly #numbers: number[];
  constructor(numbers: readonly number[]) {
    super(0);
    this.#numbers = numbers.slice();
  }
  get left(): number {
    return this.#numbers.length;
  }
  override gumbel(): number {
    return this.#numbers.shift()!;
  }
}

itIsLossless(drafterOf);

it("accepts more than independent siblings, at the same number of nodes", () => {
  const tokensPerPass = (drafter: BranchingDrafter) =>
    fitOfFirstTwoTokens(target, [0, 1], 4000, { temperature: 1, drafter }).tokensPerPass;
  const [withReplacement, without] = [SpecInferDrafter, RsdCDrafter].map((Drafter) =>
    tokensPerPass(new Drafter(unlike, { branching: [2, 2] })),
  );
  expect(without! - withReplacement!).toBeGreaterThan(0.2);
});

describe("what breaks it", () => {
  /** RSD-C with its siblings tampered with. */
  class Twin extends BranchingDrafter {
    readonly #change: (guesses: Guess[], law: Float64Array) => Guess[];
    constructor(change: (guesses: Guess[], law: Float64Array) => Guess[]) {
      super(unlike, { branching: [2, 2] });
      this.#change = change;
    }
    protected override siblings(law: Float64Array, count: number, random: Random): Guess[] {
      const without = (law: Float64Array, token: number) => {
        const left = law.map((share, i) => (i === token ? 0 : share / (1 - law[token]!)));
        return left;
      };
      const [a, b] = gumbelTopK(law, count, random) as [number, number];
      return this.#change([{ token: a, law }, ...(b === undefined ? [] : [{ token: b, law: without(law, a) }])], law);
    }
  }
  const fitOf = (change: (guesses: Guess[], law: Float64Array) => Guess[]) =>
    fitOfFirstTwoTokens(target, [0, 1], Math.min(draws, 40_000), { temperature: 1, drafter: new Twin(change) });

  it("stating q for the second sibling", () => {
    const broken = fitOf((guesses, law) => guesses.map(({ token }) => ({ token, law })));
    expect(broken.chiSquare).toBeGreaterThan(2 * broken.limit);
  });

  it("testing siblings by probability, each with the law it would have had in that order", () => {
    const broken = fitOf((guesses, law) => {
      const [a, b] = guesses.sort((a, b) => law[b.token]! - law[a.token]!) as [Guess, Guess];
      const left = law.map((share, i) => (i === a.token ? 0 : share / (1 - law[a.token]!)));
      return b === undefined
        ? [a]
        : [
            { ...a, law },
            { ...b, law: left },
          ];
    });
    expect(broken.chiSquare).toBeGreaterThan(2 * broken.limit);
  });

  it("not stating drawn siblings as chosen: that is exact too, and accepts less", () => {
    const [chosen, drawn] = [
      fitOf((guesses) => guesses.map(({ token }) => ({ token, law: null }))),
      fitOf((guesses) => guesses),
    ];
    for (const fit of [chosen!, drawn!]) expect(fit.chiSquare).toBeLessThan(fit.limit);
    expect(chosen!.tokensPerPass).toBeLessThan(drawn!.tokensPerPass - 0.1);
  });
});
