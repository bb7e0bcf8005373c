/**
 * Every drafter `src/speculative/index.ts` exports, by the name of its export, and how to make one for a draft model.
 * Another way to make the same one has a word after the name.
 */
import { openKernels } from "../../src/kernels/kernels.ts";
import type { LanguageModel } from "../../src/model/language-model.ts";
import type { HeadTarget, StrategyFactory } from "../../src/speculative/index.ts";
import {
  ChainDrafter,
  ChimeraDrafter,
  ChimeraHeads,
  DySpecDrafter,
  Eagle2TreeDrafter,
  earlyExitModel,
  HardwareAwareDrafter,
  LookaheadDrafter,
  MedusaDrafter,
  MedusaHeads,
  plainDecoding,
  promptLookupDrafter,
  RsdCDrafter,
  RsdSDrafter,
  randomDrafter,
  S2dDrafter,
  SequoiaDrafter,
  SpecInferDrafter,
  TokenRecyclingDrafter,
} from "../../src/speculative/index.ts";
import type { ConformanceOptions } from "./drafter-conformance.ts";
import { withHidden } from "./hidden-table.ts";
import { nestedTable } from "./nested-table.ts";
import { chimeraWeights, medusaWeights, tinyConfig, tinyTarget } from "./tiny-target.ts";

/** A machine on which 4 nodes cost 2 passes: some guesses pay, many do not. */
const passCosts = { nodes: [1, 4, 16], costs: [1, 2, 5] };

const space = await openKernels();
/** Untrained heads for a vocabulary, made once. */
function untrained<Heads>(make: (target: HeadTarget) => Heads): (model: LanguageModel) => Heads {
  const made = new Map<number, Heads>();
  return ({ vocabularySize }) => {
    const heads = made.get(vocabularySize) ?? make(tinyTarget({ ...tinyConfig, vocabularySize }));
    made.set(vocabularySize, heads);
    return heads;
  };
}
const medusa = untrained((target) => new MedusaHeads(target, medusaWeights(target, 2), space));
const chimera = untrained((target) => new ChimeraHeads(target, chimeraWeights(target, 3), space));
/** Eight ranks a level. */
const accuracies = [0, 1].map(() => [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]);
const ofHeads: ConformanceOptions = { ownPasses: true, dress: (table) => withHidden(table, tinyConfig.width) };

export const drafters: Record<string, readonly [StrategyFactory, ConformanceOptions?]> = {
  plainDecoding: [() => ({ drafter: plainDecoding }), { idle: true }],
  randomDrafter: [() => ({ drafter: randomDrafter() })],
  ChainDrafter: [(draft) => ({ drafter: new ChainDrafter(draft) })],
  "ChainDrafter (arg-max)": [(draft) => ({ drafter: new ChainDrafter(draft, { sampling: { temperature: 0 } }) })],
  SpecInferDrafter: [(draft) => ({ drafter: new SpecInferDrafter(draft) })],
  RsdCDrafter: [(draft) => ({ drafter: new RsdCDrafter(draft) })],
  RsdSDrafter: [(draft) => ({ drafter: new RsdSDrafter(draft) })],
  S2dDrafter: [(draft) => ({ drafter: new S2dDrafter(nestedTable(draft, 3), { exits: [1, 2, 3] }) })],
  "S2dDrafter (arg-max)": [
    (draft) => ({
      drafter: new S2dDrafter(nestedTable(draft, 6), {
        exits: [2, 5],
        thresholds: [0.4],
        adaptive: false,
        sampling: { temperature: 0 },
      }),
    }),
  ],
  "Eagle2TreeDrafter (S2D's model)": [
    (draft) => {
      const model = earlyExitModel(nestedTable(draft, 3), { exits: [1, 2, 3], thresholds: [0.4, 0.6] });
      return { drafter: new Eagle2TreeDrafter(model, { topK: 4, maxDepth: 4, budget: 20 }) };
    },
  ],
  SequoiaDrafter: [(draft) => ({ drafter: new SequoiaDrafter(draft, { acceptance: [0.6, 0.2, 0.08] }) })],
  DySpecDrafter: [(draft) => ({ drafter: new DySpecDrafter(draft) })],
  "DySpecDrafter (threshold)": [(draft) => ({ drafter: new DySpecDrafter(draft, { threshold: 0.1 }) })],
  "DySpecDrafter (depth first)": [(draft) => ({ drafter: new DySpecDrafter(draft, { order: "depth-first" }) })],
  Eagle2TreeDrafter: [(draft) => ({ drafter: new Eagle2TreeDrafter(draft) })],
  MedusaDrafter: [(draft) => ({ drafter: new MedusaDrafter(medusa(draft), { accuracies, budget: 20 }) }), ofHeads],
  ChimeraDrafter: [
    (draft) => ({ drafter: new ChimeraDrafter(chimera(draft), { accuracies: [...accuracies, [0.5]], budget: 20 }) }),
    ofHeads,
  ],
  promptLookupDrafter: [() => ({ drafter: promptLookupDrafter() })],
  LookaheadDrafter: [() => ({ drafter: new LookaheadDrafter() }), { learns: true }],
  TokenRecyclingDrafter: [() => ({ drafter: new TokenRecyclingDrafter() }), { learns: true }],
  HardwareAwareDrafter: [
    (draft) => ({ drafter: new HardwareAwareDrafter(new ChainDrafter(draft), { passCosts }) }),
    { learns: true },
  ],
  "HardwareAwareDrafter (tree)": [
    (draft) => ({ drafter: new HardwareAwareDrafter(new DySpecDrafter(draft), { passCosts }) }),
    { learns: true },
  ],
};
