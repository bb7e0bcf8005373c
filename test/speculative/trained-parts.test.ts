import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FileError, FormatError } from "../../src/errors.ts";
import { heldOutPrompts } from "../../src/held-out-prompts.ts";
import { type LoadedModel, loadEmbedded } from "../../src/model/load.ts";
import type { Drafter } from "../../src/speculative/index.ts";
import {
  ChimeraDrafter,
  generateAll,
  loadChimeraHeads,
  loadMedusaHeads,
  MedusaDrafter,
  sparseTree,
} from "../../src/speculative/index.ts";
import {
  embeddedPartFolder,
  parsePart,
  partFiles,
  partKinds,
  readHeadTarget,
  serializePart,
} from "../../src/speculative/trained-parts.ts";
import { readSafetensors, writeSafetensors } from "../../src/tensor/safetensors.ts";
import { medusaWeights, tinyTarget } from "./tiny-target.ts";

describe("a part in a file", () => {
  const weights = medusaWeights(tinyTarget(), 2);
  const details = { accuracies: [[0.5, 0.25], [0.125]] };
  const bytes = serializePart({ kind: "medusa", weights, details });

  it("comes back as it was, each row within half a step of 255", () => {
    const read = parsePart(bytes, "file");
    expect(read).toMatchObject({ kind: "medusa", details });
    expect([...read.weights.keys()].sort()).toEqual([...weights.keys()].sort());
    for (const [name, { shape, data }] of weights) {
      const got = read.weights.get(name)!;
      expect(got.shape).toEqual(shape);
      const columns = shape.length === 1 ? 1 : data.length / shape[0]!;
      data.forEach((value, i) => {
        const start = i - (i % columns);
        const largest = data.subarray(start, start + columns).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        const bound = shape.length === 1 ? 0 : (largest / 127) * 0.5001;
        expect(Math.abs(got.data[i]! - value)).toBeLessThanOrEqual(bound);
      });
    }
  });

  it("is refused where the metadata does not say what it is", () => {
    const { tensors, metadata } = readSafetensors(bytes);
    for (const [changes, problem] of [
      [{ part: "hydra" }, /"part"/],
      [{ details: "{" }, /"details"/],
    ] as const) {
      const damaged = writeSafetensors(tensors, { ...metadata, ...changes });
      expect(() => parsePart(damaged, "part.safetensors")).toThrow(FormatError);
      expect(() => parsePart(damaged, "part.safetensors")).toThrow(problem);
    }
    expect(() => parsePart(writeSafetensors(tensors), "file")).toThrow(FormatError);
  });

  it("of heads is refused where its accuracies are none", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tokenthrift-heads-"));
    try {
      for (const accuracies of [undefined, [[0.5], 2], [[1.5]], [["0.5"]]]) {
        const damaged = serializePart({ kind: "medusa", weights, details: { accuracies } });
        await writeFile(join(folder, partFiles.weights), damaged);
        await expect(loadMedusaHeads({ folder })).rejects.toThrow(/accuracies/);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("are loaded from any folder, and refused where they are missing or of another kind", async () => {
    const folder = await mkdtemp(join(tmpdir(), "tokenthrift-heads-"));
    try {
      await expect(loadMedusaHeads({ folder })).rejects.toThrow(FileError);
      await writeFile(
        join(folder, partFiles.weights),
        await readFile(join(await embeddedPartFolder("chimera"), partFiles.weights)),
      );
      expect((await loadChimeraHeads({ folder })).training).toBeUndefined();
      await expect(loadMedusaHeads({ folder })).rejects.toThrow(/chimera, not medusa/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

const headKinds = ["medusa", "chimera"] as const;

describe("the parts that come with the package", () => {
  it("take less than 3 MB in all", async () => {
    let bytes = 0;
    // The hypernetwork has a limit of its own, test/retokenization/load-hypernetwork.test.ts.
    for (const kind of partKinds.filter((kind) => kind !== "hypernetwork")) {
      const folder = await embeddedPartFolder(kind);
      for (const name of Object.values(partFiles)) bytes += (await stat(join(folder, name))).size;
    }
    expect(bytes).toBeLessThan(3e6);
  });
});

describe("the heads that come with the package", () => {
  let target: LoadedModel;
  let drafters: Record<string, (budget: number) => Drafter>;
  beforeAll(async () => {
    target = await loadEmbedded("target");
    const [medusa, chimera] = [await loadMedusaHeads(), await loadChimeraHeads()];
    drafters = {
      Medusa: (budget) => new MedusaDrafter(medusa.heads, { ...medusa, budget }),
      Chimera: (budget) => new ChimeraDrafter(chimera.heads, { ...chimera, budget }),
    };
  });
  afterAll(() => target.model.close());

  it("say how they were trained", async () => {
    for (const kind of headKinds) {
      const folder = await embeddedPartFolder(kind);
      const record = JSON.parse(await readFile(join(folder, partFiles.training), "utf8"));
      expect(record.command).toBe(`tokenthrift train --model ${kind}`);
      expect(record.curve.at(-1).step).toBe(record.options.steps);
      expect(record.curve.at(-1).validationLoss).toBeLessThan(record.curve[0].validationLoss);
      // The tree is made from files no prompt was cut from, and does on the others what it promises.
      const { ofTree, heldOut } = record.accuracies;
      expect(ofTree.files.filter((file: string) => heldOut.files.includes(file))).toEqual([]);
      expect(heldPrompts(heldOut.files)).toBe(heldOutPrompts.length);
      const promised = sparseTree(ofTree.byDepth, 16).tokensPerPass;
      expect(Math.abs(sparseTree(heldOut.byDepth, 16).tokensPerPass - promised)).toBeLessThan(0.5);
    }
  });
  const heldPrompts = (files: readonly string[]) =>
    heldOutPrompts.filter(({ source }) => files.includes(source)).length;

  it("fit the embedded target", async () => {
    const { config, embeddings, outputHead } = await readHeadTarget(
      (await embeddedPartFolder("medusa")).replace(/medusa$/, "declarations-target"),
    );
    expect(config).toEqual(target.model.config);
    expect(outputHead).toBe(embeddings);
  });

  it("write the target's text in fewer passes, at every budget, on every kind of prompt", async () => {
    for (const kind of new Set(heldOutPrompts.map((prompt) => prompt.kind))) {
      const prompt = target.tokenizer.encode(heldOutPrompts.find((prompt) => prompt.kind === kind)!.text);
      const plain = await generateAll(target.model, prompt, { maxTokens: 24 });
      for (const [name, make] of Object.entries(drafters)) {
        for (const budget of [0, 1, 2, 3, 5, 8, 16, 32, 64]) {
          const report = await generateAll(target.model, prompt, { maxTokens: 24, drafter: make(budget) });
          expect(report.tokens, `${name}, ${budget}, ${kind}`).toEqual(plain.tokens);
          if (budget >= 16) expect(report.tokensPerPass).toBeGreaterThan(1.2);
        }
      }
    }
  });

  it("fill the context to its last position", async () => {
    const prompt = target.tokenizer.encode(heldOutPrompts[0]!.text);
    const plain = await generateAll(target.model, prompt);
    expect(plain.finish.kind).toBe("context");
    for (const make of Object.values(drafters)) {
      const report = await generateAll(target.model, prompt, { drafter: make(16) });
      expect(report.tokens).toEqual(plain.tokens);
    }
  });

  it("guesses of Chimera's are right more often than Medusa's, most so at depth", async () => {
    const [medusa, chimera] = await Promise.all(
      headKinds.map(async (kind) => {
        const record = await readFile(join(await embeddedPartFolder(kind), partFiles.training), "utf8");
        return JSON.parse(record).accuracies.heldOut.byDepth.map(([first]: number[]) => first) as number[];
      }),
    );
    medusa!.forEach((accuracy, depth) => {
      expect(chimera![depth]).toBeGreaterThan(accuracy);
    });
    expect(chimera!.at(-1)! / chimera![0]!).toBeGreaterThan(medusa!.at(-1)! / medusa![0]!);
  });
});
