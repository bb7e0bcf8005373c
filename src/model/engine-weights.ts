/**
 * A decoder's weights as the kernels want them: packed in panels, in an arena.
 *
 * Products that read the same input become one: queries, keys and values; gate and up. Heads whose width is no multiple of
 * four get zero columns behind them, hidden widths are filled up to a multiple of eight, so no kernel has a ragged end.
 * Everything is placed from one plan, so the memory a model takes is known from its config before a weight is read.
 */
import { type KernelSpace, panelWidth, type WeightFormat, weightFormats } from "../kernels/kernels.ts";
import { toFloat32 } from "../tensor/safetensors.ts";
import type { DecoderConfig } from "./decoder-config.ts";

/** A tensor that can be read when its turn comes, 16-bit types as their bits; reading checks that its numbers are finite. */
export interface ReadableTensor {
  readonly dtype: WeightFormat;
  readonly shape: readonly number[];
  read(): Promise<Float32Array | Uint16Array>;
}

/** A packed matrix [inputs, outputs] and its bias, in the arena. See `Kernels.product`. */
export interface PackedMatrix {
  readonly pointer: number;
  readonly format: number;
  readonly inputs: number;
  /** Outputs / 8, rounded up. */
  readonly panels: number;
  /** Pointer, or 0. */
  readonly bias: number;
}

/** Pointers to a norm's weight and (LayerNorm's) bias, padded with zeros. */
export interface PlacedNorm {
  readonly weight: number;
  /** 0: RMSNorm. */
  readonly bias: number;
}

export interface PlacedLayer {
  readonly attentionNorm: PlacedNorm;
  /** Queries, keys, values beside each other, heads `headStride` wide. */
  readonly projections: PackedMatrix;
  readonly output: PackedMatrix;
  readonly feedForwardNorm: PlacedNorm;
  /** Llama: gates, then ups. GPT-2: c_fc. */
  readonly up: PackedMatrix;
  readonly down: PackedMatrix;
}

export interface PlacedWeights {
  readonly embedding: PackedMatrix;
  /** GPT-2's learned positions, [contextLength, stride]; 0 for Llama. */
  readonly positions: number;
  readonly layers: readonly PlacedLayer[];
  readonly finalNorm: PlacedNorm;
  /** The embedding table when it is tied. */
  readonly head: PackedMatrix;
  /** Bytes of the arena they take. */
  readonly bytes: number;
}

/** Widths of rows in the arena, in floats. */
export interface RowStrides {
  readonly width: number;
  readonly head: number;
  /** Queries, keys and values of one row. */
  readonly projections: number;
  readonly mixed: number;
  /** One of gates and ups. */
  readonly hidden: number;
  readonly logits: number;
}

export function rowStrides(config: DecoderConfig): RowStrides {
  const head = roundUp(config.headWidth, 4);
  return {
    width: roundUp(config.width, panelWidth),
    head,
    projections: roundUp((config.heads + 2 * config.keyValueHeads) * head, panelWidth),
    mixed: roundUp(config.heads * head, panelWidth),
    hidden: roundUp(config.hiddenWidth, panelWidth),
    logits: roundUp(config.vocabularySize, panelWidth),
  };
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

/** Where a tensor goes within a block of the arena. */
type Part =
  | {
      readonly kind: "matrix";
      readonly name: string;
      /** Inputs of the whole packed matrix. */
      readonly inputs: number;
      /** The tensor is [in, out] rather than [out, in]. */
      readonly inputsFirst: boolean;
      /** Place of the tensor's input i in the packed matrix; undefined: i. */
      readonly inputAt?: Places | undefined;
      readonly outputAt?: Places | undefined;
    }
  | {
      readonly kind: "floats";
      readonly name: string;
      /** Place of element i; undefined: i. */
      readonly at?: Places | undefined;
    };

type Places = (i: number) => number;

/** A block of the arena and the tensors that fill it. */
interface Block {
  readonly bytes: number;
  readonly format: WeightFormat;
  readonly parts: readonly Part[];
}

/**
 * Place a decoder's weights.
 * @param tensors by `parameterShapes`, whose names and shapes have been checked
 * @param storage `"stored"` keeps 16-bit weights 16-bit, `"float32"` widens them
 * @param besides bytes that must fit beside the weights for the model to run at all
 * @throws MemoryError when they do not fit; nothing has been read or allocated then
 */
export async function placeWeights(
  space: KernelSpace,
  config: DecoderConfig,
  tensors: ReadonlyMap<string, ReadableTensor>,
  storage: "stored" | "float32",
  besides: number,
): Promise<PlacedWeights> {
  let bytes = 0;
  layOut(config, tensors, storage, (block) => {
    bytes += roundUp(block.bytes, 64);
    return 0;
  });
  space.arena.reserve(bytes + roundUp(besides, 64));
  const blocks: (Block & { readonly pointer: number })[] = [];
  const weights = layOut(config, tensors, storage, (block) => {
    const pointer = space.arena.allocate(block.bytes);
    blocks.push({ ...block, pointer });
    return pointer;
  });
  for (const { pointer, format, parts } of blocks) {
    for (const part of parts) await fill(space, pointer, format, part, tensors.get(part.name)!);
  }
  return { ...weights, bytes };
}

/** Every block a decoder of this shape needs, in order; `place` says where each one lies. */
function layOut(
  config: DecoderConfig,
  tensors: ReadonlyMap<string, ReadableTensor>,
  storage: "stored" | "float32",
  place: (block: Block) => number,
): Omit<PlacedWeights, "bytes"> {
  const { heads, keyValueHeads, headWidth, width, hiddenWidth, vocabularySize, contextLength } = config;
  const strides = rowStrides(config);
  const gpt2 = config.architecture === "gpt2";

  const floats = (length: number, parts: readonly Part[]): number => place({ bytes: 4 * length, format: "F32", parts });
  const matrix = (
    inputs: number,
    outputs: number,
    parts: readonly Part[],
    biases: readonly Part[] = [],
  ): PackedMatrix => {
    const types = new Set(parts.map(({ name }) => tensors.get(name)!.dtype));
    const format = storage === "stored" && types.size === 1 ? [...types][0]! : "F32";
    const panels = Math.ceil(outputs / panelWidth);
    return {
      pointer: place({ bytes: panels * panelWidth * inputs * (format === "F32" ? 4 : 2), format, parts }),
      format: weightFormats[format],
      inputs,
      panels,
      bias: biases.length === 0 ? 0 : floats(panels * panelWidth, biases),
    };
  };
  const norm = (name: string): PlacedNorm => ({
    weight: floats(strides.width, [{ kind: "floats", name: `${name}.weight` }]),
    bias: gpt2 ? floats(strides.width, [{ kind: "floats", name: `${name}.bias` }]) : 0,
  });
  /** Where element o of heads `headWidth` wide stands when heads are `strides.head` wide and the first is `firstHead`. */
  const inHeads =
    (firstHead: number): Places =>
    (o) =>
      (firstHead + Math.floor(o / headWidth)) * strides.head + (o % headWidth);
  const mixedWidth = heads * strides.head;
  const projectionWidth = mixedWidth + 2 * keyValueHeads * strides.head;

  const llamaLayer = (prefix: string): PlacedLayer => {
    const part = (name: string, inputs: number, inputAt?: Places, outputAt?: Places): Part => {
      return { kind: "matrix", name: `${prefix}.${name}.weight`, inputs, inputsFirst: false, inputAt, outputAt };
    };
    const projections = [
      { name: "self_attn.q_proj", at: inHeads(0) },
      { name: "self_attn.k_proj", at: inHeads(heads) },
      { name: "self_attn.v_proj", at: inHeads(heads + keyValueHeads) },
    ];
    const biases = projections.map(({ name, at }) => ({ kind: "floats", name: `${prefix}.${name}.bias`, at }) as const);
    return {
      attentionNorm: norm(`${prefix}.input_layernorm`),
      projections: matrix(
        width,
        projectionWidth,
        projections.map(({ name, at }) => part(name, width, undefined, at)),
        config.projectionBiases ? biases : [],
      ),
      output: matrix(mixedWidth, width, [part("self_attn.o_proj", mixedWidth, inHeads(0))]),
      feedForwardNorm: norm(`${prefix}.post_attention_layernorm`),
      up: matrix(width, 2 * strides.hidden, [
        part("mlp.gate_proj", width),
        part("mlp.up_proj", width, undefined, (o) => strides.hidden + o),
      ]),
      down: matrix(hiddenWidth, width, [part("mlp.down_proj", hiddenWidth)]),
    };
  };

  const gpt2Layer = (prefix: string): PlacedLayer => {
    const linear = (name: string, inputs: number, outputs: number, inputAt?: Places, outputAt?: Places): PackedMatrix =>
      matrix(
        inputs,
        outputs,
        [{ kind: "matrix", name: `${prefix}.${name}.weight`, inputs, inputsFirst: true, inputAt, outputAt }],
        [{ kind: "floats", name: `${prefix}.${name}.bias`, at: outputAt }],
      );
    return {
      attentionNorm: norm(`${prefix}.ln_1`),
      // Queries, keys and values lie beside each other in c_attn as they do here.
      projections: linear("attn.c_attn", width, projectionWidth, undefined, inHeads(0)),
      output: linear("attn.c_proj", mixedWidth, width, inHeads(0)),
      feedForwardNorm: norm(`${prefix}.ln_2`),
      up: linear("mlp.c_fc", width, hiddenWidth),
      down: linear("mlp.c_proj", hiddenWidth, width),
    };
  };

  const table = (name: string): PackedMatrix =>
    matrix(width, vocabularySize, [{ kind: "matrix", name, inputs: width, inputsFirst: false }]);
  const embedding = table(gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight");
  const inRows: Places = (i) => Math.floor(i / width) * strides.width + (i % width);
  return {
    embedding,
    positions: gpt2
      ? floats(contextLength * strides.width, [{ kind: "floats", name: "transformer.wpe.weight", at: inRows }])
      : 0,
    layers: Array.from({ length: config.layers }, (_, layer) =>
      gpt2 ? gpt2Layer(`transformer.h.${layer}`) : llamaLayer(`model.layers.${layer}`),
    ),
    finalNorm: norm(gpt2 ? "transformer.ln_f" : "model.norm"),
    head: config.tiedEmbeddings ? embedding : table("lm_head.weight"),
  };
}

/** Read one tensor and write it to its places. */
async function fill(
  { arena }: KernelSpace,
  pointer: number,
  format: WeightFormat,
  part: Part,
  tensor: ReadableTensor,
): Promise<void> {
  const read = await tensor.read();
  const values = format === "F32" ? widened(tensor, read) : read;
  const target =
    values instanceof Uint16Array
      ? new Uint16Array(arena.bytes.buffer, pointer)
      : new Float32Array(arena.bytes.buffer, pointer);
  if (part.kind === "floats") {
    if (part.at === undefined) target.set(values);
    else for (let i = 0; i < values.length; i++) target[part.at(i)] = values[i]!;
    return;
  }
  const { inputs, inputsFirst, inputAt, outputAt } = part;
  const [rows, columns] = tensor.shape as [number, number];
  const inputPlaces = places(inputsFirst ? rows : columns, inputAt, (i) => i * panelWidth);
  const outputPlaces = places(
    inputsFirst ? columns : rows,
    outputAt,
    (o) => Math.floor(o / panelWidth) * panelWidth * inputs + (o % panelWidth),
  );
  const rowPlaces = inputsFirst ? inputPlaces : outputPlaces;
  const columnPlaces = inputsFirst ? outputPlaces : inputPlaces;
  for (let r = 0, from = 0; r < rows; r++) {
    const start = rowPlaces[r]!;
    for (let c = 0; c < columns; c++) target[start + columnPlaces[c]!] = values[from++]!;
  }
}

function widened({ dtype, shape }: ReadableTensor, data: Float32Array | Uint16Array): Float32Array {
  if (dtype === "F32") return data as Float32Array;
  return toFloat32({ dtype, shape, data: data as Uint16Array });
}

function places(count: number, at: Places | undefined, place: Places): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => place(at === undefined ? i : at(i)));
}
