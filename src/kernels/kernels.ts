/**
 * The kernels: what a decoder's forward pass is made of, on numbers that lie in an arena.
 *
 * Three implementations, the best that loads is used:
 * - `relaxed`: WebAssembly SIMD with fused multiply-add, where the runtime has relaxed SIMD (Node 22, browsers of 2024 on)
 * - `simd`: WebAssembly SIMD
 * - `plain`: TypeScript, sums in doubles; the oracle of the other two, and what is left without WebAssembly
 *
 * Conventions of all kernels. Pointers are byte offsets into the arena, 16-byte aligned; 0 means "none" where a pointer is
 * optional. Strides, widths and counts are numbers of floats unless a name says bytes. A row of width w stands in a
 * stride that is a multiple of eight, the rest of it zeros; kernels keep those zeros. `rows` is at least 1. Heads lie one
 * after another, each `headStride` floats wide (a multiple of four, zeros behind the head's own width).
 */
import { ArgumentError, BackendError } from "../errors.ts";
import { Arena, type ArenaOptions, type GrowableMemory, PlainMemory } from "./arena.ts";
import { compiled } from "./compiled.ts";
import { plainKernels } from "./plain.ts";

/** How a packed matrix stores its weights, as kernels are told. */
export const weightFormats = { F32: 0, BF16: 1, F16: 2 } as const;
export type WeightFormat = keyof typeof weightFormats;

/** Outputs in a panel of a packed matrix. */
export const panelWidth = 8;

export interface Kernels {
  /**
   * y[r, 8p + j] = sum over i of x[r, i] w[p, i, j] (+ bias[8p + j]) (+ the old y, when `accumulate` is 1), for panels
   * `firstPanel` <= p < `endPanel`. w is packed: panel after panel, each `inputs` rows of eight weights.
   * @param format of w: `weightFormats`
   * @param bias one float32 per output, panels filled up with zeros; or 0
   */
  product(
    x: number,
    xStride: number,
    rows: number,
    w: number,
    format: number,
    inputs: number,
    firstPanel: number,
    endPanel: number,
    y: number,
    yStride: number,
    bias: number,
    accumulate: 0 | 1,
  ): void;

  /** y[r] = the weights of output `ids[r]` of a packed matrix: embedding rows of a table that is also the output head. */
  panelRows(w: number, format: number, width: number, ids: number, rows: number, y: number, yStride: number): void;

  /** RMSNorm (arXiv 1910.07467): y = x / sqrt(mean(x^2) + epsilon) * weight. y may be x. */
  rmsNorm(x: number, stride: number, rows: number, width: number, weight: number, epsilon: number, y: number): void;

  /** LayerNorm (arXiv 1607.06450): y = (x - mean) / sqrt(variance + epsilon) * weight + bias. y may be x. */
  layerNorm(
    x: number,
    stride: number,
    rows: number,
    width: number,
    weight: number,
    bias: number,
    epsilon: number,
    y: number,
  ): void;

  /**
   * Rotary positions, in place: element i of each head turns with element i + half by the angle of `positions[r]`
   * (int32). The table holds `half` cosines and `half` sines per position.
   */
  rotate(
    x: number,
    stride: number,
    rows: number,
    heads: number,
    headStride: number,
    half: number,
    positions: number,
    table: number,
  ): void;

  /**
   * Rows of a cache of un-rotated keys, picked, rotated and packed: y[h, i] = row `indices[h, i]` of head h turned to
   * position `positions[h, i]`. Position 0 turns nothing, so values can be picked the same way.
   * cache [heads, capacity, headStride], indices and positions int32 [heads, count], y [heads, yCapacity, headStride]
   */
  gatherRotated(
    cache: number,
    capacity: number,
    heads: number,
    headStride: number,
    half: number,
    indices: number,
    count: number,
    positions: number,
    table: number,
    y: number,
    yCapacity: number,
  ): void;

  /** Put rows [rows, heads * headStride] into a cache [heads, capacity, headStride], from position `at` on. */
  storeRows(
    x: number,
    stride: number,
    rows: number,
    heads: number,
    headStride: number,
    cache: number,
    capacity: number,
    at: number,
  ): void;

  /**
   * softmax(q K^T scale) V for the key heads `firstHead` <= h < `endHead` and all query heads that share them.
   * The pass's own keys and values already stand in the cache at `length` .. `length + rows - 1`. Row r sees the committed
   * positions, and of its own pass row i <= r if `ancestors` is 0 or `ancestors[r, i]` is not 0.
   * @param indices int32 [keyValueHeads, selected]: the committed positions a head sees; 0: all of them
   * @param ancestors uint8 [rows, rows]; 0 for a chain
   * @param y [rows, heads * headStride]
   * @param scratch `attentionScratchFloats` floats
   * @param weights where to write the attention weights, [heads * rows, committed positions seen + rows]; 0: nowhere
   */
  attend(
    q: number,
    qStride: number,
    rows: number,
    keys: number,
    values: number,
    capacity: number,
    length: number,
    indices: number,
    selected: number,
    ancestors: number,
    heads: number,
    keyValueHeads: number,
    headStride: number,
    scale: number,
    firstHead: number,
    endHead: number,
    y: number,
    yStride: number,
    scratch: number,
    weights: number,
  ): void;

  /** SwiGLU's middle (arXiv 2002.05202): y = silu(gate) * up; a row holds `hidden` gates and then `hidden` ups. */
  swiglu(gateUp: number, stride: number, rows: number, hidden: number, y: number, yStride: number): void;

  /** GELU in its tanh form (arXiv 1606.08415, section 2), in place. `count` is a multiple of four. */
  gelu(x: number, count: number): void;

  /** y += x. `count` is a multiple of four. */
  add(x: number, count: number, y: number): void;

  /** Softmax of each row's first `count` numbers, in place. Up to three numbers behind them become 0. */
  softmax(x: number, stride: number, rows: number, count: number): void;

  /** Logarithm of the softmax of each row's first `count` numbers, in place. Up to three numbers behind them are lost. */
  logSoftmax(x: number, stride: number, rows: number, count: number): void;

  /** Index of the largest number, the first on ties. */
  argMax(x: number, count: number): number;

  /** The k largest numbers, in falling order, and their indices (int32); ties in rising order of index. 1 <= k <= count. */
  topK(x: number, count: number, k: number, indices: number, values: number): void;
}

/** Floats of scratch that `attend` needs for one worker. */
export function attentionScratchFloats(span: number): number {
  return 2 * (span + 8);
}

export const kernelKinds = ["relaxed", "simd", "plain"] as const;
export type KernelKind = (typeof kernelKinds)[number];

/** Kernels at work in an arena. */
export interface KernelSpace {
  readonly kind: KernelKind;
  readonly kernels: Kernels;
  readonly arena: Arena;
  /** The compiled module, for threads to share; undefined for plain kernels. */
  readonly module?: WebAssembly.Module;
}

export interface KernelOptions extends ArenaOptions {
  /** Forces an implementation. Default: `TOKENTHRIFT_KERNELS`, else the first of `kernelKinds` that loads. */
  readonly kernels?: KernelKind | undefined;
  /** Memory that threads can share. Needs WebAssembly, and in browsers cross-origin isolation. Default false. */
  readonly shared?: boolean;
}

/**
 * A new arena with kernels that work in it.
 * @throws ArgumentError on an unknown kind; BackendError when a forced kind cannot load, or shared memory cannot be had
 */
export async function openKernels(options: KernelOptions = {}): Promise<KernelSpace> {
  const fromEnvironment = typeof process === "undefined" ? undefined : process.env["TOKENTHRIFT_KERNELS"] || undefined;
  const forced = options.kernels ?? fromEnvironment;
  if (forced !== undefined && !isKernelKind(forced)) {
    const argument = options.kernels === undefined ? "TOKENTHRIFT_KERNELS" : "kernels";
    throw new ArgumentError(argument, `one of ${kernelKinds.join(", ")}`, forced);
  }
  const kind = forced ?? bestKernels();
  if (kind === "plain") {
    if (options.shared) throw new BackendError("plain kernels: threads share WebAssembly memory only.");
    const arena = new Arena(new PlainMemory(), options);
    return { kind, kernels: plainKernels(arena), arena };
  }
  if (!supports(kind)) {
    throw new BackendError(`kernels ${kind} cannot be used: this runtime lacks ${lacks(kind)}. Use plain kernels.`);
  }
  const shared = options.shared === true;
  if (shared && typeof SharedArrayBuffer === "undefined") {
    throw new BackendError(
      "shared memory cannot be had: in browsers the page must be isolated from other origins. " +
        "Serve it with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp.",
    );
  }
  let module: WebAssembly.Module;
  let memory: WebAssembly.Memory;
  let instance: WebAssembly.Instance;
  try {
    module = await compiledModule(shared ? `${kind}Shared` : kind);
    memory = new WebAssembly.Memory(shared ? { initial: 1, maximum: 65_536, shared: true } : { initial: 1 });
    instance = await WebAssembly.instantiate(module, { env: { memory, abort: aborted } });
  } catch (error) {
    throw new BackendError(`kernels ${kind}${shared ? " in shared memory" : ""} cannot be loaded (${String(error)}).`);
  }
  const arena = new Arena(memory as GrowableMemory, options);
  return { kind, kernels: instance.exports as unknown as Kernels, arena, module };
}

let said = false;

/** The first kind this runtime supports. Says once on standard error when that is the slow one. */
export function bestKernels(): KernelKind {
  if (supports("relaxed")) return "relaxed";
  if (supports("simd")) return "simd";
  if (!said) {
    said = true;
    console.warn(
      "tokenthrift: this runtime lacks WebAssembly SIMD; plain TypeScript kernels are used, about 20 times slower.",
    );
  }
  return "plain";
}

function isKernelKind(name: string): name is KernelKind {
  return (kernelKinds as readonly string[]).includes(name);
}

function lacks(kind: "relaxed" | "simd"): string {
  return kind === "relaxed" ? "WebAssembly relaxed SIMD" : "WebAssembly SIMD";
}

/**
 * `() -> f32` modules of a few bytes: lane 0 of 2 * 3 + 4 by relaxed_madd, and of 2 * 3 by mul. Running one shows that the
 * instruction exists and means what we think (an early draft of relaxed SIMD had its operands in another order).
 */
const probes = {
  relaxed: { code: [...splat(2), ...splat(3), ...splat(4), 0xfd, 0x85, 0x02], result: 10 },
  simd: { code: [...splat(2), ...splat(3), 0xfd, 0xe6, 0x01], result: 6 },
} as const;

/** f32.const x; f32x4.splat */
function splat(x: number): number[] {
  return [0x43, ...new Uint8Array(Float32Array.of(x).buffer), 0xfd, 0x13];
}

function supports(kind: "relaxed" | "simd"): boolean {
  if (typeof WebAssembly === "undefined") return false;
  const { code, result } = probes[kind];
  const body = [0, ...code, 0xfd, 0x1f, 0, 0x0b]; // no locals; f32x4.extract_lane 0; end
  // biome-ignore format: one section a line
  const bytes = new Uint8Array([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    1, 5, 1, 0x60, 0, 1, 0x7d, // type: () -> f32
    3, 2, 1, 0,
    7, 5, 1, 1, 0x66, 0, 0, // export "f"
    10, body.length + 2, 1, body.length, ...body,
  ]);
  if (!WebAssembly.validate(bytes)) return false;
  try {
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes));
    return (exports as { f(): number })["f"]() === result;
  } catch {
    return false; // valid but forbidden: a page's content security policy
  }
}

const modules = new Map<keyof typeof compiled, Promise<WebAssembly.Module>>();

function compiledModule(name: keyof typeof compiled): Promise<WebAssembly.Module> {
  let module = modules.get(name);
  if (module === undefined) {
    module = WebAssembly.compile(Uint8Array.from(atob(compiled[name]), (character) => character.charCodeAt(0)));
    modules.set(name, module);
    module.catch(() => modules.delete(name)); // the next may have the memory this one lacked
  }
  return module;
}

function aborted(): never {
  throw new Error("a kernel aborted: this is a bug in tokenthrift.");
}
