import { describe, expect, it } from "vitest";
import { fuzzReaders } from "../scripts/fuzz-readers.ts";
import { TokenthriftError } from "../src/errors.ts";
import { Bpe } from "../src/tokenization/bpe.ts";
import { SentencePieceBpe } from "../src/tokenization/sentencepiece-bpe.ts";

describe("damaged files", () => {
  it("only typed errors, no memory beyond a small multiple, and what is accepted works", async () => {
    // A hang shows as this test's timeout. The full run: npx tsx scripts/fuzz-readers.ts
    const mutations = process.env["TOKENTHRIFT_FULL"] === undefined ? 2000 : 100_000;
    const { readers, findings } = await fuzzReaders({ mutations });
    expect(findings).toEqual([]);
    expect(readers.reduce((sum, { inputs }) => sum + inputs, 0)).toBe(mutations);
    for (const { reader, accepted, refused } of readers) {
      // Both ways are taken, so the damage is neither harmless nor hopeless.
      expect(accepted, reader).toBeGreaterThan(0);
      expect(
        Object.values(refused).reduce((sum, count) => sum + count, 0),
        reader,
      ).toBeGreaterThan(0);
    }
  }, 600_000);

  it("the damage is a function of the seed", async () => {
    const outcomes = async (seed: number) =>
      (await fuzzReaders({ mutations: 180, seed })).readers.map(({ accepted, refused }) => [accepted, refused]);
    const first = await outcomes(7);
    expect(await outcomes(7)).toEqual(first);
    expect(await outcomes(8)).not.toEqual(first);
  }, 60_000);
});

describe("attacks made by hand", () => {
  const good = Bpe.train(["the cat sat on the mat"], { vocabSize: 260 }).toHuggingFace();
  const weird = '{"toString":1,"valueOf":1}'; // JSON that String() throws on
  const deep = "[".repeat(50_000) + "]".repeat(50_000);
  const json = JSON.stringify(good);
  const attacks: Record<string, string> = {
    "a type that is no text": json.replace('"decoder":{"type":"ByteLevel"', `"decoder":{"type":${weird}`),
    "a type nested without end": json.replace('"decoder":{"type":"ByteLevel"', `"decoder":{"type":${deep}`),
    "post-processors nested without end": json.replace(
      /"post_processor":\{[^}]*\}/,
      `"post_processor":${'{"type":"Sequence","processors":['.repeat(50_000)}${"]}".repeat(50_000)}`,
    ),
    "an id that is no number": json.replace(/"vocab":\{"([^"]+)":\d+/, `"vocab":{"$1":${weird}`),
    "an added token's id that is no number": json.replace(
      '"added_tokens":[]',
      `"added_tokens":[{"id":${weird},"content":"<x>","special":true}]`,
    ),
    "an added token's content that is no text": json.replace(
      '"added_tokens":[]',
      `"added_tokens":[{"id":260,"content":${weird}}]`,
    ),
    "a pattern that is no text": json.replace(/"pre_tokenizer":\{[^}]*\}/, `"pre_tokenizer":{"type":${weird}}`),
  };
  for (const [name, text] of Object.entries(attacks)) {
    it(`tokenizer.json: ${name}`, () => {
      expect(text).not.toBe(json);
      expect(() => Bpe.fromHuggingFace(text)).toThrow(TokenthriftError);
    });
  }

  // Cutting one long token everywhere and looking both parts up costs the square of its length.
  it("tiktoken: one endless token", () => {
    const lines = Array.from({ length: 256 }, (_, byte) => `${Buffer.of(byte).toString("base64")} ${byte}\n`);
    lines.push(`${Buffer.alloc(100_000, "a").toString("base64")} 256\n`);
    expect(() => Bpe.fromTiktoken(lines.join(""), { pattern: "gpt2" })).toThrow(TokenthriftError);
  });

  it("llama2.c tokenizer: one endless piece", () => {
    const pieces = ["<unk>", "<s>", "</s>"];
    for (let byte = 0; byte < 256; byte++) pieces.push(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    pieces.push("a", "a".repeat(100_000));
    const parts: Uint8Array[] = [new Uint8Array(Int32Array.of(100_000).buffer)];
    for (const piece of pieces) {
      parts.push(new Uint8Array(Float32Array.of(0).buffer), new Uint8Array(Int32Array.of(piece.length).buffer));
      parts.push(new TextEncoder().encode(piece));
    }
    const bytes = new Uint8Array(Buffer.concat(parts));
    expect(() => SentencePieceBpe.fromLlama2c(bytes, pieces.length)).toThrow(TokenthriftError);
  });
});
