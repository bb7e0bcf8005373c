import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { heldOutEdits } from "../../src/held-out-edits.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { type LoadedModel, loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Draft, DraftContext, Drafter, LookaheadOptions } from "../../src/speculative/index.ts";
import {
  generate,
  generateAll,
  JointLaw,
  LookaheadDrafter,
  LookaheadTrie,
  nodeDepths,
  resolveSampling,
} from "../../src/speculative/index.ts";
import { Random } from "../../src/tensor/random.ts";

const unlimited = { maxNodes: 1000, maxDepth: 1000 };
const write = (trie: LookaheadTrie, output: readonly number[]) => {
  for (let length = 1; length <= output.length; length++) trie.insertOutput(output.slice(0, length));
};
/** The paths of a draft, root left out, in its order. */
const pathsOf = ({ tokens, parents }: Pick<Draft, "tokens" | "parents">): string[] => {
  const paths = [""];
  for (let node = 1; node < tokens.length; node++) paths.push(`${paths[parents[node]!]} ${tokens[node]}`);
  return paths.slice(1);
};
const shape = ({ tokens, parents }: Draft) => [tokens, parents];

describe("the trie, by hand", () => {
  it("gives the released tests' drafts: a branch, and two that share their beginning", () => {
    const one = new LookaheadTrie();
    write(one, [1, 1, 2, 3, 4]);
    // In tree 1 the path 1 was followed by 2, 3, 4.
    expect(shape(one.retrieve([1, 1], 0, { maxNodes: 63, maxDepth: 4 }))).toEqual([
      [1, 2, 3, 4],
      [-1, 0, 1, 2],
    ]);
    const two = new LookaheadTrie();
    for (const end of [3, 4]) write(two, [1, 1, 2, end]);
    expect(shape(two.retrieve([1, 1], 0, { maxNodes: 63, maxDepth: 4 }))).toEqual([
      [1, 2, 3, 4],
      [-1, 0, 1, 1],
    ]);
  });

  it("counts prompts and outputs apart, and drafts what they say: the worked run", () => {
    const trie = new LookaheadTrie({ branchLength: 3, decodingLength: 8 });
    const sequence = trie.insertPrompt([5, 6, 7, 8, 5, 6, 9]);
    expect(shape(trie.retrieve([5, 6], sequence, unlimited))).toEqual([
      [6, 7, 8, 5, 9],
      [-1, 0, 1, 2, 0],
    ]);
    // Nothing is known of 4: 6 alone is looked up.
    expect(shape(trie.retrieve([4, 6], sequence, unlimited))).toEqual([
      [6, 7, 8, 5, 9],
      [-1, 0, 1, 2, 0],
    ]);
    write(trie, [6, 9, 5, 6, 9, 1]);
    expect(trie.counts([5, 6], sequence)).toEqual({ prompt: 2, output: 1 });
    expect(trie.counts([5, 6, 9], sequence)).toEqual({ prompt: 1, output: 1 });
    expect(trie.counts([5, 6, 9, 1], sequence)).toEqual({ prompt: 0, output: 1 });
    expect(trie.counts([5, 6, 4], sequence)).toEqual({ prompt: 0, output: 0 });
    // 7 and 9 both followed once in the prompt; the output puts 9 first.
    expect(shape(trie.retrieve([5, 6], sequence, unlimited))).toEqual([
      [6, 9, 1, 7, 8, 5],
      [-1, 0, 1, 0, 3, 4],
    ]);
    // Of three nodes one is kept for what outputs count, 9; and 1, as frequent by output, comes before 7.
    expect(shape(trie.retrieve([5, 6], sequence, { maxNodes: 3, maxDepth: 9 }))).toEqual([
      [6, 9, 1],
      [-1, 0, 1],
    ]);
  });

  it("follows one branch, or pays for every branch's beginning, when asked to", () => {
    const draft = (mode: LookaheadOptions["mode"], decodingLength = 64) => {
      const trie = new LookaheadTrie({ ...(mode && { mode }), decodingLength });
      const sequence = trie.insertPrompt([1, 2, 3, 4, 9, 1, 2, 3, 5, 8, 1, 2, 6, 8, 1, 2, 3, 4]);
      return shape(trie.retrieve([8, 1], sequence, { maxNodes: 100, maxDepth: 3 }));
    };
    // After 8, 1: 2 twice, then 6, 8, or 3, 4.
    expect(draft("hierarchical")).toEqual([
      [1, 2, 6, 8, 3, 4],
      [-1, 0, 1, 2, 1, 4],
    ]);
    // Five guesses pay for 2, 6, 8 and 2, 3.
    expect(draft("parallel")).toEqual([
      [1, 2, 6, 8, 3],
      [-1, 0, 1, 2, 1],
    ]);
    expect(draft("single")).toEqual([
      [1, 2, 6, 8],
      [-1, 0, 1, 2],
    ]);
    expect(draft("single", 3)).toEqual([
      [1, 2, 6],
      [-1, 0, 1],
    ]);
  });

  it("halves what was counted twice and forgets the rest where a tree is beyond capacity", () => {
    const trie = new LookaheadTrie({ maxTreeNodes: 4, maxTreeOutputNodes: 100 });
    for (const end of [
      [1, 2],
      [1, 3],
      [4, 5],
      [1, 2],
    ]) {
      write(trie, [9, ...end]);
    }
    const counts = () => [[1], [1, 2], [1, 3], [4], [4, 5]].map((path) => trie.counts([9, ...path], 0).output);
    expect(counts()).toEqual([3, 2, 1, 1, 1]);
    // Trees 1 and 4 hold two more nodes and one.
    expect(trie.size).toBe(5 + 2 + 1);
    trie.prune();
    expect(counts()).toEqual([1.5, 1, 0, 0, 0]);
    expect(trie.size).toBe(2 + 2 + 1);
    trie.prune();
    expect(counts()).toEqual([1.5, 1, 0, 0, 0]);
  });

  it("forgets a prompt with its sequence: not a count, not a node, not a draft is left", () => {
    const trie = new LookaheadTrie();
    write(trie, [1, 2, 3, 7]);
    const before = trie.size;
    const prompt = [1, 2, 3, 4, 5, 6, 1, 2, 9];
    const [a, b] = [trie.insertPrompt(prompt), trie.insertPrompt([2, 3, 4])];
    prompt.fill(0);
    expect(trie.counts([1, 2], a)).toEqual({ prompt: 2, output: 1 });
    expect(pathsOf(trie.retrieve([2, 3], a, unlimited))).toContain(" 4 5");
    // The other sequence does not see it.
    expect(pathsOf(trie.retrieve([2, 3], b, unlimited))).toEqual([" 4", " 7"]);
    expect(pathsOf(trie.retrieve([5, 6], b, unlimited))).toEqual([]);
    trie.eliminate(a);
    expect(trie.counts([1, 2], a)).toEqual({ prompt: 0, output: 1 });
    expect(pathsOf(trie.retrieve([2, 3], a, unlimited))).toEqual([" 7"]);
    trie.eliminate(a);
    trie.eliminate(b);
    expect(trie.size).toBe(before);
  });

  it("opens no window at stop words in outputs, and looks none up alone", () => {
    const trie = new LookaheadTrie({ stopWords: [3] });
    write(trie, [1, 3, 4, 5]);
    const sequence = trie.insertPrompt([3, 8]);
    expect(trie.counts([3, 4], sequence).output).toBe(0);
    expect(pathsOf(trie.retrieve([3], sequence, unlimited))).toEqual([]);
    expect(pathsOf(trie.retrieve([1, 3], sequence, unlimited))).toEqual([" 4", " 4 5"]);
  });
});

describe("an output that goes on after a part of it was pruned", () => {
  it("is not counted below what was forgotten, though a prompt still holds it", () => {
    const trie = new LookaheadTrie({ maxTreeOutputNodes: 1 });
    const sequence = trie.insertPrompt([1, 2, 3]);
    for (const output of [
      [1, 5],
      [1, 6],
      [1, 2],
    ])
      write(trie, output);
    trie.prune();
    expect(trie.counts([1, 2], sequence)).toEqual({ prompt: 1, output: 0 });
    trie.insertOutput([1, 2, 3]);
    expect(trie.counts([1, 2, 3], sequence)).toEqual({ prompt: 1, output: 0 });
    expect(trie.counts([2, 3], sequence)).toEqual({ prompt: 1, output: 1 });
    trie.eliminate(sequence);
    expect(trie.size).toBe(1);
  });

  it("is forgotten with its beginning, though it was counted more often by then", () => {
    const trie = new LookaheadTrie({ maxTreeOutputNodes: 2 });
    for (const output of [
      [1, 2],
      [1, 2],
      [1, 5],
      [1, 6],
    ])
      write(trie, output);
    trie.prune();
    for (let i = 0; i < 2; i++) trie.insertOutput([1, 2, 3]);
    expect([trie.counts([1, 2], 0).output, trie.counts([1, 2, 3], 0).output]).toEqual([1, 2]);
    write(trie, [1, 7]);
    trie.prune();
    // Of tree 1 nothing is left; tree 2 holds the 3.
    expect(trie.size).toBe(1);
    expect(trie.counts([2, 3], 0).output).toBe(2);
  });
});

describe("the trie, against the released one", () => {
  interface Case extends Required<Pick<LookaheadOptions, "branchLength" | "decodingLength" | "stopWords">> {
    mode: Required<LookaheadOptions>["mode"];
    capacity: number;
    operations: {
      prompt?: number[];
      output?: number[];
      query?: number[];
      tokens?: number[];
      parents?: number[];
      end?: true;
    }[];
  }
  const path = join(import.meta.dirname, "../fixtures/lookahead/drafts.json");
  const cases: Case[] = JSON.parse(readFileSync(path, "utf8"));

  it.each(["hierarchical", "parallel", "single"])("gives its %s drafts, insertion to pruning", (mode) => {
    let guesses = 0;
    for (const { capacity, operations, ...options } of cases.filter((one) => one.mode === mode)) {
      const trie = new LookaheadTrie({
        ...options,
        maxTreeNodes: capacity,
        maxTreeOutputNodes: capacity,
        ...(mode === "single" && { outputWeight: 10000 / 10001 }),
      });
      let sequence = -1;
      for (const { prompt, output, query, tokens, parents, end } of operations) {
        if (prompt !== undefined) sequence = trie.insertPrompt(prompt);
        if (output !== undefined) write(trie, output);
        if (end) {
          trie.eliminate(sequence);
          trie.prune();
        }
        if (query === undefined) continue;
        const draft = trie.retrieve(query, sequence, unlimited);
        const expected = { tokens: tokens!, parents: parents! };
        // Where the released branches repeat a beginning, ours have it once.
        if (mode === "parallel") expect(pathsOf(draft)).toEqual([...new Set(pathsOf(expected))]);
        else expect(draft).toMatchObject(expected);
        guesses += draft.tokens.length - 1;
      }
      // Nothing but outputs is left, within capacity.
      expect(trie.size).toBeLessThanOrEqual(capacity * 12);
    }
    expect(guesses).toBeGreaterThan(500);
  });
});

describe("the trie, whatever comes", () => {
  it("holds the nodes that something counts and no others, within capacity when sequences end", () => {
    const operation = fc.oneof(
      fc.record({ kind: fc.constant("prompt" as const), tokens: fc.array(fc.nat({ max: 2 }), { maxLength: 9 }) }),
      fc.record({ kind: fc.constant("write" as const), which: fc.nat({ max: 2 }), token: fc.nat({ max: 2 }) }),
      fc.record({ kind: fc.constant("end" as const), which: fc.nat({ max: 2 }) }),
    );
    const branchLength = 2;
    const paths: number[][] = [];
    const grow = (path: number[]): void => {
      if (path.length > 1) paths.push(path);
      if (path.length < branchLength + 2) for (const token of [0, 1, 2]) grow([...path, token]);
    };
    grow([]);
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), fc.integer({ min: 1, max: 12 }), (operations, capacity) => {
        const trie = new LookaheadTrie({ branchLength, maxTreeOutputNodes: capacity });
        const outputs: number[][] = [[], [], []];
        const open: number[] = [];
        for (const step of operations) {
          if (step.kind === "prompt") open.push(trie.insertPrompt(step.tokens));
          else if (step.kind === "write") {
            outputs[step.which]!.push(step.token);
            trie.insertOutput(outputs[step.which]!);
          } else {
            const [ended] = open.splice(step.which, 1);
            if (ended !== undefined) trie.eliminate(ended);
            trie.prune();
            for (const first of [0, 1, 2]) {
              const counted = paths.filter((path) => path[0] === first && trie.counts(path, -1).output > 0);
              expect(counted.length).toBeLessThanOrEqual(capacity);
            }
          }
          const counted = paths.filter(
            (path) =>
              trie.counts(path, -1).output > 0 || open.some((sequence) => trie.counts(path, sequence).prompt > 0),
          );
          expect(trie.size).toBe(counted.length);
        }
      }),
    );
  });

  it("drafts a tree within nodes and depth, no two siblings alike, every path one that was read or written", () => {
    const text = fc.array(fc.nat({ max: 3 }), { minLength: 1, maxLength: 25 });
    fc.assert(
      fc.property(
        text,
        text,
        fc.constantFrom("hierarchical" as const, "parallel" as const, "single" as const),
        fc.integer({ min: 1, max: 12 }),
        fc.nat({ max: 6 }),
        (prompt, output, mode, maxNodes, maxDepth) => {
          const drafter = new LookaheadDrafter({ mode, branchLength: 5, decodingLength: 10 });
          write(drafter.trie, output);
          const drafting = drafter.open({ prompt, vocabularySize: 4, contextLength: 99, prefill: null });
          const draft = drafting.propose({
            tokens: prompt,
            maxNodes,
            maxDepth,
            sampling: resolveSampling(),
            random: new Random(0),
          });
          expect(draft.tokens.length).toBeLessThanOrEqual(Math.min(10, maxNodes));
          expect(draft.laws).toEqual(new Array(draft.tokens.length).fill(null));
          expect(draft.tokens[0]).toBe(prompt.at(-1));
          expect(Math.max(...nodeDepths(draft))).toBeLessThanOrEqual(Math.min(5, maxDepth));
          const paths = pathsOf(draft);
          expect(new Set(paths).size).toBe(paths.length);
          for (const path of paths) {
            const read = [prompt, output].map((tokens) => ` ${tokens.join(" ")} `);
            expect(read.some((tokens) => tokens.includes(` ${prompt.at(-1)}${path} `))).toBe(true);
          }
        },
      ),
    );
  });
});

// Minutes with TOKENTHRIFT_FULL, seconds without.
describe("what comes out", { timeout: 1_200_000 }, () => {
  const cycle = (size: number) =>
    new TableModel({
      vocabularySize: size,
      order: 1,
      law: ([t = 0]) => Array.from({ length: size }, (_, i) => (i === (t + 1) % size ? 1 : 0)),
    });
  const lap = (size: number) => Array.from({ length: size + 1 }, (_, i) => i % size);

  it("is plain decoding's text at temperature 0, in all modes, cold and hot", async () => {
    for (const mode of ["hierarchical", "parallel", "single"] as const) {
      for (const seed of [1, 2]) {
        const target = TableModel.random({ vocabularySize: 6, order: 2, seed, contextLength: 90 });
        const drafter = new LookaheadDrafter({ mode });
        for (const prompt of [[0], [4, 4, 1], [4, 4, 1]]) {
          const plain = await generateAll(target, prompt);
          const report = await generateAll(target, prompt, { drafter });
          expect(report.tokens).toEqual(plain.tokens);
          expect(report.tokensPerPass).toBeGreaterThan(1.5);
          expect(report.cost.draft.passes).toBe(0);
        }
      }
    }
  });

  it("takes one pass per branch and one token more when the prompt is copied, one per token when nothing was seen", async () => {
    const options = (branchLength: number) => ({ drafter: new LookaheadDrafter({ branchLength }), maxTokens: 130 });
    const twice = [...lap(16).slice(0, -1), ...lap(16)];
    expect(await generateAll(cycle(16), twice, options(12))).toMatchObject({ targetPasses: 10, tokensPerPass: 13 });
    expect(await generateAll(cycle(16), twice, options(4))).toMatchObject({ targetPasses: 26, tokensPerPass: 5 });
    const unseen = { drafter: new LookaheadDrafter(), maxTokens: 63 };
    expect(await generateAll(cycle(64), [0], unseen)).toMatchObject({ targetPasses: 63, drafted: 0 });
  });

  it("finds what another sequence wrote, not what another was asked; and nothing after reset", async () => {
    const drafter = new LookaheadDrafter();
    const passes = async (prompt: number[], maxTokens = 39) =>
      (await generateAll(cycle(40), prompt, { drafter, maxTokens })).targetPasses;
    // A prompt of a whole lap, one token written: the next sequence must not find the lap.
    await passes(lap(40), 1);
    expect(drafter.trie.size).toBe(0);
    expect(await passes([0])).toBe(39);
    // Three passes of 13 tokens, all from the output before.
    expect(await passes([0])).toBeLessThanOrEqual(4);
    drafter.reset();
    expect(await passes([0])).toBe(39);
  });

  it("remembers no more than its capacity once a sequence has ended", async () => {
    const target = TableModel.random({ vocabularySize: 6, order: 2, seed: 8, contextLength: 90 });
    const drafter = new LookaheadDrafter({ maxTreeOutputNodes: 20 });
    const generation = generate(target, [0], { drafter, temperature: 1, maxTokens: 80 });
    let largest = 0;
    while (generation.step() !== undefined) largest = Math.max(largest, drafter.trie.size);
    expect(largest).toBeGreaterThan(6 * 20);
    expect(drafter.trie.size).toBeLessThanOrEqual(6 * 20);
  });

  it("keeps sequences under way apart: prompts their own, outputs shared, texts as they would be alone", async () => {
    const target = TableModel.random({ vocabularySize: 6, order: 2, seed: 8, contextLength: 90 });
    const prompts = [
      [0, 1, 2, 3, 4, 5],
      [5, 4, 3],
    ];
    const alone = await Promise.all(prompts.map((prompt) => generateAll(target, prompt, { maxTokens: 50 })));
    const drafter = new LookaheadDrafter({ maxTreeOutputNodes: 3 });
    const generations = prompts.map((prompt, i) => generate(target, prompt, { drafter, maxTokens: 50 - 20 * i }));
    const first = generations[0]!.step()!;
    // The second prompt is not open yet, the first one's windows are: nothing followed 5.
    expect(first.draft.tokens).toEqual([5]);
    const second = generations[1]!.step()!;
    // 5, 4, 3 is not followed by 4, which only the other prompt says.
    expect(Array.from(second.draft.tokens)).toEqual([3]);
    for (let i = 0; i < 50; i++) {
      for (const generation of generations) generation.step();
      if (i === 10) drafter.reset();
    }
    expect(generations.map(({ report }) => report.tokens)).toEqual([alone[0]!.tokens, alone[1]!.tokens.slice(0, 30)]);
    expect(drafter.trie.size).toBe(0);
  });

  const draws = process.env["TOKENTHRIFT_FULL"] ? 400_000 : 6_000;
  const table = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
  const fitOf = (target: TableModel, drafter: Drafter) => {
    const options = { temperature: 1, drafter, tokens: 3, maxTokens: 6, seed: 1 };
    const law = new JointLaw(target, [0, 1, 2, 3, 1, 0, 0, 1], options);
    law.draw(draws);
    return law.fit;
  };

  it.each([
    ["hierarchical drafts of a random table", "hierarchical", table],
    ["parallel drafts of a random table", "parallel", table],
    ["single drafts of a random table", "single", table],
    ["drafts that are mostly impossible", "hierarchical", TableModel.fromRows([[0.5, 0.5, 0, 0]])],
  ] as const)("has the target's joint law of three tokens: %s", (_, mode, target) => {
    const fit = fitOf(target, new LookaheadDrafter({ mode, decodingLength: 16, maxTreeOutputNodes: 30 }));
    expect(fit.pValue).toBeGreaterThan(0.001);
    expect(fit.tokensPerPass).toBeGreaterThan(1.3);
  });

  it("has NOT when guesses are declared as drawn: the same test fails", () => {
    const uniform = new Float64Array(4).fill(0.25);
    const drafter = new LookaheadDrafter({ decodingLength: 16, maxTreeOutputNodes: 30 });
    const mislabelled: Drafter = {
      vocabularySize: 4,
      open: (given) => {
        const drafting = drafter.open(given);
        return {
          cost: drafting.cost,
          propose(asked: DraftContext) {
            const draft = drafting.propose(asked);
            return { ...draft, laws: draft.laws.map((_, node) => (node === 0 ? null : uniform)) };
          },
          observe: (pass) => drafting.observe(pass),
          close: () => drafting.close(),
        };
      },
      reset: () => drafter.reset(),
    };
    expect(fitOf(table, mislabelled).pValue).toBeLessThan(1e-12);
  });
});

describe("on the embedded target", () => {
  let target: LoadedModel;
  beforeAll(async () => {
    target = await loadEmbedded("target");
  });
  const tokensPerPass = async (texts: readonly string[], maxTokens: number) => {
    let [tokens, passes] = [0, 0];
    for (const [i, text] of texts.entries()) {
      const prompt = target.tokenizer.encode(text);
      const report = await generateAll(target.model, prompt, { maxTokens, drafter: new LookaheadDrafter() });
      if (i < 2) expect(report.tokens).toEqual((await generateAll(target.model, prompt, { maxTokens })).tokens);
      tokens += report.tokens.length;
      passes += report.targetPasses;
    }
    return tokens / passes;
  };

  it("gives its text, at two tokens a pass or more where prompts are edits, 1.5 elsewhere, from a cold start", async () => {
    const edits = heldOutEdits.map(({ original, edited }) => original + edited);
    expect(await tokensPerPass(edits, 48)).toBeGreaterThan(2);
    expect(
      await tokensPerPass(
        heldOutPrompts.map(({ text }) => text),
        96,
      ),
    ).toBeGreaterThan(1.5);
  });
});

it("refuses options out of range", () => {
  for (const [name, values] of Object.entries({
    decodingLength: [0, 1.5, Number.NaN],
    branchLength: [0, -1, Number.POSITIVE_INFINITY],
    queryLength: [0],
    maxTreeNodes: [0],
    maxTreeOutputNodes: [0.5],
    outputWeight: [-0.1, 1.1, Number.NaN],
  })) {
    for (const value of values) {
      expect(() => new LookaheadDrafter({ [name]: value })).toThrow(ArgumentError);
      expect(() => new LookaheadDrafter({ [name]: value })).toThrow(new RegExp(`^${name}: expected`));
    }
  }
  const mode = "hier" as "single";
  expect(() => new LookaheadDrafter({ mode })).toThrow(/^mode: expected "hierarchical"/);
});
