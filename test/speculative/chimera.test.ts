import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { openKernels } from "../../src/kernels/kernels.ts";
import { type Matrix, row, type Taps } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Weights } from "../../src/model/weights.ts";
import { chimeraNames, chimeraShapes } from "../../src/speculative/chimera-heads.ts";
import type { Draft, DraftContext, Drafter, DraftStart } from "../../src/speculative/index.ts";
import {
  ChimeraDrafter,
  ChimeraHeads,
  childrenOf,
  generateAll,
  headTarget,
  nodeDepths,
  resolveSampling,
  trigramAt,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";
import { withHidden } from "./hidden-table.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";
import { chimeraWeights, tinyConfig, tinyTarget } from "./tiny-target.ts";

const space = await openKernels();
const full = process.env["TOKENTHRIFT_FULL"] !== undefined;

const target = tinyTarget();
const { width, vocabularySize, normEpsilon } = tinyConfig;
const random = new Random("states");
const states = (rows: number, columns = width): Matrix => ({
  data: Float32Array.from({ length: rows * columns }, () => random.normal()),
  rows,
  columns,
});
/** The weights with some of them replaced. */
function replaced(edit: (name: string, data: Float32Array) => void, heads = 3): Map<string, Weights> {
  return new Map(
    [...chimeraWeights(target, heads)].map(([name, { shape, data }]) => {
      const copy = data.slice();
      edit(name, copy);
      return [name, { shape, data: copy }];
    }),
  );
}
const normalized = (x: Float32Array): number[] => {
  const size = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / width + normEpsilon);
  return Array.from(x, (value, i) => (value / size) * target.norm[i]!);
};
const node = (index: number, text: readonly number[], ancestors: readonly number[] = []) => ({
  node: index,
  depth: ancestors.length,
  trigram: trigramAt(text),
  ancestors,
  kept: true,
});

describe("the trigram encoder", () => {
  it("at the beginning of a text, by hand: g = 3, 5, 6 of the embeddings 1, 2, 3", () => {
    const embeddings = [1, 2, 3];
    const g = (text: readonly number[]) => trigramAt(text).reduce((sum, id) => sum + embeddings[id]!, 0);
    expect([[0], [0, 1], [0, 1, 2]].map(g)).toEqual([3, 5, 6]);

    // The same through the running encoder: width 1, W = 0, b = 0, W_o = [1, 1, 1], a block that adds nothing, M = [0 | 1].
    const config = { ...tinyConfig, width: 1, vocabularySize: 3 };
    const scalar = headTarget(
      config,
      new Map<string, Weights>([
        ["model.embed_tokens.weight", { shape: [3, 1], data: Float32Array.from(embeddings) }],
        ["model.norm.weight", { shape: [1], data: Float32Array.of(1) }],
      ]),
    );
    const weights = new Map<string, Weights>();
    for (const [name, shape] of chimeraShapes(scalar, 1)) {
      const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
      if (name === chimeraNames.trigramOutput) data.fill(1);
      if (name === chimeraNames.head(0)) data[1] = 1;
      weights.set(name, { shape, data });
    }
    const context = new ChimeraHeads(scalar, weights, space).open(8);
    context.commit({ data: Float32Array.of(1), rows: 1, columns: 1 });
    for (const [text, expected] of [
      [[0], 3],
      [[0, 1], 5],
      [[0, 1, 2], 6],
    ] as const) {
      context.encode([node(0, text)], 0);
      expect(context.state(0)[0]).toBeCloseTo(expected, 6);
      expect(Array.from(context.logits(0), (x) => +x.toFixed(4))).toEqual(embeddings.map((e) => e * expected));
    }
    context.close();
  });

  it("looks at three tokens: a fourth changes nothing, each of the three does; remembered equals computed", () => {
    const hidden = states(1);
    const probe = () => {
      const context = new ChimeraHeads(target, chimeraWeights(target, 1), space).open(8);
      context.commit(hidden);
      return (text: readonly number[]) => {
        const before = context.cost.multiplyAdds;
        context.encode([node(0, text)], 0);
        return { state: Array.from(context.state(0)), multiplyAdds: context.cost.multiplyAdds - before };
      };
    };
    const encode = probe();
    const first = encode([9, 1, 2, 3]);
    const second = encode([8, 1, 2, 3]);
    expect(second.state).toEqual(first.state);
    // A matrix of (3 width)^2 and one of width * 3 width were not needed again.
    expect(first.multiplyAdds - second.multiplyAdds).toBe(12 * width * width);
    for (const other of [
      [0, 2, 3],
      [1, 0, 3],
      [1, 2, 0],
    ]) {
      expect(encode([9, ...other]).state).not.toEqual(first.state);
    }
    expect(probe()([1, 2, 3])).toEqual(first);
  });
});

describe("the full-context encoder and the heads", () => {
  it("with M = [1 | 1] give W_lm h + W_lm f", () => {
    const weights = replaced((name, data) => {
      if (!name.startsWith("heads.")) return;
      data.fill(0);
      for (let i = 0; i < width; i++) data[i * 2 * width + i] = data[i * 2 * width + width + i] = 1;
    });
    const context = new ChimeraHeads(target, weights, space).open(8);
    const hidden = states(2);
    context.commit(hidden);
    context.encode([node(0, [1, 2, 3])], 1);
    const f = context.state(0);
    const h = normalized(row(hidden, 1));
    const logits = context.logits(0);
    for (let id = 0; id < vocabularySize; id++) {
      let expected = 0;
      for (let i = 0; i < width; i++) expected += target.outputHead[id * width + i]! * (h[i]! + f[i]!);
      expect(logits[id]).toBeCloseTo(expected, 4);
    }
  });

  it("attend to every committed state, to ancestors and to nobody else's branch", () => {
    const running = new ChimeraHeads(target, chimeraWeights(target, 3), space);
    const committed = states(4);
    const stateOf = (hidden: Matrix, branch: readonly number[], beside: boolean) => {
      const context = running.open(16);
      context.commit(hidden);
      context.encode([node(0, [1, 2, 3])], 0);
      // Node 2 is the one looked at; node 1 is its sibling.
      const level = [node(2, [2, 3, ...branch.slice(0, 1)], [0])];
      context.encode(beside ? [node(1, [2, 3, 11], [0]), ...level] : level, 1);
      context.encode([node(3, [3, ...branch], [0, 2])], 2);
      const state = Array.from(context.state(0));
      context.close();
      return state;
    };
    const plain = stateOf(committed, [4, 5], false);
    expect(stateOf(committed, [4, 5], true)).toEqual(plain);
    expect(stateOf(committed, [6, 5], false)).not.toEqual(plain);
    for (let r = 0; r < committed.rows; r++) {
      const changed = { ...committed, data: committed.data.slice() };
      changed.data[r * width]! += 1;
      expect(stateOf(changed, [4, 5], false)).not.toEqual(plain);
    }
  });

  it("take hidden states in any helpings, and follow accepted rows", () => {
    const running = new ChimeraHeads(target, chimeraWeights(target, 1), space);
    const hidden = states(40);
    const stateAfter = (commit: (context: ReturnType<typeof running.open>) => void) => {
      const context = running.open(64);
      commit(context);
      expect(context.length).toBe(20);
      context.encode([node(0, [1, 2, 3])], 0);
      return Array.from(context.state(0));
    };
    const even = Array.from({ length: 20 }, (_, i) => 2 * i);
    const whole = stateAfter((context) => context.commit(hidden, even));
    const byOne = stateAfter((context) => {
      for (const r of even) context.commit(hidden, [r]);
    });
    byOne.forEach((value, i) => {
      expect(value).toBeCloseTo(whole[i]!, 5);
    });
    const alone = { data: new Float32Array(20 * width), rows: 20, columns: width };
    even.forEach((r, i) => {
      alone.data.set(row(hidden, r), i * width);
    });
    expect(stateAfter((context) => context.commit(alone))).toEqual(whole);
  });

  it("refuse weights that do not fit, naming them, and heads they cannot split", () => {
    const good = chimeraWeights(target, 2);
    const missing = new Map(good);
    missing.delete("model.layers.0.mlp.up_proj.weight");
    expect(() => new ChimeraHeads(target, missing, space)).toThrow(/up_proj/);
    const gap = new Map(good);
    gap.delete(chimeraNames.head(0));
    expect(() => new ChimeraHeads(target, gap, space)).toThrow(/heads\.0/);
    expect(
      () =>
        new ChimeraHeads(
          target,
          replaced((_, data) => data.fill(Number.POSITIVE_INFINITY)),
          space,
        ),
    ).toThrow(/Infinity/);
    const odd = tinyTarget({ ...tinyConfig, headWidth: 6 });
    expect(() => new ChimeraHeads(odd, chimeraWeights(odd, 1), space)).toThrow(/headWidth/);
  });
});

describe("ChimeraDrafter", () => {
  const running = new ChimeraHeads(target, chimeraWeights(target, 3), space);
  const accuracies = [[0.5, 0.3], [0.5, 0.2], [0.6]];
  const taps = (last: Matrix): Taps => ({ hidden: [last] });
  const start = (prompt: readonly number[], last: Matrix | null): DraftStart => ({
    prompt,
    vocabularySize,
    contextLength: 30,
    prefill: last === null ? null : { logits: states(0), taps: taps(last) },
  });
  const context = (tokens: readonly number[], changes: Partial<DraftContext> = {}): DraftContext => ({
    tokens,
    maxNodes: 30,
    maxDepth: 29,
    sampling: resolveSampling(),
    random: new Random(0),
    ...changes,
  });

  /** Every guess again, one node at a time, in a context of its own. */
  function expectGuesses(draft: Draft, text: readonly number[], hidden: Matrix): void {
    const depths = nodeDepths(draft);
    const paths: number[][] = [[]];
    for (let i = 1; i < draft.tokens.length; i++) paths[i] = [...paths[draft.parents[i]!]!, draft.parents[i]!];
    for (let parent = 0; parent < draft.tokens.length; parent++) {
      const children = childrenOf(draft, parent);
      if (children.length === 0) continue;
      const own = running.open(30);
      own.commit(hidden);
      const path = [...paths[parent]!, parent];
      path.forEach((at, depth) => {
        const tokens = [...text.slice(0, -1), ...path.slice(0, depth + 1).map((one) => draft.tokens[one]!)];
        own.encode([node(at, tokens, paths[at])], depth);
      });
      const best = own.best(0, children.length);
      expect(children.map((child) => draft.tokens[child])).toEqual(Array.from(best));
      expect(children.every((child) => depths[child] === path.length)).toBe(true);
      own.close();
    }
  }

  it("feeds every guess back: each node's guesses are those of its own path, a level a pass", () => {
    const text = [3, 1, 4, 1, 5];
    const hidden = states(4);
    const drafting = new ChimeraDrafter(running, { accuracies, budget: 9 }).open(start(text, hidden));
    const draft = drafting.propose(context(text));
    expect(draft.tokens).toHaveLength(10);
    expect(Math.max(...nodeDepths(draft))).toBe(3);
    expectGuesses(draft, text, hidden);
    const inner = new Set(Array.from(draft.parents)).size - 1;
    expect(drafting.cost).toMatchObject({ passes: 3, tokens: inner });

    // Two accepted, then another token: the context is the text's, nothing of the draft is left.
    const child = childrenOf(draft, 0)[1]!;
    const grandchild = childrenOf(draft, child)[0]!;
    const scored = states(draft.tokens.length);
    drafting.observe({ draft, logits: states(0), path: [0, child, grandchild], token: 9, taps: taps(scored) });
    const longer = [...text, draft.tokens[child]!, draft.tokens[grandchild]!, 9];
    const committed = { data: new Float32Array(7 * width), rows: 7, columns: width };
    committed.data.set(hidden.data);
    [0, child, grandchild].forEach((at, i) => {
      committed.data.set(row(scored, at), (4 + i) * width);
    });
    expectGuesses(drafting.propose(context(longer)), longer, committed);
    drafting.close();
    drafting.close();
  });

  it("guesses nothing before the target has committed a token, nor where nothing is asked for", () => {
    const drafter = new ChimeraDrafter(running, { accuracies });
    const root = { tokens: [4], parents: [-1], laws: [null] };
    expect(drafter.open(start([4], null)).propose(context([4]))).toEqual(root);
    const drafting = drafter.open(start([3, 4], states(1)));
    expect(drafting.propose(context([3, 4], { maxNodes: 1 }))).toEqual(root);
    expect(drafting.propose(context([3, 4], { maxDepth: 0 }))).toEqual(root);
    expect(drafting.cost.passes).toBe(0);
    expect(drafting.propose(context([3, 4], { maxDepth: 1 })).parents).toEqual([-1, 0, 0]);
  });

  it("gives back the memory of its sequences", () => {
    const own = new ChimeraDrafter(running, { accuracies });
    const used = () => space.arena.usedBytes;
    own.open(start([3, 4], states(1))).close();
    const before = used();
    const open = [1, 2, 3].map(() => own.open(start([3, 4], states(1))));
    for (const drafting of open) drafting.propose(context([3, 4]));
    expect(used()).toBeGreaterThan(before);
    for (const drafting of open) drafting.close();
    const between = used();
    for (let i = 0; i < 3; i++) {
      const drafting = own.open(start([3, 4], states(1)));
      drafting.propose(context([3, 4]));
      drafting.close();
    }
    expect(used()).toBe(between);
  });

  it("refuses targets it does not fit, and options out of range", () => {
    const drafter = new ChimeraDrafter(running, { accuracies });
    expect(() => drafter.open({ ...start([3, 4], states(1)), vocabularySize: 5 })).toThrow(ArgumentError);
    expect(() => drafter.open(start([3, 4], states(1, 3)))).toThrow(/width 12/);
    expect(() => new ChimeraDrafter(running, { accuracies: [...accuracies, [0.1]] })).toThrow(/at most 3 heads/);
    expect(() => new ChimeraDrafter(running, { accuracies, budget: 1.5 })).toThrow(ArgumentError);
  });
});

describe("what comes out", () => {
  const config = { ...tinyConfig, vocabularySize: 4 };
  const running = new ChimeraHeads(tinyTarget(config), chimeraWeights(tinyTarget(config), 2), space);
  const drafter = new ChimeraDrafter(running, { accuracies: [[0.5, 0.3], [0.5]], budget: 3 });
  const table = TableModel.random({ vocabularySize: 4, order: 2, seed: "target", sharpness: 2 });
  const dressed = (model: TableModel) => withHidden(model, config.width);

  it("is plain decoding's text at temperature 0, for every table, budget and prompt", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.integer({ min: 0, max: 64 }),
        fc.integer({ min: 1, max: 30 }),
        async (seed, budget, maxTokens) => {
          const model = TableModel.random({ vocabularySize: 4, order: 2, seed, contextLength: 40 });
          const prompt = [seed % 4, 1, 2].slice(seed % 3);
          const plain = await generateAll(model, prompt, { maxTokens });
          const any = new ChimeraDrafter(running, {
            accuracies: [
              [0.5, 0.3, 0.1],
              [0.5, 0.1],
            ],
            budget,
          });
          const report = await generateAll(dressed(model), prompt, { maxTokens, drafter: any });
          expect(report.tokens).toEqual(plain.tokens);
        },
      ),
      { numRuns: 40 },
    );
  });

  const draws = full ? 400_000 : 5_000;
  const fitOf = (model: TableModel, temperature: number, twin: Drafter = drafter) =>
    fitOfFirstTwoTokens(model, [0, 1], draws, { temperature, drafter: twin, model: dressed(model) });

  it.each([
    ["unlike what is guessed", table, 1],
    ["unlike, at temperature .6", table, 0.6],
    ["always what is guessed, or never", TableModel.fromRows([[0.5, 0.5, 0, 0]]), 1],
  ])("has the target's joint law: %s", (_, model, temperature) => {
    const { chiSquare, limit } = fitOf(model, temperature);
    expect(chiSquare).toBeLessThan(limit);
  });

  it("has NOT when choices are declared as draws from a law: the same test fails", () => {
    const law = Float64Array.of(0.25, 0.25, 0.25, 0.25);
    const twin: Drafter = {
      vocabularySize: 4,
      taps: ["hidden"],
      reset() {},
      open(given) {
        const drafting = drafter.open(given);
        return {
          get cost() {
            return drafting.cost;
          },
          propose(asked) {
            const draft = drafting.propose(asked);
            return { ...draft, laws: draft.laws.map((_, at) => (at === 0 ? null : law)) };
          },
          observe: (pass) => drafting.observe(pass),
          close: () => drafting.close(),
        };
      },
    };
    const { chiSquare, limit } = fitOf(table, 1, twin);
    expect(chiSquare).toBeGreaterThan(3 * limit);
  });
});
