/**
 * Where unigram training begins: the substrings of words that are worth being a piece.
 *
 * All suffixes of the words, sorted, stand beside those they share a beginning with; each beginning that branches (goes
 * on in two ways, or ends a word) is found once, with its frequency, by one pass over the lengths that neighbours share,
 * as the inner nodes of a suffix tree. What does not branch is no candidate: wherever it stands, the longer one stands.
 *
 *     score(s) = frequency(s) * length(s)
 *
 * Example: words "abab" and "ab": "ab" 3 times (score 6), "abab" and "b", "bab" once; single characters are no seeds.
 */

/** A candidate of two characters or more, and how often it occurs in the words. */
export interface Seed {
  readonly text: string;
  readonly frequency: number;
}

/**
 * Substrings that occur at least twice, best score first (equal ones in order of code units).
 * @param words frequency by word
 * @param longest in characters; longer candidates are cut to it
 * @param count at most so many
 */
export function seedPieces(words: ReadonlyMap<string, number>, longest: number, count: number): Seed[] {
  const suffixes: { text: string; weight: number }[] = [];
  for (const [word, weight] of words) {
    const characters = Array.from(word);
    for (let i = 0; i < characters.length; i++) {
      suffixes.push({ text: characters.slice(i, i + longest).join(""), weight });
    }
  }
  suffixes.sort((a, b) => (a.text < b.text ? -1 : a.text > b.text ? 1 : 0));

  const seeds: Seed[] = [];
  const lengths = [0]; // the open beginnings of the last suffix, in units, each longer than the one before
  const weights = [0];
  let last = "";
  const closeBeyond = (length: number): void => {
    let carried = 0;
    while (lengths.at(-1)! > length) {
      const text = last.slice(0, lengths.pop());
      carried += weights.pop()!;
      if (carried >= 2 && Array.from(text).length >= 2) seeds.push({ text, frequency: carried });
    }
    addOpen(length, carried);
  };
  const addOpen = (length: number, weight: number): void => {
    if (lengths.at(-1) === length) {
      weights[weights.length - 1]! += weight;
    } else {
      lengths.push(length);
      weights.push(weight);
    }
  };
  for (const { text, weight } of suffixes) {
    closeBeyond(shared(last, text));
    addOpen(text.length, weight);
    last = text;
  }
  closeBeyond(0);

  const score = ({ text, frequency }: Seed): number => frequency * Array.from(text).length;
  const scored = seeds.map((seed) => ({ seed, score: score(seed) }));
  scored.sort((a, b) => b.score - a.score || (a.seed.text < b.seed.text ? -1 : 1));
  return scored.slice(0, count).map(({ seed }) => seed);
}

/** How many units two texts share in front, whole characters. */
function shared(a: string, b: string): number {
  const limit = Math.min(a.length, b.length);
  let length = 0;
  while (length < limit && a.charCodeAt(length) === b.charCodeAt(length)) length++;
  const isCut = length > 0 && (a.charCodeAt(length - 1) & 0xfc00) === 0xd800;
  return isCut ? length - 1 : length;
}
