/**
 * `node --import tsx bench/dynamic-merging.ts [--json]`: what merging a batch costs, beside the loop that counts everything
 * anew for each merge and beside one pass of the embedded target over the same tokens.
 *
 * A batch is 32 rows of 512 tokens of TypeScript's declarations, merged to the end. Both loops do the same merges, which is
 * checked. The target holds 256 positions, so its pass over the batch is 64 rows of 256. Seconds are the median of several
 * runs, of the slow loop one.
 */
import { pathToFileURL } from "node:url";
import { libraryDeclarations } from "../src/corpus.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { mergeBatch, splitText } from "../src/tokenization/index.ts";
import { recountingMerging } from "../test/tokenization/recounting-merging.ts";

export interface DynamicMergingBench {
  readonly tokens: { readonly before: number; readonly after: number };
  readonly merges: number;
  /** Milliseconds. */
  readonly merging: { readonly cold: number; readonly warm: number };
  readonly slowLoop: number;
  readonly pass: number;
  /** The slow loop over warm merging, and warm merging over the pass. */
  readonly timesFaster: number;
  readonly shareOfPass: number;
  readonly identical: boolean;
}

export async function benchDynamicMerging({ json = false } = {}): Promise<DynamicMergingBench> {
  const { model, tokenizer } = await loadEmbedded("target");
  const text = libraryDeclarations()
    .map((file) => file.text)
    .join("")
    .slice(1_000_000, 1_200_000);
  const ids = tokenizer.encode(text, { disallowedSpecial: [] });
  const rows = Array.from({ length: 32 }, (_, r) => ids.slice(512 * r, 512 * (r + 1)));

  const cold = milliseconds(() => mergeBatch(rows, { tokenizer }));
  const warm = median(Array.from({ length: 30 }, () => milliseconds(() => mergeBatch(rows, { tokenizer }))));
  const { merges, lengths, bytes } = mergeBatch(rows, { tokenizer });

  const name = (part: Uint8Array): string => Buffer.from(part).toString("latin1");
  const spelled = rows.map((row) => Array.from(row, (id) => name(tokenizer.tokenBytes(id))));
  let slow = recountingMerging([[]], "pretokens", () => true);
  const slowLoop = milliseconds(() => {
    slow = recountingMerging(spelled, "pretokens", (piece) => splitText(piece, tokenizer.pattern).length === 1);
  });
  const written = (pairs: readonly (readonly [string, string, number])[]): string => JSON.stringify(pairs);
  const identical =
    written(slow.merges.map(({ left, right, count }) => [left, right, count])) ===
    written(merges.map(({ left, right, count }) => [name(bytes(left)), name(bytes(right)), count]));

  const session = model.openSession();
  const pass = median(
    Array.from({ length: 5 }, () =>
      milliseconds(() => {
        for (let start = 0; start < 32 * 512; start += 256) {
          session.truncate(0);
          session.extend(ids.subarray(start, start + 256));
        }
      }),
    ),
  );
  model.close();
  const result = {
    tokens: { before: lengths[0]!, after: lengths.at(-1)! },
    merges: merges.length,
    merging: { cold, warm },
    slowLoop,
    pass,
    timesFaster: slowLoop / warm,
    shareOfPass: warm / pass,
    identical,
  };
  if (json) console.log(JSON.stringify(result));
  else print(result);
  return result;
}

function print({ tokens, merges, merging, slowLoop, pass, timesFaster, shareOfPass, identical }: DynamicMergingBench) {
  console.log(`dynamic merging, 32 rows of 512 tokens: ${tokens.before} -> ${tokens.after} tokens in ${merges} merges`);
  console.log(`  milliseconds: ${merging.warm.toFixed(1)} (the first time ${merging.cold.toFixed(1)})`);
  console.log(
    `  counting anew for each merge: ${slowLoop.toFixed(0)}, ${timesFaster.toFixed(0)} times as long; ` +
      `merges ${identical ? "identical" : "DIFFER"}`,
  );
  console.log(
    `  one pass of the embedded target: ${pass.toFixed(0)}; merging takes ${(100 * shareOfPass).toFixed(2)} % of it`,
  );
}

function milliseconds(work: () => void): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  await benchDynamicMerging({ json: process.argv.includes("--json") });
}
