/**
 * What BERT does to a text before it is split (Devlin et al., arXiv 1810.04805; the rules of its released tokenizer, as
 * Hugging Face's `BertNormalizer` has them).
 *
 * Four steps, each of them optional: control characters go and every white space becomes a space; CJK ideographs get a
 * space on either side, so that each is a word; accents go (the text is decomposed and its marks dropped); letters become
 * lower case, each by itself, so that a final sigma stays an ordinary one.
 *
 * **Deviations**: over all of Unicode, only for characters whose class changed after Unicode 8, which is what Hugging Face's
 * library knows (U+166D among them).
 *
 * Example: "Ünder\t中国" becomes "under  中  国 ".
 */

import { WHITE_SPACE } from "./split-patterns.ts";

export interface BertNormalizer {
  /** Drop control characters, U+0000 and U+FFFD; every white space becomes a space. */
  readonly cleanText: boolean;
  /** Put spaces around CJK ideographs. */
  readonly chineseCharacters: boolean;
  /** Decompose and drop the marks. In BERT's files it follows `lowercase` where it is not given. */
  readonly stripAccents: boolean;
  readonly lowercase: boolean;
}

/** BERT's own, of its uncased models. */
export const BERT_UNCASED: BertNormalizer = {
  cleanText: true,
  chineseCharacters: true,
  stripAccents: true,
  lowercase: true,
};

const CONTROL = /(?![\t\n\r])[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffd]/gu;
const WHITE = new RegExp(`[${WHITE_SPACE}]`, "gu");
const IDEOGRAPH =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

export function bertNormalize(text: string, rules: BertNormalizer): string {
  let result = text;
  if (rules.cleanText) result = result.replace(CONTROL, "").replace(WHITE, " ");
  if (rules.chineseCharacters) result = result.replace(IDEOGRAPH, " $& ");
  if (rules.stripAccents) result = result.normalize("NFD").replace(/\p{Mn}/gu, "");
  if (rules.lowercase) result = Array.from(result, (character) => character.toLowerCase()).join("");
  return result;
}
