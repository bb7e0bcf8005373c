/**
 * AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), on plain arrays.
 *
 *     m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2
 *     p = p - rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + decay p)
 *
 * **Deviations**: decay is multiplied by the learning rate, as PyTorch does it (the paper schedules both by one factor).
 */

export interface AdamWOptions {
  /** Decay rate of the first moment. Default 0.9. */
  readonly beta1: number;
  /** Decay rate of the second moment. Default 0.99. */
  readonly beta2: number;
  /** Default 1e-8. */
  readonly epsilon: number;
}

/** One parameter and its two moments, all of one length. */
export interface Moments {
  readonly first: Float32Array;
  readonly second: Float32Array;
}

/**
 * One update, in place.
 * @param t number of this update, from 1
 * @param rate learning rate of this update
 * @param decay weight decay; 0 for norms and biases
 */
export function adamWStep(
  parameter: Float32Array,
  gradient: Float32Array,
  moments: Moments,
  t: number,
  rate: number,
  decay: number,
  { beta1, beta2, epsilon }: AdamWOptions,
): void {
  const { first, second } = moments;
  const firstScale = 1 / (1 - beta1 ** t);
  const secondScale = 1 / (1 - beta2 ** t);
  for (let i = 0; i < parameter.length; i++) {
    const g = gradient[i]!;
    const m = beta1 * first[i]! + (1 - beta1) * g;
    const v = beta2 * second[i]! + (1 - beta2) * g * g;
    first[i] = m;
    second[i] = v;
    const p = parameter[i]!;
    parameter[i] = p - rate * ((m * firstScale) / (Math.sqrt(v * secondScale) + epsilon) + decay * p);
  }
}

/** Euclidean length of all gradients together, summed in doubles. */
export function globalNorm(gradients: Iterable<Float32Array>): number {
  let sum = 0;
  for (const gradient of gradients) for (let i = 0; i < gradient.length; i++) sum += gradient[i]! * gradient[i]!;
  return Math.sqrt(sum);
}

/** Scale all gradients in place so that their global norm is at most `limit`. @returns the norm before */
export function clipGlobalNorm(gradients: readonly Float32Array[], limit: number): number {
  const norm = globalNorm(gradients);
  if (norm > limit) {
    const factor = limit / norm;
    for (const gradient of gradients) for (let i = 0; i < gradient.length; i++) gradient[i]! *= factor;
  }
  return norm;
}

/**
 * Linear warm-up to `peak`, then a cosine down to `floor` (SGDR without restarts, arXiv 1608.03983).
 * @param step from 0
 */
export function warmupCosine(step: number, steps: number, warmupSteps: number, peak: number, floor: number): number {
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, steps - warmupSteps));
  return floor + (peak - floor) * 0.5 * (1 + Math.cos(Math.PI * progress));
}
