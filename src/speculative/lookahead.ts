/**
 * Lookahead: a trie of what was read and written guesses many branches at once.
 * Zhao et al., "Lookahead: An Inference Acceleration Framework", arXiv 2312.12728; constants and orders as in the code
 * released with it (alipay/PainlessInferenceAcceleration). Not the Jacobi iteration also called lookahead decoding.
 *
 * Every token opens a window: the tokens after it are counted along a path of that token's tree. Prompts are counted apart
 * for each sequence and forgotten with it; outputs are counted for all, and halved when a tree outgrows its capacity. The
 * tokens the text ends with are looked up, and what hangs below them is the draft, its most frequent part where it is too
 * large. Branches that begin alike share their beginning: a hierarchical draft.
 *
 *     window    text[i] opens text[i+1 .. i+branchLength+1]; +1 along that path, to fi by a prompt, to fo by an output
 *     lookup    the last q tokens, then the last q - 1, ..: the first that finds branchLength nodes, else the last tried
 *     rank      f = (1 - w) fi + w fo,  w = 10^-4: prompts first, outputs break ties
 *     budget    n nodes: from more, keep those as frequent as the n / 2 first by fo, or as enough others to make n by f;
 *               depth first, the more frequent child first, until there are n
 *     prune     fo > 1 is halved, a smaller fo forgotten, over a whole tree, until it is within its capacity
 *
 * **Deviations** from the released code:
 * - Outputs are counted token by token. There a window is counted once it is full, so that the last branchLength tokens
 *   cannot be found; at the end of a sequence the counts are the same.
 * - A path that neither an output nor a prompt under way counts is removed. There it stays, at 0, and what one request
 *   asked can come up in the drafts of the next.
 * - There f cuts nothing off, because all nodes are given the same identity (None) before it is applied. Here it does.
 * - Capacity holds after every sequence, and prompts under way are never pruned. There it is looked after once 1,024
 *   trees were changed, and then for one halving. Output nodes are those with fo > 0, not those an output made.
 * - A single branch follows f. There the two counts are mixed up, which comes to w = 10000 / 10001.
 * - Parallel branches are drafts without sharing: each pays for its beginning. Here copies are paid for and not scored,
 *   because a verifier follows one of two equal siblings; the released one follows both, to the same end.
 * - The prompt's first token opens a window like the others, and an end of text ends none: `generate` ends the text.
 *
 * **Unlike** prompt lookup, which guesses one continuation from its own text, it guesses many, and from earlier outputs.
 *
 * Worked example: branchLength 3, prompt [5, 6, 7, 8, 5, 6, 9]: [5, 6] was followed by 7, 8, 5 and by 9, so the draft is
 * [6, 7, 8, 5, 9] with parents [-1, 0, 1, 2, 0]. Once 6, 9, 5, 6, 9, 1 was written it is [6, 9, 1, 7, 8, 5]: now 9 is first.
 */
import { ArgumentError } from "../errors.ts";
import { addCosts } from "../model/language-model.ts";
import type { Draft, DraftContext, Drafter, Drafting, DraftStart, VerifiedPass } from "./drafter.ts";
import { rootDraft } from "./drafter.ts";

export interface LookaheadOptions {
  /**
   * `"hierarchical"`: branches share their beginnings. `"parallel"`: each pays for its own. `"single"`: only the most
   * frequent one. Default `"hierarchical"`.
   */
  readonly mode?: "hierarchical" | "parallel" | "single";
  /** Most nodes of a draft, the root included, an integer >= 1. Default 64. */
  readonly decodingLength?: number;
  /** Longest branch below the root, an integer >= 1. Default 12. */
  readonly branchLength?: number;
  /** How many last tokens are looked up together, an integer >= 1. Default 2. */
  readonly queryLength?: number;
  /** w, the weight of an output's count beside a prompt's, in [0, 1]. Default 0.0001. */
  readonly outputWeight?: number;
  /** Most nodes of a tree after a sequence, an integer >= 1; prompts under way may exceed it. Default 65,536. */
  readonly maxTreeNodes?: number;
  /** Most nodes of a tree that outputs count, after a sequence, an integer >= 1. Default 512. */
  readonly maxTreeOutputNodes?: number;
  /** Tokens (punctuation, blanks) that open no window in an output and are not looked up alone. Default none. */
  readonly stopWords?: Iterable<number>;
}

type Options = Required<LookaheadOptions>;

const defaults: Options = {
  mode: "hierarchical",
  decodingLength: 64,
  branchLength: 12,
  queryLength: 2,
  outputWeight: 1e-4,
  maxTreeNodes: 65_536,
  maxTreeOutputNodes: 512,
  stopWords: [],
};

/** A drafter that remembers what was generated from one sequence to the next, and each prompt while it is served. */
export class LookaheadDrafter implements Drafter {
  readonly vocabularySize = null;
  readonly #options: Options;
  #trie: LookaheadTrie;

  /** @throws ArgumentError on an option out of range */
  constructor(options: LookaheadOptions = {}) {
    this.#options = { ...defaults, ...options, stopWords: Array.from(options.stopWords ?? []) };
    this.#trie = new LookaheadTrie(this.#options);
  }

  /** What is remembered; a new one after `reset`. */
  get trie(): LookaheadTrie {
    return this.#trie;
  }

  open({ prompt }: DraftStart): Drafting {
    return new LookaheadDrafting(this.#trie, this.#options.queryLength, prompt);
  }

  /** Sequences still open go on with the trie they began with. */
  reset(): void {
    this.#trie = new LookaheadTrie(this.#options);
  }
}

class LookaheadDrafting implements Drafting {
  readonly cost = addCosts();
  readonly #trie: LookaheadTrie;
  readonly #queryLength: number;
  readonly #sequence: number;
  readonly #output: number[] = [];

  constructor(trie: LookaheadTrie, queryLength: number, prompt: readonly number[]) {
    this.#trie = trie;
    this.#queryLength = queryLength;
    this.#sequence = trie.insertPrompt(prompt);
  }

  propose({ tokens, maxNodes, maxDepth }: DraftContext): Draft {
    return this.#trie.retrieve(tokens.slice(-this.#queryLength), this.#sequence, { maxNodes, maxDepth });
  }

  observe({ draft, path, token }: VerifiedPass): void {
    for (const node of path.slice(1)) this.#write(draft.tokens[node]!);
    this.#write(token);
  }

  close(): void {
    this.#trie.eliminate(this.#sequence);
    this.#trie.prune();
  }

  #write(token: number): void {
    this.#output.push(token);
    this.#trie.insertOutput(this.#output);
  }
}

/** How often a path was counted: by the prompt of each sequence under way, and by outputs, halvings considered. */
interface Node {
  readonly prompts: Map<number, number>;
  output: number;
  readonly children: Nodes;
}

/** By token, in the order they first came. */
type Nodes = Map<number, Node>;

/** A sequence without a prompt. */
const outputsAlone = -1;

/** What followed one token. */
interface Tree {
  readonly nodes: Nodes;
  /** Nodes in all. */
  size: number;
  /** Nodes that outputs count. */
  outputSize: number;
}

/** For every token the tree of what followed it. */
export class LookaheadTrie {
  readonly #options: Options;
  readonly #stopWords: ReadonlySet<number>;
  readonly #trees = new Map<number, Tree>();
  /** By sequence under way. */
  readonly #prompts = new Map<number, readonly number[]>();
  #sequences = 0;

  /** @throws ArgumentError on an option out of range */
  constructor(options: LookaheadOptions = {}) {
    this.#options = { ...defaults, ...options };
    this.#stopWords = new Set(this.#options.stopWords);
    const { mode, outputWeight, stopWords: _, ...integers } = this.#options;
    if (mode !== "hierarchical" && mode !== "parallel" && mode !== "single") {
      throw new ArgumentError("mode", '"hierarchical", "parallel" or "single"', mode);
    }
    if (!(outputWeight >= 0 && outputWeight <= 1)) {
      throw new ArgumentError("outputWeight", "a number from 0 to 1", outputWeight);
    }
    for (const [name, value] of Object.entries(integers)) {
      if (!(Number.isSafeInteger(value) && value >= 1)) throw new ArgumentError(name, "an integer >= 1", value);
    }
  }

  /** Nodes of all trees. */
  get size(): number {
    let size = 0;
    for (const tree of this.#trees.values()) size += tree.size;
    return size;
  }

  /**
   * How often a path was counted, 0 where there is none.
   * @param path the tree's token, then at least one more
   * @param sequence the one whose prompt is asked for
   */
  counts(path: readonly number[], sequence: number): { readonly prompt: number; readonly output: number } {
    const node = this.#below(path.slice(0, -1), sequence)?.get(path[path.length - 1]!);
    return { prompt: node?.prompts.get(sequence) ?? 0, output: node?.output ?? 0 };
  }

  /** Counts a prompt, for a new sequence, until that is eliminated. Returns the sequence. */
  insertPrompt(prompt: readonly number[]): number {
    const sequence = this.#sequences++;
    this.#prompts.set(sequence, prompt.slice());
    for (let start = 0; start + 1 < prompt.length; start++) {
      const tree = this.#treeOf(prompt[start]!);
      let { nodes } = tree;
      for (const token of prompt.slice(start + 1, start + this.#options.branchLength + 2)) {
        const node = nodeOf(token, nodes, tree);
        node.prompts.set(sequence, (node.prompts.get(sequence) ?? 0) + 1);
        nodes = node.children;
      }
    }
    return sequence;
  }

  /**
   * Counts the last token of an output, in every window it belongs to. To be called for each token, in order.
   * @param output what one sequence has generated, the new token last
   */
  insertOutput(output: readonly number[]): void {
    const last = output.length - 1;
    for (let start = Math.max(0, last - this.#options.branchLength - 1); start < last; start++) {
      const first = output[start]!;
      if (this.#stopWords.has(first)) continue;
      const tree = this.#treeOf(first);
      const nodes = this.#below(output.slice(start, last), outputsAlone);
      // Another sequence may have ended meanwhile, and the beginning of this window may have been pruned.
      if (nodes === undefined) continue;
      const node = nodeOf(output[last]!, nodes, tree);
      if (node.output === 0) tree.outputSize += 1;
      node.output += 1;
    }
  }

  /** Forgets the prompt of a sequence. A second time it does nothing. */
  eliminate(sequence: number): void {
    const prompt = this.#prompts.get(sequence);
    this.#prompts.delete(sequence);
    for (const token of new Set(prompt)) {
      const tree = this.#trees.get(token);
      if (tree === undefined) continue;
      const forget = (nodes: Nodes): void => {
        for (const [child, node] of nodes) {
          if (!node.prompts.delete(sequence)) continue;
          forget(node.children);
          removeIfDead(child, node, nodes, tree);
        }
      };
      forget(tree.nodes);
      if (tree.size === 0) this.#trees.delete(token);
    }
  }

  /** Halves the output counts of trees beyond capacity, and forgets those of 1 and less, until they are within it. */
  prune(): void {
    const { maxTreeNodes, maxTreeOutputNodes } = this.#options;
    for (const [token, tree] of this.#trees) {
      const halve = (nodes: Nodes, forgotten: boolean): void => {
        for (const [child, node] of nodes) {
          const output = forgotten || node.output <= 1 ? 0 : node.output / 2;
          if (node.output > 0 && output === 0) tree.outputSize -= 1;
          node.output = output;
          halve(node.children, output === 0);
          removeIfDead(child, node, nodes, tree);
        }
      };
      while (tree.outputSize > maxTreeOutputNodes || (tree.size > maxTreeNodes && tree.outputSize > 0)) {
        halve(tree.nodes, false);
      }
      if (tree.size === 0) this.#trees.delete(token);
    }
  }

  /**
   * The draft after a text.
   * @param query what the text ends with, its last token pending
   * @param sequence the one whose prompt is looked into, beside all outputs
   * @param limits `maxNodes` (the root included, at least 1) and `maxDepth` within which to keep
   */
  retrieve(
    query: readonly number[],
    sequence: number,
    limits: { readonly maxNodes: number; readonly maxDepth: number },
  ): Draft {
    const { mode, decodingLength, branchLength } = this.#options;
    const maxNodes = Math.min(decodingLength, limits.maxNodes);
    const maxDepth = Math.min(branchLength, limits.maxDepth);
    const enough = mode === "single" ? Math.floor(maxDepth / 2) : maxDepth;
    const pending = query[query.length - 1]!;
    let draft = rootDraft(pending);
    for (let start = 0; start < query.length && maxNodes > 1 && maxDepth > 0; start++) {
      if (start === query.length - 1 && this.#stopWords.has(pending)) break;
      const nodes = this.#below(query.slice(start), sequence);
      if (nodes === undefined) continue;
      draft = this.#draft(pending, nodes, sequence, maxNodes, maxDepth);
      if (draft.tokens.length >= enough) break;
    }
    return mode === "parallel" ? withoutSharing(draft) : draft;
  }

  /** What hangs below, depth first, the most frequent first. */
  #draft(pending: number, nodes: Nodes, sequence: number, maxNodes: number, maxDepth: number): Draft {
    const single = this.#options.mode === "single";
    const { least, leastOutput } = single ? { least: 0, leastOutput: 0 } : this.#cutOffs(nodes, sequence, maxNodes);
    const tokens = [pending];
    const parents = [-1];
    const grow = (nodes: Nodes, parent: number, depth: number): void => {
      const ranked = this.#counted(nodes, sequence).sort((a, b) => b.frequency - a.frequency);
      for (const { token, node, frequency } of single ? ranked.slice(0, 1) : ranked) {
        if (tokens.length >= maxNodes) return;
        if (frequency < least && node.output < leastOutput) continue;
        const child = tokens.push(token) - 1;
        parents.push(parent);
        if (depth < maxDepth) grow(node.children, child, depth + 1);
      }
    };
    grow(nodes, 0, 1);
    return { tokens, parents, laws: new Array<null>(tokens.length).fill(null) };
  }

  /** A node that is rarer than `least` and has fewer outputs than `leastOutput` is not drafted. */
  #cutOffs(nodes: Nodes, sequence: number, maxNodes: number): { readonly least: number; readonly leastOutput: number } {
    const found: Counted[] = [];
    const collect = (nodes: Nodes): void => {
      for (const entry of this.#counted(nodes, sequence)) {
        found.push(entry);
        collect(entry.node.children);
      }
    };
    collect(nodes);
    if (found.length <= maxNodes) return { least: 0, leastOutput: 0 };
    const reserved = Math.floor(maxNodes / 2);
    const byOutput = found.slice().sort((a, b) => b.node.output - a.node.output);
    const kept = new Set(byOutput.slice(0, reserved));
    let least = 0;
    for (const [rank, entry] of found.sort((a, b) => b.frequency - a.frequency).entries()) {
      if (kept.has(entry)) continue;
      kept.add(entry);
      least = entry.frequency;
      // As the released code counts: the first ones are all kept, then at least one more.
      if (rank >= maxNodes - reserved && kept.size >= maxNodes) break;
    }
    return { least, leastOutput: byOutput[reserved - 1]!.node.output };
  }

  /** Nodes with a count, in the order they came; eliminated ones and other sequences' prompts have none. */
  #counted(nodes: Nodes, sequence: number): Counted[] {
    const { outputWeight } = this.#options;
    const counted: Counted[] = [];
    for (const [token, node] of nodes) {
      const prompt = node.prompts.get(sequence) ?? 0;
      if (prompt === 0 && node.output === 0) continue;
      counted.push({ token, node, frequency: (1 - outputWeight) * prompt + outputWeight * node.output });
    }
    return counted;
  }

  /** What follows a path; undefined where it leads over a node that neither outputs nor the sequence's prompt count. */
  #below(path: readonly number[], sequence: number): Nodes | undefined {
    let nodes = this.#trees.get(path[0]!)?.nodes;
    for (const token of path.slice(1)) {
      const node = nodes?.get(token);
      if (node?.output === 0 && !node.prompts.has(sequence)) return undefined;
      nodes = node?.children;
    }
    return nodes;
  }

  #treeOf(token: number): Tree {
    let tree = this.#trees.get(token);
    if (tree === undefined) {
      tree = { nodes: new Map(), size: 0, outputSize: 0 };
      this.#trees.set(token, tree);
    }
    return tree;
  }
}

/** A node as one sequence sees it. */
interface Counted {
  readonly token: number;
  readonly node: Node;
  /** f. */
  readonly frequency: number;
}

function nodeOf(token: number, nodes: Nodes, tree: Tree): Node {
  let node = nodes.get(token);
  if (node === undefined) {
    node = { prompts: new Map(), output: 0, children: new Map() };
    nodes.set(token, node);
    tree.size += 1;
  }
  return node;
}

/** Removes a node that nothing counts any more. Nothing then counts those below it either: they are removed before. */
function removeIfDead(token: number, { prompts, output }: Node, nodes: Nodes, tree: Tree): void {
  if (prompts.size > 0 || output > 0) return;
  nodes.delete(token);
  tree.size -= 1;
}

/**
 * The part of a draft that its branches, side by side, would have in as many nodes: each pays for its whole length, the
 * last for what is left, and a beginning that a branch before has paid for is not drafted twice.
 */
function withoutSharing({ tokens, parents }: Draft): Draft {
  const inner = new Set(Array.from(parents));
  const kept = new Set([0]);
  let left = tokens.length - 1;
  for (let leaf = 1; leaf < tokens.length; leaf++) {
    if (inner.has(leaf)) continue;
    const branch: number[] = [];
    for (let node = leaf; node > 0; node = parents[node]!) branch.unshift(node);
    for (const node of branch.slice(0, left)) kept.add(node);
    left = Math.max(0, left - branch.length);
  }
  const nodes = Array.from(kept).sort((a, b) => a - b);
  return {
    tokens: nodes.map((node) => tokens[node]!),
    parents: nodes.map((node) => nodes.indexOf(parents[node]!)),
    laws: new Array<null>(nodes.length).fill(null),
  };
}
