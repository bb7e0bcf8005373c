import { expect, it } from "vitest";
import { run } from "./terminal.ts";

const technique = ["run", "zett", "--prompt", "export function createServer(options: ServerOptions): Server;"];

it("shows a text over its own vocabulary and over another, with what it costs", async () => {
  const { code, stdout, stderr } = await run([...technique, "--max-tokens", "4"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const rows = stdout.split("\n").filter((line) => / {2,}1,024 /.test(line));
  expect(rows.map((row) => row.split(/ {2,}/)[0])).toEqual([
    "its own tokenizer",
    "a Unigram, mean of pieces",
    "a Unigram, hypernetwork",
  ]);
});

it("says the same in JSON; the model's own vocabulary is the cheapest in bits", async () => {
  const { stdout } = await run([...technique, "--json", "--max-tokens", "3"]);
  const { ways } = JSON.parse(stdout);
  const bits = ways.map(({ bitsPerByte }: { bitsPerByte: number }) => bitsPerByte);
  expect(bits[0]).toBeLessThan(Math.min(...bits.slice(1)));
  expect(ways.map(({ bytes }: { bytes: number }) => bytes)).toEqual([61, 61, 61]);
  expect(ways[1].tokens).toBe(ways[2].tokens);
});

it("refuses options that mean nothing here", async () => {
  const { code, stderr } = await run([...technique, "--gamma", "2"]);
  expect(code).not.toBe(0);
  expect(stderr).toContain("--gamma");
});
