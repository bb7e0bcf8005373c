/**
 * The cost tables of the technique pages: `npx tsx scripts/technique-tables.ts <comparison.json> ..` writes what
 * `tokenthrift bench speculative --out` measured between the markers of docs/techniques/*.md, one file per runner, and the
 * techniques side by side into docs/results.md. What SkipDecode loses is written from the record of its training.
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { ComparisonRow } from "../src/comparison/speculative.ts";
import { ceilingOf, type SpeculativeComparison, tableOf } from "../src/comparison/speculative-report.ts";
import { writeFilesAtomic } from "../src/files.ts";

const [begin, end] = ["<!-- figures:begin -->", "<!-- figures:end -->"];
const root = join(import.meta.dirname, "..");
const folder = join(root, "docs", "techniques");
/** Depths whose acceptance is shown. */
const depths = 4;

const comparisons = process.argv.slice(2).map((path): SpeculativeComparison => JSON.parse(readFileSync(path, "utf8")));
const [first] = comparisons;

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const distinct = <Value>(values: readonly Value[]): Value[] => [...new Set(values)];
const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
const fixed = (value: number): string => (Number.isFinite(value) ? value.toFixed(2) : "-");

/** What a page says of its technique; undefined where it was not compared. */
function figuresOf(technique: string, { maxTokens, prompts, rows: all }: SpeculativeComparison): string | undefined {
  const rows = all.filter((row) => row.technique === technique);
  if (rows.length === 0) return undefined;
  const budgets = distinct(rows.map(({ budget }) => budget));
  const temperatures = distinct(rows.map(({ temperature }) => temperature));
  const sets = distinct(rows.map(({ promptSet }) => promptSet));

  const bySet = sets.flatMap((set) =>
    temperatures.map((temperature) => [
      `${set} (${prompts[set]})`,
      String(temperature),
      ...budgets.map((budget) =>
        fixed(mean(matching(rows, { promptSet: set, temperature, budget }).map((row) => row.tokensPerPass))),
      ),
    ]),
  );
  const temperature = temperatures[0]!;
  const byBudget = budgets.map((budget) => {
    const own = matching(rows, { temperature, budget });
    const products = own.map(
      ({ multiplyAddsPerToken: { target, draft }, plainMultiplyAddsPerToken: plain }) => (target + draft) / plain,
    );
    return [
      String(budget),
      fixed(mean(own.map(({ guesses }) => guesses))),
      fixed(mean(own.map(({ tokensPerPass }) => tokensPerPass))),
      acceptanceByDepth(own),
      fixed(mean(own.map(({ draftPassesPerToken }) => draftPassesPerToken))),
      fixed(mean(products)),
      ...comparisons.map(({ rows }) =>
        fixed(mean(matching(rows, { technique, temperature, budget }).map(({ speedup }) => speedup))),
      ),
    ];
  });
  return [
    `Tokens per target pass on the embedded pair, ${maxTokens} tokens after each prompt, by the guesses a pass may make:`,
    "",
    table(["prompts", "temperature", ...budgets.map((budget) => `${budget} guesses`)], bySet),
    "",
    `At temperature ${temperature}, means over the prompt sets:`,
    "",
    table(
      [
        "guesses allowed",
        "made",
        "tokens a pass",
        `kept of those tested, at depth 1 to ${depths}`,
        "draft passes a token",
        "multiply-adds, x plain",
        ...comparisons.map(({ runs }) => `speed, ${runs === "tensors" ? "tensor decoder" : runs}`),
      ],
      byBudget,
    ),
  ].join("\n");
}

/** All techniques side by side: docs/results.md. */
function sideBySide({ maxTokens, prompts, rows: all }: SpeculativeComparison): string {
  const parts: string[] = [];
  const sets = Object.entries(prompts).map(([name, count]) => `${count} ${name}`);
  parts.push(`${maxTokens} tokens after each prompt: ${sets.join(", ")}. Means over the sets.`);
  for (const temperature of distinct(all.map((row) => row.temperature))) {
    const own = all.filter((row) => row.temperature === temperature);
    const { budgets, lines } = tableOf(own, ({ tokensPerPass }) => tokensPerPass);
    parts.push(
      `Temperature ${temperature}, tokens per target pass by guesses a pass:`,
      table(
        ["technique", ...budgets.map(String)],
        lines.map(({ technique, values }) => [`\`${technique}\``, ...values.map(fixed)]),
      ),
    );
  }
  const greedy = comparisons.flatMap(({ rows }) => rows.filter(({ identical }) => identical !== null));
  const same = greedy.filter(({ identical }) => identical).length;
  parts.push(`Identical to plain decoding at temperature 0: ${same} of ${greedy.length} rows.`);
  for (const { runs, passCosts, rows } of comparisons) {
    const where = runs === "tensors" ? "the tensor decoder" : "the engine";
    const curve = passCosts.nodes.map((nodes, i) => `${nodes}: ${fixed(passCosts.costs[i]!)}`).join(", ");
    const { nodes, speedup } = ceilingOf(passCosts);
    const own = rows.filter(({ temperature }) => temperature === 0);
    const { budgets, lines } = tableOf(own, (row) => row.speedup);
    const best = lines
      .map(({ technique, values }) => ({ technique, speedup: Math.max(...values) }))
      .reduce((a, b) => (b.speedup > a.speedup ? b : a));
    parts.push(
      `Seconds on ${where}, temperature 0: plain decoding's over the technique's. A pass over n tokens costs, in passes over ` +
        `one: ${curve}. So a drafter that is always right and costs nothing would be ${fixed(speedup)} times as fast, with ` +
        `${nodes - 1} guesses; of the techniques \`${best.technique}\` does best, ${fixed(best.speedup)}. Single rows take a few hundredths of a second and scatter by a tenth and more.`,
      table(
        ["technique", ...budgets.map(String)],
        lines.map(({ technique, values }) => [`\`${technique}\``, ...values.map(fixed)]),
      ),
    );
  }
  return parts.join("\n\n");
}

/** What `training.json` of SkipDecode says of a network under a schedule. */
interface UnderSchedule {
  readonly meanLayers: number;
  readonly bitsPerByte: number;
  /** Share of tokens, the full network's text given, at which it would write the same. */
  readonly agreement: number;
}

function skipDecodeFigures(): string {
  const path = join(root, "models", "skipdecode", "training.json");
  const { heldOut }: { readonly heldOut: Readonly<Record<string, Readonly<Record<string, UnderSchedule>>>> } =
    JSON.parse(readFileSync(path, "utf8"));
  const rows = Object.entries(heldOut).flatMap(([network, schedules]) =>
    Object.entries(schedules).map(([schedule, { meanLayers, bitsPerByte, agreement }]) => [
      network,
      schedule,
      fixed(meanLayers),
      bitsPerByte.toFixed(3),
      `${(100 * agreement).toFixed(0)} %`,
    ]),
  );
  return [
    "On held-out text, networks under schedules, those it was not tuned for among them:",
    "",
    table(["network", "schedule", "mean layers", "bits per byte", "tokens as the full network's"], rows),
  ].join("\n");
}

/** Rows that are as asked. */
function matching(rows: readonly ComparisonRow[], asked: Partial<ComparisonRow>): ComparisonRow[] {
  return rows.filter((row) => Object.entries(asked).every(([key, value]) => row[key as keyof ComparisonRow] === value));
}

/** `.61, .58, ..`; a dash where nothing was tested. */
function acceptanceByDepth(rows: readonly ComparisonRow[]): string {
  return Array.from({ length: depths }, (_, d) => {
    const sum = (of: "tested" | "accepted"): number =>
      rows.reduce((total, { positions }) => total + (positions[d]?.[of] ?? 0), 0);
    return sum("tested") === 0 ? "-" : (sum("accepted") / sum("tested")).toFixed(2).replace(/^0/, "");
  }).join(", ");
}

const files: [string, string][] = [];
const pages = readdirSync(folder).map((name) => join(folder, name));
for (const path of [...pages, join(root, "docs", "results.md")]) {
  const name = basename(path);
  const page = readFileSync(path, "utf8");
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) continue;
  const technique = basename(name, ".md");
  const figures =
    technique === "skipdecode"
      ? skipDecodeFigures()
      : first && (name === "results.md" ? sideBySide(first) : figuresOf(technique, first));
  if (figures === undefined) {
    console.error(`${name}: not compared, left as it is`);
    continue;
  }
  files.push([path, `${page.slice(0, from + begin.length)}\n${figures}\n${page.slice(to)}`]);
}
await writeFilesAtomic(files);
for (const [path] of files) console.log(path);
