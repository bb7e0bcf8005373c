/** `tokenthrift train`: make the embedded pair again, or a short run of it. */
import { join } from "node:path";
import { partKinds } from "../speculative/trained-parts.ts";
import type { Command } from "./command-line.ts";
import { UsageError, unknown } from "./command-line.ts";
import { requireWritableFolder } from "./writable-folder.ts";

const models = ["target", "draft", ...partKinds] as const;

export const trainCommand: Command = {
  name: "train",
  summary: "train the embedded models; a run that was stopped goes on where it was",
  options: [
    {
      name: "model",
      value: models.join("|"),
      help: "train only this one (default: all, in this order: parts learn from the embedded target)",
    },
    { name: "steps", value: "<n>", help: "updates to make (default: the recipe's)" },
    { name: "out", value: "<dir>", help: "folder of the checkpoint (default: the embedded one, which is replaced)" },
    { name: "state", value: "<dir>", help: "folder for unfinished runs (default: .checkpoints)" },
  ],
  examples: ["tokenthrift train --model draft --steps 200 --out report/short-draft"],
  async run(input, { stdout, stderr, onInterrupt }) {
    const named = input.text("model");
    if (named !== undefined && !(models as readonly string[]).includes(named)) {
      throw unknown("model", named, models, trainCommand);
    }
    const [steps, out, state] = [input.integer("steps"), input.text("out"), input.text("state") ?? ".checkpoints"];
    if (out !== undefined && named === undefined) {
      throw new UsageError("--out is one checkpoint's folder: say which with --model.");
    }
    await requireWritableFolder(state);
    if (out !== undefined) await requireWritableFolder(out);

    const controller = new AbortController();
    onInterrupt?.(() => {
      stderr.write("\nStopping after this update and saving. Ctrl-C again quits at once.\n");
      controller.abort();
    });
    for (const model of models) {
      if (named !== undefined && named !== model) continue;
      stderr.write(`training ${model}\n`);
      const options = {
        state,
        signal: controller.signal,
        log: (line: string) => void stderr.write(`${line}\n`),
        ...(steps !== undefined && { steps }),
        ...(out !== undefined && { out }),
      };
      const result =
        model === "target" || model === "draft"
          ? await (await import("../embedded-pair.ts")).trainEmbedded({ model, ...options })
          : await (await import("../embedded-parts/train-part.ts")).trainPart({ kind: model, ...options });
      if (result.kind === "interrupted") {
        const place = join(result.statePath);
        stdout.write(`${model}: stopped at step ${result.steps}, saved in ${place}. Run the same command to go on.\n`);
        return 130;
      }
      const speed = result.tokensPerSecond === null ? "" : `, ${result.tokensPerSecond.toFixed(0)} tokens/s`;
      stdout.write(`${model}: ${result.steps} steps${speed}, written to ${result.folder}\n`);
    }
    return 0;
  },
};
