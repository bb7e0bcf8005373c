/** A binary heap of doubles, smallest first. Entries that carry more pack it into the number. */
export class MinHeap {
  #values: Float64Array;
  size = 0;

  constructor(capacity: number) {
    this.#values = new Float64Array(Math.max(16, capacity));
  }

  push(value: number): void {
    if (this.size === this.#values.length) {
      const grown = new Float64Array(2 * this.size);
      grown.set(this.#values);
      this.#values = grown;
    }
    const values = this.#values;
    let hole = this.size++;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (values[parent]! <= value) break;
      values[hole] = values[parent]!;
      hole = parent;
    }
    values[hole] = value;
  }

  pop(): number {
    const values = this.#values;
    const smallest = values[0]!;
    const last = values[--this.size]!;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && values[child + 1]! < values[child]!) child++;
      if (values[child]! >= last) break;
      values[hole] = values[child]!;
      hole = child;
    }
    values[hole] = last;
    return smallest;
  }
}
