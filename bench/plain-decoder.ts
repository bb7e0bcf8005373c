/**
 * The same decoder as `src/model/decoder.ts`, as one writes it with TensorFlow.js alone: linear weights [out, in] as in
 * the checkpoints and `tf.matMul` with its transpose flags, attention as one batched `tf.matMul` over [batch, heads],
 * key heads repeated for their groups, built-in gradients (`tf.variableGrads`) and `tf.train.adam`.
 * The baseline of `bench/training.ts`.
 *
 * It runs after `useBackend("wasm")` and takes what that mends: the missing kernel of gather's gradient, without which
 * it would not train at all, and clones that share memory. Both only help it.
 */
import type { DecoderConfig } from "../src/model/decoder-config.ts";
import type { Weights } from "../src/model/weights.ts";
import { type Tensor, tf } from "../src/tensor/tf.ts";

export class PlainDecoder {
  readonly config: DecoderConfig;
  readonly variables: ReadonlyMap<string, tf.Variable>;
  readonly #optimizer: tf.Optimizer;
  /** [length, headWidth] */
  readonly #cosines: Tensor;
  readonly #sines: Tensor;
  /** [length, length]: 0 on and below the diagonal, -1e9 above */
  readonly #mask: Tensor;

  constructor(config: DecoderConfig, weights: ReadonlyMap<string, Weights>, length: number, learningRate: number) {
    this.config = config;
    this.variables = new Map(
      [...weights].map(([name, { data, shape }]) => [name, tf.variable(tf.tensor(data, [...shape]))]),
    );
    this.#optimizer = tf.train.adam(learningRate, 0.9, 0.99, 1e-8);
    const half = config.headWidth / 2;
    const angles = tf.outerProduct(
      tf.range(0, length),
      tf.tensor1d(Array.from({ length: half }, (_, i) => config.ropeTheta ** (-i / half))),
    );
    this.#cosines = tf.concat([tf.cos(angles), tf.cos(angles)], 1);
    this.#sines = tf.concat([tf.sin(angles), tf.sin(angles)], 1);
    this.#mask = tf.mul(tf.sub(1, tf.linalg.bandPart(tf.ones([length, length]), -1, 0)), -1e9);
  }

  /** Mean cross-entropy of the targets: ids and targets [batch, length] -> scalar. */
  loss(ids: tf.Tensor2D, targets: tf.Tensor2D): tf.Scalar {
    const { config } = this;
    const [batch, length] = ids.shape;
    let x: Tensor = tf.gather(this.#of("model.embed_tokens.weight"), ids); // -> [batch, length, width]
    for (let layer = 0; layer < config.layers; layer++) {
      const prefix = `model.layers.${layer}`;
      const normed = this.#rmsNorm(x, `${prefix}.input_layernorm.weight`);
      x = tf.add(x, this.#linear(this.#attention(normed, prefix), `${prefix}.self_attn.o_proj.weight`));
      const inner = this.#rmsNorm(x, `${prefix}.post_attention_layernorm.weight`);
      const gate = this.#linear(inner, `${prefix}.mlp.gate_proj.weight`);
      const up = this.#linear(inner, `${prefix}.mlp.up_proj.weight`);
      const hidden = tf.mul(tf.mul(gate, tf.sigmoid(gate)), up);
      x = tf.add(x, this.#linear(hidden, `${prefix}.mlp.down_proj.weight`));
    }
    const head = config.tiedEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    const logits = this.#linear(this.#rmsNorm(x, "model.norm.weight"), head); // -> [batch, length, vocabularySize]
    const rows = tf.reshape(logits, [batch * length, config.vocabularySize]);
    const labels = tf.oneHot(tf.reshape(targets, [batch * length]), config.vocabularySize);
    return tf.losses.softmaxCrossEntropy(labels, rows) as tf.Scalar;
  }

  /** The loss and each variable's gradient; the caller disposes them. */
  gradients(ids: tf.Tensor2D, targets: tf.Tensor2D): { value: tf.Scalar; grads: tf.NamedTensorMap } {
    const names = new Map([...this.variables].map(([name, variable]) => [variable.name, name]));
    const { value, grads } = tf.variableGrads(() => this.loss(ids, targets), [...this.variables.values()]);
    return { value, grads: Object.fromEntries(Object.entries(grads).map(([id, g]) => [names.get(id)!, g])) };
  }

  /** One update: gradients read back (as ours are), then Adam. @returns the loss */
  step(ids: tf.Tensor2D, targets: tf.Tensor2D): number {
    const { value, grads } = tf.variableGrads(() => this.loss(ids, targets), [...this.variables.values()]);
    for (const gradient of Object.values(grads)) gradient.dataSync();
    this.#optimizer.applyGradients(grads);
    const loss = value.dataSync()[0] as number;
    value.dispose();
    for (const gradient of Object.values(grads)) gradient.dispose();
    return loss;
  }

  close(): void {
    this.#optimizer.dispose();
    for (const variable of this.variables.values()) variable.dispose();
    for (const constant of [this.#cosines, this.#sines, this.#mask]) constant.dispose();
  }

  #of(name: string): Tensor {
    return this.variables.get(name)!;
  }

  /** x [batch, length, in] by a weight [out, in] -> [batch, length, out] */
  #linear(x: Tensor, name: string): Tensor {
    const weight = this.#of(name) as tf.Tensor2D;
    const rows = tf.reshape(x, [-1, x.shape.at(-1)!]) as tf.Tensor2D;
    return tf.reshape(tf.matMul(rows, weight, false, true), [...x.shape.slice(0, -1), weight.shape[0]]);
  }

  #rmsNorm(x: Tensor, name: string): Tensor {
    const square = tf.mean(tf.square(x), -1, true);
    return tf.mul(tf.mul(x, tf.rsqrt(tf.add(square, this.config.normEpsilon))), this.#of(name));
  }

  /** [batch, length, width] -> [batch, length, heads * headWidth] */
  #attention(x: Tensor, prefix: string): Tensor {
    const { heads, keyValueHeads, headWidth } = this.config;
    const [batch, length] = x.shape as [number, number];
    const split = (name: string, count: number): Tensor => {
      const projected = this.#linear(x, `${prefix}.self_attn.${name}.weight`);
      return tf.transpose(tf.reshape(projected, [batch, length, count, headWidth]), [0, 2, 1, 3]);
    };
    // [batch, keyValueHeads, length, headWidth] -> [batch, heads, length, headWidth]
    const repeat = (y: Tensor): Tensor => {
      const group = heads / keyValueHeads;
      if (group === 1) return y;
      const tiled = tf.tile(tf.reshape(y, [batch * keyValueHeads, 1, length, headWidth]), [1, group, 1, 1]);
      return tf.reshape(tiled, [batch, heads, length, headWidth]);
    };
    const queries = this.#rotate(split("q_proj", heads));
    const keys = repeat(this.#rotate(split("k_proj", keyValueHeads)));
    const values = repeat(split("v_proj", keyValueHeads));
    const scores = tf.mul(tf.matMul(queries, keys, false, true), 1 / Math.sqrt(headWidth));
    const attention = tf.softmax(tf.add(scores, this.#mask)); // -> [batch, heads, length, length]
    const mixed = tf.matMul(attention, values); // -> [batch, heads, length, headWidth]
    return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [batch, length, heads * headWidth]);
  }

  /** Each head's halves (x1, x2) -> (x1, x2) cos + (-x2, x1) sin. */
  #rotate(x: Tensor): Tensor {
    const [first, second] = tf.split(x, 2, -1) as [Tensor, Tensor];
    return tf.add(tf.mul(x, this.#cosines), tf.mul(tf.concat([tf.neg(second), first], -1), this.#sines));
  }
}
