/**
 * `tokenthrift train` as a process: it stops at Ctrl-C, saves, and goes on where it was. Each run learns a vocabulary
 * first, which takes a while: in the full suite only (TOKENTHRIFT_FULL=1).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readCheckpoint } from "../../src/model/checkpoint.ts";

const root = join(import.meta.dirname, "../..");

describe.skipIf(!process.env["TOKENTHRIFT_FULL"] || process.platform === "win32")("train", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "tokenthrift-train-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  function train(...words: string[]) {
    const out = ["--model", "draft", "--steps", "6", "--out", join(folder, "out"), "--state", join(folder, "state")];
    const child = spawn(process.execPath, ["--import", "tsx", "src/cli.ts", "train", ...out, ...words], { cwd: root });
    const said = { stdout: "", stderr: "" };
    child.stdout.on("data", (chunk) => {
      said.stdout += chunk;
    });
    child.stderr.on("data", (chunk) => {
      said.stderr += chunk;
    });
    return { child, said };
  }

  /** Until the process has said so on standard error, or has ended. */
  async function until(child: ChildProcess, heard: () => boolean): Promise<void> {
    while (!heard() && child.exitCode === null) await Promise.race([once(child.stderr!, "data"), once(child, "exit")]);
  }

  it("stops at Ctrl-C with its state saved, exit code 130, and goes on from there", { timeout: 300_000 }, async () => {
    const stopped = train();
    await until(stopped.child, () => stopped.said.stderr.includes("tokens to learn from"));
    stopped.child.kill("SIGINT");
    const [code] = stopped.child.exitCode === null ? await once(stopped.child, "exit") : [stopped.child.exitCode];
    expect(code).toBe(130);
    expect(stopped.said.stdout).toMatch(/^draft: stopped at step \d, saved in .*\. Run the same command to go on\.\n$/);
    expect(await readdir(join(folder, "out"))).toEqual([]);
    expect(await readdir(join(folder, "state"))).toHaveLength(1);

    const resumed = train();
    const [resumedCode] = await once(resumed.child, "exit");
    expect(resumedCode).toBe(0);
    expect(resumed.said.stderr).toMatch(/resumed at step \d/);
    expect(resumed.said.stdout).toMatch(/^draft: 6 steps, \d+ tokens\/s, written to /);
    const { config } = await readCheckpoint(join(folder, "out"));
    expect(config.vocabularySize).toBe(1024);
  });
});
