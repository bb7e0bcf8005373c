/**
 * What the hypernetwork is trained for: that the frozen model reads and writes text in tokens it has never seen. See
 * `hypernetwork.ts` for the network; the recipe is the paper's (arXiv 2405.07883, section 3 and algorithm 1).
 *
 * Every step samples a tokenizer (`tokenizer-sampler.ts`), cuts the step's texts with it, predicts embeddings for its whole
 * vocabulary, and runs the frozen model on them:
 *
 *     loss = next-token cross-entropy over the sampled vocabulary + 0.5 auxiliary
 *     auxiliary = mean over single pieces of |e - E[piece]|^2 / mean |E[piece]|,   averaged over inputs and outputs
 *
 * **Deviations**: tokens of a single piece are the model's own in the loss, as they are when the network is used; what the
 * network would say of them only counts in the auxiliary loss. Vocabularies vary in size, and of the new tokens that a step's
 * text does not hold some are drawn to stand for all (each counts as often as it stands for others): a large vocabulary then
 * costs no more than a small one. There is no warm-up towards the identity, the paper's first 10,000 steps: the network begins
 * as the mean of the pieces, which of a single piece is the identity. The texts are windows of the training text; the
 * tokenizer is sampled from them and from as many others as `pool` says.
 *
 * **Unlike** other trainings here no two steps have the same classes: losses of two steps are not comparable, and held-out
 * text is measured with the same few tokenizers each time.
 */

import { ArgumentError } from "../../errors.ts";
import {
  type BatchConstants,
  batchConstants,
  block,
  causalAttention,
  disposeConstants,
  finalNorm,
  firstInput,
  parametersFromWeights,
} from "../../model/decoder.ts";
import type { Parameters } from "../../model/decoder-block.ts";
import { checkDecoderConfig, type DecoderConfig, embeddingName } from "../../model/decoder-config.ts";
import { checkWeights, type Weights } from "../../model/weights.ts";
import {
  add,
  concat,
  crossEntropy,
  gather,
  integers,
  matMul,
  mean,
  scale,
  slice,
  square,
  subtract,
  sum,
  tensor,
  transpose,
} from "../../tensor/ops.ts";
import { Random } from "../../tensor/random.ts";
import type { Tensor } from "../../tensor/tf.ts";
import type { Bpe } from "../../tokenization/bpe.ts";
import { type SplitPattern, splitText } from "../../tokenization/split-patterns.ts";
import type { Objective } from "../../training/trainer.ts";
import { type EmbeddingTables, embeddingTables, meanOfPieces } from "../embedding-predictor.ts";
import {
  type HypernetworkConfig,
  hypernetworkConfig,
  hypernetworkShapes,
  predicted,
  scalerShapes,
} from "../hypernetwork.ts";
import { SurfaceForms } from "../surface-forms.ts";
import { sampleTokenizer } from "../tokenizer-sampler.ts";
import { HypernetworkDefinition, initialHypernetwork, scalersOf } from "./hypernetwork-definition.ts";

/** The frozen model. */
export interface TransferSource {
  readonly config: DecoderConfig;
  /** In checkpoint layout. */
  readonly weights: ReadonlyMap<string, Weights>;
  readonly tokenizer: Bpe;
}

export interface HypernetworkObjectiveOptions {
  /** Windows of text a step. Default 4. */
  readonly batchSize?: number;
  /** Tokens of each. Default 128, or the model's context where that is less. */
  readonly sequenceLength?: number;
  /** Smallest and largest sampled vocabulary, drawn evenly between. Default [1024, 8192]. */
  readonly sizes?: readonly [number, number];
  /** New tokens that the text does not hold but the softmax is over, drawn from the vocabulary's others. Default 384. */
  readonly negatives?: number;
  /** Windows the tokenizer is sampled from. Default 64. */
  readonly pool?: number;
  /** What the auxiliary loss counts. Default 0.5. */
  readonly auxiliary?: number;
  /** How texts are cut before anything else. Default: the model's own tokenizer's. */
  readonly pattern?: SplitPattern;
  /** Batches of held-out text, each with a tokenizer of its own. Default 4. */
  readonly validationBatches?: number;
  /** What it begins with: trained weights and scalers. Default: `initialHypernetwork`'s. */
  readonly weights?: ReadonlyMap<string, Weights>;
}

/** A step's texts in a sampled tokenizer. */
export interface HypernetworkBatch {
  /** Surface forms of the tokens that take part, single pieces first. */
  readonly forms: readonly (readonly number[])[];
  /** How many of them are single. */
  readonly singles: number;
  /** Added to the logits, one per form: the logarithm of how many tokens a drawn one stands for, else 0. */
  readonly bias: Float32Array;
  /** [batch * length], sequence after sequence */
  readonly ids: Int32Array;
  readonly targets: Int32Array;
}

/** Bytes a sampled token has at most: as many characters hold a token surely. */
const longestToken = 15;

type SampledBatchesOptions = Required<
  Pick<HypernetworkObjectiveOptions, "batchSize" | "sequenceLength" | "sizes" | "negatives" | "pool" | "pattern">
>;

/** Batches of texts in sampled tokenizers; the special tokens of the model's own are in every vocabulary. */
export class SampledBatches {
  readonly #forms: SurfaceForms;
  readonly #specials: readonly number[];
  readonly #options: SampledBatchesOptions;

  /** @throws ArgumentError on options out of range */
  constructor(tokenizer: Bpe, options: SampledBatchesOptions) {
    const { sizes, pool, batchSize, negatives } = options;
    if (!(sizes[0] >= 257 && sizes[1] >= sizes[0] && sizes.every(Number.isSafeInteger))) {
      throw new ArgumentError("options.sizes", "two growing integers from 257 on", sizes);
    }
    if (!(Number.isSafeInteger(pool) && pool >= 1)) throw new ArgumentError("options.pool", "an integer >= 1", pool);
    if (!(Number.isSafeInteger(batchSize) && batchSize >= 1)) {
      throw new ArgumentError("options.batchSize", "an integer >= 1", batchSize);
    }
    if (!(Number.isSafeInteger(negatives) && negatives >= 0)) {
      throw new ArgumentError("options.negatives", "an integer >= 0", negatives);
    }
    this.#forms = new SurfaceForms(tokenizer);
    this.#specials = [...tokenizer.specialTokens.values()];
    this.#options = options;
  }

  /**
   * @param text what is read @param sampled what the tokenizer is sampled from, beside the windows read
   * @param size of the vocabulary, specials aside. Default: drawn.
   */
  random(random: Random, text: string, sampled = text, size?: number): HypernetworkBatch {
    const { batchSize, sequenceLength: length, sizes, negatives, pool, pattern } = this.#options;
    const characters = longestToken * (length + 2);
    const window = (from: string): string => {
      if (from.length < characters) throw new ArgumentError("text", `at least ${characters} characters`, from.length);
      const start = random.integer(from.length - characters + 1);
      return from.slice(start, start + characters);
    };
    const read = Array.from({ length: batchSize }, () => splitText(window(text), pattern));
    const words = new Map<string, number>();
    const count = (parts: readonly string[]): void => {
      for (const word of parts) words.set(word, (words.get(word) ?? 0) + 1);
    };
    read.forEach(count);
    for (let i = 0; i < pool; i++) count(splitText(window(sampled), pattern));

    const vocabulary = size ?? sizes[0] + random.integer(sizes[1] - sizes[0] + 1);
    const sampler = sampleTokenizer(words, random, { size: vocabulary, longest: longestToken });
    const specials = this.#specials.length;
    const forms = [...this.#specials.map((id) => [id]), ...sampler.tokens.map((bytes) => this.#forms.of(bytes))];
    const tokens = read.map((parts) => parts.flatMap((word) => sampler.encode(word)).slice(0, length + 1));

    // The softmax is over all single pieces, the text's tokens, and some of the others, which stand for all of them.
    const used = new Set(tokens.flat().map((token) => specials + token));
    const kept = forms.flatMap((form, id) => (form.length === 1 || used.has(id) ? [id] : []));
    const others = forms.flatMap((form, id) => (form.length === 1 || used.has(id) ? [] : [id]));
    const drawn = Array.from(random.permutation(others.length).subarray(0, negatives), (at) => others[at]!);
    const order = [...kept, ...drawn].sort((a, b) => forms[a]!.length - forms[b]!.length || a - b);
    const place = new Map(order.map((id, at) => [id, at]));
    const bias = new Float32Array(order.length);
    for (const id of drawn) bias[place.get(id)!] = Math.log(others.length / drawn.length);

    const at = (s: number, t: number): number => place.get(specials + tokens[s]![t]!)!;
    const ids = Int32Array.from({ length: batchSize * length }, (_, r) => at(Math.floor(r / length), r % length));
    const targets = Int32Array.from({ length: batchSize * length }, (_, r) =>
      at(Math.floor(r / length), (r % length) + 1),
    );
    const ordered = order.map((id) => forms[id]!);
    return { forms: ordered, singles: ordered.filter((form) => form.length === 1).length, bias, ids, targets };
  }
}

/**
 * The language-model loss of the frozen model in sampled tokenizers, with the auxiliary loss. Trained are the network's
 * parameters alone; the scalers are stored beside them.
 * @param texts documents to learn from, and held-out ones
 * @throws ArgumentError on options out of range, or too little text; FormatError when weights are not the config's
 */
export function hypernetworkObjective(
  source: TransferSource,
  texts: { readonly training: readonly string[]; readonly validation: readonly string[] },
  options: HypernetworkObjectiveOptions = {},
): Objective<HypernetworkBatch> {
  checkDecoderConfig(source.config);
  checkWeights(source.config, source.weights, "weights");
  const { batchSize = 4, sequenceLength = Math.min(128, source.config.contextLength), sizes = [1024, 8192] } = options;
  const {
    negatives = 384,
    pool = 64,
    auxiliary = 0.5,
    pattern = source.tokenizer.pattern,
    validationBatches = 4,
  } = options;
  const tables = embeddingTables(source.config, source.weights);
  const means = meanOfPieces(tables);
  const config = hypernetworkConfig(tables);
  const { weights: start, scalers } = settledWeights(tables, config, options.weights);
  const batches = new SampledBatches(source.tokenizer, { batchSize, sequenceLength, sizes, negatives, pool, pattern });
  const [training, validation] = [texts.training.join("\n"), texts.validation.join("\n")];
  const definition = new HypernetworkDefinition(tables, config, scalersOf(scalers));
  const body = new FrozenBody(source, batchSize, sequenceLength);
  const settings = {
    batchSize,
    sequenceLength,
    sizes,
    negatives,
    pool,
    auxiliary,
    pattern: String(pattern),
    validationBatches,
  };
  return {
    settings: { hypernetwork: config, corrects: "mean of pieces", ...settings },
    initialWeights: () => new Map([...start].map(([name, { shape, data }]) => [name, { shape, data: data.slice() }])),
    batch: (random) => batches.random(random, training),
    *validation() {
      for (let b = 0; b < validationBatches; b++) {
        const size = Math.round(sizes[0] + ((sizes[1] - sizes[0]) * (b + 0.5)) / validationBatches);
        yield batches.random(new Random("held out").fork(`batch ${b}`), validation, training, size);
      }
    },
    loss(parameters, { forms, singles, bias, ids, targets }) {
      const corrections = definition.run(parameters, forms);
      const base = means.predict(forms);
      const { width } = config;
      const error: Tensor[] = [];
      const [input, output] = predicted.map((name) => {
        const said = add(corrections[name], tensor(base[name].data, [forms.length, width]));
        // The mean of a single piece is the piece.
        const own = base[name].data.subarray(0, singles * width);
        const wanted = tensor(own, [singles, width]);
        error.push(auxiliaryLoss(slice(said, [0, 0], [singles, width]), own));
        if (singles === forms.length) return wanted;
        return concat([wanted, slice(said, [singles, 0], [forms.length - singles, width])], 0);
      });
      const logits = add(body.logits(input!, output!, ids), tensor(bias, [forms.length]));
      return add(crossEntropy(logits, targets), scale(add(error[0]!, error[1]!), auxiliary / 2));
    },
    stored: (parameters) => new Map([...parameters, ...scalers]),
    close() {
      definition.close();
      body.close();
    },
  };
}

/** Of predictions [rows, width] for tokens the model has: mean |e - E|^2 / mean |E|. @param own [rows * width] */
export function auxiliaryLoss(said: Tensor, own: Float32Array): Tensor {
  const wanted = tensor(own, said.shape);
  return scale(mean(sum(square(subtract(said, wanted)), -1)), 1 / meanLength(own, said.shape[1]!));
}

/** The frozen model over a whole batch, from embeddings to logits. Gradients flow to the embeddings only. */
class FrozenBody {
  readonly #config: DecoderConfig;
  readonly #parameters: Parameters;
  readonly #constants: BatchConstants;

  constructor({ config, weights }: TransferSource, batch: number, length: number) {
    this.#config = config;
    const body = new Map([...weights].filter(([name]) => name !== embeddingName(config) && name !== "lm_head.weight"));
    this.#parameters = parametersFromWeights(body);
    this.#constants = batchConstants(config, batch, length);
  }

  /** input and output [vocabularySize, width], ids [batch * length] -> [batch * length, vocabularySize] */
  logits(input: Tensor, output: Tensor, ids: Int32Array): Tensor {
    const { placement } = this.#constants;
    let x = firstInput(this.#config, this.#parameters, gather(input, integers(ids, [ids.length])), placement);
    for (let layer = 0; layer < this.#config.layers; layer++) {
      x = block(this.#config, this.#parameters, layer, x, placement, (_, queries, keys, values) =>
        causalAttention(this.#config, queries, keys, values, this.#constants),
      );
    }
    return matMul(finalNorm(this.#config, this.#parameters, x), transpose(output));
  }

  close(): void {
    for (const parameter of Object.values(this.#parameters)) parameter.dispose();
    disposeConstants(this.#constants);
  }
}

function settledWeights(
  tables: EmbeddingTables,
  config: HypernetworkConfig,
  given: ReadonlyMap<string, Weights> | undefined,
): { readonly weights: ReadonlyMap<string, Weights>; readonly scalers: ReadonlyMap<string, Weights> } {
  if (given === undefined) return initialHypernetwork(tables, config, new Random("hypernetwork"));
  const pick = (shapes: ReadonlyMap<string, readonly number[]>): Map<string, Weights> =>
    new Map(
      [...shapes].map(([name, shape]) => {
        const weight = given.get(name);
        if (weight?.shape.join() !== shape.join()) {
          throw new ArgumentError("options.weights", `a tensor ${name} of shape [${shape.join(", ")}]`, weight?.shape);
        }
        return [name, weight!];
      }),
    );
  return { weights: pick(hypernetworkShapes(config)), scalers: pick(scalerShapes(config)) };
}
function meanLength(rows: Float32Array, width: number): number {
  let total = 0;
  for (let start = 0; start < rows.length; start += width) total += Math.hypot(...rows.subarray(start, start + width));
  return total / (rows.length / width);
}
