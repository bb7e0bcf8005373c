/**
 * safetensors: named arrays in one file, read without copying and without running anything.
 * Format: huggingface/safetensors, README ("Format").
 *
 *     8 bytes   N, the header's length, unsigned little-endian
 *     N bytes   JSON, UTF-8, first byte "{": {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
 *               "__metadata__": {"key": "text", ...}}; may end in spaces
 *     the rest  the arrays, row-major, little-endian, each at its offsets; together they fill the rest without a gap
 *
 * 16-bit floats stay 16-bit until asked for (`toFloat32`), so reading costs no more memory than the file. The header alone
 * (`readSafetensorsHeader`) says where in the file each array lies, for whoever reads them one by one.
 *
 * **Deviations** from the reference implementation: arrays of five dtypes of its twenty are read, the others are an error,
 * not opaque bytes; in a header those of whole bytes are known. Duplicate names and a header nested deeper than the format needs are errors. Numbers in the header are doubles,
 * so sizes end at 2^53 bytes. Hosts are taken to be little-endian, as every one JavaScript runs on today is.
 *
 * Worked example: `writeSafetensors(new Map([["w", floatTensor([2], new Float32Array([1, 2]), "F16")]]))` is 8 + 64 + 4 bytes.
 */
import { ArgumentError, FormatError } from "../errors.ts";

/** Bits of IEEE binary16 (F16) and of the upper half of a float32 (BF16) are held as Uint16Array. */
export type SafeTensor =
  | { readonly dtype: "F32"; readonly shape: readonly number[]; readonly data: Float32Array }
  | { readonly dtype: "F16" | "BF16"; readonly shape: readonly number[]; readonly data: Uint16Array }
  | { readonly dtype: "I32"; readonly shape: readonly number[]; readonly data: Int32Array }
  | { readonly dtype: "U8"; readonly shape: readonly number[]; readonly data: Uint8Array };

export type Dtype = SafeTensor["dtype"];
export type FloatDtype = "F32" | "F16" | "BF16";

/** What a header may say a tensor holds: dtypes this file knows the size of, of which `Dtype` are read. */
export type StoredDtype = Dtype | keyof typeof otherSizes;

/** A tensor's place: bytes `begin` .. `end - 1` of its file. */
export interface TensorPlace {
  readonly dtype: StoredDtype;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** By name, in the order of their data. */
  readonly tensors: Map<string, TensorPlace>;
  /** The header's `__metadata__`, `{}` when it has none. */
  readonly metadata: Record<string, string>;
}

export interface SafetensorsFile {
  /** By name, in the order of their data. Data are views of the bytes read where alignment allows, else copies. */
  readonly tensors: Map<string, SafeTensor>;
  /** The header's `__metadata__`, `{}` when it has none. */
  readonly metadata: Record<string, string>;
}

/** Bytes per element. In the order the reference writer sorts by. */
const sizes: Readonly<Record<Dtype, number>> = { F32: 4, I32: 4, BF16: 2, F16: 2, U8: 1 };
const order = Object.keys(sizes) as readonly Dtype[];
/** Bytes per element of what is not read. */
const otherSizes = {
  ...{ F64: 8, I64: 8, U64: 8, U32: 4, I16: 2, U16: 2, I8: 1, BOOL: 1 },
  ...{ F8_E4M3: 1, F8_E5M2: 1 },
} as const;
const longestHeader = 100_000_000;
const metadataKey = "__metadata__";

/**
 * Read a safetensors file.
 * @param bytes the whole file; the tensors are views of it, so do not write to it afterwards
 * @param source what errors call it; default `"safetensors"`
 * @throws FormatError on anything the format does not allow: see the top of this file
 */
export function readSafetensors(bytes: Uint8Array, source = "safetensors"): SafetensorsFile {
  const { tensors: places, metadata } = readSafetensorsHeader(bytes, bytes.length, source);
  const tensors = new Map<string, SafeTensor>();
  for (const [name, { dtype, shape, begin, end }] of places) {
    if (!isDtype(dtype)) {
      const advice = `Convert it to one of ${order.join(", ")}.`;
      throw new FormatError(source, `tensor ${quoted(name)} holds ${dtype}, which is not read`, advice);
    }
    tensors.set(name, tensorOfBytes(dtype, shape, bytes.subarray(begin, end)));
  }
  return { tensors, metadata };
}

/** Bytes of a file's first field, which says how long the header is. */
export const safetensorsStart = 8;

/**
 * How many bytes a file's header takes, its first field included.
 * @param start the file's first `safetensorsStart` bytes or more
 * @param fileBytes size of the whole file
 * @throws FormatError when the file is too short for it, or the header longer than the format allows
 */
export function safetensorsHeaderBytes(start: Uint8Array, fileBytes: number, source = "safetensors"): number {
  const again = "Download or write it again.";
  if (fileBytes < safetensorsStart) {
    throw new FormatError(source, `it is cut off: ${fileBytes} bytes, its first field alone takes 8`, again);
  }
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (length > longestHeader) {
    const problem = `the header claims ${length} bytes, at most ${longestHeader} are allowed`;
    throw new FormatError(source, problem, "Is it a safetensors file?");
  }
  if (safetensorsStart + length > fileBytes) {
    const problem = `it is cut off: the header claims ${length} bytes, the file holds ${fileBytes - 8} more`;
    throw new FormatError(source, problem, again);
  }
  return safetensorsStart + length;
}

/**
 * Read a file's header: where its tensors are.
 * @param bytes the file's first `safetensorsHeaderBytes` bytes or more
 * @param fileBytes size of the whole file
 * @throws FormatError on anything the format does not allow; the data, which are not looked at, can break no rule
 */
export function readSafetensorsHeader(bytes: Uint8Array, fileBytes: number, source = "safetensors"): SafetensorsHeader {
  const fail: Fail = (problem, advice) => {
    throw new FormatError(source, problem, advice);
  };
  const headerBytes = safetensorsHeaderBytes(bytes, fileBytes, source);
  const { entries, metadata } = parseHeader(bytes.subarray(safetensorsStart, headerBytes), fail);
  const infos = entries.map(([name, value]) => checkInfo(name, value, fail));
  infos.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const dataBytes = fileBytes - headerBytes;
  const tensors = new Map<string, TensorPlace>();
  let end = 0;
  for (const { name, dtype, shape, ...info } of infos) {
    if (info.begin !== end) {
      const what = info.begin < end ? "overlaps the tensor before it" : "leaves a gap behind the tensor before it";
      fail(`tensor ${quoted(name)} ${what}: its data begin at ${info.begin}, the last ones end at ${end}`);
    }
    end = info.end;
    if (end > dataBytes) {
      const problem = `tensor ${quoted(name)} ends at byte ${end}, but there are ${dataBytes} bytes of data`;
      fail(problem, "Download or write it again.");
    }
    tensors.set(name, { dtype, shape, begin: headerBytes + info.begin, end: headerBytes + end });
  }
  if (end !== dataBytes) fail(`the tensors end at byte ${end}, but there are ${dataBytes} bytes of data`);
  return { tensors, metadata };
}

/**
 * Write a safetensors file, to the byte as the reference implementation does: tensors sorted by dtype (F32, I32, BF16,
 * F16, U8: widest first, so each is aligned), then by name; header padded with spaces to a multiple of 8.
 * @param tensors by name; not changed
 * @param metadata written in the order given, before the tensors; left out when empty. Default `{}`
 * @returns the whole file
 * @throws ArgumentError when a shape does not match its data, a dtype its array, or a name cannot be written
 */
export function writeSafetensors(
  tensors: ReadonlyMap<string, SafeTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const encoder = new TextEncoder();
  const sorted = [...tensors].map(([name, tensor]) => ({ name, key: encoder.encode(name), tensor }));
  for (const { name, tensor } of sorted) checkWritable(name, tensor);
  sorted.sort((a, b) => order.indexOf(a.tensor.dtype) - order.indexOf(b.tensor.dtype) || compareBytes(a.key, b.key));

  // Text, not an object: an object would put names that look like integers first and lose `__proto__`.
  const fields: string[] = [];
  if (Object.keys(metadata).length > 0) {
    for (const [key, value] of Object.entries(metadata)) {
      if (typeof value !== "string") throw new ArgumentError(`metadata.${key}`, "a string", value);
      if (isIllFormed(key) || isIllFormed(value)) throw new ArgumentError(`metadata.${key}`, "well-formed text", value);
    }
    fields.push(`"${metadataKey}":${JSON.stringify(metadata)}`);
  }
  let end = 0;
  for (const { name, tensor } of sorted) {
    const begin = end;
    end += tensor.data.byteLength;
    const info = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [begin, end] };
    fields.push(`${JSON.stringify(name)}:${JSON.stringify(info)}`);
  }
  const header = encoder.encode(`{${fields.join(",")}}`);
  const headerLength = Math.ceil(header.length / 8) * 8;
  if (headerLength > longestHeader) {
    throw new ArgumentError("tensors", `names and metadata of at most ${longestHeader} bytes`, headerLength);
  }

  const bytes = new Uint8Array(8 + headerLength + end);
  new DataView(bytes.buffer).setUint32(0, headerLength, true); // the upper half of the 64-bit length stays 0
  bytes.fill(0x20, 8, 8 + headerLength);
  bytes.set(header, 8);
  let offset = 8 + headerLength;
  for (const { tensor } of sorted) {
    bytes.set(new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength), offset);
    offset += tensor.data.byteLength;
  }
  return bytes;
}

/**
 * A tensor's values as float32. F16 and BF16 are widened, exactly, into a new array; F32 comes back as it is, not copied.
 * @throws ArgumentError for an integer tensor
 */
export function toFloat32(tensor: SafeTensor): Float32Array {
  switch (tensor.dtype) {
    case "F32":
      return tensor.data;
    case "F16":
      return widen(tensor.data, halfToFloatBits);
    case "BF16":
      return widen(tensor.data, (bits) => bits << 16);
    default:
      throw new ArgumentError("tensor", "a tensor of floats (F32, F16 or BF16)", tensor.dtype);
  }
}

/**
 * A tensor to write, from float32 values. F16 and BF16 round to the nearest, ties to the even one; too large becomes
 * infinite (F16: from 65,520 on), NaN stays NaN.
 * @param shape its product is `data.length`
 * @param data row-major; kept as it is for F32, not copied
 * @param dtype default `"F32"`
 */
export function floatTensor(shape: readonly number[], data: Float32Array, dtype: FloatDtype = "F32"): SafeTensor {
  if (dtype === "F32") return { dtype, shape, data };
  if (dtype !== "F16" && dtype !== "BF16") throw new ArgumentError("dtype", '"F32", "F16" or "BF16"', dtype);
  const narrow = dtype === "F16" ? floatBitsToHalf : floatBitsToBfloat;
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const narrowed = new Uint16Array(data.length);
  for (let i = 0; i < bits.length; i++) narrowed[i] = narrow(bits[i]!);
  return { dtype, shape, data: narrowed };
}

/** A header's entry, its offsets counted from the end of the header. */
interface TensorInfo extends TensorPlace {
  readonly name: string;
}

type Fail = (problem: string, advice?: string) => never;

function parseHeader(
  bytes: Uint8Array,
  fail: Fail,
): { entries: [name: string, value: unknown][]; metadata: Record<string, string> } {
  if (bytes[0] !== 0x7b) fail('the header does not begin with "{"', "Is it a safetensors file?");
  let text = "";
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    fail("the header is not valid UTF-8");
  }
  let parsed: object = {};
  let problem: string | undefined;
  try {
    problem = structureProblem(text);
    if (problem === undefined) parsed = JSON.parse(text) as object; // begins with "{": an object or an error
  } catch (error) {
    problem = `the header is not valid JSON (${error instanceof Error ? error.message.slice(0, 100) : "?"})`;
  }
  if (problem !== undefined) fail(problem);

  const metadata: [string, string][] = [];
  const entries = Object.entries(parsed).filter(([name, value]: [string, unknown]) => {
    if (isIllFormed(name)) fail(`the name ${quoted(name)} holds half a surrogate pair`);
    if (name !== metadataKey) return true;
    if (!isRecord(value)) return fail(`${metadataKey} must be an object of strings`);
    for (const [key, text] of Object.entries(value)) {
      if (typeof text !== "string") return fail(`${metadataKey}: the value of ${quoted(key)} must be a string`);
      if (isIllFormed(key) || isIllFormed(text)) fail(`${metadataKey}: ${quoted(key)} holds half a surrogate pair`);
      metadata.push([key, text]);
    }
    return false;
  });
  return { entries, metadata: Object.fromEntries(metadata) };
}

/**
 * What `JSON.parse` would swallow or pay too much for: a key given twice in one object, and nesting beyond the three
 * levels of {name: {shape: [ ]}}. The text may still be invalid JSON.
 */
function structureProblem(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = []; // per open bracket, the keys seen in it
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i);
    if (character === 0x7b || character === 0x5b) {
      if (open.push(undefined) > 3) return "the header is nested deeper than three levels";
    } else if (character === 0x7d || character === 0x5d) {
      open.pop();
    } else if (character === 0x22) {
      const start = i++;
      while (i < text.length && text.charCodeAt(i) !== 0x22) i += text.charCodeAt(i) === 0x5c ? 2 : 1;
      let next = i + 1;
      while (text.charCodeAt(next) <= 0x20) next++;
      if (text.charCodeAt(next) !== 0x3a) continue; // a value, not a key
      const key = JSON.parse(text.slice(start, i + 1)) as string;
      const level = open.length - 1;
      const keys = open[level] ?? new Set<string>();
      if (keys.has(key)) return `the name ${quoted(key)} is given twice in the header`;
      open[level] = keys.add(key);
    }
  }
  return undefined;
}

function checkInfo(name: string, value: unknown, fail: Fail): TensorInfo {
  const tensor = `tensor ${quoted(name)}`;
  if (!isRecord(value)) return fail(`${tensor}: expected an object with dtype, shape and data_offsets`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (!isDtype(dtype) && !isOtherDtype(dtype)) {
    return fail(`${tensor}: unknown dtype ${quoted(dtype)}`, `Convert it to one of ${order.join(", ")}.`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    return fail(`${tensor}: shape must be a list of integers >= 0, got ${quoted(shape)}`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    return fail(`${tensor}: data_offsets must be two integers >= 0, got ${quoted(offsets)}`);
  }
  const [begin, end] = offsets as [number, number];
  if (end < begin) fail(`${tensor}: its data end at ${end}, before they begin at ${begin}`);
  let size = isDtype(dtype) ? sizes[dtype] : otherSizes[dtype];
  for (const dimension of shape) {
    size *= dimension;
    if (!Number.isSafeInteger(size)) fail(`${tensor}: the shape ${quoted(shape)} overflows`);
  }
  if (size !== end - begin) {
    fail(`${tensor}: shape ${quoted(shape)} of ${dtype} takes ${size} bytes, its data_offsets span ${end - begin}`);
  }
  return { name, dtype, shape, begin, end };
}

/** A tensor's bytes as elements of its dtype: a view where they are aligned, a copy where not. */
export function tensorOfBytes(dtype: Dtype, shape: readonly number[], bytes: Uint8Array): SafeTensor {
  const aligned = bytes.byteOffset % sizes[dtype] === 0 ? bytes : bytes.slice();
  const length = aligned.length / sizes[dtype];
  const { buffer, byteOffset } = aligned;
  switch (dtype) {
    case "F32":
      return { dtype, shape, data: new Float32Array(buffer, byteOffset, length) };
    case "I32":
      return { dtype, shape, data: new Int32Array(buffer, byteOffset, length) };
    case "U8":
      return { dtype, shape, data: aligned };
    default:
      return { dtype, shape, data: new Uint16Array(buffer, byteOffset, length) };
  }
}

function checkWritable(name: string, { dtype, shape, data }: SafeTensor): void {
  const argument = `tensors[${quoted(name)}]`;
  if (name === metadataKey) throw new ArgumentError(argument, "another name: this one is the format's own", name);
  if (isIllFormed(name)) throw new ArgumentError(argument, "a name without half a surrogate pair", name);
  if (!isDtype(dtype)) throw new ArgumentError(`${argument}.dtype`, `one of ${order.join(", ")}`, dtype);
  const constructors = { F32: Float32Array, F16: Uint16Array, BF16: Uint16Array, I32: Int32Array, U8: Uint8Array };
  if (!(data instanceof constructors[dtype])) {
    throw new ArgumentError(`${argument}.data`, `a ${constructors[dtype].name} for ${dtype}`, typeof data);
  }
  if (!shape.every(isCount) || shape.reduce((product, n) => product * n, 1) !== data.length) {
    throw new ArgumentError(`${argument}.shape`, `integers >= 0 whose product is ${data.length}`, shape);
  }
}

function widen(data: Uint16Array, toBits: (bits: number) => number): Float32Array {
  const bits = new Uint32Array(data.length);
  for (let i = 0; i < data.length; i++) bits[i] = toBits(data[i]!);
  return new Float32Array(bits.buffer);
}

/** binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits; to binary32: 1, 8 (bias 127), 23. */
function halfToFloatBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (fraction << 13); // infinite or NaN
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  if (fraction === 0) return sign;
  const shift = Math.clz32(fraction) - 21; // subnormal, fraction * 2^-24: move its first bit to the implicit place
  return sign | ((113 - shift) << 23) | (((fraction << shift) & 0x3ff) << 13);
}

function floatBitsToHalf(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7c00 | ((magnitude >>> 13) & 0x3ff || 0x200); // NaN; never infinity
  if (magnitude >= 0x47800000) return sign | 0x7c00; // 65,536 and up
  if (magnitude >= 0x38800000) return sign | roundShift(magnitude - 0x38000000, 13); // normal; may carry into infinity
  const exponent = magnitude >>> 23;
  if (exponent < 102) return sign; // below 2^-25
  return sign | roundShift((magnitude & 0x7fffff) | 0x800000, 126 - exponent); // subnormal: a count of 2^-24
}

function floatBitsToBfloat(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | ((bits >>> 16) & 0x7f ? 0 : 0x40); // NaN; never infinity
  return ((bits & 0x80000000) >>> 16) | roundShift(bits & 0x7fffffff, 16);
}

/** value / 2^shift, to the nearest integer, ties to even. `0 < shift <= 24`, `0 <= value < 2^31`. */
function roundShift(value: number, shift: number): number {
  const quotient = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  return quotient + (rest > half || (rest === half && (quotient & 1) === 1) ? 1 : 0);
}

/** UTF-8 byte order, which is code point order; JavaScript's own string order is not. */
function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

function isDtype(value: unknown): value is Dtype {
  return typeof value === "string" && Object.hasOwn(sizes, value);
}

function isOtherDtype(value: unknown): value is keyof typeof otherSizes {
  return typeof value === "string" && Object.hasOwn(otherSizes, value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isIllFormed(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}

function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
