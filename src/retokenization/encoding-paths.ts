/**
 * Sequences of tokens as paths of a tree, and their laws from a model: many paths, one pass.
 *
 * Paths share their beginnings. The session holds what all of them share; the rest is scored as a tree. When the paths
 * change, the session is cut back to what the new ones share with the old, not run anew.
 */
import { type Cost, type LanguageModel, row, type Session } from "../model/language-model.ts";
import type { EncodingState } from "./encoding-rules.ts";

/** A path behind `parent`. Those of the tokens a text begins with have no bytes. */
export class EncodingPath {
  readonly parent: EncodingPath | undefined;
  readonly token: number;
  /** Tokens, this one included. */
  readonly depth: number;
  /** Bytes of the text it covers. */
  readonly end: number;
  /** Undefined until the rules are asked. */
  state: EncodingState | undefined;
  /** Log-probability, up to what all paths share. */
  logWeight = 0;
  /** Log-probabilities of the next token, [vocabularySize]; undefined while not asked for. */
  law: Float64Array | undefined;

  constructor(parent: EncodingPath | undefined, token: number, end: number, state?: EncodingState) {
    this.parent = parent;
    this.token = token;
    this.depth = (parent?.depth ?? 0) + 1;
    this.end = end;
    this.state = state;
  }

  /** Its tokens behind `from`, one of its ancestors. */
  tokensAfter(from: EncodingPath): number[] {
    const tokens: number[] = [];
    for (let path: EncodingPath = this; path !== from; path = path.parent!) tokens.push(path.token);
    return tokens.reverse();
  }
}

/** Chains longer than this are run before the tree, without logits. */
const LONGEST_TREE_TRUNK = 16;

export class PathScorer {
  readonly #session: Session;
  /** What the session holds. */
  #committed: number[] = [];

  constructor(model: LanguageModel) {
    this.#session = model.openSession();
  }

  get cost(): Cost {
    return this.#session.cost;
  }

  /** Fill in the laws behind all of these paths: one pass, and one before it where they share much that is new. */
  score(wanted: readonly EncodingPath[]): void {
    if (wanted.length === 0) return;
    let shared = wanted[0]!;
    for (const path of wanted) shared = sharedBeginning(shared, path);
    const trunk = trunkOf(shared);
    const isWanted = new Set(wanted);
    // A path whose law is wanted has to be run, also when the session holds it.
    const most = trunk.length - (isWanted.has(shared) ? 1 : 0);
    let kept = 0;
    while (kept < most && kept < this.#committed.length && this.#committed[kept] === trunk[kept]!.token) kept++;
    this.#session.truncate(kept);
    this.#committed.length = kept;
    if (most - kept > LONGEST_TREE_TRUNK) {
      const ids = trunk.slice(kept, most).map(({ token }) => token);
      this.#session.extend(ids, { logits: "none" });
      this.#committed.push(...ids);
      kept = most;
    }

    const nodes = new Map<EncodingPath, number>();
    const place = (path: EncodingPath | undefined): number => {
      if (path === undefined || path.depth <= kept) return -1;
      const known = nodes.get(path);
      if (known !== undefined) return known;
      parents.push(place(path.parent));
      tokens.push(path.token);
      nodes.set(path, tokens.length - 1);
      return tokens.length - 1;
    };
    const tokens: number[] = [];
    const parents: number[] = [];
    for (const path of wanted) place(path);
    const { logits } = this.#session.score({ tokens, parents });
    for (const path of isWanted) path.law = logLaw(row(logits, nodes.get(path)!));
    const last = nodes.get(shared);
    if (last !== undefined) {
      this.#session.accept(last);
      for (const { token } of trunk.slice(kept)) this.#committed.push(token);
    }
  }

  close(): void {
    this.#session.close();
  }
}

function sharedBeginning(a: EncodingPath, b: EncodingPath): EncodingPath {
  while (a !== b) {
    if (a.depth >= b.depth) a = a.parent!;
    else b = b.parent!;
  }
  return a;
}

function trunkOf(path: EncodingPath): EncodingPath[] {
  const trunk: EncodingPath[] = [];
  for (let at: EncodingPath | undefined = path; at !== undefined; at = at.parent) trunk.push(at);
  return trunk.reverse();
}

/** log softmax, in doubles. */
function logLaw(logits: Float32Array): Float64Array {
  let highest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > highest) highest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - highest);
  const shift = highest + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - shift);
}
