/** The name somebody probably meant: for "did you mean". */

/**
 * The candidate nearest to `word`, or undefined when none is near: at most a third of its letters (at least two) wrong,
 * left out, added or swapped, or `word` is how a candidate begins, give or take the same share of its letters.
 *
 * Examples: "speculativ-samping" and "specullative" -> "speculative-sampling"; "xyz" -> undefined.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const lower = word.toLowerCase();
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(lower.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(lower, candidate);
    // Two edits turn any short word into any other: more than half the letters must stay.
    if (distance < bestDistance && distance * 2 < Math.max(lower.length, candidate.length)) {
      best = candidate;
      bestDistance = distance;
    }
  }
  if (best !== undefined || lower.length < 2) return best;
  const beginning = (candidate: string): number => editDistance(lower, candidate.slice(0, lower.length));
  const [first] = candidates.toSorted((a, b) => beginning(a) - beginning(b));
  return first !== undefined && beginning(first) <= Math.floor(lower.length / 3) ? first : undefined;
}

/** Fewest single-letter insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let distance = Math.min(replaced, last[j]! + 1, current[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        distance = Math.min(distance, beforeLast[j - 2]! + 1);
      }
      current.push(distance);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length]!;
}
