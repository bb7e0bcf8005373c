/**
 * The engine: the decoder of `decoder.ts` on the kernels of `src/kernels`, for inference.
 *
 * **Unlike** `decoder-session.ts` nothing is differentiable and nothing is dispatched: a pass is about ten kernel calls a
 * layer on numbers that stay where they are in one arena: weights, caches and scratch. It is what `generate` and the demo
 * run on; the tensor decoder remains the definition it is tested against.
 *
 * Weights, scratch and threads belong to the engine and are shared by its sessions (`engine-core.ts`); a session has its
 * cache (`engine-session.ts`).
 */
import { ArgumentError, TokenthriftError } from "../errors.ts";
import { type KernelKind, type KernelOptions, openKernels } from "../kernels/kernels.ts";
import { WorkerPool } from "../kernels/worker-pool.ts";
import { checkDecoderConfig, type DecoderConfig, parameterCount } from "./decoder-config.ts";
import { EngineCore, logitBytes } from "./engine-core.ts";
import { EngineSession, type EngineSessionOptions } from "./engine-session.ts";
import { placeWeights, type ReadableTensor } from "./engine-weights.ts";
import type { LanguageModel, Session } from "./language-model.ts";
import { checkWeights, type Weights } from "./weights.ts";

export interface EngineOptions extends KernelOptions {
  /**
   * How weights are held: `"float32"` widens 16-bit weights once; `"stored"` keeps them as they are and widens them in
   * every product: half the memory, and slower where float32 stays in the cache. Default `"float32"` while that takes at
   * most 1 GiB, else `"stored"`.
   */
  readonly weights?: "stored" | "float32";
  /**
   * Threads that compute: this one and `threads - 1` workers on shared memory, for products and attention large enough to
   * be faster that way, which is measured when the engine opens. Results are the same to the bit. Close the engine to end
   * the workers. Default 1: off.
   */
  readonly threads?: number;
  /** As `WorkerPoolOptions.forceSplit`. Default false. */
  readonly forceSplit?: boolean;
}

/** A decoder on kernels. Open one with `Engine.open`; `close` it to let its memory go. */
export class Engine implements LanguageModel {
  readonly config: DecoderConfig;
  readonly vocabularySize: number;
  readonly contextLength: number;
  /** Which kernels it runs on. */
  readonly kernels: KernelKind;
  #core: EngineCore | undefined;
  readonly #pool: WorkerPool | undefined;

  private constructor(core: EngineCore, pool: WorkerPool | undefined) {
    this.config = core.config;
    this.vocabularySize = core.config.vocabularySize;
    this.contextLength = core.config.contextLength;
    this.kernels = core.space.kind;
    this.#core = core;
    this.#pool = pool;
  }

  /**
   * Load weights into an arena of their own.
   * @param weights by Hugging Face's names, in its layout (`parameterShapes`): in memory, or tensors that are read one
   *   after another (their names and shapes must have been checked, as `openCheckpoint` does)
   * @throws FormatError naming missing, extra or misshapen tensors, or the first number that is not finite
   * @throws MemoryError when the model does not fit, before anything is read; BackendError when no kernels load, or not
   *   in the shared memory that threads need
   */
  static async open(
    config: DecoderConfig,
    weights: ReadonlyMap<string, Weights | ReadableTensor>,
    options: EngineOptions = {},
  ): Promise<Engine> {
    checkDecoderConfig(config);
    const readable = new Map<string, ReadableTensor>();
    const inMemory = new Map<string, Weights>();
    for (const [name, tensor] of weights) {
      if ("read" in tensor) readable.set(name, tensor);
      else {
        inMemory.set(name, tensor);
        readable.set(name, { dtype: "F32", shape: tensor.shape, read: async () => tensor.data });
      }
    }
    if (inMemory.size > 0) checkWeights(config, inMemory, "weights");
    const { threads = 1, forceSplit } = options;
    const opened = await openKernels(threads === 1 ? options : { ...options, shared: true });
    const pool = threads === 1 ? undefined : await WorkerPool.open(opened, { threads, forceSplit });
    const space = pool === undefined ? opened : { ...opened, kernels: pool.kernels };
    try {
      const storage = options.weights ?? (4 * parameterCount(config) <= 2 ** 30 ? "float32" : "stored");
      const placed = await placeWeights(space, config, readable, storage, logitBytes(config));
      return new Engine(new EngineCore(config, space, placed), pool);
    } catch (error) {
      await pool?.close();
      throw error;
    }
  }

  openSession(options: EngineSessionOptions = {}): Session {
    const core = this.#open();
    if (options.keys === "unrotated" && core.weights.positions !== 0) {
      throw new ArgumentError("keys", '"rotated": GPT-2 has learned positions and rotates no keys', options.keys);
    }
    return new EngineSession(core, options);
  }

  /** Bytes: what the weights take, and what the arena has taken for weights, scratch and the caches of sessions. */
  get memory(): { readonly weights: number; readonly arena: number; readonly used: number } {
    const { weights, space } = this.#open();
    return { weights: weights.bytes, arena: space.arena.size, used: space.arena.usedBytes };
  }

  /** Threads that compute, and the multiply-adds of a kernel call from which on it is split between them. */
  get threads(): { readonly count: number; readonly smallestSplit: number } {
    const { threads = 1, smallestSplit = Number.POSITIVE_INFINITY } = this.#pool ?? {};
    return { count: threads, smallestSplit };
  }

  /** Let the memory go and end the workers. Sessions still open become unusable. */
  close(): void {
    void this.#pool?.close();
    if (this.#core !== undefined) this.#core.closed = true;
    this.#core = undefined;
  }

  #open(): EngineCore {
    if (this.#core === undefined) throw new TokenthriftError("engine: it is closed. Open sessions before closing it.");
    return this.#core;
  }
}
