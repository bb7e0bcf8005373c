import { describe, expect, it } from "vitest";
import {
  heldOutFiles,
  libraryDeclarations,
  messageLanguages,
  nodeDeclarations,
  packageVersion,
  parallelMessages,
  regionNames,
} from "../src/corpus.ts";
import { FileError } from "../src/errors.ts";

describe("corpus", () => {
  it("is the declarations of TypeScript and of Node, held-out files apart, in a fixed order", () => {
    const library = libraryDeclarations();
    expect(library.map(({ name }) => name)).toContain("typescript/lib/lib.dom.d.ts");
    expect(library.reduce((sum, { text }) => sum + text.length, 0)).toBeGreaterThan(3e6);
    const { heldOut, others } = nodeDeclarations();
    expect(heldOut).toHaveLength(heldOutFiles.length);
    expect(others.length).toBeGreaterThan(50);
    const names = [...library, ...others].map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.some((name) => name.includes("\\"))).toBe(false);
    for (const { name } of heldOut) expect(names).not.toContain(name);
  });

  it("holds the same messages in 14 languages", async () => {
    const messages = await parallelMessages();
    expect(Object.keys(messages)).toEqual([...messageLanguages]);
    const count = messages.en.length;
    expect(count).toBeGreaterThan(2000);
    for (const language of messageLanguages) expect(messages[language]).toHaveLength(count);
    // Parallel: the placeholders of a message are the same in every language, but for a few translators' slips.
    const placeholders = (text: string) => [...new Set(text.match(/\{\d\}/g))].sort().join();
    for (const language of messageLanguages) {
      const same = messages[language].filter((text, i) => placeholders(text) === placeholders(messages.en[i]!));
      expect(same.length).toBeGreaterThan(0.98 * count);
    }
  });

  it("holds the names of the same regions in dozens of languages, from the runtime", () => {
    const names = regionNames();
    expect(Object.keys(names)[0]).toBe("en");
    expect(Object.keys(names).length).toBeGreaterThan(30);
    const count = names["en"]!.length;
    expect(count).toBeGreaterThan(200);
    for (const own of Object.values(names)) {
      expect(own).toHaveLength(count);
      expect(own.every((name) => name.length > 0)).toBe(true);
    }
    const at = names["en"]!.indexOf("Japan");
    expect([names["ja"]![at], names["fr"]![at], names["ru"]![at]]).toEqual(["日本", "Japon", "Япония"]);
    expect(Object.keys(regionNames(["de", "xx"]))).toEqual(["de"]);
  });

  it("names a package that is not installed, and the command that installs it", () => {
    expect(() => packageVersion("no-such-package-here")).toThrow(FileError);
    expect(() => packageVersion("no-such-package-here")).toThrow(/npm install no-such-package-here/);
  });
});
