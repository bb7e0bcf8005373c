import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runDemo } from "../../src/demo/demo.ts";
import type { Figures } from "../../src/demo/figures.ts";
import { reportHtml } from "../../src/demo/report.ts";
import { measureSpeculation } from "../../src/demo/speculation.ts";
import { trainingFigures } from "../../src/demo/training-record.ts";
import type { HeldOutPrompt } from "../../src/held-out-prompts.ts";
import { loadCheckpoint } from "../../src/model/load.ts";
import { TableModel } from "../../src/model/table-model.ts";
import { generateAll } from "../../src/speculative/index.ts";
import { run } from "../cli/terminal.ts";
import { writeTinyPair } from "../cli/tiny-pair.ts";
import { attributes, parseXml } from "./xml.ts";

const prompts: readonly HeldOutPrompt[] = [
  { kind: "declaration", source: "a.d.ts", text: "interface Point {" },
  { kind: "doc comment", source: "b.d.ts", text: "/** readonly </script><b>&amp;" },
];

let folder: string;
let pair: Awaited<ReturnType<typeof writeTinyPair>>;
let figures: Figures;
const printed: string[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tokenthrift-demo-"));
  pair = await writeTinyPair(folder);
  figures = await runDemo({
    out: join(folder, "new", "report"),
    target: pair.target,
    draft: pair.draft,
    speculation: { prompts, gammas: [1, 3], maxTokens: 12, repetitions: 2 },
    family: {
      techniques: ["speculative-sampling", "prompt-lookup"],
      budgets: [2, 4],
      promptSets: { one: ["interface Point {"], two: ["readonly x", "/** it"] },
      maxTokens: 8,
    },
    dynamicTokens: { reductions: [0, 100], sequences: 4, cuts: 2 },
    print: (lines) => printed.push(lines),
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("the figures", () => {
  it("of speculation add up", () => {
    const { tensors, engine } = figures.speculation;
    const counts = ({ byGamma }: typeof tensors) => byGamma.map(({ secondsRatio: _, prompts: __, ...rest }) => rest);
    expect(counts(engine)).toEqual(counts(tensors));
    const { plain, byGamma } = tensors;
    expect(plain).toMatchObject({ tokens: 24, targetPasses: 24 });
    expect(byGamma.map(({ gamma }) => gamma)).toEqual([1, 3]);
    for (const one of byGamma) {
      expect(one.identical).toBe(true);
      expect(one.tokens).toBe(24);
      expect(one.targetPasses + one.accepted).toBe(24); // no stop token, so nothing is discarded
      expect(one.tokensPerPass).toBe(24 / one.targetPasses);
      expect(one.targetPasses).toBe(one.prompts.reduce((sum, prompt) => sum + prompt.targetPasses, 0));
      expect(one.drafted).toBe(one.positions.reduce((sum, { offered }) => sum + offered, 0));
      expect(one.accepted).toBe(one.positions.reduce((sum, { accepted }) => sum + accepted, 0));
      expect(one.positions).toHaveLength(one.gamma);
      expect(one.secondsRatio).toBeGreaterThan(0);
    }
  });

  it("of the family are the same counts on both runners, and add up", () => {
    const { tensors, engine, prompts: counts, maxTokens, acceptance } = figures.family;
    expect({ counts, maxTokens }).toEqual({ counts: { one: 1, two: 2 }, maxTokens: 8 });
    const counted = (rows: typeof tensors) => rows.map(({ speedup: _, ...rest }) => rest);
    expect(counted(engine)).toEqual(counted(tensors));
    expect(tensors.map(({ technique, budget }) => `${technique} ${budget}`)).toEqual(
      ["speculative-sampling", "prompt-lookup"].flatMap((name) => [2, 2, 4, 4].map((budget) => `${name} ${budget}`)),
    );
    for (const row of [...tensors, ...engine]) {
      expect(row.identical).toBe(true);
      expect(row.speedup).toBeGreaterThan(0);
    }
    const sum = (of: "tested" | "accepted") => acceptance.bins.reduce((total, bin) => total + bin[of], 0);
    expect(sum("tested")).toBe(acceptance.guesses);
    expect(sum("accepted")).toBeLessThanOrEqual(acceptance.guesses);
    expect(acceptance.guesses).toBeGreaterThan(0);
  });

  it("of dynamic tokenization: fewer rows, more bits, and a law for every way of going on", () => {
    const { dynamicTokens } = figures;
    if ("unavailable" in dynamicTokens) throw new Error(dynamicTokens.unavailable);
    const { merging, bytes, sequences } = dynamicTokens;
    expect(sequences).toBe(4);
    // The tiny pair is not what the hypernetwork was trained for.
    expect(Object.keys(merging)).toEqual(["random", "last piece", "mean of pieces"]);
    for (const [unmerged, merged] of Object.values(merging)) {
      expect(unmerged).toMatchObject({ reduction: 0, rows: 1, loss: 0 });
      expect(merged!.rows).toBeLessThan(0.9);
    }
    expect(bytes.continuations.map(({ name }) => name)).toEqual(["naive", "token healing", "exact"]);
  });

  it("of the completion are its own: the same text whoever wrote which part", async () => {
    const { model, tokenizer } = await loadCheckpoint(pair.target);
    const { tokens } = await generateAll(model, tokenizer.encode(prompts[0]!.text), { maxTokens: 12 });
    model.close();
    const { pieces } = figures.speculation.tensors.completion;
    expect(pieces.map(({ text }) => text).join("")).toBe(tokenizer.decode(tokens));
  });

  it("of languages count what the tokenizer gives, English first and the measure of the rest", () => {
    const { languages } = figures;
    if ("unavailable" in languages) throw new Error(languages.unavailable);
    expect(languages.languages).toHaveLength(14);
    expect(languages.languages[0]).toMatchObject({ tag: "en", name: "English" });
    for (const { bytes, byVocabulary } of languages.languages) {
      for (const [v, { tokens, bytesPerToken, relativeToEnglish }] of byVocabulary.entries()) {
        expect(bytesPerToken).toBe(bytes / tokens);
        expect(relativeToEnglish).toBe(tokens / languages.languages[0]!.byVocabulary[v]!.tokens);
        expect(bytesPerToken).toBeGreaterThanOrEqual(1); // no token is less than a byte
      }
    }
    // The vocabularies are the ones they are called: 280 tokens of this test, OpenAI's 100,277.
    expect(languages.vocabularies).toEqual([
      { name: "embedded", size: 280 },
      { name: "cl100k", size: 100_277 },
    ]);
  });

  it("of training are read from the checkpoint, and from nothing where there is nothing", () => {
    expect(figures.models.target.curve).toHaveLength(3);
    expect(figures.models.target.bitsPerByte).toEqual({ model: 1.25, gzip: 1.75, xz: null, fiveGram: 1.5 });
    expect(figures.models.draft).toMatchObject({ curve: [], bitsPerByte: { model: null } });
  });

  it("do not take a difference for identity", async () => {
    // A target that answers differently each time it is opened is not reproducible: the demo must say so.
    const laws = (favourite: number) =>
      new TableModel({
        vocabularySize: 4,
        contextLength: 32,
        order: 1,
        law: () => [0, 1, 2, 3].map((i) => (i === favourite ? 0.7 : 0.1)),
      });
    let opened = 0;
    const fickle = { vocabularySize: 4, contextLength: 32, openSession: () => laws(opened++ % 2).openSession() };
    const letters = "abcd";
    const tokenizer = {
      vocabularySize: 4,
      encode: (text: string) => Uint32Array.from(text, (letter) => letters.indexOf(letter)),
      decode: (ids: ArrayLike<number>) => Array.from(ids, (id) => letters[id]).join(""),
      decodeBytes: (ids: ArrayLike<number>) => Uint8Array.from(ids, (id) => 97 + id),
      tokenBytes: (id: number) => Uint8Array.of(97 + id),
    };
    const prompt: HeldOutPrompt = { kind: "declaration", source: "x", text: "ab" };
    const measure = (target: Parameters<typeof measureSpeculation>[0]["target"]) =>
      measureSpeculation({
        target,
        draft: laws(0),
        tokenizer,
        prompts: [prompt],
        gammas: [2],
        maxTokens: 6,
        repetitions: 1,
      });
    expect((await measure(laws(0))).byGamma[0]).toMatchObject({ identical: true, tokensPerPass: 3, accepted: 4 });
    expect((await measure(fickle)).byGamma[0]!.identical).toBe(false);
  });
});

describe("what is printed", () => {
  it("has the languages, the comparison and the proof", () => {
    const text = printed.join("\n");
    expect(text).toMatch(/^Bytes per token in 14 languages/);
    expect(text).toMatch(/^English +\d\.\d\d +1\.00 +\d\.\d\d +1\.00$/m);
    expect(text).toContain("identical: yes (8 of 8 completions equal plain decoding's, token for token)");
    expect(text).toMatch(/^plain +1\.00 +1\.00 +- +1\.00 +1\.00 +1\.00 +1\.00 +-$/m);
    expect(text).toContain("test/speculative/speculative-sampling.test.ts");
    expect(printed.at(-1)).toContain("report.html");
  });
});

describe("the report", () => {
  let html: string;
  beforeAll(async () => {
    html = await readFile(join(folder, "new", "report", "report.html"), "utf8");
  });

  it("is two files and nothing half-written beside them", async () => {
    expect((await readdir(join(folder, "new", "report"))).sort()).toEqual(["figures.json", "report.html"]);
  });

  it("holds all figures, in the page and beside it", async () => {
    const inPage = /<script type="application\/json" id="figures">(.*?)<\/script>/s.exec(html)![1]!;
    const beside = JSON.parse(await readFile(join(folder, "new", "report", "figures.json"), "utf8"));
    expect(JSON.parse(inPage)).toEqual(beside);
    expect(beside).toEqual(JSON.parse(JSON.stringify(figures)));
  });

  it("fetches nothing and runs nothing", () => {
    const page = html.replace(/<script type="application\/json"[^>]*>.*?<\/script>/s, "");
    expect(page).not.toContain("<script");
    expect(page).not.toMatch(/\b(src|href|srcset|action|data|poster)\s*=/i);
    expect(page).not.toMatch(/url\(|@import|@font-face/i);
    expect(page).not.toMatch(/\son\w+\s*=/i);
    expect(page.replaceAll('xmlns="http://www.w3.org/2000/svg"', "")).not.toMatch(/https?:/);
  });

  it("has well-formed plots, each with its own title and description", () => {
    const plots = html.match(/<svg.*?<\/svg>/gs)!;
    expect(plots).toHaveLength(12);
    for (const plot of plots) {
      parseXml(plot);
      // No label runs out of its picture, even at a generous seven pixels a letter.
      const width = Number(attributes(plot, "svg")[0]!["width"]);
      for (const [, list, content] of plot.matchAll(/<text([^>]*)>([^<]*)<\/text>/g)) {
        if (/end|middle|code/.test(list!)) continue;
        expect(Number(/ x="([\d.]+)"/.exec(list!)![1]) + 7 * content!.length, content).toBeLessThanOrEqual(width);
      }
    }
    const ids = [...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id!);
    expect(new Set(ids).size).toBe(ids.length);
    for (const svg of attributes(html, "svg")) {
      for (const id of svg["aria-labelledby"]!.split(" ")) expect(ids).toContain(id);
    }
  });

  it("shows text of prompts as text", () => {
    const hostile = reportHtml({
      ...figures,
      speculation: {
        ...figures.speculation,
        tensors: {
          ...figures.speculation.tensors,
          sampled: { ...figures.speculation.tensors.sampled, prompt: prompts[1]! },
        },
      },
    });
    expect(hostile).toContain("/** readonly &lt;/script&gt;&lt;b&gt;&amp;amp;");
    expect(hostile.match(/<\/script>/g)).toHaveLength(1);
  });

  it("closes every element", () => {
    const body = html
      .replace(/^<!doctype html>\n/, "")
      .replace(/<style>.*?<\/style>/gs, "")
      .replace(/(<script type="application\/json" id="figures">).*?(<\/script>)/s, "$1$2")
      .replaceAll('<meta charset="utf-8">', "")
      .replace(/<meta [^>]*>/g, "")
      .replaceAll("<details open>", "<details>")
      .trim();
    parseXml(body);
  });

  it("says what is missing instead of showing nothing", () => {
    const empty = trainingFigures(undefined);
    const models = {
      vocabularySize: 280,
      target: { ...empty, parameters: 1 },
      draft: { ...empty, parameters: 1 },
    };
    const bare = reportHtml({ ...figures, models, languages: { unavailable: "typescript: not <here>" } });
    expect(bare).toContain("Not measured: typescript: not &lt;here&gt;");
    expect(bare).toContain("Learning curves: none recorded");
    expect(bare).toContain("Bits per byte: none recorded");
    expect(bare.match(/<svg/g)).toHaveLength(9);
  });
});

describe("trainingFigures", () => {
  it.each([
    [undefined],
    [null],
    ["text"],
    [{ curve: "x", evaluation: [] }],
    [{ curve: [null, {}, { step: 1, trainingLoss: "1", validationLoss: 2 }], evaluation: { bitsPerByte: Number.NaN } }],
  ])("leaves out what does not look right: %j", (training) => {
    expect(trainingFigures(training)).toEqual({
      curve: [],
      bitsPerByte: { model: null, gzip: null, xz: null, fiveGram: null },
    });
  });
});

describe("a folder that cannot be written", () => {
  it("is an error before anything is computed, and what was there stays", async () => {
    const taken = join(folder, "taken");
    await writeFile(taken, "mine");
    const { code, stdout, stderr } = await run(["demo", "--out", join(taken, "report")]);
    // The demo prints each part as soon as it is measured: it printed none.
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^tokenthrift: .*a part of the path is a file, not a folder.*\n$/);
    expect(await readFile(taken, "utf8")).toBe("mine");
  });
});
