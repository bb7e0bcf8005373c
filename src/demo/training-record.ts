/** What the demo shows of a checkpoint's `training.json`. The file is anybody's: what does not look right is left out. */

export interface TrainingFigures {
  /** Losses in nats per token. */
  readonly curve: readonly { readonly step: number; readonly trainingLoss: number; readonly validationLoss: number }[];
  /** Held-out bits per byte, of the model and of what it is compared with; null where not measured. */
  readonly bitsPerByte: {
    readonly model: number | null;
    readonly gzip: number | null;
    readonly xz: number | null;
    readonly fiveGram: number | null;
  };
}

/** @param training the parsed content of `training.json`, or undefined where there is none */
export function trainingFigures(training: unknown): TrainingFigures {
  const evaluation = field(training, "evaluation");
  const curve = field(training, "curve");
  return {
    curve: (Array.isArray(curve) ? (curve as unknown[]) : []).flatMap((point) => {
      const [step, trainingLoss, validationLoss] = ["step", "trainingLoss", "validationLoss"].map((name) =>
        number(field(point, name)),
      );
      if (step == null || trainingLoss == null || validationLoss == null) return [];
      return [{ step, trainingLoss, validationLoss }];
    }),
    bitsPerByte: {
      model: number(field(evaluation, "bitsPerByte")),
      gzip: number(field(evaluation, "gzip")),
      xz: number(field(evaluation, "xz")),
      fiveGram: number(field(evaluation, "fiveGram")),
    },
  };
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
