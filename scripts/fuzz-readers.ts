/**
 * Feeds damaged files to every file reader: `npx tsx scripts/fuzz-readers.ts [--mutations 100000] [--seed 1]`.
 *
 * A reader may accept a file or throw a TokenthriftError; anything else is a finding, and so is an input that allocates
 * more than `memoryAllowed` or takes longer than the command's two seconds. What is accepted must also work: it is written
 * and read again, or encodes and decodes a text. Every mutation is a function of (seed, reader, number), so a finding is
 * repeated with the same seed.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { getHeapStatistics } from "node:v8";
import { TokenthriftError } from "../src/errors.ts";
import { openCheckpoint } from "../src/model/checkpoint.ts";
import {
  type Checkpoint,
  checkpointFiles,
  parseCheckpoint,
  serializeCheckpoint,
} from "../src/model/checkpoint-format.ts";
import { type DecoderConfig, parameterShapes } from "../src/model/decoder-config.ts";
import { readLlama2c } from "../src/model/llama2c.ts";
import { Random } from "../src/tensor/random.ts";
import { floatTensor, readSafetensors, type SafeTensor, writeSafetensors } from "../src/tensor/safetensors.ts";
import { Bpe } from "../src/tokenization/bpe.ts";
import { SentencePieceBpe } from "../src/tokenization/sentencepiece-bpe.ts";

export interface FuzzOptions {
  /** Damaged files in all, spread over the readers. */
  readonly mutations: number;
  /** Default 1. */
  readonly seed?: number;
  /** Milliseconds one read may take. Default: no bound, for the machine may be busy. */
  readonly slowestAllowed?: number;
}

export interface FuzzReport {
  /** Per reader: how many files it was given, how many it accepted, and by which errors it refused the others. */
  readonly readers: readonly ReaderReport[];
  /** Inputs that broke a rule; empty when all is well. At most 20 a reader. */
  readonly findings: readonly Finding[];
}

export interface ReaderReport {
  readonly reader: string;
  readonly inputs: number;
  readonly accepted: number;
  readonly refused: Readonly<Record<string, number>>;
  /** Of the readers alone, in milliseconds. */
  readonly slowest: number;
  /** Largest growth of heap and buffers during one read, and the size of the file that caused it, in bytes. */
  readonly mostMemory: { readonly allocated: number; readonly file: number };
}

export interface Finding {
  readonly reader: string;
  readonly number: number;
  readonly mutations: readonly string[];
  readonly problem: string;
  readonly base64: string;
}

/**
 * Bytes that reading a file of `fileBytes` may allocate, garbage included: a multiple of the file beside what the reader
 * always needs (a tokenizer's fixed tables), which is measured on the undamaged file.
 */
function memoryAllowed(reader: MeasuredReader, fileBytes: number): number {
  return 2 ** 20 + 2 * reader.baseline + 32 * fileBytes;
}

interface Reader {
  readonly name: string;
  /** A good file. */
  readonly file: Uint8Array;
  /** Where the text to mutate as JSON begins; absent when the file holds none. */
  readonly json?: number;
  /** Reads; returns a check that what was accepted works. */
  readonly read: (bytes: Uint8Array) => (() => void) | Promise<() => void>;
}

interface MeasuredReader extends Reader {
  /** Bytes allocated by reading the good file. */
  readonly baseline: number;
}

/** Damage and read `options.mutations` files. */
export async function fuzzReaders(options: FuzzOptions): Promise<FuzzReport> {
  const folder = mkdtempSync(joinPath(tmpdir(), "tokenthrift-fuzz-"));
  try {
    return await fuzz(options, folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function fuzz(options: FuzzOptions, folder: string): Promise<FuzzReport> {
  const readers: MeasuredReader[] = [];
  for (const reader of allReaders(folder)) readers.push(await measured(reader));
  const { slowestAllowed = Number.POSITIVE_INFINITY } = options;
  const reports: ReaderReport[] = [];
  const findings: Finding[] = [];
  for (const [r, reader] of readers.entries()) {
    const share =
      Math.floor(((r + 1) * options.mutations) / readers.length) - Math.floor((r * options.mutations) / readers.length);
    const random = new Random(options.seed ?? 1).fork(reader.name);
    const refused: Record<string, number> = {};
    let accepted = 0;
    let slowest = 0;
    let mostMemory = { allocated: 0, file: 0 };
    let found = 0;
    for (let number = 0; number < share; number++) {
      const { bytes, mutations } = mutate(reader, readers, random.fork(String(number)));
      const report = (problem: string): void => {
        if (found++ >= 20) return;
        findings.push({
          reader: reader.name,
          number,
          mutations,
          problem,
          base64: Buffer.from(bytes).toString("base64"),
        });
      };
      const before = memoryInUse();
      const start = performance.now();
      let check: (() => void) | undefined;
      let failure: unknown;
      try {
        check = await reader.read(bytes);
      } catch (error) {
        failure = error;
      }
      const duration = performance.now() - start;
      const allocated = memoryInUse() - before;
      if (check !== undefined) {
        accepted++;
        try {
          check();
        } catch (error) {
          report(`accepted, then: ${described(error)}`);
        }
      } else if (failure instanceof TokenthriftError) {
        refused[failure.name] = (refused[failure.name] ?? 0) + 1;
      } else {
        report(described(failure));
      }
      slowest = Math.max(slowest, duration);
      if (duration > slowestAllowed) report(`took ${duration.toFixed(0)} ms`);
      if (allocated > mostMemory.allocated) mostMemory = { allocated, file: bytes.length };
      if (allocated > memoryAllowed(reader, bytes.length))
        report(`allocated ${allocated} bytes for a file of ${bytes.length}`);
    }
    reports.push({ reader: reader.name, inputs: share, accepted, refused, slowest, mostMemory });
  }
  return { readers: reports, findings };
}

function described(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message.slice(0, 200)}` : String(error);
}

/** The largest of a few readings: a collection in between makes one too small, never too large. */
async function measured(reader: Reader): Promise<MeasuredReader> {
  let baseline = 0;
  for (let reading = 0; reading < 5; reading++) {
    const before = memoryInUse();
    await reader.read(reader.file.slice());
    baseline = Math.max(baseline, memoryInUse() - before);
  }
  return { ...reader, baseline };
}

function memoryInUse(): number {
  const { used_heap_size: heap, external_memory: external } = getHeapStatistics();
  return heap + external;
}

// --- the good files -----------------------------------------------------------------------------------------------

/** @param folder an empty one, for the readers that read from a disk */
function allReaders(folder: string): Reader[] {
  const config: DecoderConfig = {
    vocabularySize: 262,
    width: 4,
    layers: 1,
    heads: 2,
    keyValueHeads: 1,
    headWidth: 2,
    hiddenWidth: 3,
    contextLength: 8,
    ropeTheta: 10_000,
    ropeScaling: { kind: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContextLength: 4 },
    normEpsilon: 1e-5,
    tiedEmbeddings: true,
    projectionBiases: false,
  };
  const { ropeScaling: _, ...unscaled } = config;
  const gpt2: DecoderConfig = { ...unscaled, architecture: "gpt2", keyValueHeads: 2, projectionBiases: true };
  const files = serializeCheckpoint(checkpointOf(config), { dtype: "BF16" });
  const checkpointWith = (name: string, all: ReadonlyMap<string, Uint8Array> = files, title = name): Reader => ({
    name: title,
    file: all.get(name)!,
    json: name.endsWith(".safetensors") ? 8 : 0,
    read: (bytes) => {
      const checkpoint = parseCheckpoint(new Map([...all, [name, bytes]]));
      return () => {
        parseCheckpoint(serializeCheckpoint(checkpoint));
        encodeAndDecode(checkpoint.tokenizer);
      };
    },
  });
  const normalizing = {
    ...checkpointOf(config).tokenizer.toHuggingFace(),
    added_tokens: [
      { id: 261, content: "<|endoftext|>", special: true, normalized: false },
      { id: 262, content: "<\u00e9>", special: false, normalized: true },
    ],
    normalizer: { type: "Sequence", normalizers: [{ type: "NFC" }] },
  };
  const sharded = inTwoFiles(serializeCheckpoint(checkpointOf(gpt2), { dtype: "F16" }));
  for (const [name, bytes] of sharded) writeFileSync(joinPath(folder, name), bytes);
  /** The same files on a disk, their weights read one by one. */
  const folderWith = (name: string): Reader => ({
    name: `opened ${name}`,
    file: sharded.get(name)!,
    json: name.endsWith(".safetensors") ? 8 : 0,
    read: async (bytes) => {
      writeFileSync(joinPath(folder, name), bytes);
      try {
        const opened = await openCheckpoint(folder);
        try {
          const sizes = new Map<string, number>();
          for (const [tensor, { read }] of opened.tensors) sizes.set(tensor, (await read()).length);
          return () => {
            for (const [tensor, shape] of parameterShapes(opened.config)) {
              if (sizes.get(tensor) !== shape.reduce((a, b) => a * b, 1)) throw new Error(`${tensor} has another size`);
            }
          };
        } finally {
          await opened.close();
        }
      } finally {
        writeFileSync(joinPath(folder, name), sharded.get(name)!);
      }
    },
  });

  const mixed = new Map<string, SafeTensor>([
    ["f32", floatTensor([2, 3], new Float32Array([1, -2, 3, 0.5, 1e-40, 7]))],
    ["f16", floatTensor([3], new Float32Array([1, 2, 3]), "F16")],
    ["bf16", floatTensor([1, 3], new Float32Array([1, 2, 3]), "BF16")],
    ["i32", { dtype: "I32", shape: [], data: new Int32Array([-7]) }],
    ["u8", { dtype: "U8", shape: [5, 1], data: new Uint8Array([1, 2, 3, 4, 5]) }],
    ["empty", { dtype: "F32", shape: [0, 2], data: new Float32Array(0) }],
  ]);
  return [
    {
      name: "safetensors",
      file: writeSafetensors(mixed, { format: "pt", note: "ü" }),
      json: 8,
      read: (bytes) => {
        const { tensors, metadata } = readSafetensors(bytes);
        return () => {
          const again = readSafetensors(writeSafetensors(tensors, metadata));
          if (again.tensors.size !== tensors.size) throw new Error("tensors were lost");
        };
      },
    },
    {
      name: "llama2.c weights",
      file: llama2cWeights(),
      read: (bytes) => {
        const { config, tensors } = readLlama2c(bytes);
        return () => {
          if (tensors.size !== parameterShapes(config).size) throw new Error("tensors are missing");
        };
      },
    },
    {
      name: "llama2.c tokenizer",
      file: llama2cTokenizer(),
      read: (bytes) => {
        const read = SentencePieceBpe.fromLlama2c(bytes, llama2cVocabulary);
        return () => {
          const ids = read.encode("the cat ü");
          if (read.decode([read.beginId, ...ids]) !== "the cat ü") throw new Error("the round trip is not exact");
        };
      },
    },
    {
      name: "tiktoken ranks",
      file: new TextEncoder().encode(tiktokenRanks()),
      json: 0,
      read: (bytes) => {
        const read = Bpe.fromTiktoken(bytes, { pattern: "cl100k" });
        return () => encodeAndDecode(read);
      },
    },
    {
      name: "tokenizer.json as text",
      file: new TextEncoder().encode(JSON.stringify(normalizing)),
      json: 0,
      read: (bytes) => {
        const read = Bpe.fromHuggingFace(new TextDecoder().decode(bytes));
        return () => encodeAndDecode(read);
      },
    },
    ...[...files.keys()].map((name) => checkpointWith(name)),
    checkpointWith(checkpointFiles.config, sharded, "config.json of GPT-2"),
    checkpointWith(checkpointFiles.index, sharded),
    checkpointWith(shardNames[1], sharded),
    folderWith(checkpointFiles.index),
    folderWith(shardNames[0]),
  ];
}

function checkpointOf(config: DecoderConfig): Checkpoint {
  const tokenizer = Bpe.train(["the cat sat on the mat, the hat"], {
    vocabSize: 262,
    specialTokens: ["<|endoftext|>"],
  });
  const random = new Random("weights");
  const tensors = new Map(
    [...parameterShapes(config)].map(([name, shape]) => {
      const length = shape.reduce((product, size) => product * size, 1);
      return [name, { shape, data: Float32Array.from({ length }, () => random.normal()) }];
    }),
  );
  return { config, tensors, tokenizer, training: { steps: 3 } };
}

const shardNames = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;

/** A GPT-2 as old files have it: without prefixes, with a mask and a second copy of the tied table, in two files. */
function inTwoFiles(files: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> {
  const { tensors } = readSafetensors(files.get(checkpointFiles.weights)!);
  const shards: Map<string, SafeTensor>[] = [new Map(), new Map()];
  const index: Record<string, string> = {};
  const put = (shard: number, name: string, tensor: SafeTensor): void => {
    shards[shard]!.set(name, tensor);
    index[name] = shardNames[shard]!;
  };
  for (const [i, [name, tensor]] of [...tensors].entries()) put(i % 2, name.replace("transformer.", ""), tensor);
  put(0, "h.0.attn.bias", { dtype: "U8", shape: [1, 1, 2, 2], data: Uint8Array.of(1, 0, 1, 1) });
  put(1, "lm_head.weight", tensors.get("transformer.wte.weight")!);
  const result = new Map(files);
  result.delete(checkpointFiles.weights);
  shards.forEach((shard, i) => {
    result.set(shardNames[i]!, writeSafetensors(shard, { format: "pt" }));
  });
  const json = JSON.stringify({ metadata: { total_size: 1 }, weight_map: index }, null, 2);
  return result.set(checkpointFiles.index, new TextEncoder().encode(json));
}

function encodeAndDecode(tokenizer: Bpe): void {
  const text = "the cat, ü 中 \u{1f600} 12345\n u\u0308";
  const { ids, ends } = tokenizer.encodeWithOffsets(text, { disallowedSpecial: [] });
  const decoded = tokenizer.decode(ids);
  // A damaged file may have a token that takes a mark from its letter, and keeps it apart.
  const same = tokenizer.normalizer === "NFC" ? decoded.normalize("NFC") === text.normalize("NFC") : decoded === text;
  if (!same) throw new Error("the round trip is not exact");
  if (ends.at(-1) !== text.length) throw new Error("the offsets do not cover the text");
  Bpe.fromHuggingFace(tokenizer.toHuggingFace());
}

function llama2cWeights(): Uint8Array {
  const header = [8, 5, 2, 2, 1, -6, 4]; // dim, hidden, layers, heads, kv heads, vocabulary (untied), context
  const floats = 2 * 6 * 8 + 2 * (2 * 8 + 2 * 64 + 2 * 32 + 3 * 40) + 8 + 16;
  const bytes = new Uint8Array(28 + 4 * floats);
  new Int32Array(bytes.buffer, 0, 7).set(header);
  new Float32Array(bytes.buffer, 28).fill(0.25);
  return bytes;
}

const llama2cVocabulary = 270;

function llama2cTokenizer(): Uint8Array {
  const named = ["<unk>", "\n<s>\n", "\n</s>\n"];
  for (let byte = 0; byte < 256; byte++) named.push(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
  named.push(" ", "t", "h", "e", "c", "a", "th", "the", " t", " the", "at");
  const pieces = named.map((piece) => new TextEncoder().encode(piece));
  const bytes = new Uint8Array(4 + pieces.reduce((sum, piece) => sum + 8 + piece.length, 0));
  const view = new DataView(bytes.buffer);
  view.setInt32(0, 7, true);
  let at = 4;
  pieces.forEach((piece, id) => {
    view.setFloat32(at, -id, true);
    view.setInt32(at + 4, piece.length, true);
    bytes.set(piece, at + 8);
    at += 8 + piece.length;
  });
  return bytes;
}

function tiktokenRanks(): string {
  const tokens = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  for (const text of ["th", "the", " t", " the", "at", "cat"]) tokens.push(new TextEncoder().encode(text));
  return tokens.map((bytes, rank) => `${Buffer.from(bytes).toString("base64")} ${rank}\n`).join("");
}

// --- the damage ---------------------------------------------------------------------------------------------------

const numbers = [0, 1, 2, 3, 4, 7, 8, 127, 255, 256, 65_535, 65_536, 99_999_999, 100_000_000, 100_000_001, 2 ** 22 - 1];
const integers = [
  ...numbers,
  2 ** 22,
  2 ** 28,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  -1,
  -2,
  -(2 ** 31),
  0x7fc00000,
  0x7f800000,
];
const snippets = [
  ...integers.map(String),
  ...["-0", "0.5", "1e3", "1e308", "1e999", "9007199254740993", "18446744073709551616", "01", "NaN", "-", "1e"],
  ...["null", "true", "false", "[]", "{}", '""', '"x"', "[null]", "[[]]", "[0]", "[-1]", '{"a":1}', '{"type":"BPE"}'],
  ...[
    '{"type":"NFC"}',
    '{"type":"NFKC"}',
    '{"type":"Sequence","normalizers":[{"type":"NFC"}]}',
    '"\\u0308"',
    '"e\\u0301"',
  ],
  ...['{"type":"Sequence","normalizers":['.repeat(3000)],
  ...['"F16"', '"F64"', '"__metadata__"', '"__proto__"', '"constructor"', '"\\ud800"', '"\\u0000"', '"ByteLevel"'],
  ...[
    '"Sequence"',
    '"(a+)+$"',
    '"<|endoftext|>"',
    '{"toString":1,"valueOf":1}',
    '{"type":{"toString":1}}',
    '{"type":[[]]}',
  ],
  ...['{"length":-1}', '{"0":1,"length":4294967295}', "[".repeat(20_000), "[".repeat(20_000) + "]".repeat(20_000)],
  ...['{"type":"Sequence","processors":['.repeat(3000), '{"a":'.repeat(9000) + "1" + "}".repeat(9000)],
  ...[",", ":", "{", "}", "[", "]", '"', "\\", " ", "\u00a0", "\ufeff", "//", "'"],
];

/** One to three kinds of damage, one after the other. */
function mutate(
  reader: Reader,
  readers: readonly Reader[],
  random: Random,
): { bytes: Uint8Array; mutations: readonly string[] } {
  let bytes: Uint8Array = reader.file.slice();
  const mutations: string[] = [];
  const rounds = 1 + random.categorical([6, 3, 1]);
  for (let round = 0; round < rounds; round++) {
    const choices: (keyof typeof damages)[] = ["flip", "truncate", "splice", "cross", "field", "delete", "run"];
    if (reader.json !== undefined) choices.push("number", "number", "token", "token", "token", "member");
    const name = choices[random.integer(choices.length)]!;
    bytes = damages[name](bytes, random, reader, readers);
    mutations.push(name);
  }
  return { bytes, mutations };
}

/** May change the bytes it is given. */
type Damage = (bytes: Uint8Array, random: Random, reader: Reader, readers: readonly Reader[]) => Uint8Array;

const damages = {
  /** One to eight bits. */
  flip: (bytes, random) => {
    if (bytes.length === 0) return bytes;
    for (let flips = 1 + random.integer(8); flips > 0; flips--) {
      bytes[random.integer(bytes.length)]! ^= 1 << random.integer(8);
    }
    return bytes;
  },
  truncate: (bytes, random) => bytes.slice(0, random.integer(bytes.length + 1)),
  /** A stretch of the file again, elsewhere. */
  splice: (bytes, random) => insert(bytes, stretch(bytes, random), random.integer(bytes.length + 1)),
  /** A stretch of another format's file. */
  cross: (bytes, random, _reader, readers) =>
    insert(bytes, stretch(readers[random.integer(readers.length)]!.file, random), random.integer(bytes.length + 1)),
  delete: (bytes, random) => {
    const at = random.integer(bytes.length + 1);
    return join(bytes.subarray(0, at), bytes.subarray(at + random.integer(32)));
  },
  /** Up to 4,000 times the same byte. */
  run: (bytes, random) => {
    const at = random.integer(bytes.length + 1);
    const byte = random.integer(2) === 0 ? (bytes[at] ?? 0) : random.integer(256);
    return insert(bytes, new Uint8Array(1 + random.integer(4000)).fill(byte), at);
  },
  /** A 32-bit field, in the header or anywhere: a length, a count, an offset, a NaN. */
  field: (bytes, random) => {
    if (bytes.length < 4) return bytes;
    const near = Math.min(bytes.length - 3, random.integer(2) === 0 ? 36 : bytes.length);
    const at = random.integer(near) & ~3;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const old = view.getInt32(at, true);
    const value = random.integer(3) === 0 ? old + random.integer(9) - 4 : integers[random.integer(integers.length)]!;
    view.setInt32(at, value, true);
    return bytes;
  },
  /** A number in the JSON. */
  number: (bytes, random, reader) =>
    editJson(bytes, reader, (text) =>
      replaceOne(text, /-?\d+(?:\.\d+)?/g, random, (old) => {
        const kind = random.integer(3);
        if (kind === 0) return String(Number(old) + random.integer(9) - 4);
        return kind === 1
          ? String(Number(old) * 2 ** random.integer(40))
          : snippets[random.integer(integers.length + 11)]!;
      }),
    ),
  /** Any token of the JSON, brackets and commas included. */
  token: (bytes, random, reader) =>
    editJson(bytes, reader, (text) =>
      replaceOne(
        text,
        /"(?:[^"\\]|\\.)*"|-?[\d.eE+]+|true|false|null|[[\]{},:]/g,
        random,
        () => snippets[random.integer(snippets.length)]!,
      ),
    ),
  /** A member of an object: given twice, left out, or under another name. */
  member: (bytes, random, reader) =>
    editJson(bytes, reader, (text) =>
      replaceOne(
        text,
        /"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[^,{}[\]"]+|\[[^{}[\]]*\]|\{[^{}]*\}),?/g,
        random,
        (old) => [`${old.replace(/,?$/, ",")}${old}`, "", old.replace(/^"/, '"x')][random.integer(3)]!,
      ),
    ),
} satisfies Record<string, Damage>;

function stretch(bytes: Uint8Array, random: Random): Uint8Array {
  const at = random.integer(bytes.length + 1);
  return bytes.slice(at, at + random.integer(64));
}

function insert(bytes: Uint8Array, inserted: Uint8Array, at: number): Uint8Array {
  return join(bytes.subarray(0, at), inserted, bytes.subarray(at));
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(parts));
}

/** Edit the JSON of a file. Where a length stands before it (safetensors), the length follows, so that it is read. */
function editJson(bytes: Uint8Array, reader: Reader, edit: (text: string) => string): Uint8Array {
  if (reader.json === 0) return new TextEncoder().encode(edit(new TextDecoder().decode(bytes)));
  if (bytes.length < 8) return bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = Math.min(view.getUint32(0, true), bytes.length - 8);
  const header = new TextEncoder().encode(edit(new TextDecoder().decode(bytes.subarray(8, 8 + length))));
  const edited = join(bytes.subarray(0, 8), header, bytes.subarray(8 + length));
  new DataView(edited.buffer, edited.byteOffset).setUint32(0, header.length, true);
  return edited;
}

function replaceOne(text: string, pattern: RegExp, random: Random, replacement: (old: string) => string): string {
  const matches = [...text.matchAll(pattern)];
  if (matches.length === 0) return text;
  const { 0: old, index } = matches[random.integer(matches.length)]!;
  return text.slice(0, index) + replacement(old) + text.slice(index + old.length);
}

// --- the command --------------------------------------------------------------------------------------------------

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { mutations: { type: "string" }, seed: { type: "string" } } });
  const start = performance.now();
  const { readers, findings } = await fuzzReaders({
    mutations: Number(values.mutations ?? 100_000),
    seed: Number(values.seed ?? 1),
    slowestAllowed: 2000,
  });
  for (const { reader, inputs, accepted, refused, slowest, mostMemory } of readers) {
    const errors = Object.entries(refused).map(([name, count]) => `${name} ${count}`);
    console.log(
      `${reader.padEnd(40)} ${inputs} inputs: accepted ${accepted}, ${errors.join(", ")}; slowest ${slowest.toFixed(1)} ms, ` +
        `most memory ${(mostMemory.allocated / 1024).toFixed(0)} KiB for a file of ${(mostMemory.file / 1024).toFixed(1)} KiB`,
    );
  }
  const total = readers.reduce((sum, { inputs }) => sum + inputs, 0);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  console.log(`${total} damaged files in ${seconds} s, ${findings.length} findings`);
  for (const { reader, number, mutations, problem, base64 } of findings) {
    console.log(`\n${reader} #${number} (${mutations.join(", ")}): ${problem}\n${base64.slice(0, 2000)}`);
  }
  if (findings.length > 0) process.exitCode = 1;
}
