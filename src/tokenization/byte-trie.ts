/**
 * A trie over the bytes of tokens: walking a text from a position meets every token that starts there, shortest first.
 *
 * Nodes are numbers, the root 0; an edge is an entry of a hash table from (node, byte) to node, so that a step costs one
 * lookup and a node as much memory as it has children.
 */

import { PairTable } from "./pair-table.ts";

export class ByteTrie {
  readonly #children: PairTable;
  readonly #roots = new Int32Array(256).fill(-1); // the root's children, without hashing
  #tokens = new Int32Array(1024).fill(-1);
  #nodes = 1;

  /** @param expected how many bytes will be added in all; a hint */
  constructor(expected = 1024) {
    this.#children = new PairTable(expected);
  }

  /** Add a token, not empty. Of two with the same bytes the later counts. */
  add(bytes: Uint8Array, id: number): void {
    let node = 0;
    for (const byte of bytes) {
      let child = this.child(node, byte);
      if (child < 0) {
        child = this.#nodes++;
        if (node === 0) this.#roots[byte] = child;
        else this.#children.set(node, byte, child);
      }
      node = child;
    }
    if (this.#nodes > this.#tokens.length) {
      const grown = new Int32Array(2 * this.#nodes).fill(-1);
      grown.set(this.#tokens);
      this.#tokens = grown;
    }
    this.#tokens[node] = id;
  }

  /** The node behind `byte`, -1 where no token goes on with it. */
  child(node: number, byte: number): number {
    return node === 0 ? this.#roots[byte]! : this.#children.get(node, byte);
  }

  /** Id of the token that ends at a node, -1 where none does. */
  tokenAt(node: number): number {
    return this.#tokens[node]!;
  }
}
