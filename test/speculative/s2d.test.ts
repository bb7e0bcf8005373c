import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FormatError } from "../../src/errors.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { Engine } from "../../src/model/engine.ts";
import type { LanguageModel, Matrix, Session } from "../../src/model/language-model.ts";
import { isMatrix, row } from "../../src/model/language-model.ts";
import { loadEmbedded, type RunningDecoder } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import type {
  Drafter,
  EarlyExitPass,
  LoadedSortedDraft,
  NestedModel,
  S2dOptions,
} from "../../src/speculative/index.ts";
import {
  Eagle2TreeDrafter,
  earlyExitModel,
  generate,
  generateAll,
  JointLaw,
  loadSkipDecode,
  loadSortedDraft,
  ModelDrafter,
  residualLaw,
  S2dDrafter,
} from "../../src/speculative/index.ts";
import { partFiles, readPart, serializePart } from "../../src/speculative/trained-parts.ts";
import { Random } from "../../src/tensor/random.ts";
import { draftOf, itIsLossless, target as tableTarget, unlike } from "./lossless-drafter.ts";
import { nestedTable } from "./nested-table.ts";
import { tinyConfig, tinyWeights } from "./tiny-target.ts";

/** The model, and the sessions opened on it, in the order of the exits. */
function watched(model: LanguageModel) {
  const sessions: Session[] = [];
  const openSession = (): Session => {
    const session = model.openSession();
    sessions.push(session);
    return session;
  };
  return { model: { vocabularySize: model.vocabularySize, contextLength: model.contextLength, openSession }, sessions };
}

describe("exits 6, 9 and 12, tokens that leave at 6, 9, 12, 6", () => {
  const leaves = [6, 9, 12, 6];
  const { model, sessions } = watched(TableModel.random({ vocabularySize: 4, order: 1, seed: 1 }));
  const passes: EarlyExitPass[] = [];
  const exits = earlyExitModel(
    // Sure of everything from the token's exit on, of nothing below it.
    nestedTable(model, 12, (depth, token) => (depth >= leaves[token]! ? 100 : 0)),
    { exits: [6, 9, 12], onPass: (pass) => passes.push(pass) },
  );
  const session = exits.openSession();
  /** Tokens each stage has taken: the buffers are the differences. */
  const lengths = [0, 1, 2, 3].map((token) => {
    session.extend([token]);
    return sessions.map(({ length }) => length);
  });

  it("take 42 rows times layers and 33 layers one after another, in place of 48 and 48", () => {
    expect(passes).toEqual([
      { exit: 6, layerRows: 6, layerCalls: 6 },
      { exit: 9, layerRows: 6 + 3 * 2, layerCalls: 9 },
      { exit: 12, layerRows: 6 + 3 + 3 * 3, layerCalls: 12 },
      { exit: 6, layerRows: 6, layerCalls: 6 },
    ]);
    expect(passes.reduce((sum, { layerRows }) => sum + layerRows, 0)).toBe(42);
    expect(passes.reduce((sum, { layerCalls }) => sum + layerCalls, 0)).toBe(33);
    expect(session.cost).toMatchObject({ passes: 1 + 2 + 3 + 1, tokens: 1 + (1 + 2) + (1 + 1 + 3) + 1 });
  });

  it("wait where they left: t1 above 6, t1 and t2 above 9, nobody, t4 above 6", () => {
    expect(lengths).toEqual([
      [1, 0, 0],
      [2, 2, 0],
      [3, 3, 3],
      [4, 3, 3],
    ]);
  });

  it("are cut back in every stage, and in what waits", () => {
    session.truncate(3);
    expect(sessions.map(({ length }) => length)).toEqual([3, 3, 3]);
    session.extend([0]);
    session.extend([0]);
    session.extend([1]);
    expect(sessions.map(({ length }) => length)).toEqual([6, 6, 3]);
    session.truncate(5);
    session.truncate(4);
    expect(sessions.map(({ length }) => length)).toEqual([4, 4, 3]);
    session.extend([3], { logits: "none" });
    // Had a state too many stayed, the double would refuse it.
    session.extend([2]);
    expect(sessions.map(({ length }) => length)).toEqual([6, 6, 6]);
  });
});

describe("on a decoder", async () => {
  const layers = 5;
  const config = { ...tinyConfig, layers, contextLength: 64 };
  const engine = await Engine.open(config, tinyWeights(config));
  const exits = [2, 3, 5];
  /** Logits after every token, from all tokens at once through the sub-model's layers. */
  const full = (tokens: readonly number[], exit: number): Matrix => {
    const session = engine.openSession();
    const chosen = Array.from({ length: exit }, (_, layer) => layer);
    const { logits } = session.extend(tokens, { layers: chosen, logits: "all" });
    session.close();
    return logits;
  };
  const distance = (a: Float32Array, b: Float32Array): number =>
    a.reduce(
      (worst, x, i) => Math.max(worst, Math.abs(x - b[i]!)),
      a.length === b.length ? 0 : Number.POSITIVE_INFINITY,
    );
  const tokens = fc.array(fc.nat(config.vocabularySize - 1), { minLength: 1, maxLength: 4 });
  /** Around what an untrained decoder is sure of, so that all exits are taken. */
  const threshold = fc.double({ min: 0.1, max: 0.5, noNaN: true });

  it("what left late gives the sub-model's own logits, whoever left early before it", () => {
    const taken = new Set<number>();
    fc.assert(
      fc.property(fc.array(tokens, { minLength: 1, maxLength: 8 }), threshold, threshold, (pieces, first, second) => {
        let exit = 0;
        const onPass = (pass: EarlyExitPass) => {
          exit = pass.exit;
          taken.add(exit);
        };
        const session = earlyExitModel(engine, { exits, thresholds: [first, second], onPass }).openSession();
        const text: number[] = [];
        for (const piece of pieces) {
          text.push(...piece);
          const { logits } = session.extend(piece);
          expect(logits.rows).toBe(1);
          expect(distance(row(logits, 0), row(full(text, exit), text.length - 1))).toBeLessThan(1e-5);
        }
        session.close();
      }),
      { numRuns: 60, seed: 1 },
    );
    expect([...taken].sort()).toEqual(exits);
  });

  it("once caught up, every key of every layer is that of a pass over the whole text", () => {
    /** The engine, noting the keys each layer computes, by position. */
    const noted: Float32Array[][] = Array.from({ length: layers }, () => []);
    const noting: NestedModel = {
      vocabularySize: engine.vocabularySize,
      contextLength: engine.contextLength,
      openSession() {
        const session = engine.openSession();
        const extend = session.extend.bind(session);
        session.extend = (input, options = {}) => {
          const first = session.length;
          const pass = extend(input, { ...options, taps: ["hidden", "keys"] });
          options.layers!.forEach((layer, l) => {
            for (let r = 0; r < (isMatrix(input) ? input.rows : input.length); r++) {
              noted[layer]![first + r] = row(pass.taps!.keys![l]!, r);
            }
          });
          return pass;
        };
        return session;
      },
    };
    const random = new Random("exits");
    const text = Array.from({ length: 30 }, () => random.integer(config.vocabularySize));
    const thresholds = [0.3, 0.2];
    const passes: EarlyExitPass[] = [];
    const session = earlyExitModel(noting, { exits, thresholds, onPass: (pass) => passes.push(pass) }).openSession();
    for (const token of text) session.extend([token]);
    expect(new Set(passes.map(({ exit }) => exit)).size).toBe(3);
    // One row that no exit is sure of: everything that waits runs.
    while (passes.at(-1)!.exit !== 5) {
      text.push(random.integer(config.vocabularySize));
      session.extend(text.slice(-1));
    }
    const whole = engine.openSession().extend(text, { taps: ["keys"] });
    for (let layer = 0; layer < layers; layer++) {
      expect(noted[layer]!.length).toBe(text.length);
      for (let position = 0; position < text.length; position++) {
        expect(distance(noted[layer]![position]!, row(whole.taps!.keys![layer]!, position))).toBeLessThan(1e-5);
      }
    }
  });

  it("after any acceptances and rejections goes on as if it had begun with the text that is left", () => {
    const operation = fc.oneof(
      tokens.map((ids) => ({ kind: "extend", ids }) as const),
      fc.nat(6).map((count) => ({ kind: "reject", count }) as const),
      fc.record({
        kind: fc.constant("tree" as const),
        ids: tokens,
        parents: fc.infiniteStream(fc.nat()),
        node: fc.nat(),
      }),
    );
    fc.assert(
      fc.property(
        fc.array(operation, { maxLength: 10 }),
        tokens,
        threshold,
        threshold,
        (steps, last, first, second) => {
          let exit = 0;
          const onPass = (pass: EarlyExitPass) => {
            exit = pass.exit;
          };
          const session = earlyExitModel(engine, { exits, thresholds: [first, second], onPass }).openSession();
          let text: number[] = [];
          for (const step of steps) {
            if (text.length > 40) break;
            if (step.kind === "extend") {
              session.extend(step.ids);
              text.push(...step.ids);
            } else if (step.kind === "reject") {
              text = text.slice(0, Math.max(0, text.length - step.count));
              session.truncate(text.length);
            } else {
              const parents = step.ids.map((_, node) => (step.parents.next().value % (node + 1)) - 1);
              const { logits } = session.score({ tokens: step.ids, parents });
              let accepted: number[] = [];
              step.ids.forEach((_, node) => {
                const path: number[] = [];
                for (let at = node; at >= 0; at = parents[at]!) path.unshift(step.ids[at]!);
                const alone = full([...text, ...path], exit);
                expect(distance(row(logits, node), row(alone, alone.rows - 1))).toBeLessThan(1e-5);
                if (node === step.node % step.ids.length) accepted = path;
              });
              session.accept(step.node % step.ids.length);
              text.push(...accepted);
            }
            expect(session.length).toBe(text.length);
          }
          text.push(...last);
          const { logits } = session.extend(last);
          const resumed = exit;
          const fresh = earlyExitModel(engine, { exits, thresholds: [first, second], onPass }).openSession();
          const anew = fresh.extend(text).logits;
          expect(exit).toBe(resumed);
          expect(distance(logits.data, anew.data)).toBeLessThan(1e-5);
          session.close();
          fresh.close();
        },
      ),
      { numRuns: 60, seed: 2 },
    );
  });

  it("with the last exit always taken is the model itself, with the first its lowest layers", () => {
    const text = [3, 1, 4, 1, 5];
    for (const [thresholds, exit] of [
      [[1, 1], 5],
      [[1, 0], 3],
      [[0, 0], 2],
    ] as const) {
      const session = earlyExitModel(engine, { exits, thresholds }).openSession();
      expect(distance(session.extend(text, { logits: "all" }).logits.data, full(text, exit).data)).toBeLessThan(1e-5);
      session.close();
    }
  });

  it("takes what a GPT-2 has not, and exits it has", async () => {
    const gpt2: NestedModel = {
      ...tableTarget,
      config: { layers: 3, architecture: "gpt2" },
      openSession: () => fail(),
    };
    const fail = (): never => {
      throw new Error("opened");
    };
    expect(() => earlyExitModel(gpt2, { exits: [1] })).toThrow(/Llama/);
    for (const wrong of [[], [0, 2], [2, 2], [3, 2], [1.5], [1, 6]]) {
      expect(() => earlyExitModel(engine, { exits: wrong }), String(wrong)).toThrow(/exits/);
    }
    for (const wrong of [[], [0.5], [0.5, 0.5, 0.5]]) {
      expect(() => earlyExitModel(engine, { exits, thresholds: wrong })).toThrow(/thresholds: expected one for each/);
    }
    expect(() => earlyExitModel(engine, { exits, thresholds: [0.5, -0.1] })).toThrow(/thresholds\[1\]/);
    expect(() => earlyExitModel(engine, { exits, thresholds: [Number.NaN, 0.1] })).toThrow(/thresholds\[0\]/);
    for (const gamma of [-1, 0.5, Number.NaN]) expect(() => new S2dDrafter(engine, { exits, gamma })).toThrow(/gamma/);
    expect(() => new S2dDrafter(engine, { exits, sampling: { temperature: -1 } })).toThrow(/temperature/);
    const session = earlyExitModel(engine, { exits }).openSession();
    expect(() => session.extend([1], { layers: [0] })).toThrow(/layers/);
    expect(() => session.extend([1], { taps: ["hidden"] })).toThrow(/taps/);
    expect(() => session.accept(0)).toThrow(/accept/);
    session.score({ tokens: [1, 2], parents: [-1, 0] });
    expect(() => session.accept(2)).toThrow(/node/);
    const embeddings = { data: new Float32Array(24), rows: 2, columns: 12 };
    expect(() => engine.openSession().score({ tokens: [1], parents: [-1] }, { embeddings })).toThrow(/embeddings/);
  });
});

describe("the length of a draft", () => {
  const lengths = (draft: TableModel, options: Partial<S2dOptions> = {}): number[] => {
    const drafter = new S2dDrafter(
      nestedTable(draft, 2, () => 1),
      { exits: [1, 2], ...options },
    );
    const generation = generate(tableTarget, [0], { drafter, maxTokens: 200 });
    const steps = [];
    for (let step = generation.step(); step !== undefined; step = generation.step()) steps.push(step);
    return steps.slice(0, 8).map(({ draft }) => draft.tokens.length - 1);
  };

  it("grows by two while everything is accepted", () => {
    expect(lengths(tableTarget)).toEqual([5, 7, 9, 11, 13, 15, 17, 19]);
  });

  it("falls by one, to one, while it is not", () => {
    const law = (context: readonly number[]): number[] => {
      const logits = tableTarget.logits(context);
      return Array.from(logits, (_, token) => +(token === (logits.indexOf(Math.max(...logits)) + 1) % 4));
    };
    expect(lengths(new TableModel({ vocabularySize: 4, order: 2, law }))).toEqual([5, 4, 3, 2, 1, 1, 1, 1]);
  });

  it("stays where it is not to adapt", () => {
    expect(lengths(tableTarget, { adaptive: false, gamma: 3 })).toEqual([3, 3, 3, 3, 3, 3, 3, 3]);
    expect(lengths(tableTarget, { gamma: 0 })).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  });
});

/** Some tokens leave at each exit. An embedded model has layers of its own: one. */
const drafterOf = (draft: NestedModel, options: Partial<S2dOptions> = {}) =>
  new S2dDrafter(
    "config" in draft ? draft : nestedTable(draft, 3),
    "config" in draft ? { exits: [1], ...options } : { exits: [1, 2, 3], thresholds: [0.35, 0.38], ...options },
  );

itIsLossless((draft, options) => drafterOf(draft, { ...options, gamma: 2, adaptive: false }));

describe("laws", () => {
  it("are those of the exit each guess left at", () => {
    const passes: EarlyExitPass[] = [];
    const thresholds = [0.35, 0.38];
    const nested = nestedTable(unlike, 3);
    const seen = new Set<number>();
    for (let token = 0; token < 4; token++) {
      passes.length = 0;
      const drafter = new S2dDrafter(nested, { exits: [1, 2, 3], thresholds, onPass: (pass) => passes.push(pass) });
      const { tokens, laws } = draftOf(drafter, [token], { maxDepth: 6 });
      expect(passes.length).toBe(tokens.length - 1);
      for (let node = 1; node < tokens.length; node++) {
        const { exit } = passes[node - 1]!;
        seen.add(exit);
        const weights = Array.from(unlike.logits([tokens[node - 1]!]), (logit) => Math.exp((logit * exit) / 3));
        const sum = weights.reduce((a, b) => a + b, 0);
        weights.forEach((weight, i) => {
          expect(laws[node]![i]).toBeCloseTo(weight / sum, 5);
        });
        const sure = Math.max(...weights) / sum;
        if (exit < 3) expect(sure).toBeGreaterThan(thresholds[exit - 1]!);
      }
    }
    expect([...seen].sort()).toEqual([1, 2, 3]);
  });

  it("p = [.3, .4, .3], q = [.6, .3, .1]: the arg-max stated as drawn gives [.5, .1667, .3333], drawn or chosen gives p", () => {
    const p = [0.3, 0.4, 0.3];
    const q = [0.6, 0.3, 0.1];
    // By formula: guess 0 always, kept half the time, else the residual.
    const kept = p[0]! / q[0]!;
    const residual = residualLaw(Float64Array.from(p), Float64Array.from(q));
    const biased = Array.from(residual, (r, token) => (token === 0 ? kept : 0) + (1 - kept) * r);
    [0.5, 1 / 6, 1 / 3].forEach((expected, token) => {
      expect(biased[token]).toBeCloseTo(expected, 12);
    });
    expect(biased.reduce((sum, b, token) => sum + Math.abs(b - p[token]!) / 2, 0)).toBeCloseTo(0.2333, 4);

    const target = TableModel.fromRows([p]);
    const draft = nestedTable(TableModel.fromRows([q]), 2, () => 1);
    const draws = process.env["TOKENTHRIFT_FULL"] === undefined ? 4_000 : 400_000;
    const fitOf = (drafter: Drafter) => {
      const law = new JointLaw(target, [0], { drafter, temperature: 1 });
      law.draw(draws);
      return law.fit;
    };
    for (const sampling of [undefined, { temperature: 0 }]) {
      const drafter = new S2dDrafter(draft, { exits: [1, 2], ...(sampling && { sampling }) });
      expect(fitOf(drafter).pValue).toBeGreaterThan(1e-3);
    }
    expect(fitOf(new ArgMaxStatedAsDrawn(earlyExitModel(draft, { exits: [1, 2] }))).pValue).toBeLessThan(1e-9);
  });
});

/** What the released code does. */
class ArgMaxStatedAsDrawn extends ModelDrafter {
  protected override grow(tree: Parameters<ModelDrafter["grow"]>[0]): void {
    for (let node = 0; tree.depths[node]! < Math.min(3, tree.room, tree.maxDepth); ) {
      const law = tree.law(node);
      if (law === null) break;
      node = tree.add(node, law.indexOf(Math.max(...law)), law);
    }
  }
}

describe("the sorted draft that comes with the package", () => {
  let draft: LoadedSortedDraft;
  /** The embedded pair, and the target tuned for SkipDecode, at full depth. */
  const targets: RunningDecoder[] = [];
  let prompts: Uint32Array[];
  beforeAll(async () => {
    draft = await loadSortedDraft();
    for (const which of ["target", "draft"] as const) {
      const { model, tokenizer } = await loadEmbedded(which);
      targets.push(model);
      prompts = heldOutPrompts.slice(0, 4).map(({ text }) => tokenizer.encode(text));
    }
    targets.push((await loadSkipDecode()).model);
  });
  afterAll(() => {
    for (const model of [draft.model, ...targets]) model.close();
  });

  /** Tokens and target passes of greedy text, equal to plain decoding's, and the passes that drafted it. */
  async function run(target: LanguageModel, drafterOf: (onPass: (pass: EarlyExitPass) => void) => Drafter) {
    const passes: EarlyExitPass[] = [];
    let [tokens, targetPasses] = [0, 0];
    for (const prompt of prompts) {
      const plain = await generateAll(target, prompt, { maxTokens: 24 });
      const drafter = drafterOf((pass) => passes.push(pass));
      const report = await generateAll(target, prompt, { maxTokens: 24, drafter });
      expect(report.tokens).toEqual(plain.tokens);
      tokens += report.tokens.length;
      targetPasses += report.targetPasses;
    }
    const layerCalls = passes.reduce((sum, pass) => sum + pass.layerCalls, 0);
    return { tokensPerPass: tokens / targetPasses, passes, layerCallsPerToken: layerCalls / tokens };
  }

  it("serves three models, fine-tuned for none: the text of each remains, as chain and as tree", async () => {
    const options = { exits: draft.exits, thresholds: [0.5, 0.5] };
    for (const target of targets) {
      const chain = await run(target, (onPass) => new S2dDrafter(draft.model, { ...options, onPass }));
      expect(new Set(chain.passes.map(({ exit }) => exit))).toEqual(new Set(draft.exits));
      const model = (onPass: (pass: EarlyExitPass) => void) => earlyExitModel(draft.model, { ...options, onPass });
      const tree = await run(target, (onPass) => new Eagle2TreeDrafter(model(onPass), { maxDepth: 4 }));
      for (const { tokensPerPass } of [chain, tree]) expect(tokensPerPass).toBeGreaterThan(1.4);
    }
  });

  it("takes fewer layers with exits than without, and guesses better after one layer than an untuned model", async () => {
    const drafter = (model: NestedModel, exits: readonly number[]) => (onPass: (pass: EarlyExitPass) => void) =>
      new S2dDrafter(model, { exits, onPass, adaptive: false });
    const [target] = targets as [RunningDecoder];
    const adaptive = await run(target, drafter(draft.model, [1, 2, 3]));
    const deep = await run(target, drafter(draft.model, [3]));
    expect(adaptive.layerCallsPerToken).toBeLessThan(0.9 * deep.layerCallsPerToken);
    const shallow = await run(target, drafter(draft.model, [1]));
    const untuned = await run(target, drafter(target, [1]));
    expect(shallow.tokensPerPass).toBeGreaterThan(untuned.tokensPerPass + 0.2);
  });

  it("predicts held-out text better the deeper the exit, as its record says", () => {
    const { heldOutBitsPerToken } = draft.training as { heldOutBitsPerToken: { bitsPerToken: number[] } };
    const [one, two, three] = heldOutBitsPerToken.bitsPerToken as [number, number, number];
    expect(one).toBeGreaterThan(two);
    expect(two).toBeGreaterThan(three);
    expect(three).toBeGreaterThan(1);
  });

  it("is refused where its metadata is damaged", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tokenthrift-draft-"));
    try {
      const { weights, details } = await readPart("sorted-draft");
      for (const [changes, problem] of [
        [{ exits: undefined }, /no exits/],
        [{ exits: [1, 4] }, /exits/],
        [{ config: { ...draft.model.config, heads: 0 } }, /heads/],
      ] as const) {
        const damaged = { kind: "sorted-draft", weights, details: { ...(details as object), ...changes } } as const;
        await writeFile(join(folder, partFiles.weights), serializePart(damaged));
        await expect(loadSortedDraft({ folder })).rejects.toThrow(FormatError);
        await expect(loadSortedDraft({ folder })).rejects.toThrow(problem);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
