import { expect, test } from "vitest";
import { Bpe } from "../../src/tokenization/index.ts";

test("minbpe's worked example: three merges on aaabdaaabac", () => {
  const bpe = Bpe.train(["aaabdaaabac"], { vocabSize: 259 });
  expect([...bpe.encode("aaabdaaabac")]).toEqual([258, 100, 258, 97, 99]);
  expect(bpe.decode([258, 100, 258, 97, 99])).toBe("aaabdaaabac");
});
