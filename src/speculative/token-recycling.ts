/**
 * Token recycling: the candidates every target pass leaves behind are the next drafts.
 * Luo et al., "Turning Trash into Treasure", arXiv 2408.08696; template and constants as in the code released with it.
 *
 * A pass scores a tree of guesses and gives, after every node, a whole ranking of next tokens, of which at most one is
 * used. Here the k best are kept: an adjacency matrix holds, for each token of the vocabulary, the k candidates the
 * target last ranked first after it. Following them breadth first from the pending token, by a fixed template, gives the
 * next tree. No draft model, no corpus, no count: the latest ranking overwrites the row.
 *
 *     A in N^(V x k), all 0 at first        k: the template's largest rank + 1
 *     template   paths of ranks: [2] is the root's third candidate, [2, 0] the first candidate of that one
 *     draft      token(path . r) = A[token(path), r]
 *     update     A[token(n)] = the k tokens of largest logit after n, for every node n in order, rejected ones too
 *
 * The matrix outlives its sequence: a drafter that has served one prompt starts the next one hot, `reset` starts cold.
 * The row of a token that was never scored names token 0 k times; such guesses are kept, as copies of one guess.
 *
 * **Deviations**: the target's pass over the prompt updates the matrix too, which costs no pass, but the target's head
 * at every prompt token; `learnsPrompt: false` leaves it out, as the released code does. Where a token stands at several
 * nodes the last of them is what stays; the released code's parallel write leaves that open. That code compares all
 * paths and knows temperature 0 only; a verifier of trees walks down to the same node there, and is exact when sampling.
 * A candidate takes 2 bytes in vocabularies up to 65,536 and 4 above, where the released code takes 8.
 *
 * **Unlike** prompt lookup it also guesses what the text never held, from the target's own rankings; but it sees one
 * token back and no further, so deep guesses chain pairs.
 *
 * Worked example: template [0], [1], [0, 0], [0, 1], [1, 0], [0, 0, 0], pending 7, rows 7: [3, 5], 3: [4, 9], 5: [2, 0],
 * 4: [7, 1]: tokens [7, 3, 5, 4, 9, 2, 7]. Arg-maxes after them [3, 4, 2, 1, 0, 8, 6]: 3 and 4 are accepted, 1 emitted.
 */
import { ArgumentError } from "../errors.ts";
import { addCosts, row } from "../model/language-model.ts";
import type { Draft, DraftContext, Drafter, Drafting, DraftStart, VerifiedPass } from "./drafter.ts";

/** Paths of ranks, 0 the best candidate; the root's, [], is not among them. Sorted by length, each after its beginning. */
export type TreeTemplate = readonly (readonly number[])[];

/**
 * The released code's only template: 80 paths of up to 6 ranks below 8, by length 8, 21, 25, 15, 8 and 3 of them.
 * For fewer nodes take the first ones; for a smaller k leave paths out: `filter((path) => Math.max(...path) < 4)`.
 */
export const recyclingTemplate: TreeTemplate = [
  "0 1 2 3 4 5 6 7",
  "00 01 02 03 04 05 06 07 10 11 12 13 20 21 22 30 31 40 50 60 70",
  "000 001 002 003 004 005 006 007 010 011 012 020 021 030 040 050 060 070 100 101 110 200 300 400 500",
  "0000 0001 0002 0003 0004 0010 0011 0020 0030 0040 0100 0200 1000 2000 3000",
  "00000 00001 00002 00010 00020 00100 01000 10000",
  "000000 000001 000100",
].flatMap((level) => level.split(" ").map((path) => Array.from(path, Number)));

export interface TokenRecyclingOptions {
  /** The tree to fill in, as far as `maxNodes` and `maxDepth` let it: its first paths. Default `recyclingTemplate`. */
  readonly template?: TreeTemplate;
  /** Whether the pass over the prompt updates the matrix as well. Default true; the released code's is false. */
  readonly learnsPrompt?: boolean;
}

/**
 * A drafter that learns from every pass of every sequence. Its matrix is made for the vocabulary of the first sequence;
 * `reset` drops it, and sequences still open go on with the one they began with.
 */
export class TokenRecyclingDrafter implements Drafter {
  readonly prefillLogits: boolean;
  readonly #template: TreeTemplate;
  #matrix: AdjacencyMatrix | undefined;

  /** @throws ArgumentError on a template whose paths are not ranks, not sorted by length, repeated, or without beginning */
  constructor({ template = recyclingTemplate, learnsPrompt = true }: TokenRecyclingOptions = {}) {
    compile(template);
    this.#template = template.map((path) => path.slice());
    this.prefillLogits = learnsPrompt;
  }

  get vocabularySize(): number | null {
    return this.#matrix?.vocabularySize ?? null;
  }

  /** Size of the matrix: V * k candidates of 2 bytes, 4 where V is above 65,536. 0 before the first sequence. */
  get bytes(): number {
    return this.#matrix?.cells.byteLength ?? 0;
  }

  /** The candidates after a token, best first, [k], a copy; null before the first sequence. */
  candidates(token: number): number[] | null {
    return this.#matrix === undefined ? null : Array.from(this.#matrix.row(token));
  }

  /** @throws ArgumentError on a vocabulary other than the first one */
  open({ prompt, vocabularySize, prefill }: DraftStart): Drafting {
    // Of a vocabulary smaller than k there are no more candidates than tokens.
    this.#matrix ??= new AdjacencyMatrix(
      vocabularySize,
      compile(this.#template.filter((path) => path.every((rank) => rank < vocabularySize))),
    );
    if (vocabularySize !== this.#matrix.vocabularySize) {
      throw new ArgumentError("drafter", `a vocabulary of ${vocabularySize}`, this.#matrix.vocabularySize);
    }
    for (let i = 0; prefill !== null && i < prefill.logits.rows; i++) {
      this.#matrix.update(prompt[i]!, row(prefill.logits, i));
    }
    return new TokenRecyclingDrafting(this.#matrix);
  }

  reset(): void {
    this.#matrix = undefined;
  }
}

/** Of its sequence it keeps nothing: the pending token says where to begin. */
class TokenRecyclingDrafting implements Drafting {
  readonly cost = addCosts();
  readonly #matrix: AdjacencyMatrix;

  constructor(matrix: AdjacencyMatrix) {
    this.#matrix = matrix;
  }

  propose({ tokens: text, maxNodes, maxDepth }: DraftContext): Draft {
    const { parents, ranks, sizes } = this.#matrix.template;
    const size = Math.min(maxNodes, sizes[Math.min(maxDepth, sizes.length - 1)]!);
    const tokens = [text[text.length - 1]!];
    for (let node = 1; node < size; node++) {
      tokens.push(this.#matrix.row(tokens[parents[node]!]!)[ranks[node]!]!);
    }
    return { tokens, parents: parents.slice(0, size), laws: new Array<null>(size).fill(null) };
  }

  observe({ draft, logits }: VerifiedPass): void {
    for (let node = 0; node < logits.rows; node++) this.#matrix.update(draft.tokens[node]!, row(logits, node));
  }

  close(): void {}
}

/** For each token the k candidates last seen after it, and the template they are read by. */
class AdjacencyMatrix {
  readonly vocabularySize: number;
  readonly template: Template;
  /** Row-major, [vocabularySize, k]. */
  readonly cells: Uint16Array | Uint32Array;
  /** Logits of the row being filled, [k]. */
  readonly #best: Float32Array;

  constructor(vocabularySize: number, template: Template) {
    this.vocabularySize = vocabularySize;
    this.template = template;
    this.cells = new (vocabularySize <= 2 ** 16 ? Uint16Array : Uint32Array)(vocabularySize * template.width);
    this.#best = new Float32Array(template.width);
  }

  /** Candidates after a token, best first, [k]; a view. */
  row(token: number): Uint16Array | Uint32Array {
    const { width } = this.template;
    return this.cells.subarray(token * width, (token + 1) * width);
  }

  /** Overwrites a token's row with the largest of the logits after it; of equal ones the lower id is the larger. */
  update(token: number, logits: Float32Array): void {
    const candidates = this.row(token);
    const best = this.#best;
    const last = best.length - 1;
    for (let id = 0; id < logits.length; id++) {
      const logit = logits[id]!;
      if (id > last && !(logit > best[last]!)) continue;
      let rank = Math.min(id, last);
      for (; rank > 0 && logit > best[rank - 1]!; rank--) {
        best[rank] = best[rank - 1]!;
        candidates[rank] = candidates[rank - 1]!;
      }
      best[rank] = logit;
      candidates[rank] = id;
    }
  }
}

/** A template as a tree with its root: node i + 1 is path i. */
interface Template {
  /** [nodes], the root's -1. */
  readonly parents: number[];
  /** Which candidate of its parent a node is, [nodes]; the root's does not count. */
  readonly ranks: readonly number[];
  /** Nodes down to each depth, the root's 1 first, [depths]. */
  readonly sizes: readonly number[];
  /** The largest rank + 1: k. */
  readonly width: number;
}

function compile(template: TreeTemplate): Template {
  const nodes = new Map([["", 0]]);
  const parents = [-1];
  const ranks = [0];
  const sizes = [1];
  for (const [i, path] of template.entries()) {
    const argument = `template[${i}]`;
    const rank = path[path.length - 1];
    if (rank === undefined || !(Number.isSafeInteger(rank) && rank >= 0)) {
      throw new ArgumentError(argument, "a path that ends in an integer >= 0", path);
    }
    const parent = nodes.get(path.slice(0, -1).join());
    if (parent === undefined) throw new ArgumentError(argument, "a path whose beginning comes before it", path);
    if (nodes.has(path.join())) throw new ArgumentError(argument, "a path that is not there yet", path);
    if (path.length < sizes.length - 1) throw new ArgumentError(argument, "a path as long as the one before", path);
    nodes.set(path.join(), parents.length);
    parents.push(parent);
    ranks.push(rank);
    sizes[path.length] = parents.length;
  }
  return { parents, ranks, sizes, width: ranks.reduce((a, b) => Math.max(a, b), 0) + 1 };
}
