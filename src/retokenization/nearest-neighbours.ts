/**
 * Rows of a large table that have the largest products with a vector: the most probable tokens of a vocabulary too large to
 * score whole. The contract of an index, and the exact one, which scores it whole; `hnsw.ts` looks at a few rows only.
 *
 * Products, not cosines: rows differ in length, and an arg-max over cosines can miss the arg-max over logits.
 */
import { ArgumentError } from "../errors.ts";
import { type KernelSpace, openKernels } from "../kernels/kernels.ts";
import type { Matrix } from "../model/language-model.ts";
import { HeadLayers, type Linear, Ranking } from "../speculative/head-layers.ts";

/** What a search found. */
export interface Neighbours {
  /** Rows, the one with the largest product first; of equal ones the lower first. */
  readonly rows: Int32Array;
  /** Their products with the query. */
  readonly products: Float32Array;
  /** Rows the query was multiplied with to find them. */
  readonly compared: number;
}

/** An index over the rows of a table. */
export interface NeighbourIndex {
  readonly size: number;
  readonly width: number;
  /**
   * The `count` rows with the largest products with `query`, or as many as there are.
   * @param query [width]
   * @throws ArgumentError on a query of another width, a count that is not an integer >= 1
   */
  search(query: Float32Array, count: number): Neighbours;
}

/** Most rows an exact search returns. */
const mostRows = 1024;

/**
 * The exact index: every row is multiplied.
 * @param table [rows, width], copied
 * @throws ArgumentError on an empty table
 */
export async function exactNeighbours(table: Matrix): Promise<NeighbourIndex> {
  return new ExactNeighbours(table, await openKernels());
}

class ExactNeighbours implements NeighbourIndex {
  readonly size: number;
  readonly width: number;
  readonly #layers: HeadLayers;
  readonly #table: Linear;
  readonly #ranking: Ranking;
  readonly #query: number;
  readonly #products: number;

  constructor(table: Matrix, space: KernelSpace) {
    requireTable(table);
    this.size = table.rows;
    this.width = table.columns;
    this.#layers = new HeadLayers(space);
    this.#table = this.#layers.linear(table.rows, table.columns, table.data);
    this.#ranking = new Ranking(this.#layers, Math.min(mostRows, table.rows));
    this.#query = this.#layers.buffer(1, table.columns);
    this.#products = this.#layers.buffer(1, table.rows);
  }

  search(query: Float32Array, count: number): Neighbours {
    requireSearch(this, query, count, mostRows);
    this.#layers.floats.set(query, this.#query / 4);
    this.#layers.apply(this.#table, this.#query, 1, this.#products);
    const rows = this.#ranking.of(this.#products, this.size, count);
    const { floats } = this.#layers;
    return { rows, products: Float32Array.from(rows, (r) => floats[this.#products / 4 + r]!), compared: this.size };
  }
}

/** @throws ArgumentError on an empty table, or numbers that are not finite */
export function requireTable({ data, rows, columns }: Matrix): void {
  if (!(rows >= 1 && columns >= 1 && data.length === rows * columns)) {
    throw new ArgumentError("table", "at least one row, all of one width", [rows, columns, data.length]);
  }
  const bad = data.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw new ArgumentError("table", "finite numbers", data[bad]);
}

/** @throws ArgumentError as `NeighbourIndex.search` */
export function requireSearch(
  { width }: NeighbourIndex,
  query: Float32Array,
  count: number,
  most = Number.MAX_SAFE_INTEGER,
): void {
  if (query.length !== width) throw new ArgumentError("query", `${width} numbers`, query.length);
  if (!(Number.isSafeInteger(count) && count >= 1 && count <= most)) {
    throw new ArgumentError("count", most === Number.MAX_SAFE_INTEGER ? "an integer >= 1" : `1 to ${most}`, count);
  }
}

/** Share of the `count` true neighbours an index finds, over some queries; 1 is all of them. */
export function recall(
  index: NeighbourIndex,
  exact: NeighbourIndex,
  queries: readonly Float32Array[],
  count: number,
): number {
  let found = 0;
  let wanted = 0;
  for (const query of queries) {
    const truth = exact.search(query, count).rows;
    const got = new Set(index.search(query, count).rows);
    wanted += truth.length;
    for (const row of truth) if (got.has(row)) found++;
  }
  return found / wanted;
}
