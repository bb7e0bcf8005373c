/**
 * A generation under watch: the loop of `generate` on tables, with every promise of the contracts looked after.
 *
 * Tables remember what their sessions hold, so what a cache should hold is known after every step, the draft model's
 * included. What is found is noted by rule, not thrown: one broken promise does not hide the next.
 *
 * **Unlike** `generate`, which checks what would corrupt its own state, this one also checks what would only make a
 * result wrong or a count untrue, and costs accordingly.
 *
 * Worked example: a chain drafter that forgets to cut its cache holds a rejected guess after the step; noted as
 * `"draft cache"`, `the draft model's cache holds [1, 7, 3, 4], the text is [1, 7, 3, 9]`.
 */
import { ArgumentError } from "../errors.ts";
import type { Cost, LanguageModel, Matrix } from "../model/language-model.ts";
import { addCosts } from "../model/language-model.ts";
import type { TableModel, TableSession } from "../model/table-model.ts";
import type { Draft, Drafter, VerifiedPass } from "./drafter.ts";
import { checkDraft } from "./drafter.ts";
import type { GenerateOptions, Generation, Report, Step } from "./generate.ts";
import { generate } from "./generate.ts";
import { plainDecoding } from "./plain-decoding.ts";
import { recursiveRejectionSampling } from "./recursive-rejection-sampling.ts";
import type { Verifier } from "./verifier.ts";
import { childrenOf } from "./verifier.ts";

/** A way of decoding: what `generate` is told beside model, prompt and sampling. */
export type Strategy = Pick<GenerateOptions, "drafter" | "verifier">;

/** A strategy for a draft model. One that needs none ignores it. */
export type StrategyFactory = (draft: LanguageModel) => Strategy;

/** What the contracts promise. */
export const contractRules = {
  draft: "a draft is a tree within the nodes and the depth asked for",
  laws: "a law sums to 1 and is positive at the token drawn from it",
  verdict: "a verdict is a path of the draft; it is completed at a leaf, corrected elsewhere",
  inputs: "nothing given is written to, nor a draft once given away",
  "target cache": "the target's cache holds the text without the pending token",
  "draft cache": "the draft model's caches hold the beginning of the text, nothing else",
  cost: "the draft cost counts every pass of the draft model and never falls",
  counts: "tokens, passes and guesses add up",
  sessions: "every session is closed at the end",
  seed: "the same seed gives the same steps",
  errors: "nothing throws",
} as const;

export type ContractRule = keyof typeof contractRules;

/** Told of every broken promise. */
export type Note = (rule: ContractRule, violation: string) => void;

/** The drafter with at most `budget` guesses a draft, held to it. */
export function limitGuesses(drafter: Drafter, budget: number): Drafter {
  return {
    vocabularySize: drafter.vocabularySize,
    ...(drafter.taps && { taps: drafter.taps }),
    ...(drafter.prefillLogits !== undefined && { prefillLogits: drafter.prefillLogits }),
    open(start) {
      const drafting = drafter.open(start);
      return {
        get cost() {
          return drafting.cost;
        },
        propose(context) {
          const limited = { ...context, maxNodes: Math.min(context.maxNodes, budget + 1) };
          const draft = drafting.propose(limited);
          checkDraft(draft, limited, start.vocabularySize);
          return draft;
        },
        observe: (pass) => drafting.observe(pass),
        close: () => drafting.close(),
      };
    },
    reset: () => drafter.reset(),
  };
}

/** Options of one watched generation. */
export interface WatchedOptions extends Omit<GenerateOptions, keyof Strategy | "signal"> {
  /** Most guesses a draft may have, >= 0. Default: what the context still holds. */
  readonly budget?: number;
}

/** A target and a draft table, and one strategy for them. Several generations may be under way at once. */
export class Watch {
  readonly #target: LanguageModel;
  readonly #strategy: Strategy;
  readonly #note: Note;
  /** The generation whose step is running: what is opened meanwhile is its own. */
  #current: WatchedGeneration | undefined;

  /** @param dress makes the table the model a strategy needs, with hidden states to tap, say. Default: the table itself */
  constructor(
    target: TableModel,
    draft: TableModel,
    strategy: StrategyFactory,
    note: Note,
    dress: (table: LanguageModel) => LanguageModel = (table) => table,
  ) {
    this.#note = note;
    this.#target = dress(this.#watched(target, (session) => this.#current?.targetSessions.push(session)));
    this.#strategy = strategy(this.#watched(draft, (session) => this.#current?.draftSessions.push(session)));
  }

  get drafter(): Drafter {
    return this.#strategy.drafter ?? plainDecoding;
  }

  generate(prompt: readonly number[], { budget = Number.POSITIVE_INFINITY, ...options }: WatchedOptions) {
    const { verifier = recursiveRejectionSampling } = this.#strategy;
    const generation: WatchedGeneration = new WatchedGeneration(
      (current) => {
        this.#current = current;
      },
      prompt,
      generate(this.#target, prompt, {
        ...options,
        drafter: withoutWriting(limitGuesses(this.drafter, budget), this.#note, (pass) =>
          this.#current?.checkDraftCaches(pass),
        ),
        verifier: verifyingWithoutWriting(verifier, this.#note),
      }),
      this.#note,
    );
    return generation;
  }

  #watched(table: TableModel, opened: (session: WatchedSession) => void): LanguageModel {
    return {
      vocabularySize: table.vocabularySize,
      contextLength: table.contextLength,
      openSession() {
        const session = table.openSession();
        const watched = { session, closed: false };
        const close = session.close.bind(session);
        session.close = () => {
          watched.closed = true;
          close();
        };
        opened(watched);
        return session;
      },
    };
  }
}

interface WatchedSession {
  readonly session: TableSession;
  closed: boolean;
}

/** A generation whose every step is checked. Errors are noted and end it. */
export class WatchedGeneration {
  readonly targetSessions: WatchedSession[] = [];
  readonly draftSessions: WatchedSession[] = [];
  readonly steps: Step[] = [];
  readonly #setCurrent: (current: WatchedGeneration | undefined) => void;
  readonly #text: number[];
  readonly #promptLength: number;
  readonly #generation: Generation;
  readonly #note: Note;
  /** The drafts as they were when given. */
  readonly #drafts: Float64Array[] = [];
  #draftCost: Cost = addCosts();
  #guesses = 0;
  #ended = false;

  /** Use `Watch.generate`. */
  constructor(
    setCurrent: (current: WatchedGeneration | undefined) => void,
    prompt: readonly number[],
    generation: Generation,
    note: Note,
  ) {
    this.#setCurrent = setCurrent;
    this.#text = prompt.slice();
    this.#promptLength = prompt.length;
    this.#generation = generation;
    this.#note = note;
  }

  get report(): Report {
    return this.#generation.report;
  }

  /** One step; undefined at the end, or after an error. */
  step(): Step | undefined {
    this.#setCurrent(this);
    let step: Step | undefined;
    try {
      step = this.#generation.step();
    } catch (error) {
      this.#note(ruleOf(error), messageOf(error));
    }
    this.#setCurrent(undefined);
    if (step !== undefined) this.#checkStep(step);
    if (this.report.finish.kind !== "unfinished") this.#checkEnd();
    return step;
  }

  /** All steps that are left. */
  finish(): Report {
    while (this.step() !== undefined);
    return this.report;
  }

  /** Stop early. */
  close(): void {
    this.#generation.close();
    this.#checkEnd();
  }

  #checkStep(step: Step): void {
    const note = this.#note;
    const { draft, tokens } = step;
    this.steps.push(step);
    this.#guesses += draft.tokens.length - 1;
    this.#text.push(...tokens);
    this.#drafts.push(numbersOf(draft));

    draft.laws.forEach((law, node) => {
      if (law === null) return;
      const sum = law.reduce((a, b) => a + b, 0);
      const drawn = law[draft.tokens[node]!]!;
      if (!(Math.abs(sum - 1) <= 1e-6 && law.every((p) => p >= 0) && drawn > 0)) {
        note(
          "laws",
          `draft.laws[${node}] is [${shown(law)}], sum ${sum}; token ${draft.tokens[node]} was drawn from it`,
        );
      }
    });
    const expected = this.#text.slice(0, -1);
    const held = this.targetSessions.map(({ session }) => session.committed);
    if (held.length !== 1 || !sameNumbers(held[0]!, expected)) {
      note("target cache", `the target's cache holds [${held.join("] and [")}], the text is [${this.#text}]`);
    }
    const stated = this.report.cost.draft;
    const before = this.#draftCost;
    for (const field of ["passes", "tokens", "multiplyAdds", "cacheBytesRead"] as const) {
      if (!(stated[field] >= before[field])) note("cost", `${field} fell from ${before[field]} to ${stated[field]}`);
    }
    this.#draftCost = stated;
    const real = addCosts(...this.draftSessions.map(({ session }) => session.cost));
    for (const field of ["passes", "tokens"] as const) {
      if (!(stated[field] >= real[field])) note("cost", `${stated[field]} ${field} stated, ${real[field]} made`);
    }
    this.#checkCounts();
  }

  /** After `observe` and before `close`: nothing but a beginning of the text, the tokens of this step included. */
  checkDraftCaches({ draft, path, token }: VerifiedPass): void {
    const text = [...this.#text, ...path.slice(1).map((node) => draft.tokens[node]!), token];
    for (const { session, closed } of this.draftSessions) {
      const held = session.committed;
      if (!closed && !sameNumbers(held, text.slice(0, held.length))) {
        this.#note("draft cache", `the draft model's cache holds [${held}], the text is [${text}]`);
      }
    }
  }

  #checkCounts(): void {
    const report = this.report;
    const { tokens, accepted, drafted, discarded, targetPasses, positions, cost } = report;
    const equal: Record<string, readonly [number, number]> = {
      "tokens = accepted + passes - discarded": [tokens.length, accepted + targetPasses - discarded],
      "passes = steps": [targetPasses, this.steps.length],
      "tokens = those of the steps": [tokens.length, this.#text.length - this.#promptLength],
      "drafted = nodes below the roots": [drafted, this.#guesses],
      "accepted = sum over positions": [accepted, positions.reduce((sum, position) => sum + position.accepted, 0)],
      "target passes = those counted": [cost.target.passes, targetPasses],
      "target tokens = drafted + passes": [cost.target.tokens, drafted + targetPasses],
    };
    for (const [identity, [left, right]] of Object.entries(equal)) {
      if (left !== right) this.#note("counts", `${identity}: ${left} is not ${right}`);
    }
  }

  #checkEnd(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const [whose, sessions] of [
      ["target", this.targetSessions],
      ["draft model", this.draftSessions],
    ] as const) {
      const open = sessions.filter(({ closed }) => !closed).length;
      if (open > 0) this.#note("sessions", `${open} of ${sessions.length} sessions of the ${whose} were left open`);
    }
    this.steps.forEach(({ draft }, i) => {
      if (!sameNumbers(numbersOf(draft), this.#drafts[i]!)) {
        this.#note("inputs", `the draft of step ${i} was changed after it was given`);
      }
    });
  }
}

/** The rule an error breaks, by the argument it names. */
export function ruleOf(error: unknown): ContractRule {
  if (!(error instanceof ArgumentError)) return "errors";
  if (error.argument.startsWith("draft.laws")) return "laws";
  if (/^draft(\.|$)/.test(error.argument)) return "draft";
  return error.argument.startsWith("verdict") ? "verdict" : "errors";
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/** The drafter, with what it is given compared before and after. */
function withoutWriting(drafter: Drafter, note: Note, observed: (pass: VerifiedPass) => void): Drafter {
  return {
    ...drafter,
    open(start) {
      const prompt = start.prompt.slice();
      const prefill = start.prefill?.logits.data.slice();
      const drafting = drafter.open(start);
      if (!sameNumbers(prompt, start.prompt)) note("inputs", "open wrote to the prompt");
      if (prefill && !sameNumbers(prefill, start.prefill!.logits.data)) note("inputs", "open wrote to the prefill");
      return {
        get cost() {
          return drafting.cost;
        },
        propose(context) {
          const text = context.tokens.slice();
          const draft = drafting.propose(context);
          if (!sameNumbers(text, context.tokens)) note("inputs", "propose wrote to context.tokens");
          return draft;
        },
        observe(pass) {
          const before = numbersOf(pass.draft, pass.logits);
          const path = pass.path.slice();
          drafting.observe(pass);
          if (!sameNumbers(before, numbersOf(pass.draft, pass.logits)) || !sameNumbers(path, pass.path)) {
            note("inputs", "observe wrote to the draft, the logits or the path");
          }
          observed(pass);
        },
        close: () => drafting.close(),
      };
    },
  };
}

/** The verifier, with what it is given compared before and after, and what it says of the path's end. */
function verifyingWithoutWriting(verifier: Verifier, note: Note): Verifier {
  return {
    verify(verification) {
      const before = numbersOf(verification.draft, verification.logits);
      const verdict = verifier.verify(verification);
      if (!sameNumbers(before, numbersOf(verification.draft, verification.logits))) {
        note("inputs", "verify wrote to the draft or the logits");
      }
      const leaf = childrenOf(verification.draft, verdict.path[verdict.path.length - 1]!).length === 0;
      if (leaf !== (verdict.kind === "completed")) {
        note(
          "verdict",
          `the path ends at ${leaf ? "a leaf" : "a node with children"}, the verdict says ${verdict.kind}`,
        );
      }
      return verdict;
    },
  };
}

/** Every number of a draft, and of the logits after it, in one array. */
function numbersOf({ tokens, parents, laws }: Draft, logits?: Matrix): Float64Array {
  const parts: ArrayLike<number>[] = [tokens, parents, ...laws.filter((law) => law !== null)];
  if (logits !== undefined) parts.push(logits.data);
  const numbers = new Float64Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    numbers.set(part, at);
    at += part.length;
  }
  return numbers;
}

function sameNumbers(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i])) return false;
  return true;
}

function shown(law: Float64Array): string {
  return Array.from(law, (p) => +p.toPrecision(3)).join(", ");
}
