/**
 * Chimera's encoders and heads as one differentiable definition, and what they are trained for. See `chimera.ts` for the
 * idea; this file is the one the running encoders are held against.
 *
 * All drafts a sequence could have at once: anchor t (from 1) has the target's states h_0 .. h_{t-1} and drafts from the
 * pending x_t on. At depth i the row of anchor t stands at position t + i, attends to the states before the anchor, to the
 * f of its own draft before it (one per depth: a diagonal) and to itself (another diagonal):
 *
 *     scores of depth i   [ q K_h^T + causal | q . k(f of depth 0) | .. | q . k(f of depth i - 1) | q . k(g) ]
 */

import type { DecoderConfig } from "../../model/decoder-config.ts";
import { llamaBlock, type Rotation, rotate, rotationAt } from "../../model/decoder-llama.ts";
import type { Weights } from "../../model/weights.ts";
import {
  add,
  concat,
  matMul,
  mean,
  multiply,
  reshape,
  rmsNorm,
  scale,
  silu,
  slice,
  softCrossEntropy,
  softmax,
  square,
  subtract,
  sum,
  tensor,
  transpose,
} from "../../tensor/ops.ts";
import type { Random } from "../../tensor/random.ts";
import type { Tensor } from "../../tensor/tf.ts";
import type { Objective } from "../../training/trainer.ts";
import { chimeraNames, chimeraShapes, encoderConfig, trigramAt } from "../chimera-heads.ts";
import type { HeadTarget } from "../head-layers.ts";
import { transposedHead } from "./medusa-training.ts";
import type { HeadBatch, TargetStates } from "./target-states.ts";

export interface ChimeraObjectiveOptions {
  /** Heads, hence levels of a draft. Default 4. */
  readonly heads?: number;
  /** What (f - h)^2 counts beside the cross-entropies. Default 0.1. */
  readonly stateWeight?: number;
  /**
   * Weights the full-context encoder starts from, by the names of `chimeraShapes`: the target's first layer's, say.
   * Default: none, normal(0, 0.02).
   */
  readonly block?: ReadonlyMap<string, Weights>;
}

/** Both encoders and the heads, over batches of whole sequences of one size. Close it. */
export class ChimeraDefinition {
  readonly heads: number;
  readonly #target: HeadTarget;
  readonly #config: DecoderConfig;
  readonly #batch: number;
  readonly #length: number;
  readonly #outputHead: Tensor;
  /** [anchors, anchors]: 0 on and below the diagonal, -1e9 above */
  readonly #causalMask: Tensor;
  /** Of the committed states, then of each depth. */
  readonly #rotations: readonly Rotation[];

  /** Not to be called within a `tidy`: it makes what lasts. */
  constructor(target: HeadTarget, heads: number, batch: number, length: number) {
    const { width, vocabularySize } = target.config;
    this.heads = heads;
    this.#target = target;
    this.#config = encoderConfig(target.config);
    this.#batch = batch;
    this.#length = length;
    this.#outputHead = tensor(transposedHead(target), [width, vocabularySize]);
    const anchors = this.anchors;
    const mask = new Float32Array(anchors * anchors);
    for (let q = 0; q < anchors; q++) mask.fill(-1e9, q * anchors + q + 1, (q + 1) * anchors);
    this.#causalMask = tensor(mask, [anchors, anchors]);
    this.#rotations = Array.from({ length: heads + 1 }, (_, shift) =>
      rotationAt(
        this.#config,
        Array.from({ length: batch * anchors }, (_, r) => (r % anchors) + shift),
      ),
    );
  }

  /** Anchors of a sequence: pending tokens 1 .. length - heads, so that the target's law is known after each depth's token. */
  get anchors(): number {
    return this.#length - this.heads;
  }

  /**
   * Every draft along the text itself.
   * @returns per depth: states f, [batch * anchors, width], and logits of the token after, [batch * anchors, vocabularySize]
   */
  run(
    parameters: Readonly<Record<string, Tensor>>,
    { ids, hidden }: Pick<HeadBatch, "ids" | "hidden">,
  ): { readonly states: Tensor[]; readonly logits: Tensor[] } {
    const { width, heads, keyValueHeads, headWidth } = this.#config;
    const [batch, length, anchors] = [this.#batch, this.#length, this.anchors];
    const rotations = this.#rotations;
    const group = heads / keyValueHeads;
    const pairs = batch * keyValueHeads; // of a sequence and a head of keys and values
    const block = Object.fromEntries(
      Object.entries(parameters).map(([name, value]) => [
        name,
        name.endsWith("_proj.weight") ? transpose(value) : value,
      ]),
    );
    const of = (name: string): Tensor => block[`model.layers.0.${name}.weight`]!;
    /** Keys and values of states [batch * anchors, width], as [batch, anchors, keyValueHeads, headWidth]. */
    const keysValues = (states: Tensor, { keys, swap }: Rotation): [Tensor, Tensor] => {
      const normed = rmsNorm(states, of("input_layernorm"), this.#config.normEpsilon);
      const turned = rotate(matMul(normed, of("self_attn.k_proj")), keys, swap);
      const shape = [batch, anchors, keyValueHeads, headWidth];
      return [reshape(turned, shape), reshape(matMul(normed, of("self_attn.v_proj")), shape)];
    };
    /** [batch, anchors, keyValueHeads, headWidth] -> [pairs, 1, anchors, headWidth] */
    const diagonal = (x: Tensor): Tensor => reshape(transpose(x, [0, 2, 1, 3]), [pairs, 1, anchors, headWidth]);

    const states = tensor(hidden, [batch, length, width]);
    const committed = reshape(slice(states, [0, 0, 0], [batch, anchors, width]), [batch * anchors, width]);
    const [stateKeys, stateValues] = keysValues(committed, rotations[0]!);
    const committedKeys = reshape(transpose(stateKeys, [0, 2, 3, 1]), [pairs, headWidth, anchors]);
    const committedValues = reshape(transpose(stateValues, [0, 2, 1, 3]), [pairs, anchors, headWidth]);
    const drafted: { readonly keys: Tensor; readonly values: Tensor }[] = [];

    const trigrams = this.#trigramStates(parameters, ids);
    const result = { states: [] as Tensor[], logits: [] as Tensor[] };
    for (let depth = 0; depth < this.heads; depth++) {
      const g = reshape(slice(trigrams, [0, 1 + depth, 0], [batch, anchors, width]), [batch * anchors, width]);
      const rotation = rotations[1 + depth]!;
      const f = llamaBlock(this.#config, block, 0, g, rotation, (_, queries, keys, values) => {
        const byHead = transpose(reshape(queries, [batch, anchors, heads, headWidth]), [0, 2, 1, 3]);
        const q = scale(reshape(byHead, [pairs, group, anchors, headWidth]), 1 / Math.sqrt(headWidth));
        const shape = [batch, anchors, keyValueHeads, headWidth];
        const own = { keys: diagonal(reshape(keys, shape)), values: diagonal(reshape(values, shape)) };
        const diagonals = [...drafted, own];
        const toCommitted = matMul(reshape(q, [pairs, group * anchors, headWidth]), committedKeys);
        const scores = concat(
          [
            add(reshape(toCommitted, [pairs * group, anchors, anchors]), this.#causalMask),
            ...diagonals.map((one) => reshape(sum(multiply(q, one.keys), -1), [pairs * group, anchors, 1])),
          ],
          -1,
        );
        const attention = softmax(scores); // [pairs * group, anchors, anchors + diagonals]
        const seen = slice(attention, [0, 0, 0], [pairs * group, anchors, anchors]);
        const mixed = matMul(reshape(seen, [pairs, group * anchors, anchors]), committedValues);
        let y = reshape(mixed, [pairs, group, anchors, headWidth]);
        diagonals.forEach((one, i) => {
          const weight = slice(attention, [0, 0, anchors + i], [pairs * group, anchors, 1]);
          y = add(y, multiply(reshape(weight, [pairs, group, anchors, 1]), one.values));
        });
        const rows = transpose(reshape(y, [batch, heads, anchors, headWidth]), [0, 2, 1, 3]);
        return reshape(rows, [batch * anchors, heads * headWidth]);
      });
      const [keys, values] = keysValues(f, rotation);
      drafted.push({ keys: diagonal(keys), values: diagonal(values) });
      const fused = matMul(concat([committed, f], -1), transpose(parameters[chimeraNames.head(depth)]!));
      result.states.push(f);
      result.logits.push(matMul(fused, this.#outputHead));
    }
    return result;
  }

  close(): void {
    for (const constant of [this.#outputHead, this.#causalMask]) constant.dispose();
    for (const { queries, keys, swap } of this.#rotations) {
      for (const table of [queries.cosines, queries.sines, keys.cosines, keys.sines, swap]) table.dispose();
    }
  }

  /** ids [batch * length] -> [batch, length, width] */
  #trigramStates(parameters: Readonly<Record<string, Tensor>>, ids: Int32Array): Tensor {
    const [batch, length] = [this.#batch, this.#length];
    const { width } = this.#config;
    const { embeddings } = this.#target;
    const joined = new Float32Array(batch * length * 3 * width);
    for (let r = 0; r < batch * length; r++) {
      const start = r - (r % length);
      const tail = Array.from(ids.subarray(Math.max(start, r - 2), r + 1));
      trigramAt(tail).forEach((id, place) => {
        joined.set(embeddings.subarray(id * width, (id + 1) * width), (r * 3 + place) * width);
      });
    }
    const u = tensor(joined, [batch * length, 3 * width]);
    const inner = matMul(u, transpose(parameters[chimeraNames.trigramResidual]!));
    const z = add(u, silu(add(inner, parameters[chimeraNames.trigramBias]!)));
    return reshape(matMul(z, transpose(parameters[chimeraNames.trigramOutput]!)), [batch, length, width]);
  }
}

/**
 * At every depth: cross-entropy against the target's own law after the same text, and (f - h)^2 against the target's own
 * state at the same token. The target stays as it is.
 */
export function chimeraObjective(states: TargetStates, options: ChimeraObjectiveOptions = {}): Objective<HeadBatch> {
  const { heads = 4, stateWeight = 0.1, block } = options;
  const { target } = states;
  const { batchSize: batch, sequenceLength: length } = states.options;
  const { width, vocabularySize } = target.config;
  const definition = new ChimeraDefinition(target, heads, batch, length);
  const { anchors } = definition;
  /** Rows of the target's own at the tokens of a depth: x [batch * length, columns] -> [batch * anchors, columns]. */
  const at = (x: Tensor, depth: number, columns: number): Tensor =>
    reshape(slice(reshape(x, [batch, length, columns]), [0, 1 + depth, 0], [batch, anchors, columns]), [
      batch * anchors,
      columns,
    ]);
  return {
    settings: { chimera: { heads, stateWeight, fromBlock: block !== undefined }, ...states.options },
    batch: (random) => states.random(random),
    validation: () => states.validation(),
    initialWeights: (random) => initialWeights(target, heads, block, random),
    loss(parameters, given) {
      const drafts = definition.run(parameters, given);
      const targetStates = tensor(given.hidden, [batch * length, width]);
      const laws = softmax(tensor(given.logits, [batch * length, vocabularySize]));
      let loss: Tensor | undefined;
      for (let depth = 0; depth < heads; depth++) {
        const distance = mean(square(subtract(drafts.states[depth]!, at(targetStates, depth, width))));
        const term = add(
          softCrossEntropy(drafts.logits[depth]!, at(laws, depth, vocabularySize)),
          scale(distance, stateWeight),
        );
        loss = loss === undefined ? term : add(loss, term);
      }
      return loss!;
    },
    close: () => definition.close(),
  };
}

function initialWeights(
  target: HeadTarget,
  heads: number,
  block: ReadonlyMap<string, Weights> | undefined,
  random: Random,
): Map<string, Weights> {
  const { width } = target.config;
  const weights = new Map<string, Weights>();
  for (const [name, shape] of chimeraShapes(target, heads)) {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const start = block?.get(name);
    if (start !== undefined) data.set(start.data);
    else if (name.endsWith("norm.weight")) data.fill(1);
    else if (name === chimeraNames.trigramOutput || name.includes("_proj.")) {
      const stream = random.fork(name);
      for (let i = 0; i < data.length; i++) data[i] = 0.02 * stream.normal();
    }
    if (name === chimeraNames.trigramOutput) {
      for (let i = 0; i < width; i++) data[i * 3 * width + 2 * width + i]! += 1;
    } else if (name.startsWith("heads.")) {
      for (let i = 0; i < width; i++) data[i * 2 * width + width + i] = 1;
    }
    weights.set(name, { shape, data });
  }
  return weights;
}
