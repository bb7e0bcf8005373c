/** A training run from wherever it stands to its end: resumed from a file, saved to it, shown as it goes. */
import { existsSync } from "node:fs";
import { readFileBytes, writeFileAtomic } from "../files.ts";
import { duration, Progress } from "../progress.ts";
import type { Trainer } from "./trainer.ts";

export interface RunTrainingOptions {
  /** What is trained, in a word or two. */
  readonly label: string;
  /** File of the run's state. */
  readonly statePath: string;
  /** What a step pushes through the model. */
  readonly tokensPerStep: number;
  /** Stops the run after the current step; its state is saved. */
  readonly signal?: AbortSignal | undefined;
  /** Called with a line of text now and then: what a log wants. Default: nothing. */
  readonly log?: ((line: string) => void) | undefined;
}

/**
 * What a run came to. An interrupted one resumes exactly when started again; `tokensPerSecond` is this call's, null when an
 * earlier one had made all the steps.
 */
export type TrainingOutcome =
  | { readonly kind: "finished"; readonly steps: number; readonly tokensPerSecond: number | null }
  | { readonly kind: "interrupted"; readonly statePath: string; readonly steps: number };

/** Make all the steps that are left, resuming from the saved state where there is some. The trainer stays open. */
export async function runTraining<Batch>(
  trainer: Trainer<Batch>,
  options: RunTrainingOptions,
): Promise<TrainingOutcome> {
  const { label, statePath, tokensPerStep, signal, log = () => {} } = options;
  const { steps, validateEvery } = trainer.options;
  if (existsSync(statePath)) {
    trainer.restore(await readFileBytes(statePath), statePath);
    log(`resumed at step ${trainer.stepsDone}`);
  }
  const first = trainer.stepsDone;
  const started = performance.now();
  const speed = (): number => (tokensPerStep * (trainer.stepsDone - first)) / ((performance.now() - started) / 1000);
  const progress = new Progress(`training ${label}`, steps, first);
  try {
    let smoothed: number | undefined;
    while (!trainer.finished) {
      const { loss } = trainer.step();
      smoothed = smoothed === undefined ? loss : 0.98 * smoothed + 0.02 * loss;
      progress.update(trainer.stepsDone, `loss ${smoothed.toFixed(3)}  ${speed().toFixed(0)} tokens/s`);
      if (trainer.stepsDone % validateEvery === 0) {
        const { step, trainingLoss, validationLoss } = trainer.curve.at(-1)!;
        const left = duration(((steps - trainer.stepsDone) * tokensPerStep) / speed());
        log(
          `step ${step}: training ${trainingLoss.toFixed(4)}, held out ${validationLoss.toFixed(4)}, ` +
            `${speed().toFixed(0)} tokens/s, ${left} left`,
        );
        await writeFileAtomic(statePath, trainer.save());
      }
      // Lets Ctrl-C arrive between steps.
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted && !trainer.finished) {
        await writeFileAtomic(statePath, trainer.save());
        return { kind: "interrupted", statePath, steps: trainer.stepsDone };
      }
    }
  } finally {
    progress.finish();
  }
  const tokensPerSecond = first < steps ? speed() : null; // before saving, which is not training
  await writeFileAtomic(statePath, trainer.save());
  return { kind: "finished", steps, tokensPerSecond };
}
