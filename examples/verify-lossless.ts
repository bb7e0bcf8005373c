/**
 * Is a drafter lossless? One call checks it: a right one, and one with a mistake that real libraries have shipped.
 *
 *     npx tsx examples/verify-lossless.ts [--seed 0] [--draws 5000] [--json]
 *
 * Look for: the wrong drafter passes at temperature 0 and keeps every contract, and text written with it looks like any
 * other. Its chi-squares give it away, and the line below them says where to look: the guesses do not come from the laws
 * they state. `sees a total variation of` is how wrong a law must be to be found with these draws.
 */
import { parseArgs } from "node:util";
import { Progress } from "../src/progress.ts";
import type { GrowingTree } from "../src/speculative/index.ts";
import { ChainDrafter, ModelDrafter, verifyLossless } from "../src/speculative/index.ts";

const { values } = parseArgs({
  options: { seed: { type: "string", default: "0" }, draws: { type: "string" }, json: { type: "boolean" } },
});

/** Guesses the most probable token, three in a row, and states the law it did not draw from. */
class ArgMaxStatedAsDrawn extends ModelDrafter {
  protected override grow(tree: GrowingTree): void {
    for (let node = 0; tree.depths[node]! < Math.min(3, tree.room, tree.maxDepth); ) {
      const law = tree.law(node);
      if (law === null) break;
      node = tree.add(node, law.indexOf(Math.max(...law)), law);
    }
  }
}

const reports = [];
for (const Drafter of [ChainDrafter, ArgMaxStatedAsDrawn]) {
  let progress: Progress | undefined;
  const report = await verifyLossless((draft) => ({ drafter: new Drafter(draft) }), {
    seed: values.seed,
    ...(values.draws !== undefined && { draws: Number(values.draws) }),
    onProgress: (done, total, detail) => {
      progress ??= new Progress(Drafter.name, total);
      progress.update(done, detail);
    },
  });
  progress?.finish();
  if (!values.json) console.log(`${Drafter.name}\n${report.text}\n`);
  reports.push({ drafter: Drafter.name, ...report });
}
if (values.json) console.log(JSON.stringify(reports));
