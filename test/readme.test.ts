import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { catalog } from "../src/catalog.ts";

const root = join(import.meta.dirname, "..");
const readme = readFileSync(join(root, "README.md"), "utf8");

/** Fenced blocks of one language, in order. */
function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, "gm"))].map((match) => match[1]!);
}

describe("README", () => {
  it("prints what its example says it prints", () => {
    const [code] = blocks("ts");
    const [printed] = blocks("text");
    expect(
      code!
        .trim()
        .split("\n")
        .filter((line) => line !== "").length,
    ).toBeLessThanOrEqual(12);
    // The example imports the package by name; here the same entry points are this checkout's sources.
    const local = code!.replace(/"tokenthrift\/(\w+)"/g, (_, area) =>
      JSON.stringify(pathToFileURL(join(root, "src", area, "index.ts")).href),
    );
    expect(local).not.toBe(code);
    const folder = mkdtempSync(join(root, "node_modules", ".readme-"));
    try {
      const path = join(folder, "example.mts");
      writeFileSync(path, local);
      const output = execFileSync(process.execPath, ["--import", "tsx", path], { cwd: root, encoding: "utf8" });
      expect(output.trimEnd()).toBe(printed!.trimEnd());
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("gives the two commands, and the check runs the same test command", () => {
    const commands = blocks("sh").join("");
    expect(commands).toContain("npm ci && npm run demo\n");
    expect(commands).toContain("npm ci && npm test\n");
    expect(
      readFileSync(join(root, ".ci", "run"), "utf8")
        .trimEnd()
        .split("\n")
        .at(-1),
    ).toBe("npm ci && npm test");
  });

  it("lists every technique of the catalog, and only those", () => {
    const rows = [...readme.matchAll(/^\| `([a-z0-9-]+)` \|/gm)].map((match) => match[1]);
    expect(rows).toEqual(catalog.map(({ name }) => name));
  });

  it("points at files that exist", () => {
    const links = [...readme.matchAll(/\]\((?!https?:|#)([^)\s]+)\)/g)].map((match) => match[1]!);
    expect(links.length).toBeGreaterThan(3);
    for (const link of links) expect(existsSync(join(root, link.split("#")[0]!)), link).toBe(true);
  });
});
