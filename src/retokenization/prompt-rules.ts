/**
 * What a prompt's bytes become before a model continues them: all encodings that cover them, which is exact, or one of the
 * two usual answers, which are not.
 *
 *     all encodings    every t that begins some text's encoding and covers the prompt           (the lemma's sum)
 *     naive            encode(prompt), and whatever the model says next
 *     token healing    encode(prompt) without its last token, then a token that begins with that token's bytes
 *
 * Naive rules out every token that runs across the prompt's end. Healing repairs that for the last token only: where the
 * right encoding leaves encode(prompt) earlier, it keeps the bias.
 *
 * Both baselines take new tokens as the encoding of a text of its own, as every decoder does that does not look back; a
 * token that would have merged with the prompt's last one is not excluded.
 *
 * Worked example: merges b c, a b; "ab" is [ab]. Naive: [ab]. Healing: [] and then a token that begins with ab, [ab] again.
 * All encodings: [ab] and [a, bc].
 */
import { joinBytes } from "../tokenization/token-table.ts";
import { EncodingPath } from "./encoding-paths.ts";
import type { EncodingRules } from "./encoding-rules.ts";
import type { TokenOrder } from "./token-order.ts";
import { wholeCharacters } from "./utf8-prefix.ts";

/** What a rule works with. */
export interface PromptVocabulary {
  readonly rules: EncodingRules;
  readonly order: TokenOrder;
}

/**
 * Encodings of a prompt that are considered.
 * @param root the path of an empty text
 * @param bytes not empty
 * @returns paths below `root` whose bytes begin with the prompt and whose last token is needed for that; their parents have
 *   states. None where no text begins with these bytes
 */
export type PromptRule = (vocabulary: PromptVocabulary, root: EncodingPath, bytes: Uint8Array) => EncodingPath[];

/** All of them: left parts end at every place, not only where those of encode(prompt) do. */
export const allEncodings: PromptRule = ({ rules, order }, root, bytes) => {
  const ending = Array.from(bytes, (): EncodingPath[] => []);
  ending[0]!.push(root);
  const covers: EncodingPath[] = [];
  for (let start = 0; start < bytes.length; start++) {
    for (const left of ending[start]!) {
      let range = order.all;
      for (let at = start; at < bytes.length && range[0] < range[1]; at++) {
        range = order.narrow(range, at - start, bytes[at]!);
        // Tokens that end here stand first; at the prompt's end all that go on belong to it too.
        for (let place = range[0]; place < range[1]; place++) {
          const id = order.idAt(place);
          const end = start + rules.tokens[id]!.length;
          if (end > at + 1 && at + 1 < bytes.length) break;
          if (!rules.admits(left.state!, id)) continue;
          const path = new EncodingPath(left, id, end);
          if (at + 1 === bytes.length) covers.push(path);
          else {
            path.state = rules.advance(left.state!, id);
            ending[end]!.push(path);
          }
        }
      }
    }
  }
  return covers;
};

/** The encoding of the prompt; of a character cut at its end, the bytes one by one. */
export const naivePrompt: PromptRule = ({ rules, order }, root, bytes) => {
  const path = encodingOf({ rules, order }, root, bytes);
  return path === undefined ? [] : [path];
};

/** Token healing: the last token is given up, and the next one must begin with its bytes. */
export const tokenHealing: PromptRule = ({ rules, order }, root, bytes) => {
  const path = encodingOf({ rules, order }, root, bytes);
  if (path === undefined || path === root) return [];
  const left = path.parent!;
  const token = rules.tokens[path.token]!;
  let range = order.all;
  for (let i = 0; i < token.length; i++) range = order.narrow(range, i, token[i]!);
  const before = bytes.subarray(0, left.end);
  const healed: EncodingPath[] = [];
  for (let place = range[0]; place < range[1]; place++) {
    const id = order.idAt(place);
    if (rules.admits(left.state!, id)) healed.push(behind(rules, left, id, joinBytes([before, rules.tokens[id]!])));
  }
  return healed;
};

function encodingOf(
  { rules, order }: PromptVocabulary,
  root: EncodingPath,
  bytes: Uint8Array,
): EncodingPath | undefined {
  const whole = wholeCharacters(bytes);
  if (whole < 0) return undefined;
  const singles = Array.from(bytes.subarray(whole), (byte) =>
    Array.from(order.startingWith(byte)).find((id) => rules.tokens[id]!.length === 1),
  );
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(0, whole));
  let path = root;
  for (const id of [...rules.encode(text), ...singles]) {
    if (id === undefined) return undefined; // a vocabulary without single bytes
    path = behind(rules, path, id, bytes.subarray(0, path.end + rules.tokens[id]!.length));
  }
  return path;
}

/** A path one token longer, that remembers only the bytes of a character which is not yet whole. */
function behind(rules: EncodingRules, path: EncodingPath, id: number, text: Uint8Array): EncodingPath {
  const isCut = wholeCharacters(text) < text.length;
  return new EncodingPath(path, id, text.length, isCut ? rules.advance(path.state!, id) : rules.start);
}
