/** The pages under docs: every technique has one, every link leads somewhere, every example runs and prints what it says. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { catalog } from "../src/catalog.ts";
import { parseXml } from "./demo/xml.ts";

const root = join(import.meta.dirname, "..");
const folder = join(root, "docs", "techniques");
/** The speculative ones must have a page; of the others those that have one. */
const techniques = catalog.filter(
  ({ family, name }) => family === "speculative" || existsSync(join(folder, `${name}.md`)),
);

const read = (path: string): string => readFileSync(path, "utf8").replaceAll("\r\n", "\n");
const pages = [
  ...readdirSync(folder).map((name) => join(folder, name)),
  join(root, "docs", "verify-lossless.md"),
  join(root, "docs", "writing-a-drafter.md"),
].map((path) => ({ path, name: basename(path, ".md"), text: read(path) }));

/** Fenced blocks: their language and what is in them, in order. */
function blocks(text: string): { readonly language: string; readonly content: string }[] {
  return [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language, content]) => ({
    language: language!,
    content: content!,
  }));
}

const pageOf = (name: string) => pages.find((page) => page.path === join(folder, `${name}.md`));

describe.each(techniques.map((technique) => [technique.name, technique] as const))(
  "the page of %s",
  (name, technique) => {
    const text = pageOf(name)?.text ?? "";

    it("is there, in the index too, and names source, paper and whether it is exact", () => {
      expect(text).toMatch(/^# /);
      expect(pageOf("README")!.text).toContain(`](${name}.md)`);
      expect(text).toContain(`](../../${technique.module})`);
      expect(text).toContain(technique.summary.replace(/\.$/, ""));
      if (technique.paper !== null) expect(text).toContain(`https://arxiv.org/abs/${technique.paper.arXiv}`);
      if (technique.exact === "lossy") expect(text).toContain("**Lossy**");
      else expect(text).not.toContain("**Lossy**");
    });

    it("gives the catalog's command and example, and no others", () => {
      const commands = blocks(text)
        .filter(({ language }) => language === "sh")
        .flatMap(({ content }) => content.trim().split("\n"));
      const expected = [technique.command.replace(/^tokenthrift /, "npx tsx src/cli.ts ")];
      if (technique.example !== null && name !== "plain-decoding") expected.push(`npx tsx ${technique.example}`);
      expect(commands).toEqual(expected);
    });

    it("has a picture, small and well-formed", () => {
      expect(text).toMatch(new RegExp(`^!\\[.{20,}\\]\\(../images/techniques/${name}.svg\\)$`, "m"));
      const svg = join(root, "docs", "images", "techniques", `${name}.svg`);
      parseXml(read(svg).trim());
      expect(statSync(svg).size).toBeLessThan(15_000);
    });

    it("has an example of at most ten lines", () => {
      const examples = blocks(text).filter(({ language }) => language === "ts");
      expect(examples).toHaveLength(1);
      const lines = examples[0]!.content.split("\n").filter((line) => line !== "");
      expect(lines.length).toBeLessThanOrEqual(10);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(120);
    });
  },
);

it("has no page of a technique there is not", () => {
  const names = pages.filter(({ path }) => dirname(path) === folder).map(({ name }) => name);
  expect(names.sort()).toEqual(["README", ...techniques.map(({ name }) => name)].sort());
});

it.each(pages.map(({ path, text }) => [path.slice(root.length + 1), path, text] as const))(
  "%s links to what exists",
  (_, path, text) => {
    const links = [...text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)].map((match) => match[1]!);
    expect(links.length).toBeGreaterThan(1);
    for (const link of links) expect(existsSync(join(dirname(path), link)), link).toBe(true);
  },
);

it("prints what its examples say they print", () => {
  const temporary = mkdtempSync(join(root, "node_modules", ".docs-"));
  try {
    // One process for all: the models are read once for each, the compiler started once.
    const expected: Record<string, string | undefined> = {};
    const runner: string[] = [];
    for (const { name, text } of pages) {
      const found = blocks(text);
      const at = found.findIndex(({ language }) => language === "ts");
      if (at < 0) continue;
      const local = found[at]!.content.replace(/"tokenthrift\/(\w+)"/g, (_, area) =>
        JSON.stringify(pathToFileURL(join(root, "src", area, "index.ts")).href),
      );
      expect(local, name).not.toBe(found[at]!.content);
      writeFileSync(join(temporary, `${name}.mts`), local);
      runner.push(`console.log("@@ ${name}");`, `await import("./${name}.mts");`);
      const printed = found[at + 1];
      expected[name] = printed?.language === "text" ? printed.content.trim() : undefined;
    }
    writeFileSync(join(temporary, "all.mts"), runner.join("\n"));
    const output = execFileSync(process.execPath, ["--import", "tsx", join(temporary, "all.mts")], {
      cwd: root,
      encoding: "utf8",
    });
    const printed = Object.fromEntries(
      output
        .split(/^@@ /m)
        .slice(1)
        .map((part) => [part.slice(0, part.indexOf("\n")), part.slice(part.indexOf("\n") + 1).trim()]),
    );
    expect(Object.keys(printed)).toEqual(Object.keys(expected));
    for (const [name, text] of Object.entries(expected)) {
      expect(printed[name], name).not.toBe("");
      // Without a text below it an example prints what the machine makes of it.
      if (text !== undefined) expect(printed[name], name).toBe(text);
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
});
