/**
 * The engine measured: decoding, scoring trees, prefill, and how far the products are from what they could reach.
 *
 *     npx tsx bench/decode.ts [--llama2c <path of llama2.c's compiled run.c>] [--stories <folder>] [--python <command>] [--json]
 *
 * Both sides of every ratio run in turns in this process (the C program beside it), one thread each; medians over rounds.
 * `--llama2c` is `run.c` of karpathy/llama2.c, compiled with `gcc -Ofast -march=native`; without it that comparison is
 * skipped, and said so. `--stories` holds stories260K.bin, tok512.bin and stories260K-greedy.txt. `--python` is a Python
 * with numpy, for the comparison with its BLAS on one thread.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { allowRelaxedSimd, openKernels } from "../src/kernels/index.ts";
import { readCheckpoint } from "../src/model/checkpoint.ts";
import { embeddedFolder } from "../src/model/embedded.ts";
import { Engine } from "../src/model/engine.ts";
import type { LanguageModel, Session } from "../src/model/language-model.ts";
import { loadEmbedded, loadLlama2c } from "../src/model/load.ts";
import { Progress } from "../src/progress.ts";
import {
  type Drafter,
  type GenerateOptions,
  generate,
  HardwareAwareDrafter,
  measureDrafting,
  measurePassCosts,
  promptLookupDrafter,
  type Report,
  recyclingTemplate,
  TokenRecyclingDrafter,
} from "../src/speculative/index.ts";
import type { SentencePieceBpe } from "../src/tokenization/sentencepiece-bpe.ts";

export interface DecodeBenchOptions {
  /** Print one JSON document instead of tables. Default false. */
  readonly json?: boolean;
  /** Path of llama2.c's program. Default: the comparison is skipped. */
  readonly llama2c?: string | undefined;
  /** Folder of the stories260K files. Default: `../shared/models` beside the project. */
  readonly stories?: string | undefined;
  /** A Python with numpy. Default: the comparison is skipped. */
  readonly python?: string | undefined;
  /** Rounds per measurement. Default 9. */
  readonly rounds?: number;
}

/** Middle, least and most of some rounds. */
interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

interface Results {
  machine: { cpu: string; node: string; kernels: string };
  stories: StoriesResult | { skipped: string };
  embedded: {
    tokensPerSecond: { engine: Spread; tensors: Spread; ratio: number };
    scoring: Scoring[];
    /** With a second thread for calls of `smallestSplit` multiply-adds and more. */
    scoringOnTwoThreads: { smallestSplit: number; passes: Scoring[] } | { skipped: string };
    memory: { float32: number; stored: number };
  };
  lengths: {
    prefill: { tokens: number; tokensPerSecond: Spread }[];
    decode: { context: number; tokensPerSecond: Spread; bytesPerToken: number; shareOfBandwidth: number }[];
    bandwidth: number;
  };
  products: {
    best: number;
    shapes: { name: string; inputs: number; outputs: number; rows: number; gflops: number; share: number }[];
    blas: { name: string; rows: number; gflops: number }[] | { skipped: string };
  };
}

interface Scoring {
  nodes: number;
  microseconds: Spread;
  ratioToOne: number;
  /** What the ratio was aimed at. */
  allowed?: number;
}

interface StoriesResult {
  identical: boolean;
  /** Draft-free speculation: the same text, in how many tokens per target pass, and its speed over plain `generate`'s. */
  draftFree: { name: string; identical: boolean; tokensPerPass: number; speed: number }[];
  session: Spread;
  generate: Spread;
  c: Spread | { skipped: string };
  ratio?: { session: number; generate: number };
}

function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, least: sorted[0]!, most: sorted.at(-1)! };
}

/** Seconds of `run`, repeated until a sample is long enough for the clock: of one run. */
function seconds(run: () => void, atLeast = 0.004): number {
  let count = 0;
  const start = performance.now();
  let now = start;
  do {
    run();
    count++;
    now = performance.now();
  } while (now - start < atLeast * 1000);
  return (now - start) / 1000 / count;
}

/** Runs every subject once a round, in turns; the first rounds are not counted. @returns seconds per subject and round */
function inTurns(subjects: readonly (() => void)[], rounds: number, progress: (done: number) => void): number[][] {
  const samples = subjects.map(() => [] as number[]);
  const warm = 2;
  for (let round = -warm; round < rounds; round++) {
    subjects.forEach((run, i) => {
      const time = seconds(run);
      if (round >= 0) samples[i]!.push(time);
    });
    progress((round + warm + 1) / (rounds + warm));
  }
  return samples;
}

/** The most probable token, again and again: what decoding costs with nothing around it. */
function decodeGreedily(model: LanguageModel, first: number, stop: number, limit: number): number[] {
  const session = model.openSession();
  const tokens: number[] = [];
  for (let id = first; tokens.length < limit; ) {
    const { data } = session.score({ tokens: [id], parents: [-1] }).logits;
    session.accept(0);
    id = 0;
    for (let i = 1; i < data.length; i++) if (data[i]! > data[id]!) id = i;
    if (id === stop) break;
    tokens.push(id);
  }
  session.close();
  return tokens;
}

function reportOf(model: LanguageModel, options: GenerateOptions): Report {
  const generation = generate(model, [1], { temperature: 0, maxTokens: 400, stopTokens: [1], ...options });
  while (generation.step() !== undefined);
  return generation.report;
}

function generateGreedily(model: LanguageModel, options: GenerateOptions): readonly number[] {
  return reportOf(model, options).tokens;
}

/** 1. stories260K against llama2.c's own program. */
async function benchStories(
  folder: string,
  program: string | undefined,
  rounds: number,
  progress: (done: number) => void,
): Promise<Results["stories"]> {
  const [weights, vocabulary, golden] = ["stories260K.bin", "tok512.bin", "stories260K-greedy.txt"].map((name) =>
    join(folder, name),
  ) as [string, string, string];
  if (!existsSync(weights)) return { skipped: `no stories260K.bin in ${folder}; name its folder with --stories` };
  const { model, tokenizer } = await loadLlama2c(weights, vocabulary);
  const expected = readFileSync(golden, "utf8").trimEnd();
  const beginning = 1;
  const says = (tokens: readonly number[]): boolean => textOf(tokenizer, tokens) === expected;
  const identical =
    says(decodeGreedily(model, beginning, beginning, 400)) &&
    says(generateGreedily(model, {}).filter((token) => token !== beginning));
  const length = decodeGreedily(model, beginning, beginning, 400).length;
  const lookup = promptLookupDrafter({ maxNgramSize: 3, predictedTokens: 15 });
  const prompts = [decodeGreedily(model, beginning, beginning, 40)];
  const costs = { passCosts: measurePassCosts(model), drafting: measureDrafting(model, lookup, prompts) };
  const drafters: Readonly<Record<string, Drafter>> = {
    "prompt lookup": lookup,
    "token recycling": new TokenRecyclingDrafter({ template: recyclingTemplate.slice(0, 8) }),
    "hardware-aware prompt lookup": new HardwareAwareDrafter(lookup, costs),
  };
  const own = [
    () => void decodeGreedily(model, beginning, beginning, 400),
    () => void generateGreedily(model, {}),
    ...Object.values(drafters).map((drafter) => () => void generateGreedily(model, { drafter })),
  ];
  const c: number[] = [];
  const samples = own.map(() => [] as number[]);
  for (let round = -2; round < rounds; round++) {
    own.forEach((run, i) => {
      const time = seconds(run, 0.03);
      if (round >= 0) samples[i]!.push(length / time);
    });
    if (program !== undefined) {
      const speed = runLlama2c(program, weights, vocabulary);
      if (round >= 0) c.push(speed);
    }
    progress((round + 3) / (rounds + 2));
  }
  const [session, generated, ...speculative] = samples.map(spread) as [Spread, Spread, ...Spread[]];
  const draftFree = Object.entries(drafters).map(([name, drafter], i) => {
    const { tokens, tokensPerPass } = reportOf(model, { drafter });
    const same = says(tokens.filter((token) => token !== beginning));
    return { name, identical: same, tokensPerPass, speed: speculative[i]!.median / generated.median };
  });
  model.close();
  const common = { identical, session, generate: generated, draftFree };
  if (program === undefined) return { ...common, c: { skipped: "name llama2.c's program with --llama2c" } };
  const theirs = spread(c);
  const ratio = { session: session.median / theirs.median, generate: generated.median / theirs.median };
  return { ...common, c: theirs, ratio };
}

function textOf(tokenizer: SentencePieceBpe, tokens: readonly number[]): string {
  return tokenizer.decode(tokens).trim();
}

/** Tokens per second as the C program reports them; its text goes nowhere, which costs it least. */
function runLlama2c(program: string, weights: string, vocabulary: string): number {
  const { stderr, error } = spawnSync(program, [weights, "-z", vocabulary, "-t", "0", "-n", "400"], {
    encoding: "utf8",
    stdio: ["ignore", "ignore", "pipe"],
  });
  if (error !== undefined) throw error;
  const speed = /tok\/s: ([\d.]+)/.exec(stderr)?.[1];
  if (speed === undefined) throw new Error(`bench: ${program} does not report its speed: ${stderr.slice(0, 200)}`);
  return Number(speed);
}

/** Session `session` holding `length` tokens of no meaning. */
function fill(session: Session, length: number, vocabularySize: number): void {
  session.extend(
    Array.from({ length }, (_, i) => (i * 7) % vocabularySize),
    { logits: "none" },
  );
}

const allowed = new Map([
  [8, 4.5],
  [16, 8],
]);

/** Passes over trees of growing size, behind 128 tokens. */
function measureScoring(engine: Engine, rounds: number, progress: (done: number) => void): Scoring[] {
  const session = engine.openSession();
  fill(session, 128, engine.vocabularySize);
  const sizes = [1, 2, 4, 8, 16, 32, 64];
  const trees = sizes.map((nodes) => ({
    tokens: Array.from({ length: nodes }, (_, i) => i),
    parents: Array.from({ length: nodes }, (_, i) => Math.floor((i - 1) / 2)),
  }));
  const passes = inTurns(
    trees.map((tree) => () => void session.score(tree)),
    3 * rounds,
    progress,
  ).map(spread);
  session.close();
  return sizes.map((nodes, i) => {
    const { median, least, most } = passes[i]!;
    const limit = allowed.get(nodes);
    return {
      nodes,
      microseconds: { median: median * 1e6, least: least * 1e6, most: most * 1e6 },
      ratioToOne: median / passes[0]!.median,
      ...(limit !== undefined && { allowed: limit }),
    };
  });
}

/** 2. The embedded target: plain decoding against the tensor decoder, and passes over trees. */
async function benchEmbedded(rounds: number, progress: (done: number) => void): Promise<Results["embedded"]> {
  const engine = (await loadEmbedded("target")).model as Engine;
  const stored = (await loadEmbedded("target", { weights: "stored" })).model as Engine;
  const tensors = (await loadEmbedded("target", { runs: "tensors" })).model;
  const decoded = 128;
  const decode = (model: LanguageModel) => () => void decodeGreedily(model, 10, -1, decoded);
  const times = inTurns([decode(engine), decode(tensors)], rounds, (done) => progress(done / 2));
  const [ours, theirs] = times.map((own) => spread(own.map((time) => decoded / time))) as [Spread, Spread];

  const scoring = measureScoring(engine, rounds, (done) => progress(0.5 + done / 4));
  // Two threads, where the pool finds that they pay.
  const pooled = (await loadEmbedded("target", { threads: 2 })).model as Engine;
  const { smallestSplit } = pooled.threads;
  const scoringOnTwoThreads =
    pooled.threads.count === 2
      ? { smallestSplit, passes: measureScoring(pooled, rounds, (done) => progress(0.75 + done / 4)) }
      : { skipped: "the pool measured that two threads do not pay here" };
  pooled.close();
  const memory = { float32: engine.memory.weights, stored: stored.memory.weights };
  for (const model of [engine, stored, tensors]) model.close();
  return {
    tokensPerSecond: { engine: ours, tensors: theirs, ratio: ours.median / theirs.median },
    scoring,
    scoringOnTwoThreads,
    memory,
  };
}

/**
 * 3. Long inputs and long contexts, on the embedded target's weights with room for 20,480 tokens: what it says there means
 * nothing, what it costs does not depend on that.
 */
async function benchLengths(rounds: number, progress: (done: number) => void): Promise<Results["lengths"]> {
  const { config, tensors } = await readCheckpoint(embeddedFolder("target"));
  const engine = await Engine.open({ ...config, contextLength: 20_480 }, tensors);
  const prefillLengths = [128, 512, 2048];
  const prefill = inTurns(
    prefillLengths.map((length) => () => {
      const session = engine.openSession();
      fill(session, length, config.vocabularySize);
      session.close();
    }),
    rounds,
    (done) => progress(done / 2),
  );
  const contexts = [128, 2048, 16_384];
  const sessions = contexts.map((context) => {
    const session = engine.openSession();
    fill(session, context, config.vocabularySize);
    return session;
  });
  const decode = inTurns(
    sessions.map((session, i) => () => {
      session.score({ tokens: [5], parents: [-1] });
      session.accept(0);
      session.truncate(contexts[i]!);
    }),
    3 * rounds,
    (done) => progress(0.5 + done / 2),
  );
  const bandwidth = await memoryBandwidth();
  const weights = engine.memory.weights;
  engine.close();
  const perPosition = config.layers * 2 * config.keyValueHeads * config.headWidth * 4;
  return {
    prefill: prefillLengths.map((tokens, i) => ({
      tokens,
      tokensPerSecond: spread(prefill[i]!.map((time) => tokens / time)),
    })),
    decode: contexts.map((context, i) => {
      const tokensPerSecond = spread(decode[i]!.map((time) => 1 / time));
      const bytesPerToken = weights + context * perPosition;
      const shareOfBandwidth = (bytesPerToken * tokensPerSecond.median) / bandwidth;
      return { context, tokensPerSecond, bytesPerToken, shareOfBandwidth };
    }),
    bandwidth,
  };
}

/** Bytes per second read by a kernel that does nothing but read: the largest of 256 MiB of numbers, best of ten. */
async function memoryBandwidth(): Promise<number> {
  const { kernels, arena } = await openKernels();
  const count = 2 ** 26;
  const numbers = arena.allocate(4 * count);
  let best = Number.POSITIVE_INFINITY;
  // The first number is the largest, so the second half of the kernel, which looks for it, ends at once.
  arena.floats[numbers / 4] = 1;
  for (let i = 0; i < 10; i++)
    best = Math.min(
      best,
      seconds(() => void kernels.argMax(numbers, count), 0),
    );
  return (4 * count) / best;
}

/** 4. Products of the embedded target's shapes against the best the same kernel reaches, and against numpy's BLAS. */
async function benchProducts(
  python: string | undefined,
  rounds: number,
  progress: (done: number) => void,
): Promise<Results["products"]> {
  const { kernels, arena } = await openKernels();
  const shapes = [
    ["projections", 128, 256],
    ["output", 128, 128],
    ["gate and up", 128, 688],
    ["down", 344, 128],
    ["head", 128, 1024],
    ["large", 512, 1024],
  ] as const;
  const rowCounts = [1, 8, 64];
  const x = arena.allocate(4 * 64 * 512);
  const w = arena.allocate(4 * 512 * 1024);
  const y = arena.allocate(4 * 64 * 1024);
  for (let i = 0; i < 64 * 512; i++) arena.floats[x / 4 + i] = Math.sin(i);
  for (let i = 0; i < 512 * 1024; i++) arena.floats[w / 4 + i] = Math.cos(i);
  const cases = shapes.flatMap(([name, inputs, outputs]) => rowCounts.map((rows) => ({ name, inputs, outputs, rows })));
  const times = inTurns(
    cases.map(({ inputs, outputs, rows }) => () => {
      kernels.product(x, inputs, rows, w, 0, inputs, 0, outputs / 8, y, outputs, 0, 0);
    }),
    rounds,
    progress,
  );
  const gflops = cases.map(
    ({ inputs, outputs, rows }, i) => (2 * inputs * outputs * rows) / spread(times[i]!).median / 1e9,
  );
  const best = Math.max(...gflops);
  return {
    best,
    shapes: cases.map((one, i) => ({ ...one, gflops: gflops[i]!, share: gflops[i]! / best })),
    blas: python === undefined ? { skipped: "name a Python with numpy with --python" } : blas(python, cases),
  };
}

/** The same products by numpy, single precision, one thread. */
function blas(
  python: string,
  cases: readonly { name: string; inputs: number; outputs: number; rows: number }[],
): { name: string; rows: number; gflops: number }[] | { skipped: string } {
  const program = `
import json, sys, time, numpy as np
out = []
for name, k, n, m in json.loads(sys.argv[1]):
    a = np.random.rand(m, k).astype(np.float32); b = np.random.rand(k, n).astype(np.float32); c = np.empty((m, n), np.float32)
    times = []
    for _ in range(25):
        start = time.perf_counter(); count = 0
        while time.perf_counter() - start < 0.004:
            np.dot(a, b, out=c); count += 1
        times.append((time.perf_counter() - start) / count)
    out.append([name, m, 2 * k * n * m / sorted(times)[len(times) // 2] / 1e9])
print(json.dumps(out))`;
  const single = { OPENBLAS_NUM_THREADS: "1", MKL_NUM_THREADS: "1", OMP_NUM_THREADS: "1" };
  const list = JSON.stringify(cases.map(({ name, inputs, outputs, rows }) => [name, inputs, outputs, rows]));
  const { stdout, status } = spawnSync(python, ["-c", program, list], {
    encoding: "utf8",
    env: { ...process.env, ...single },
  });
  if (status !== 0) return { skipped: `${python} has no numpy, or is not there` };
  return (JSON.parse(stdout) as [string, number, number][]).map(([name, rows, gflops]) => ({ name, rows, gflops }));
}

/** Runs everything. Prints tables, or one JSON document. */
export async function benchDecode(options: DecodeBenchOptions = {}): Promise<Results> {
  const { json = false, rounds = 9 } = options;
  await allowRelaxedSimd();
  const { kind } = await openKernels();
  const progress = new Progress("bench decode", 4);
  const part = (index: number) => (done: number) => progress.update(index + done);
  const stories = options.stories ?? fileURLToPath(new URL("../../shared/models", import.meta.url));
  const results: Results = {
    machine: {
      cpu: `${cpus()[0]?.model ?? "unknown"}, ${cpus().length} threads`,
      node: process.version,
      kernels: kind,
    },
    stories: await benchStories(stories, options.llama2c, rounds, part(0)),
    embedded: await benchEmbedded(rounds, part(1)),
    lengths: await benchLengths(rounds, part(2)),
    products: await benchProducts(options.python, rounds, part(3)),
  };
  progress.finish();
  console.log(json ? JSON.stringify(results, undefined, 2) : formatted(results));
  return results;
}

function formatted({ machine, stories, embedded, lengths, products }: Results): string {
  const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
  const shown = ({ median, least, most }: Spread): string => `${whole(median)} (${whole(least)} to ${whole(most)})`;
  const lines = [`${machine.cpu}, Node ${machine.node}, ${machine.kernels} kernels`, ""];
  if ("skipped" in stories) lines.push(`stories260K: skipped, ${stories.skipped}`);
  else {
    const { c, ratio } = stories;
    lines.push(
      `stories260K, temperature 0, tokens per second (text ${stories.identical ? "identical to" : "NOT"} llama2.c's)`,
      `  session       ${shown(stories.session)}`,
      `  generate()    ${shown(stories.generate)}`,
      `  llama2.c      ${"skipped" in c ? `skipped: ${c.skipped}` : shown(c)}`,
    );
    for (const { name, identical, tokensPerPass, speed } of stories.draftFree) {
      const same = identical ? "identical text" : "ANOTHER TEXT";
      lines.push(`  ${name}: ${same}, ${tokensPerPass.toFixed(2)} tokens per pass, ${speed.toFixed(2)} x generate()`);
    }
    if (ratio !== undefined) {
      lines.push(`  ratio to llama2.c: ${ratio.session.toFixed(2)} (session), ${ratio.generate.toFixed(2)} (generate)`);
    }
  }
  const { tokensPerSecond: speed, memory, scoringOnTwoThreads: twoThreads } = embedded;
  const shownScoring = ({ nodes, microseconds, ratioToOne, allowed: limit }: Scoring): string => {
    const aim = limit === undefined ? "" : `   aim: at most ${limit.toFixed(1)}`;
    return `  ${String(nodes).padStart(2)} nodes  ${shown(microseconds).padEnd(24)} ${ratioToOne.toFixed(2)} x one node${aim}`;
  };
  lines.push(
    "",
    "embedded target, plain decoding of 128 tokens, tokens per second",
    `  engine        ${shown(speed.engine)}`,
    `  tensors       ${shown(speed.tensors)}   engine / tensors ${speed.ratio.toFixed(1)}`,
    `  weights in memory: ${whole(memory.float32)} bytes as float32, ${whole(memory.stored)} as stored (float16)`,
    "embedded target, one pass over a tree behind 128 tokens, microseconds",
    ...embedded.scoring.map(shownScoring),
    ...("skipped" in twoThreads
      ? [`on two threads: skipped, ${twoThreads.skipped}`]
      : [
          `on two threads, calls of ${whole(twoThreads.smallestSplit)} multiply-adds and more split`,
          ...twoThreads.passes.map(shownScoring),
        ]),
  );
  lines.push(
    "",
    "embedded target's weights, longer contexts",
    ...lengths.prefill.map(
      ({ tokens, tokensPerSecond }) =>
        `  prefill of ${whole(tokens).padStart(6)}: ${shown(tokensPerSecond)} tokens per second`,
    ),
    ...lengths.decode.map(({ context, tokensPerSecond, bytesPerToken, shareOfBandwidth }) => {
      const share = `${(100 * shareOfBandwidth).toFixed(0)} % of the bandwidth`;
      return `  decode behind ${whole(context).padStart(6)}: ${shown(tokensPerSecond)} tokens per second, ${whole(bytesPerToken)} bytes per token, ${share}`;
    }),
    `  memory bandwidth, one thread: ${(lengths.bandwidth / 1e9).toFixed(1)} GB/s`,
  );
  const { blas } = products;
  lines.push("", `products, GFLOP/s (best of this kernel: ${products.best.toFixed(1)})`);
  for (const { name, inputs, outputs, rows, gflops, share } of products.shapes) {
    const peer = "skipped" in blas ? undefined : blas.find((one) => one.name === name && one.rows === rows);
    const beside = peer === undefined ? "" : `   numpy ${peer.gflops.toFixed(1)}`;
    lines.push(
      `  ${name.padEnd(12)} ${`${inputs} x ${outputs}`.padEnd(10)} ${String(rows).padStart(2)} rows  ${gflops.toFixed(1).padStart(5)}  ${(100 * share).toFixed(0).padStart(3)} %${beside}`,
    );
  }
  if ("skipped" in blas) lines.push(`  BLAS: skipped, ${blas.skipped}`);
  return lines.join("\n");
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { values } = parseArgs({
    options: {
      llama2c: { type: "string" },
      stories: { type: "string" },
      python: { type: "string" },
      rounds: { type: "string" },
      json: { type: "boolean" },
    },
  });
  const { rounds, ...rest } = values;
  await benchDecode({ ...rest, ...(rounds !== undefined && { rounds: Number(rounds) }) });
}
