/**
 * Hierarchical navigable small world graphs: nearest neighbours by walking from row to row.
 * Malkov and Yashunin, arXiv 1603.09320, algorithms 1, 2, 4 and 5.
 *
 * Every row is a node linked to some rows near it. A search starts anywhere and goes on to whatever neighbour is nearer to
 * the query, keeping a beam of the best rows seen. Few nodes are also part of coarser graphs above, each level with about
 * one in M of the nodes below it, in which the walk makes its long strides.
 *
 *     level of a node      floor(-ln(u) / ln(M)),  u uniform in (0, 1]
 *     beam search          expand the best row not expanded yet; stop when none of the beam's is left
 *     links of a node      of its beam, nearest first: c is kept if it is nearer to the node than to every row kept so far
 *
 * The graph wants a distance, products are none. Rows are lengthened to equal norms by one more number (Bachrach et al.,
 * RecSys 2014): of equally long rows the nearest is the one with the largest product, and a query has 0 there.
 *
 *     x' = [x, sqrt(R^2 - |x|^2)],  R = max |x|          |q' - x'|^2 = |q|^2 + R^2 - 2 q . x
 *
 * What is left of a node's links is filled up with the nearest of those passed over (algorithm 4's keepPrunedConnections).
 *
 * **Deviations**: a beam is one sorted list with marks, in place of two heaps.
 *
 * **Unlike** `exactNeighbours`, what it finds is likely, not sure: `recall` measures it.
 *
 * Worked example: rows [3, 0] and [0, 1], R = 3: x' = [3, 0, 0] and [0, 1, 2.83]; the query [1, 4] has products 3 and 4,
 * distances 17 + 9 - 6 = 20 and 18: the second row is nearest, as its product is largest.
 */
import { ArgumentError } from "../errors.ts";
import type { Matrix } from "../model/language-model.ts";
import { Random } from "../tensor/random.ts";
import { type NeighbourIndex, type Neighbours, requireSearch, requireTable } from "./nearest-neighbours.ts";

export interface HnswOptions {
  /** M: links of a node on each level, twice as many on the lowest. An integer >= 2. Default 12. */
  readonly links?: number;
  /** Beam while the graph is built, an integer >= 1. Default 80. */
  readonly constructionBeam?: number;
  /** Beam of a search, an integer >= 1; as many rows as are asked for at least. Default 64. */
  readonly searchBeam?: number;
  /** Default 0. */
  readonly seed?: number | string;
}

/** Rows by falling similarity, and which of them have been expanded. */
interface Beam {
  readonly rows: number[];
  readonly similarities: number[];
  readonly expanded: boolean[];
}

/** The graph over a table's rows. */
export class HnswIndex implements NeighbourIndex {
  readonly size: number;
  readonly width: number;
  readonly #links: number;
  readonly #constructionBeam: number;
  readonly #searchBeam: number;
  /** Lengthened rows, [size, width + 1]. */
  readonly #rows: Float32Array;
  /** [level][row]: links of a row on a level it is part of. */
  readonly #graph: (Int32Array | undefined)[][] = [];
  #entry = 0;
  /** When a row was last seen. */
  readonly #seen: Uint32Array;
  #search = 0;
  #compared = 0;

  /**
   * @param table [rows, width]
   * @throws ArgumentError on an empty table, numbers that are not finite, or options out of range
   */
  constructor(table: Matrix, options: HnswOptions = {}) {
    requireTable(table);
    const { links = 12, constructionBeam = 80, searchBeam = 64, seed = 0 } = options;
    for (const [name, value, least] of [
      ["links", links, 2],
      ["constructionBeam", constructionBeam, 1],
      ["searchBeam", searchBeam, 1],
    ] as const) {
      if (!(Number.isSafeInteger(value) && value >= least)) {
        throw new ArgumentError(name, `an integer >= ${least}`, value);
      }
    }
    this.size = table.rows;
    this.width = table.columns;
    this.#links = links;
    this.#constructionBeam = constructionBeam;
    this.#searchBeam = searchBeam;
    this.#rows = lengthened(table);
    this.#seen = new Uint32Array(table.rows);
    const random = new Random(seed);
    for (let row = 0; row < this.size; row++) {
      this.#insert(row, Math.floor(-Math.log(1 - random.uniform()) / Math.log(links)));
    }
  }

  search(query: Float32Array, count: number): Neighbours {
    requireSearch(this, query, count);
    this.#compared = 0;
    const point = new Float32Array(this.width + 1);
    point.set(query);
    let entry = this.#entry;
    for (let level = this.#graph.length - 1; level > 0; level--) entry = this.#walk(point, [entry], 1, level).rows[0]!;
    const { rows, similarities } = this.#walk(point, [entry], Math.max(this.#searchBeam, count), 0);
    const found = rows
      .map((row, i) => ({ row, product: similarities[i]! }))
      .sort((a, b) => b.product - a.product || a.row - b.row)
      .slice(0, count);
    return {
      rows: Int32Array.from(found, ({ row }) => row),
      products: Float32Array.from(found, ({ product }) => product),
      compared: this.#compared,
    };
  }

  #insert(row: number, level: number): void {
    const point = this.#point(row);
    const top = this.#graph.length - 1;
    let entries = [this.#entry];
    for (let l = top; l > level; l--) entries = [this.#walk(point, entries, 1, l).rows[0]!];
    for (let l = Math.min(level, top); l >= 0; l--) {
      const beam = this.#walk(point, entries, this.#constructionBeam, l);
      const own = this.#select(beam.rows, beam.similarities, this.#links);
      this.#graph[l]![row] = Int32Array.from(own);
      for (const other of own) this.#link(other, row, l);
      entries = beam.rows;
    }
    for (let l = top + 1; l <= level; l++) {
      const graph: (Int32Array | undefined)[] = [];
      graph[row] = new Int32Array(0);
      this.#graph.push(graph);
      this.#entry = row;
    }
  }

  /** A link from `from` to `to`; where that is one too many, the best are chosen anew. */
  #link(from: number, to: number, level: number): void {
    const graph = this.#graph[level]!;
    const links = [...graph[from]!, to];
    const most = level === 0 ? 2 * this.#links : this.#links;
    if (links.length <= most) {
      graph[from] = Int32Array.from(links);
      return;
    }
    const point = this.#point(from);
    const ranked = links
      .map((row) => ({ row, similarity: this.#similarity(point, row) }))
      .sort((a, b) => b.similarity - a.similarity || a.row - b.row);
    graph[from] = Int32Array.from(
      this.#select(
        ranked.map(({ row }) => row),
        ranked.map(({ similarity }) => similarity),
        most,
      ),
    );
  }

  /** Of rows by falling similarity to a node, up to `most`: those nearer to it than to each other first. */
  #select(rows: readonly number[], similarities: readonly number[], most: number): number[] {
    const kept: number[] = [];
    const passedOver: number[] = [];
    for (const [i, row] of rows.entries()) {
      if (kept.length === most) return kept;
      const point = this.#point(row);
      const apart = kept.every((other) => this.#similarity(point, other) < similarities[i]!);
      (apart ? kept : passedOver).push(row);
    }
    return [...kept, ...passedOver.slice(0, most - kept.length)];
  }

  /** The beam of `width` rows around a point on one level, from some rows on. */
  #walk(point: Float32Array, entries: readonly number[], width: number, level: number): Beam {
    const graph = this.#graph[level]!;
    const beam: Beam = { rows: [], similarities: [], expanded: [] };
    this.#search++;
    const meet = (row: number): void => {
      if (this.#seen[row] === this.#search) return;
      this.#seen[row] = this.#search;
      offer(beam, row, this.#similarity(point, row), width);
    };
    for (const entry of entries) meet(entry);
    for (;;) {
      const next = beam.expanded.indexOf(false);
      if (next < 0) return beam;
      beam.expanded[next] = true;
      for (const neighbour of graph[beam.rows[next]!]!) meet(neighbour);
    }
  }

  #point(row: number): Float32Array {
    const length = this.width + 1;
    return this.#rows.subarray(row * length, (row + 1) * length);
  }

  #similarity(point: Float32Array, row: number): number {
    this.#compared++;
    const length = this.width + 1;
    const start = row * length;
    let sum = 0;
    for (let i = 0; i < length; i++) sum += point[i]! * this.#rows[start + i]!;
    return sum;
  }
}

/** A row into its place in the beam, if it has one; what falls off the end is forgotten. */
function offer({ rows, similarities, expanded }: Beam, row: number, similarity: number, width: number): void {
  if (rows.length === width && similarity <= similarities[width - 1]!) return;
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (similarities[middle]! >= similarity) low = middle + 1;
    else high = middle;
  }
  rows.splice(low, 0, row);
  similarities.splice(low, 0, similarity);
  expanded.splice(low, 0, false);
  if (rows.length > width) {
    rows.pop();
    similarities.pop();
    expanded.pop();
  }
}

/** Rows of equal norms: one more number each. */
function lengthened({ data, rows, columns }: Matrix): Float32Array {
  const squares = Array.from({ length: rows }, (_, r) => {
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += data[r * columns + i]! ** 2;
    return sum;
  });
  const largest = squares.reduce((a, b) => Math.max(a, b), 0);
  const result = new Float32Array(rows * (columns + 1));
  for (let r = 0; r < rows; r++) {
    result.set(data.subarray(r * columns, (r + 1) * columns), r * (columns + 1));
    result[r * (columns + 1) + columns] = Math.sqrt(largest - squares[r]!);
  }
  return result;
}
