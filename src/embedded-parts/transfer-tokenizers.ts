/** Tokenizers to transfer the embedded target to, of the same text: longer tokens, words, bytes, another algorithm. */

import type { TransferTokenizer } from "../retokenization/tokenizer-transfer.ts";
import { Bpe } from "../tokenization/bpe.ts";
import type { Merge } from "../tokenization/bpe-trainer.ts";
import { splitText } from "../tokenization/split-patterns.ts";
import { Unigram } from "../tokenization/unigram.ts";

const special = "<|endoftext|>";

/** By name, in the order of the tables they are shown in. @param own the target's tokenizer @param texts to learn from */
export function transferTokenizers(own: Bpe, texts: readonly string[]): Record<string, TransferTokenizer> {
  const { pattern } = own;
  return {
    "BPE of 1,024 (its own)": own,
    "BPE of 2,048": Bpe.train(texts, { vocabSize: 2048, pattern, specialTokens: [special] }),
    "BPE of 4,096": Bpe.train(texts, { vocabSize: 4096, pattern, specialTokens: [special] }),
    "Unigram of 2,048": Unigram.train(texts, {
      vocabSize: 2048,
      pattern,
      split: false,
      specialTokens: [special],
    }),
    "words, 4,096": wordLevel(own, texts, 4096),
    bytes: wordLevel(own, [], 257),
  };
}

/** The most frequent words (pieces of the split pattern) as tokens; other words are spelled in bytes. */
export function wordLevel({ pattern }: Bpe, texts: readonly string[], vocabSize: number): Bpe {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const word of splitText(text, pattern)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const utf8 = new TextEncoder();
  const words = [...counts]
    .map(([word, count]) => [utf8.encode(word), count] as const)
    .filter(([bytes]) => bytes.length > 1)
    .sort((a, b) => b[1] - a[1]) // stable: of equals the first
    .slice(0, vocabSize - 257)
    .map(([bytes]) => bytes);
  const merges: Merge[] = [];
  return new Bpe({
    source: "words",
    tokens: [...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)), ...words],
    merges,
    wholePieces: true,
    pattern,
    normalizer: "none",
    specialTokens: new Map([[special, 256 + words.length]]),
    addedTokens: new Map(),
    normalizedTokens: new Set(),
  });
}
