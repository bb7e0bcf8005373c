/**
 * `npm run bench -- [name ...] [--json]`: measurements as ratios between things measured in the same run.
 * Each bench is also a script of its own.
 */
import { benchDecode } from "./decode.ts";
import { benchDynamicMerging } from "./dynamic-merging.ts";
import { benchSpeculative } from "./speculative.ts";
import { benchTokenization } from "./tokenization.ts";
import { benchTraining } from "./training.ts";

const benches: Readonly<Record<string, (options: { json?: boolean }) => Promise<unknown>>> = {
  tokenization: benchTokenization,
  "dynamic-merging": benchDynamicMerging,
  training: benchTraining,
  decode: benchDecode,
  speculative: benchSpeculative,
};

const json = process.argv.includes("--json");
const names = process.argv.slice(2).filter((argument) => !argument.startsWith("--"));
for (const name of names.length > 0 ? names : Object.keys(benches)) {
  if (!(name in benches)) {
    console.error(`bench: expected ${Object.keys(benches).join(", ")}; got ${name}`);
    process.exit(2);
  }
  await benches[name]!({ json });
}
