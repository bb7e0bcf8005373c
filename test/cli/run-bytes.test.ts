import { expect, it } from "vitest";
import { run } from "./terminal.ts";

const technique = ["run", "exact-byte-probabilities", "--prompt", "     * Returns the current val"];

it("shows three ways of continuing a prompt, and what each says of the next byte", async () => {
  const { code, stdout, stderr } = await run([...technique, "--max-bytes", "5"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toContain("Returns the current val\u2502ue of\n");
  expect(stdout.match(/^(naive|token healing|exact) .*$/gm)?.map((line) => line.split(/ {2,}/).slice(0, 2))).toEqual([
    ["naive", expect.stringMatching(/^i /)],
    ["token healing", expect.stringMatching(/^u /)],
    ["exact", expect.stringMatching(/^u 0\.99/)],
  ]);
});

it("says the same in JSON, and the same for the same seed", async () => {
  const sampled = [...technique, "--json", "--max-bytes", "6", "--temperature", "1", "--top-p", "0.9", "--seed", "4"];
  const [first, second] = [await run(sampled), await run(sampled)];
  expect(first).toEqual(second);
  const { ways, options } = JSON.parse(first.stdout);
  expect(options).toEqual({ maxBytes: 6, seed: 4, temperature: 1, topP: 0.9 });
  expect(ways.map(({ name }: { name: string }) => name)).toEqual(["naive", "token healing", "exact"]);
  for (const { next, cost, logProbability } of ways) {
    expect(next[0].probability).toBeGreaterThan(next[1].probability);
    expect(cost.bytes).toBe(6);
    expect(logProbability).toBeLessThan(0);
  }
});

it("refuses options that mean nothing here", async () => {
  expect((await run([...technique, "--gamma", "2"])).code).not.toBe(0);
  const { code, stderr } = await run([...technique, "--max-bytes", "0"]);
  expect(code).not.toBe(0);
  expect(stderr).toContain("--max-bytes");
});
