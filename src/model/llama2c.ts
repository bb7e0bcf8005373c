/**
 * Weights of llama2.c (karpathy/llama2.c, `export.py`, "legacy" version 0).
 *
 *     7 x int32      dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len
 *                    (a negative vocab_size: the output head is not the embedding table)
 *     float32        token_embedding [vocab, dim], then each of these for all layers in turn:
 *                    rms_att [dim] · wq [dim, dim] · wk, wv [kv, dim] · wo [dim, dim] · rms_ffn [dim] ·
 *                    w1 [hidden, dim] · w2 [dim, hidden] · w3 [hidden, dim]; then
 *                    rms_final [dim] · freq_cis_real, freq_cis_imag [seq_len, head / 2] (unused) · wcls [vocab, dim] if untied
 *
 * Little-endian, kv = dim * n_kv_heads / n_heads. llama2.c rotates neighbouring elements (2i, 2i + 1) of a head; we, like
 * Hugging Face, rotate (i, i + half). Moving the rows of wq and wk from 2i and 2i + 1 to i and i + half makes the two
 * the same function: attention reads queries and keys only through their dot products, which do not see a reordering.
 *
 * Worked example, head width 4: rows 0 1 2 3 of a head become rows 0 2 1 3.
 */
import { FormatError } from "../errors.ts";
import type { DecoderConfig } from "./decoder-config.ts";
import { checkWeights, type Weights } from "./weights.ts";

export interface Llama2cFile {
  readonly config: DecoderConfig;
  /** By Hugging Face's names, linear weights [out, in]. Views of the bytes where alignment allows, queries and keys copies. */
  readonly tensors: Map<string, Weights>;
}

const headerFields = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"] as const;
const headerBytes = 4 * headerFields.length;

/**
 * Read a llama2.c weights file, legacy version. The format does not hold RoPE's base and RMSNorm's epsilon: they are
 * llama2.c's own 10,000 and 1e-5.
 * @param bytes the whole file; do not write to it afterwards
 * @param source what errors call it; default `"llama2.c weights"`
 * @throws FormatError when a header field is out of range, the file's size is not exactly what the header asks for (this
 *   is checked before anything is allocated), or a weight is NaN or infinite
 */
export function readLlama2c(bytes: Uint8Array, source = "llama2.c weights"): Llama2cFile {
  if (bytes.length < headerBytes) {
    throw new FormatError(source, `it is cut off: ${bytes.length} bytes, the header alone takes ${headerBytes}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = headerFields.map((_, i) => view.getInt32(4 * i, true));
  const [width, hiddenWidth, layers, heads, keyValueHeads, signedVocabulary, contextLength] = header as Header;
  for (const [i, field] of headerFields.entries()) {
    const value = field === "vocab_size" ? Math.abs(signedVocabulary) : header[i]!;
    if (value < 1) {
      throw new FormatError(source, `${field} must be at least 1, got ${value}`, "Is it a llama2.c file, version 0?");
    }
  }
  if (width % heads !== 0 || (width / heads) % 2 !== 0) {
    throw new FormatError(source, `dim (${width}) must be an even multiple of n_heads (${heads})`);
  }
  if (heads % keyValueHeads !== 0) {
    throw new FormatError(source, `n_heads (${heads}) must be a multiple of n_kv_heads (${keyValueHeads})`);
  }
  const config: DecoderConfig = {
    vocabularySize: Math.abs(signedVocabulary),
    width,
    layers,
    heads,
    keyValueHeads,
    headWidth: width / heads,
    hiddenWidth,
    contextLength,
    ropeTheta: 10_000,
    normEpsilon: 1e-5,
    tiedEmbeddings: signedVocabulary > 0,
    projectionBiases: false,
  };

  const { vocabularySize, headWidth, tiedEmbeddings } = config;
  const keyWidth = keyValueHeads * headWidth;
  const perLayer = 2 * width + 2 * width * width + 2 * keyWidth * width + 3 * hiddenWidth * width;
  const tables = contextLength * headWidth;
  const numbers = (tiedEmbeddings ? 1 : 2) * vocabularySize * width + layers * perLayer + width + tables;
  const expected = headerBytes + 4 * numbers;
  if (bytes.length !== expected) {
    throw new FormatError(
      source,
      `the header asks for ${expected} bytes, the file holds ${bytes.length}`,
      "It is cut off, damaged, or not llama2.c's version 0.",
    );
  }

  const body = bytes.subarray(headerBytes);
  const aligned = body.byteOffset % 4 === 0 ? body : body.slice();
  const all = new Float32Array(aligned.buffer, aligned.byteOffset, numbers);
  const tensors = new Map<string, Weights>();
  let at = 0;
  const take = (name: string, ...shape: number[]): void => {
    const length = shape.reduce((product, size) => product * size, 1);
    tensors.set(name, { shape, data: all.subarray(at, at + length) });
    at += length;
  };
  const takeLayers = (name: string, ...shape: number[]): void => {
    for (let layer = 0; layer < layers; layer++) take(`model.layers.${layer}.${name}.weight`, ...shape);
  };
  take("model.embed_tokens.weight", vocabularySize, width);
  takeLayers("input_layernorm", width);
  takeLayers("self_attn.q_proj", width, width);
  takeLayers("self_attn.k_proj", keyWidth, width);
  takeLayers("self_attn.v_proj", keyWidth, width);
  takeLayers("self_attn.o_proj", width, width);
  takeLayers("post_attention_layernorm", width);
  takeLayers("mlp.gate_proj", hiddenWidth, width);
  takeLayers("mlp.down_proj", width, hiddenWidth);
  takeLayers("mlp.up_proj", hiddenWidth, width);
  take("model.norm.weight", width);
  at += tables;
  if (!tiedEmbeddings) take("lm_head.weight", vocabularySize, width);

  for (const [name, { shape, data }] of tensors) {
    if (!/\.[qk]_proj\./.test(name)) continue;
    tensors.set(name, { shape, data: pairsToHalves(data, headWidth, width) });
  }
  checkWeights(config, tensors, source);
  return { config, tensors };
}

type Header = [number, number, number, number, number, number, number];

/** Rows of each head from rotation pairs (2i, 2i + 1) to pairs (i, i + half): [heads * headWidth, width], a copy. */
export function pairsToHalves(rows: Float32Array, headWidth: number, width: number): Float32Array {
  const half = headWidth / 2;
  const moved = new Float32Array(rows.length);
  for (let r = 0; r < rows.length / width; r++) {
    const i = r % headWidth;
    const target = r - i + (i >> 1) + (i & 1) * half;
    moved.set(rows.subarray(r * width, (r + 1) * width), target * width);
  }
  return moved;
}
