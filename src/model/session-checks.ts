/** What every session and every caller of sessions has to refuse, in one wording. */
import { ArgumentError } from "../errors.ts";
import type { DraftTree } from "./language-model.ts";

/** @throws ArgumentError naming the first entry that is not an id of the vocabulary */
export function requireIds(argument: string, ids: ArrayLike<number>, vocabularySize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!(Number.isInteger(id) && id >= 0 && id < vocabularySize)) {
      throw new ArgumentError(`${argument}[${i}]`, `a token id from 0 to ${vocabularySize - 1}`, id);
    }
  }
}

/** @throws ArgumentError on a tree without nodes, an id outside the vocabulary, or a parent that is no earlier node */
export function requireTree({ tokens, parents }: DraftTree, vocabularySize: number): void {
  if (tokens.length === 0) throw new ArgumentError("tree.tokens", "at least one node", []);
  if (parents.length !== tokens.length) {
    throw new ArgumentError("tree.parents", `one parent per node (${tokens.length})`, parents.length);
  }
  requireIds("tree.tokens", tokens, vocabularySize);
  for (let i = 0; i < parents.length; i++) {
    const parent = parents[i]!;
    if (!(Number.isInteger(parent) && parent >= -1 && parent < i)) {
      throw new ArgumentError(`tree.parents[${i}]`, `an integer from -1 to ${i - 1}`, parent);
    }
  }
}
