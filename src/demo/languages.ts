/**
 * How many bytes a token carries, language by language, on parallel text: TypeScript's diagnostic messages, which say
 * the same in 14 languages.
 *
 * Bytes per token measures how well a vocabulary knows a script; but scripts differ in bytes for the same meaning, so
 * tokens are also given relative to English: what the same message costs.
 */
import { createRequire } from "node:module";
import { type MessageLanguage, messageLanguages, packageVersion, parallelMessages } from "../corpus.ts";
import { FileError } from "../errors.ts";
import { Bpe, type Tokenizer } from "../tokenization/index.ts";

export interface LanguageFigures {
  readonly messages: number;
  /** Where the text is from. */
  readonly source: string;
  /** Vocabularies compared, in the order of `byVocabulary` below. */
  readonly vocabularies: readonly { readonly name: string; readonly size: number }[];
  readonly languages: readonly {
    readonly tag: MessageLanguage;
    readonly name: string;
    readonly bytes: number;
    readonly byVocabulary: readonly {
      readonly tokens: number;
      readonly bytesPerToken: number;
      /** Tokens divided by those of the same messages in English. */
      readonly relativeToEnglish: number;
    }[];
  }[];
  /** What could not be compared, and why. */
  readonly missing: readonly string[];
}

const names: Readonly<Record<MessageLanguage, string>> = {
  en: "English",
  cs: "Czech",
  de: "German",
  es: "Spanish",
  fr: "French",
  it: "Italian",
  ja: "Japanese",
  ko: "Korean",
  pl: "Polish",
  "pt-br": "Portuguese (Brazil)",
  ru: "Russian",
  tr: "Turkish",
  "zh-cn": "Chinese (simplified)",
  "zh-tw": "Chinese (traditional)",
};

/**
 * @param embedded the embedded vocabulary
 * @param onLanguage called before each language
 * @returns the figures, or why there are none: the text comes with a development dependency
 */
export async function measureLanguages(
  embedded: Tokenizer,
  onLanguage: (done: number) => void = () => {},
): Promise<LanguageFigures | { readonly unavailable: string }> {
  let messages: Record<MessageLanguage, string[]>;
  try {
    messages = await parallelMessages();
  } catch (error) {
    if (error instanceof FileError) return { unavailable: error.message };
    throw error;
  }
  const cl100k = readCl100k();
  const tokenizers = [{ name: "embedded", tokenizer: embedded as Tokenizer }];
  if (cl100k !== undefined) tokenizers.push({ name: "cl100k", tokenizer: cl100k });

  const utf8 = new TextEncoder();
  const english: number[] = [];
  const languages = messageLanguages.map((tag, done) => {
    onLanguage(done);
    const bytes = messages[tag].reduce((sum, message) => sum + utf8.encode(message).length, 0);
    const byVocabulary = tokenizers.map(({ tokenizer }, v) => {
      const options = { disallowedSpecial: [] };
      const tokens = messages[tag].reduce((sum, message) => sum + tokenizer.encode(message, options).length, 0);
      english[v] ??= tokens;
      return { tokens, bytesPerToken: bytes / tokens, relativeToEnglish: tokens / english[v] };
    });
    return { tag, name: names[tag], bytes, byVocabulary };
  });
  return {
    messages: messages.en.length,
    source: `TypeScript ${packageVersion("typescript")}, diagnostic messages`,
    vocabularies: tokenizers.map(({ name, tokenizer }) => ({ name, size: tokenizer.vocabularySize })),
    languages,
    missing:
      cl100k === undefined ? ["cl100k: the package tiktoken is not installed. To compare: npm install tiktoken"] : [],
  };
}

/** OpenAI's vocabulary as the package `tiktoken` has it, read by our own code; undefined where it is not installed. */
function readCl100k(): Bpe | undefined {
  let content: { bpe_ranks: string; special_tokens: Record<string, number> };
  try {
    content = createRequire(import.meta.url)("tiktoken/encoders/cl100k_base.json");
  } catch {
    return undefined;
  }
  return Bpe.fromTiktoken(content.bpe_ranks, { pattern: "cl100k", specialTokens: content.special_tokens });
}
