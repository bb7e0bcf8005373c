/**
 * The pictures of the technique pages: `npx tsx scripts/technique-pictures.ts [name ..]` writes
 * docs/images/techniques/<name>.svg, of all techniques or of those named. Each is a run of its technique on the embedded
 * pair, with one prompt and one seed for all; nothing in them is drawn by hand.
 *
 * Of a run the first step is shown that accepts two guesses or more and turns one away, or else the one that accepts most.
 * Drafts are smaller than the defaults where those would fill more than a page.
 */
import { join } from "node:path";
import { nodeDeclarations } from "../src/corpus.ts";
import { layerPicture } from "../src/demo/layer-picture.ts";
import { linePlot } from "../src/demo/plot.ts";
import { fatesOf, treePicture } from "../src/demo/tree-picture.ts";
import { ArgumentError } from "../src/errors.ts";
import { writeFilesAtomic } from "../src/files.ts";
import { heldOutEdits } from "../src/held-out-edits.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { readCheckpoint } from "../src/model/checkpoint.ts";
import { embeddedFolder } from "../src/model/embedded.ts";
import { row } from "../src/model/language-model.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  embeddingTables,
  loadHypernetwork,
  meanOfPieces,
  measureMergedPrefill,
  measureTokenizationBias,
  randomEmbeddings,
} from "../src/retokenization/index.ts";
import {
  ChainDrafter,
  ChimeraDrafter,
  type Drafter,
  DySpecDrafter,
  Eagle2TreeDrafter,
  flatPassCosts,
  type GenerateOptions,
  generate,
  generateAll,
  HardwareAwareDrafter,
  LookaheadDrafter,
  loadChimeraHeads,
  loadMedusaHeads,
  loadSkipDecode,
  loadSortedDraft,
  MedusaDrafter,
  plainDecoding,
  positionalAcceptance,
  promptLookupDrafter,
  RsdCDrafter,
  RsdSDrafter,
  randomDrafter,
  recursiveRejectionSampling,
  recyclingTemplate,
  S2dDrafter,
  SequoiaDrafter,
  SpecInferDrafter,
  type Step,
  skipDecode,
  TokenRecyclingDrafter,
  tokenLaw,
  typicalAcceptance,
  type Verification,
  type Verifier,
} from "../src/speculative/index.ts";
import type { CurvePoint } from "../src/training/index.ts";

const { model: target, tokenizer } = await loadEmbedded("target");
const { model: draft } = await loadEmbedded("draft");
const [edit] = heldOutEdits as [(typeof heldOutEdits)[number]];
const prompt = tokenizer.encode(edit.original + edit.edited);
const run = { seed: 0, maxTokens: 64 };
const sampled = { temperature: 1 };

/** A step, with what it took and what came before it. */
interface SeenStep {
  readonly step: Step;
  /** The text before the step, the pending token last. */
  readonly text: readonly number[];
  /** The target's probability of each guess after its path, at the temperature of the run. */
  readonly p: readonly number[];
}

const shown = (probability: number): string => probability.toFixed(2).replace(/^0/, "");
/** The probability a guess was drawn with; nothing where it was chosen. */
const drawnWith = ({ step: { draft } }: SeenStep, node: number): string => {
  const law = draft.laws[node];
  return law ? `q ${shown(law[draft.tokens[node]!]!)}` : "";
};

/** The target's probability of a guess. */
const targetGives = ({ p }: SeenStep, node: number): string => `p ${shown(p[node]!)}`;

/** A technique whose picture is the tree of one step. */
interface TreeOfStep {
  readonly title: string;
  readonly drafter: () => Drafter | Promise<Drafter>;
  /** Whether the other edits come before the run that is shown, for drafters that learn. Default false. */
  readonly warm?: boolean;
  /** Default temperature 0. */
  readonly sampling?: Pick<GenerateOptions, "temperature">;
  /** Default recursive rejection sampling. */
  readonly verifier?: Verifier;
  /** Stands below a guess. Default nothing. */
  readonly note?: (step: SeenStep, node: number) => string;
}

/** Layers each guess of a draft ran, for techniques that differ in that. */
const layersOf = new WeakMap<Step["draft"], readonly number[]>();

/** The drafter, and in `layersOf` where each of its guesses left the draft model. */
async function earlyExits(): Promise<Drafter> {
  const { model, exits } = await loadSortedDraft();
  let left: number[] = [];
  const inner = new S2dDrafter(model, { exits, onPass: ({ exit }) => left.push(exit) });
  return {
    vocabularySize: inner.vocabularySize,
    open(start) {
      const drafting = inner.open(start);
      return {
        get cost() {
          return drafting.cost;
        },
        propose(context) {
          left = [];
          const draft = drafting.propose(context);
          if (left.length !== draft.tokens.length - 1) throw new Error("a pass for each guess, and none besides");
          layersOf.set(draft, left);
          return draft;
        },
        observe: (pass) => drafting.observe(pass),
        close: () => drafting.close(),
      };
    },
    reset: () => inner.reset(),
  };
}

const trees: Record<string, TreeOfStep> = {
  "plain-decoding": { title: "Plain decoding", drafter: () => plainDecoding },
  "random-drafter": { title: "Random drafter", drafter: () => randomDrafter() },
  "speculative-sampling": {
    title: "Chain speculative sampling",
    drafter: () => new ChainDrafter(draft),
    sampling: sampled,
    note: (seen, node) => `${drawnWith(seen, node)}  ${targetGives(seen, node)}`,
  },
  specinfer: {
    title: "SpecInfer",
    drafter: () => new SpecInferDrafter(draft),
    sampling: sampled,
    note: drawnWith,
  },
  "rsd-c": { title: "RSD-C", drafter: () => new RsdCDrafter(draft), sampling: sampled, note: drawnWith },
  "rsd-s": { title: "RSD-S", drafter: () => new RsdSDrafter(draft), sampling: sampled, note: drawnWith },
  sequoia: {
    title: "Sequoia",
    drafter: async () => {
      const others = heldOutPrompts.map(({ text }) => tokenizer.encode(text));
      const acceptance = await positionalAcceptance(target, draft, others, { width: 8, maxTokens: 32 });
      return new SequoiaDrafter(draft, { acceptance, budget: 12 });
    },
  },
  dyspec: { title: "DySpec", drafter: () => new DySpecDrafter(draft, { budget: 12 }), note: drawnWith },
  "eagle2-tree": { title: "EAGLE-2's dynamic tree", drafter: () => new Eagle2TreeDrafter(draft, { budget: 12 }) },
  medusa: { title: "Medusa", drafter: medusa },
  "typical-acceptance": {
    title: "Medusa with typical acceptance",
    drafter: medusa,
    sampling: sampled,
    verifier: typicalAcceptance(),
    note: targetGives,
  },
  chimera: {
    title: "Chimera",
    drafter: async () => {
      const { heads, accuracies } = await loadChimeraHeads();
      return new ChimeraDrafter(heads, { accuracies, budget: 12 });
    },
  },
  s2d: {
    title: "S2D",
    drafter: earlyExits,
    note: ({ step }, node) => {
      const layers = layersOf.get(step.draft)![node - 1];
      return layers === 1 ? "1 layer" : `${layers} layers`;
    },
  },
  "prompt-lookup": { title: "Prompt lookup decoding", drafter: () => promptLookupDrafter() },
  "token-recycling": {
    title: "Token recycling",
    drafter: () =>
      new TokenRecyclingDrafter({ template: recyclingTemplate.filter((path) => path.every((rank) => rank < 2)) }),
    warm: true,
  },
  lookahead: {
    title: "Lookahead",
    drafter: () => new LookaheadDrafter({ decodingLength: 24, branchLength: 8 }),
    warm: true,
  },
};

async function medusa(): Promise<Drafter> {
  const { heads, accuracies } = await loadMedusaHeads();
  return new MedusaDrafter(heads, { accuracies, budget: 12 });
}

/** All steps of a run on the prompt. */
async function stepsOf(
  drafter: Drafter,
  sampling: Pick<GenerateOptions, "temperature"> = {},
  method: Verifier = recursiveRejectionSampling,
): Promise<SeenStep[]> {
  const seen: SeenStep[] = [];
  const text = Array.from(prompt);
  let verified: Verification | undefined;
  const verifier = {
    verify: (verification: Verification) => {
      verified = verification;
      return method.verify(verification);
    },
  };
  for (const generation = generate(target, prompt, { ...run, ...sampling, drafter, verifier }); ; ) {
    const step = generation.step();
    if (step === undefined) return seen;
    const { draft, logits, sampling } = verified!;
    const p = Array.from(draft.parents, (parent, node) =>
      parent < 0 ? 1 : tokenLaw(row(logits, parent), sampling)[draft.tokens[node]!]!,
    );
    seen.push({ step, text: text.slice(), p });
    text.push(...step.tokens);
  }
}

/** The step to show. */
function telling(steps: readonly SeenStep[]): SeenStep {
  const accepted = ({ step }: SeenStep): number => step.path.length - 1;
  return (
    steps.find((seen) => accepted(seen) >= 2 && fatesOf(seen.step).includes("rejected")) ??
    steps.reduce((best, seen) => (accepted(seen) > accepted(best) ? seen : best))
  );
}

/** Lets a drafter learn from the other edits. */
async function warmUp(drafter: Drafter): Promise<Drafter> {
  for (const { original, edited } of heldOutEdits.slice(1)) {
    await generateAll(target, tokenizer.encode(original + edited), { ...run, drafter });
  }
  return drafter;
}

async function treeOf(
  name: string,
  { title, drafter, warm = false, sampling, verifier, note }: TreeOfStep,
): Promise<string> {
  const made = await drafter();
  const seen = telling(await stepsOf(warm ? await warmUp(made) : made, sampling, verifier));
  const { draft, path } = seen.step;
  return treePicture({
    id: name,
    title: `${title}: one step`,
    description:
      `${draft.tokens.length - 1} guesses, drafted and scored in one pass of the target; ${path.length - 1} accepted, and ` +
      "one token of the target's own after them.",
    step: seen.step,
    decode: (ids) => tokenizer.decode(ids),
    context: tokenizer.decode(seen.text),
    ...(note !== undefined && { note: (node: number) => note(seen, node) }),
    standalone: true,
  });
}

/** Hardware-aware drafting is no tree but a choice, step by step: how many guesses on two machines. */
async function guessesByMachine(): Promise<string> {
  const machines = {
    "wide passes cost nothing": flatPassCosts,
    // Like the engine's in docs/results.md.
    "a pass costs its arithmetic": { nodes: [1, 2, 4, 8, 16], costs: [1, 1.4, 2.6, 5.1, 10.3] },
  };
  const series = [];
  for (const [name, passCosts] of Object.entries(machines)) {
    const inner = promptLookupDrafter({ maxNgramSize: 3, predictedTokens: 15 });
    const steps = await stepsOf(new HardwareAwareDrafter(inner, { passCosts }));
    series.push({ name, points: steps.map(({ step }, i) => [i + 1, step.draft.tokens.length - 1] as const) });
  }
  return linePlot({
    id: "hardware-aware-drafting",
    title: "Hardware-aware drafting: guesses by step",
    description: series
      .map(
        ({ name, points }) =>
          `Where ${name}: ${points.length} passes, ${points.reduce((sum, [, y]) => sum + y, 0)} guesses.`,
      )
      .join(" "),
    series,
    xLabel: "target pass",
    yLabel: "guesses",
    yFrom: 0,
    standalone: true,
  });
}

/** SkipDecode drafts nothing: which layers ran at which position, in a run of its own. */
async function layersByPosition(): Promise<string> {
  // A prompt no longer than the schedule's, so that all of its columns are seen.
  const prompt = tokenizer.encode(heldOutPrompts[0]!.text);
  const { model, schedule } = await loadSkipDecode();
  const ran: number[][] = [];
  const skipping = skipDecode(model, schedule, {
    promptLength: prompt.length,
    onPass: ({ columns, layers }) => ran.push(...columns.map(() => Array.from(layers))),
  });
  const maxTokens = schedule.length - schedule.promptLength;
  await generateAll(skipping, prompt, { maxTokens });
  const executions = ran.slice(prompt.length).reduce((sum, layers) => sum + layers.length, 0);
  return layerPicture({
    id: "skipdecode",
    title: "SkipDecode: layers by position",
    description:
      `All ${schedule.layers} layers over the prompt, then ever fewer, from ${schedule.most} to ${schedule.least}: ` +
      `${executions} layer executions for ${ran.length - prompt.length} tokens.`,
    layers: schedule.layers,
    ran,
    promptLength: prompt.length,
    standalone: true,
  });
}

/** Dynamic merging: what rows saved in a prefix cost in bits behind it, by what predicts the embeddings. */
async function bitsByRows(): Promise<string> {
  const { config, tensors } = await readCheckpoint(embeddedFolder("target"));
  const tables = embeddingTables(config, tensors);
  const unseen = nodeDeclarations().heldOut.map(({ text }) => text);
  const ids = tokenizer.encode(unseen.join(""), { disallowedSpecial: [] }).subarray(0, 4 * 32 * 192);
  const { hypernetwork } = await loadHypernetwork();
  const series = [hypernetwork, meanOfPieces(tables), randomEmbeddings(tables)].map((made) => {
    const measured = measureMergedPrefill(target, ids, made, { tokenizer });
    return { name: made.name, points: measured.map(({ rows, loss }) => [100 * (1 - rows), 100 * loss] as const) };
  });
  return linePlot({
    id: "dynamic-merging",
    title: "Dynamic merging: bits lost against rows saved",
    description: series
      .map(({ name, points }) => {
        const [saved, lost] = points.at(-1)!;
        return `${name}: ${lost.toFixed(1)} % more bits per byte where ${saved.toFixed(0)} % of the rows are saved.`;
      })
      .join(" "),
    series,
    xLabel: "rows of the prefix saved, %",
    yLabel: "bits per byte behind it, % more",
    yFrom: 0,
    standalone: true,
  });
}

/** Exact byte probabilities draft nothing: how often the rest of a cut token comes out, by where it was cut. */
async function completionByOffset(): Promise<string> {
  const texts = nodeDeclarations().heldOut.map(({ text }) => text);
  const { continuations, tokens } = measureTokenizationBias(target, tokenizer, texts, { cuts: 300 });
  return linePlot({
    id: "exact-byte-probabilities",
    title: "Prompts cut inside a token: how often its rest is written",
    description:
      `${tokens} tokens of held-out declarations, cut at every place. Inside a token: ` +
      `${continuations.map(({ name, inside }) => `${name} ${(100 * inside.greedyAccuracy).toFixed(0)} %`).join(", ")}.`,
    series: continuations.map(({ name, byOffset }) => ({
      name,
      points: byOffset.map(({ greedyAccuracy }, offset) => [offset, 100 * greedyAccuracy] as const),
    })),
    xLabel: "bytes of the token in the prompt (the last: so many or more)",
    yLabel: "rest written, %",
    yFrom: 0,
    standalone: true,
  });
}

/** ZeTT: the hypernetwork's losses while it learned, as its training recorded them. */
async function hypernetworkCurve(): Promise<string> {
  const { training } = await loadHypernetwork();
  const { curve } = training as { readonly curve: readonly CurvePoint[] };
  const [first, last] = [curve[0]!, curve.at(-1)!];
  return linePlot({
    id: "zett",
    title: "The hypernetwork learns: loss in sampled tokenizers",
    description: `Held-out text: ${first.validationLoss.toFixed(2)} at step ${first.step}, ${last.validationLoss.toFixed(2)} at step ${last.step}.`,
    series: [
      { name: "training", points: curve.map(({ step, trainingLoss }) => [step, trainingLoss] as const) },
      { name: "held out", points: curve.map(({ step, validationLoss }) => [step, validationLoss] as const) },
    ],
    xLabel: "steps",
    yLabel: "nats per token, auxiliary loss included",
    standalone: true,
  });
}

const pictures: Record<string, () => Promise<string>> = {
  ...Object.fromEntries(Object.entries(trees).map(([name, one]) => [name, () => treeOf(name, one)])),
  "hardware-aware-drafting": guessesByMachine,
  skipdecode: layersByPosition,
  "dynamic-merging": bitsByRows,
  "exact-byte-probabilities": completionByOffset,
  zett: hypernetworkCurve,
};

const asked = process.argv.slice(2);
for (const name of asked) {
  if (!(name in pictures)) throw new ArgumentError("name", Object.keys(pictures).join(", "), name);
}
const folder = join(import.meta.dirname, "..", "docs", "images", "techniques");
const files: [string, string][] = [];
for (const name of asked.length > 0 ? asked : Object.keys(pictures)) {
  files.push([join(folder, `${name}.svg`), `${await pictures[name]!()}\n`]);
}
await writeFilesAtomic(files);
for (const [path, svg] of files) console.log(path, svg.length);
