/** Dynamic merging the slow way, as the paper's code does it: count all pairs of the batch, merge one, begin again. */

import type { MergeBoundary } from "../../src/tokenization/index.ts";

export interface SlowMerging {
  readonly rows: readonly (readonly string[])[];
  readonly merges: readonly { readonly left: string; readonly right: string; readonly count: number }[];
  readonly lengths: readonly number[];
}

/**
 * @param rows tokens as strings of one unit per byte; what begins with "special:" is a special token
 * @param onePiece whether a text is one piece to the pre-tokenizer
 */
export function recountingMerging(
  rows: readonly (readonly string[])[],
  boundary: MergeBoundary,
  onePiece: (text: string) => boolean,
  merges = Number.POSITIVE_INFINITY,
): SlowMerging {
  const judged = new Map<string, boolean>();
  const allowed = (left: string, right: string): boolean => {
    const key = `${left.length} ${left}${right}`;
    const verdict = judged.get(key) ?? mayMerge(left, right, boundary, onePiece);
    judged.set(key, verdict);
    return verdict;
  };
  let now = rows.map((row) => [...row]);
  const total = (): number => now.reduce((sum, row) => sum + row.length, 0);
  const done: { left: string; right: string; count: number }[] = [];
  const lengths = [total()];
  while (done.length < merges) {
    // By left half, then right half; `order` is when a pair was first met.
    const counts = new Map<string, Map<string, { count: number; order: number }>>();
    let met = 0;
    for (const row of now) {
      for (let i = 0; i + 1 < row.length; i++) {
        const [left, right] = [row[i]!, row[i + 1]!];
        if (!allowed(left, right)) continue;
        const rights = counts.get(left) ?? new Map<string, { count: number; order: number }>();
        counts.set(left, rights);
        const entry = rights.get(right);
        if (entry === undefined) rights.set(right, { count: 1, order: met++ });
        else entry.count++;
      }
    }
    let best: { left: string; right: string; count: number; order: number } | undefined;
    for (const [left, rights] of counts) {
      for (const [right, { count, order }] of rights) {
        if (best === undefined || count > best.count || (count === best.count && order < best.order)) {
          best = { left, right, count, order };
        }
      }
    }
    if (best === undefined) break;
    const { left, right, count } = best;
    done.push({ left, right, count });
    now = now.map((row) => {
      const merged: string[] = [];
      for (let i = 0; i < row.length; i++) {
        if (row[i] === left && row[i + 1] === right) {
          merged.push(left + right);
          i++;
        } else merged.push(row[i]!);
      }
      return merged;
    });
    lengths.push(total());
  }
  return { rows: now, merges: done, lengths };
}

/** The boundaries, from the text of the joined bytes. */
function mayMerge(left: string, right: string, boundary: MergeBoundary, onePiece: (text: string) => boolean): boolean {
  if (left.startsWith("special:") || right.startsWith("special:")) return false;
  const joined = left + right;
  if (/[ \t\n]/.test(joined.slice(1)) && (joined === "\n\n" || /[^ \t\n]/.test(joined))) return false;
  if (boundary === "sentence") return true;
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.from(joined, "latin1"));
  } catch {
    return true;
  }
  if (boundary === "pretokens") return onePiece(text);
  if (text.split(/[\p{White_Space}]+/u).filter((word) => word !== "").length !== 1) return false;
  const punctuated = (token: string): boolean =>
    /[.,!?;:()\-"'\\/`$%&*+<=>@[\]^_{|}~]/.test(token) && !/[0-9]/.test(token);
  return boundary === "word" || punctuated(left) || !punctuated(right) || right === "-";
}
