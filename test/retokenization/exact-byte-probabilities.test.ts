import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError, ContextOverflowError } from "../../src/errors.ts";
import { TableModel } from "../../src/model/table-model.ts";
import {
  type ByteModel,
  byteEnsemble,
  byteLogProbability,
  END_OF_TEXT,
  generateBytes,
} from "../../src/retokenization/byte-model.ts";
import { type EncodingRules, encodingRules } from "../../src/retokenization/encoding-rules.ts";
import { ByteSampler, coverEncodings, exactBytes } from "../../src/retokenization/exact-byte-probabilities.ts";
import { allEncodings, naivePrompt, type PromptRule, tokenHealing } from "../../src/retokenization/prompt-rules.ts";
import { chiSquareFit } from "../../src/speculative/chi-square.ts";
import { Random } from "../../src/tensor/random.ts";
import { Bpe } from "../../src/tokenization/bpe.ts";
import { BpeDropout } from "../../src/tokenization/bpe-dropout.ts";
import { Unigram } from "../../src/tokenization/unigram.ts";
import { WordPiece } from "../../src/tokenization/word-piece.ts";
import {
  type Chain,
  chainProbability,
  encodedChain,
  LawModel,
  LongestMatch,
  memorizedTexts,
  texts,
} from "./law-model.ts";

/** `TOKENTHRIFT_FULL=1 npx vitest run ...`: longer texts and more draws. */
const full = process.env["TOKENTHRIFT_FULL"] !== undefined;
const utf8 = new TextEncoder();
const bytesOf = (text: string): Uint8Array => utf8.encode(text);

/** Two symbols; A after A three times in ten. Tokens A, B, AA, the longest first. */
const chain: Chain = (last) => (last === "A" ? { A: 0.3, B: 0.7 } : { A: 0.6, B: 0.4 });
const [A, B, AA] = [0, 1, 2];
const munch = new LongestMatch(["A", "B", "AA"]);
const munchModel = encodedChain(chain, munch, [A, B, AA], 1);
const munchOptions = { begin: [3] };

/** Three symbols without memory; merges bc, ab. */
const iid: Chain = () => ({ a: 0.5, b: 0.3, c: 0.2 });
const [a, b, c, bc, ab] = [97, 98, 99, 256, 257];
const twoMerges = bpeOf([
  [98, 99],
  [97, 98],
]);
const mergeModel = encodedChain(iid, twoMerges, [a, b, c, bc, ab], 2);
const mergeOptions = { begin: [258] };

/** A byte-level BPE of these merges, in order; ids from 256 on. */
function bpeOf(merges: readonly (readonly [number, number])[], pattern: "none" | "gpt2" = "none"): Bpe {
  const tokens: Uint8Array[] = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  for (const [left, right] of merges) tokens.push(Uint8Array.of(...tokens[left]!, ...tokens[right]!));
  return new Bpe({
    source: "test",
    tokens,
    merges: merges.map(([left, right]) => [left, right]),
    wholePieces: false,
    pattern,
    normalizer: "none",
    specialTokens: new Map(),
    addedTokens: new Map(),
    normalizedTokens: new Set(),
  });
}

function lawBehind(model: ByteModel, prompt: string | Uint8Array): Float64Array {
  const session = model.openSession();
  session.start(typeof prompt === "string" ? bytesOf(prompt) : prompt);
  const law = session.next().slice();
  session.close();
  return law;
}

const on = (law: Float64Array, characters: string): number[] => [...characters].map((one) => law[one.charCodeAt(0)]!);

function expectClose(got: readonly number[], wanted: readonly number[], tolerance = 1e-12): void {
  expect(got.length).toBe(wanted.length);
  for (const [i, value] of got.entries()) expect(Math.abs(value - wanted[i]!)).toBeLessThan(tolerance);
}

function coversOf(
  model: LawModel,
  tokenizer: LongestMatch | Bpe,
  text: string,
  options: { begin: number[] },
): Record<string, number> {
  const covers = coverEncodings(model, tokenizer, bytesOf(text), options);
  return Object.fromEntries(covers.map(({ tokens, logProbability }) => [tokens.join(), Math.exp(logProbability)]));
}

function expectCovers(got: Record<string, number>, wanted: Record<string, number>): void {
  expect(Object.keys(got).sort()).toEqual(Object.keys(wanted).sort());
  for (const [tokens, p] of Object.entries(wanted)) expect(Math.abs(got[tokens]! - p)).toBeLessThan(1e-12);
}

/** Rules that admit every token that is text: the validity test left out. */
function withoutValidity(tokenizer: LongestMatch | Bpe): EncodingRules {
  const rules = encodingRules(tokenizer);
  return {
    vocabularySize: rules.vocabularySize,
    tokens: rules.tokens,
    special: rules.special,
    start: rules.start,
    tested: 0,
    admits: (_, id) => rules.tokens[id] !== undefined,
    advance: (state) => state,
    mayEnd: () => true,
    encode: (text) => rules.encode(text),
  };
}

/** One cover only, as token healing has it, made a rule of. */
const oneCover: PromptRule = (vocabulary, root, bytes) => allEncodings(vocabulary, root, bytes).slice(0, 1);

describe("worked by hand", () => {
  it("a chain of two symbols: the token model", () => {
    expectClose([...munchModel.logits([3])].map(Math.exp), [21 / 50, 2 / 5, 9 / 50, 0]);
  });

  it("a chain of two symbols: covers and laws", () => {
    expectCovers(coversOf(munchModel, munch, "A", munchOptions), { "0": 0.42, "2": 0.18 });
    expectCovers(coversOf(munchModel, munch, "AA", munchOptions), { "2": 9 / 50 });
    expectCovers(coversOf(munchModel, munch, "AAA", munchOptions), { "2,0": 189 / 5000, "2,2": 81 / 5000 });
    expectCovers(coversOf(munchModel, munch, "BA", munchOptions), { "1,0": 21 / 125, "1,2": 9 / 125 });
    expectCovers(coversOf(munchModel, munch, "BAAA", munchOptions), { "1,2,0": 189 / 12500, "1,2,2": 81 / 12500 });
    const exact = exactBytes(munchModel, munch, munchOptions);
    for (const prompt of ["A", "AA", "AAA", "BA", "BAAA"]) expectClose(on(lawBehind(exact, prompt), "AB"), [0.3, 0.7]);
    expectClose(on(lawBehind(exact, ""), "AB"), [0.6, 0.4]);
  });

  it("a chain of two symbols: what naive continuation says", () => {
    const naive = exactBytes(munchModel, munch, { ...munchOptions, prompt: naivePrompt });
    // The model has learnt that A behind a single A would have been AA.
    expectClose(on(lawBehind(naive, "A"), "AB"), [0, 1]);
    const healing = exactBytes(munchModel, munch, { ...munchOptions, prompt: tokenHealing });
    expectClose(on(lawBehind(healing, "A"), "AB"), [0.3, 0.7]);
  });

  it("two merges: covers and laws, where token healing fails", () => {
    expectCovers(coversOf(mergeModel, twoMerges, "ab", mergeOptions), { [ab]: 3 / 25, [`${a},${bc}`]: 3 / 100 });
    expectCovers(coversOf(mergeModel, twoMerges, "a", mergeOptions), { [a]: 19 / 50, [ab]: 3 / 25 });
    expectCovers(coversOf(mergeModel, twoMerges, "abb", mergeOptions), {
      [`${ab},${b}`]: 9 / 250,
      [`${ab},${bc}`]: 9 / 1000,
    });
    expectCovers(coversOf(mergeModel, twoMerges, "abc", mergeOptions), { [`${a},${bc}`]: 3 / 100 });
    const laws = [allEncodings, naivePrompt, tokenHealing].map((prompt) =>
      on(lawBehind(exactBytes(mergeModel, twoMerges, { ...mergeOptions, prompt }), "ab"), "abc"),
    );
    expectClose(laws[0]!, [0.5, 0.3, 0.2]);
    expectClose(laws[1]!, [5 / 8, 3 / 8, 0]);
    expectClose(laws[2]!, [5 / 8, 3 / 8, 0]);
  });
});

const cases = [
  { name: "longest match", chain, model: munchModel, tokenizer: munch, options: munchOptions },
  { name: "two merges", chain: iid, model: mergeModel, tokenizer: twoMerges, options: mergeOptions },
] as const;

describe.each(cases)("exactly the chain: $name", ({ chain, model, tokenizer, options }) => {
  /** Largest error over all texts up to a length. */
  function largestError(bytes: ByteModel, length: number): number {
    let largest = 0;
    const session = bytes.openSession();
    for (const text of texts(chain, length)) {
      session.start(new Uint8Array(0));
      for (let i = 0; i < length; i++) {
        const truth = chain(text[i - 1]);
        for (const one of Object.keys(truth)) {
          largest = Math.max(largest, Math.abs(session.next()[one.charCodeAt(0)]! - truth[one]!));
        }
        if (!(session.next()[text.charCodeAt(i)]! > 0)) return 1;
        session.push(text.charCodeAt(i));
      }
      const error = Math.abs(Math.exp(session.logProbability) - chainProbability(chain, text));
      largest = Math.max(largest, error);
    }
    session.close();
    return largest;
  }
  const length = chain === iid && !full ? 5 : 8;

  it("gives every text its probability", () => {
    expect(largestError(exactBytes(model, tokenizer, options), length)).toBeLessThan(1e-12);
  });

  it("begins anew behind every prompt, with the same law", () => {
    for (const text of texts(chain, 5)) {
      const law = lawBehind(exactBytes(model, tokenizer, options), text);
      const truth = chain(text.at(-1));
      expectClose(on(law, Object.keys(truth).join("")), Object.values(truth));
    }
  });

  it("and a sampler of one cover is not", () => {
    const session = new ByteSampler(model, tokenizer, { ...options, prompt: oneCover });
    let largest = 0;
    for (const text of texts(chain, 4)) {
      session.start(bytesOf(text));
      const law = session.next();
      const truth = chain(text.at(-1));
      for (const [one, p] of Object.entries(truth)) largest = Math.max(largest, Math.abs(law[one.charCodeAt(0)]! - p));
    }
    expect(largest).toBeGreaterThan(0.1);
  });

  it("carries what batch extraction finds", () => {
    for (const text of texts(chain, 5)) {
      const session = new ByteSampler(model, tokenizer, options);
      for (let i = 0; i < text.length; i++) {
        session.next();
        session.push(text.charCodeAt(i));
        const batch = coverEncodings(model, tokenizer, bytesOf(text.slice(0, i + 1)), options);
        const carried = new Map(session.covers.map((cover) => [cover.tokens.join(), cover]));
        expect([...carried.keys()].sort()).toEqual(batch.map(({ tokens }) => tokens.join()).sort());
        const sum = batch.reduce((total, cover) => total + Math.exp(cover.logProbability), 0);
        expectClose([Math.exp(session.logCoverMass)], [sum]);
        for (const { tokens, residual, logProbability } of batch) {
          const own = carried.get(tokens.join())!;
          expect(own.residual).toEqual(residual);
          expectClose([Math.exp(own.logProbability)], [Math.exp(logProbability) / sum]);
        }
      }
    }
  });

  it("asks the model once a byte, and one cover ends with the text: its encoding", () => {
    const session = new ByteSampler(model, tokenizer, options);
    const random = new Random(1);
    const written: number[] = [];
    session.next();
    for (let i = 0; i < 40; i++) {
      const before = session.cost;
      const byte = random.categorical(session.next());
      session.push(byte);
      written.push(byte);
      session.next();
      expect(session.cost.passes - before.passes).toBe(1);
      const whole = session.covers.filter(({ residual }) => residual.length === 0);
      const text = new TextDecoder().decode(Uint8Array.from(written));
      expect(whole.map(({ tokens }) => tokens)).toEqual([Array.from(tokenizer.encode(text))]);
      expectClose([session.keptMass], [1]);
    }
    expect(session.cost.bytes).toBe(40);
  });

  it("draws texts by the chain's law", () => {
    const bytes = exactBytes(model, tokenizer, options);
    const all = texts(chain, full ? 6 : 4);
    const draws = full ? 100_000 : 4000;
    const counts = new Map(all.map((text) => [text, 0]));
    const session = bytes.openSession();
    const random = new Random(5);
    for (let i = 0; i < draws; i++) {
      session.start(new Uint8Array(0));
      let text = "";
      while (text.length < all[0]!.length) {
        const byte = random.categorical(session.next());
        session.push(byte);
        text += String.fromCharCode(byte);
      }
      counts.set(text, counts.get(text)! + 1);
    }
    const expected = all.map((text) => draws * chainProbability(chain, text));
    expect(chiSquareFit([...counts.values()], expected).pValue).toBeGreaterThan(1e-4);
  }, 120_000);

  it("is what an ensemble of it with itself is", () => {
    const bytes = exactBytes(model, tokenizer, options);
    const both = byteEnsemble([bytes, bytes], { weights: [1, 3] });
    for (const text of texts(chain, 3)) expectClose([...lawBehind(both, text)], [...lawBehind(bytes, text)]);
  });
});

it("averages models of one chain with different vocabularies to the chain", () => {
  const single = new LongestMatch(["A", "B"]);
  const other = new LongestMatch(["A", "B", "AB", "BAB"]);
  const members = [
    exactBytes(munchModel, munch, munchOptions),
    exactBytes(encodedChain(chain, single, [0, 1], 0), single, { begin: [2] }),
    exactBytes(encodedChain(chain, other, [0, 1, 2, 3], 2), other, { begin: [4] }),
  ];
  const ensemble = byteEnsemble(members);
  for (const text of texts(chain, 4)) {
    expectClose(on(lawBehind(ensemble, text), "AB"), Object.values(chain(text.at(-1))));
    expectClose([Math.exp(byteLogProbability(ensemble, bytesOf(text)))], [chainProbability(chain, text)]);
  }
});

it("is the plain token sampler where no token has two bytes", () => {
  const bytes = bpeOf([]);
  const model = TableModel.random({ vocabularySize: 257, order: 1, seed: 3 });
  const session = new ByteSampler(model, bytes, { begin: [256] });
  let last = 256;
  for (const byte of bytesOf("plain bytes")) {
    const law = session.next();
    const tokens = model.law([last]);
    // Bytes no text may go on with (half a character) and the token that begins texts are left out of both.
    const kept = Array.from(law.subarray(0, 256), (p, i) => (p > 0 ? tokens[i]! : 0));
    const sum = kept.reduce((total, p) => total + p, 0);
    expectClose(
      [...law.subarray(0, 256)],
      kept.map((p) => p / sum),
    );
    expect(session.covers.length).toBe(1);
    session.push(byte);
    last = byte;
  }
});

describe("random vocabularies", () => {
  const alphabet = "abc";
  /** Merges of what there is, drawn at random: pairs of earlier tokens, each pair and each spelling once. */
  function randomBpe(random: Random, count: number): { tokenizer: Bpe; ids: number[] } {
    const ids = [...alphabet].map((one) => one.charCodeAt(0));
    const spelled = new Map(ids.map((id) => [id, String.fromCharCode(id)]));
    const merges: [number, number][] = [];
    for (let tries = 0; merges.length < count && tries < 200; tries++) {
      const [left, right] = [ids[random.integer(ids.length)]!, ids[random.integer(ids.length)]!];
      const text = spelled.get(left)! + spelled.get(right)!;
      if (text.length > 4 || [...spelled.values()].includes(text)) continue;
      const id = 256 + merges.length;
      merges.push([left, right]);
      ids.push(id);
      spelled.set(id, text);
    }
    return { tokenizer: bpeOf(merges), ids };
  }

  /** Every sequence of these tokens that covers a text and is an encoding: by trying all. */
  function bruteForce(tokenizer: Bpe, ids: readonly number[], text: string): number[][] {
    const found: number[][] = [];
    const grow = (tokens: readonly number[], spelled: string): void => {
      for (const id of ids) {
        const longer = spelled + tokenizer.decode([id]);
        const shared = Math.min(longer.length, text.length);
        if (longer.slice(0, shared) !== text.slice(0, shared)) continue;
        if (longer.length < text.length) grow([...tokens, id], longer);
        else if (tokenizer.encode(longer).join() === [...tokens, id].join()) found.push([...tokens, id]);
      }
    };
    grow([], "");
    return found;
  }

  function mismatches(rulesOf: (tokenizer: Bpe) => EncodingRules): number {
    let wrong = 0;
    for (let seed = 0; seed < 40; seed++) {
      const random = new Random(seed);
      const { tokenizer, ids } = randomBpe(random, 8);
      const model = new LawModel(tokenizer.vocabularySize + 1, () =>
        new Float64Array(tokenizer.vocabularySize + 1).fill(1),
      );
      for (let i = 0; i < 5; i++) {
        const text = Array.from({ length: 1 + random.integer(6) }, () => alphabet[random.integer(3)]).join("");
        const covers = coverEncodings(model, rulesOf(tokenizer), bytesOf(text), { begin: [tokenizer.vocabularySize] });
        const own = covers.map(({ tokens }) => tokens.join()).sort();
        const truth = bruteForce(tokenizer, ids, text)
          .map((tokens) => tokens.join())
          .sort();
        if (own.join(" ") !== truth.join(" ")) wrong++;
      }
    }
    return wrong;
  }

  it("have the covers that trying every sequence finds", () => {
    expect(mismatches(encodingRules)).toBe(0);
  });

  it("and have others where validity is not tested", () => {
    expect(mismatches(withoutValidity)).toBeGreaterThan(50);
  });

  it("with laws that leak: the marginal over encodings, by enumeration", () => {
    // A random table gives every sequence some probability; truth is the sum over valid ones.
    const { tokenizer, ids } = randomBpe(new Random(11), 6);
    const begin = tokenizer.vocabularySize;
    const model = TableModel.random({ vocabularySize: begin + 1, order: 1, seed: 4, sharpness: 2 });
    const probability = (text: string): number =>
      bruteForce(tokenizer, ids, text).reduce(
        (sum, tokens) => sum + tokens.reduce((p, id, i) => p * model.law([tokens[i - 1] ?? begin])[id]!, 1),
        0,
      );
    const session = new ByteSampler(model, tokenizer, { begin: [begin] });
    const broken = new ByteSampler(model, withoutValidity(tokenizer), { begin: [begin] });
    let twinError = 0;
    for (const text of texts(iid, 4)) {
      session.start(new Uint8Array(0));
      broken.start(new Uint8Array(0));
      for (let i = 0; i < text.length; i++) {
        session.push(text.charCodeAt(i));
        broken.push(text.charCodeAt(i));
        const truth = probability(text.slice(0, i + 1));
        expect(Math.abs(Math.exp(session.logCoverMass) - truth)).toBeLessThan(1e-10 * Math.max(1, truth));
        twinError = Math.max(twinError, Math.abs(Math.exp(broken.logCoverMass) / truth - 1));
      }
    }
    expect(twinError).toBeGreaterThan(0.05);
  });
});

describe("split patterns that look ahead", () => {
  const samples = [
    "a  b\n\n  c",
    "a   b",
    "it's 'll 'llama 're 'r x",
    "don't DON'T don'x'",
    "x = 12345;\n\t\ty  ",
    "\n \n",
    "\n  a \n \n b",
    "ABCdef abcDEF aBc",
    "été À la",
    "日本語 テスト",
    "😀😃 ok 🇩🇪",
    "a\u0301b \u00a0\u3000c",
    "((a)) {\n}\n/\n",
    "  '",
    " 's",
    "'s",
  ];
  const pieces = [
    "a",
    "b",
    "l",
    "s",
    "'",
    "'l",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "1",
    "12",
    "A",
    "é",
    "日",
    "😀",
    "\u0301",
    "/",
    "!",
    "ſ",
    "\u3000",
  ];
  const text = fc
    .array(fc.oneof(fc.constantFrom(...samples), fc.constantFrom(...pieces), fc.constantFrom(...pieces)), {
      minLength: 1,
      maxLength: 8,
    })
    .map((parts) => parts.join(""));
  const training = [...samples, ...samples.map((sample) => `${sample} ${sample}\n`)];
  const special = ["<|end|>"];
  const tokenizers = {
    gpt2: Bpe.train(training, { vocabSize: 330, pattern: "gpt2", specialTokens: special }),
    cl100k: Bpe.train(training, { vocabSize: 330, pattern: "cl100k", specialTokens: special }),
    o200k: Bpe.train(training, { vocabSize: 330, pattern: "o200k", specialTokens: special }),
    none: Bpe.train(training, { vocabSize: 400, pattern: "none", specialTokens: special }),
  };

  it.each(Object.entries(tokenizers))("%s: everything an encoding begins with is admitted", (_, tokenizer) => {
    const rules = encodingRules(tokenizer);
    fc.assert(
      fc.property(text, (sample) => {
        let state = rules.start;
        for (const id of tokenizer.encode(sample)) {
          expect(rules.admits(state, id)).toBe(true);
          state = rules.advance(state, id);
        }
        expect(rules.mayEnd(state)).toBe(true);
      }),
      { numRuns: full ? 2000 : 150, seed: 1 },
    );
  });

  it.each(Object.entries(tokenizers))("%s: a text may end only behind its encoding", (_, tokenizer) => {
    const rules = encodingRules(tokenizer);
    fc.assert(
      fc.property(text, fc.integer({ min: 0, max: 1 << 30 }), (sample, seed) => {
        // Another segmentation: tokens drawn at random from those that fit, as far as they are admitted.
        const bytes = bytesOf(sample);
        const random = new Random(seed);
        const ids: number[] = [];
        let state = rules.start;
        for (let at = 0; at < bytes.length; ) {
          const fitting = rules.tokens.flatMap((token, id) =>
            token?.every((byte, i) => bytes[at + i] === byte) && rules.admits(state, id) ? [id] : [],
          );
          if (fitting.length === 0) return;
          const id = fitting[random.integer(fitting.length)]!;
          ids.push(id);
          state = rules.advance(state, id);
          at += rules.tokens[id]!.length;
        }
        expect(rules.mayEnd(state)).toBe(ids.join() === tokenizer.encode(sample).join());
      }),
      { numRuns: full ? 2000 : 100, seed: 2 },
    );
  });

  function expectMemorized(tokenizer: Bpe | Unigram, corpus: readonly string[], seed: number): void {
    const random = new Random(seed);
    const weighted = corpus.map((sample) => ({ text: sample, bytes: bytesOf(sample), weight: 0.5 + random.uniform() }));
    const end = [...tokenizer.specialTokens.values()][0]!;
    const model = memorizedTexts(weighted, tokenizer, tokenizer.vocabularySize, end);
    const session = exactBytes(model, tokenizer).openSession();
    for (const { bytes } of weighted.slice(0, 2)) {
      session.start(new Uint8Array(0));
      for (let i = 0; i <= bytes.length; i++) {
        const law = new Float64Array(257);
        let sum = 0;
        for (const other of weighted) {
          if (other.bytes.length < i || !bytes.subarray(0, i).every((byte, j) => other.bytes[j] === byte)) continue;
          law[other.bytes[i] ?? END_OF_TEXT]! += other.weight;
          sum += other.weight;
        }
        expectClose(
          [...session.next()],
          [...law].map((p) => p / sum),
          1e-10,
        );
        session.push(bytes[i] ?? END_OF_TEXT);
      }
      // The same from a prompt cut in the middle, wherever that is.
      const cut = random.integer(bytes.length);
      const direct = lawBehind(exactBytes(model, tokenizer), bytes.subarray(0, cut));
      session.start(new Uint8Array(0));
      for (const byte of bytes.subarray(0, cut)) session.push(byte);
      expectClose([...session.next()], [...direct], 1e-10);
    }
    session.close();
  }

  it.each(Object.entries(tokenizers))("%s: the byte law of texts learnt by heart", (_, tokenizer) => {
    fc.assert(
      fc.property(fc.array(text, { minLength: 2, maxLength: 8 }), text, (corpus, shared) => {
        const own = corpus.map((sample) => shared.slice(0, 3).replace(/[\ud800-\udfff]/g, "") + sample);
        // Texts that differ late, so that paths are carried side by side.
        expectMemorized(tokenizer, [...own, ...own.map((sample) => `${[...sample].slice(0, -1).join("")}  x`)], 7);
      }),
      { numRuns: full ? 40 : 6, seed: 3 },
    );
  });

  it("Unigram: the byte law of texts learnt by heart", () => {
    const unigram = Unigram.train(training, { vocabSize: 340, specialTokens: special });
    expectMemorized(unigram, ["abcDEF 日本", "abc DEF 日a", "été 's", "été 12"], 1);
  });
});

describe("generation", () => {
  const bytes = exactBytes(munchModel, munch, munchOptions);

  it("takes the most probable byte at temperature 0 and stops where it is told", () => {
    const { bytes: text, finish, cost } = generateBytes(bytes, bytesOf("A"), { maxBytes: 6 });
    expect(new TextDecoder().decode(text)).toBe("BABABA");
    expect(finish).toBe("length");
    expect(cost.bytes).toBe(6);
    const stopped = generateBytes(bytes, bytesOf("A"), { maxBytes: 6, stop: [bytesOf("AB")] });
    expect(new TextDecoder().decode(stopped.bytes)).toBe("BAB");
    expect(stopped.finish).toBe("stop");
  });

  it("draws the same bytes from the same seed, at a temperature and top-p over bytes", () => {
    const draw = (seed: number, topP = 1): string =>
      generateBytes(bytes, bytesOf("A"), { maxBytes: 20, temperature: 1, topP, seed }).bytes.join();
    expect(draw(1)).toBe(draw(1));
    expect(draw(1)).not.toBe(draw(2));
    expect(draw(2, 0.5)).toBe(generateBytes(bytes, bytesOf("A"), { maxBytes: 20 }).bytes.join());
  });

  it("ends a text where the model does", () => {
    const bpe = Bpe.train(["abab abab"], { vocabSize: 258, specialTokens: ["<|end|>"] });
    const model = memorizedTexts([{ text: "abab ab", weight: 1 }], bpe, 258, 257);
    const generated = generateBytes(exactBytes(model, bpe), bytesOf("aba"), { maxBytes: 20 });
    expect(new TextDecoder().decode(generated.bytes)).toBe("b ab");
    expect(generated.finish).toBe("end of text");
    expect(generated.logProbability).toBeCloseTo(0, 12);
    const own = { prompt: bytesOf("a"), ended: true };
    expect(byteLogProbability(exactBytes(model, bpe), bytesOf("bab ab"), own)).toBeCloseTo(0, 12);
    expect(byteLogProbability(exactBytes(model, bpe), bytesOf("bab"), own)).toBe(Number.NEGATIVE_INFINITY);
  });
});

describe("refuses", () => {
  const words = ["some words, some words"];
  it.each([
    ["WordPiece", () => WordPiece.train(words, { vocabSize: 40 })],
    ["BPE-dropout", () => new BpeDropout(Bpe.train(words, { vocabSize: 258 }))],
    ["Unigram with a prefix space", () => Unigram.train(words, { vocabSize: 275, prefixSpace: true })],
    ["a pattern of the caller's", () => Bpe.train(words, { vocabSize: 258, pattern: /\w+/u })],
  ])("%s", (_, tokenizer) => {
    expect(() => encodingRules(tokenizer())).toThrow(ArgumentError);
  });

  it("a tokenizer of more tokens than the model has", () => {
    expect(() => exactBytes(munchModel, twoMerges, munchOptions)).toThrow(/tokenizer/);
  });

  it("a vocabulary that does not say where texts begin", () => {
    expect(() => exactBytes(mergeModel, twoMerges)).toThrow(/begin/);
    expect(() => exactBytes(mergeModel, twoMerges, { ...mergeOptions, end: [97] })).toThrow(/end/);
  });

  it("bytes that begin no text, or one the model excludes", () => {
    const session = new ByteSampler(mergeModel, twoMerges, mergeOptions);
    expect(() => session.start(Uint8Array.of(0xff))).toThrow(ArgumentError);
    expect(() => session.start(Uint8Array.of(0xc3, 0x61))).toThrow(ArgumentError);
    session.start(bytesOf("ab"));
    expect(() => session.push(0x78)).toThrow(ArgumentError);
    expect(() => session.push(300)).toThrow(ArgumentError);
    session.push(97);
  });

  it("a prompt longer than the context, and works on", () => {
    const small = TableModel.random({ vocabularySize: 257, contextLength: 8, seed: 1 });
    const session = new ByteSampler(small, bpeOf([]), { begin: [256] });
    expect(() => {
      session.start(bytesOf("longer than eight"));
      session.next();
    }).toThrow(ContextOverflowError);
    session.start(bytesOf("short"));
    expect(session.next().reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 12);
  });

  it("ensembles of nothing or by weights that are none", () => {
    const bytes = exactBytes(munchModel, munch, munchOptions);
    expect(() => byteEnsemble([])).toThrow(ArgumentError);
    expect(() => byteEnsemble([bytes], { weights: [0] })).toThrow(ArgumentError);
    expect(() => byteEnsemble([bytes], { weights: [1, 1] })).toThrow(ArgumentError);
    expect(() => generateBytes(bytes, bytesOf("A"), { maxBytes: 0 })).toThrow(ArgumentError);
  });
});

it("keeps sessions apart and can be started anew", () => {
  const bytes = exactBytes(mergeModel, twoMerges, mergeOptions);
  const [one, two] = [bytes.openSession(), bytes.openSession()];
  one.start(bytesOf("ab"));
  two.start(bytesOf("c"));
  one.push(99);
  two.push(97);
  one.start(bytesOf("ab"));
  expectClose(on(one.next(), "abc"), [0.5, 0.3, 0.2]);
  expectClose(on(two.next(), "abc"), [0.5, 0.3, 0.2]);
  expect(one.logProbability).toBe(0);
});
