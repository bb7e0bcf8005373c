import { describe, expect, it } from "vitest";
import { nodeDeclarations } from "../../src/corpus.ts";
import { ArgumentError } from "../../src/errors.ts";
import { loadEmbedded } from "../../src/model/load.ts";
import { exactBytes, generateBytes, naivePrompt } from "../../src/retokenization/index.ts";
import { measureTokenizationBias } from "../../src/retokenization/tokenization-bias.ts";
import { type Chain, encodedChain, LongestMatch } from "./law-model.ts";

const chain: Chain = (last) => (last === "A" ? { A: 0.3, B: 0.7 } : { A: 0.6, B: 0.4 });
const munch = new LongestMatch(["A", "B", "AA"]);
const model = encodedChain(chain, munch, [0, 1, 2], 1);

describe("by hand", () => {
  // B|AA|B|A: the token AA is cut behind B and behind BA.
  const bias = measureTokenizationBias(model, munch, ["BAABA"], { begin: [3] });
  const [naive, healing, exact] = bias.continuations;

  it("counts prompts, bytes and calls", () => {
    expect(bias.tokens).toBe(1);
    expect(bias.bytesPerToken).toBe(5 / 4);
    for (const { prompts, bytes, byOffset, callsPerByte, cost } of bias.continuations.slice(1)) {
      expect({ prompts, bytes, callsPerByte }).toEqual({ prompts: 2, bytes: 3, callsPerByte: 1 });
      expect(byOffset.slice(0, 3).map((offset) => offset.bytes)).toEqual([2, 1, 0]);
      expect(cost.bytes).toBe(1);
    }
  });

  it("gives the exact law the chain's bits, before the cut token and inside it", () => {
    expect(exact!.bitsPerByte).toBeCloseTo(-(Math.log2(0.6) + 2 * Math.log2(0.3)) / 3, 12);
    expect(exact!.inside.bitsPerByte).toBeCloseTo(-Math.log2(0.3), 12);
    expect(exact!.inside.firstByte).toBeCloseTo(0.3, 12);
    expect(exact!.byOffset[0]!.firstByte).toBeCloseTo(0.6, 12);
    // A is likelier behind B, but behind A it is not.
    expect(exact!.greedyAccuracy).toBe(0);
  });

  it("gives naive continuation none of the second A, and token healing what is right here", () => {
    expect(naive!.inside.bitsPerByte).toBe(Number.POSITIVE_INFINITY);
    expect(naive!.inside.firstByte).toBe(0);
    expect(healing!.inside.bitsPerByte).toBeCloseTo(-Math.log2(0.3), 12);
  });

  it("refuses what cannot be cut", () => {
    expect(() => measureTokenizationBias(model, munch, ["BAB"], { begin: [3] })).toThrow(ArgumentError);
    expect(() => measureTokenizationBias(model, munch, ["BAABA"], { begin: [3], cuts: 0 })).toThrow(ArgumentError);
    expect(() => measureTokenizationBias(model, munch, ["BAABA"], { begin: [3], contextTokens: 0.5 })).toThrow(
      /context/,
    );
  });
});

describe("on the embedded target", async () => {
  const { model: target, tokenizer } = await loadEmbedded("target");
  const texts = nodeDeclarations().heldOut.map(({ text }) => text);

  it("is mended by the exact law, and by token healing only in part, at one model call a byte", () => {
    const bias = measureTokenizationBias(target, tokenizer, texts, { cuts: 30 });
    const [naive, healing, exact] = bias.continuations;
    expect(exact!.inside.bitsPerByte).toBeLessThan(0.6 * healing!.inside.bitsPerByte);
    expect(healing!.inside.bitsPerByte).toBeLessThan(0.5 * naive!.inside.bitsPerByte);
    expect(exact!.inside.greedyAccuracy).toBeGreaterThan(healing!.inside.greedyAccuracy);
    expect(healing!.inside.greedyAccuracy).toBeGreaterThan(naive!.inside.greedyAccuracy);
    expect(exact!.callsPerByte).toBeLessThanOrEqual(1);
    // Between two tokens of the text's own encoding the naive prompt says that it ends there, which is true.
    expect(naive!.byOffset[0]!.bitsPerByte).toBeLessThan(exact!.byOffset[0]!.bitsPerByte);
  });

  it("completes a prompt cut inside a word", () => {
    const prompt = new TextEncoder().encode("    /**\n     * Returns the current val");
    const rest = (options?: { prompt: typeof naivePrompt }): string =>
      new TextDecoder().decode(generateBytes(exactBytes(target, tokenizer, options), prompt, { maxBytes: 3 }).bytes);
    expect(rest()).toBe("ue ");
    expect(rest({ prompt: naivePrompt })).not.toBe("ue ");
  });

  it("continues a prompt cut inside a character", () => {
    const euro = new TextEncoder().encode("     * costs €");
    const session = exactBytes(target, tokenizer).openSession();
    session.start(euro.subarray(0, -1));
    const law = session.next();
    // Only what completes a character may follow.
    expect(law.reduce((sum, p, byte) => (byte >= 0x80 && byte < 0xc0 ? sum + p : sum), 0)).toBeCloseTo(1, 12);
    session.push(euro.at(-1)!);
    expect(session.next().reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
    session.close();
  });
});
