/**
 * The contracts carry more than chains. Small drafters and verifiers of the kinds to come (trees drawn with and without
 * replacement, chosen trees, tables learnt from rejected nodes, feature taps) run here on nothing but the contracts.
 */
import { describe, expect, it } from "vitest";
import type { ExtendOptions, LanguageModel, PassOptions, Taps } from "../../src/model/language-model.ts";
import { row } from "../../src/model/language-model.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type { Draft, Drafter, Drafting, DraftStart, VerifiedPass } from "../../src/speculative/index.ts";
import {
  childrenOf,
  generate,
  generateAll,
  nodeDepths,
  plainDecoding,
  rootDraft,
  tokenLaw,
} from "../../src/speculative/index.ts";
import { fitOfFirstTwoTokens } from "./joint-law.ts";

const target = TableModel.random({ vocabularySize: 4, order: 2, seed: "target" });
const draft = TableModel.random({ vocabularySize: 4, order: 1, seed: "draft" });

/** A drafter without state of its own. */
const stateless = (propose: Drafting["propose"]): Drafter => ({
  ...plainDecoding,
  open: (start) => ({ ...plainDecoding.open(start), propose }),
});

type Kind = "with replacement" | "without replacement" | "without replacement, declared as with" | "chosen";

/** Two levels of two siblings each. */
const pairs = (kind: Kind) =>
  stateless(({ tokens, maxDepth, sampling, random }): Draft => {
    const built = { tokens: [tokens.at(-1)!], parents: [-1], laws: [null] as (Float64Array | null)[] };
    const grow = (node: number, text: readonly number[], levels: number): void => {
      if (levels === 0) return;
      const law = tokenLaw(draft.logits(text), kind === "chosen" ? { temperature: 1 } : sampling);
      let left = law;
      for (let sibling = 0; sibling < 2; sibling++) {
        const token = kind === "chosen" ? left.indexOf(Math.max(...left)) : random.categorical(left);
        const declared = { "with replacement": law, "without replacement": left, chosen: null };
        built.tokens.push(token);
        built.parents.push(node);
        built.laws.push(kind === "without replacement, declared as with" ? law : declared[kind]);
        grow(built.tokens.length - 1, [...text, token], levels - 1);
        if (kind !== "with replacement") {
          const mass = 1 - left[token]!;
          left = left.map((p, i) => (i === token ? 0 : p / mass));
        }
      }
    };
    grow(0, tokens, Math.min(2, maxDepth));
    return built;
  });

describe("trees", () => {
  it.each(["with replacement", "without replacement", "chosen"] as const)(
    "of siblings %s keep the target's joint law, 50,000 draws",
    (kind) => {
      const options = { drafter: pairs(kind), temperature: 1 };
      const fit = fitOfFirstTwoTokens(target, [0, 1], 50_000, options);
      expect(fit.chiSquare).toBeLessThan(fit.limit);
      expect(fit.tokensPerPass).toBeGreaterThan(1.5);
    },
  );

  it("fail that test when the laws do not say how siblings were drawn", () => {
    const drafter = pairs("without replacement, declared as with");
    const fit = fitOfFirstTwoTokens(target, [0, 1], 50_000, { drafter, temperature: 1 });
    expect(fit.chiSquare).toBeGreaterThan(5 * fit.limit);
  });

  it("equal plain decoding at temperature 0, their counts by depth included", async () => {
    const plain = await generateAll(target, [0], { maxTokens: 30 });
    const report = await generateAll(target, [0], { maxTokens: 30, drafter: pairs("chosen") });
    expect(report.tokens).toEqual(plain.tokens);
    expect(report.targetPasses).toBeLessThan(30);
    expect(report.tokens.length).toBe(report.accepted + report.targetPasses);
    expect(report.drafted).toBeGreaterThan(report.positions.reduce((sum, { offered }) => sum + offered, 0));
    expect(report.accepted).toBe(report.positions.reduce((sum, { accepted }) => sum + accepted, 0));
    expect(report.cost.target.tokens).toBe(report.drafted + report.targetPasses);
  });

  it("count a deeper branch as offered, not as tested, when the path ends at a shallow leaf", () => {
    // Root 0 with children 1 (a leaf) and 2 -> 3 -> 3; the target is sure of 1 after 0.
    const sure = TableModel.fromRows([[0, 1, 0, 0]]);
    const tree: Draft = { tokens: [0, 1, 2, 3, 3], parents: [-1, 0, 0, 2, 3], laws: [null, null, null, null, null] };
    const generation = generate(sure, [0], { drafter: stateless(() => tree) });
    expect(generation.step()).toMatchObject({ kind: "completed", path: [0, 1], tokens: [1, 1] });
    expect(generation.report).toMatchObject({ drafted: 4, accepted: 1, targetPasses: 1 });
    expect(generation.report.positions).toEqual([
      { offered: 1, tested: 1, accepted: 1 },
      { offered: 1, tested: 0, accepted: 0 },
      { offered: 1, tested: 0, accepted: 0 },
    ]);
  });

  it("are flat: depths and children follow from the parents", () => {
    const tree: Draft = { ...rootDraft(7), tokens: [7, 3, 5, 4, 9], parents: [-1, 0, 0, 1, 0] };
    expect(Array.from(nodeDepths(tree))).toEqual([0, 1, 1, 2, 1]);
    expect([0, 1, 2, 3, 4].map((node) => childrenOf(tree, node))).toEqual([[1, 2, 4], [3], [], [], []]);
  });
});

describe("learning", () => {
  /** Remembers for each token the arg-max last seen after it, at accepted and at rejected nodes; chains two of them. */
  function successorTable(): Drafter {
    const successor = new Map<number, number>();
    return {
      vocabularySize: null,
      open: (): Drafting => ({
        cost: { passes: 0, tokens: 0, multiplyAdds: 0, cacheBytesRead: 0 },
        propose({ tokens, maxDepth }) {
          const built = { tokens: [tokens.at(-1)!], parents: [-1], laws: [null] as null[] };
          for (let depth = 0; depth < Math.min(2, maxDepth); depth++) {
            built.tokens.push(successor.get(built.tokens.at(-1)!) ?? 0);
            built.parents.push(depth);
            built.laws.push(null);
          }
          return built;
        },
        observe({ draft, logits }) {
          for (let node = 0; node < draft.tokens.length; node++) {
            const scores = row(logits, node);
            successor.set(draft.tokens[node]!, scores.indexOf(Math.max(...scores)));
          }
        },
        close() {},
      }),
      reset: () => successor.clear(),
    };
  }

  it("carries over to the next sequence, to one opened meanwhile, and not past a reset", async () => {
    const cycle = TableModel.fromRows([
      [0, 1, 0, 0],
      [0, 0, 1, 0],
      [0, 0, 0, 1],
      [1, 0, 0, 0],
    ]);
    const drafter = successorTable();
    const passes = async () => (await generateAll(cycle, [0], { drafter, maxTokens: 24 })).targetPasses;
    const cold = await passes();
    expect(cold).toBeGreaterThan(8);
    expect(await passes()).toBe(8);
    const early = generate(cycle, [2], { drafter, maxTokens: 6 });
    drafter.reset();
    expect(await passes()).toBe(cold);
    expect([early.step()!.tokens, early.step()!.tokens]).toEqual([
      [3, 0, 1],
      [2, 3, 0],
    ]);
  });
});

describe("what a drafter is told", () => {
  it("the prompt, the pass over it with what it asked for, room, and every verified pass", () => {
    const hidden: Taps = { hidden: [{ data: new Float32Array(1), rows: 1, columns: 1 }] };
    const asked: (ExtendOptions | PassOptions | undefined)[] = [];
    const tapped: LanguageModel = {
      vocabularySize: 4,
      contextLength: 9,
      openSession() {
        const session = target.openSession();
        const extend = session.extend.bind(session);
        const score = session.score.bind(session);
        session.extend = (input, options) => {
          asked.push(options);
          return { ...extend(input, { logits: options?.logits ?? "last" }), taps: hidden };
        };
        session.score = (tree, options) => {
          asked.push(options);
          return { ...score(tree), taps: hidden };
        };
        return session;
      },
    };
    const starts: DraftStart[] = [];
    const passes: VerifiedPass[] = [];
    const contexts: unknown[] = [];
    let closed = 0;
    const drafter: Drafter = {
      vocabularySize: 4,
      taps: ["hidden"],
      prefillLogits: true,
      open(start) {
        starts.push(start);
        return {
          cost: { passes: 1, tokens: 2, multiplyAdds: 3, cacheBytesRead: 4 },
          propose(context) {
            const { maxNodes, maxDepth, sampling } = context;
            contexts.push({ text: context.tokens.slice(), maxNodes, maxDepth, ...sampling });
            return pairs("chosen")
              .open(start)
              .propose({ ...context, maxDepth: Math.min(1, maxDepth) });
          },
          observe: (pass) => passes.push(pass),
          close: () => {
            closed += 1;
          },
        };
      },
      reset() {},
    };
    const options = { drafter, maxTokens: 4, topP: 0.5 };
    const generation = generate(tapped, [1, 2, 3], options);
    const steps = [];
    for (let step = generation.step(); step !== undefined; step = generation.step()) steps.push(step);

    expect(starts).toHaveLength(1);
    expect(starts[0]).toMatchObject({ prompt: [1, 2, 3], vocabularySize: 4, contextLength: 9 });
    expect(starts[0]!.prefill!.logits.rows).toBe(2);
    expect(starts[0]!.prefill!.taps).toBe(hidden);
    expect(asked[0]).toEqual({ logits: "all", taps: ["hidden"] });
    for (const options of asked.slice(1)) expect(options).toEqual({ taps: ["hidden"] });

    const sampling = { temperature: 0, topK: Number.POSITIVE_INFINITY, topP: 0.5 };
    expect(contexts[0]).toEqual({ text: [1, 2, 3], maxNodes: 7, maxDepth: 3, ...sampling });
    let text = [1, 2, 3];
    steps.forEach((step, i) => {
      expect(contexts[i]).toMatchObject({ text, maxNodes: 10 - text.length, maxDepth: 6 - text.length });
      text = [...text, ...step.tokens];
      expect(passes[i]).toMatchObject({ draft: step.draft, path: step.path, token: step.tokens.at(-1) });
      expect(passes[i]!.logits.rows).toBe(step.draft.tokens.length);
      expect(passes[i]!.taps).toBe(hidden);
    });
    expect(passes).toHaveLength(steps.length);
    expect(closed).toBe(1);
    expect(generation.report.cost.draft).toEqual({ passes: 1, tokens: 2, multiplyAdds: 3, cacheBytesRead: 4 });
  });

  it("null for a prompt of one token, and no taps when it asked for none", () => {
    let told: DraftStart | undefined;
    let seen: VerifiedPass | undefined;
    const drafter: Drafter = {
      ...plainDecoding,
      open(start) {
        told = start;
        return {
          ...plainDecoding.open(start),
          observe: (pass) => {
            seen = pass;
          },
        };
      },
    };
    generate(target, [1], { drafter }).step();
    expect(told).toMatchObject({ prompt: [1], prefill: null });
    expect(seen).not.toHaveProperty("taps");
  });
});
