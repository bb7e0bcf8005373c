/** A tiny decoder whose weights are all alive, as a target for heads: its parts, its engine, and random heads for it. */
import { initialWeights } from "../../src/model/decoder.ts";
import type { DecoderConfig } from "../../src/model/decoder-config.ts";
import type { Weights } from "../../src/model/weights.ts";
import { chimeraShapes } from "../../src/speculative/chimera-heads.ts";
import { type HeadTarget, headTarget } from "../../src/speculative/head-layers.ts";
import { medusaShapes } from "../../src/speculative/medusa.ts";
import { Random } from "../../src/tensor/random.ts";

/** No width but the heads' a multiple of the kernels' eight. */
export const tinyConfig: DecoderConfig = {
  vocabularySize: 19,
  width: 12,
  layers: 2,
  heads: 4,
  keyValueHeads: 2,
  headWidth: 4,
  hiddenWidth: 20,
  contextLength: 32,
  ropeTheta: 100,
  normEpsilon: 1e-5,
  tiedEmbeddings: true,
  projectionBiases: false,
};

/** Normal deviates of a size at which nothing saturates and nothing vanishes. */
export function livelyWeights(shapes: ReadonlyMap<string, readonly number[]>, seed: string): Map<string, Weights> {
  const weights = new Map<string, Weights>();
  for (const [name, shape] of shapes) {
    const stream = new Random(seed).fork(name);
    const deviation = shape.length === 1 ? 0.3 : 1 / Math.sqrt(shape[1]!);
    const middle = name.endsWith("norm.weight") ? 1 : 0;
    const data = Float32Array.from(
      { length: shape.reduce((a, b) => a * b, 1) },
      () => middle + deviation * stream.normal(),
    );
    weights.set(name, { shape, data });
  }
  return weights;
}

export function tinyWeights(config = tinyConfig): Map<string, Weights> {
  const shapes = new Map([...initialWeights(config, new Random(0))].map(([name, { shape }]) => [name, shape]));
  return livelyWeights(shapes, "target");
}

export function tinyTarget(config = tinyConfig): HeadTarget {
  return headTarget(config, tinyWeights(config));
}

export const medusaWeights = (target: HeadTarget, heads: number, tied = false) =>
  livelyWeights(medusaShapes(target, heads, tied), "medusa");
export const chimeraWeights = (target: HeadTarget, heads: number) =>
  livelyWeights(chimeraShapes(target, heads), "chimera");
