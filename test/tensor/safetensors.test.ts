import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.ts";
import {
  type Dtype,
  floatTensor,
  readSafetensors,
  readSafetensorsHeader,
  type SafeTensor,
  safetensorsHeaderBytes,
  tensorOfBytes,
  toFloat32,
  writeSafetensors,
} from "../../src/tensor/safetensors.ts";

// Made by the reference implementation: fixtures/safetensors/make.py.
const fixture = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../fixtures/safetensors/${name}`, import.meta.url)));

interface Verdict {
  name: string;
  base64: string;
  /** The reference's error, null when it accepts. */
  reference: string | null;
  ours: "stricter" | null;
}
const verdicts = JSON.parse(new TextDecoder().decode(fixture("verdicts.json"))) as Verdict[];

function header(text: string | Uint8Array, data = new Uint8Array(0)): Uint8Array {
  const raw = typeof text === "string" ? new TextEncoder().encode(text) : text;
  const bytes = new Uint8Array(8 + raw.length + data.length);
  new DataView(bytes.buffer).setUint32(0, raw.length, true);
  bytes.set(raw, 8);
  bytes.set(data, 8 + raw.length);
  return bytes;
}

describe("the format by hand", () => {
  it("two float32 values", () => {
    const bytes = writeSafetensors(new Map([["w", floatTensor([2], new Float32Array([1, -2]))]]));
    const text = '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  ';
    expect([...bytes]).toEqual([
      ...[56, 0, 0, 0, 0, 0, 0, 0],
      ...new TextEncoder().encode(text),
      ...[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0],
    ]);
    expect(readSafetensors(bytes)).toEqual({
      tensors: new Map([["w", { dtype: "F32", shape: [2], data: new Float32Array([1, -2]) }]]),
      metadata: {},
    });
  });

  it("16-bit floats worth knowing", () => {
    const narrow = (value: number, dtype: "F16" | "BF16") => floatTensor([1], new Float32Array([value]), dtype).data[0];
    expect(narrow(1, "F16")).toBe(0x3c00);
    expect(narrow(-2, "F16")).toBe(0xc000);
    expect(narrow(65504, "F16")).toBe(0x7bff); // the largest
    expect(narrow(65519, "F16")).toBe(0x7bff);
    expect(narrow(65520, "F16")).toBe(0x7c00); // a tie between it and 65,536: even, so infinite
    expect(narrow(2 ** -24, "F16")).toBe(1); // the smallest subnormal
    expect(narrow(2 ** -25, "F16")).toBe(0); // a tie: even
    expect(narrow(1.5 * 2 ** -25, "F16")).toBe(1);
    expect(narrow(1 + 2 ** -11, "F16")).toBe(0x3c00); // ties to even, down ...
    expect(narrow(1 + 3 * 2 ** -11, "F16")).toBe(0x3c02); // ... and up
    expect(narrow(-0, "F16")).toBe(0x8000);
    expect(narrow(1, "BF16")).toBe(0x3f80);
    expect(narrow(1 + 2 ** -8, "BF16")).toBe(0x3f80);
    expect(narrow(1 + 3 * 2 ** -8, "BF16")).toBe(0x3f82);
    expect(narrow(3.4e38, "BF16")).toBe(0x7f80); // rounds up to infinity
    expect(narrow(Number.NEGATIVE_INFINITY, "BF16")).toBe(0xff80);
    expect(narrow(Number.NaN, "F16")! & 0x7fff).toBeGreaterThan(0x7c00);
    expect(narrow(Number.NaN, "BF16")! & 0x7fff).toBeGreaterThan(0x7f80);
  });
});

describe("against the reference implementation", () => {
  it("reads its file, and writes the same bytes", () => {
    const bytes = fixture("mixed.safetensors");
    const { tensors, metadata } = readSafetensors(bytes);
    expect(metadata).toEqual({ format: "tokenthrift ü" });
    const shown = [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape.join("x")}`);
    expect(shown).toEqual([
      "1 F32 1",
      "B F32 1",
      "a F32 1",
      "empty F32 0x3",
      'quote"back\\slash/\n F32 1',
      "scalar F32 ",
      "weights F32 2x3",
      "ä中 F32 1",
      "\uffee F32 1", // before the emoji: code point order, not JavaScript's
      "😀 F32 1",
      "integers I32 1x1x2",
      "brain BF16 2x1",
      "half F16 4",
      "bytes U8 3",
    ]);
    expect(tensors.get("weights")!.data).toEqual(Float32Array.from([0, 1, 2, 3, 4, 5], (x) => x / 7));
    expect([...tensors.get("integers")!.data]).toEqual([-(2 ** 31), 2 ** 31 - 1]);
    expect([...tensors.get("bytes")!.data]).toEqual([0, 127, 255]);
    expect([...toFloat32(tensors.get("half")!)]).toEqual([0.0999755859375, -65504, 2 ** -24, Number.POSITIVE_INFINITY]);
    expect([...toFloat32(tensors.get("brain")!)]).toEqual([0.10009765625, -2.99741857e38].map(nearestBfloat));
    const shuffled = new Map([...tensors].reverse());
    expect(writeSafetensors(shuffled, metadata)).toEqual(bytes);
  });

  it("rounds as numpy and ml_dtypes do", () => {
    const { tensors } = readSafetensors(fixture("rounding.safetensors"));
    const values = toFloat32(tensors.get("f32")!);
    expect(values.length).toBeGreaterThan(5000);
    for (const dtype of ["F16", "BF16"] as const) {
      expect(floatTensor([values.length], values, dtype).data).toEqual(tensors.get(dtype.toLowerCase())!.data);
    }
  });

  for (const { name, base64, reference, ours } of verdicts) {
    it(`${name}: ${reference === null && ours === null ? "accepted" : "refused"}`, () => {
      const bytes = new Uint8Array(Buffer.from(base64, "base64"));
      if (reference === null && ours === null) readSafetensors(bytes);
      else expect(() => readSafetensors(bytes, "model.safetensors")).toThrow(FormatError);
    });
  }
});

/** The float32 whose lower half is zero nearest to a value written in decimals. */
function nearestBfloat(value: number): number {
  const bits = new Uint32Array(new Float32Array([value]).buffer);
  bits[0] = ((bits[0]! + 0x8000) & 0xffff0000) >>> 0;
  return new Float32Array(bits.buffer)[0]!;
}

describe("every 16-bit pattern survives", () => {
  const all = Uint16Array.from({ length: 65_536 }, (_, i) => i);

  for (const dtype of ["F16", "BF16"] as const) {
    it(dtype, () => {
      const wide = toFloat32({ dtype, shape: [65_536], data: all });
      expect(floatTensor([65_536], wide, dtype).data).toEqual(all);
      // Values by the formula, from the fields.
      const [fractionBits, bias] = dtype === "F16" ? [10, 15] : [7, 127];
      for (let i = 0; i < 65_536; i++) {
        const sign = i >>> 15 ? -1 : 1;
        const exponent = (i & 0x7fff) >>> fractionBits;
        const fraction = (i & (2 ** fractionBits - 1)) / 2 ** fractionBits;
        let value = sign * (exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias));
        if (exponent === 2 * bias + 1) value = fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
        if (!Object.is(wide[i], value)) expect.fail(`${dtype} ${i}: got ${wide[i]}, expected ${value}`);
      }
    });

    it(`${dtype}: between two neighbours, the nearer one, on a tie the even one`, () => {
      const finite = dtype === "F16" ? 0x7bff : 0x7f7f;
      const wide = toFloat32({ dtype, shape: [65_536], data: all });
      fc.assert(
        fc.property(fc.nat(finite - 1), fc.double({ min: 0, max: 1, noNaN: true }), fc.boolean(), (i, part, minus) => {
          const [low, high] = [wide[i]!, wide[i + 1]!];
          const value = Math.fround(low + part * (high - low));
          const below = value - low;
          const above = high - value;
          const expected = below < above || (below === above && i % 2 === 0) ? i : i + 1;
          const [got] = floatTensor([1], new Float32Array([minus ? -value : value]), dtype).data;
          expect(got).toBe(minus ? expected | 0x8000 : expected);
        }),
        { numRuns: 2000 },
      );
    });
  }
});

describe("properties", () => {
  const dimension = fc.array(fc.nat(4), { maxLength: 3 });
  const dtype = fc.constantFrom<Dtype>("F32", "F16", "BF16", "I32", "U8");
  const tensor = fc.tuple(dtype, dimension, fc.integer()).map(([dtype, shape, seed]): SafeTensor => {
    const length = shape.reduce((product, n) => product * n, 1);
    const values = Array.from({ length }, (_, i) => Math.imul(seed + i, 2654435761) | 0);
    if (dtype === "F32") return { dtype, shape, data: Float32Array.from(values, (x) => x / 1000) };
    if (dtype === "I32") return { dtype, shape, data: Int32Array.from(values) };
    if (dtype === "U8") return { dtype, shape, data: Uint8Array.from(values) };
    return { dtype, shape, data: Uint16Array.from(values) };
  });
  const text = fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("__proto__", "constructor", "0", "1e3", ""));
  const file = fc.tuple(
    fc.dictionary(text, tensor, { maxKeys: 8, noNullPrototype: true }).map((o) => new Map(Object.entries(o))),
    fc.dictionary(text, text, { maxKeys: 3, noNullPrototype: true }),
  );

  it("what was written is read, at any alignment, and written again the same", () => {
    fc.assert(
      fc.property(file, fc.nat(7), ([tensors, metadata], shift) => {
        const bytes = writeSafetensors(tensors, metadata);
        const moved = new Uint8Array(bytes.length + shift).subarray(shift);
        moved.set(bytes);
        const read = readSafetensors(moved);
        expect(new Map([...read.tensors].sort())).toEqual(new Map([...tensors].sort()));
        expect(read.metadata).toEqual(metadata);
        expect(writeSafetensors(read.tensors, read.metadata)).toEqual(bytes);
      }),
    );
  });

  it("the header alone says where each tensor is", () => {
    fc.assert(
      fc.property(file, ([tensors, metadata]) => {
        const bytes = writeSafetensors(tensors, metadata);
        const length = safetensorsHeaderBytes(bytes.subarray(0, 8), bytes.length);
        const places = readSafetensorsHeader(bytes.slice(0, length), bytes.length);
        expect(places.metadata).toEqual(metadata);
        const read = [...places.tensors].map(([name, { dtype, shape, begin, end }]) => {
          if (!["F32", "F16", "BF16", "I32", "U8"].includes(dtype)) expect.fail(`${name} is ${dtype}`);
          return [name, tensorOfBytes(dtype as Dtype, shape, bytes.subarray(begin, end))] as const;
        });
        expect(new Map(read)).toEqual(readSafetensors(bytes).tensors);
      }),
    );
  });

  it("every cut is refused", () => {
    fc.assert(
      fc.property(file, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), ([tensors, metadata], part) => {
        const bytes = writeSafetensors(tensors, metadata);
        expect(() => readSafetensors(bytes.subarray(0, Math.floor(part * bytes.length)))).toThrow(FormatError);
      }),
    );
  });

  it("aligned data are views, not copies", () => {
    const bytes = writeSafetensors(new Map([["w", floatTensor([4], new Float32Array(4), "BF16")]]));
    expect(readSafetensors(bytes).tensors.get("w")!.data.buffer).toBe(bytes.buffer);
  });
});

describe("the header alone", () => {
  it("places every tensor in the file, unreadable dtypes too, without looking at the data", () => {
    const text = JSON.stringify({
      mask: { dtype: "BOOL", shape: [2, 2], data_offsets: [8, 12] },
      table: { dtype: "BF16", shape: [4], data_offsets: [0, 8] },
      far: { dtype: "F32", shape: [2 ** 33], data_offsets: [12, 12 + 2 ** 35] },
      __metadata__: { format: "pt" },
    });
    const start = header(text);
    const fileBytes = start.length + 12 + 2 ** 35;
    expect(safetensorsHeaderBytes(start.subarray(0, 8), fileBytes)).toBe(start.length);
    const { tensors, metadata } = readSafetensorsHeader(start, fileBytes);
    expect([...tensors]).toEqual([
      ["table", { dtype: "BF16", shape: [4], begin: start.length, end: start.length + 8 }],
      ["mask", { dtype: "BOOL", shape: [2, 2], begin: start.length + 8, end: start.length + 12 }],
      ["far", { dtype: "F32", shape: [2 ** 33], begin: start.length + 12, end: fileBytes }],
    ]);
    expect(metadata).toEqual({ format: "pt" });
    expect(() => readSafetensorsHeader(start, fileBytes - 1)).toThrow(/"far" ends at byte/);
    expect(() => readSafetensorsHeader(start, fileBytes + 1)).toThrow(/the tensors end at byte/);
  });
});

describe("errors say what and where", () => {
  const info = (dtype: string, shape: string, offsets: string) =>
    `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
  const cases: [text: string, data: number, message: RegExp][] = [
    [`{"w":${info("F33", "[1]", "[0,8]")}}`, 8, /model: tensor "w": unknown dtype "F33"\. Convert it to one of F32/],
    [`{"w":${info("F64", "[1]", "[0,8]")}}`, 8, /model: tensor "w" holds F64, which is not read\. Convert it to one/],
    [`{"w":${info("toString", "[1]", "[0,8]")}}`, 8, /unknown dtype/],
    [`{"w":${info("F32", "[2]", "[0,4]")}}`, 4, /tensor "w": shape \[2\] of F32 takes 8 bytes, .* span 4/],
    [
      `{"a":${info("U8", "[2]", "[0,2]")},"b":${info("U8", "[2]", "[1,3]")}}`,
      3,
      /"b" overlaps .* begin at 1, .* end at 2/,
    ],
    [`{"a":${info("U8", "[2]", "[0,2]")},"b":${info("U8", "[2]", "[3,5]")}}`, 5, /"b" leaves a gap/],
    [`{"a":${info("U8", "[9]", "[0,9]")}}`, 8, /"a" ends at byte 9, but there are 8 bytes of data/],
    [`{"a":${info("U8", "[3]", "[0,3]")}}`, 8, /the tensors end at byte 3, but there are 8/],
    [`{"a":${info("U8", "[3]", "[0,3]")},"a":1}`, 3, /the name "a" is given twice/],
    [`{"a":${info("U8", "[4294967296,4294967296]", "[0,0]")}}`, 0, /shape \[4294967296,4294967296\] overflows/],
    [`{"a":${info("U8", "[-0]", "[0,0]")}}`, 0, /shape must be a list of integers >= 0/],
    [`{"${"n".repeat(500)}":1}`, 0, /^model: tensor "n{60,80}\.\.\.: expected an object/],
    [`${"[".repeat(100_000)}`, 0, /does not begin/],
    [`{"a":${"[".repeat(100_000)}`, 0, /nested deeper/],
    [`{"a`, 0, /not valid JSON/],
    [`{"a\\`, 0, /not valid JSON/],
    [`{"a\\q":1}`, 0, /not valid JSON/],
  ];
  for (const [text, data, message] of cases) {
    it(`${text.slice(0, 60)} + ${data} bytes`, () => {
      expect(() => readSafetensors(header(text, new Uint8Array(data)), "model")).toThrow(message);
    });
  }

  it("the header's length is judged before anything is read", () => {
    const claims = (low: number, high: number) => {
      const bytes = header("{}");
      new DataView(bytes.buffer).setUint32(0, low, true);
      new DataView(bytes.buffer).setUint32(4, high, true);
      return bytes;
    };
    expect(() => readSafetensors(claims(100_000_001, 0))).toThrow(/claims 100000001 bytes, at most 100000000/);
    expect(() => readSafetensors(claims(100_000_000, 0))).toThrow(/cut off: the header claims 100000000 bytes/);
    expect(() => readSafetensors(claims(2, 1))).toThrow(/claims 4294967298 bytes, at most/);
    expect(() => readSafetensors(claims(1, 0))).toThrow(/not valid JSON/);
  });

  it("writing what cannot be read back is refused", () => {
    const write = (name: string, tensor: unknown) => () => writeSafetensors(new Map([[name, tensor as SafeTensor]]));
    const data = new Float32Array(2);
    expect(write("__metadata__", floatTensor([2], data))).toThrow(ArgumentError);
    expect(write("\ud800", floatTensor([2], data))).toThrow(/half a surrogate pair/);
    expect(write("w", floatTensor([3], data))).toThrow(/shape: expected integers >= 0 whose product is 2, got \[3\]/);
    expect(write("w", floatTensor([-1, -2], data))).toThrow(/shape/);
    expect(write("w", { dtype: "F16", shape: [2], data })).toThrow(/data: expected a Uint16Array for F16/);
    expect(write("w", { dtype: "F64", shape: [2], data })).toThrow(/dtype/);
    expect(() => writeSafetensors(new Map(), { a: 1 as unknown as string })).toThrow(/metadata\.a: expected a string/);
    expect(() => writeSafetensors(new Map(), { a: "\udc00" })).toThrow(/well-formed/);
    expect(() => floatTensor([2], data, "F64" as "F16")).toThrow(/dtype: expected "F32", "F16" or "BF16"/);
    expect(() => toFloat32({ dtype: "U8", shape: [1], data: new Uint8Array(1) })).toThrow(ArgumentError);
  });
});
