/**
 * An open-addressing hash table from a pair of ids to an id: what BPE looks up at every step.
 *
 * Linear probing in typed arrays, at most half full, a power of two of slots. A JavaScript `Map` would need one number
 * or string per pair as its key and four times the memory.
 */
export class PairTable {
  #slots: Int32Array; // [3 * capacity]: left, right, value; value -1 = empty
  #mask: number;
  #size = 0;

  /** @param expected how many pairs will be put in; a hint, the table grows */
  constructor(expected = 16) {
    const capacity = 2 ** Math.max(4, Math.ceil(Math.log2(2 * expected)));
    this.#slots = new Int32Array(3 * capacity).fill(-1);
    this.#mask = capacity - 1;
  }

  get size(): number {
    return this.#size;
  }

  /** Value of the pair, -1 when absent. */
  get(left: number, right: number): number {
    const slots = this.#slots;
    const mask = this.#mask;
    let slot = hashPair(left, right) & mask;
    for (;;) {
      const at = 3 * slot;
      const value = slots[at + 2]!;
      if (value < 0 || (slots[at] === left && slots[at + 1] === right)) return value;
      slot = (slot + 1) & mask;
    }
  }

  /** Put a value (>= 0) under a pair, replacing what was there. */
  set(left: number, right: number, value: number): void {
    if (2 * this.#size > this.#mask) this.#grow();
    if (this.#put(left, right, value)) this.#size++;
  }

  #put(left: number, right: number, value: number): boolean {
    const slots = this.#slots;
    let slot = hashPair(left, right) & this.#mask;
    for (;;) {
      const at = 3 * slot;
      const isNew = slots[at + 2]! < 0;
      if (isNew || (slots[at] === left && slots[at + 1] === right)) {
        slots[at] = left;
        slots[at + 1] = right;
        slots[at + 2] = value;
        return isNew;
      }
      slot = (slot + 1) & this.#mask;
    }
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Int32Array(2 * old.length).fill(-1);
    this.#mask = 2 * this.#mask + 1;
    for (let at = 0; at < old.length; at += 3) {
      if (old[at + 2]! >= 0) this.#put(old[at]!, old[at + 1]!, old[at + 2]!);
    }
  }
}

function hashPair(left: number, right: number): number {
  let h = Math.imul(left, 0x9e3779b1) ^ Math.imul(right + 0x7f4a7c15, 0x85ebca6b);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return h ^ (h >>> 13);
}
