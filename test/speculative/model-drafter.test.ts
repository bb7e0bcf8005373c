import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { TableModel, type TableSession } from "../../src/model/table-model.ts";
import type { Draft, DraftContext, Drafting, GrowingTree } from "../../src/speculative/index.ts";
import { ModelDrafter, resolveSampling, tokenLaw } from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const vocabularySize = 5;
const model = TableModel.random({ vocabularySize, order: 3, seed: "laws look back three tokens", contextLength: 24 });
const warm = resolveSampling({ temperature: 1 });

/** A drafter that grows as told, and the session it drafts with. */
function open(grow: (tree: GrowingTree) => void, prompt: readonly number[] = [0]) {
  let session: TableSession | undefined;
  class Told extends ModelDrafter {
    protected grow(tree: GrowingTree): void {
      grow(tree);
    }
  }
  const drafter = new Told({
    vocabularySize,
    contextLength: model.contextLength,
    openSession() {
      session = model.openSession();
      return session;
    },
  });
  const drafting = drafter.open({ prompt, vocabularySize, contextLength: 100, prefill: null });
  return { drafting, session: session! };
}

const context = (tokens: readonly number[], changes: Partial<DraftContext> = {}): DraftContext => ({
  tokens,
  maxNodes: 50,
  maxDepth: 49,
  sampling: warm,
  random: new Random(0),
  ...changes,
});
const accept = (drafting: Drafting, draft: Draft, path: readonly number[], token: number) =>
  drafting.observe({ draft, logits: { data: new Float32Array(0), rows: 0, columns: vocabularySize }, path, token });
const pathTokens = (tree: Pick<Draft, "tokens" | "parents">, node: number): number[] =>
  node < 0 ? [] : [...pathTokens(tree, tree.parents[node]!), tree.tokens[node]!];

describe("laws", () => {
  it("are the model's after each node's path, in whatever order a tree is grown and asked about", () => {
    const question = fc.array(fc.nat(), { minLength: 1, maxLength: 4 });
    const step = fc.record({ grown: fc.array(fc.tuple(question, fc.nat(3)), { maxLength: 5 }), end: fc.nat() });
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 4 }), fc.nat(), (steps, seed) => {
        const random = new Random(seed);
        let text = [1, 2, 3];
        let grown: readonly (readonly [number[], number])[] = [];
        const { drafting, session } = open((tree) => {
          for (const [numbers, children] of grown) {
            const nodes = [...new Set(numbers.map((n) => n % tree.tokens.length))];
            tree.laws(nodes).forEach((law, i) => {
              if (law === null) return;
              const path = [...text.slice(0, -1), ...pathTokens(tree, nodes[i]!)];
              expect(law).toEqual(tokenLaw(model.logits(path), warm));
              for (let c = 0; c < children; c++) tree.add(nodes[i]!, random.categorical(law), law);
            });
          }
        });
        for (const step of steps) {
          ({ grown } = step);
          const draft = drafting.propose(context(text));
          const path: number[] = [];
          for (let at = step.end % draft.tokens.length; at >= 0; at = draft.parents[at]!) path.unshift(at);
          accept(drafting, draft, path, 4);
          text = [...text, ...path.slice(1).map((node) => draft.tokens[node]!), 4];
          expect(text.slice(0, session.length)).toEqual(session.committed);
          expect(session.length).toBeLessThan(text.length);
        }
      }),
    );
  });

  it("are those of the sampling asked for", () => {
    const seen: (Float64Array | null)[] = [];
    const { drafting } = open((tree) => {
      seen.push(tree.law(0), tree.law(0, { temperature: 1 }));
    });
    drafting.propose(context([3], { sampling: resolveSampling({ temperature: 0 }) }));
    const logits = model.logits([3]);
    expect(seen).toEqual([tokenLaw(logits), tokenLaw(logits, { temperature: 1 })]);
  });

  it("are null where the draft model's context has no room, for those that do not fit and no others", () => {
    const asked: boolean[][] = [];
    const grow = (tree: GrowingTree) => {
      const law = tree.law(0);
      asked.push([law !== null]);
      if (law === null) return;
      const children = [0, 1, 2].map((token) => tree.add(0, token, null));
      asked.push(tree.laws(children).map((law) => law !== null));
    };
    const propose = (length: number) => open(grow).drafting.propose(context(new Array(length).fill(1)));
    for (const length of [21, 22, 23, 24, 25]) propose(length);
    expect(asked).toEqual([
      [true],
      [true, true, true],
      [true],
      [true, true, false],
      [true],
      [true, false, false],
      [true],
      [false, false, false],
      [false],
    ]);
  });
});

describe("passes", () => {
  /** Two children of every node, level by level. */
  const binary = (levels: number) => (tree: GrowingTree) => {
    let level = [0];
    for (let depth = 0; depth < levels; depth++) {
      level = tree.laws(level).flatMap((law, i) => [0, 1].map((token) => tree.add(level[i]!, token, law)));
    }
  };

  it("one per level; rows: what is missing and the root, 2, 2 + 4, ...", () => {
    const { drafting, session } = open(binary(4));
    const draft = drafting.propose(context([3, 3, 3]));
    expect(draft.tokens).toHaveLength(1 + 2 + 4 + 8 + 16);
    expect(drafting.cost).toMatchObject({ passes: 4, tokens: 3 + 2 + (2 + 4) + (2 + 4 + 8) });
    expect(session.committed).toEqual([3, 3, 3]);

    // All four levels accepted: the last level was never scored, what was is kept without a pass.
    const path = [0, 2, 6, 14, 30];
    expect(draft.tokens[30]).toBe(1);
    accept(drafting, draft, path, 4);
    expect(drafting.cost.passes).toBe(4);
    expect(session.committed).toEqual([3, 3, 3, 1, 1, 1]);
    drafting.propose(context([3, 3, 3, 1, 1, 1, 1, 4], { maxDepth: 1 }));
    expect(drafting.cost.tokens).toBe(3 + 2 + 6 + 14 + 2 + 2 + 6 + 14);
  });

  it("feed the part of a level's paths that is common once, and nothing of branches nobody asks about", () => {
    const { drafting } = open((tree) => {
      tree.law(0);
      const [a, b] = [tree.add(0, 1, null), tree.add(0, 2, null)];
      tree.laws([a, b]);
      // Only b goes on: it was scored, so it is committed without a pass, and c and d are one row each.
      const [c, d] = [tree.add(b, 3, null), tree.add(b, 4, null)];
      tree.laws([c, d]);
      tree.law(tree.add(d, 0, null));
    });
    drafting.propose(context([3]));
    expect(drafting.cost).toMatchObject({ passes: 4, tokens: 1 + 2 + 2 + 1 });
  });

  it("none where nothing is asked", () => {
    const { drafting } = open((tree) => {
      expect(tree.laws([])).toEqual([]);
    });
    expect(drafting.propose(context([3]))).toEqual({ tokens: [3], parents: [-1], laws: [null] });
    expect(drafting.cost.passes).toBe(0);
  });
});

describe("the tree", () => {
  it("tells its limits, and depths and room as it grows", () => {
    const { drafting } = open((tree) => {
      expect([tree.maxNodes, tree.maxDepth, tree.room]).toEqual([7, 3, 6]);
      const child = tree.add(0, 4, null);
      tree.add(child, 2, null);
      expect([tree.tokens, tree.parents, tree.depths, tree.room]).toEqual([[3, 4, 2], [-1, 0, 1], [0, 1, 2], 4]);
    });
    drafting.propose(context([3], { maxNodes: 7, maxDepth: 3 }));
  });

  it("keeps the nodes chosen at the end, and the cache follows their path", () => {
    const { drafting, session } = open((tree) => {
      tree.law(0);
      const children = [2, 1, 0].map((token) => tree.add(0, token, null));
      tree.laws(children);
      tree.keep([tree.add(children[2]!, 4, null), 0, children[2]!]);
    });
    const draft = drafting.propose(context([3]));
    expect(draft).toEqual({ tokens: [3, 0, 4], parents: [-1, 0, 1], laws: [null, null, null] });
    accept(drafting, draft, [0, 1, 2], 2);
    expect(session.committed).toEqual([3, 0]);
  });

  it("is for one vocabulary", () => {
    class Silent extends ModelDrafter {
      protected grow(): void {}
    }
    const drafter = new Silent(model);
    expect(() => drafter.open({ prompt: [0], vocabularySize: 6, contextLength: 9, prefill: null })).toThrow(
      ArgumentError,
    );
    expect(() => new Silent(model, { sampling: { topK: 0 } })).toThrow(ArgumentError);
  });
});
