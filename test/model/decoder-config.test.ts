import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError } from "../../src/errors.ts";
import {
  checkDecoderConfig,
  type DecoderConfig,
  linearMultiplyAdds,
  parameterCount,
  parameterShapes,
  rotaryFrequencies,
} from "../../src/model/decoder-config.ts";

const config: DecoderConfig = {
  vocabularySize: 23,
  width: 12,
  layers: 3,
  heads: 6,
  keyValueHeads: 2,
  headWidth: 4,
  hiddenWidth: 20,
  contextLength: 24,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
  projectionBiases: true,
};
const gpt2: DecoderConfig = { ...config, architecture: "gpt2", heads: 3, keyValueHeads: 3, tiedEmbeddings: true };
const llama3 = {
  kind: "llama3",
  factor: 8,
  lowFrequencyFactor: 1,
  highFrequencyFactor: 4,
  originalContextLength: 8192,
} as const;

describe("a decoder's parameters", () => {
  it("Llama's, counted by hand", () => {
    // Two embeddings, per layer norms, q k v with biases, o, and the feed-forward part, then the last norm.
    const layer = 2 * 12 + (24 + 8 + 8) * 12 + 40 + 12 * 24 + 3 * 12 * 20;
    expect(parameterCount(config)).toBe(2 * 23 * 12 + 3 * layer + 12);
    expect(linearMultiplyAdds(config)).toBe((24 + 8 + 8) * 12 + 12 * 24 + 3 * 12 * 20);
  });

  it("GPT-2's, counted by hand and named as Hugging Face names them", () => {
    const layer = 2 * 24 + (12 * 36 + 36) + (12 * 12 + 12) + (12 * 20 + 20) + (20 * 12 + 12);
    expect(parameterCount(gpt2)).toBe((23 + 24) * 12 + 3 * layer + 24);
    expect(linearMultiplyAdds(gpt2)).toBe(12 * 36 + 12 * 12 + 2 * 12 * 20);
    expect([...parameterShapes({ ...gpt2, layers: 1 })]).toEqual([
      ["transformer.wte.weight", [23, 12]],
      ["transformer.wpe.weight", [24, 12]],
      ["transformer.h.0.ln_1.weight", [12]],
      ["transformer.h.0.ln_1.bias", [12]],
      ["transformer.h.0.attn.c_attn.weight", [12, 36]],
      ["transformer.h.0.attn.c_attn.bias", [36]],
      ["transformer.h.0.attn.c_proj.weight", [12, 12]],
      ["transformer.h.0.attn.c_proj.bias", [12]],
      ["transformer.h.0.ln_2.weight", [12]],
      ["transformer.h.0.ln_2.bias", [12]],
      ["transformer.h.0.mlp.c_fc.weight", [12, 20]],
      ["transformer.h.0.mlp.c_fc.bias", [20]],
      ["transformer.h.0.mlp.c_proj.weight", [20, 12]],
      ["transformer.h.0.mlp.c_proj.bias", [12]],
      ["transformer.ln_f.weight", [12]],
      ["transformer.ln_f.bias", [12]],
    ]);
  });
});

describe("rotary frequencies", () => {
  it("fall with the pair, and linear scaling divides them", () => {
    const small = { ...config, headWidth: 4, ropeTheta: 100 };
    expect([...rotaryFrequencies(small)]).toEqual([1, 0.1]);
    expect([...rotaryFrequencies({ ...small, ropeScaling: { kind: "linear", factor: 2 } })]).toEqual([0.5, 0.05]);
  });

  it("Llama 3.1's scaling keeps what turns often, divides what turns seldom, and passes smoothly between", () => {
    // Head width 6, theta 1000: frequencies 1, 0.1, 0.01. In 2 pi * 250 positions they make 250, 25 and 2.5 turns.
    const wide = { ...config, headWidth: 6, ropeTheta: 1000 };
    const original = Math.round(2 * Math.PI * 250); // 1571: turns to four digits
    const at = (low: number, high: number) => [
      ...rotaryFrequencies({
        ...wide,
        ropeScaling: { ...llama3, lowFrequencyFactor: low, highFrequencyFactor: high, originalContextLength: original },
      }),
    ];
    const close = (got: readonly number[], expected: readonly number[]) =>
      expected.forEach((value, i) => {
        expect(Math.abs(got[i]! / value - 1)).toBeLessThan(1e-3);
      });
    close(at(1, 2), [1, 0.1, 0.01]); // all turn more than twice
    close(at(3, 4), [1, 0.1, 0.01 / 8]);
    close(at(251, 252), [1 / 8, 0.1 / 8, 0.01 / 8]);
    close(at(2, 3), [1, 0.1, 0.01 * (0.5 + 0.5 / 8)]); // 2.5 turns are half way from 2 to 3
  });

  it("are never raised, never divided by more than the factor, and unscaled by a factor of 1", () => {
    const some = fc.record({
      factor: fc.double({ min: 1, max: 64, noNaN: true }),
      lowFrequencyFactor: fc.double({ min: 0.1, max: 4, noNaN: true }),
      above: fc.double({ min: 0.1, max: 8, noNaN: true }),
      originalContextLength: fc.integer({ min: 1, max: 1e5 }),
    });
    const wide = { ...config, headWidth: 16 };
    const plain = rotaryFrequencies(wide);
    fc.assert(
      fc.property(some, ({ above, ...rest }) => {
        const scaling = { kind: "llama3", ...rest, highFrequencyFactor: rest.lowFrequencyFactor + above } as const;
        const scaled = rotaryFrequencies({ ...wide, ropeScaling: scaling });
        scaled.forEach((frequency, i) => {
          expect(frequency).toBeLessThanOrEqual(plain[i]! * (1 + 1e-12));
          expect(frequency).toBeGreaterThanOrEqual((plain[i]! / scaling.factor) * (1 - 1e-12));
        });
        const unscaled = rotaryFrequencies({ ...wide, ropeScaling: { ...scaling, factor: 1 } });
        unscaled.forEach((frequency, i) => {
          expect(frequency / plain[i]!).toBeCloseTo(1, 12);
        });
      }),
    );
  });

  it("GPT-2 has none", () => {
    expect(() => rotaryFrequencies(gpt2)).toThrow(ArgumentError);
  });
});

describe("bad configs", () => {
  const bad: [base: DecoderConfig, changed: Record<string, unknown>, field: string][] = [
    [config, { keyValueHeads: 4 }, "keyValueHeads"],
    [config, { headWidth: 3 }, "headWidth"],
    [config, { layers: 0 }, "layers"],
    [config, { ropeTheta: Number.NaN }, "ropeTheta"],
    [config, { width: 1.5 }, "width"],
    [config, { architecture: "bert" }, "architecture"],
    [config, { ropeScaling: { kind: "yarn", factor: 2 } }, "ropeScaling.kind"],
    [config, { ropeScaling: { kind: "linear", factor: 0.5 } }, "ropeScaling.factor"],
    [config, { ropeScaling: { ...llama3, factor: Number.POSITIVE_INFINITY } }, "ropeScaling.factor"],
    [config, { ropeScaling: { ...llama3, lowFrequencyFactor: 0 } }, "ropeScaling.lowFrequencyFactor"],
    [config, { ropeScaling: { ...llama3, highFrequencyFactor: 1 } }, "ropeScaling.highFrequencyFactor"],
    [config, { ropeScaling: { ...llama3, originalContextLength: 0.5 } }, "ropeScaling.originalContextLength"],
    [gpt2, { heads: 6, keyValueHeads: 6 }, "headWidth"],
    [gpt2, { keyValueHeads: 1 }, "keyValueHeads"],
    [gpt2, { tiedEmbeddings: false }, "tiedEmbeddings"],
    [gpt2, { projectionBiases: false }, "projectionBiases"],
    [gpt2, { ropeScaling: llama3 }, "ropeScaling"],
  ];
  it.each(bad)("%# names the field", (base, changed, field) => {
    expect(() => checkDecoderConfig(base)).not.toThrow();
    const check = () => checkDecoderConfig({ ...base, ...changed });
    expect(check).toThrow(ArgumentError);
    expect(check).toThrow(`config.${field}: `);
  });

  it("heads that are not rotated may be oddly wide", () => {
    checkDecoderConfig({ ...gpt2, width: 9, headWidth: 3 });
  });
});
