/**
 * How well a model predicts text, in bits per byte: comparable between tokenizers and with file compressors, which
 * perplexity per token is not.
 *
 *     bits per byte = - sum log2 p(token | what came before) / bytes of the text
 */
import { ArgumentError } from "../errors.ts";
import { type LanguageModel, row } from "./language-model.ts";

export interface EvaluationOptions {
  /** Tokens a window advances by; the rest of it is context. Default: half the model's context. */
  readonly stride?: number;
  /** Called after each window with the tokens predicted so far. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Total bits a model spends on a stream, from its second token on. Windows of the model's context slide by `stride`, so
 * every token but those of the first window has at least `context - stride` tokens before it.
 * @param stream token ids, at least two; the first is given (a start or end-of-text token)
 */
export function totalBits(model: LanguageModel, stream: ArrayLike<number>, options: EvaluationOptions = {}): number {
  const window = model.contextLength;
  const stride = options.stride ?? Math.max(1, Math.floor(window / 2));
  if (!Number.isSafeInteger(stride) || stride < 1 || stride > window) {
    throw new ArgumentError("stride", `an integer from 1 to the model's context, ${window}`, stride);
  }
  if (stream.length < 2) throw new ArgumentError("stream", "at least two tokens", stream.length);
  const ids = Array.from(stream);
  const session = model.openSession();
  let bits = 0;
  let predicted = 1;
  try {
    for (let start = 0; predicted < ids.length; start += stride) {
      const end = Math.min(start + window, ids.length - 1);
      session.truncate(0);
      const { logits } = session.extend(ids.slice(start, end), { logits: "all" });
      for (; predicted <= end; predicted++) bits += surprise(row(logits, predicted - 1 - start), ids[predicted]!);
      options.onProgress?.(predicted, ids.length);
    }
  } finally {
    session.close();
  }
  return bits;
}

/** -log2 softmax(logits)[id], in doubles. */
export function surprise(logits: Float32Array, id: number): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (const value of logits) if (value > highest) highest = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - highest);
  return (highest - logits[id]! + Math.log(sum)) / Math.LN2;
}
