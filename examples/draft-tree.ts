/** A drafted tree as text, for the examples: one node a line, what the target accepted marked. */
import { painter } from "../src/cli/output.ts";
import { childrenOf, type Step } from "../src/speculative/index.ts";

/**
 * Draws what one step drafted, the pending token on top, each node's guesses below it in the order they are tested.
 * Accepted ones have a check mark, and are green where the terminal has colours; the last line is the token after them.
 * @param decode ids to text
 */
export function drawTree({ draft, path, tokens }: Step, decode: (ids: number[]) => string): string {
  const { paint } = painter(process.stdout, process.env);
  const shown = (token: number): string => JSON.stringify(decode([token]));
  const lines = [shown(draft.tokens[0]!)];
  const grow = (node: number, indent: string): void => {
    const children = childrenOf(draft, node);
    children.forEach((child, i) => {
      const last = i === children.length - 1;
      const text = shown(draft.tokens[child]!);
      const label = path.includes(child) ? paint(`${text} \u2713`, "green", "bold") : paint(text, "dim");
      lines.push(`${indent}${last ? "\u2514\u2500" : "\u251c\u2500"} ${label}`);
      grow(child, `${indent}${last ? "   " : "\u2502  "}`);
    });
  };
  grow(0, "");
  const more = tokens[tokens.length - 1]!;
  return `${lines.join("\n")}\n\u2192 ${path.length - 1} accepted, then the target's own ${shown(more)}`;
}
