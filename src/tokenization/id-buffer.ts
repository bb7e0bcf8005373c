/** A growing list of ids in a typed array. */
export class IdBuffer {
  values: Uint32Array;
  length = 0;

  constructor(capacity = 1024) {
    this.values = new Uint32Array(capacity);
  }

  push(id: number): void {
    if (this.length === this.values.length) this.reserve(1);
    this.values[this.length++] = id;
  }

  /** Make room for `count` more. */
  reserve(count: number): void {
    if (this.length + count <= this.values.length) return;
    const grown = new Uint32Array(Math.max(2 * this.values.length, this.length + count));
    grown.set(this.values);
    this.values = grown;
  }

  /** A copy of what was pushed. */
  toArray(): Uint32Array {
    return this.values.slice(0, this.length);
  }
}
