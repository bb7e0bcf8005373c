/**
 * Copy-heavy prompts: edits of declarations from the held-out files of `@types/node` (MIT licence), that no training run
 * saw. Each holds a cut of a real file and then the beginning of the same lines, edited; a model that completes it goes on
 * repeating most of what the prompt says. Drafters that look into the text live on such prompts.
 */

export interface HeldOutEdit {
  /** What is changed, in a few words. */
  readonly edit: string;
  /** File of `@types/node` the original was cut from. */
  readonly source: string;
  /** Lines of that file, as they are. */
  readonly original: string;
  /** The edited lines, begun. The prompt is `original + edited`. */
  readonly edited: string;
}

export const heldOutEdits: readonly HeldOutEdit[] = [
  {
    edit: "on becomes once",
    source: "worker_threads.d.ts",
    original:
      '        on(event: "error", listener: (err: Error) => void): this;\n' +
      '        on(event: "exit", listener: (exitCode: number) => void): this;\n' +
      '        on(event: "message", listener: (value: any) => void): this;\n' +
      '        on(event: "messageerror", listener: (error: Error) => void): this;\n' +
      '        on(event: "online", listener: () => void): this;\n' +
      "        on(event: string | symbol, listener: (...args: any[]) => void): this;\n",
    edited: '        once(event: "error",',
  },
  {
    edit: "addListener becomes prependListener",
    source: "worker_threads.d.ts",
    original:
      '        addListener(event: "close", listener: (ev: Event) => void): this;\n' +
      '        addListener(event: "message", listener: (value: any) => void): this;\n' +
      '        addListener(event: "messageerror", listener: (error: Error) => void): this;\n' +
      "        addListener(event: string, listener: (arg: any) => void): this;\n",
    edited:
      '        prependListener(event: "close", listener: (ev: Event) => void): this;\n' +
      '        prependListener(event: "message",',
  },
  {
    edit: "options become required",
    source: "worker_threads.d.ts",
    original:
      "        stdin?: boolean | undefined;\n" +
      "        stdout?: boolean | undefined;\n" +
      "        stderr?: boolean | undefined;\n" +
      "        execArgv?: string[] | undefined;\n" +
      "        resourceLimits?: ResourceLimits | undefined;\n",
    edited: "        stdin: boolean;\n        stdout:",
  },
  {
    edit: "null becomes undefined",
    source: "url.d.ts",
    original:
      "    interface Url {\n" +
      "        auth: string | null;\n" +
      "        hash: string | null;\n" +
      "        host: string | null;\n" +
      "        hostname: string | null;\n" +
      "        href: string;\n" +
      "        path: string | null;\n" +
      "        pathname: string | null;\n" +
      "        protocol: string | null;\n",
    edited: "    }\n    interface Url {\n        auth: string | undefined;\n        hash:",
  },
  {
    edit: "the namespace gets another name",
    source: "os.d.ts",
    original:
      "        namespace dlopen {\n" +
      "            const RTLD_LAZY: number;\n" +
      "            const RTLD_NOW: number;\n" +
      "            const RTLD_GLOBAL: number;\n" +
      "            const RTLD_LOCAL: number;\n" +
      "            const RTLD_DEEPBIND: number;\n" +
      "        }\n",
    edited: "        namespace loading {\n            const RTLD_LAZY: number;\n            const",
  },
  {
    edit: "deflate becomes inflate",
    source: "zlib.d.ts",
    original:
      "    function deflate(buf: InputType, callback: CompressCallback): void;\n" +
      "    function deflate(buf: InputType, options: ZlibOptions, callback: CompressCallback): void;\n" +
      "    namespace deflate {\n" +
      "        function __promisify__(buffer: InputType, options?: ZlibOptions): Promise<NonSharedBuffer>;\n" +
      "    }\n",
    edited:
      "    function inflate(buf: InputType, callback: CompressCallback): void;\n    function inflate(buf: InputType,",
  },
];
