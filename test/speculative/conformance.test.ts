/** Every drafter the family exports keeps what drafters promise, and a drafter that breaks a promise is found out. */
import { join } from "node:path";
import ts from "typescript";
import { describe, expect, it } from "vitest";
import type { Draft, Drafter, Drafting, StrategyFactory } from "../../src/speculative/index.ts";
import { ChainDrafter, chainDraft, plainDecoding, randomDrafter } from "../../src/speculative/index.ts";
import { describeDrafterConformance, promises } from "./drafter-conformance.ts";
import { drafters } from "./drafters.ts";

for (const [name, [strategy, options]] of Object.entries(drafters)) {
  describeDrafterConformance(name, strategy, options);
}

/** Values a module exports that are drafters, or make one: classes, functions and objects, as the type checker has it. */
function exportedDrafters(module: string): string[] {
  const root = join(import.meta.dirname, "../..");
  const config = ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config.config, { ...ts.sys, readDirectory: () => [] }, root);
  const program = ts.createProgram([join(root, module)], { ...options, types: [], lib: ["lib.es2023.d.ts"] });
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(join(root, module))!;
  const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(source)!).map((symbol) => ({
    name: symbol.name,
    symbol: symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol,
  }));
  const drafter = checker.getDeclaredTypeOfSymbol(exported.find(({ name }) => name === "Drafter")!.symbol);
  const isDrafter = (type: ts.Type) => !(type.flags & ts.TypeFlags.Any) && checker.isTypeAssignableTo(type, drafter);
  return exported
    .filter(({ symbol }) => {
      if (!(symbol.flags & ts.SymbolFlags.Value)) return false;
      const type = checker.getTypeOfSymbol(symbol);
      const abstract = symbol.declarations?.some(
        (declaration) =>
          ts.isClassDeclaration(declaration) && ts.getCombinedModifierFlags(declaration) & ts.ModifierFlags.Abstract,
      );
      const made = [...type.getCallSignatures(), ...(abstract ? [] : type.getConstructSignatures())];
      return isDrafter(type) || made.some((signature) => isDrafter(signature.getReturnType()));
    })
    .map(({ name }) => name);
}

it("lists every drafter the family exports, and no other: a new one goes into test/speculative/drafters.ts", () => {
  const exported = exportedDrafters("src/speculative/index.ts");
  expect(exported).toEqual(expect.arrayContaining(["plainDecoding", "randomDrafter", "ChainDrafter"]));
  expect(exported).not.toContain("ModelDrafter");
  const listed = new Set(Object.keys(drafters).map((name) => name.split(" ")[0]!));
  expect([...listed].sort()).toEqual(exported.sort());
});

describe("a drafter that breaks a promise is found out:", () => {
  /** Guesses the same token again and again, or what `propose` says. */
  const chosen = (propose: Drafting["propose"]): Drafter => ({
    ...plainDecoding,
    open: (start) => ({ ...plainDecoding.open(start), propose }),
  });
  const guess = (pending: number, guesses: readonly number[]): Draft =>
    chainDraft(pending, guesses, new Array<null>(guesses.length).fill(null));

  const broken: Record<keyof typeof promises, [mistake: string, strategy: StrategyFactory]> = {
    "is lossless and keeps the contracts of every step": [
      "it says its guesses were drawn",
      () => ({
        drafter: chosen(({ tokens, maxNodes, maxDepth }) => {
          const law = new Float64Array(8).fill(1 / 8);
          return Math.min(maxNodes - 1, maxDepth) > 0
            ? chainDraft(tokens.at(-1)!, [0], [law])
            : guess(tokens.at(-1)!, []);
        }),
      }),
    ],
    "keeps within any number of nodes, any depth, and what the context holds": [
      "it forgets the root when it counts nodes",
      () => ({
        drafter: chosen(({ tokens, maxNodes, maxDepth }) =>
          guess(tokens.at(-1)!, new Array(Math.min(4, maxNodes, maxDepth)).fill(0)),
        ),
      }),
    ],
    "drafts the root alone where no node or no depth is left, and then goes on": [
      "it never guesses",
      () => ({ drafter: plainDecoding }),
    ],
    "stops at end-of-text inside an accepted path": [
      "it follows the path it drafted, not the one that was cut",
      (draft) => {
        const inner = new ChainDrafter(draft);
        return {
          drafter: {
            vocabularySize: inner.vocabularySize,
            reset: () => inner.reset(),
            open(start) {
              const drafting = inner.open(start);
              return {
                get cost() {
                  return drafting.cost;
                },
                propose: (context) => drafting.propose(context),
                observe(pass) {
                  // Right but for a text that ends: everything after a stop token was right too.
                  const whole = pass.draft.tokens.length;
                  const path = pass.path.length < whole ? Array.from({ length: whole }, (_, node) => node) : pass.path;
                  drafting.observe({ ...pass, path });
                },
                close: () => drafting.close(),
              };
            },
          },
        };
      },
    ],
    "drafts alike for one seed, and after a reset as if it were new": [
      "a reset forgets nothing",
      () => {
        let sequences = 0;
        return {
          drafter: {
            ...plainDecoding,
            open(start) {
              sequences += 1;
              const token = sequences % start.vocabularySize;
              return chosen(({ tokens, maxNodes, maxDepth }) =>
                guess(tokens.at(-1)!, Math.min(maxNodes - 1, maxDepth) > 0 ? [token] : []),
              ).open(start);
            },
          },
        };
      },
    ],
    "starts every sequence anew, or learns from the one before where it says so": [
      "it learns and does not say so",
      () => drafters["TokenRecyclingDrafter"]![0](undefined as never),
    ],
    "keeps interleaved sequences apart": [
      "all sequences have one memory",
      () => {
        let last = 0;
        return {
          drafter: {
            ...plainDecoding,
            open(start) {
              last = 0;
              return {
                ...plainDecoding.open(start),
                propose: ({ tokens, maxNodes, maxDepth }) =>
                  guess(tokens.at(-1)!, Math.min(maxNodes - 1, maxDepth) > 0 ? [last] : []),
                observe: ({ token }) => {
                  last = token;
                },
              };
            },
          },
        };
      },
    ],
    "copies what it keeps: arrays it was lent may change once it has returned": [
      "it keeps the prompt",
      () => ({
        drafter: {
          ...plainDecoding,
          open: (start) =>
            chosen(({ tokens, maxNodes, maxDepth }) =>
              guess(tokens.at(-1)!, Math.min(maxNodes - 1, maxDepth) > 0 ? [start.prompt.at(-1)!] : []),
            ).open(start),
        },
      }),
    ],
    "can be closed at any time, twice, and be used again": [
      "it cannot be closed twice",
      () => ({
        drafter: {
          ...plainDecoding,
          open(start) {
            let open = true;
            return {
              ...plainDecoding.open(start),
              close() {
                if (!open) throw new Error("closed");
                open = false;
              },
            };
          },
        },
      }),
    ],
    "manages with fewer tokens than siblings: vocabularies of 1, 2 and 3, laws of one token": [
      "it guesses a token that is not there",
      () => ({
        drafter: chosen(({ tokens, maxNodes, maxDepth }) =>
          guess(tokens.at(-1)!, Math.min(maxNodes - 1, maxDepth) > 0 ? [2] : []),
        ),
      }),
    ],
    "drafts for its own vocabulary only": [
      "it opens for any",
      (draft) => ({ drafter: { ...randomDrafter(), vocabularySize: draft.vocabularySize } }),
    ],
    "counts no pass of its own where it runs no model, and as many as it makes where it does": [
      "it makes one up",
      () => ({
        drafter: {
          ...plainDecoding,
          open: (start) => ({
            ...plainDecoding.open(start),
            cost: { passes: 1, tokens: 1, multiplyAdds: 0, cacheBytesRead: 0 },
          }),
        },
      }),
    ],
  };

  it("each promise can be broken", () => expect(Object.keys(broken).sort()).toEqual(Object.keys(promises).sort()));

  it.each(Object.entries(broken))("%s", async (promise, [mistake, strategy]) => {
    await expect((async () => promises[promise]!({ strategy }))(), mistake).rejects.toThrow();
  });
});
