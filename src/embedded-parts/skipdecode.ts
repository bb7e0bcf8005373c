/**
 * Recipe of SkipDecode's decoder: the embedded target, all of it tuned under a schedule that falls from four layers to two.
 * What it is worth is measured on held-out files, beside the untouched target and beside other schedules.
 */
import { Engine } from "../model/engine.ts";
import { surprise } from "../model/evaluation.ts";
import { type LanguageModel, row } from "../model/language-model.ts";
import { mostProbableToken } from "../speculative/sampling.ts";
import { type ExitSchedule, type ExitScheduleOptions, exitSchedule, skipDecode } from "../speculative/skipdecode.ts";
import { skipDecodeObjective } from "../speculative/training/skipdecode-training.ts";
import type { Bpe } from "../tokenization/bpe.ts";
import type { PartRecipe } from "./train-part.ts";

/** What it is tuned under. */
export const tunedSchedule = { layers: 4, most: 4, least: 2, warmUp: 1, promptLength: 48, length: 192 } as const;

const all: Partial<ExitScheduleOptions> = { most: 4, least: 4 };
const controls: Readonly<Record<string, Partial<ExitScheduleOptions>>> = {
  "all layers": all,
  "as tuned": {},
  "without warm-up": { warmUp: 0 },
  "the same in every column": { most: 3, least: 3 },
  "leaving at the bottom": { skips: "upper" },
  "from three to two": { most: 3 },
  "two in every column": { most: 2 },
  "two, leaving at the bottom": { most: 2, skips: "upper" },
};

export const skipDecodeRecipe: PartRecipe = {
  options: { steps: 1800, learningRate: 1e-3, validateEvery: 100, seed: 5 },
  async open({ config, weights: targetWeights, tokenizer, streams }) {
    const schedule = exitSchedule(tunedSchedule);
    const batchSize = 4;
    return {
      objective: skipDecodeObjective(config, targetWeights, schedule, streams, { batchSize }),
      tokensPerStep: batchSize * schedule.length,
      async measure(weights) {
        const heldOut = streams.validation;
        const target = await Engine.open(config, targetWeights);
        const greedy = greedyTexts(target, heldOut, schedule);
        const quality = (model: LanguageModel, options: Partial<ExitScheduleOptions>) => {
          const schedule = exitSchedule({ ...tunedSchedule, ...options });
          return {
            meanLayers: +schedule.meanBudget.toFixed(3),
            nominalSpeedup: +(schedule.layers / schedule.meanBudget).toFixed(3),
            bitsPerByte: +bitsPerByte(model, schedule, heldOut, tokenizer).toFixed(4),
            ...alongGreedy(model, schedule, greedy),
          };
        };
        const untouched = { "all layers": quality(target, all), "as tuned": quality(target, {}) };
        target.close();
        const model = await Engine.open(config, weights);
        const tuned = Object.fromEntries(
          Object.entries(controls).map(([name, options]) => [name, quality(model, options)]),
        );
        model.close();
        // The tokens after each prompt of held-out text; and the untouched target's greedy text of as many.
        return { details: { config, schedule: tunedSchedule }, record: { heldOut: { untouched, tuned } } };
      },
      close: () => {},
    };
  },
};

/** Bits per byte of the text after each prompt, in windows one behind the other. */
function bitsPerByte(model: LanguageModel, schedule: ExitSchedule, stream: ArrayLike<number>, tokenizer: Bpe): number {
  const { promptLength, length } = schedule;
  const session = skipDecode(model, schedule).openSession();
  let [bits, bytes] = [0, 0];
  for (let start = 0; start + length < stream.length; start += length) {
    const ids = Array.from({ length: length + 1 }, (_, i) => stream[start + i]!);
    session.truncate(0);
    const { logits } = session.extend(ids.slice(0, length), { logits: "all" });
    for (let next = promptLength; next <= length; next++) bits += surprise(row(logits, next - 1), ids[next]!);
    bytes += tokenizer.decodeBytes(ids.slice(promptLength)).length;
  }
  session.close();
  return bits / bytes;
}

const texts = 40;

/** Prompts of held-out text, evenly spread, each with the model's own greedy continuation up to the schedule's length. */
function greedyTexts(
  model: LanguageModel,
  stream: ArrayLike<number>,
  { promptLength, length }: ExitSchedule,
): number[][] {
  return Array.from({ length: texts }, (_, i) => {
    const start = Math.floor((i * (stream.length - promptLength)) / (texts - 1));
    const ids = Array.from({ length: promptLength }, (_, t) => stream[start + t]!);
    const session = model.openSession();
    let pass = session.extend(ids);
    while (ids.length < length) {
      ids.push(mostProbableToken(row(pass.logits, 0)));
      pass = session.extend(ids.slice(-1));
    }
    session.close();
    return ids;
  });
}

/** How often the model says the next token of the texts, and for how long it says all of them. */
function alongGreedy(model: LanguageModel, schedule: ExitSchedule, greedy: readonly (readonly number[])[]) {
  const session = skipDecode(model, schedule).openSession();
  let [same, prefix, tokens, identical] = [0, 0, 0, 0];
  for (const ids of greedy) {
    session.truncate(0);
    const { logits } = session.extend(ids, { logits: "all" });
    let alike = true;
    for (let next = schedule.promptLength; next < ids.length; next++) {
      const right = mostProbableToken(row(logits, next - 1)) === ids[next];
      alike &&= right;
      tokens++;
      if (right) same++;
      if (alike) prefix++;
    }
    if (alike) identical++;
  }
  session.close();
  return {
    agreement: +(same / tokens).toFixed(4),
    tokensBeforeFirstDifference: +(prefix / greedy.length).toFixed(1),
    identicalTexts: identical,
    texts: greedy.length,
  };
}
