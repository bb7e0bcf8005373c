/**
 * The speculative family on the embedded pair, on both runners: the tensor decoder, where a wide pass costs hardly more than
 * a narrow one, as on a GPU, and the engine, where it costs its arithmetic. The comparison itself is
 * `tokenthrift bench speculative`; options are passed on to it.
 *
 *     npx tsx bench/speculative.ts [--temperatures 0] [--budgets 4,16] [--json]
 */
import { pathToFileURL } from "node:url";
import { main } from "../src/cli/main.ts";

/** Runs both comparisons; prints tables, or one JSON document each. */
export async function benchSpeculative({
  json = false,
  words = [],
}: {
  json?: boolean;
  words?: readonly string[];
} = {}): Promise<void> {
  const { stdout, stderr, env } = process;
  for (const runs of ["tensors", "engine"]) {
    const code = await main(["bench", "speculative", "--runs", runs, ...words, ...(json ? ["--json"] : [])], {
      stdout,
      stderr,
      env,
    });
    if (code !== 0) throw new Error(`bench speculative on ${runs} ended with ${code}`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await benchSpeculative({ words: process.argv.slice(2) });
}
