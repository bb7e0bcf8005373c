import { mkdtemp, open, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FileError, FormatError, TokenthriftError } from "../../src/errors.ts";
import { openCheckpoint, readCheckpoint } from "../../src/model/checkpoint.ts";
import { parseCheckpoint, serializeCheckpoint } from "../../src/model/checkpoint-format.ts";
import { type DecoderConfig, parameterShapes } from "../../src/model/decoder-config.ts";
import type { Weights } from "../../src/model/weights.ts";
import { Random } from "../../src/tensor/random.ts";
import {
  type FloatDtype,
  floatTensor,
  readSafetensors,
  type SafeTensor,
  toFloat32,
  writeSafetensors,
} from "../../src/tensor/safetensors.ts";
import { Bpe } from "../../src/tokenization/bpe.ts";

const tokenizer = Bpe.train(["the cat sat on the mat"], { vocabSize: 258 });
const llama: DecoderConfig = {
  vocabularySize: 260,
  width: 8,
  layers: 2,
  heads: 2,
  keyValueHeads: 1,
  headWidth: 4,
  hiddenWidth: 12,
  contextLength: 32,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: true,
  projectionBiases: false,
};
const gpt2: DecoderConfig = { ...llama, architecture: "gpt2", keyValueHeads: 2, projectionBiases: true };

function weightsOf(config: DecoderConfig): Map<string, Weights> {
  const random = new Random(3);
  return new Map(
    [...parameterShapes(config)].map(([name, shape]) => {
      const length = shape.reduce((product, size) => product * size, 1);
      return [name, { shape, data: Float32Array.from({ length }, () => random.normal()) }];
    }),
  );
}

type Files = Map<string, Uint8Array>;
type Stored = Map<string, SafeTensor>;

function filesOf(config: DecoderConfig, dtype: FloatDtype = "F32"): Files {
  return serializeCheckpoint({ config, tensors: weightsOf(config), tokenizer }, { dtype });
}

/** The same checkpoint with other tensors. */
function withTensors(files: Files, change: (tensors: Stored) => void): Files {
  const { tensors } = readSafetensors(files.get("model.safetensors")!);
  change(tensors);
  return new Map([...files, ["model.safetensors", writeSafetensors(tensors)]]);
}

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const first = "model-00001-of-00002.safetensors";
const second = "model-00002-of-00002.safetensors";

/** The same checkpoint in two files; what the index says and what the files hold can be changed. */
function sharded(
  files: Files,
  changeIndex: (index: Record<string, unknown>) => unknown = () => undefined,
  changeFiles: (shards: [Stored, Stored]) => void = () => undefined,
): Files {
  const shards: [Stored, Stored] = [new Map(), new Map()];
  const index: Record<string, unknown> = {};
  [...readSafetensors(files.get("model.safetensors")!).tensors].forEach(([name, tensor], i) => {
    shards[i % 2]!.set(name, tensor);
    index[name] = [first, second][i % 2];
  });
  changeIndex(index);
  changeFiles(shards);
  const result = new Map(files);
  result.delete("model.safetensors");
  result.set("model.safetensors.index.json", json({ metadata: { total_size: 1 }, weight_map: index }));
  result.set(first, writeSafetensors(shards[0]));
  return result.set(second, writeSafetensors(shards[1]));
}

/** A safetensors file up to its data, which lie in this order; for what `writeSafetensors` does not write. */
function headerOf(
  entries: readonly (readonly [name: string, dtype: string, shape: readonly number[], bytes: number])[],
) {
  const header: Record<string, object> = {};
  let end = 0;
  for (const [name, dtype, shape, bytes] of entries) {
    const begin = end;
    end += bytes;
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const result = new Uint8Array(8 + text.length);
  new DataView(result.buffer).setUint32(0, text.length, true);
  result.set(text, 8);
  return result;
}

const bytesOf = (data: Float32Array) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

const float = (shape: readonly number[], value: number, dtype: FloatDtype = "F32") =>
  floatTensor(shape, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value), dtype);

describe("weights in several files", () => {
  it.each([
    ["Llama", llama],
    ["GPT-2", gpt2],
  ] as const)("%s: the same as in one", (_, config) => {
    const whole = parseCheckpoint(filesOf(config));
    const parts = parseCheckpoint(sharded(filesOf(config)));
    expect(parts.config).toEqual(whole.config);
    expect(new Map([...parts.tensors].sort())).toEqual(new Map([...whole.tensors].sort()));
  });

  it("one whole file goes before an index", () => {
    const files = new Map([
      ...sharded(filesOf(llama)),
      ["model.safetensors", filesOf(llama).get("model.safetensors")!],
    ]);
    files.delete(first);
    expect(parseCheckpoint(files).tensors.size).toBe(parameterShapes(llama).size);
  });

  const norm = "model.norm.weight";
  const place = (index: Record<string, unknown>) => (index[norm] === first ? 0 : 1);
  const other = (index: Record<string, unknown>) => [second, first][place(index)]!;
  const cases: [what: string, message: RegExp | string, files: () => Files][] = [
    [
      "a tensor that is in both files",
      /m\/model-0000\d-of-00002\.safetensors: tensor "model\.norm\.weight" is here, which the index says is in model-0000/,
      () =>
        sharded(
          filesOf(llama),
          () => undefined,
          ([a, b]) => {
            const tensor = (a.get(norm) ?? b.get(norm))!;
            a.set(norm, tensor);
            b.set(norm, tensor);
          },
        ),
    ],
    [
      "a tensor the index puts into the wrong file",
      /tensor "model\.norm\.weight" is missing, which the index says is here\. Index and files do not belong together/,
      () =>
        sharded(filesOf(llama), (index) => {
          index[norm] = other(index);
        }),
    ],
    [
      "a tensor the index names and no file has",
      /m\/model-00001-of-00002\.safetensors: tensor "extra" is missing/,
      () =>
        sharded(filesOf(llama), (index) => {
          index["extra"] = first;
        }),
    ],
    [
      "a tensor the index does not name",
      /tensor "model\.norm\.weight" is here, which the index does not name/,
      () => sharded(filesOf(llama), (index) => delete index[norm]),
    ],
    [
      "a tensor missing from both",
      /^m\/model\.safetensors\.index\.json: the tensors are not those of the config: missing "model\.norm\.weight"/,
      () =>
        sharded(
          filesOf(llama),
          (index) => delete index[norm],
          (shards) => {
            for (const shard of shards) shard.delete(norm);
          },
        ),
    ],
    [
      "a file that is not there",
      "m/model-00002-of-00002.safetensors: it is missing from the checkpoint",
      () => {
        const files = sharded(filesOf(llama));
        files.delete(second);
        return files;
      },
    ],
  ];
  it.each(cases)("refuses %s", (_, message, files) => {
    expect(() => parseCheckpoint(files(), "m")).toThrow(FormatError);
    expect(() => parseCheckpoint(files(), "m")).toThrow(message);
  });

  const outside = [
    "../model.safetensors",
    "..\\model.safetensors",
    "/etc/model.safetensors",
    "C:model.safetensors",
    "C:\\model.safetensors",
    "sub/model.safetensors",
    "sub\\model.safetensors",
    "..",
    ".safetensors",
    "..safetensors",
    "model.safetensors\0",
    "mo\ndel.safetensors",
    "model.bin",
    "",
    `${"n".repeat(300)}.safetensors`,
    7,
    null,
    ["model.safetensors"],
  ];
  it.each(outside)("an index cannot name the file %j", (file) => {
    const files = sharded(filesOf(llama), (index) => {
      index["model.norm.weight"] = file;
    });
    expect(() => parseCheckpoint(files, "m")).toThrow(
      /^m\/model\.safetensors\.index\.json: "model\.norm\.weight" is in /,
    );
  });

  it("an index that is none", () => {
    const files = sharded(filesOf(llama));
    for (const value of [null, 3, [], {}, { weight_map: [] }, { weight_map: {} }, { weight_map: "x" }]) {
      const broken = new Map([...files, ["model.safetensors.index.json", json(value)]]);
      expect(() => parseCheckpoint(broken), JSON.stringify(value)).toThrow(FormatError);
    }
  });
});

describe("what checkpoints hold beside their weights", () => {
  const plain = parseCheckpoint(filesOf(gpt2)).tensors;
  const sorted = (tensors: ReadonlyMap<string, Weights>) => new Map([...tensors].sort());
  const unprefixed = (tensors: Stored) => {
    for (const [name, tensor] of [...tensors]) {
      tensors.delete(name);
      tensors.set(name.replace("transformer.", ""), tensor);
    }
  };

  it("GPT-2's names without their prefix, and its masks in any dtype", () => {
    const bare = withTensors(filesOf(gpt2), (tensors) => {
      unprefixed(tensors);
      tensors.set("h.0.attn.bias", { dtype: "U8", shape: [1, 1, 4, 4], data: new Uint8Array(16) });
      tensors.set("h.1.attn.bias", float([1, 1, 4, 4], 1));
      tensors.set("h.1.attn.masked_bias", float([], -1e4));
    });
    expect(sorted(parseCheckpoint(bare).tensors)).toEqual(sorted(plain));
    const prefixed = withTensors(filesOf(gpt2), (tensors) => {
      tensors.set("transformer.h.0.attn.bias", float([1, 1, 4, 4], Number.NaN)); // not even looked at
    });
    expect(sorted(parseCheckpoint(prefixed).tensors)).toEqual(sorted(plain));
  });

  it("masks of booleans, which are not read but can be stepped over", () => {
    const header = headerOf([
      ["h.0.attn.bias", "BOOL", [2, 2], 4],
      ...[...plain].map(([name, { shape, data }]) => [name, "F32", shape, data.byteLength] as const),
    ]);
    const parts = [header, Uint8Array.of(1, 0, 1, 1), ...[...plain.values()].map(({ data }) => bytesOf(data))];
    const bytes = new Uint8Array(Buffer.concat(parts));
    const files = new Map([...filesOf(gpt2), ["model.safetensors", bytes]]);
    expect(sorted(parseCheckpoint(files).tensors)).toEqual(sorted(plain));
  });

  it("Llama's rotary frequencies", () => {
    const files = withTensors(filesOf(llama), (tensors) =>
      tensors.set("model.layers.0.self_attn.rotary_emb.inv_freq", float([2], 1)),
    );
    expect(parseCheckpoint(files).tensors.size).toBe(parameterShapes(llama).size);
  });

  it.each([
    ["Llama", llama, "model.embed_tokens.weight"],
    ["Qwen2", { ...llama, projectionBiases: true }, "model.embed_tokens.weight"],
    ["GPT-2", gpt2, "transformer.wte.weight"],
  ] as const)("%s: a tied head that is stored again, if it is the same", (_, config, table) => {
    const again = withTensors(filesOf(config), (tensors) => tensors.set("lm_head.weight", tensors.get(table)!));
    expect(sorted(parseCheckpoint(again).tensors)).toEqual(sorted(parseCheckpoint(filesOf(config)).tensors));

    const differs = withTensors(filesOf(config), (tensors) => {
      const data = toFloat32(tensors.get(table)!).slice();
      data[100] = 7;
      tensors.set("lm_head.weight", floatTensor([260, 8], data));
    });
    expect(() => parseCheckpoint(differs, "m")).toThrow(
      /^m\/model\.safetensors: tensor "lm_head\.weight" holds 7 at index 100, the embedding table -?\d.* tie_word_embeddings/,
    );
    const misshapen = withTensors(filesOf(config), (tensors) => tensors.set("lm_head.weight", float([8, 260], 0)));
    expect(() => parseCheckpoint(misshapen)).toThrow(/"lm_head\.weight" has shape \[8, 260\], .* \[260, 8\]/);
  });

  it("a tied head in another dtype, where both hold the same numbers", () => {
    const files = withTensors(filesOf(llama, "BF16"), (tensors) => {
      const table = tensors.get("model.embed_tokens.weight")!;
      tensors.set("lm_head.weight", floatTensor(table.shape, toFloat32(table)));
    });
    expect(parseCheckpoint(files).tensors.has("lm_head.weight")).toBe(false);
  });

  it("nothing else: other names, names given twice, weights of integers", () => {
    const bad: [change: (tensors: Stored) => void, message: RegExp][] = [
      [(tensors) => tensors.set("h.0.attn.masked", float([1], 1)), /unexpected "transformer\.h\.0\.attn\.masked"/],
      [(tensors) => tensors.set("score.weight", float([2, 8], 1)), /unexpected "transformer\.score\.weight"/],
      [(tensors) => tensors.set("ln_f.bias", float([8], 1)), /tensor "transformer\.ln_f\.bias" is given twice/],
      [
        (tensors) => tensors.set("transformer.ln_f.bias", { dtype: "I32", shape: [8], data: new Int32Array(8) }),
        /tensor "transformer\.ln_f\.bias" holds I32, weights are F32, F16 or BF16/,
      ],
      [(tensors) => tensors.delete("transformer.wpe.weight"), /missing "transformer\.wpe\.weight"/],
    ];
    for (const [change, message] of bad) {
      expect(() => parseCheckpoint(withTensors(filesOf(gpt2), change))).toThrow(message);
    }
  });
});

describe("an open checkpoint", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tokenthrift-open-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** Write a folder of its own. */
  async function write(name: string, files: Files): Promise<string> {
    const path = await mkdtemp(join(folder, `${name}-`));
    for (const [file, bytes] of files) await writeFile(join(path, file), bytes);
    return path;
  }

  it.each(["F32", "F16", "BF16"] as const)("%s weights come as they are stored, in one file or two", async (dtype) => {
    const files = filesOf(gpt2, dtype);
    const { tensors } = readSafetensors(files.get("model.safetensors")!);
    for (const path of [await write("one", files), await write("two", sharded(files))]) {
      const opened = await openCheckpoint(path);
      expect(opened.config).toEqual(gpt2);
      expect(opened.tokenizer.vocabularySize).toBe(258);
      expect([...opened.tensors.keys()].sort()).toEqual([...tensors.keys()].sort());
      await Promise.all(
        [...opened.tensors].map(async ([name, stored]) => {
          const { data, shape } = tensors.get(name)!;
          expect([stored.dtype, stored.shape, stored.bytes]).toEqual([dtype, shape, data.byteLength]);
          expect(await stored.read()).toEqual(data);
        }),
      );
      await opened.close();
      expect(new Map([...(await readCheckpoint(path)).tensors].sort())).toEqual(
        new Map([...parseCheckpoint(files).tensors].sort()),
      );
    }
  });

  it("is not read until it is asked: what is not a number shows then, and only in its tensor", async () => {
    const name = "model.layers.1.mlp.up_proj.weight";
    for (const [dtype, value, shown] of [
      ["F32", Number.NaN, "NaN"],
      ["F16", Number.POSITIVE_INFINITY, "Infinity"],
      ["BF16", Number.NEGATIVE_INFINITY, "-Infinity"],
    ] as const) {
      const files = withTensors(filesOf(llama, dtype), (tensors) => {
        const { shape, data } = tensors.get(name)!;
        const bad = data.slice();
        bad[17] = floatTensor([1], Float32Array.of(value), dtype).data[0]!;
        tensors.set(name, { dtype, shape, data: bad } as SafeTensor);
      });
      const path = await write("bad", files);
      const opened = await openCheckpoint(path);
      await opened.tensors.get("model.norm.weight")!.read();
      await expect(opened.tensors.get(name)!.read()).rejects.toThrow(
        `${path}/model.safetensors: tensor "${name}" holds ${shown} at index 17`,
      );
      await opened.close();
      await expect(readCheckpoint(path)).rejects.toThrow(FormatError);
      expect(() => parseCheckpoint(files)).toThrow(`"${name}" holds ${shown} at index 17`);
    }
  });

  it("names what is missing, extra or misshapen from the headers alone", async () => {
    const open = async (change: (tensors: Stored) => void) =>
      openCheckpoint(await write("x", withTensors(filesOf(llama), change)));
    await expect(open((tensors) => tensors.delete("model.norm.weight"))).rejects.toThrow(
      /missing "model\.norm\.weight"/,
    );
    await expect(open((tensors) => tensors.set("model.extra", float([1], 0)))).rejects.toThrow(
      /unexpected "model\.extra"/,
    );
    await expect(open((tensors) => tensors.set("model.norm.weight", float([9], 0)))).rejects.toThrow(/shape \[9\]/);
  });

  it("compares a head stored again stretch by stretch, dtypes apart", async () => {
    const wide = { ...llama, vocabularySize: 150_000 }; // 1.2 million numbers: two stretches
    const files = filesOf(wide, "BF16");
    const head = (change: (data: Float32Array) => void) =>
      withTensors(files, (tensors) => {
        const table = tensors.get("model.embed_tokens.weight")!;
        const data = toFloat32(table);
        change(data);
        tensors.set("lm_head.weight", floatTensor(table.shape, data));
      });
    const good = await openCheckpoint(
      await write(
        "head",
        head(() => undefined),
      ),
    );
    expect(good.tensors.has("lm_head.weight")).toBe(false);
    await good.close();
    const bad = await write(
      "head",
      head((data) => {
        data[1_199_999] = 9;
      }),
    );
    await expect(openCheckpoint(bad)).rejects.toThrow(
      /"lm_head\.weight" holds 9 at index 1199999, the embedding table/,
    );
  });

  it("closes its files: twice without complaint, after it nothing can be read", async () => {
    const path = await write("closed", sharded(filesOf(llama)));
    const opened = await openCheckpoint(path);
    const norm = opened.tensors.get("model.norm.weight")!;
    const reading = norm.read();
    await opened.close();
    await opened.close();
    expect((await reading).length).toBe(8);
    await expect(norm.read()).rejects.toThrow(TokenthriftError);
    await expect(norm.read()).rejects.toThrow(/it is closed/);
  });

  it("a file cut short, before and after it was opened", async () => {
    const path = await write("cut", filesOf(llama));
    const file = join(path, "model.safetensors");
    const opened = await openCheckpoint(path);
    const { length } = filesOf(llama).get("model.safetensors")!;
    await truncate(file, length - 4);
    const last = [...opened.tensors.values()].map((stored) => stored.read());
    const outcomes = await Promise.allSettled(last);
    expect(outcomes.filter(({ status }) => status === "rejected")).toHaveLength(1);
    for (const outcome of outcomes) if (outcome.status === "rejected") expect(outcome.reason).toBeInstanceOf(FileError);
    await opened.close();
    await expect(openCheckpoint(path)).rejects.toThrow(/model\.safetensors: tensor ".*" ends at byte/);
    for (const size of [0, 7, 8, 20]) {
      await truncate(file, size);
      await expect(openCheckpoint(path)).rejects.toThrow(FormatError);
    }
    await rm(file);
    await expect(openCheckpoint(path)).rejects.toThrow(/model\.safetensors: cannot be read: no such file/);
  });

  it("leaves no file open when it fails", async () => {
    if (process.platform !== "linux") return; // where open files can be counted
    const openFiles = async () => (await readdir("/proc/self/fd")).length;
    const broken = sharded(filesOf(llama), (index) => {
      index["extra"] = second;
    });
    const path = await write("leak", broken);
    const before = await openFiles();
    for (let i = 0; i < 5; i++) await expect(openCheckpoint(path)).rejects.toThrow(FormatError);
    await rm(join(path, second));
    for (let i = 0; i < 5; i++) await expect(openCheckpoint(path)).rejects.toThrow(FileError);
    expect(await openFiles()).toBe(before);
  });

  it.runIf(process.env["TOKENTHRIFT_FULL"] !== undefined)("files beyond 2 GiB, by position", async () => {
    // A table of 2^24 rows of 72 BF16 zeros, 2.25 GiB of nothing on the disk, and the other weights behind it.
    const config = { ...llama, vocabularySize: 2 ** 24, width: 72, layers: 1 };
    const path = await write("large", filesOf(llama));
    const small = serializeCheckpoint({
      config: { ...config, vocabularySize: 258 },
      tensors: weightsOf({ ...config, vocabularySize: 258 }),
      tokenizer,
    });
    const parsed = JSON.parse(new TextDecoder().decode(small.get("config.json"))) as object;
    await writeFile(join(path, "config.json"), json({ ...parsed, vocab_size: config.vocabularySize }));
    const rest = [...parseCheckpoint(small).tensors].filter(([name]) => name !== "model.embed_tokens.weight");
    const tableBytes = 2 ** 24 * 72 * 2;
    const header = headerOf([
      ["model.embed_tokens.weight", "BF16", [2 ** 24, 72], tableBytes],
      ...rest.map(([name, { shape, data }]) => [name, "F32", shape, data.byteLength] as const),
    ]);
    const file = await open(join(path, "model.safetensors"), "w");
    await file.write(header);
    let position = header.length + tableBytes;
    for (const [, { data }] of rest) {
      await file.write(bytesOf(data), 0, data.byteLength, position);
      position += data.byteLength;
    }
    await file.close();
    const opened = await openCheckpoint(path);
    for (const [name, { data }] of rest) expect(await opened.tensors.get(name)!.read()).toEqual(data);
    const table = await opened.tensors.get("model.embed_tokens.weight")!.read();
    expect(table.length).toBe(2 ** 24 * 72);
    expect(table.at(-1)).toBe(0);
    await opened.close();
  });
});
