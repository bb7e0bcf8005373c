/**
 * The text the project works on: what its own development dependencies ship. TypeScript's library declarations and
 * Node's, for code; TypeScript's diagnostic messages, for parallel text in 14 languages.
 *
 * Nothing is downloaded and nothing is copied into the repository. Where a package is absent (an installed tokenthrift
 * without them), a FileError says what to install.
 */
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, sep } from "node:path";
import { FileError } from "./errors.ts";

/** One file of text, named by package and path with forward slashes on every system. */
export interface Document {
  readonly name: string;
  readonly text: string;
}

/** Whole files of `@types/node` that no training run sees. */
export const heldOutFiles = [
  "os.d.ts",
  "path.d.ts",
  "querystring.d.ts",
  "string_decoder.d.ts",
  "url.d.ts",
  "worker_threads.d.ts",
  "zlib.d.ts",
] as const;

/** TypeScript's standard library declarations (`lib/lib*.d.ts`), sorted by name. About 3.1 MB. */
export function libraryDeclarations(): Document[] {
  const folder = join(packageFolder("typescript"), "lib");
  return readdirSync(folder)
    .filter((name) => name.startsWith("lib.") && name.endsWith(".d.ts"))
    .sort()
    .map((name) => ({ name: `typescript/lib/${name}`, text: readFileSync(join(folder, name), "utf8") }));
}

/** Node's declarations, sorted by name: the held-out files, and the others. About 0.14 and 2.1 MB. */
export function nodeDeclarations(): { heldOut: Document[]; others: Document[] } {
  const folder = packageFolder("@types/node");
  const heldOut: Document[] = [];
  const others: Document[] = [];
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => name.split(sep).join("/"))
    .filter((name) => name.endsWith(".d.ts") && !name.startsWith("node_modules/"))
    .sort();
  for (const name of names) {
    const document = { name: `@types/node/${name}`, text: readFileSync(join(folder, name), "utf8") };
    ((heldOutFiles as readonly string[]).includes(name) ? heldOut : others).push(document);
  }
  return { heldOut, others };
}

/** A language of the diagnostic messages: its tag as TypeScript names it. */
export const messageLanguages = [
  "en",
  "cs",
  "de",
  "es",
  "fr",
  "it",
  "ja",
  "ko",
  "pl",
  "pt-br",
  "ru",
  "tr",
  "zh-cn",
  "zh-tw",
] as const;
export type MessageLanguage = (typeof messageLanguages)[number];

/**
 * TypeScript's diagnostic messages in 14 languages, parallel: entry i says the same in each. Only messages that every
 * language has are returned. English comes from the compiler itself, the others from its translation files.
 */
export async function parallelMessages(): Promise<Record<MessageLanguage, string[]>> {
  const folder = join(packageFolder("typescript"), "lib");
  const compiler = (await import("typescript")) as unknown as {
    default: { Diagnostics: Record<string, { key: string; message: string }> };
  };
  const english = new Map(Object.values(compiler.default.Diagnostics).map(({ key, message }) => [key, message]));
  const translations = messageLanguages.slice(1).map((language) => {
    const path = join(folder, language, "diagnosticMessages.generated.json");
    return new Map(Object.entries(JSON.parse(readFileSync(path, "utf8")) as Record<string, string>));
  });
  const keys = [...english.keys()].filter((key) => translations.every((messages) => messages.has(key))).sort();
  return Object.fromEntries(
    [english, ...translations].map((messages, i) => [messageLanguages[i]!, keys.map((key) => messages.get(key)!)]),
  ) as Record<MessageLanguage, string[]>;
}

/** Languages of many scripts and families, by their BCP 47 tags, English first. */
export const nameLanguages: readonly string[] = (
  "en fr de es it pt nl sv da fi et lv lt pl cs sk hu ro bg el ru uk sr hr tr az kk uz he ar fa ur hi bn ta te th vi id " +
  "ja ko zh ka hy am sw"
).split(" ");

/**
 * Names of the world's regions in many languages, parallel: entry i is the same region in each. From the runtime's own
 * locale data (`Intl.DisplayNames`), whose wording may change with its version. A language it knows nothing of is left out.
 */
export function regionNames(languages: readonly string[] = nameLanguages): Record<string, string[]> {
  const letters = Array.from("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
  const codes = letters.flatMap((first) => letters.map((second) => first + second));
  const english = new Intl.DisplayNames(["en"], { type: "region", fallback: "none" });
  const known = codes.filter((code) => english.of(code) !== undefined);
  const supported = Intl.DisplayNames.supportedLocalesOf([...languages]);
  return Object.fromEntries(
    supported.map((language) => {
      const names = new Intl.DisplayNames([language], { type: "region" });
      return [language, known.map((code) => names.of(code)!)];
    }),
  );
}

/** The version of an installed package, for reports that must say what they measured on. */
export function packageVersion(name: string): string {
  const manifest = JSON.parse(readFileSync(join(packageFolder(name), "package.json"), "utf8")) as { version: string };
  return manifest.version;
}

function packageFolder(name: string): string {
  const resolver = createRequire(import.meta.url);
  try {
    return dirname(resolver.resolve(`${name}/package.json`));
  } catch {
    throw new FileError(name, "this package is not installed and its text is needed", `Run: npm install ${name}`);
  }
}
