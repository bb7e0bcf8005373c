/**
 * Threads for the kernels: large products and attention split over this thread and workers that share its memory.
 *
 * A call is cut into chunks with outputs of their own (panels of a product, key heads of attention), by the same kernels on
 * the same numbers: the result has the bits it has on one thread. Each thread owns a run of chunks and takes from the
 * others' runs when its own is done, so a thread the system keeps waiting delays nobody; a worker that has not begun when
 * all chunks are taken is not waited for at all.
 *
 * A worker's state is one number, changed by compare-and-swap:
 *
 *     idle -> asleep                   the worker, after a while without work; it waits for the number to change
 *     idle, asleep -> offered          this thread, when chunks and arguments of a call are written
 *     offered -> running -> idle       the worker; or running -> failed
 *     offered -> idle                  this thread, which takes back what the worker did not begin
 *
 * Arguments change only while no worker is running, so none ever computes with those of another call.
 *
 * Threads cost: a call is split only where that was measured to be faster when the pool was opened, which on two hardware
 * threads of one core may be never. Needs memory that threads share: WebAssembly kernels, and in browsers a page that is
 * isolated from other origins. A page's thread may not sleep: it spins while it waits.
 */
import { ArgumentError, BackendError, TokenthriftError } from "../errors.ts";
import { attentionScratchFloats, type KernelSpace, type Kernels, panelWidth } from "./kernels.ts";

export interface WorkerPoolOptions {
  /** Threads that compute: this one and `threads - 1` workers, at most 64 in all. Default 1: no workers. */
  readonly threads?: number | undefined;
  /**
   * Split every call that has two parts, and leave each worker its share, whether or not that is faster: to show that
   * results stay the same. Default false.
   */
  readonly forceSplit?: boolean | undefined;
}

const mostThreads = 64;

/** Rounds without news that a worker or this thread spins before it sleeps: some 20 microseconds. */
const spins = 20_000;

/** How long a worker that must do its share may take to begin. */
const milliseconds = 1000;

/** How many times as long a worker may take for one chunk before it is given up. */
const patience = 60;

/** Chunks a thread's share is cut into, when the call is large enough. */
const chunksPerThread = 8;

/** Panels that the product of a single row takes together. */
const panelsTogether = 4;

/** How long a new pool measures. */
const measuringMilliseconds = 12;

/** Both threads' time in parts of one thread's, above which threads are not worth their trouble. */
const worthwhile = 0.9;

const state = { idle: 0, asleep: 1, offered: 2, running: 3, failed: 4 } as const;

/** Int32 per thread in the control block: its state, its next chunk, the end of its chunks. A cache line each. */
const lineInts = 16;

/**
 * Float64 behind the threads' lines: kernel, count of arguments, which one the range starts with, which one is the scratch
 * (or -1), units per chunk, the first worker's scratch, its bytes; from `firstArgument` on the arguments.
 */
const firstArgument = 7;
const frameLength = firstArgument + 20;

/** Kernels that can be split: their number, and where in their arguments the range and the scratch stand. */
const product = { number: 0, range: 6, scratch: -1 } as const;
const attend = { number: 1, range: 14, scratch: 18 } as const;

/** What a worker runs. Text, so that it is there wherever this module is: in sources, in dist and in a bundle. */
const work = `"use strict";
function work({ module, memory, control, thread, threads, reach }, ready) {
  const { exports } = new WebAssembly.Instance(module, { env: { memory, abort() { throw new Error("a kernel aborted"); } } });
  const kernels = [exports.product, exports.attend];
  const lines = new Int32Array(control, 0, ${lineInts} * threads);
  const frame = new Float64Array(control, ${4 * lineInts} * threads);
  const own = ${lineInts} * thread;
  function compute() {
    const [number, count, range, scratch, step, scratches, scratchBytes] = frame;
    const call = Array.from(frame.subarray(${firstArgument}, ${firstArgument} + count));
    const first = call[range], end = call[range + 1];
    if (scratch >= 0) call[scratch] = scratches + (thread - 1) * scratchBytes;
    for (let i = 0; i < reach; i++) {
      const line = ${lineInts} * ((thread + i) % threads);
      for (let chunk; (chunk = Atomics.add(lines, line + 1, 1)) < lines[line + 2]; ) {
        call[range] = first + chunk * step;
        call[range + 1] = Math.min(call[range] + step, end);
        kernels[number](...call);
      }
    }
  }
  ready();
  for (let waited = 0; ; ) {
    if (Atomics.load(lines, own) !== ${state.offered}) {
      if (++waited < ${spins}) continue;
      if (Atomics.compareExchange(lines, own, ${state.idle}, ${state.asleep}) !== ${state.offered}) Atomics.wait(lines, own, ${state.asleep});
    }
    waited = 0;
    if (Atomics.compareExchange(lines, own, ${state.offered}, ${state.running}) !== ${state.offered}) continue;
    try {
      compute();
    } catch (error) {
      Atomics.store(lines, own, ${state.failed});
      Atomics.notify(lines, own);
      throw error;
    }
    Atomics.store(lines, own, ${state.idle});
    Atomics.notify(lines, own);
  }
}
`;
const nodeWorker = `${work}const { workerData, parentPort } = require("node:worker_threads");
work(workerData, () => parentPort.postMessage("ready"));`;
const webWorker = `${work}onmessage = ({ data }) => work(data, () => postMessage("ready"));`;

/** A worker that runs. */
interface Thread {
  terminate(): unknown;
}

export class WorkerPool {
  /** The space's kernels, `product` and `attend` split over the threads where that pays. */
  readonly kernels: Kernels;
  readonly #space: KernelSpace;
  readonly #threads: number;
  readonly #forced: boolean;
  readonly #lines: Int32Array;
  readonly #frame: Float64Array;
  #workers: readonly Thread[] = [];
  #smallestSplit = Number.POSITIVE_INFINITY;
  /** The workers' scratch for attention, one behind the other. */
  #scratch = { pointer: 0, bytes: 0 };

  private constructor(space: KernelSpace, threads: number, forced: boolean) {
    this.#space = space;
    this.#threads = threads;
    this.#forced = forced;
    const shared = threads > 1 ? new SharedArrayBuffer(4 * lineInts * threads + 8 * frameLength) : new ArrayBuffer(0);
    this.#lines = new Int32Array(shared, 0, threads > 1 ? lineInts * threads : 0);
    this.#frame = new Float64Array(shared, this.#lines.byteLength);
    this.kernels = threads > 1 ? this.#splitting() : space.kernels;
  }

  /**
   * Start the workers and measure from where on they pay: some 50 ms.
   * @param space kernels in shared memory, if `threads` is more than 1; they must not be called before the pool is open
   * @throws ArgumentError on a number of threads that cannot be; BackendError when memory is not shared or no worker starts
   */
  static async open(
    space: KernelSpace,
    { threads = 1, forceSplit = false }: WorkerPoolOptions = {},
  ): Promise<WorkerPool> {
    if (!(Number.isInteger(threads) && threads >= 1 && threads <= mostThreads)) {
      throw new ArgumentError("threads", `an integer from 1 to ${mostThreads}`, threads);
    }
    if (threads > 1 && (space.module === undefined || space.arena.memory.buffer instanceof ArrayBuffer)) {
      throw new BackendError("threads: they need WebAssembly kernels in shared memory. Open kernels with `shared: true`.");
    }
    const pool = new WorkerPool(space, threads, forceSplit);
    if (threads > 1) await pool.#start();
    return pool;
  }
