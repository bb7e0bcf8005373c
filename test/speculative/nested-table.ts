/** A table with layers to leave: what drafters that run a model's layers in parts are tested on. */
import type {
  ExtendOptions,
  LanguageModel,
  Matrix,
  Pass,
  ScoreOptions,
  Session,
} from "../../src/model/language-model.ts";
import { isMatrix } from "../../src/model/language-model.ts";
import type { NestedModel } from "../../src/speculative/index.ts";

/** How sharp the law of a sub-model is: what the table's logits are multiplied with after `depth` layers, at `token`. */
export type Sharpness = (depth: number, token: number) => number;

/**
 * The table as a model of `layers` layers, whose lower exits give flatter laws. A state is [token, layers run, position]:
 * what is fed to layers it did not come from, or out of order, is refused.
 * @param table of token ids only: its sessions refuse layers and states, so none reach them
 */
export function nestedTable(
  table: LanguageModel,
  layers: number,
  sharpness: Sharpness = (depth) => depth / layers,
): NestedModel {
  const { vocabularySize, contextLength } = table;
  return {
    vocabularySize,
    contextLength,
    config: { layers },
    openSession(): Session {
      const session = table.openSession();
      const all = Array.from({ length: layers }, (_, layer) => layer);
      /** The tokens of ids or states, checked; `positions[i]` is where row i stands. */
      const tokensOf = (input: ArrayLike<number> | Matrix, first: number, positions: readonly number[]): number[] => {
        if (!isMatrix(input)) {
          if (first !== 0) throw new Error(`ids were fed to layer ${first}`);
          return Array.from(input);
        }
        return positions.map((position, r) => {
          const [token, depth, at] = input.data.subarray(3 * r, 3 * r + 3) as Iterable<number> as number[];
          if (depth !== first || at !== position) {
            throw new Error(`layer ${first}, position ${position} was fed the state of depth ${depth}, position ${at}`);
          }
          return token!;
        });
      };
      const dressed = (
        { logits }: Pass,
        rows: readonly number[],
        ran: readonly number[],
        tokens: readonly number[],
        positions: readonly number[],
        taps: ExtendOptions["taps"],
      ): Pass => {
        const depth = ran[ran.length - 1]! + 1;
        const data = logits.data.map((logit, i) => {
          return logit * sharpness(depth, tokens[rows[Math.floor(i / vocabularySize)]!]!);
        });
        const states = Float32Array.from(tokens.flatMap((token, r) => [token, depth, positions[r]!]));
        const hidden = [{ data: states, rows: tokens.length, columns: 3 }];
        return { logits: { ...logits, data }, ...(taps?.includes("hidden") && { taps: { hidden } }) };
      };
      return {
        get length() {
          return session.length;
        },
        get cost() {
          return session.cost;
        },
        extend(input, { layers: ran = all, logits = "last", taps } = {}) {
          const count = isMatrix(input) ? input.rows : input.length;
          const positions = Array.from({ length: count }, (_, i) => session.length + i);
          const tokens = tokensOf(input, ran[0]!, positions);
          const pass = session.extend(tokens, { logits });
          const rows = logits === "last" ? [count - 1] : Array.from(tokens.keys());
          return dressed(pass, rows, ran, tokens, positions, taps);
        },
        score(tree, { layers: ran = all, taps, embeddings }: ScoreOptions = {}) {
          const positions: number[] = [];
          for (let i = 0; i < tree.tokens.length; i++) {
            positions.push((positions[tree.parents[i]!] ?? session.length - 1) + 1);
          }
          const tokens = tokensOf(embeddings ?? tree.tokens, ran[0]!, positions);
          const pass = session.score({ tokens, parents: tree.parents });
          return dressed(pass, Array.from(tokens.keys()), ran, tokens, positions, taps);
        },
        accept: (node) => session.accept(node),
        truncate: (length) => session.truncate(length),
        close: () => session.close(),
      };
    },
  };
}
