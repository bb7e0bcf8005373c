/**
 * The bytes of every token, end to end in one array, and the way back from bytes to id.
 *
 * Id `i` owns `bytes[offsets[i] .. offsets[i + 1]]`; an unused id owns nothing.
 */
export class TokenTable {
  readonly bytes: Uint8Array;
  /** Length `size + 1`. */
  readonly offsets: Uint32Array;
  #slots: Int32Array | undefined; // open addressing, at most half full: hash, id; id -1 = empty

  /** @param tokens bytes by id; undefined for ids that are not used */
  constructor(tokens: readonly (Uint8Array | undefined)[]) {
    this.offsets = new Uint32Array(tokens.length + 1);
    let size = 0;
    for (let id = 0; id < tokens.length; id++) {
      size += tokens[id]?.length ?? 0;
      this.offsets[id + 1] = size;
    }
    this.bytes = new Uint8Array(size);
    for (let id = 0; id < tokens.length; id++) {
      const token = tokens[id];
      if (token !== undefined) this.bytes.set(token, this.offsets[id]!);
    }
  }

  /** Number of ids, unused ones included. */
  get size(): number {
    return this.offsets.length - 1;
  }

  /** Bytes of a token, 0 for an unused id. */
  length(id: number): number {
    return this.offsets[id + 1]! - this.offsets[id]!;
  }

  /** Bytes of a token, a view. */
  get(id: number): Uint8Array {
    return this.bytes.subarray(this.offsets[id]!, this.offsets[id + 1]!);
  }

  /** Id of the token with the bytes `source[start .. end]`, -1 when there is none. */
  find(source: Uint8Array, start: number, end: number): number {
    return this.findHashed(hashBytes(source, start, end), source, start, end);
  }

  /** `find` for a caller who has the `hashBytes` of those bytes already. */
  findHashed(hash: number, source: Uint8Array, start: number, end: number): number {
    const slots = this.#slots ?? this.#index();
    const mask = (slots.length >> 1) - 1;
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const id = slots[2 * slot + 1]!;
      if (id < 0 || (slots[2 * slot] === hash && this.#equals(id, source, start, end))) return id;
    }
  }

  #index(): Int32Array {
    const slots = new Int32Array(2 * 2 ** Math.ceil(Math.log2(2 * this.size + 2))).fill(-1);
    const mask = (slots.length >> 1) - 1;
    for (let id = 0; id < this.size; id++) {
      if (this.length(id) === 0) continue;
      const hash = hashBytes(this.bytes, this.offsets[id]!, this.offsets[id + 1]!);
      let slot = hash & mask;
      while (slots[2 * slot + 1]! >= 0) slot = (slot + 1) & mask;
      slots[2 * slot] = hash;
      slots[2 * slot + 1] = id;
    }
    this.#slots = slots;
    return slots;
  }

  #equals(id: number, source: Uint8Array, start: number, end: number): boolean {
    const from = this.offsets[id]!;
    if (this.offsets[id + 1]! - from !== end - start) return false;
    const shift = from - start;
    for (let i = start; i < end; i++) if (this.bytes[shift + i] !== source[i]) return false;
    return true;
  }
}

/** `a` followed by `b`. */
export function concatBytes(a: Uint8Array, b: Uint8Array): Uint8Array {
  return joinBytes([a, b]);
}

/** All of them, end to end. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** A 32-bit hash of `source[start .. end]`. */
export function hashBytes(source: Uint8Array, start: number, end: number): number {
  let h = 0;
  for (let i = start; i < end; i++) h = Math.imul(h ^ source[i]!, 0x01000193) + 0x9e37;
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return h ^ (h >>> 13);
}
