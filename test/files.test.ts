import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FileError } from "../src/errors.ts";
import { fileExists, OpenFile, readFileBytes, writeFileAtomic } from "../src/files.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tokenthrift files ü "));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("writeFileAtomic", () => {
  it("writes bytes and text, creates folders, replaces, leaves nothing beside", async () => {
    const path = join(folder, "a", "b c", "file.bin");
    await writeFileAtomic(path, new Uint8Array([1, 2, 255]));
    expect(await readFileBytes(path)).toEqual(new Uint8Array([1, 2, 255]));
    await writeFileAtomic(path, "Grüße\n");
    expect(await readFile(path, "utf8")).toBe("Grüße\n");
    await writeFileAtomic(path, new Uint8Array([9, 8, 7, 6]).subarray(1, 3)); // a view, not its whole buffer
    expect(await readFileBytes(path)).toEqual(new Uint8Array([8, 7]));
    expect(await readdir(join(folder, "a", "b c"))).toEqual(["file.bin"]);
  });

  it("many writers of one file: one of their contents, whole", async () => {
    const path = join(folder, "many");
    const contents = Array.from({ length: 20 }, (_, i) => String(i).repeat(50_000));
    await Promise.all(contents.map((content) => writeFileAtomic(path, content)));
    expect(contents).toContain(await readFile(path, "utf8"));
    expect((await readdir(folder)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it("a reader during a rewrite sees the old file or the new one", async () => {
    const path = join(folder, "seen");
    const old = "o".repeat(300_000);
    const fresh = "n".repeat(200_000);
    await writeFileAtomic(path, old);
    const writing = writeFileAtomic(path, fresh);
    let done = false;
    void writing.finally(() => {
      done = true;
    });
    do expect([old, fresh]).toContain(await readFile(path, "utf8"));
    while (!done);
    await writing;
    expect(await readFile(path, "utf8")).toBe(fresh);
  });

  it("a folder in the way: an error with advice, the folder and its content stay, nothing beside", async () => {
    const path = join(folder, "taken");
    await mkdir(path);
    await writeFile(join(path, "inside"), "kept");
    const error = await writeFileAtomic(path, "x").then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(FileError);
    expect((error as FileError).path).toBe(path);
    expect(await readFile(join(path, "inside"), "utf8")).toBe("kept");
    expect((await readdir(folder)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  it("a file where a folder should be", async () => {
    const file = join(folder, "plain");
    await writeFile(file, "kept");
    await expect(writeFileAtomic(join(file, "below"), "x")).rejects.toThrow(/cannot be written.*not a folder/);
    await expect(writeFileAtomic(join(file, "far", "below"), "x")).rejects.toThrow(FileError);
    expect(await readFile(file, "utf8")).toBe("kept");
  });

  // Linux's /proc says of a new folder's existing parent that it does not exist; Node's recursive mkdir never returns.
  it.skipIf(!existsSync("/proc/self"))("a file system that takes no folders: an error, and soon", async () => {
    await expect(writeFileAtomic("/proc/no/such/file", "x")).rejects.toThrow(/cannot be written/);
  });

  it("an impossible path", async () => {
    await expect(writeFileAtomic(join(folder, "a\0b"), "x")).rejects.toThrow(FileError);
    await expect(writeFileAtomic(join(folder, "n".repeat(5000)), "x")).rejects.toThrow(FileError);
  });
});

describe("readFileBytes", () => {
  it("missing file, or a folder", async () => {
    await expect(readFileBytes(join(folder, "none"))).rejects.toThrow(/cannot be read: no such file.*Check the path/);
    await expect(readFileBytes(folder)).rejects.toThrow(FileError);
  });
});

describe("OpenFile", () => {
  it("reads by position, in any order, several reads at a time", async () => {
    const path = join(folder, "opened");
    await writeFile(
      path,
      Uint8Array.from({ length: 1000 }, (_, i) => i % 251),
    );
    const file = await OpenFile.open(path);
    expect(file.size).toBe(1000);
    const [late, early, none] = await Promise.all([file.read(990, 10), file.read(0, 3), file.read(1000, 0)]);
    expect([...late]).toEqual(Array.from({ length: 10 }, (_, i) => (990 + i) % 251));
    expect([...early]).toEqual([0, 1, 2]);
    expect(none.length).toBe(0);
    await expect(file.read(995, 6)).rejects.toThrow(/opened: cannot be read: it ends at byte 1000, before byte 1001/);
    await file.close();
    await expect(file.read(0, 1)).rejects.toBeInstanceOf(FileError);
  });

  it("opens files only", async () => {
    await expect(OpenFile.open(folder)).rejects.toThrow(/cannot be read: it is not a file/);
    await expect(OpenFile.open(join(folder, "nothing here"))).rejects.toThrow(/no such file/);
    expect(await fileExists(join(folder, "nothing here"))).toBe(false);
    expect(await fileExists(folder)).toBe(true);
  });
});
