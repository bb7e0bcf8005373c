/** A table with hidden states to tap: what drafters that read the target's states are tested on. */
import type { DraftTree, LanguageModel, Matrix, Pass, PassOptions, Session } from "../../src/model/language-model.ts";
import { Random } from "../../src/tensor/random.ts";

/**
 * The table, dressed: `taps: ["hidden"]` gives two layers' states, the last a function of the last two tokens of the text
 * up to each row (as the law of a table of order 2 is), normal deviates.
 * @param table of token ids only: its sessions refuse taps, so none reach them
 */
export function withHidden(table: LanguageModel, width: number): LanguageModel {
  const states = new Map<string, Float32Array>();
  const stateAfter = (tokens: readonly number[]): Float32Array => {
    const key = tokens.slice(-2).join();
    let state = states.get(key);
    if (state === undefined) {
      const random = new Random(key);
      state = Float32Array.from({ length: width }, () => random.normal());
      states.set(key, state);
    }
    return state;
  };
  const tapped = (pass: Pass, contexts: readonly (readonly number[])[], options: PassOptions | undefined): Pass => {
    if (!options?.taps?.includes("hidden")) return pass;
    const data = new Float32Array(contexts.length * width);
    contexts.forEach((tokens, r) => {
      data.set(stateAfter(tokens), r * width);
    });
    const first: Matrix = { data: new Float32Array(data.length), rows: contexts.length, columns: width };
    return { ...pass, taps: { hidden: [first, { ...first, data }] } };
  };
  return {
    vocabularySize: table.vocabularySize,
    contextLength: table.contextLength,
    openSession(): Session {
      const session = table.openSession();
      const text: number[] = [];
      /** Of the tree last scored: the text up to each node. */
      let scored: number[][] = [];
      return {
        get length() {
          return session.length;
        },
        get cost() {
          return session.cost;
        },
        extend(input, options) {
          const ids = Array.from(input as ArrayLike<number>);
          const pass = session.extend(ids, { ...(options?.logits && { logits: options.logits }) });
          const contexts = ids.map((_, i) => [...text, ...ids.slice(0, i + 1)]);
          text.push(...ids);
          return tapped(pass, contexts, options);
        },
        score(tree: DraftTree, options) {
          const pass = session.score(tree);
          scored = [];
          for (let i = 0; i < tree.tokens.length; i++) {
            scored.push([...(scored[tree.parents[i]!] ?? text), tree.tokens[i]!]);
          }
          return tapped(pass, scored, options);
        },
        accept(node) {
          session.accept(node);
          text.push(...scored[node]!.slice(text.length));
        },
        truncate(length) {
          session.truncate(length);
          text.length = length;
        },
        close: () => session.close(),
      };
    },
  };
}
