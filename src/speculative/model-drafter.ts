/**
 * Model drafter: what every drafter that asks a smaller language model has in common, whatever the shape of its trees.
 *
 * The draft model has a session, hence a cache, of its own. It follows the text: the first pass of a step feeds what it
 * has not seen, the pending token last. A technique is then a way to `grow` a tree: it asks for the laws after some
 * nodes, adds children, asks again. One question is one draft pass, over the nodes asked for and over those of their
 * ancestors that are not in the cache; leaves nobody asks about cost nothing.
 *
 * Which ancestors are in the cache? A session scores trees from its committed tokens only, so branches are scored anew
 * at every level. But what all questioned nodes have in common lies on one path, and a path can be committed: with
 * `accept` where it was scored just before, which costs no pass. So the rows of a step, for a tree grown level by level:
 *
 *     chain of g guesses          1 + 1 + ... + 1 = g                         the last guess is not fed
 *     b_1, b_2, ... children      1 + b_1 + (b_1 + b_1 b_2) + ...             the root was committed by the first pass
 *
 * After verification the cache holds as much of the accepted path as has been scored: what is in it stays, what the last
 * pass scored is accepted, the rest is fed with the next pending token.
 *
 * Worked example: pending 7 after [1, 2], children 3 and 5, then one child each: passes over [1, 2, 7] and {3, 5}.
 * 5 and its child accepted and 9 emitted: the cache keeps [1, 2, 7, 5]; the next step's first pass is over [child, 9].
 */
import { ArgumentError } from "../errors.ts";
import type { Cost, LanguageModel, Session } from "../model/language-model.ts";
import { row } from "../model/language-model.ts";
import type { Random } from "../tensor/random.ts";
import type { Draft, DraftContext, Drafter, Drafting, DraftStart, VerifiedPass } from "./drafter.ts";
import type { Sampling, SamplingOptions } from "./sampling.ts";
import { resolveSampling, tokenLaw } from "./sampling.ts";

export interface ModelDrafterOptions {
  /** How guesses are drawn. Default: as the target's tokens are. Any law is exact; like laws are accepted most. */
  readonly sampling?: SamplingOptions;
}

/** A drafter that grows its trees with `model`. A subclass says how; it learns nothing across sequences unless it does. */
export abstract class ModelDrafter implements Drafter {
  readonly vocabularySize: number;
  readonly #model: LanguageModel;
  readonly #sampling: Sampling | undefined;

  /** @throws ArgumentError on sampling options out of range */
  constructor(model: LanguageModel, { sampling }: ModelDrafterOptions = {}) {
    this.vocabularySize = model.vocabularySize;
    this.#model = model;
    this.#sampling = sampling === undefined ? undefined : resolveSampling(sampling);
  }

  /** Add this step's guesses to `tree`, which holds the root alone. Within `maxNodes` and `maxDepth`; once per step. */
  protected abstract grow(tree: GrowingTree): void;

  /** @throws ArgumentError when the target's vocabulary is not the draft model's */
  open(start: DraftStart): Drafting {
    if (start.vocabularySize !== this.vocabularySize) {
      throw new ArgumentError("drafter", `a vocabulary of ${start.vocabularySize}`, this.vocabularySize);
    }
    return new ModelDrafting(this.#model, this.#sampling, (tree) => this.grow(tree));
  }

  reset(): void {}
}

/** A draft in the making: node 0 is the pending token, and children follow their parents. */
export class GrowingTree {
  /** Most nodes the draft may have, the root included. */
  readonly maxNodes: number;
  /** Most levels below the root. */
  readonly maxDepth: number;
  /** How guesses are to be drawn. */
  readonly sampling: Sampling;
  /** The stream to draw from. */
  readonly random: Random;
  readonly #tokens: number[];
  readonly #parents = [-1];
  readonly #depths = [0];
  readonly #laws: (Float64Array | null)[] = [null];
  readonly #logits: (nodes: readonly number[]) => (Float32Array | null)[];
  #kept: readonly number[] | undefined;

  /** @internal */
  constructor(
    { tokens, maxNodes, maxDepth, random }: DraftContext,
    sampling: Sampling,
    logits: (nodes: readonly number[]) => (Float32Array | null)[],
  ) {
    this.maxNodes = maxNodes;
    this.maxDepth = maxDepth;
    this.sampling = sampling;
    this.random = random;
    this.#tokens = [tokens[tokens.length - 1]!];
    this.#logits = logits;
  }

  get tokens(): readonly number[] {
    return this.#tokens;
  }

  get parents(): readonly number[] {
    return this.#parents;
  }

  /** 0 for the root. */
  get depths(): readonly number[] {
    return this.#depths;
  }

  /** Nodes that may still be added. */
  get room(): number {
    return this.maxNodes - this.#tokens.length;
  }

  /**
   * Adds a child. Siblings are tested in the order they are added.
   * @param law the law the token was drawn from, see `Draft.laws`
   * @returns the new node
   */
  add(parent: number, token: number, law: Float64Array | null): number {
    this.#tokens.push(token);
    this.#parents.push(parent);
    this.#depths.push(this.#depths[parent]! + 1);
    this.#laws.push(law);
    return this.#tokens.length - 1;
  }

  /**
   * The draft model's laws after `nodes`, in one pass (two where the step's first question is not about the root alone).
   * @param sampling temperature and cuts; default `this.sampling`. `{ temperature: 1 }` is the law to rank tokens by
   *   where the draft is to be greedy
   * @returns one fresh law per node, [vocabularySize]; null where the draft model's context has no room for the node
   */
  laws(nodes: readonly number[], sampling: SamplingOptions = this.sampling): (Float64Array | null)[] {
    return this.#logits(nodes).map((logits) => (logits === null ? null : tokenLaw(logits, sampling)));
  }

  /** The draft model's law after one node: a pass over one row where the node's parent was asked about just before. */
  law(node: number, sampling?: SamplingOptions): Float64Array | null {
    return this.laws([node], sampling)[0]!;
  }

  /**
   * Keeps only these nodes in the draft: the root among them, each with its parent.
   * Dropping a guess because of what was drawn changes the law of those that stay, so this is exact for guesses chosen
   * without chance (null laws) only.
   */
  keep(nodes: Iterable<number>): void {
    this.#kept = Array.from(nodes).sort((a, b) => a - b);
  }

  /** Gives the draft all nodes in this order: the root first, each after its parent, siblings as they were added. */
  arrange(nodes: readonly number[]): void {
    this.#kept = nodes.slice();
  }

  /** @internal The draft, and the node of this tree each of its nodes is. */
  finish(): { readonly draft: Draft; readonly nodes: readonly number[] } {
    const nodes = this.#kept ?? Array.from(this.#tokens, (_, node) => node);
    const places = new Map(nodes.map((node, place) => [node, place]));
    const draft = {
      tokens: nodes.map((node) => this.#tokens[node]!),
      parents: nodes.map((node) => places.get(this.#parents[node]!) ?? -1),
      laws: nodes.map((node) => this.#laws[node]!),
    };
    return { draft, nodes };
  }
}

class ModelDrafting implements Drafting {
  readonly #session: Session;
  readonly #contextLength: number;
  readonly #sampling: Sampling | undefined;
  readonly #grow: (tree: GrowingTree) => void;
  /** The text without the pending token. The cache holds a beginning of it, or all of it and `#held`. */
  #text: readonly number[] = [];
  /** Nodes of this step's tree in the cache: a path from the root. */
  #held: number[] = [];
  /** Nodes of the pass last scored, whose keys and values wait to be accepted. */
  #scored: readonly number[] = [];
  /** The node of the grown tree each node of the draft is. */
  #nodes: readonly number[] = [];

  constructor(model: LanguageModel, sampling: Sampling | undefined, grow: (tree: GrowingTree) => void) {
    this.#session = model.openSession();
    this.#contextLength = model.contextLength;
    this.#sampling = sampling;
    this.#grow = grow;
  }

  get cost(): Cost {
    return this.#session.cost;
  }

  propose(context: DraftContext): Draft {
    this.#text = context.tokens.slice(0, -1);
    this.#held = [];
    this.#scored = [];
    const tree: GrowingTree = new GrowingTree(context, this.#sampling ?? context.sampling, (nodes) =>
      this.#logits(tree, nodes),
    );
    this.#grow(tree);
    const { draft, nodes } = tree.finish();
    this.#nodes = nodes;
    return draft;
  }

  observe({ path }: VerifiedPass): void {
    // The root and the accepted guesses are part of the text now. What of them is not in the cache is fed with it.
    this.#hold(path.map((node) => this.#nodes[node]!));
  }

  close(): void {
    this.#session.close();
  }

  /** One pass for the logits after `nodes`; null for those that do not fit. */
  #logits(tree: GrowingTree, nodes: readonly number[]): (Float32Array | null)[] {
    if (nodes.length === 0) return [];
    if (nodes.length === 1 && nodes[0] === 0) return [this.#afterRoot(tree)];
    if (this.#session.length < this.#text.length && this.#afterRoot(tree) === null) return nodes.map(() => null);

    const paths = nodes.map((node) => pathTo(tree.parents, node));
    this.#hold(commonStem(paths));
    const room = this.#contextLength - this.#session.length;
    const wanted = new Set<number>();
    const fits = paths.map((path) => {
      const missing = path.slice(this.#held.length).filter((node) => !wanted.has(node));
      if (wanted.size + missing.length > room) return false;
      for (const node of missing) wanted.add(node);
      return true;
    });
    if (wanted.size === 0) return nodes.map(() => null);

    const scored = Array.from(wanted).sort((a, b) => a - b);
    const tokens = scored.map((node) => tree.tokens[node]!);
    if (nodes.length === 1) {
      this.#held.push(...scored);
      return [row(this.#session.extend(tokens).logits, 0)];
    }
    const places = new Map(scored.map((node, place) => [node, place]));
    const parents = scored.map((node) => places.get(tree.parents[node]!) ?? -1);
    const { logits } = this.#session.score({ tokens, parents });
    this.#scored = scored;
    return nodes.map((node, i) => (fits[i] ? row(logits, places.get(node)!) : null));
  }

  /** The pass that feeds what the cache has missed of the text, and the pending token. */
  #afterRoot(tree: GrowingTree): Float32Array | null {
    if (this.#text.length + 1 > this.#contextLength) return null;
    this.#hold([]);
    const { logits } = this.#session.extend([...this.#text.slice(this.#session.length), tree.tokens[0]!]);
    this.#held = [0];
    return row(logits, 0);
  }

  /** Brings the cache to the text and as much of `path`, from the root down, as is in it or was scored last. */
  #hold(path: readonly number[]): void {
    let shared = 0;
    while (shared < this.#held.length && this.#held[shared] === path[shared]) shared++;
    if (shared < this.#held.length) {
      this.#session.truncate(this.#text.length + shared);
      this.#held.length = shared;
    } else {
      let end = shared;
      while (end < path.length && this.#scored.includes(path[end]!)) end++;
      if (end > shared) {
        this.#session.accept(this.#scored.indexOf(path[end - 1]!));
        this.#held.push(...path.slice(shared, end));
      }
    }
    this.#scored = [];
  }
}

/** From the root down to `node`. */
function pathTo(parents: readonly number[], node: number): number[] {
  const path: number[] = [];
  for (let at = node; at >= 0; at = parents[at]!) path.push(at);
  return path.reverse();
}

/** The nodes all paths begin with, the end of each path left out. */
function commonStem(paths: readonly (readonly number[])[]): number[] {
  const [first = []] = paths;
  let length = first.length - 1;
  for (const path of paths) {
    length = Math.min(length, path.length - 1);
    while (length > 0 && path[length - 1] !== first[length - 1]) length--;
  }
  return first.slice(0, length);
}
