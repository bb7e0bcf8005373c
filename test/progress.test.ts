import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { duration, Progress } from "../src/progress.ts";

function terminal(isTTY: boolean): { stream: NodeJS.WriteStream; written: () => string } {
  let text = "";
  const stream = new PassThrough() as unknown as NodeJS.WriteStream;
  stream.write = ((chunk: string) => {
    text += chunk;
    return true;
  }) as NodeJS.WriteStream["write"];
  Object.assign(stream, { isTTY, columns: 60 });
  return { stream, written: () => text };
}

describe("Progress", () => {
  it("says nothing where nobody looks", () => {
    const { stream, written } = terminal(false);
    const progress = new Progress("training", 10, 0, stream);
    for (let i = 0; i <= 10; i++) progress.update(i);
    progress.finish();
    expect(written()).toBe("");
  });

  it("draws one line that fits the terminal, and takes it away", () => {
    const { stream, written } = terminal(true);
    const progress = new Progress("training target", 10, 0, stream);
    progress.update(5, "loss 1.234 ".repeat(20));
    progress.update(6, "too soon to draw again");
    expect(written()).toContain("training target  50 %  loss 1.234");
    expect(written()).not.toContain("too soon");
    expect(written()).not.toContain("\n");
    const clear = "\r\x1b[2K";
    for (const line of written().split(clear)) expect(line.length).toBeLessThan(60);
    progress.finish();
    expect(written().endsWith(clear)).toBe(true);
  });

  it("reckons the time left by what this run did, not by what an earlier one left", () => {
    const { stream, written } = terminal(true);
    const progress = new Progress("resumed", 1000, 999, stream);
    progress.update(999);
    expect(written()).toContain("? left");
    progress.update(1000);
    expect(written()).toContain("0 s left");
  });
});

describe("duration", () => {
  it("rounds to what a person reads at a glance", () => {
    expect([0, 41.4, 59.6, 200, 3599, 3900, -5].map(duration)).toEqual([
      "0 s",
      "41 s",
      "1 min 0 s",
      "3 min 20 s",
      "59 min 59 s",
      "1 h 5 min",
      "0 s",
    ]);
  });
});
