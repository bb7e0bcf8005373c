/**
 * SkipDecode: the further into the text, the fewer layers run. LOSSY: what it writes is not what the full network writes.
 *
 *     npx tsx examples/skipdecode.ts [--seed 0] [--temperature 0] [--json]
 *
 * Look for: three prompts of different lengths end in the same column, and from there on all of them run the same layers,
 * ever fewer. The lower middle is skipped, never the bottom layer or the top one. The network was tuned for that, so it is
 * another one and says something else early on, but something sensible; the untouched one, under the same schedule, follows
 * the full network for a while and then falls apart.
 */
import { parseArgs } from "node:util";
import { painter } from "../src/cli/output.ts";
import { heldOutPrompts } from "../src/held-out-prompts.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { exitSchedule, loadSkipDecode, type SkipDecodeBatch, skipDecodeBatch } from "../src/speculative/index.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "0" },
    temperature: { type: "string", default: "0" },
    json: { type: "boolean" },
  },
});
const { paint } = painter(process.stdout, process.env);
const { model: target, tokenizer } = await loadEmbedded("target");
const { model: tuned, schedule } = await loadSkipDecode();
const full = exitSchedule({ ...schedule, most: schedule.layers, least: schedule.layers });

const texts = [0, 5, 8].map((i) => heldOutPrompts[i]!.text);
const prompts = texts.map((text) => tokenizer.encode(text));
const options = {
  maxTokens: schedule.length - schedule.promptLength + 1,
  temperature: Number(values.temperature),
  seed: values.seed,
};

/** Which columns a sequence ran each layer in. */
const ran = prompts.map(() => Array.from({ length: schedule.layers }, () => new Set<number>()));
const runs = {
  "the full network": await skipDecodeBatch(target, prompts, full, options),
  "tuned to skip": await skipDecodeBatch(tuned, prompts, schedule, {
    ...options,
    onPass({ sequence, columns, layers }) {
      for (const layer of layers) for (const column of columns) ran[sequence]![layer]!.add(column);
    },
  }),
  "untouched, skipping": await skipDecodeBatch(target, prompts, schedule, options),
};
const cost = ({ reports, layerExecutions }: SkipDecodeBatch) => ({
  layerExecutions: layerExecutions.generated,
  multiplyAdds: reports.reduce((sum, report) => sum + report.cost.target.multiplyAdds, 0),
  cacheBytesRead: reports.reduce((sum, report) => sum + report.cost.target.cacheBytesRead, 0),
});
const [whole, skipping] = [runs["the full network"], runs["tuned to skip"]];

if (values.json) {
  const results = Object.entries(runs).map(([name, run]) => ({
    name,
    ...cost(run),
    texts: run.reports.map(({ tokens }) => tokenizer.decode(tokens)),
    lossy: run.reports.some(({ lossy }) => lossy),
  }));
  console.log(JSON.stringify({ schedule, results }));
} else {
  // One sign for three columns, of which it shows the first.
  const step = 3;
  for (const [sequence, text] of texts.entries()) {
    console.log(`${JSON.stringify(text.trimStart().slice(0, 60))}, ${prompts[sequence]!.length} tokens`);
    for (let layer = schedule.layers - 1; layer >= 0; layer--) {
      let line = "";
      for (let column = 0; column < schedule.length; column += step) {
        const runs = ran[sequence]![layer]!.has(column);
        const before = column < schedule.promptLength - prompts[sequence]!.length;
        line += before ? " " : runs ? paint("\u25a0", column < schedule.promptLength ? "dim" : "green") : "\u00b7";
      }
      console.log(`layer ${layer}  ${line}`);
    }
  }
  const edge = " ".repeat(schedule.promptLength / step - 1);
  console.log(`         ${edge}| the prompts end; columns 0 to ${schedule.length - 1}, one sign for three\n`);

  const [first] = texts as [string];
  for (const [name, { reports }] of Object.entries(runs)) {
    const { tokens } = reports[0]!;
    const differs = tokens.findIndex((token, i) => token !== whole.reports[0]!.tokens[i]);
    const same = differs < 0 ? tokens.length : differs;
    console.log(`${paint(name, "bold")}: the first ${same} of ${tokens.length} tokens are the full network's`);
    const [alike, other] = [tokens.slice(0, same), tokens.slice(same)].map((ids) => tokenizer.decode(ids));
    console.log(`${paint(first, "dim")}${paint(alike!, "green")}${other}\n`);
  }

  console.log("after the prompts     layers run  M multiply-adds  MB of cache read  lossy");
  for (const [name, run] of Object.entries(runs)) {
    const { layerExecutions, multiplyAdds, cacheBytesRead } = cost(run);
    const columns = [
      name.padEnd(20),
      String(layerExecutions).padStart(10),
      (multiplyAdds / 1e6).toFixed(1).padStart(15),
      (cacheBytesRead / 1e6).toFixed(1).padStart(16),
      run.reports.some(({ lossy }) => lossy) ? "  yes" : "   no",
    ];
    console.log(columns.join("  "));
  }
  const ratio = whole.layerExecutions.generated / skipping.layerExecutions.generated;
  const nominal = schedule.layers / schedule.meanBudget;
  console.log(
    `\n${ratio.toFixed(3)} times fewer layers; the schedule says ${nominal.toFixed(3)} where all texts run to the end.`,
  );
}
target.close();
tuned.close();
