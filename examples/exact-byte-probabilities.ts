/**
 * Exact byte probabilities: a prompt that ends inside a word, and a model that has only ever seen whole tokens.
 *
 *     npx tsx examples/exact-byte-probabilities.ts
 *
 * Look for: the letter that completes the word. Behind encode(prompt) it is nearly excluded, for the model has learnt that the
 * tokenizer would have joined it to what stands there. Token healing gives the last token back, which is enough where the cut
 * fell into that token and not where the right encoding leaves earlier. The exact law is the same wherever the cut falls.
 */
import { nodeDeclarations } from "../src/corpus.ts";
import { loadEmbedded } from "../src/model/load.ts";
import {
  byteEnsemble,
  byteLogProbability,
  coverEncodings,
  exactBytes,
  generateBytes,
  measureTokenizationBias,
  naivePrompt,
  tokenHealing,
} from "../src/retokenization/index.ts";

const { model, tokenizer } = await loadEmbedded("target");
const ways = [
  { name: "naive", bytes: exactBytes(model, tokenizer, { prompt: naivePrompt }) },
  { name: "token healing", bytes: exactBytes(model, tokenizer, { prompt: tokenHealing }) },
  { name: "exact", bytes: exactBytes(model, tokenizer) },
];
const text = "    /**\n     * Returns the current val";
const prompt = new TextEncoder().encode(text);

const shown = (bytes: ArrayLike<number>): string =>
  JSON.stringify(new TextDecoder().decode(Uint8Array.from(Array.from(bytes)))).slice(1, -1);
const pieces = Array.from(tokenizer.encode(text), (id) => shown(tokenizer.tokenBytes(id)));
console.log(`the prompt in tokens: ${pieces.slice(-6).join("|")}\n`);
console.log("its most probable covers, the bytes beyond its end in brackets");
const covers = coverEncodings(model, tokenizer, prompt).sort((a, b) => b.logProbability - a.logProbability);
const total = covers.reduce((sum, { logProbability }) => sum + Math.exp(logProbability - covers[0]!.logProbability), 0);
for (const { tokens, residual, logProbability } of covers.slice(0, 5)) {
  const spelled = tokens.slice(-3).map((id) => shown(tokenizer.tokenBytes(id)));
  const share = Math.exp(logProbability - covers[0]!.logProbability) / total;
  console.log(`  ${share.toFixed(3)}  ..${spelled.join("|")}  [${shown(residual)}]`);
}

console.log("\nthe next byte, and the text from there");
for (const { name, bytes } of ways) {
  const session = bytes.openSession();
  session.start(prompt);
  const law = session.next();
  const best = [...law.keys()].sort((a, b) => law[b]! - law[a]!).slice(0, 4);
  session.close();
  const next = best.map((byte) => `${shown([byte]).replace(" ", "blank")} ${law[byte]!.toFixed(3)}`).join("  ");
  const { bytes: written } = generateBytes(bytes, prompt, { maxBytes: 32 });
  console.log(`  ${name.padEnd(14)}${next.padEnd(44)}val|${shown(written)}`);
}

const heldOut = nodeDeclarations().heldOut.map((document) => document.text);
const bias = measureTokenizationBias(model, tokenizer, heldOut, { cuts: 60 });
console.log(`\n${bias.tokens} held-out tokens, cut at every place inside them`);
console.log("               bits per byte  completed greedily  calls per byte  multiply-adds per byte");
for (const { name, inside, callsPerByte, multiplyAddsPerByte } of bias.continuations) {
  const columns = [
    name.padEnd(14),
    inside.bitsPerByte.toFixed(2).padStart(14),
    `${(100 * inside.greedyAccuracy).toFixed(0)} %`.padStart(19),
    callsPerByte.toFixed(2).padStart(15),
    `${(multiplyAddsPerByte / 1e6).toFixed(2)} M`.padStart(23),
  ];
  console.log(columns.join(" "));
}
console.log(`decoding by tokens makes ${(1 / bias.bytesPerToken).toFixed(2)} calls per byte`);

const draft = await loadEmbedded("draft");
const sample = new TextEncoder().encode(heldOut[0]!.slice(2000, 2300));
const members = { target: exactBytes(model, tokenizer), draft: exactBytes(draft.model, draft.tokenizer) };
console.log("\nbits per byte of 300 characters, unseen");
for (const [name, bytes] of Object.entries({ ...members, "their ensemble": byteEnsemble(Object.values(members)) })) {
  console.log(`  ${name.padEnd(15)}${(-byteLogProbability(bytes, sample) / Math.LN2 / sample.length).toFixed(3)}`);
}
