import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import { heldOutEdits } from "../../src/held-out-edits.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import { HardwareAwareDrafter, type HardwareAwareOptions } from "../../src/speculative/hardware-aware-drafter.ts";
import {
  ChainDrafter,
  type Drafter,
  generate,
  generateAll,
  promptLookupDrafter,
  type Report,
  verifyLossless,
} from "../../src/speculative/index.ts";
import { flatPassCosts, type PassCosts, passCost } from "../../src/speculative/pass-costs.ts";

/** Every node costs a pass, as on a processor with nothing to wait for. */
const linear: PassCosts = { nodes: [1, 2], costs: [1, 2] };
/** What the kernel engine's embedded target looks like. */
const steep: PassCosts = { nodes: [1, 2, 4, 8], costs: [1, 1.5, 2.8, 5.5] };

const sizes = { vocabularySize: 8, contextLength: 4000 };
const target = TableModel.random({ ...sizes, order: 2, seed: "target", sharpness: 2 });
const stranger = TableModel.random({ ...sizes, order: 1, seed: "stranger", sharpness: 2 });
/** Right for a while, then wrong for a while. */
const moody = new TableModel({
  ...sizes,
  order: 3,
  law: (context) => (context[0]! < 5 ? target.law(context.slice(-2)) : stranger.law(context.slice(-1))),
});

const maxTokens = 1500;
const run = (drafter: Drafter, temperature = 0): Promise<Report> =>
  generateAll(target, [0, 1], { drafter, maxTokens, temperature, seed: 3 });

/** Cost of a generation in passes over one node, step by step, drafting not counted. */
function stepCosts(drafter: Drafter, costs: PassCosts, temperature: number): number {
  const generation = generate(target, [0, 1], { drafter, maxTokens, temperature, seed: 3 });
  let cost = 0;
  for (let step = generation.step(); step !== undefined; step = generation.step()) {
    cost += passCost(costs, step.draft.tokens.length);
  }
  return cost;
}

describe("the hardware-aware drafter", () => {
  const aware = (draft: TableModel, options: HardwareAwareOptions): HardwareAwareDrafter =>
    new HardwareAwareDrafter(new ChainDrafter(draft, { gamma: 63 }), options);

  it.each([0, 1])("is never slower than plain decoding by more than 3 %, at temperature %s", (temperature) => {
    for (const draft of [stranger, moody, target]) {
      for (const passCosts of [linear, steep, flatPassCosts]) {
        const cost = stepCosts(aware(draft, { passCosts }), passCosts, temperature);
        expect(cost / maxTokens).toBeLessThan(1.03);
      }
    }
  });

  it("leaves hardly anything to its drafter where passes are flat: one bad step makes no size look useless for good", async () => {
    const { model, tokenizer } = await loadEmbedded("target");
    const tokensPerPass = async (drafter: Drafter): Promise<number> => {
      let [tokens, passes] = [0, 0];
      for (const { original, edited } of heldOutEdits) {
        const report = await generateAll(model, tokenizer.encode(original + edited), { drafter, maxTokens: 48 });
        tokens += report.tokens.length;
        passes += report.targetPasses;
      }
      return tokens / passes;
    };
    const inner = promptLookupDrafter({ maxNgramSize: 3, predictedTokens: 15 });
    const alone = await tokensPerPass(inner);
    expect(alone).toBeGreaterThan(1.8);
    expect(await tokensPerPass(new HardwareAwareDrafter(inner, { passCosts: flatPassCosts }))).toBeGreaterThan(
      0.93 * alone,
    );
    model.close();
  });

  it("guesses far ahead where passes are flat and guesses right, and not at all where nothing can be won", async () => {
    const far = await run(aware(target, { passCosts: flatPassCosts }));
    expect(far.tokensPerPass).toBeGreaterThan(20);
    const not = await run(aware(target, { passCosts: { nodes: [1, 2], costs: [1, 2.5] } }));
    expect(not.tokensPerPass).toBeLessThan(1.02);
  });

  it("wins where a fixed number of guesses loses: right at times, on steep costs", () => {
    const costs: PassCosts = { nodes: [1, 2, 4, 8], costs: [1, 1.3, 1.9, 3.1] };
    const follows = stepCosts(aware(moody, { passCosts: costs }), costs, 0);
    expect(follows).toBeLessThan(maxTokens);
    for (const gamma of [1, 3, 7]) {
      // A fixed chain pays for all its guesses in every step.
      expect(follows).toBeLessThan(stepCosts(new ChainDrafter(moody, { gamma }), costs, 0));
    }
  });

  it("counts what drafting costs: a draft model that is dear is left alone", async () => {
    const cheap = await run(aware(target, { passCosts: flatPassCosts }));
    const dear = await run(aware(target, { passCosts: flatPassCosts, drafting: { perStep: 0, perGuess: 1.1 } }));
    expect(cheap.drafted).toBeGreaterThan(0);
    expect(dear.tokensPerPass).toBeLessThan(1.02);
  });

  it("changes no token at temperature 0, keeps to its budgets, and starts anew after reset", async () => {
    const plain = await generateAll(target, [0, 1], { maxTokens });
    const drafter = aware(moody, { passCosts: steep, budgets: [2, 5] });
    const first = await run(drafter);
    expect(first.tokens).toEqual(plain.tokens);
    const again = await run(drafter);
    expect(again.tokens).toEqual(plain.tokens);
    drafter.reset();
    expect(await run(drafter)).toEqual(first);
    for (const { positions } of [first, again]) expect(positions.length).toBeLessThanOrEqual(4);
  });

  it("is lossless, whatever it wraps and whatever passes cost", async () => {
    for (const passCosts of [steep, flatPassCosts]) {
      const report = await verifyLossless(
        (draft) => ({ drafter: new HardwareAwareDrafter(new ChainDrafter(draft, { gamma: 5 }), { passCosts }) }),
        { draws: 1000 },
      );
      expect(report.kind, report.text).toBe("lossless");
    }
  }, 30_000);

  it("refuses budgets that do not grow and costs that are none", () => {
    const inner = new ChainDrafter(target, { gamma: 2 });
    for (const budgets of [[1], [2, 2], [3, 2], [2.5]]) {
      expect(() => new HardwareAwareDrafter(inner, { passCosts: steep, budgets })).toThrow(ArgumentError);
    }
    for (const passCosts of [
      { nodes: [], costs: [] },
      { nodes: [2], costs: [1] },
      { nodes: [1, 2], costs: [1] },
      { nodes: [1], costs: [0] },
    ]) {
      expect(() => new HardwareAwareDrafter(inner, { passCosts })).toThrow(ArgumentError);
    }
    const drafting = { perStep: -1, perGuess: 0 };
    expect(() => new HardwareAwareDrafter(inner, { passCosts: steep, drafting })).toThrow(ArgumentError);
  });
});
