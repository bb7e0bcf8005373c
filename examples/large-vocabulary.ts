/**
 * Generation over a vocabulary of 20,480 tokens by a model that was trained with 1,024: embeddings of the new tokens are
 * predicted by the hypernetwork, and every step chooses among the few nearest.
 *
 *     npx tsx examples/large-vocabulary.ts [--neighbours 20] [--seed 0] [--json]
 *
 * Look for: words and phrases the model never had as tokens are written whole, so the same number of passes writes more
 * text. The candidates of a step are tokens that could stand there; their probabilities are a softmax over those few alone.
 */
import { parseArgs } from "node:util";
import { embeddedCorpus, endOfText } from "../src/embedded-pair.ts";
import { loadEmbedded } from "../src/model/load.ts";
import { promptSets } from "../src/prompt-sets.ts";
import { largeVocabulary, loadHypernetwork } from "../src/retokenization/index.ts";
import { generateAll } from "../src/speculative/index.ts";
import { Bpe } from "../src/tokenization/bpe.ts";

const { values } = parseArgs({
  options: {
    neighbours: { type: "string", default: "20" },
    seed: { type: "string", default: "0" },
    json: { type: "boolean" },
  },
});
const neighbours = Number(values.neighbours);
const { model, tokenizer } = await loadEmbedded("target");
const { hypernetwork, target } = await loadHypernetwork();
// The same merges as the model's own tokenizer, and twenty thousand more: its tokens are all among them.
const specialTokens = [endOfText];
const large = Bpe.train(embeddedCorpus().training, { vocabSize: 20_480, pattern: tokenizer.pattern, specialTokens });
const wide = await largeVocabulary({ model, target, tokenizer }, large, hypernetwork, { neighbours });

const prompt = promptSets.declarations[1]!;
const options = { maxTokens: 24, temperature: 0.6, seed: values.seed };
const [own, drawn] = [
  await generateAll(model, tokenizer.encode(prompt), options),
  await generateAll(wide, large.encode(prompt), options),
];
const pieces = (ids: readonly number[], by: Bpe): string[] => ids.map((id) => by.decode([id]));
const texts = { own: pieces(own.tokens, tokenizer), large: pieces(drawn.tokens, large) };

const session = wide.openSession();
const { data } = session.extend(large.encode(prompt)).logits;
session.close();
const candidates = Array.from(data.keys())
  .filter((id) => data[id]! > -1e8)
  .sort((a, b) => data[b]! - data[a]!);
const highest = data[candidates[0]!]!;
const mass = candidates.reduce((sum, id) => sum + Math.exp(data[id]! - highest), 0);
const law = candidates.map((id) => ({
  token: large.decode([id]),
  probability: Math.exp(data[id]! - highest) / mass,
  pieces: tokenizer.encode(large.decode([id])).length,
}));

if (values.json) {
  console.log(JSON.stringify({ prompt, neighbours, texts, law }));
} else {
  const shown = (tokens: readonly string[]): string => tokens.join("\u2502").replaceAll("\n", "\u21b5");
  const bytes = (tokens: readonly string[]): number => new TextEncoder().encode(tokens.join("")).length;
  console.log(`${prompt}\n`);
  for (const [name, tokens] of Object.entries({ "its own 1,024 tokens": texts.own, "20,480 tokens": texts.large })) {
    console.log(`${name}: ${tokens.length} passes, ${bytes(tokens)} bytes\n${shown(tokens)}\n`);
  }
  console.log(`The ${neighbours} tokens the first step chose among (pieces: in the model's own vocabulary):`);
  for (const { token, probability, pieces } of law.slice(0, 10)) {
    console.log(
      `${(100 * probability).toFixed(1).padStart(6)} %  ${String(pieces).padStart(2)} pieces  ${JSON.stringify(token)}`,
    );
  }
}
model.close();
