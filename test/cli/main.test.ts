import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { catalog } from "../../src/catalog.ts";
import { commands, main } from "../../src/cli/main.ts";
import { loadedScripts } from "./loaded-scripts.ts";
import { run, split } from "./terminal.ts";
import { tinyText, writeTinyPair } from "./tiny-pair.ts";

let folder: string;
let pair: Awaited<ReturnType<typeof writeTinyPair>>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tokenthrift-cli-"));
  pair = await writeTinyPair(folder);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("list and explain", () => {
  it("lists every technique of the catalog", async () => {
    const { code, stdout, stderr } = await run(["list"]);
    expect([code, stderr]).toEqual([0, ""]);
    for (const { name, saves } of catalog) expect(stdout).toMatch(new RegExp(`^ *${name} +${saves}`, "m"));
  });

  it("lists as JSON what the catalog says", async () => {
    const { techniques } = JSON.parse((await run(["list", "--json"])).stdout);
    expect(techniques.map(({ name }: { name: string }) => name)).toEqual(catalog.map(({ name }) => name));
    expect(techniques[0]).toMatchObject({ family: "tokenization", paper: { arXiv: "1508.07909" }, exact: "lossless" });
  });

  it.each(catalog.map(({ name }) => name))("explains %s within the width of the terminal", async (name) => {
    const { code, stdout } = await run(["explain", name], { columns: 72 });
    expect(code).toBe(0);
    const entry = catalog.find((technique) => technique.name === name)!;
    expect(stdout.replace(/\s+/g, " ")).toContain(entry.explain.at(-1)!.replace(/\s+/g, " "));
    // Formulas keep their lines; paragraphs are wrapped.
    for (const line of stdout.split("\n")) {
      if (!line.startsWith(" ") && !/^(try|saves|source|example)/.test(line))
        expect(line.length).toBeLessThanOrEqual(72);
    }
    expect(JSON.parse((await run(["explain", name, "--json"])).stdout).explain).toEqual(entry.explain);
  });
});

describe("help", () => {
  it.each([[[]], [["--help"]], [["-h"]], [["help"]]])("%j shows all commands", async (words) => {
    const { code, stdout } = await run(words);
    expect(code).toBe(0);
    for (const { name, summary } of commands) expect(stdout).toMatch(new RegExp(`^  ${name}.*  ${summary}`, "m"));
  });

  it.each(commands.map((command) => [command.name, command] as const))(
    "describes %s alike in both ways",
    async (name, command) => {
      const help = await run(["help", name]);
      expect(help).toEqual(await run([name, "--help"]));
      expect(help.code).toBe(0);
      for (const option of command.options) expect(help.stdout).toContain(`--${option.name}`);
      expect(command.examples.length).toBeGreaterThan(0);
      for (const example of command.examples) expect(help.stdout).toContain(`  ${example}\n`);
    },
  );

  it("shows help even beside mistakes", async () => {
    expect((await run(["run", "--nonsense", "--help"])).code).toBe(0);
  });

  it("knows the version of the package", async () => {
    const manifest = JSON.parse(await readFile(join(import.meta.dirname, "../../package.json"), "utf8"));
    expect(await run(["--version"])).toEqual({ code: 0, stdout: `${manifest.version}\n`, stderr: "" });
  });

  // Demo and training take longer; they have tests of their own, with small models.
  const quick = commands.filter(({ name }) => name !== "demo" && name !== "train");
  const examples = [...quick.flatMap((command) => command.examples), ...catalog.map(({ command }) => command)];
  it.each([...new Set(examples)])("the example works: %s", async (example) => {
    const [program, ...words] = split(example);
    expect(program).toBe("tokenthrift");
    const { code, stdout, stderr } = await run(words);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).not.toBe("");
  });
});

describe("a wrong command line", () => {
  it.each([
    [["lst"], 'unknown command "lst". Did you mean "list"?'],
    [["xyzzy"], 'unknown command "xyzzy". See: tokenthrift --help'],
    [["--verison"], 'unknown option "--verison". Did you mean "--version"?'],
    [["help", "rum"], 'unknown command "rum". Did you mean "run"?'],
    [
      ["explain", "speculative-samplin"],
      'unknown technique "speculative-samplin". Did you mean "speculative-sampling"?',
    ],
    [["run", "bep"], 'unknown technique "bep". Did you mean "bpe"? See: tokenthrift list'],
    [["run"], "run: which technique? See: tokenthrift help run"],
    [["run", "bpe", "--promt", "x"], 'unknown option "--promt". Did you mean "--prompt"?'],
    [["run", "bpe", "extra"], 'run: unexpected argument "extra".'],
    [["list", "extra"], 'list: unexpected argument "extra".'],
    [["run", "bpe", "--prompt"], "--prompt needs a value: --prompt <text>"],
    [["run", "bpe", "--prompt", "--json"], "--prompt needs a value"],
    [["run", "bpe", "--json=yes"], '--json takes no value, got "yes".'],
    [["run", "bpe", "--prompt", "a", "--file", "b"], "give --prompt or --file, not both."],
    [["run", "bpe", "--gamma", "2"], "--gamma means nothing to bpe. It is for: random-drafter, speculative-sampling"],
    [
      ["run", "plain-decoding", "--draft", "x"],
      "--draft means nothing to plain-decoding. It is for: speculative-sampling",
    ],
    [["run", "plain-decoding", "--seed", "x"], '--seed: expected a number, got "x".'],
    [["run", "plain-decoding", "--max-tokens", "1.5"], '--max-tokens: expected an integer, got "1.5".'],
    [["run", "plain-decoding", "--temperature", "NaN"], '--temperature: expected a number, got "NaN".'],
    [["bench"], "bench: which family?"],
    [["bench", "speculativ"], 'unknown family "speculativ". Did you mean "speculative"?'],
    [["bench", "speculative", "--techniques", "chimera,dispec"], 'unknown technique "dispec"'],
    [["bench", "speculative", "--sets", "edit"], 'unknown prompt set "edit". Did you mean "edits"?'],
    [["bench", "speculative", "--budgets", "4,x"], '--budgets: expected numbers with commas between them, got "x".'],
    [["bench", "speculative", "--budgets", "0"], "--budgets: expected integers >= 1, got 0."],
    [
      ["bench", "speculative", "--sections", "bytes"],
      "--sections means nothing to speculative. It is for: tokenization.",
    ],
    [["bench", "tokenization", "--budgets", "4"], "--budgets means nothing to tokenization. It is for: speculative."],
    [["bench", "tokenization", "--sections", "byte"], 'unknown section "byte". Did you mean "bytes"?'],
    [["bench", "speculative", "--runs", "gpu"], 'unknown runner "gpu".'],
    [["train", "--model", "targt"], 'unknown model "targt". Did you mean "target"?'],
    [["train", "--out", "x"], "--out is one checkpoint's folder"],
  ])("%j: exit code 2, one line", async (words, message) => {
    const { code, stdout, stderr } = await run(words);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^tokenthrift: [^\n]*\n$/);
    expect(stderr).toContain(message);
  });
});

describe("bad input", () => {
  const plain = (...words: string[]) => {
    const prompt = words.includes("--prompt") ? [] : ["--prompt", "interface Point"];
    return ["run", "plain-decoding", "--model", pair.target, ...prompt, ...words];
  };

  it.each<[string, () => string[] | Promise<string[]>, string]>([
    ["empty prompt", () => ["run", "bpe", "--prompt", ""], "--prompt: expected at least one character"],
    ["missing file", () => ["run", "bpe", "--file", join(folder, "none.txt")], "no such file or folder (ENOENT)"],
    ["folder as file", () => ["run", "bpe", "--file", folder], "it is a folder"],
    ["empty file", async () => ["run", "bpe", "--file", await written("empty.txt", "")], "the file is empty"],
    [
      "a file that is not text",
      async () => ["run", "bpe", "--file", await written("latin1.txt", Uint8Array.of(0x66, 0xfc, 0x72))],
      "latin1.txt: the file is not UTF-8 text",
    ],
    ["missing model", () => ["run", "bpe", "--model", join(folder, "none")], "no such file or folder"],
    ["missing weights", () => ["run", "plain-decoding", "--model", join(folder, "none")], "no such file or folder"],
    ["temperature below 0", () => plain("--temperature", "-1"), "--temperature: expected a finite number >= 0, got -1"],
    ["top-p of 0", () => plain("--top-p", "0"), "--top-p: expected a number in (0, 1]"],
    ["top-k of 0", () => plain("--top-k", "0"), "--top-k: expected an integer >= 1"],
    ["no tokens asked for", () => plain("--max-tokens", "0"), "--max-tokens: expected an integer >= 1"],
    ["no tokens to show", () => ["run", "bpe", "--max-tokens", "0"], "--max-tokens: expected an integer >= 1"],
    [
      "prompt longer than the context",
      () => plain("--prompt", "0123456789".repeat(20)),
      "the model's context holds 64",
    ],
    ["gamma below 0", () => ["run", "random-drafter", "--gamma", "-1"], "--gamma: expected an integer >= 0, got -1"],
    [
      "a draft with another tokenizer",
      () => ["run", "speculative-sampling", "--model", pair.target, "--draft", pair.stranger],
      "--draft: expected a model with the target's tokenizer",
    ],
    [
      "a draft with another vocabulary",
      () => ["run", "speculative-sampling", "--model", pair.target],
      "--draft: expected a model with the target's vocabulary (280 tokens)",
    ],
    ["a file where the report should go", async () => ["demo", "--out", await written("taken", "x")], "is a file"],
    ["a file where the state should go", async () => ["train", "--state", await written("state", "x")], "is a file"],
  ])("%s: exit code 1, one line", async (_, words, message) => {
    const { code, stdout, stderr } = await run(await words());
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(/^tokenthrift: [^\n]*\n$/);
    expect(stderr).toContain(message);
  });

  it("a bug is not dressed up as bad input", async () => {
    const broken = {
      write: () => {
        throw new TypeError("broken stream");
      },
    };
    await expect(main(["list"], { stdout: broken, stderr: broken, env: {} })).rejects.toThrow(TypeError);
  });
});

describe("run bpe", () => {
  const words = (text: string, ...more: string[]) => ["run", "bpe", "--model", pair.target, "--prompt", text, ...more];

  it("shows tokens with a bar between them where there are no colours", async () => {
    const { stdout } = await run(words("rea number!"));
    expect(stdout).toBe(
      "rea\u2502 number\u2502!\n\n3 tokens for 11 bytes (11 characters): 3.67 bytes per token, from a vocabulary of 280\n",
    );
  });

  it("shows them in turning colours on a terminal, and not where NO_COLOR is set", async () => {
    const shown = (await run(words("rea number!"), { isTTY: true })).stdout;
    expect(shown).toContain("\x1b[34m\x1b[4mrea\x1b[39m\x1b[24m number\x1b[34m");
    const plain = await run(words("rea number!"), { isTTY: true, env: { NO_COLOR: "1" } });
    expect(plain).toEqual(await run(words("rea number!")));
  });

  it("prints one JSON document, from which the text can be made again", async () => {
    const text = "readonly x: 漢字 <|endoftext|>\u001b[2J";
    const { stdout } = await run(words(text, "--json"));
    const { tokens, bytes, characters, bytesPerToken, roundTrip, pieces } = JSON.parse(stdout);
    expect(Buffer.from(pieces.map((piece: { bytes: string }) => piece.bytes).join(""), "hex").toString()).toBe(text);
    expect([pieces.length, bytes, characters, roundTrip]).toEqual([
      tokens,
      Buffer.byteLength(text),
      [...text].length,
      true,
    ]);
    expect(bytesPerToken).toBe(bytes / tokens);
    // Half a character has no text.
    expect(pieces.some((piece: { text: string | null }) => piece.text === null)).toBe(true);
  });

  it("spells out control characters and cut characters", async () => {
    const { stdout } = await run(words("é\u001b"));
    expect(stdout).toMatch(/^<c3>\u2502<a9>\u2502<1b>\n/);
  });

  it("reads a file, byte-order mark included, and shows no more than asked for", async () => {
    const path = await written("text.ts", `\ufeff${tinyText}`);
    const { stdout } = await run(["run", "bpe", "--model", pair.target, "--file", path, "--max-tokens", "5"]);
    expect(stdout).toMatch(/\.\.\. and \d+ tokens more \(--max-tokens\)/);
    expect(stdout).toContain(`for ${Buffer.byteLength(tinyText) + 3} bytes`);
  });
});

describe("run with models", () => {
  const words = (technique: string, ...more: string[]) => [
    ...["run", technique, "--model", pair.target, "--prompt", "interface Point", "--max-tokens", "20"],
    ...(technique === "speculative-sampling" ? ["--draft", pair.draft] : []),
    ...more,
  ];
  const json = async (...args: Parameters<typeof words>) => JSON.parse((await run(words(...args, "--json"))).stdout);

  it("speculative sampling and the random drafter write what plain decoding writes", async () => {
    const plain = await json("plain-decoding");
    expect(plain.report).toMatchObject({ targetPasses: 20, tokensPerPass: 1, drafted: 0 });
    for (const technique of ["speculative-sampling", "random-drafter"]) {
      const result = await json(technique, "--gamma", "3");
      expect(result.text).toBe(plain.text);
      expect(result.identicalToPlainDecoding).toBe(true);
      expect(result.pieces.map((piece: { text: string }) => piece.text).join("")).toBe(plain.text);
      expect(result.report.targetPasses + result.report.accepted - result.report.discarded).toBe(20);
      expect(result.plain.targetPasses).toBe(20);
    }
    // The draft is a disturbed target: some of its guesses are right, some are wrong.
    const { report } = await json("speculative-sampling");
    expect(report.accepted).toBeGreaterThan(0);
    expect(report.accepted).toBeLessThan(report.drafted);
  });

  it("marks accepted guesses, counts, and says that the text is the same", async () => {
    const { code, stdout } = await run(words("speculative-sampling"));
    const { pieces, report } = await json("speculative-sampling");
    expect(code).toBe(0);
    const accepted = pieces.filter(({ author }: { author: string }) => author === "draft").length;
    // Once more in the legend.
    expect(stdout.split("\u00ab").length - 1).toBe(accepted + 1);
    expect(stdout).toMatch(new RegExp(`tokens per target pass +${report.tokensPerPass.toFixed(2)} +1\\.00`));
    expect(stdout).toContain(`${report.accepted} of ${report.drafted}`);
    expect(stdout).toContain("identical to plain decoding, token for token: yes");
    const coloured = await run(words("speculative-sampling"), { isTTY: true });
    expect(coloured.stdout).toContain("\x1b[32m\x1b[4m");
    expect(coloured.stdout).not.toContain("\u00ab");
  });

  it("samples: same seed, same text; no claim of identity", async () => {
    const sampled = (seed: string) =>
      json("speculative-sampling", "--temperature", "1.5", "--seed", seed, "--top-k", "50");
    const [one, again, other] = [await sampled("1"), await sampled("1"), await sampled("2")];
    expect(again).toEqual(one);
    expect(other.text).not.toBe(one.text);
    expect(one).not.toHaveProperty("identicalToPlainDecoding");
    const { stdout } = await run(words("speculative-sampling", "--temperature", "1.5"));
    expect(stdout).toContain("test/speculative/conformance.test.ts");
  });
});

describe("bench", () => {
  const words = ["bench", "speculative", "--techniques", "prompt-lookup,typical-acceptance", "--sets", "edits"];
  const small = [...words, "--budgets", "3", "--max-tokens", "8"];

  it("prints the comparison as JSON, and the same as tables", async () => {
    const { code, stdout } = await run([...small, "--json"]);
    expect(code).toBe(0);
    const { family, runs, prompts, passCosts, rows } = JSON.parse(stdout);
    expect({ family, runs, prompts }).toEqual({ family: "speculative", runs: "engine", prompts: { edits: 6 } });
    expect(passCosts.costs[0]).toBe(1);
    const names = ["typical-acceptance", "prompt-lookup"];
    const seen = rows.map((row: { temperature: number; technique: string }) => [row.temperature, row.technique]);
    expect(seen).toEqual([0, 0.6, 1].flatMap((temperature) => names.map((name) => [temperature, name])));
    expect(rows.map((row: { identical: boolean | null }) => row.identical)).toEqual([
      true,
      true,
      null,
      null,
      null,
      null,
    ]);
    const tables = await run([...small, "--temperatures", "1"]);
    expect(tables.code).toBe(0);
    expect(tables.stdout).toContain("typical-acceptance (LOSSY)");
    expect(tables.stdout).not.toContain("prompt-lookup (LOSSY)");
    const greedy = await run([...small, "--temperatures", "0"]);
    expect(greedy.stdout).not.toContain("LOSSY");
    expect(greedy.stdout.replace(/\s+/g, " ")).toContain("at temperature 0: 2 of 2 rows");
  });

  it("compares tokenization section by section", async () => {
    const { code, stdout } = await run(["bench", "tokenization", "--sections", "languages", "--json"]);
    expect(code).toBe(0);
    const { family, languages, names, ...rest } = JSON.parse(stdout);
    expect(family).toBe("tokenization");
    expect(rest).toEqual({ seed: 0, predictors: [] });
    expect(languages.languages).toHaveLength(14);
    expect(names.languages.length).toBeGreaterThan(30);
    for (const { before, after } of [...languages.languages, ...names.languages]) expect(after).toBeLessThan(before);
  });

  it("writes the comparison to a file", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tokenthrift-bench-"));
    try {
      const out = join(folder, "deep", "comparison.json");
      expect((await run([...small, "--temperatures", "0", "--out", out])).code).toBe(0);
      expect(JSON.parse(await readFile(out, "utf8")).rows).toHaveLength(2);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("the program", () => {
  const root = join(import.meta.dirname, "../..");
  const program = ["--import", "tsx", join(root, "src/cli.ts")];

  it("prints one JSON document and nothing else, tensor library and all", async () => {
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      [
        ...program,
        ...[
          "run",
          "speculative-sampling",
          "--model",
          pair.target,
          "--draft",
          pair.draft,
          "--max-tokens",
          "8",
          "--json",
        ],
        ...["--prompt", "interface"],
      ],
      { cwd: root },
    );
    expect(JSON.parse(stdout).report.tokens).toHaveLength(8);
    expect(stderr).toBe("");
  });

  it("exits with the code, and says why on standard error only", async () => {
    const failed = promisify(execFile)(process.execPath, [...program, "lsit"], { cwd: root });
    await expect(failed).rejects.toMatchObject({ code: 2, stdout: "", stderr: expect.stringContaining('"list"') });
  });

  it.each([[["list"]], [["explain", "bpe"]], [["run", "bpe", "--prompt", "abc"]]])(
    "%j loads no tensor library",
    async (words) => {
      const model = words[0] === "run" ? ["--model", pair.target] : [];
      const urls = await loadedScripts([...program, ...words, ...model]);
      expect(urls.some((url) => url.endsWith("/src/cli/main.ts"))).toBe(true);
      expect(urls.filter((url) => url.includes("@tensorflow") || url.includes("/src/tensor/tf.ts"))).toEqual([]);
    },
  );

  it("leaves nothing in its folders but what it was asked for", async () => {
    expect((await readdir(folder)).sort()).toEqual(
      ["draft", "empty.txt", "latin1.txt", "state", "stranger", "taken", "target", "text.ts"].sort(),
    );
  });
});

async function written(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}
