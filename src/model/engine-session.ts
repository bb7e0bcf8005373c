/**
 * One sequence on the engine: its cache of keys and values in the arena, and the forward pass over a run of rows.
 *
 * The cache is one block, [layers, 2, keyValueHeads, capacity, head], which doubles when the sequence outgrows it and is
 * freed by `close`. Attention reads all committed positions, or those a cache policy chooses.
 */
import { ArgumentError, TokenthriftError } from "../errors.ts";
import type { CachePolicy, SelectionRequest } from "./cache-policy.ts";
import { CachedSession, type CountedPass, type PassRequest } from "./cached-session.ts";
import { copyRows, type EngineCore, type Scratch } from "./engine-core.ts";
import type { Matrix, Taps } from "./language-model.ts";

export interface EngineSessionOptions {
  /** Which committed positions each layer attends to. Default: all of them. */
  readonly cachePolicy?: CachePolicy;
  /**
   * What is cached of a key: `"rotated"` to its position, once; or `"unrotated"`, to be rotated whenever it is read, to its
   * place among the positions that are read (0, 1, 2, ...; the pass's own rows follow). With all positions read the two
   * are the same function. Llama only. Default `"rotated"`.
   */
  readonly keys?: "rotated" | "unrotated";
}

/** Positions a new session's cache holds. */
const firstCapacity = 64;

/** What attention reads beside its queries, see `Kernels.attend`. */
interface AttentionInput {
  readonly keys: number;
  readonly values: number;
  readonly capacity: number;
  /** Committed positions; the pass's own follow them in `keys` and `values`. */
  readonly length: number;
  /** Lists of positions, or 0. */
  readonly indices: number;
  readonly selected: number;
}

export class EngineSession extends CachedSession {
  readonly #core: EngineCore;
  readonly #policy: CachePolicy | undefined;
  readonly #unrotated: boolean;
  /** The session's block; 0 while there is none. */
  #cache = 0;
  /** Positions the block has room for. */
  #capacity = 0;

  constructor(core: EngineCore, options: EngineSessionOptions) {
    super(core.config);
    this.#core = core;
    this.#policy = options.cachePolicy;
    this.#unrotated = options.keys === "unrotated";
  }

  protected override run(request: PassRequest): CountedPass {
    const core = this.#core;
    if (core.closed) throw new TokenthriftError("session: its engine is closed.");
    const { config, strides, weights, space } = core;
    const { kernels } = space;
    const { taps, layers } = request;
    const { heads, keyValueHeads, headWidth } = config;
    const rows = request.positions.length;
    this.#makeRoom(this.length + rows);
    const scratch = core.scratch(rows);
    const { x, normed, projections, mixed } = scratch;
    this.#placeInput(request, scratch);
    const ancestors = request.parents === undefined ? 0 : this.#placeAncestors(request.parents, scratch);
    const keysAt = projections + 4 * heads * strides.head;
    const valuesAt = keysAt + 4 * keyValueHeads * strides.head;
    const rotary = weights.positions === 0 && !this.#unrotated ? core.rotaryTable(this.length + rows) : 0;
    const hidden = taps.has("hidden") ? ([] as Matrix[]) : undefined;
    const queries = taps.has("queries") ? ([] as Matrix[]) : undefined;
    const keys = taps.has("keys") ? ([] as Matrix[]) : undefined;
    const attention = taps.has("attention") ? ([] as Matrix[]) : undefined;
    let positionsRead = 0;
    for (let i = 0; i < layers.length; i++) {
      const layer = weights.layers[layers[i]!]!;
      hidden?.push(this.#tapRows(x, strides.width, rows, config.width));
      core.norm(layer.attentionNorm, x, rows, normed);
      core.product(layer.projections, normed, strides.width, rows, projections, strides.projections, 0);
      if (rotary !== 0) {
        // Queries and keys lie side by side and turn together.
        const turned = heads + keyValueHeads;
        const { positions } = scratch;
        kernels.rotate(projections, strides.projections, rows, turned, strides.head, headWidth / 2, positions, rotary);
      }
      const cachedKeys = this.#cachedKeys(layers[i]!);
      this.#store(keysAt, rows, cachedKeys);
      this.#store(valuesAt, rows, cachedKeys + this.#cacheBytes());
      queries?.push(this.#tapHeads(projections, rows, heads));
      keys?.push(this.#tapHeads(keysAt, rows, keyValueHeads));
      positionsRead +=
        this.#policy === undefined && !this.#unrotated && attention === undefined
          ? this.#attendToAll(cachedKeys, rows, scratch, ancestors)
          : this.#attendToSome(layers[i]!, request, scratch, ancestors, attention);
      core.product(layer.output, mixed, strides.mixed, rows, x, strides.width, 1);
      core.feedForward(layer, scratch, rows);
    }
    hidden?.push(this.#tapRows(x, strides.width, rows, config.width));
    const last = x + 4 * (rows - 1) * strides.width;
    const logits =
      request.logits === "all"
        ? core.logits(x, rows, normed)
        : request.logits === "last"
          ? core.logits(last, 1, normed)
          : { data: new Float32Array(0), rows: 0, columns: config.vocabularySize };
    if (taps.size === 0) return { pass: { logits }, positionsRead };
    const tapped: Taps = {
      ...(hidden && { hidden }),
      ...(queries && { queries }),
      ...(keys && { keys }),
      ...(attention && { attention }),
    };
    return { pass: { logits, taps: tapped }, positionsRead };
  }

  protected override moveRow(layer: number, from: number, to: number): void {
    const { head } = this.#core.strides;
    const { bytes } = this.#core.space.arena;
    const keys = this.#cachedKeys(layer);
    for (let h = 0; h < this.config.keyValueHeads; h++) {
      for (const cache of [keys, keys + this.#cacheBytes()]) {
        const start = cache + 4 * h * this.#capacity * head;
        bytes.copyWithin(start + 4 * to * head, start + 4 * from * head, start + 4 * (from + 1) * head);
      }
    }
  }

  protected override release(): void {
    if (this.#cache !== 0 && !this.#core.closed) this.#core.space.arena.free(this.#cache);
    this.#cache = 0;
    this.#capacity = 0;
  }

  /** Ids or embeddings into the residual stream, positions beside them. */
  #placeInput({ ids, embeddings, positions }: PassRequest, scratch: Scratch): void {
    const { space, strides, weights, config } = this.#core;
    const { kernels, arena } = space;
    const rows = positions.length;
    arena.integers.set(positions, scratch.positions / 4);
    if (ids !== undefined) {
      arena.integers.set(ids, scratch.ids / 4);
      const { pointer, format } = weights.embedding;
      kernels.panelRows(pointer, format, config.width, scratch.ids, rows, scratch.x, strides.width);
    } else {
      for (let r = 0; r < rows; r++) {
        const row = embeddings!.subarray(r * config.width, (r + 1) * config.width);
        arena.floats.set(row, scratch.x / 4 + r * strides.width);
      }
    }
    if (weights.positions === 0) return;
    const bytes = 4 * strides.width;
    for (let r = 0; r < rows; r++) {
      kernels.add(weights.positions + positions[r]! * bytes, strides.width, scratch.x + r * bytes);
    }
  }

  /** Which of a tree's nodes see which. */
  #placeAncestors(parents: Int32Array, { ancestors }: Scratch): number {
    const rows = parents.length;
    const { bytes } = this.#core.space.arena;
    bytes.fill(0, ancestors, ancestors + rows * rows);
    for (let r = 0; r < rows; r++) {
      const parent = parents[r]!;
      const own = ancestors + r * rows;
      // A node sees what its parent sees, and itself.
      if (parent >= 0) bytes.copyWithin(own, ancestors + parent * rows, ancestors + (parent + 1) * rows);
      bytes[own + r] = 1;
    }
    return ancestors;
  }

  /** A pass's keys or values, at `from` in the projections, behind the committed ones in the cache at `to`. */
  #store(from: number, rows: number, to: number): void {
    const { space, strides, config } = this.#core;
    const { keyValueHeads } = config;
    space.kernels.storeRows(
      from,
      strides.projections,
      rows,
      keyValueHeads,
      strides.head,
      to,
      this.#capacity,
      this.length,
    );
  }

  /**
   * Attention of the pass's rows to all committed positions in one layer, from `scratch.projections` to `scratch.mixed`.
   * @returns how many committed positions were read
   */
  #attendToAll(keys: number, rows: number, scratch: Scratch, ancestors: number): number {
    const { length } = this;
    this.#attend(
      { keys, values: keys + this.#cacheBytes(), capacity: this.#capacity, length, indices: 0, selected: 0 },
      rows,
      scratch,
      ancestors,
      0,
    );
    return length;
  }

  /** The same to the positions the policy chooses, or with keys to be turned first, or with the weights tapped. */
  #attendToSome(
    layer: number,
    request: PassRequest,
    scratch: Scratch,
    ancestors: number,
    tapped: Matrix[] | undefined,
  ): number {
    const { config, space } = this.#core;
    const { arena } = space;
    const { heads } = config;
    const rows = request.positions.length;
    const lists = this.#select(layer, rows, scratch);
    const committed = lists === undefined ? this.length : lists[0]!.length;
    const span = committed + rows;
    const blocks: number[] = [];
    try {
      const seen = this.#unrotated
        ? this.#turnToPlaces(layer, lists, committed, request, scratch, blocks)
        : this.#listed(layer, lists, blocks);
      const weights = tapped === undefined ? 0 : arena.allocate(4 * heads * rows * span);
      if (weights !== 0) blocks.push(weights);
      this.#attend(seen, rows, scratch, ancestors, weights);
      tapped?.push(this.#tapRows(weights, span, heads * rows, span));
    } finally {
      for (const block of blocks) arena.free(block);
    }
    return committed;
  }

  #attend(seen: AttentionInput, rows: number, scratch: Scratch, ancestors: number, weights: number): void {
    const { config, strides, space } = this.#core;
    const { heads, keyValueHeads, headWidth } = config;
    const span = (seen.indices === 0 ? seen.length : seen.selected) + rows;
    space.kernels.attend(
      scratch.projections,
      strides.projections,
      rows,
      seen.keys,
      seen.values,
      seen.capacity,
      seen.length,
      seen.indices,
      seen.selected,
      ancestors,
      heads,
      keyValueHeads,
      strides.head,
      1 / Math.sqrt(headWidth),
      0,
      keyValueHeads,
      scratch.mixed,
      strides.mixed,
      this.#core.attentionScratch(span),
      weights,
    );
  }

  /** The cache as it lies, read through the lists. Adds the blocks it allocates to `blocks`. */
  #listed(layer: number, lists: readonly ArrayLike<number>[] | undefined, blocks: number[]): AttentionInput {
    const keys = this.#cachedKeys(layer);
    const selected = lists?.[0]?.length ?? 0;
    return {
      keys,
      values: keys + this.#cacheBytes(),
      capacity: this.#capacity,
      length: this.length,
      indices: lists === undefined ? 0 : this.#placeIntegers(lists, selected, blocks),
      selected,
    };
  }

  /**
   * A copy of the keys and values that are read, the pass's own behind them: keys turned to their places in the copy, and
   * the pass's queries to the places that follow. Adds the blocks it allocates to `blocks`.
   */
  #turnToPlaces(
    layer: number,
    lists: readonly ArrayLike<number>[] | undefined,
    committed: number,
    { positions }: PassRequest,
    scratch: Scratch,
    blocks: number[],
  ): AttentionInput {
    const { config, strides, space } = this.#core;
    const { arena, kernels } = space;
    const { heads, keyValueHeads, headWidth } = config;
    const half = headWidth / 2;
    const rows = positions.length;
    const span = committed + rows;
    // Row r of the pass stands behind the committed ones by its depth in the tree, as its position says.
    const rowPlaces = positions.map((position) => committed + position - this.length);
    const picked: number[][] = [];
    const places: number[][] = [];
    for (let head = 0; head < keyValueHeads; head++) {
      picked.push(lists === undefined ? range(this.length) : Array.from(lists[head]!));
      for (let r = 0; r < rows; r++) picked[head]!.push(this.length + r);
      places.push([...range(committed), ...rowPlaces]);
    }
    const indices = this.#placeIntegers(picked, span, blocks);
    const turned = this.#placeIntegers(places, span, blocks);
    const unturned = arena.allocate(4 * keyValueHeads * span);
    const bytes = 4 * keyValueHeads * span * strides.head;
    const copy = arena.allocate(2 * bytes);
    blocks.push(unturned, copy);
    const table = this.#core.rotaryTable(span);
    for (const [from, places, to] of [
      [this.#cachedKeys(layer), turned, copy],
      [this.#cachedKeys(layer) + this.#cacheBytes(), unturned, copy + bytes],
    ] as const) {
      kernels.gatherRotated(
        from,
        this.#capacity,
        keyValueHeads,
        strides.head,
        half,
        indices,
        span,
        places,
        table,
        to,
        span,
      );
    }
    arena.integers.set(rowPlaces, scratch.positions / 4);
    const { projections } = scratch;
    kernels.rotate(projections, strides.projections, rows, heads, strides.head, half, scratch.positions, table);
    return { keys: copy, values: copy + bytes, capacity: span, length: committed, indices: 0, selected: 0 };
  }

  /** Lists of `count` integers, one after another, in a block of their own. */
  #placeIntegers(lists: readonly ArrayLike<number>[], count: number, blocks: number[]): number {
    const { arena } = this.#core.space;
    const pointer = arena.allocate(4 * Math.max(lists.length * count, 1));
    blocks.push(pointer);
    for (const [head, list] of lists.entries()) arena.integers.set(list, pointer / 4 + head * count);
    return pointer;
  }

  /** The policy's choice, one list per key head, checked; undefined for all positions. */
  #select(layer: number, rows: number, scratch: Scratch): readonly ArrayLike<number>[] | undefined {
    if (this.#policy === undefined || this.length === 0) return undefined;
    const { config, strides, space } = this.#core;
    const { heads, keyValueHeads, headWidth } = config;
    const { length } = this;
    const request: SelectionRequest = {
      layer,
      length,
      rows,
      heads,
      keyValueHeads,
      headWidth,
      queries: () => this.#tapHeads(scratch.projections, rows, heads),
      keys: (head) => {
        const start = this.#cachedKeys(layer) + 4 * head * this.#capacity * strides.head;
        const data = new Float32Array(length * headWidth);
        copyRows(space, start, strides.head, length, headWidth, data, 0);
        return { data, rows: length, columns: headWidth };
      },
    };
    const selection = this.#policy.select(request);
    if (selection.kind === "all") return undefined;
    const lists =
      "perHead" in selection ? selection.perHead : Array.from({ length: keyValueHeads }, () => selection.forAllHeads);
    if (lists.length !== keyValueHeads) {
      throw new ArgumentError("selection.perHead", `one list per key head (${keyValueHeads})`, lists.length);
    }
    for (const [head, list] of lists.entries()) {
      if (list.length !== lists[0]!.length) {
        throw new ArgumentError(`selection.perHead[${head}]`, `${lists[0]!.length} positions, as head 0`, list.length);
      }
      for (let i = 0; i < list.length; i++) {
        const position = list[i]!;
        if (!(Number.isInteger(position) && position < length && position > (i === 0 ? -1 : list[i - 1]!))) {
          throw new ArgumentError(
            `selection.perHead[${head}][${i}]`,
            `growing positions from 0 to ${length - 1}`,
            position,
          );
        }
      }
    }
    return lists;
  }

  /** Where a layer's keys lie, [keyValueHeads, capacity, head]; its values follow, `#cacheBytes` behind. */
  #cachedKeys(layer: number): number {
    return this.#cache + 2 * layer * this.#cacheBytes();
  }

  /** Bytes of one layer's keys, or values. */
  #cacheBytes(): number {
    return 4 * this.config.keyValueHeads * this.#capacity * this.#core.strides.head;
  }

  /** Room for `positions` in the cache. */
  #makeRoom(positions: number): void {
    if (positions <= this.#capacity) return;
    const { layers, keyValueHeads, contextLength } = this.config;
    const { head } = this.#core.strides;
    const { arena } = this.#core.space;
    let capacity = firstCapacity;
    while (capacity < positions) capacity *= 2;
    capacity = Math.min(capacity, contextLength);
    const grown = arena.allocate(4 * layers * 2 * keyValueHeads * capacity * head);
    if (this.#cache !== 0) {
      const { bytes } = arena;
      const rowBytes = 4 * head;
      for (let run = 0; run < layers * 2 * keyValueHeads; run++) {
        const from = this.#cache + run * this.#capacity * rowBytes;
        bytes.copyWithin(grown + run * capacity * rowBytes, from, from + this.length * rowBytes);
      }
      arena.free(this.#cache);
    }
    this.#cache = grown;
    this.#capacity = capacity;
  }

  #tapRows(pointer: number, stride: number, rows: number, columns: number): Matrix {
    const data = new Float32Array(rows * columns);
    copyRows(this.#core.space, pointer, stride, rows, columns, data, 0);
    return { data, rows, columns };
  }

  /** `count` heads of each row, from the projections at `pointer`, without padding: [rows, count * headWidth]. */
  #tapHeads(pointer: number, rows: number, count: number): Matrix {
    const { strides, space } = this.#core;
    const { headWidth } = this.config;
    const columns = count * headWidth;
    const data = new Float32Array(rows * columns);
    for (let r = 0; r < rows; r++) {
      copyRows(space, pointer + 4 * r * strides.projections, strides.head, count, headWidth, data, r * columns);
    }
    return { data, rows, columns };
  }
}

/** 0, 1, ..., count - 1 */
function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
