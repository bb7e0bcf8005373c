/**
 * Tokenization measured: characters per second beside the JavaScript peers, exactness, growth with length, training.
 *
 *     npx tsx bench/tokenization.ts [--runs 5] [--encoding cl100k_base] [--json]
 *
 * Same text, same vocabulary, same run. Every sample of a library is taken in a fresh process: loading it, its first
 * pass over the text (cold: no cache, no compiled code) and as many further passes as fit in a second (warm). What is
 * reported is the median over processes, in CPU seconds of the process, which busy neighbours disturb less than the
 * clock. @huggingface/tokenizers reads the vocabulary from the `tokenizer.json` that `toHuggingFace()` makes. WordPiece and
 * Unigram, which no other peer has, are held against it alone, with the vocabularies of the tests. (Unigram's ids differ where
 * segmentations have equal scores: runs of "/" in the declarations.)
 */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Bpe, readHuggingFaceTokenizer } from "../src/tokenization/index.ts";
import {
  adversarialStrings,
  declarations,
  type EncodingName,
  loadEncoding,
  messages,
  seeded,
  shippedRanks,
} from "../test/tokenization/texts.ts";

const LIBRARIES = ["tokenthrift", "gpt-tokenizer", "tiktoken", "js-tiktoken", "@huggingface/tokenizers"] as const;
type Library = (typeof LIBRARIES)[number];
const TEXTS = ["declarations", "Russian messages"] as const;
type TextName = (typeof TEXTS)[number];

interface Speed {
  readonly library: Library;
  readonly text: TextName;
  readonly encoding: EncodingName;
  readonly characters: number;
  readonly tokens: number;
  /** Seconds to load the library and its vocabulary. */
  readonly loadSeconds: number;
  /** Characters per second, the first pass. */
  readonly cold: number;
  /** Characters per second, later passes. */
  readonly warm: number;
  /** Same ids as tiktoken, by number and checksum. */
  readonly identical: boolean;
}

interface Divergence {
  readonly library: Library;
  readonly encoding: EncodingName;
  /** Of 20,000 adversarial strings, how many have other ids than tiktoken's. */
  readonly adversarial: number;
  /** Of the adversarial strings, how many do not decode to the text they came from. */
  readonly lossy: number;
  /** Of the files of declarations. */
  readonly declarations: number;
  /** Of the 13 languages. */
  readonly languages: number;
}

const KINDS = ["word-piece", "unigram"] as const;
type Kind = (typeof KINDS)[number];

/** WordPiece or Unigram beside @huggingface/tokenizers. */
interface KindSpeed {
  readonly kind: Kind;
  readonly text: TextName;
  readonly tokens: number;
  /** Characters per second in the first pass and later ones: own, and the peer's. */
  readonly cold: readonly [own: number, peer: number];
  readonly warm: readonly [own: number, peer: number];
  readonly identical: boolean;
}

export interface TokenizationBench {
  readonly speeds: readonly Speed[];
  readonly kinds: readonly KindSpeed[];
  readonly divergences: readonly Divergence[];
  /** Milliseconds for n repeats of one character and for n random letters. */
  readonly growth: readonly { readonly length: number; readonly repeats: number; readonly randomLetters: number }[];
  readonly training: {
    readonly characters: number;
    readonly merges: number;
    readonly seconds: number;
    readonly megabytes: number;
  };
}

/** Run everything and print tables, or one JSON document with `--json`. */
export async function benchTokenization(): Promise<TokenizationBench> {
  const json = process.argv.includes("--json");
  const runs = Number(option("--runs") ?? 5);
  const encoding = (option("--encoding") ?? "cl100k_base") as EncodingName;
  const result: TokenizationBench = {
    speeds: TEXTS.flatMap((text) => compareSpeeds(text, encoding, runs)),
    kinds: KINDS.flatMap((kind) => TEXTS.map((text) => compareKind(kind, text, runs))),
    divergences: await Promise.all(
      (["tokenthrift", "gpt-tokenizer", "js-tiktoken"] as const).map((l) => diverge(l, encoding)),
    ),
    growth: measureGrowth(),
    training: inFreshProcess("training"),
  };
  if (json) console.log(JSON.stringify(result, undefined, 2));
  else print(result, encoding);
  return result;
}

/** What a library does, behind one shape. Special tokens are read as text. */
interface Subject {
  readonly encode: (text: string) => ArrayLike<number>;
  readonly decode: (ids: ArrayLike<number>) => string;
}

async function load(library: Library, encoding: EncodingName): Promise<Subject> {
  switch (library) {
    case "tokenthrift": {
      const bpe = loadEncoding(encoding);
      return { encode: (text) => bpe.encode(text, { disallowedSpecial: [] }), decode: (ids) => bpe.decode(ids) };
    }
    case "gpt-tokenizer": {
      const peer = (await import(
        `gpt-tokenizer/encoding/${encoding}`
      )) as typeof import("gpt-tokenizer/encoding/cl100k_base");
      const plain = { allowedSpecial: new Set<string>(), disallowedSpecial: new Set<string>() };
      return { encode: (text) => peer.encode(text, plain), decode: (ids) => peer.decode(Array.from(ids)) };
    }
    case "tiktoken": {
      const { get_encoding } = await import("tiktoken");
      const peer = get_encoding(encoding);
      return {
        encode: (text) => peer.encode_ordinary(text),
        decode: (ids) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(peer.decode(Uint32Array.from(ids))),
      };
    }
    case "js-tiktoken": {
      const { Tiktoken } = await import("js-tiktoken/lite");
      const ranks = (await import(`js-tiktoken/ranks/${encoding}`)) as {
        default: ConstructorParameters<typeof Tiktoken>[0];
      };
      const peer = new Tiktoken(ranks.default);
      return { encode: (text) => peer.encode(text, [], []), decode: (ids) => peer.decode(Array.from(ids)) };
    }
    case "@huggingface/tokenizers": {
      const { Tokenizer } = await import("@huggingface/tokenizers");
      const { bpe_ranks } = shippedRanks(encoding);
      const pattern = ({ r50k_base: "gpt2", cl100k_base: "cl100k", o200k_base: "o200k" } as const)[encoding];
      const peer = new Tokenizer(Bpe.fromTiktoken(bpe_ranks, { pattern }).toHuggingFace(), {});
      return {
        encode: (text) => peer.encode(text, { add_special_tokens: false }).ids,
        decode: (ids) => peer.decode(Array.from(ids), { clean_up_tokenization_spaces: false }),
      };
    }
  }
}

/** Reads a text in parts of 10,000 characters: the peer's Unigram cannot take a long one. */
async function loadKind(kind: Kind, library: "own" | "peer"): Promise<Pick<Subject, "encode">> {
  const path = new URL(`../test/fixtures/tokenizers/${kind}.tokenizer.json`, import.meta.url);
  const file = JSON.parse(readFileSync(path, "utf8"));
  let encode: Subject["encode"];
  if (library === "own") {
    const tokenizer = readHuggingFaceTokenizer(file);
    encode = (text) => tokenizer.encode(text);
  } else {
    const { Tokenizer } = await import("@huggingface/tokenizers");
    const peer = new Tokenizer(file, {});
    encode = (text) => peer.encode(text, { add_special_tokens: false }).ids;
  }
  return {
    encode: (text) => {
      const ids: number[] = [];
      for (let start = 0; start < text.length; start += 10_000) {
        const part = encode(text.slice(start, start + 10_000));
        for (let i = 0; i < part.length; i++) ids.push(part[i]!);
      }
      return ids;
    },
  };
}

interface Sample {
  readonly loadSeconds: number;
  readonly cold: number;
  readonly warm: readonly number[];
  readonly tokens: number;
  readonly checksum: number;
}

function textOf(name: TextName): string {
  return name === "declarations" ? declarations().join("\n") : messages().get("ru")!;
}

/** One sample, in this process. */
async function sample(name: TextName, load: () => Promise<Pick<Subject, "encode">>): Promise<Sample> {
  const text = textOf(name);
  let start = cpuSeconds();
  const { encode } = await load();
  const loadSeconds = cpuSeconds() - start;
  start = cpuSeconds();
  const ids = encode(text);
  const cold = cpuSeconds() - start;
  const warm: number[] = [];
  for (let spent = 0; warm.length === 0 || (spent < 1 && warm.length < 50); spent += warm.at(-1)!) {
    start = cpuSeconds();
    encode(text);
    warm.push(cpuSeconds() - start);
  }
  let checksum = 0;
  for (let i = 0; i < ids.length; i++) checksum = (Math.imul(checksum, 31) + ids[i]!) | 0;
  return { loadSeconds, cold, warm, tokens: ids.length, checksum };
}

function compareSpeeds(text: TextName, encoding: EncodingName, runs: number): Speed[] {
  const characters = textOf(text).length;
  const samples = new Map<Library, Sample[]>(LIBRARIES.map((library) => [library, []]));
  // Round by round, so that a slow minute of the machine falls on all of them.
  for (let run = 0; run < runs; run++) {
    for (const library of LIBRARIES) samples.get(library)!.push(inFreshProcess("sample", library, encoding, text));
  }
  const reference = samples.get("tiktoken")![0]!;
  return LIBRARIES.map((library) => {
    const own = samples.get(library)!;
    return {
      library,
      text,
      encoding,
      characters,
      tokens: own[0]!.tokens,
      loadSeconds: median(own.map((s) => s.loadSeconds)),
      cold: characters / median(own.map((s) => s.cold)),
      warm: characters / median(own.flatMap((s) => s.warm)),
      identical: own[0]!.tokens === reference.tokens && own[0]!.checksum === reference.checksum,
    };
  });
}

function compareKind(kind: Kind, text: TextName, runs: number): KindSpeed {
  const characters = textOf(text).length;
  const samples = Array.from({ length: runs }, () =>
    (["own", "peer"] as const).map((library): Sample => inFreshProcess("kind", library, kind, text)),
  );
  const [own, peer] = [0, 1].map((side) => samples.map((pair) => pair[side]!)) as [Sample[], Sample[]];
  const cold = (of: Sample[]): number => characters / median(of.map((s) => s.cold));
  const warm = (of: Sample[]): number => characters / median(of.flatMap((s) => s.warm));
  return {
    kind,
    text,
    tokens: own[0]!.tokens,
    cold: [cold(own), cold(peer)],
    warm: [warm(own), warm(peer)],
    identical: own[0]!.tokens === peer[0]!.tokens && own[0]!.checksum === peer[0]!.checksum,
  };
}

async function diverge(library: Library, encoding: EncodingName): Promise<Divergence> {
  const reference = await load("tiktoken", encoding);
  const subject = await load(library, encoding);
  const differs = (text: string): boolean => {
    const expected = reference.encode(text);
    const ids = subject.encode(text);
    return ids.length !== expected.length || !Array.prototype.every.call(ids, (id, i) => id === expected[i]);
  };
  const strings = adversarialStrings(20_000, 1);
  return {
    library,
    encoding,
    adversarial: strings.filter(differs).length,
    lossy: strings.filter((text) => subject.decode(subject.encode(text)) !== text.replace(/\p{Surrogate}/gu, "\ufffd"))
      .length,
    declarations: declarations().filter(differs).length,
    languages: [...messages().values()].filter(differs).length,
  };
}

function measureGrowth(): TokenizationBench["growth"] {
  const bpe = loadEncoding("cl100k_base");
  const milliseconds = (text: string): number =>
    1000 *
    median(
      Array.from({ length: 5 }, () => {
        const start = cpuSeconds();
        bpe.encode(text);
        return cpuSeconds() - start;
      }),
    );
  const next = seeded(1);
  const letters = Array.from({ length: 400_000 }, () => String.fromCharCode(97 + (next() % 26))).join("");
  milliseconds("a".repeat(200_000)); // compile
  return [25_000, 50_000, 100_000, 200_000, 400_000].map((length) => {
    return { length, repeats: milliseconds("a".repeat(length)), randomLetters: milliseconds(letters.slice(0, length)) };
  });
}

/** 4,096 merges on the declarations, with the memory that takes over having the text. */
function measureTraining(): TokenizationBench["training"] {
  const texts = declarations();
  const before = process.resourceUsage().maxRSS;
  const start = cpuSeconds();
  const bpe = Bpe.train(texts, { vocabSize: 256 + 4096 });
  const seconds = cpuSeconds() - start;
  return {
    characters: texts.reduce((sum, text) => sum + text.length, 0),
    merges: bpe.merges().length,
    seconds,
    megabytes: (process.resourceUsage().maxRSS - before) / 1024,
  };
}

/** CPU seconds this process has used. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Run this file again with `--child` and read the JSON it prints. */
function inFreshProcess<T>(...task: readonly string[]): T {
  const argv = [...process.execArgv, fileURLToPath(import.meta.url), "--child", ...task];
  const { stdout, stderr, status } = spawnSync(process.execPath, argv, { encoding: "utf8", maxBuffer: 2 ** 26 });
  if (status !== 0) throw new Error(`bench child ${task.join(" ")} failed: ${stderr}`);
  return JSON.parse(stdout) as T;
}

function option(name: string): string | undefined {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
}

function print({ speeds, kinds, divergences, growth, training }: TokenizationBench, encoding: EncodingName): void {
  const millions = (value: number): string => (value / 1e6).toFixed(2).padStart(8);
  for (const text of TEXTS) {
    const rows = speeds.filter((speed) => speed.text === text);
    const peer = rows.find((row) => row.library === "gpt-tokenizer")!;
    console.log(
      `\n${encoding}, ${text}: ${rows[0]!.characters} characters, ${rows[0]!.tokens} tokens; million characters per CPU second`,
    );
    console.log("library                      cold     x gpt      warm     x gpt    load s   ids");
    for (const row of rows) {
      const times = (value: number, other: number): string => (value / other).toFixed(2).padStart(8);
      console.log(
        `${row.library.padEnd(24)} ${millions(row.cold)}  ${times(row.cold, peer.cold)}  ${millions(row.warm)}  ` +
          `${times(row.warm, peer.warm)}  ${row.loadSeconds.toFixed(2).padStart(8)}   ${row.identical ? "identical" : "differ"}`,
      );
    }
  }
  console.log("\nmillion characters per CPU second, first pass and later ones, and times @huggingface/tokenizers");
  for (const { kind, text, cold, warm, identical } of kinds) {
    const times = ([own, peer]: readonly [number, number]): string =>
      `${millions(own)} x ${(own / peer).toFixed(1).padStart(5)}`;
    console.log(
      `${kind.padEnd(11)} ${text.padEnd(17)} ${times(cold)}  ${times(warm)}   ids ${identical ? "identical" : "differ"}`,
    );
  }
  console.log(`\n${encoding}: ids that differ from tiktoken's; texts lost in a round trip`);
  for (const row of divergences) {
    console.log(
      `${row.library.padEnd(24)} adversarial ${row.adversarial} of 20000, lossy ${row.lossy}, ` +
        `declaration files ${row.declarations}, languages ${row.languages} of 13`,
    );
  }
  console.log("\ncl100k_base, one piece of n characters, CPU milliseconds: n, repeats of a, random letters");
  for (const row of growth) {
    console.log(
      `${String(row.length).padStart(8)} ${row.repeats.toFixed(1).padStart(8)} ${row.randomLetters.toFixed(1).padStart(8)}`,
    );
  }
  console.log(
    `\ntraining ${training.merges} merges on ${training.characters} characters: ${training.seconds.toFixed(2)} CPU s, ` +
      `${training.megabytes.toFixed(0)} MB`,
  );
}

async function child(task: string | undefined, ...args: string[]): Promise<void> {
  const [library, which, text] = args;
  const result =
    task === "training"
      ? measureTraining()
      : await sample(text as TextName, () =>
          task === "kind"
            ? loadKind(which as Kind, library as "own" | "peer")
            : load(library as Library, which as EncodingName),
        );
  process.stdout.write(JSON.stringify(result));
}

if (process.argv[2] === "--child") await child(...(process.argv.slice(3) as [string, ...string[]]));
else if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await benchTokenization();
