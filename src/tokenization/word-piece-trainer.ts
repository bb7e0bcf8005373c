/**
 * Learning a WordPiece vocabulary (Schuster & Nakajima, "Japanese and Korean voice search", 2012; as described for BERT).
 *
 * Words begin as characters, all but the first marked with the prefix. The pair with the best score is joined, everywhere,
 * until the vocabulary is full:
 *
 *     likelihood   score(a, b) = count(ab) / (count(a) count(b))      how much likelier the text becomes, per use
 *     frequency    score(a, b) = count(ab)                            Hugging Face's trainer: BPE with marked symbols
 *
 * Counts are those in the text as it is spelled at that step, every occurrence weighed by its word's frequency. The first
 * score prefers pairs that hardly occur apart, however rare: that is why pairs below a least count are left out.
 *
 * **Deviations**: Google's trainer was never released; this is the rule as it is usually told. Ties go to the pair met
 * first.
 *
 * **Unlike** `bpe-trainer.ts`: scores of pairs fall when their parts become rarer, which a heap cannot see, so each step
 * looks at all pairs.
 *
 * Example: hug x 10, pug x 5, pun x 12, bun x 4, hugs x 5: "##g" "##s" (5 / (20 * 5) = 1/20) comes first, not the more
 * frequent "##u" "##g" (20 / (36 * 20) = 1/36).
 */

/** Which pair is joined next. */
export type WordPieceScore = "likelihood" | "frequency";

export interface WordPieceTrainerOptions {
  readonly prefix: string;
  readonly score: WordPieceScore;
  /** Pairs that occur less often are not joined. */
  readonly leastCount: number;
}

/** A pair of symbols that stand side by side. */
interface Pair {
  readonly left: number;
  readonly right: number;
  count: number;
  /** Words it was seen in; some may have lost it. */
  readonly words: Set<number>;
}

/** The characters the words begin as: first the plain, then the marked, each by code point. */
export function wordPieceAlphabet(words: ReadonlyMap<string, number>, prefix: string): string[] {
  const plain = new Set<string>();
  const marked = new Set<string>();
  for (const word of words.keys()) {
    Array.from(word).forEach((character, i) => {
      (i === 0 ? plain : marked).add(character);
    });
  }
  const sorted = (set: Set<string>): string[] => [...set].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!);
  return [...sorted(plain), ...sorted(marked).map((character) => prefix + character)];
}

/**
 * The tokens that joining adds, in order; fewer than `wanted` where no pair is left.
 * @param words frequency by word
 */
export function trainWordPieces(
  words: ReadonlyMap<string, number>,
  wanted: number,
  { prefix, score, leastCount }: WordPieceTrainerOptions,
): string[] {
  const symbols = wordPieceAlphabet(words, prefix);
  const idOf = new Map(symbols.map((symbol, id) => [symbol, id]));
  const counts: number[] = symbols.map(() => 0);
  const frequencies = [...words.values()];
  const spellings = [...words.keys()].map((word) =>
    Array.from(word, (character, i) => idOf.get(i === 0 ? character : prefix + character)!),
  );
  const pairs = new Map<number, Pair>(); // by left * 2^22 + right, in order of appearance

  const count = (word: number, sign: 1 | -1): void => {
    const spelling = spellings[word]!;
    const weight = sign * frequencies[word]!;
    for (let i = 0; i < spelling.length; i++) {
      counts[spelling[i]!]! += weight;
      if (i === 0) continue;
      const key = spelling[i - 1]! * 2 ** 22 + spelling[i]!;
      let pair = pairs.get(key);
      if (pair === undefined) {
        pair = { left: spelling[i - 1]!, right: spelling[i]!, count: 0, words: new Set() };
        pairs.set(key, pair);
      }
      pair.count += weight;
      if (sign > 0) pair.words.add(word);
      else if (pair.count === 0) pairs.delete(key);
    }
  };
  for (let word = 0; word < spellings.length; word++) count(word, 1);

  const added: string[] = [];
  while (added.length < wanted) {
    let best: Pair | undefined;
    let bestScore = 0;
    for (const pair of pairs.values()) {
      if (pair.count < leastCount) continue;
      const value = score === "frequency" ? pair.count : pair.count / (counts[pair.left]! * counts[pair.right]!);
      if (value > bestScore) {
        best = pair;
        bestScore = value;
      }
    }
    if (best === undefined) break;
    const { left, right } = best;
    const symbol = symbols[left]! + symbols[right]!.slice(prefix.length);
    // Two pairs may spell the same token; the second adds none.
    let id = idOf.get(symbol);
    if (id === undefined) {
      id = symbols.length;
      idOf.set(symbol, id);
      symbols.push(symbol);
      counts.push(0);
      added.push(symbol);
    }
    for (const word of [...best.words]) {
      count(word, -1);
      spellings[word] = joined(spellings[word]!, left, right, id);
      count(word, 1);
    }
  }
  return added;
}

/** A spelling with every `left`, `right` replaced by `id`, from the left. */
function joined(spelling: readonly number[], left: number, right: number, id: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < spelling.length; i++) {
    const isPair = spelling[i] === left && spelling[i + 1] === right;
    result.push(isPair ? id : spelling[i]!);
    if (isPair) i++;
  }
  return result;
}
