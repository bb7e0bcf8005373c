/**
 * Generation by draft and verify: the one loop every method of this family runs in. Plain decoding is the same call
 * without a drafter.
 *
 *     session.extend(prompt without its last token)     the last token is pending
 *     each step:  propose -> score -> verify -> accept -> observe         one target pass
 *
 * Between steps the target's cache holds the prompt and every generated token but the last: that one is pending, and
 * becomes the root of the next draft. So an emitted token never costs a pass of its own.
 *
 * How counts add up, at every moment:
 *
 *     tokens          = accepted + targetPasses - discarded
 *     tokensPerPass   = tokens / targetPasses    (the token after the path counts: plain decoding has 1)
 *     drafted         = sum over positions of offered, for chains;  accepted = sum over positions of accepted
 *
 * Worked example: prompt [1, 7], draft [7, 3, 4], path [0, 1], token 9: the step's tokens are [3, 9], the cache holds
 * [1, 7, 3], 9 is pending, accepted 1 of 2 drafted.
 */
import { ArgumentError, ContextOverflowError } from "../errors.ts";
import type { Cost, LanguageModel, Pass, PassOptions, Session } from "../model/language-model.ts";
import { addCosts, subtractCosts } from "../model/language-model.ts";
import { requireIds } from "../model/session-checks.ts";
import { Random } from "../tensor/random.ts";
import type { Draft, DraftContext, Drafter, Drafting } from "./drafter.ts";
import { checkDraft, nodeDepths } from "./drafter.ts";
import { plainDecoding } from "./plain-decoding.ts";
import { recursiveRejectionSampling } from "./recursive-rejection-sampling.ts";
import type { Sampling, SamplingOptions } from "./sampling.ts";
import { resolveSampling } from "./sampling.ts";
import type { Verdict, Verifier } from "./verifier.ts";
import { checkVerdict } from "./verifier.ts";

/** Temperature, top-k and top-p (see `SamplingOptions`) hold for the target's law, and for drafters that follow it. */
export interface GenerateOptions extends SamplingOptions {
  /** What guesses. Default: nothing does, which is plain decoding. */
  readonly drafter?: Drafter;
  /** What decides which guesses stay. Default: recursive rejection sampling, lossless for chains and trees. */
  readonly verifier?: Verifier;
  /** Most tokens to generate, an integer >= 1. Default: until the context is full. */
  readonly maxTokens?: number;
  /** Token ids that end the text, inside an accepted path too. The one met is the last token of the result. Default none. */
  readonly stopTokens?: Iterable<number>;
  /** Same seed, same tokens. Without effect on the result at temperature 0. Default 0. */
  readonly seed?: number | string;
  /** Aborting it ends the generation after the step under way; what was generated stays. */
  readonly signal?: AbortSignal;
}

/** Why a generation ended, or that it has not. */
export type Finish =
  | { readonly kind: "unfinished" }
  /** `maxTokens` were generated. */
  | { readonly kind: "length" }
  /** A stop token was generated; it is the last of the tokens. */
  | { readonly kind: "stop"; readonly token: number }
  /** The context is full: the last token cannot be fed any more. */
  | { readonly kind: "context" }
  /** The signal was aborted, or the caller stopped early (`close`, or leaving a `for await`). */
  | { readonly kind: "aborted"; readonly reason: unknown }
  /** Model, drafter or verifier threw. The error was thrown to the caller too. */
  | { readonly kind: "failed"; readonly error: unknown };

/** One step: one target pass. */
export interface Step {
  /** New tokens, in order, at least one: the accepted guesses, then the one more. */
  readonly tokens: readonly number[];
  /** What was drafted; node 0 is the token that was pending. */
  readonly draft: Draft;
  /** Accepted nodes, from the root (0) down. Cut short where a stop token ended the text. */
  readonly path: readonly number[];
  /** `"completed"`: the path reached a leaf. `"corrected"`: the guesses after it were rejected. */
  readonly kind: Verdict["kind"];
}

/** What became of the guesses at one depth, counted in steps. */
export interface PositionCounts {
  /** Steps whose draft reached this depth. */
  readonly offered: number;
  /** Steps that tested a guess here: everything before it was accepted. */
  readonly tested: number;
  /** Steps that accepted a guess here. `accepted / tested` is the conditional rate, `accepted / offered` the marginal. */
  readonly accepted: number;
}

export interface Report {
  /** Generated tokens, prompt not included. */
  readonly tokens: readonly number[];
  readonly finish: Finish;
  /**
   * The verifier was a lossy one: tokens drawn at a temperature above 0 do not have the target's law. Or the model was, and
   * the tokens do not have the law of the one it was made from.
   */
  readonly lossy: boolean;
  /** Target passes that generated tokens: one per step. The pass over the prompt is not among them. */
  readonly targetPasses: number;
  /** Generated tokens per target pass, the one after each path included; plain decoding has 1. 0 before the first step. */
  readonly tokensPerPass: number;
  /** Guesses the target scored: draft nodes, roots not counted. */
  readonly drafted: number;
  /** Guesses the verifier accepted. */
  readonly accepted: number;
  /** Tokens thrown away because they came after a stop token in the same step. */
  readonly discarded: number;
  /** `positions[d - 1]`: the guesses at depth d. As long as the deepest draft. */
  readonly positions: readonly PositionCounts[];
  readonly cost: {
    /** The target's pass over the prompt. */
    readonly prefill: Cost;
    /** The target's passes after it. */
    readonly target: Cost;
    /** All passes made to draft, the draft model's over the prompt included. */
    readonly draft: Cost;
  };
}

/**
 * Generate after a prompt. Nothing runs until the first step.
 *
 *     for await (const step of generate(model, prompt, { drafter })) process.stdout.write(decode(step.tokens));
 *
 * @param prompt token ids, at least one, at most the model's context length
 * @throws ArgumentError on an empty prompt, an id out of range, an option out of range, a drafter for another vocabulary
 * @throws ContextOverflowError when the prompt does not fit the context
 */
export function generate(model: LanguageModel, prompt: ArrayLike<number>, options: GenerateOptions = {}): Generation {
  return new Generation(model, prompt, options);
}

/** Generate to the end and return the report. See `generate`. */
export async function generateAll(
  model: LanguageModel,
  prompt: ArrayLike<number>,
  options: GenerateOptions = {},
): Promise<Report> {
  const generation = generate(model, prompt, options);
  for await (const _ of generation);
  return generation.report;
}

/** A generation under way. Iterate it, or call `step`; read `report` at any time. */
export class Generation implements AsyncIterable<Step> {
  readonly #model: LanguageModel;
  readonly #drafter: Drafter;
  readonly #verifier: Verifier;
  readonly #sampling: Sampling;
  readonly #maxTokens: number;
  readonly #stopTokens: ReadonlySet<number>;
  readonly #signal: AbortSignal | undefined;
  readonly #draftRandom: Random;
  readonly #verifyRandom: Random;
  /** The prompt, then what was generated; the last one is pending. */
  readonly #text: number[];
  readonly #promptLength: number;

  #sessions: { readonly target: Session; readonly drafting: Drafting } | undefined;
  #finish: Finish = { kind: "unfinished" };
  #passes = 0;
  #drafted = 0;
  #accepted = 0;
  #discarded = 0;
  readonly #positions: { offered: number; tested: number; accepted: number }[] = [];
  #prefillCost: Cost = addCosts();
  #targetCost: Cost = addCosts();
  #draftCost: Cost = addCosts();

  /** Use `generate`. */
  constructor(model: LanguageModel, prompt: ArrayLike<number>, options: GenerateOptions) {
    const { drafter = plainDecoding, verifier = recursiveRejectionSampling } = options;
    const { maxTokens = Number.POSITIVE_INFINITY } = options;
    const { vocabularySize, contextLength } = model;
    if (prompt.length === 0) {
      throw new ArgumentError("prompt", "at least one token id", [], "Start from a beginning-of-text token.");
    }
    requireIds("prompt", prompt, vocabularySize);
    if (prompt.length > contextLength) throw new ContextOverflowError(prompt.length, contextLength);
    if (!(maxTokens >= 1 && (Number.isInteger(maxTokens) || maxTokens === Number.POSITIVE_INFINITY))) {
      throw new ArgumentError("maxTokens", "an integer >= 1", maxTokens, "Leave it out to fill the context.");
    }
    if (drafter.vocabularySize !== null && drafter.vocabularySize !== vocabularySize) {
      throw new ArgumentError(
        "drafter",
        `one for the target's vocabulary of ${vocabularySize} tokens`,
        drafter.vocabularySize,
        "Draft and target must share one tokenizer.",
      );
    }
    const stopTokens = Array.from(options.stopTokens ?? []);
    requireIds("stopTokens", stopTokens, vocabularySize);
    this.#model = model;
    this.#drafter = drafter;
    this.#verifier = verifier;
    this.#sampling = resolveSampling(options);
    this.#maxTokens = maxTokens;
    this.#stopTokens = new Set(stopTokens);
    this.#signal = options.signal;
    // Two streams: how much a drafter draws changes none of the verifier's draws.
    this.#verifyRandom = new Random(options.seed ?? 0);
    this.#draftRandom = this.#verifyRandom.fork("draft");
    this.#text = Array.from(prompt);
    this.#promptLength = prompt.length;
  }

  /** One step now, without waiting: one target pass. `undefined` once the generation has ended. */
  step(): Step | undefined {
    if (this.#finish.kind !== "unfinished") return undefined;
    if (this.#signal?.aborted) {
      this.#end({ kind: "aborted", reason: this.#signal.reason });
      return undefined;
    }
    try {
      return this.#step();
    } catch (error) {
      this.#end({ kind: "failed", error });
      throw error;
    }
  }

  /** Steps until the end. Other work of the process runs in between; leaving the loop closes the generation. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Step, void, undefined> {
    try {
      for (let step = this.step(); step !== undefined; step = this.step()) {
        yield step;
        await otherWork();
      }
    } finally {
      this.close();
    }
  }

  /** What has been generated and what it cost, up to now. A snapshot. */
  get report(): Report {
    const tokens = this.#text.slice(this.#promptLength);
    return {
      tokens,
      finish: this.#finish,
      lossy: this.#verifier.lossy === true || this.#model.lossy === true,
      targetPasses: this.#passes,
      tokensPerPass: this.#passes === 0 ? 0 : tokens.length / this.#passes,
      drafted: this.#drafted,
      accepted: this.#accepted,
      discarded: this.#discarded,
      positions: this.#positions.map((counts) => ({ ...counts })),
      cost: { prefill: this.#prefillCost, target: this.#targetCost, draft: this.#draftCost },
    };
  }

  /** Stop here and give the sessions' memory back. Does nothing once the generation has ended. */
  close(): void {
    if (this.#finish.kind === "unfinished") this.#end({ kind: "aborted", reason: "closed" });
  }

  #step(): Step {
    const { target, drafting } = this.#open();
    const context: DraftContext = {
      tokens: this.#text,
      maxNodes: this.#model.contextLength - target.length,
      maxDepth: this.#maxTokens - (this.#text.length - this.#promptLength) - 1,
      sampling: this.#sampling,
      random: this.#draftRandom,
    };
    const draft = drafting.propose(context);
    checkDraft(draft, context, this.#model.vocabularySize);
    const pass = target.score(draft, tapOptions(this.#drafter));
    const verdict = this.#verifier.verify({
      draft,
      logits: pass.logits,
      sampling: this.#sampling,
      random: this.#verifyRandom,
    });
    checkVerdict(verdict, draft, this.#model.vocabularySize);
    this.#count(draft, verdict);

    const { path, token } = this.#cutAtStop(draft, verdict);
    target.accept(path[path.length - 1]!);
    const tokens = [...path.slice(1).map((node) => draft.tokens[node]!), token];
    this.#text.push(...tokens);
    drafting.observe({ draft, logits: pass.logits, path, token, ...(pass.taps && { taps: pass.taps }) });

    this.#targetCost = subtractCosts(target.cost, this.#prefillCost);
    this.#draftCost = drafting.cost;
    const finish = this.#finishAfter(token, target.length);
    if (finish !== undefined) this.#end(finish);
    return { tokens, draft, path, kind: verdict.kind };
  }

  /** Opens both sessions at the first step; the target reads the prompt without its last token. */
  #open(): { readonly target: Session; readonly drafting: Drafting } {
    if (this.#sessions !== undefined) return this.#sessions;
    const target = this.#model.openSession();
    try {
      const prompt = this.#text.slice();
      let prefill: Pass | null = null;
      if (prompt.length > 1) {
        const logits = this.#drafter.prefillLogits === true ? "all" : "none";
        prefill = target.extend(prompt.slice(0, -1), { logits, ...tapOptions(this.#drafter) });
      }
      this.#prefillCost = target.cost;
      const { vocabularySize, contextLength } = this.#model;
      const drafting = this.#drafter.open({ prompt, vocabularySize, contextLength, prefill });
      this.#sessions = { target, drafting };
      return this.#sessions;
    } catch (error) {
      target.close();
      throw error;
    }
  }

  /** Everything after the first stop token is dropped; that token takes the place of the one more. */
  #cutAtStop(draft: Draft, { path, token }: Verdict): { readonly path: readonly number[]; readonly token: number } {
    for (let i = 1; i < path.length; i++) {
      const accepted = draft.tokens[path[i]!]!;
      if (this.#stopTokens.has(accepted)) {
        this.#discarded += path.length - i;
        return { path: path.slice(0, i), token: accepted };
      }
    }
    return { path, token };
  }

  #finishAfter(token: number, committed: number): Finish | undefined {
    if (this.#stopTokens.has(token)) return { kind: "stop", token };
    if (this.#text.length - this.#promptLength === this.#maxTokens) return { kind: "length" };
    if (committed === this.#model.contextLength) return { kind: "context" };
    return undefined;
  }

  #count(draft: Draft, { kind, path }: Verdict): void {
    const accepted = path.length - 1;
    const tested = kind === "corrected" ? accepted + 1 : accepted;
    const deepest = nodeDepths(draft).reduce((a, b) => Math.max(a, b), 0);
    for (let depth = 1; depth <= deepest; depth++) {
      this.#positions[depth - 1] ??= { offered: 0, tested: 0, accepted: 0 };
      const counts = this.#positions[depth - 1]!;
      counts.offered += 1;
      if (depth <= tested) counts.tested += 1;
      if (depth <= accepted) counts.accepted += 1;
    }
    this.#passes += 1;
    this.#drafted += draft.tokens.length - 1;
    this.#accepted += accepted;
  }

  #end(finish: Finish): void {
    this.#finish = finish;
    this.#sessions?.drafting.close();
    this.#sessions?.target.close();
    this.#sessions = undefined;
  }
}

/** Resolves after what is waiting in the event loop had its turn. Browsers have no setImmediate. */
function otherWork(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") setImmediate(resolve);
    else setTimeout(resolve, 0);
  });
}

function tapOptions(drafter: Drafter): PassOptions {
  return drafter.taps === undefined ? {} : { taps: drafter.taps };
}
