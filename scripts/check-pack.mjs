// Installs the packed package as a user would get it into an empty folder, and loads every entry point by name.
// Needs `npm run build` first. Dependencies are linked from this checkout, so nothing is fetched.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const npm = process.platform === "win32" ? "npm.cmd" : "npm";
const listing = execFileSync(npm, ["pack", "--dry-run", "--json", "--ignore-scripts"], {
  cwd: root,
  encoding: "utf8",
  stdio: ["ignore", "pipe", "ignore"],
  shell: process.platform === "win32",
});
const [packed] = JSON.parse(listing);
const folder = mkdtempSync(join(tmpdir(), "tokenthrift-pack-"));
try {
  const modules = join(folder, "node_modules");
  for (const { path } of packed.files) cpSync(join(root, path), join(modules, "tokenthrift", path));
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const name of Object.keys(manifest.dependencies)) {
    if (name.startsWith("@")) mkdirSync(join(modules, name.split("/")[0]), { recursive: true });
    symlinkSync(join(root, "node_modules", name), join(modules, name), "junction");
  }
  const entries = Object.keys(manifest.exports).filter((entry) => entry !== "./package.json");
  const script = entries
    .map((entry) => {
      const name = `tokenthrift${entry.slice(1)}`;
      return `console.log("${name}", Object.keys(await import("${name}")).length, "exports");`;
    })
    .join("\n");
  writeFileSync(join(folder, "load.mjs"), script);
  execFileSync(process.execPath, ["load.mjs"], { cwd: folder, stdio: "inherit" });
  const bin = join(modules, "tokenthrift", manifest.bin.tokenthrift);
  execFileSync(process.execPath, [bin, "list"], { cwd: folder, stdio: "inherit" });
  console.log(`${packed.files.length} files, ${(packed.unpackedSize / 2 ** 20).toFixed(1)} MiB unpacked`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
