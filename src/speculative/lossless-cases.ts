/**
 * What `verifyLossless` puts a strategy to: tables whose laws are known, and what is generated on them.
 *
 * Draft and target are unlike, alike in part, equal, or say what the other never says; some have ties, and some drafts a
 * shorter context. Two vocabularies: 8 ids where tokens are compared one by one, 4 where joint laws are enumerated.
 *
 * Worked example: the pair `disjoint` on 4 ids: the target says 0 and 1 only, the draft 2 and 3 only, so that every guess
 * is rejected and every token is a replacement.
 */
import { TableModel } from "../model/table-model.ts";
import { Random } from "../tensor/random.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { WatchedOptions } from "./watched-generation.ts";

/** Target and draft tables, and how they are to each other. */
export const tablePairs = {
  unlike: "draft and target have nothing to do with each other",
  kindred: "the draft is the target's law mixed with a stranger's",
  equal: "the draft is the target",
  disjoint: "the draft says only what the target never says",
  overlapping: "each says something the other never says",
  tied: "several tokens are the target's most probable",
  short: "the draft model's context ends before the target's",
} as const;
export type TablePair = keyof typeof tablePairs;

/** Law checks: which pair, how it is sampled, guesses per pass, tokens a generation may have. */
export const lawCases: readonly (readonly [TablePair, SamplingOptions, budget: number, maxTokens: number])[] = [
  ["unlike", { temperature: 1 }, 16, 12],
  // As many tokens as are looked at: the one after a full path is among them.
  ["unlike", { temperature: 1 }, 16, 3],
  ["unlike", { temperature: 1 }, 1, 12],
  ["unlike", { temperature: 1 }, 2, 12],
  ["unlike", { temperature: 0.6 }, 16, 12],
  ["unlike", { temperature: 1, topK: 3 }, 6, 12],
  ["unlike", { temperature: 1, topP: 0.8 }, 6, 12],
  ["kindred", { temperature: 1 }, 16, 12],
  ["kindred", { temperature: 0.6, topK: 3, topP: 0.95 }, 5, 3],
  ["equal", { temperature: 1 }, 16, 12],
  ["equal", { temperature: 0.6 }, 3, 3],
  ["disjoint", { temperature: 1 }, 8, 12],
  ["disjoint", { temperature: 0.6 }, 2, 12],
  ["overlapping", { temperature: 1 }, 16, 12],
  ["overlapping", { temperature: 0.6 }, 4, 3],
];
/** Tokens looked at together: with 4 ids, 64 continuations. */
export const jointTokens = 3;
const contextLength = 128;
const longPrompt = 24;
/** Two tables of one vocabulary. */
export function makePair(pair: TablePair, vocabularySize: number, seed: number | string) {
  const sizes = { vocabularySize, contextLength };
  const random = (label: string, order: number) => TableModel.random({ ...sizes, order, seed: `${seed} ${label}` });
  const target = random("target", 2);
  const stranger = random("stranger", 1);
  /** The table's law with some tokens taken out. */
  const without = (table: TableModel, removed: (token: number, last: number) => boolean) =>
    new TableModel({
      ...sizes,
      order: 2,
      law: (context) => table.law(context).map((p, token) => (removed(token, context.at(-1) ?? 0) ? 0 : p)),
    });
  /** Laws of small whole weights: ties are many, and exact. */
  const tied = (label: string) => {
    const weights = new Random(`${seed} ${label}`);
    return new TableModel({
      ...sizes,
      order: 2,
      law: (context) => {
        const stream = weights.fork(context.join());
        return Array.from({ length: vocabularySize }, () => 1 + stream.integer(3));
      },
    });
  };
  const makers: Record<TablePair, () => { readonly target: TableModel; readonly draft: TableModel }> = {
    unlike: () => ({ target, draft: stranger }),
    kindred: () => ({
      target,
      draft: new TableModel({
        ...sizes,
        order: 2,
        law: (context) => target.law(context).map((p, token) => 0.6 * p + 0.4 * stranger.law(context)[token]!),
      }),
    }),
    equal: () => ({ target, draft: target }),
    disjoint: () => ({
      target: without(target, (token) => token >= vocabularySize / 2),
      draft: without(stranger, (token) => token < vocabularySize / 2),
    }),
    overlapping: () => ({
      target: without(target, (token, last) => token === (last + 1) % vocabularySize),
      draft: without(stranger, (token, last) => token === (last + 2) % vocabularySize),
    }),
    tied: () => ({ target: tied("target"), draft: tied("stranger") }),
    short: () => ({
      target,
      draft: new TableModel({
        ...sizes,
        contextLength: contextLength / 2,
        order: 2,
        law: (context) => target.law(context),
      }),
    }),
  };
  return makers[pair]();
}

/** A text as the target writes it, so that drafters that look for repetitions find some. */
export function promptOf(target: TableModel, seed: number | string, length = longPrompt): number[] {
  const random = new Random(`${seed} prompt`);
  const prompt: number[] = [];
  while (prompt.length < length) prompt.push(random.categorical(target.law(prompt)));
  return prompt;
}

type Case = WatchedOptions & { readonly prompt: readonly number[] };

/** From one token, to the end of the context, a few tokens, at its very end, to a stop token. Cuts change no arg-max. */
export function greedyCases(target: TableModel, seed: number | string): Case[] {
  const prompt = promptOf(target, seed);
  const stop = greedyTokens(target, prompt, { maxTokens: 9 }).at(-1)!;
  return [
    { prompt: prompt.slice(0, 1), maxTokens: 30, seed: 1 },
    { prompt, topK: 2, seed: 2 },
    { prompt, maxTokens: 3, topP: 0.5, seed: 3 },
    { prompt: promptOf(target, seed, contextLength - 2), seed: 4 },
    { prompt: promptOf(target, seed, contextLength), seed: 5 },
    { prompt, stopTokens: [stop], seed: 6 },
  ];
}

/** Generations with chance in them, short and long, some to a stop token. */
export function sampledCases(target: TableModel, seed: number | string): Case[] {
  const prompt = promptOf(target, seed);
  const samplings: SamplingOptions[] = [
    { temperature: 1 },
    { temperature: 0.6 },
    { temperature: 1, topK: 3, topP: 0.9 },
  ];
  return samplings.flatMap((sampling, i) => [
    { ...sampling, prompt, maxTokens: 40, seed: `${seed} ${i}`, budget: 16 },
    { ...sampling, prompt: prompt.slice(0, 2), maxTokens: 40, seed: `${seed} ${i}`, budget: 2, stopTokens: [i] },
  ]);
}

/** The oracle of temperature 0: looked up in the table, arg-max after arg-max, ties to the lower id. */
export function greedyTokens(
  target: TableModel,
  prompt: readonly number[],
  { maxTokens = Number.POSITIVE_INFINITY, stopTokens = [] }: Pick<WatchedOptions, "maxTokens" | "stopTokens">,
): number[] {
  const text = prompt.slice();
  const stops = new Set(stopTokens);
  // The last token of a full context still says one more.
  while (text.length <= contextLength && text.length - prompt.length < maxTokens) {
    const logits = target.logits(text);
    const token = logits.indexOf(Math.max(...logits));
    text.push(token);
    if (stops.has(token)) break;
  }
  return text.slice(prompt.length);
}
