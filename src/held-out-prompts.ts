/**
 * Short prompts from the held-out files of `@types/node` (MIT licence): three of each kind, each a cut of a real file
 * that no training run saw. The demo and the benches complete them.
 */

export type PromptKind = "declaration" | "doc comment" | "generic type";

export interface HeldOutPrompt {
  readonly kind: PromptKind;
  /** File of `@types/node` it was cut from. */
  readonly source: string;
  readonly text: string;
}

export const heldOutPrompts: readonly HeldOutPrompt[] = [
  {
    kind: "declaration",
    source: "os.d.ts",
    text: "    interface NetworkInterfaceBase {\n" + "        address: string;\n" + "        netmask: string;",
  },
  {
    kind: "declaration",
    source: "path.d.ts",
    text:
      "        interface ParsedPath {\n" +
      "            /**\n" +
      "             * The root of the path such as '/' or 'c:\\'\n" +
      "             */\n" +
      "            root: string;",
  },
  {
    kind: "declaration",
    source: "zlib.d.ts",
    text:
      "    function inflateRawSync(buf: InputType, options?: ZlibOptions): NonSharedBuffer;\n" +
      "    /**\n" +
      "     * @since v0.6.0\n" +
      "     */\n" +
      "    function unzip(",
  },
  {
    kind: "doc comment",
    source: "path.d.ts",
    text:
      "             * Normalize a string path, reducing '..' and '.' parts.\n" +
      "             * When multiple slashes are found,",
  },
  {
    kind: "doc comment",
    source: "worker_threads.d.ts",
    text:
      "         * If `stdin: true` was passed to the `Worker` constructor, this is a\n" +
      "         * writable stream. The data written to this",
  },
  {
    kind: "doc comment",
    source: "url.d.ts",
    text:
      "     * The `url.format()` method returns a formatted URL string derived from `urlObject`.\n" +
      "     *\n" +
      "     * ```js",
  },
  {
    kind: "generic type",
    source: "url.d.ts",
    text:
      "    interface URLSearchParamsIterator<T> extends NodeJS.Iterator<T, NodeJS.BuiltinIteratorReturn, unknown> {\n" +
      "        [Symbol.iterator]",
  },
  {
    kind: "generic type",
    source: "os.d.ts",
    text: "    interface UserInfo<T> {\n" + "        username: T;\n" + "        uid: number;",
  },
  {
    kind: "generic type",
    source: "zlib.d.ts",
    text: "        function __promisify__(buffer: InputType, options?: BrotliOptions): Promise<",
  },
];

/**
 * Cuts of the same files for what measures before it starts, a tree's shape or a drafter's use: it should not be measured
 * on prompts it has been set up on.
 */
export const calibrationPrompts: readonly HeldOutPrompt[] = [
  {
    kind: "doc comment",
    source: "querystring.d.ts",
    text: "    /**\n     * The `querystring.stringify()` method produces a URL query string from a\n     * given `obj`",
  },
  {
    kind: "declaration",
    source: "zlib.d.ts",
    text:
      "    function deflateRaw(buf: InputType, callback: CompressCallback): void;\n" +
      "    function deflateRaw(buf: InputType, options: ZlibOptions,",
  },
  {
    kind: "doc comment",
    source: "url.d.ts",
    text: "    /**\n     * This function ensures that `path` is resolved absolutely, and that the URL\n     * control",
  },
  {
    kind: "declaration",
    source: "path.d.ts",
    text:
      "            extname(path: string): string;\n" +
      "            /**\n" +
      "             * The platform-specific file separator.",
  },
  {
    kind: "generic type",
    source: "querystring.d.ts",
    text: "            | bigint\n            | ReadonlyArray<string | number | boolean | bigint>\n            |",
  },
];
