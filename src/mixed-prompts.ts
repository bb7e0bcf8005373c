/**
 * Prompts from other domains than the embedded pair was trained on: program text, JSON, prose, Markdown, messages in other
 * languages; each a cut of a real file of a package this project works with (seedrandom: MIT licence; typescript:
 * Apache-2.0). What a technique is worth on text its models do not know.
 */

export interface MixedPrompt {
  readonly domain: string;
  /** Package and file it was cut from. */
  readonly source: string;
  readonly text: string;
}

export const mixedPrompts: readonly MixedPrompt[] = [
  {
    domain: "JavaScript",
    source: "seedrandom/seedrandom.js",
    text:
      "    while (n < significance) {          // Fill up all significant digits by\n" +
      "      n = (n + x) * width;              //   shifting numerator and\n" +
      "      d *= width;",
  },
  {
    domain: "JSON",
    source: "seedrandom/package.json",
    text:
      '  "version": "3.0.5",\n' +
      '  "description": "Seeded random number generator for Javascript.",\n' +
      '  "main": "index.js",\n' +
      '  "jsdelivr":',
  },
  {
    domain: "legal prose",
    source: "typescript/LICENSE.txt",
    text: '"Work" shall mean the work of authorship, whether in Source or Object form, made available under the License,',
  },
  {
    domain: "Markdown",
    source: "typescript/README.md",
    text: "is a language for application-scale JavaScript. TypeScript adds optional types to JavaScript that support tools",
  },
  {
    domain: "German",
    source: "typescript/lib/de/diagnosticMessages.generated.json",
    text: "Schlüsselwörter können keine Escapezeichen",
  },
  {
    domain: "Japanese",
    source: "typescript/lib/ja/diagnosticMessages.generated.json",
    text: "ジャンプ先は関数の境界を越える",
  },
];
