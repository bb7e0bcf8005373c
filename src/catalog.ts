/**
 * The catalog: one entry per technique the library has, and nothing it does not have. The command line is made from it:
 * `tokenthrift list` prints it, `explain` reads an entry aloud, `run` runs one.
 *
 * A new technique is one more entry here. Entries are data; the code of a technique is imported when it runs.
 */
import { ArgumentError } from "./errors.ts";
import type { EmbeddedTokenizer } from "./model/embedded.ts";
import type { LanguageModel } from "./model/language-model.ts";
import type { LoadedModel } from "./model/load.ts";
import type { ByteModel } from "./retokenization/index.ts";
import type { GenerateOptions, SamplingOptions } from "./speculative/index.ts";
import type { MergeableTokenizer, Tokenizer } from "./tokenization/index.ts";

/** Where a technique was published. */
export interface Paper {
  readonly title: string;
  /** `"2211.17192"`. */
  readonly arXiv: string;
  readonly year: number;
}

/** In the order `list` prints them. */
export const families = ["tokenization", "speculative"] as const;
export type Family = (typeof families)[number];

/** How the command line runs a technique. */
export type TechniqueRun =
  | {
      readonly kind: "tokenization";
      /** The tokenizer in the parsed content of a checkpoint's `tokenizer.json`. */
      readonly open: (tokenizerJson: object) => Promise<Tokenizer>;
      /** The embedded vocabulary it runs on where none is named; default: the embedded target's. */
      readonly embedded?: EmbeddedTokenizer;
    }
  | {
      /** Merges the tokens of a text once more, by the text itself. */
      readonly kind: "merging";
      /** The tokenizer in the parsed content of a checkpoint's `tokenizer.json`. */
      readonly open: (tokenizerJson: object) => Promise<Tokenizer & MergeableTokenizer>;
    }
  | {
      readonly kind: "generation";
      /** Options of `run` that mean something to it; `"draft"` asks for a second model. */
      readonly uses: readonly ("gamma" | "draft")[];
      /** Its part of the options of `generate`. */
      readonly method: (options: {
        readonly gamma?: number;
        readonly draft?: LanguageModel;
        /** The model it will be run on, how its tokens will be drawn, and prompts of its tokenizer to measure on. */
        readonly target: LanguageModel;
        readonly sampling: SamplingOptions;
        readonly calibration: readonly ArrayLike<number>[];
      }) => Promise<Pick<GenerateOptions, "drafter" | "verifier">>;
    }
  | {
      /** A model read byte by byte, in several ways that are shown side by side. */
      readonly kind: "bytes";
      readonly open: (
        model: LanguageModel,
        tokenizer: Tokenizer,
      ) => Promise<readonly { readonly name: string; readonly bytes: ByteModel }[]>;
    }
  | {
      /** The embedded target over another tokenizer's vocabulary, in several ways that are shown side by side. */
      readonly kind: "transfer";
      readonly open: (target: LoadedModel) => Promise<
        readonly {
          readonly name: string;
          readonly model: LanguageModel;
          readonly tokenizer: Tokenizer & { readonly specialTokens: ReadonlyMap<string, number> };
        }[]
      >;
    }
  | {
      /** Generation by another model in the embedded target's place, of the same vocabulary, decoding plainly. */
      readonly kind: "model";
      readonly open: (promptTokens: number) => Promise<LanguageModel>;
    };

export interface Technique {
  /** What one types: lower case, words joined by hyphens. */
  readonly name: string;
  readonly title: string;
  /** Null for baselines nobody needed to publish. */
  readonly paper: Paper | null;
  readonly family: Family;
  /** Source file, from the root of the repository. */
  readonly module: string;
  /** A command that runs it. */
  readonly command: string;
  /** A script that shows it at work, from the root of the repository; null for baselines that have none of their own. */
  readonly example: string | null;
  /** What it spends less of; for a baseline, what it is measured for. */
  readonly saves: string;
  /** Whether the result is provably the one the plain method gives. `"n/a"`: it is the plain method. */
  readonly exact: "lossless" | "lossy" | "n/a";
  /** One sentence. */
  readonly summary: string;
  /** Paragraphs: the idea, the formula, the cost, deviations from the paper. Lines that start with two spaces are formulas. */
  readonly explain: readonly string[];
  readonly run: TechniqueRun;
}

export const catalog: readonly Technique[] = [
  {
    name: "bpe",
    title: "Byte-level byte-pair encoding",
    paper: {
      title: "Neural Machine Translation of Rare Words with Subword Units",
      arXiv: "1508.07909",
      year: 2015,
    },
    family: "tokenization",
    module: "src/tokenization/bpe.ts",
    command: 'tokenthrift run bpe --prompt "const words: Map<string, number> = new Map();"',
    example: "examples/bpe.ts",
    saves: "tokens per byte of text",
    exact: "lossless",
    summary: "Frequent neighbours become one token, so common text takes few tokens and every text can be written.",
    explain: [
      "Training starts from the 256 bytes and counts how often two tokens stand side by side. The commonest pair becomes a " +
        "new token, everywhere, and counting goes on until the vocabulary is full. Encoding replays those merges: among " +
        "the pairs that occur in a piece of text, the one learned first is merged first, until none is left.",
      "  encode(text) = merge(utf8(piece 1)) ++ merge(utf8(piece 2)) ++ ...",
      "The text is cut into pieces beforehand by a pattern (words, digits, punctuation, blanks), and no merge crosses a " +
        "cut. Because all 256 bytes are tokens there is no unknown text, and decoding gives back the same bytes.",
      "What it costs: n log n in the length of a piece in the worst case; next to nothing in practice. What it saves is " +
        "measured as bytes per token: a model pays per token, so twice the bytes per token is half the passes. A " +
        "vocabulary saves most on the text it was trained on, and least on scripts it has hardly seen.",
      "Deviations: none from tiktoken, whose ids it reproduces for r50k, cl100k and o200k. Byte-level, as in GPT-2, where " +
        "the paper merges characters. Ties between equally common pairs are settled by a documented rule; published " +
        "trainers differ in theirs.",
    ],
    run: {
      kind: "tokenization",
      open: async (json) => (await import("./tokenization/index.ts")).Bpe.fromHuggingFace(json),
    },
  },
  {
    name: "bpe-dropout",
    title: "BPE-dropout",
    paper: { title: "BPE-Dropout: Simple and Effective Subword Regularization", arXiv: "1910.13267", year: 2019 },
    family: "tokenization",
    module: "src/tokenization/bpe-dropout.ts",
    command: 'tokenthrift run bpe-dropout --prompt "const words: Map<string, number> = new Map();"',
    example: "examples/tokenizers.ts",
    saves: "nothing at inference: training text, of which a model sees more spellings",
    exact: "lossless",
    summary: "BPE that forgets one merge in ten at random, so that a model learns words by their parts as well.",
    explain: [
      "BPE spells a word in one way, so a model never sees how the parts of a frequent word make it up. Here every merge " +
        "that applies is left out with probability p, at every step afresh; the best of the others is done, and when all " +
        "are left out the word stays as it is.",
      "  P(the k-th best is done) = p^(k - 1) (1 - p)        P(stop) = p^n with n merges that apply",
      "p = 0 is BPE, p = 1 leaves bytes; the vocabulary and decoding are BPE's. It is meant for training text; at inference " +
        "one uses p = 0. It costs tokens: at p = 0.1 unseen declarations carry 2.28 bytes per token, not 2.60.",
      "Deviations: none from the paper, whose law the tests enumerate. Hugging Face's and SentencePiece's implementations " +
        "have slightly other laws.",
    ],
    run: {
      kind: "tokenization",
      open: async (json) => {
        const { Bpe, BpeDropout } = await import("./tokenization/index.ts");
        const read = BpeDropout.fromHuggingFace(json);
        return read.dropout > 0 ? read : new BpeDropout(Bpe.fromHuggingFace(json));
      },
    },
  },
  {
    name: "word-piece",
    title: "WordPiece",
    paper: {
      title: "Google's Neural Machine Translation System: Bridging the Gap between Human and Machine Translation",
      arXiv: "1609.08144",
      year: 2016,
    },
    family: "tokenization",
    module: "src/tokenization/word-piece.ts",
    command: 'tokenthrift run word-piece --prompt "const words: Map<string, number> = new Map();"',
    example: "examples/tokenizers.ts",
    saves: "tokens per word, and white space, which it forgets",
    exact: "lossy",
    summary: "The longest token that fits, then the longest that continues the word: BERT's tokenizer.",
    explain: [
      "The text falls into words at white space and punctuation. A word is spelled from the left, each time with the " +
        "longest token that fits; tokens that continue a word are marked (##). A word that cannot be spelled to its end is " +
        "unknown as a whole, and so is one of more than 100 characters.",
      "  encode(word) = t ++ encode(rest),   t = the longest token that word begins with",
      "Training joins the pair with the best score until the vocabulary is full. Two scores are told for WordPiece, and " +
        "both are here: count(ab) / (count(a) count(b)), how much likelier the text becomes, and count(ab), as in Hugging " +
        "Face's trainer. On declarations with 1,024 tokens the first spends them on rare words (1.4 characters per token " +
        "on unseen files), the second does not (2.8; white space is forgotten and counts as saved).",
      "What it costs: one walk through a trie per token. Decoding puts one space between words, so spaces, line ends and " +
        "indentation do not come back; nor do letters that BERT's normalizer changed, nor unknown words.",
      "Deviations: none from Hugging Face's WordPiece, whose ids it gives on 14 languages. Google's trainer was never released.",
    ],
    run: {
      kind: "tokenization",
      embedded: "word-piece",
      open: async (json) => (await import("./tokenization/index.ts")).WordPiece.fromHuggingFace(json),
    },
  },
  {
    name: "unigram",
    title: "Unigram language model",
    paper: {
      title: "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword Candidates",
      arXiv: "1804.10959",
      year: 2018,
    },
    family: "tokenization",
    module: "src/tokenization/unigram.ts",
    command: 'tokenthrift run unigram --prompt "const words: Map<string, number> = new Map();"',
    example: "examples/tokenizers.ts",
    saves: "tokens per byte of text",
    exact: "lossless",
    summary: "Every piece has a probability; the likeliest segmentation is taken, others can be listed or drawn.",
    explain: [
      "A segmentation has the product of its pieces' probabilities. Encoding finds the best one (Viterbi); the n best can be " +
        "listed (A*), and one can be drawn by its probability raised to alpha (backward filtering, forward sampling), which " +
        "shows a model in training more than one spelling of a word.",
      "  encode(text) = argmax over segmentations of sum log p(piece)        sample: proportional to P^alpha",
      "Training begins with all substrings that occur often and takes away: expectation (forward-backward) and maximisation " +
        "(digamma, as SentencePiece), then the pieces go that the text would miss least, until enough are gone.",
      "Characters that are no piece are spelled in bytes, so every text comes back. On unseen declarations 1,024 pieces " +
        "carry 2.46 bytes per token, BPE's 2.60: Unigram minds probability, not the number of tokens.",
      "Deviations: byte and control pieces never match the text that spells them, and U+2581 in a text is itself; both for " +
        "exact round trips. Otherwise the ids are those of Hugging Face's Unigram. Training keeps all characters throughout.",
    ],
    run: {
      kind: "tokenization",
      embedded: "unigram",
      open: async (json) => (await import("./tokenization/index.ts")).Unigram.fromHuggingFace(json),
    },
  },
  {
    name: "dynamic-merging",
    title: "Dynamic merging: token boundaries that follow the input",
    paper: {
      title: "Retrofitting (Large) Language Models with Dynamic Tokenization",
      arXiv: "2411.18553",
      year: 2024,
    },
    family: "tokenization",
    module: "src/tokenization/dynamic-merging.ts",
    command: 'tokenthrift run dynamic-merging --prompt "addEventListener(type); removeEventListener(type);"',
    example: "examples/dynamic-merging.ts",
    saves: "rows of the prompt, on a frozen model, at the price of quality",
    exact: "lossy",
    summary:
      "BPE runs once more on the tokens of the batch at hand, and the model gets embeddings predicted for what merged.",
    explain: [
      "A vocabulary is fixed on the text it was trained on, and serves badly what that had little of. Here the commonest pair " +
        "of neighbouring tokens of the present batch becomes one token, everywhere in the batch, and so on: boundaries " +
        "follow the text. Nothing is learned or stored. The model stays as it is and reads, in place of the pieces, one row " +
        "with an embedding predicted from them.",
      "  repeat: replace the allowed pair that occurs most, ties to the one met first",
      "  r(M) = 100 (L_0 - L_M) / (L_0 - L_inf)        how far M merges are on the way to the end",
      "No pair may cross a boundary: a piece of the tokenizer's split pattern by default, or a word. M = 0 is the tokenizer as " +
        "it was. A prompt of unseen declarations merged to the end takes 42 % fewer rows of the embedded target; the " +
        "text behind it, in the model's own tokens, then costs under 3 % more bits per byte with the mean of the pieces or " +
        "the last one, 4 % more with random embeddings.",
      "What it costs: about 1 % of the pass it shortens, because counts are kept up to date; counting anew for each merge, " +
        "as the released code does, takes several hundred times as long. The same text may be cut differently in other company.",
      "Deviations: none in what is merged from the released code. Special tokens never merge. A merged token's pieces are those " +
        "it was first made of, where the code tokenizes its text again.",
    ],
    run: {
      kind: "merging",
      open: async (json) => (await import("./tokenization/index.ts")).Bpe.fromHuggingFace(json),
    },
  },
  {
    name: "zett",
    title: "ZeTT: zero-shot tokenizer transfer by a hypernetwork",
    paper: { title: "Zero-Shot Tokenizer Transfer", arXiv: "2405.07883", year: 2024 },
    family: "tokenization",
    module: "src/retokenization/hypernetwork.ts",
    command: 'tokenthrift run zett --prompt "export function createServer(options: ServerOptions): Server;"',
    example: "examples/tokenizer-transfer.ts",
    saves: "tokens, where another vocabulary fits the text better, at the price of quality",
    exact: "lossy",
    summary:
      "A small network predicts embeddings for any token from its pieces, so a frozen model takes any tokenizer.",
    explain: [
      "A model is bound to its tokenizer by two tables: how each token looks and how each is said. Here a small network, trained " +
        "once for the model, writes both for tokens the model never had. It reads a token as pieces of the model's own " +
        "vocabulary; the model itself stays as it is, and the network is done with once the tables are written.",
      "  embedding = mean of the pieces + correction",
      "  pieces -> projector -> bidirectional transformer -> state of the first piece -> corrections of input and output",
      "It is trained on what it is for: every step samples a tokenizer (substrings by frequency times length, with noise), " +
        "cuts text with it, and has the frozen model predict the next token; an auxiliary loss keeps it near what the model " +
        "knows. No merge rules are needed: BPE, Unigram and words all go the same way.",
      "Tokens of one piece and special tokens keep the model's rows bit for bit, and with its own tokenizer the model is what " +
        "it was. Every other vocabulary costs bits per byte: models/hypernetwork/training.json has them, for predicted, " +
        "averaged, copied and random embeddings. A model trained on words is lost on bytes, whatever predicts.",
      "Deviations: the network corrects the mean of the pieces, with which it begins, where the paper's predicts everything and " +
        "learns the identity first; inputs and outputs have a head each although the model ties them; single pieces are " +
        "copied; two layers; of large sampled vocabularies some tokens are drawn to stand for all.",
    ],
    run: {
      kind: "transfer",
      open: async ({ model, tokenizer }) => {
        const { loadHypernetwork, meanOfPieces, retokenized, targetTables } = await import("./retokenization/index.ts");
        const { Unigram } = await import("./tokenization/index.ts");
        const { embeddedTokenizerFolder } = await import("./model/embedded.ts");
        const { openKernels } = await import("./kernels/index.ts");
        const { readFileBytes } = await import("./files.ts");
        const json = new TextDecoder().decode(
          await readFileBytes(`${embeddedTokenizerFolder("unigram")}/tokenizer.json`),
        );
        const unigram = Unigram.fromHuggingFace(json);
        const { hypernetwork, target } = await loadHypernetwork();
        const source = { model, target, tokenizer };
        const ways = [];
        for (const predictor of [meanOfPieces(targetTables(target)), hypernetwork]) {
          const transferred = retokenized(source, unigram, predictor, await openKernels());
          ways.push({ name: `a Unigram, ${predictor.name}`, model: transferred, tokenizer: unigram });
        }
        return ways;
      },
    },
  },
  {
    name: "exact-byte-probabilities",
    title: "Exact byte-level probabilities of a tokenized model",
    paper: {
      title: "Exact Byte-Level Probabilities from Tokenized Language Models for FIM-Tasks and Model Ensembles",
      arXiv: "2410.09303",
      year: 2024,
    },
    family: "tokenization",
    module: "src/retokenization/exact-byte-probabilities.ts",
    command: 'tokenthrift run exact-byte-probabilities --prompt "     * Returns the current val"',
    example: "examples/exact-byte-probabilities.ts",
    saves: "nothing: it is what makes prompts cut anywhere, and models of different tokens, comparable",
    exact: "lossless",
    summary: "The next byte's law behind a prompt that may end inside a token: a sum over all encodings that cover it.",
    explain: [
      "A model given encode(prompt) is told more than the prompt: that no token runs across its end. Where that falls inside a " +
        "word, the rest of the word is then nearly excluded. The bytes' own law is a sum over all encodings that cover the " +
        "prompt, those whose last token reaches beyond it included. There are few: all but the last token must begin an " +
        "encoding.",
      "  P(x ...) = sum over t in cover(x) of P(t)        P(byte | x) = P(x byte ...) / P(x ...)",
      "From byte to byte covers that go on otherwise are dropped and those used up get their next law from the model: one call a " +
        "byte, where decoding by tokens makes 0.38 here. Laws over bytes can be averaged whatever the models' tokens.",
      "Held-out declarations, cut inside 300 tokens at every place: continued from encode(prompt), greedily, the rest of the " +
        "token comes out in 7 % of prompts and costs 4.83 bits a byte; with token healing, which gives up the last token, in " +
        "59 % and 1.37 bits; by the exact law in 81 % and 0.43 bits.",
      "Deviations: where a split pattern looks ahead several encodings may end at one place; all are carried, where the paper " +
        "carries one. Exact for a model that gives what is no encoding probability 0; of others it is the law over encodings.",
    ],
    run: {
      kind: "bytes",
      open: async (model, tokenizer) => {
        const { exactBytes, naivePrompt, tokenHealing } = await import("./retokenization/index.ts");
        return [
          { name: "naive", bytes: exactBytes(model, tokenizer, { prompt: naivePrompt }) },
          { name: "token healing", bytes: exactBytes(model, tokenizer, { prompt: tokenHealing }) },
          { name: "exact", bytes: exactBytes(model, tokenizer) },
        ];
      },
    },
  },
  {
    name: "plain-decoding",
    title: "Plain decoding",
    paper: null,
    family: "speculative",
    module: "src/speculative/plain-decoding.ts",
    command: "tokenthrift run plain-decoding --max-tokens 32",
    example: "examples/speculative-sampling.ts",
    saves: "nothing: the baseline, one pass per token",
    exact: "n/a",
    summary:
      "One forward pass of the model for every token: what the other methods of this family are measured against.",
    explain: [
      "The model reads everything so far, gives a law over the next token, and one token is drawn from it: the most " +
        "probable one at temperature 0. That token is appended and the model runs again.",
      "  tokens per pass = 1",
      "Keys and values of earlier tokens stay in the cache, so a pass works on one new position only. On most hardware " +
        "such a pass is limited by fixed costs (reading all weights, starting kernels), not by arithmetic: a pass over " +
        "five positions takes little longer than one over a single position. That gap is what drafting lives on.",
      "In code it is `generate` with a drafter that never guesses, so it runs through the same loop as the rest.",
    ],
    run: {
      kind: "generation",
      uses: [],
      method: async () => ({ drafter: (await import("./speculative/index.ts")).plainDecoding }),
    },
  },
  {
    name: "random-drafter",
    title: "Random drafter",
    paper: null,
    family: "speculative",
    module: "src/speculative/random-drafter.ts",
    command: "tokenthrift run random-drafter --gamma 4 --max-tokens 32",
    example: null,
    saves: "nothing: the baseline that knows nothing",
    exact: "lossless",
    summary: "Guesses drawn uniformly from the vocabulary: almost all are turned away, and the text is still exact.",
    explain: [
      "A chain of gamma tokens is drawn at random, every token of the vocabulary alike, and verified by speculative " +
        "sampling. It is the floor under every drafter: one that does not beat it has learned nothing.",
      "  q(x) = 1 / V        accepted with probability  sum over x of min(p(x), 1 / V)",
      "It also shows what lossless means. However bad the guesses are, the output has exactly the target's law; the price " +
        "of a bad guess is arithmetic on rows that are thrown away, never quality.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { randomDrafter } = await import("./speculative/index.ts");
        return { drafter: randomDrafter(gamma === undefined ? {} : { gamma }) };
      },
    },
  },
  {
    name: "speculative-sampling",
    title: "Chain speculative sampling",
    paper: { title: "Fast Inference from Transformers via Speculative Decoding", arXiv: "2211.17192", year: 2022 },
    family: "speculative",
    module: "src/speculative/speculative-sampling.ts",
    command: "tokenthrift run speculative-sampling --gamma 4 --max-tokens 48",
    example: "examples/speculative-sampling.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary: "A small model guesses a few tokens ahead; the large one checks all guesses in a single pass.",
    explain: [
      "The draft model writes gamma tokens, one cheap pass each. The target then scores all of them in one pass of its " +
        "own, which gives its law p at every position, and each guess x, drawn from the draft's law q, is judged in turn:",
      "  keep x with probability min(1, p(x) / q(x))",
      "  first one turned away: draw a replacement from norm([p - q]+), stop",
      "  all kept: draw one more token from p, for free",
      "Where q overshoots p the surplus is turned away; where it falls short, the replacement makes up for it. The two add " +
        "up to p exactly, so not one token's probability changes. At temperature 0 this means: a guess stays if and only " +
        "if it is the token the target would have written.",
      "  acceptance a = sum over x of min(p(x), q(x))        tokens per pass = (1 - a^(gamma + 1)) / (1 - a)",
      "What it costs: gamma draft passes per step, and a target pass over gamma + 1 positions instead of one, so the " +
        "number of multiply-adds goes up. What it saves is target passes. Seconds follow where a pass costs much more " +
        "than its arithmetic and the draft is cheap; too large a gamma wastes guesses that come after a wrong one.",
      "The same rule was published at the same time as speculative sampling (Chen et al., arXiv 2302.01318). Deviations: " +
        "none. Both laws are made from logits by the same function, in double precision, with the same temperature, " +
        "top-k and top-p.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma", "draft"],
      method: async ({ gamma, draft }) => {
        if (draft === undefined) throw new ArgumentError("draft", "a model to guess with", draft);
        const { ChainDrafter } = await import("./speculative/index.ts");
        return { drafter: new ChainDrafter(draft, gamma === undefined ? {} : { gamma }) };
      },
    },
  },
  {
    name: "specinfer",
    title: "SpecInfer",
    paper: {
      title:
        "SpecInfer: Accelerating Generative Large Language Model Serving with Tree-based Speculative Inference and Verification",
      arXiv: "2305.09781",
      year: 2023,
    },
    family: "speculative",
    module: "src/speculative/specinfer.ts",
    command: "tokenthrift run specinfer --temperature 1 --max-tokens 48",
    example: "examples/specinfer.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary: "A tree of guesses, several at every position: where the first one is wrong, a sibling may be right.",
    explain: [
      "A chain of guesses ends at the first wrong one. Here the draft model draws k guesses for the next token, k more after " +
        "each of those, and so on, and the target scores the whole tree in one pass. Siblings are tested in turn, each " +
        "against what the rejected ones before it have left of the target's law p:",
      "  keep sibling x with probability min(1, p(x) / q(x)); rejected: p becomes norm([p - q]+), next sibling",
      "  none kept: draw the token from what is left of p",
      "Every test is speculative sampling of what is left, so what comes out has exactly the target's law. At temperature 0 " +
        "the siblings are the k most probable tokens, and the one kept is the target's own choice, if it is among them.",
      "What it costs: one draft pass per level, and a target pass over all nodes. Siblings are drawn independently, so where " +
        "the draft model is sure they are copies of each other, and a copy of a rejected guess is rejected too: RSD and " +
        "Sequoia draw without replacement instead.",
      "Deviations: one draft model, where the paper can merge the trees of several; siblings are tested in the order they " +
        "were drawn, which with one draft law is as good as any.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma", "draft"],
      method: async ({ gamma, draft }) => {
        if (draft === undefined) throw new ArgumentError("draft", "a model to guess with", draft);
        const { branchingOfBudget, SpecInferDrafter } = await import("./speculative/index.ts");
        const options = gamma === undefined ? {} : { branching: branchingOfBudget(gamma) };
        return { drafter: new SpecInferDrafter(draft, options) };
      },
    },
  },
  {
    name: "rsd-c",
    title: "Recursive speculative decoding, constant branching",
    paper: {
      title: "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement",
      arXiv: "2402.14160",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/rsd-c.ts",
    command: "tokenthrift run rsd-c --temperature 1 --max-tokens 48",
    example: "examples/rsd-c.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary: "A tree of guesses in which no sibling repeats another: drawn without replacement, all at once.",
    explain: [
      "Independent siblings repeat each other, the more the surer the draft model is. Gumbel-top-k draws k different ones in " +
        "one go: noise is added to every log-probability, and the k largest are taken, in descending order.",
      "  g(y) = ln q(y) + Gumbel noise        siblings: the k largest g(y)",
      "That order is the one in which drawing one after another, without putting back, would have given them. So each " +
        "sibling's law is known, q without the earlier ones, and recursive rejection sampling tests it by that law:",
      "  keep sibling x with probability min(1, p(x) / q(x)); rejected: p becomes norm([p - q]+), q loses x",
      "What comes out has exactly the target's law. With as many siblings as there are tokens one is always kept. At " +
        "temperature 0 the siblings are the k most probable tokens.",
      "What it costs: one draft pass per level, and a target pass over all nodes, whose number multiplies with every level. " +
        "Deviations: none.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma", "draft"],
      method: async ({ gamma, draft }) => {
        if (draft === undefined) throw new ArgumentError("draft", "a model to guess with", draft);
        const { branchingOfBudget, RsdCDrafter } = await import("./speculative/index.ts");
        return { drafter: new RsdCDrafter(draft, gamma === undefined ? {} : { branching: branchingOfBudget(gamma) }) };
      },
    },
  },
  {
    name: "rsd-s",
    title: "Recursive speculative decoding, stochastic beam search",
    paper: {
      title: "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement",
      arXiv: "2402.14160",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/rsd-s.ts",
    command: "tokenthrift run rsd-s --temperature 1 --max-tokens 48",
    example: "examples/rsd-s.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary:
      "Whole sequences of guesses without replacement: a beam that chance keeps honest, with more children where more pay.",
    explain: [
      "A node that is unlikely to be reached needs no children. Stochastic beam search keeps W nodes per level, chosen among " +
        "all children of the level before by their perturbed log-probability, which draws W whole sequences from the draft " +
        "model without replacement. A node gets as many children as are among the W, often none.",
      "  g(y) = ln q(sequence to y) + Gumbel noise,   Z = the largest g of the siblings,   G = the parent's own value",
      "  value(y) = -ln(exp(-G) - exp(-Z) + exp(-g(y)))        the best child inherits its parent's value",
      "Siblings in descending order are still draws without replacement, with known laws: how large the k-th value is says " +
        "nothing about which token it belongs to. So recursive rejection sampling makes the text exactly the target's. A " +
        "plain beam, cut by log-probability, would not. At temperature 0 there is no noise, and it is a plain beam.",
      "What it costs: one draft pass per level, a target pass over W nodes per level, and noise for every token of the " +
        "vocabulary at every node. With as many guesses as RSD-C it accepts more of them. Deviations: none.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma", "draft"],
      method: async ({ gamma, draft }) => {
        if (draft === undefined) throw new ArgumentError("draft", "a model to guess with", draft);
        const { leavesAndLevels, RsdSDrafter } = await import("./speculative/index.ts");
        if (gamma === undefined) return { drafter: new RsdSDrafter(draft) };
        const { leaves, levels } = leavesAndLevels(gamma);
        return { drafter: new RsdSDrafter(draft, { beamWidth: leaves, depth: levels }) };
      },
    },
  },
  {
    name: "sequoia",
    title: "Sequoia",
    paper: {
      title: "Sequoia: Scalable, Robust, and Hardware-aware Speculative Decoding",
      arXiv: "2402.12374",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/sequoia.ts",
    command: "tokenthrift run sequoia --gamma 16 --max-tokens 48",
    example: "examples/sequoia.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary:
      "The tree of guesses with the most expected tokens for its size, from how often each rank of guess is right.",
    explain: [
      "A tree has room for second thoughts: where the first guess is rejected, its sibling may be accepted. How many " +
        "children should a node have, and how deep should the tree be? Sequoia measures, on a few prompts, how often the " +
        "k-th child of a node is the one accepted, and calls that P[k]. A node reached along children of ranks k1, k2, .. " +
        "is then reached with probability P[k1] P[k2] .., and the best tree is found by dynamic programming:",
      "  expected tokens per pass = sum over nodes of the product of P along the path",
      "  best(n nodes, c children) = max over y of best(y, c - 1) + P[c] best(n - y)",
      "Siblings are drawn without replacement, so none is wasted on a copy. Verification tests them in turn, each against " +
        "what the rejected ones left of the target's law, and the text has exactly that law. At temperature 0 the most " +
        "probable tokens are taken instead of drawn ones.",
      "The right size depends on the machine: given what a target pass over n nodes and a draft pass cost, the tree with " +
        "the least cost per expected token is chosen, which may be none at all.",
      "What it costs: one draft pass per level, a target pass over all nodes, and the measurement, once. The tree is the " +
        "same for every text. Deviations: budgets count guesses, not the root; one draft pass less is charged than in " +
        "the released code, which feeds the leaves too; near the end of the context the best smaller tree is drafted.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma", "draft"],
      method: async ({ gamma, draft, target, sampling, calibration }) => {
        if (draft === undefined) throw new ArgumentError("draft", "a model to guess with", draft);
        const { positionalAcceptance, SequoiaDrafter } = await import("./speculative/index.ts");
        const acceptance = await positionalAcceptance(target, draft, calibration, {
          ...sampling,
          width: 8,
          maxTokens: 32,
        });
        return { drafter: new SequoiaDrafter(draft, { acceptance, ...(gamma !== undefined && { budget: gamma }) }) };
      },
    },
  },
  {
    name: "dyspec",
    title: "DySpec",
    paper: {
      title: "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure",
      arXiv: "2410.11744",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/dyspec.ts",
    command: "tokenthrift run dyspec --gamma 16 --max-tokens 48",
    example: "examples/dyspec.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary: "A tree grown anew for every step, always by the draw that is most likely to be tested.",
    explain: [
      "Tokens the draft model finds probable are accepted more often. So its own probabilities can say, step by step, " +
        "where a guess is worth most: one long path where it is sure, many short ones where it hesitates. A draw is " +
        "tested when its node is reached and its earlier siblings were rejected:",
      "  value of a draw = product of the draft's probabilities on the path * (1 - mass of the siblings drawn before)",
      "Greedy construction makes the draw of the largest value, wherever in the tree it is, until the budget is spent. " +
        "Threshold construction goes level by level and draws wherever the value reaches a threshold, which takes one " +
        "draft pass a level.",
      "The value decides whether to draw at a place, never which drawn token is kept. So each guess has the law it " +
        "states, siblings being drawn without replacement, and the text has exactly the target's law. Keeping the most " +
        "probable of many drawn guesses would break that.",
      "What it costs: a draft pass for every node that gets children. Deviations: the draft model is asked about a node " +
        "when the first child is drawn, not when the node is made, which spares passes and changes no tree. The draft's " +
        "temperature is .6 whatever the target's is, as in the paper.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma", "draft"],
      method: async ({ gamma, draft }) => {
        if (draft === undefined) throw new ArgumentError("draft", "a model to guess with", draft);
        const { DySpecDrafter } = await import("./speculative/index.ts");
        return { drafter: new DySpecDrafter(draft, gamma === undefined ? {} : { budget: gamma }) };
      },
    },
  },
  {
    name: "eagle2-tree",
    title: "EAGLE-2's dynamic tree",
    paper: {
      title: "EAGLE-2: Faster Inference of Language Models with Dynamic Draft Trees",
      arXiv: "2406.16858",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/eagle2-tree.ts",
    command: "tokenthrift run eagle2-tree --gamma 24 --max-tokens 48",
    example: "examples/eagle2-tree.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary: "The most confident guesses of all levels, chosen without chance.",
    explain: [
      "A node's confidence is the product of the draft's probabilities along its path. Level by level the ten most " +
        "confident nodes are expanded to their ten most probable tokens; then all candidates of all levels compete for " +
        "the places of the draft.",
      "  expand the k largest of the level        keep the budget's largest of all",
      "No child is more confident than its parent, so what is kept is a tree. Its tokens are chosen, not drawn, which " +
        "verification knows: a child x is accepted with the target's probability p(x), and taken out of p when it is " +
        "rejected. That is as good as drawing from p and looking whether the token is among the children, so the text " +
        "has exactly the target's law.",
      "What it costs: a draft pass per level over ten nodes. At temperature 0 it is hard to beat; when sampling, methods " +
        "that draw their guesses may be accepted more often.",
      "Deviations: any language model drafts. EAGLE's own drafter, one layer over the target's hidden states, is another " +
        "technique; this is its tree, token for token that of the released code.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma", "draft"],
      method: async ({ gamma, draft }) => {
        if (draft === undefined) throw new ArgumentError("draft", "a model to guess with", draft);
        const { Eagle2TreeDrafter } = await import("./speculative/index.ts");
        return { drafter: new Eagle2TreeDrafter(draft, gamma === undefined ? {} : { budget: gamma }) };
      },
    },
  },
  {
    name: "medusa",
    title: "Medusa",
    paper: {
      title: "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads",
      arXiv: "2401.10774",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/medusa.ts",
    command: "tokenthrift run medusa --gamma 16 --max-tokens 48",
    example: "examples/medusa.ts",
    saves: "target passes per token, with no draft model",
    exact: "lossless",
    summary: "Heads on the target's last hidden state guess the tokens after the next one, all at once.",
    explain: [
      "The state from which the target tells the next token knows something of the tokens after it. Head k, one small layer " +
        "and an output matrix, guesses the token k places further on:",
      "  logits of head k = W2 (h + SiLU(W1 h + b))",
      "The heads do not see each other, so every guess of one may follow every guess of the one before. Of that product a " +
        "sparse tree is kept, the same in every step: the paths most often right, by accuracies measured once. One target " +
        "pass verifies it, and gives the state for the next guesses too, so drafting costs no pass of any model.",
      "Guesses are chosen without chance, which recursive rejection sampling knows: the text has exactly the target's law. " +
        "The paper's own rule, typical acceptance, has not: it is a technique of its own here, marked as lossy.",
      "What it costs: three small products per head and step, and rows of a target pass. Deviations: three heads; their " +
        "training starts from the target's output head, the target is frozen (Medusa-1); weights are stored in 8 bits. The " +
        "heads fit the embedded target and no other model.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { loadMedusaHeads, MedusaDrafter } = await import("./speculative/index.ts");
        const { heads, accuracies } = await loadMedusaHeads();
        return { drafter: new MedusaDrafter(heads, { accuracies, ...(gamma !== undefined && { budget: gamma }) }) };
      },
    },
  },
  {
    name: "typical-acceptance",
    title: "Medusa with typical acceptance",
    paper: {
      title: "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads",
      arXiv: "2401.10774",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/typical-acceptance.ts",
    command: "tokenthrift run typical-acceptance --temperature 1 --max-tokens 48",
    example: "examples/medusa.ts",
    saves: "target passes per token, at the price of another law",
    exact: "lossy",
    summary: "A guess stays when the target finds it plausible enough, not as often as the target would draw it.",
    explain: [
      "Rejection sampling turns a guess away just often enough to leave the target's law as it is. Typical acceptance asks " +
        "less: a guess stays when its probability exceeds a threshold that falls with the entropy of the law, so that where " +
        "many tokens are plausible any of them will do.",
      "  keep x if  p(x) > min(0.09, 0.3 exp(-H(p)))        of all paths the longest that is kept to its end",
      "No chance is involved: where a guess is plausible it is always taken, so texts come out more often than the target " +
        "would draw them, and likelier ones at that. At temperature 0 only the most probable token is plausible, and the " +
        "text is plain decoding's.",
      "What it costs: nothing beyond Medusa, which drafts here. What it buys grows with the temperature, and so does the " +
        "distance from the target's law. Thresholds are the 0.09 and 0.3 of the paper's runs; the token after the path is the " +
        "most probable one. Deviations: top-k and top-p cut the law first where asked for.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { loadMedusaHeads, MedusaDrafter, typicalAcceptance } = await import("./speculative/index.ts");
        const { heads, accuracies } = await loadMedusaHeads();
        const drafter = new MedusaDrafter(heads, { accuracies, ...(gamma !== undefined && { budget: gamma }) });
        return { drafter, verifier: typicalAcceptance() };
      },
    },
  },
  {
    name: "chimera",
    title: "Chimera",
    paper: {
      title:
        "Chimera: A Lossless Decoding Method for Accelerating Large Language Models Inference by Fusing all Tokens",
      arXiv: "2402.15758",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/chimera.ts",
    command: "tokenthrift run chimera --gamma 16 --max-tokens 48",
    example: "examples/chimera.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary: "One layer over the target's own states drafts token by token, each guess fed back to it.",
    explain: [
      "Medusa's heads guess from one state and never learn what the others guessed. Here a draft model of one layer stands " +
        "on the target's states: a trigram encoder makes a vector of the last three tokens, a transformer block lets it " +
        "attend to all states the target has left, and a head reads the last state and the block's output side by side.",
      "  g = W_o (u + SiLU(W u + b)),  u = [E(x-2); E(x-1); E(x)]        f = block(g | states, earlier f)",
      "  logits of depth i = W_lm W_i [h; f]",
      "Each guess becomes part of the next trigram, so deeper guesses are right as often as the first. The tree of guesses is " +
        "sparse, made from accuracies measured once, and the target verifies it in one pass. The guesses are chosen without " +
        "chance; the text has exactly the target's law.",
      "What it costs: a layer's products per guess that is gone on from. Deviations: a head of its own at every depth, as in " +
        "the training code (generation there uses the first for all); lossless when sampling too, where the released code " +
        "takes typical acceptance; weights are stored in 8 bits. The encoders fit the embedded target and no other model.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { ChimeraDrafter, loadChimeraHeads } = await import("./speculative/index.ts");
        const { heads, accuracies } = await loadChimeraHeads();
        return { drafter: new ChimeraDrafter(heads, { accuracies, ...(gamma !== undefined && { budget: gamma }) }) };
      },
    },
  },
  {
    name: "s2d",
    title: "S2D: sorted speculative decoding",
    paper: {
      title: "S2D: Sorted Speculative Decoding For More Efficient Deployment of Nested Large Language Models",
      arXiv: "2407.01955",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/s2d.ts",
    command: "tokenthrift run s2d --gamma 5 --max-tokens 48",
    example: "examples/s2d.ts",
    saves: "target passes per token, and layers of the draft model",
    exact: "lossless",
    summary: "One draft model for many targets, trained so that guesses may leave it at several depths.",
    explain: [
      "How deep a draft model should be depends on its target: where a target pass costs little, guesses have to be cheap; " +
        "where it costs much, they have to be right. Instead of a draft model per target there is one here, three layers, " +
        "trained so that one, two and three of them predict text, with one norm and one output head for all (sorted " +
        "fine-tuning). No target took part, so it serves every target of its vocabulary.",
      "  leave after layer e  if  max q_e > threshold of e,   or e is the last",
      "Easy tokens leave early. Their states wait where they left, and run through the layers above, all in one pass, once a " +
        "later token goes deeper and must attend to them: nothing is approximated. The decision looks at the largest " +
        "probability, never at the token drawn, so guesses have the law of the exit they left at, which verification is " +
        "told: the text has exactly the target's law. Drafts grow by two guesses when accepted whole and shrink by one " +
        "otherwise, unless their number is given.",
      "What it costs: draft layers one after another, counted by `onPass`. Which thresholds are best moves to deeper exits as " +
        "a target pass gets dearer (examples/s2d.ts models it); for any one target a fixed depth can do as well.",
      "Deviations: the released code takes the arg-max and states the draft's probabilities as its law, which is biased when " +
        "sampling; here guesses are drawn, or stated as chosen. The prompt waits like any token; the released code runs it " +
        "through all layers. The draft is the embedded target's first three layers, tuned on its text, stored in 8 bits.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { loadSortedDraft, S2dDrafter } = await import("./speculative/index.ts");
        const { model, exits } = await loadSortedDraft();
        return { drafter: new S2dDrafter(model, { exits, ...(gamma !== undefined && { gamma, adaptive: false }) }) };
      },
    },
  },
  {
    name: "prompt-lookup",
    title: "Prompt lookup decoding",
    paper: null,
    family: "speculative",
    module: "src/speculative/prompt-lookup.ts",
    command: "tokenthrift run prompt-lookup --gamma 10 --max-tokens 48",
    example: "examples/prompt-lookup.ts",
    saves: "target passes per token, where text repeats itself",
    exact: "lossless",
    summary:
      "What followed the last few tokens when they stood in the text before is the guess: no draft model at all.",
    explain: [
      "Answers copy from what they answer: names, quotations, code to be edited. So the last n tokens are looked up in the " +
        "text so far, prompt and output alike, the longest n-gram first; where they are found, what followed is guessed.",
      "  for n = 2, 1:  first i with text[i .. i + n) = the last n tokens:  guess text[i + n .. i + n + 10)",
      "The guesses are chosen without chance, so one is kept with the probability the target gives it, and the text has " +
        "exactly the target's law.",
      "What it costs: rows of a target pass, and a search that is nothing beside it. What it saves depends on the text " +
        "alone: eleven tokens a pass where it copies without an error, one where nothing comes twice.",
      "Published as code (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding). Deviations: none from Hugging " +
        "Face's transformers, whose guesses it reproduces, but that an end of text does not end a guess. The first " +
        "release takes n-grams of up to three and no guesses shorter than asked for.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { promptLookupDrafter } = await import("./speculative/index.ts");
        return { drafter: promptLookupDrafter(gamma === undefined ? {} : { predictedTokens: gamma }) };
      },
    },
  },
  {
    name: "token-recycling",
    title: "Token recycling",
    paper: {
      title: "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token Recycling",
      arXiv: "2408.08696",
      year: 2024,
    },
    family: "speculative",
    module: "src/speculative/token-recycling.ts",
    command: "tokenthrift run token-recycling --gamma 63 --max-tokens 48",
    example: "examples/token-recycling.ts",
    saves: "target passes per token",
    exact: "lossless",
    summary: "The candidates each pass ranks first and does not use are kept, and are the next tree of guesses.",
    explain: [
      "A target pass gives a whole ranking of next tokens at every position and uses one. Here the eight best are kept, in a " +
        "table with a row for each token of the vocabulary; the latest ranking overwrites the row. The rejected guesses of " +
        "a tree have rankings too, and they are kept as well: that is the recycling.",
      "  draft    root = pending token;  r-th child of a node = table[its token][r], along a fixed template of 80 paths",
      "  update   table[token of n] = the 8 largest logits after n, for every node n of the tree",
      "The table stays from one prompt to the next, so a drafter starts hot after its first text. It knows one token of " +
        "context, and makes up for it by breadth. Guesses are chosen without chance; siblings are tested in turn.",
      "What it costs: rows of a target pass, 81 at most, and V * 8 * 2 bytes, 0.5 MB for 32,000 tokens. It pays where such " +
        "a pass takes little longer than one over a single row, and less where arithmetic is the limit.",
      "Deviations: the pass over the prompt fills the table too, which the released code leaves out. Where a token stands " +
        "at several nodes the last one writes; the released code leaves that open. Sampling is exact here; the released " +
        "code takes the most probable token only.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { recyclingTemplate, TokenRecyclingDrafter } = await import("./speculative/index.ts");
        return { drafter: new TokenRecyclingDrafter({ template: recyclingTemplate.slice(0, gamma) }) };
      },
    },
  },
  {
    name: "lookahead",
    title: "Lookahead",
    paper: {
      title:
        "Lookahead: An Inference Acceleration Framework for Large Language Model with Lossless Generation Accuracy",
      arXiv: "2312.12728",
      year: 2023,
    },
    family: "speculative",
    module: "src/speculative/lookahead.ts",
    command: "tokenthrift run lookahead --gamma 63 --max-tokens 48",
    example: "examples/lookahead.ts",
    saves: "target passes per token, most with texts like those before",
    exact: "lossless",
    summary:
      "A trie of the prompt and of everything generated before; what hangs below the last two tokens is the draft.",
    explain: [
      "Every token of a prompt and of every output opens a window: the tokens after it are counted along a path of that " +
        "token's tree. The last two tokens are looked up, and the sub-trie below them, many branches that share their " +
        "beginnings, is verified in one pass. Where it is too large its most frequent part is taken.",
      "  frequency = (1 - w) counts by this prompt + w counts by outputs,  w = 0.0001:  the prompt first",
      "A prompt is forgotten with its sequence. Outputs stay, for all sequences to come; where a tree outgrows its capacity " +
        "their counts are halved, and what falls to one or less is forgotten.",
      "What it costs: rows of a target pass, 64 at most, and memory for the trie. What it saves grows as the trie fills: " +
        "report it cold and warm. The worst case is plain decoding. With many users at once passes are no longer cheap, " +
        "and neither is it.",
      "Not the Jacobi iteration that is called lookahead decoding too. Deviations: outputs are counted token by token, not " +
        "when a window is full; an ended prompt leaves nothing behind, where the released code may draft it for others; " +
        "capacity holds after every sequence; parallel branches pay for what they share without being scored twice.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma }) => {
        const { LookaheadDrafter } = await import("./speculative/index.ts");
        return { drafter: new LookaheadDrafter(gamma === undefined ? {} : { decodingLength: gamma + 1 }) };
      },
    },
  },
  {
    name: "hardware-aware-drafting",
    title: "Hardware-aware drafting",
    paper: null,
    family: "speculative",
    module: "src/speculative/hardware-aware-drafter.ts",
    command: "tokenthrift run hardware-aware-drafting --max-tokens 48",
    example: "examples/hardware-aware-drafting.ts",
    saves: "seconds, where guesses pay; nothing is lost where they do not",
    exact: "lossless",
    summary: "As many guesses as pay on this machine and this text, none where none do.",
    explain: [
      "A pass over eight tokens costs hardly more than one over a single token where weights have to be fetched for every " +
        "pass, as on a GPU, and nearly eight times as much where they lie in the processor's cache. The same draft wins " +
        "on the one and loses on the other. So the cost of a pass is measured once for every size, and the drafter's own " +
        "cost with it.",
      "  n* = argmax over n of  E[tokens | n guesses, what came before] / E[cost | n guesses]        n = 0: 1 token for 1",
      "Expectations are running means over verified steps. One verified draft tells what all smaller ones would have " +
        "brought. They are kept apart by what came before: no guesses, a draft turned away, one, two or more drafts " +
        "accepted whole; text that is being copied goes on being copied.",
      "An account holds what was saved. Whatever would overdraw it is not tried, so that in the costs measured it is never " +
        "slower than plain decoding by more than about one per cent and a few passes.",
      "Here it wraps prompt lookup. Sequoia (arXiv 2402.12374) chooses one tree size for a machine in this way; here the " +
        "size follows the text too.",
    ],
    run: {
      kind: "generation",
      uses: ["gamma"],
      method: async ({ gamma = 15, target, calibration }) => {
        const { HardwareAwareDrafter, measureDrafting, measurePassCosts, promptLookupDrafter } = await import(
          "./speculative/index.ts"
        );
        const inner = promptLookupDrafter({ maxNgramSize: 3, predictedTokens: gamma });
        const passCosts = measurePassCosts(target);
        const drafting = measureDrafting(target, inner, calibration);
        return { drafter: new HardwareAwareDrafter(inner, { passCosts, drafting }) };
      },
    },
  },
  {
    name: "skipdecode",
    title: "SkipDecode",
    paper: {
      title: "SkipDecode: Autoregressive Skip Decoding with Batching and Caching for Efficient LLM Inference",
      arXiv: "2307.02628",
      year: 2023,
    },
    family: "speculative",
    module: "src/speculative/skipdecode.ts",
    command: "tokenthrift run skipdecode --max-tokens 96",
    example: "examples/skipdecode.ts",
    saves: "layers a token runs, the more the further into the text, at the price of quality",
    exact: "lossy",
    summary: "The further into the text, the fewer layers run, by a schedule that is known in advance.",
    explain: [
      "Leaving a network early, token by token, is awkward: a batch waits for its last sequence, and a token that left has no " +
        "keys and values in the layers above for later ones to attend to. Here the position alone decides. All sequences of a " +
        "batch run the same layers at the same column, and later columns run a subset of what earlier ones ran, so every key " +
        "and value that is needed exists. Early tokens decide what is said and get more.",
      "  layers at pos = round((1 - t) most + t least),   t = (pos - P) / (S - P - 1) between 0 and 1",
      "  which = the bottom one, and the top ones; what is skipped is the lower middle",
      "The prompt runs all layers. The speed-up is known before anything runs: layers over the mean budget, 1.33 for the " +
        "schedule here, from four layers to two. A pass makes one token, as ever; it is the pass that gets cheaper.",
      "The tokens are NOT those of the full network, and nothing checks them. An ordinary model breaks when layers are " +
        "skipped; the one that runs here is the embedded target, tuned as a whole under the schedule. What is lost all the " +
        "same stands in models/skipdecode/training.json, beside other schedules: held-out text takes 1.42 bits per byte in " +
        "place of 1.36. The same network under schedules it was not tuned for takes 3.79 without the warm-up layer, 1.81 " +
        "leaving at the bottom, and 1.39 with three layers in every column: here the falling budget is not what helps. The schedule does not see the text: a hard token late in it " +
        "gets as little as an easy one.",
      "Deviations: the paper leaves open whether the prompt runs all layers or the most a later column may; here it is all. " +
        "The rows of a batch run one after another. The tuned weights are stored in 8 bits.",
    ],
    run: {
      kind: "model",
      open: async (promptTokens) => {
        const { loadSkipDecode, skipDecode } = await import("./speculative/index.ts");
        const { model, schedule } = await loadSkipDecode();
        return skipDecode(model, schedule, { promptLength: promptTokens });
      },
    },
  },
];

/** The entry of that name, or undefined. */
export function findTechnique(name: string): Technique | undefined {
  return catalog.find((technique) => technique.name === name);
}
