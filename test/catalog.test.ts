/** The catalog says what the code has: its files exist, its examples are commands, its names are usable. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { catalog, families, findTechnique } from "../src/catalog.ts";

const root = join(import.meta.dirname, "..");

it("has no two entries of one name, and names that can be typed", () => {
  const names = catalog.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/);
});

it.each(catalog.map((entry) => [entry.name, entry] as const))("%s describes itself", (name, entry) => {
  expect(findTechnique(name)).toBe(entry);
  expect(families).toContain(entry.family);
  expect(existsSync(join(root, entry.module)), entry.module).toBe(true);
  // What joins tokens and models stands in a folder of its own.
  expect(entry.module).toMatch(new RegExp(`/(re)?${entry.family}/`));
  if (entry.example !== null) expect(existsSync(join(root, entry.example)), entry.example).toBe(true);
  expect(entry.command).toMatch(new RegExp(`^tokenthrift run ${name}( |$)`));
  expect(entry.explain.length).toBeGreaterThanOrEqual(3);
  expect(entry.summary).toMatch(/\.$/);
  if (entry.paper !== null) {
    expect(entry.paper.arXiv).toMatch(/^\d{4}\.\d{4,5}$/);
    // arXiv ids begin with the year and month of submission.
    expect(entry.paper.year).toBe(2000 + Number(entry.paper.arXiv.slice(0, 2)));
    // The source names the same paper as the catalog.
    expect(readFileSync(join(root, entry.module), "utf8")).toContain(entry.paper.arXiv);
  }
});

it("finds nothing under another name", () => {
  expect(findTechnique("toString")).toBeUndefined();
});
