/**
 * Threads for the kernels: large products and attention, split over this thread and workers that share its memory.
 *
 * A call is cut into chunks with outputs of their own (panels of a product, key heads of attention), computed by the same
 * kernels: the result has the bits it has on one thread. Each thread has a run of chunks and takes from the others' runs
 * when its own is done, so one that the system keeps waiting delays nobody; a worker that has not begun when all chunks
 * are taken is not waited for at all.
 *
 * A worker's state is one number, changed by compare-and-swap:
 *
 *     idle -> asleep               by the worker, after a while without work; it sleeps until the number changes
 *     idle, asleep -> offered      by this thread, once the chunks and arguments of a call are written
 *     offered -> running -> idle   by the worker; running -> failed when the kernel throws
 *     offered -> idle              by this thread, which takes back what the worker has not begun
 *
 * Arguments change only while no worker is running, so none computes with those of another call.
 *
 * Threads cost something, too: when a pool opens it measures from which size on a call is faster split, and on two
 * hardware threads of one core that may be none. In browsers the page must be isolated from other origins; its own thread
 * may not sleep there and spins while it waits for workers.
 */
import { ArgumentError, BackendError, TokenthriftError } from "../errors.ts";
import { attentionScratchFloats, type KernelSpace, type Kernels, panelWidth } from "./kernels.ts";

export interface WorkerPoolOptions {
  /** Threads that compute, this one among them: 2 to 64. */
  readonly threads: number;
  /**
   * Split every call that has two parts and leave each worker its share, faster or not: shows that results stay the same.
   * Default false.
   */
  readonly forceSplit?: boolean | undefined;
}

const mostThreads = 64;

/** Looks at a worker's state before who waits for it sleeps: some 20 microseconds. */
const spins = 20_000;

/** How long a worker that must do its share may take to begin. */
const beginMilliseconds = 1000;

/** How long a worker may take for one chunk before it is given up. Counted while this process runs, not by the clock. */
const chunkSeconds = 60;

/** Chunks in a thread's run, when the call is large enough. */
const chunksPerThread = 8;

/** Panels that a product of one row computes together: no chunk is smaller unless it is forced. */
const panelsTogether = 4;

const measuringMilliseconds = 12;

/** Threads are worth their trouble when all together take at most this part of the time of one. */
const worthwhile = 0.9;

const state = { idle: 0, asleep: 1, offered: 2, running: 3, failed: 4 } as const;

/** Int32 per thread in the control block, a cache line: its state, its next chunk, the end of its chunks. */
const lineInts = 16;

/**
 * Float64 behind those lines, what the workers compute: the kernel's number, how many arguments it has, where among them
 * the range and the scratch stand, units per chunk, the first worker's scratch and its bytes; then the arguments.
 */
const firstArgument = 7;
const frameFloats = firstArgument + 20;

/** The kernels that are split: where the range starts among their arguments, and which one is the scratch (-1: none). */
const product = { name: "product", number: 0, range: 6, scratch: -1 } as const;
const attend = { name: "attend", number: 1, range: 14, scratch: 18 } as const;

interface WorkerData {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly control: SharedArrayBuffer;
  /** Which one this is; 0 is the thread that has the pool. */
  readonly thread: number;
  readonly threads: number;
  /** How many threads' chunks it takes: its own, or those of all. */
  readonly reach: number;
}

/** What a worker runs. Text, because then it is there in every place this module is: sources, dist, a bundle. */
const work = `"use strict";
function work({ module, memory, control, thread, threads, reach }, ready) {
  const abort = () => { throw new Error("a kernel aborted"); };
  const { exports } = new WebAssembly.Instance(module, { env: { memory, abort } });
  const kernels = [exports.${product.name}, exports.${attend.name}];
  const lines = new Int32Array(control, 0, ${lineInts} * threads);
  const frame = new Float64Array(control, ${4 * lineInts} * threads);
  const own = ${lineInts} * thread;
  function compute() {
    const [number, count, range, scratch, step, scratches, scratchBytes] = frame;
    const call = Array.from(frame.subarray(${firstArgument}, ${firstArgument} + count));
    const first = call[range];
    const end = call[range + 1];
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
  for (let looks = 0; ; looks++) {
    if (Atomics.load(lines, own) === ${state.offered}) {
      if (Atomics.compareExchange(lines, own, ${state.offered}, ${state.running}) !== ${state.offered}) continue;
      let after = ${state.failed};
      try {
        compute();
        after = ${state.idle};
      } finally {
        Atomics.store(lines, own, after);
        Atomics.notify(lines, own);
      }
      looks = 0;
    } else if (looks > ${spins}) {
      if (Atomics.compareExchange(lines, own, ${state.idle}, ${state.asleep}) === ${state.idle}) {
        Atomics.wait(lines, own, ${state.asleep});
      }
      looks = 0;
    }
  }
}
`;
const nodeWork = `${work}const { workerData, parentPort } = require("node:worker_threads");
work(workerData, () => parentPort.postMessage("ready"));`;
const webWork = `${work}onmessage = ({ data }) => work(data, () => postMessage("ready"));`;

/** A worker that runs. */
interface Thread {
  terminate(): unknown;
}

export class WorkerPool {
  /** The space's kernels, with `product` and `attend` split over the threads where that pays. */
  readonly kernels: Kernels;
  readonly #space: KernelSpace;
  readonly #threads: number;
  readonly #forced: boolean;
  readonly #lines: Int32Array<SharedArrayBuffer>;
  readonly #frame: Float64Array<SharedArrayBuffer>;
  #workers: readonly Thread[] = [];
  /** Infinity: everything runs on this thread. */
  #smallestSplit = Number.POSITIVE_INFINITY;
  /** Scratch for the workers' attention: where the first one's is, and how much each has. */
  #scratch = { pointer: 0, bytes: 0 };
  readonly #maySleep = maySleep();
  #ending = false;

  private constructor(space: KernelSpace, { threads, forceSplit = false }: WorkerPoolOptions) {
    this.#space = space;
    this.#threads = threads;
    this.#forced = forceSplit;
    const control = new SharedArrayBuffer(4 * lineInts * threads + 8 * frameFloats);
    this.#lines = new Int32Array(control, 0, lineInts * threads);
    this.#frame = new Float64Array(control, this.#lines.byteLength);
    this.kernels = {
      ...space.kernels,
      product: (...call) => this.#product(call),
      attend: (...call) => this.#attend(call),
    };
  }

  /**
   * Start workers and measure from which size on they pay: some 50 ms.
   * @param space kernels in shared memory
   * @throws ArgumentError on a number of threads that cannot be; BackendError when memory is not shared or a worker cannot
   *   start; MemoryError when there is no room to measure (0.1 MiB)
   */
  static async open(space: KernelSpace, options: WorkerPoolOptions): Promise<WorkerPool> {
    const { threads, forceSplit } = options;
    if (!(Number.isInteger(threads) && threads >= 2 && threads <= mostThreads)) {
      throw new ArgumentError("threads", `an integer from 2 to ${mostThreads}, or 1 for no workers`, threads);
    }
    if (space.module === undefined || space.arena.memory.buffer instanceof ArrayBuffer) {
      throw new BackendError(
        "threads: they need WebAssembly kernels in shared memory. Open the kernels with `shared: true`.",
      );
    }
    const pool = new WorkerPool(space, options);
    try {
      await pool.#start(space.module, space.arena.memory as WebAssembly.Memory);
      pool.#smallestSplit = forceSplit ? 0 : pool.#measure();
    } catch (error) {
      await pool.close();
      throw error;
    }
    if (pool.#smallestSplit === Number.POSITIVE_INFINITY) await pool.close();
    return pool;
  }

  /** Threads that compute: 1 when more do not pay, after a worker failed, and once closed. */
  get threads(): number {
    return this.#smallestSplit === Number.POSITIVE_INFINITY ? 1 : this.#threads;
  }

  /** Multiply-adds of a kernel call from which on it is split; Infinity: none is. */
  get smallestSplit(): number {
    return this.#smallestSplit;
  }

  /** End the workers; `kernels` goes on on one thread. Resolves when they have ended. */
  async close(): Promise<void> {
    this.#ending = true;
    this.#smallestSplit = Number.POSITIVE_INFINITY;
    if (this.#scratch.pointer !== 0) this.#space.arena.free(this.#scratch.pointer);
    this.#scratch = { pointer: 0, bytes: 0 };
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  async #start(module: WebAssembly.Module, memory: WebAssembly.Memory): Promise<void> {
    const threads = this.#threads;
    const shared = { module, memory, control: this.#lines.buffer, threads, reach: this.#forced ? 1 : threads };
    const started = await Promise.allSettled(
      Array.from({ length: threads - 1 }, (_, i) =>
        startWorker({ ...shared, thread: i + 1 }, (reason) => this.#ended(reason)),
      ),
    );
    this.#workers = started.filter((worker) => worker.status === "fulfilled").map(({ value }) => value);
    const failed = started.find((worker) => worker.status === "rejected");
    if (failed === undefined && !this.#ending) return;
    const reason = failed === undefined ? "it ended at once" : String(failed.reason);
    throw new BackendError(`threads: a worker cannot be started (${reason}). Use one thread.`);
  }

  /** A worker has ended, and nobody told it to. */
  #ended(reason: string): void {
    if (this.#ending) return;
    console.warn(`tokenthrift: a worker thread ended (${reason}); the kernels go on on one thread.`);
    void this.close();
  }

  #product(call: Parameters<Kernels["product"]>): void {
    const [, , rows, , , inputs, firstPanel, endPanel] = call;
    const panels = endPanel - firstPanel;
    let step = panelsTogether * Math.ceil(panels / (chunksPerThread * this.#threads) / panelsTogether);
    if (this.#forced) step = Math.min(step, Math.ceil(panels / this.#threads));
    if (step < panels && rows * inputs * panels * panelWidth >= this.#smallestSplit) {
      this.#split(product, call, step, this.#forced);
    } else this.#space.kernels.product(...call);
  }

  #attend(call: Parameters<Kernels["attend"]>): void {
    const [, , rows, , , , length, indices, selected, , heads, keyValueHeads, headStride, , firstHead, endHead] = call;
    const keyHeads = endHead - firstHead;
    const span = (indices === 0 ? length : selected) + rows;
    const queries = (rows * heads * keyHeads) / keyValueHeads;
    if (keyHeads > 1 && 2 * queries * span * headStride >= this.#smallestSplit) {
      this.#makeScratch(span);
      this.#split(attend, call, 1, this.#forced);
    } else this.#space.kernels.attend(...call);
  }

  /** Scratch for every worker to attend to `span` positions. */
  #makeScratch(span: number): void {
    const needed = 4 * attentionScratchFloats(span);
    if (this.#scratch.bytes >= needed) return;
    const { arena } = this.#space;
    if (this.#scratch.pointer !== 0) arena.free(this.#scratch.pointer);
    this.#scratch = { pointer: 0, bytes: 0 };
    const bytes = 64 * Math.ceil((2 * needed) / 64);
    this.#scratch = { pointer: arena.allocate((this.#threads - 1) * bytes), bytes };
  }

  /**
   * Run a kernel on all threads, in chunks of `step` units of its range.
   * @param leave leave every worker its own chunks
   * @throws what the kernel throws on this thread; TokenthriftError when a worker failed in it: its outputs are undefined
   */
  #split(kernel: typeof product | typeof attend, call: number[], step: number, leave: boolean): void {
    const lines = this.#lines;
    const threads = this.#threads;
    const { number, range, scratch } = kernel;
    const run: (...call: number[]) => void = this.#space.kernels[kernel.name] as never;
    const first = call[range]!;
    const end = call[range + 1]!;
    const chunks = Math.ceil((end - first) / step);
    const takeFrom = (thread: number): void => {
      const line = lineInts * thread;
      const last = lines[line + 2]!;
      for (let chunk = Atomics.add(lines, line + 1, 1); chunk < last; chunk = Atomics.add(lines, line + 1, 1)) {
        call[range] = first + chunk * step;
        call[range + 1] = Math.min(call[range]! + step, end);
        run(...call);
      }
    };

    this.#frame.set([number, call.length, range, scratch, step, this.#scratch.pointer, this.#scratch.bytes]);
    this.#frame.set(call, firstArgument);
    for (let thread = 0; thread < threads; thread++) {
      lines[lineInts * thread + 1] = Math.ceil((chunks * thread) / threads);
      lines[lineInts * thread + 2] = Math.ceil((chunks * (thread + 1)) / threads);
    }
    for (let line = lineInts; line < lines.length; line += lineInts) {
      if (Atomics.exchange(lines, line, state.offered) === state.asleep) Atomics.notify(lines, line);
    }
    const left: number[] = [];
    let failed = false;
    try {
      takeFrom(0);
      if (!leave) for (let thread = 1; thread < threads; thread++) takeFrom(thread);
    } finally {
      for (let thread = 1; thread < threads; thread++) {
        const line = lineInts * thread;
        if (leave) this.#waitWhile(line, state.offered, beginMilliseconds);
        if (Atomics.compareExchange(lines, line, state.offered, state.idle) === state.offered) left.push(thread);
        else if (!this.#finishes(line)) failed = true;
      }
      if (failed) this.#smallestSplit = Number.POSITIVE_INFINITY;
    }
    if (failed) {
      throw new TokenthriftError("threads: a worker failed within a kernel. Run the pass again, on one thread now.");
    }
    for (const thread of left) takeFrom(thread);
  }

  /** Wait until a worker that has begun is done. @returns whether it did what it was to do */
  #finishes(line: number): boolean {
    for (let second = 0; second < chunkSeconds; second++) {
      if (this.#waitWhile(line, state.running, 1000)) return Atomics.load(this.#lines, line) !== state.failed;
    }
    this.#ended(`it did not finish a kernel within ${chunkSeconds} seconds`);
    return false;
  }

  /** Wait until a state is no longer `value`. @returns whether that came within the time */
  #waitWhile(line: number, value: number, milliseconds: number): boolean {
    const lines = this.#lines;
    for (let looks = 0; looks < spins; looks++) if (Atomics.load(lines, line) !== value) return true;
    if (this.#maySleep) Atomics.wait(lines, line, value, milliseconds);
    else {
      const until = performance.now() + milliseconds;
      while (Atomics.load(lines, line) === value && performance.now() < until);
    }
    return Atomics.load(lines, line) !== value;
  }

  /**
   * From how many multiply-adds on a call is faster split. On one thread m of them take m a; on all threads m b, and the
   * workers' answer: that is less from m = answer / (a - b) on. Measured on a product within the first caches, best of many.
   */
  #measure(): number {
    const { arena, kernels } = this.#space;
    const [rows, inputs, panels] = [64, 64, 16];
    const outputs = panels * panelWidth;
    const block = arena.allocate(4 * (rows * inputs + inputs * outputs + rows * outputs));
    const w = block + 4 * rows * inputs;
    const y = w + 4 * inputs * outputs;
    const range = (end: number): Parameters<Kernels["product"]> => {
      return [block, inputs, rows, w, 0, inputs, 0, end, y, outputs, 0, 0];
    };
    const calls = [
      () => this.#split(product, range(0), panelsTogether, true), // nothing to do but to answer
      () => kernels.product(...range(panels)),
      () => this.#split(product, range(panels), panelsTogether, false),
    ];
    const best = calls.map(() => Number.POSITIVE_INFINITY);
    const until = performance.now() + measuringMilliseconds;
    do {
      for (const [i, call] of calls.entries()) best[i] = Math.min(best[i]!, timed(call));
    } while (performance.now() < until);
    const [answer, one, all] = best as [number, number, number];
    arena.free(block);
    return all <= worthwhile * one ? (answer / (one - all)) * rows * inputs * outputs : Number.POSITIVE_INFINITY;
  }
}

/** Milliseconds of a call, on average over a few. */
function timed(call: () => void): number {
  const calls = 8;
  const start = performance.now();
  for (let i = 0; i < calls; i++) call();
  return (performance.now() - start) / calls;
}

/** Whether this thread may wait asleep: not that of a page. */
function maySleep(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}

/**
 * @param ended called when the worker ends after all, however that comes
 * @returns the worker, once it waits for work. It does not keep the process alive.
 */
async function startWorker(data: WorkerData, ended: (reason: string) => void): Promise<Thread> {
  if (typeof process === "undefined" || process.versions?.node === undefined) return startWebWorker(data, ended);
  const { Worker } = await import("node:worker_threads");
  // Without this process's flags: a loader of TypeScript would only take time.
  const worker = new Worker(nodeWork, { eval: true, workerData: data, execArgv: [], name: "tokenthrift kernels" });
  await new Promise((resolve, reject) => {
    worker.once("message", resolve).once("error", reject);
    worker.once("exit", (code) => reject(new Error(`exit code ${code}`)));
  });
  worker.once("error", (error) => ended(String(error))).once("exit", (code) => ended(`exit code ${code}`));
  worker.unref();
  return worker;
}

async function startWebWorker(data: WorkerData, ended: (reason: string) => void): Promise<Thread> {
  const url = URL.createObjectURL(new Blob([webWork], { type: "text/javascript" }));
  try {
    const worker = new Worker(url);
    worker.postMessage(data);
    await new Promise((resolve, reject) => {
      worker.onmessage = resolve;
      worker.onerror = ({ message }) => reject(new Error(message));
    });
    worker.onerror = ({ message }) => ended(message);
    return worker;
  } finally {
    URL.revokeObjectURL(url);
  }
}
