// Compiles src/kernels/assembly to WebAssembly, four times: plain or relaxed SIMD, memory of its own or shared between
// threads. The bytes become one module of text (src/kernels/compiled.ts), so that Node, browsers and bundlers load them
// alike. Does nothing when the sources are the ones it compiled last.
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "src", "kernels", "assembly");
const target = join(root, "src", "kernels", "compiled.ts");

const flags = ["--runtime", "stub", "--importMemory", "--noAssert", "-O3", "--converge", "--memoryBase", "1024"];
const variants = {
  simd: ["--enable", "simd"],
  relaxed: ["--enable", "simd,relaxed-simd"],
  simdShared: ["--enable", "simd,threads", "--sharedMemory", "--maximumMemory", "65536"],
  relaxedShared: ["--enable", "simd,relaxed-simd,threads", "--sharedMemory", "--maximumMemory", "65536"],
};

const sources = readdirSync(folder)
  .filter((name) => name.endsWith(".ts"))
  .sort();
const compiler = JSON.parse(readFileSync(join(root, "node_modules", "assemblyscript", "package.json"), "utf8")).version;
const hash = createHash("sha256").update(`${compiler}\n${JSON.stringify({ flags, variants })}\n`);
for (const name of sources)
  hash.update(`${name}\n${readFileSync(join(folder, name), "utf8").replaceAll("\r\n", "\n")}`);
const stamp = `// Made by scripts/build-kernels.mjs from sources ${hash.digest("hex").slice(0, 16)}. Do not edit.`;

if (firstLine(target) !== stamp) {
  const asc = await import("assemblyscript/asc");
  const work = mkdtempSync(join(tmpdir(), "tokenthrift-kernels-"));
  try {
    const lines = [stamp, "export const compiled = {"];
    for (const [name, options] of Object.entries(variants)) {
      const out = join(work, `${name}.wasm`);
      const { error, stderr } = await asc.main([join(folder, "index.ts"), "-o", out, ...flags, ...options]);
      const messages = stderr.toString();
      if (error || messages !== "") throw new Error(`the kernels do not compile (${name}):\n${messages || error}`);
      lines.push(`  ${name}:\n    "${readFileSync(out).toString("base64")}",`);
    }
    lines.push("} as const;\n");
    const partial = `${target}.${process.pid}.partial`;
    writeFileSync(partial, lines.join("\n"));
    renameSync(partial, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function firstLine(path) {
  try {
    return readFileSync(path, "utf8").split("\n", 1)[0];
  } catch {
    return undefined;
  }
}
