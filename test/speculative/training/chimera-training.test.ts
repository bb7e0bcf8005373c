import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { openKernels } from "../../../src/kernels/kernels.ts";
import { ChimeraHeads, trigramAt } from "../../../src/speculative/chimera-heads.ts";
import { ChimeraDefinition } from "../../../src/speculative/training/chimera-training.ts";
import { useBackend } from "../../../src/tensor/backend.ts";
import { aliveTensors, read, tensor, tidy } from "../../../src/tensor/ops.ts";
import { Random } from "../../../src/tensor/random.ts";
import type { Tensor } from "../../../src/tensor/tf.ts";
import { chimeraWeights, tinyConfig, tinyTarget } from "../tiny-target.ts";

const heads = 3;
const batch = 2;
const length = 9;
const target = tinyTarget();
const { width, vocabularySize, normEpsilon } = tinyConfig;
const weights = chimeraWeights(target, heads);
const random = new Random("states");
const ids = Int32Array.from({ length: batch * length }, () => random.integer(vocabularySize));
/** The last layer's output, before the final norm, [batch * length, width]. */
const raw = Float32Array.from({ length: batch * length * width }, () => 2 * random.normal());
const hidden = Float32Array.from(raw);
for (let r = 0; r < batch * length; r++) {
  const states = hidden.subarray(r * width, (r + 1) * width);
  const size = Math.sqrt(states.reduce((sum, x) => sum + x * x, 0) / width + normEpsilon);
  states.forEach((x, i) => {
    states[i] = (x / size) * target.norm[i]!;
  });
}

const parametersOf = (): Record<string, Tensor> =>
  Object.fromEntries([...weights].map(([name, { shape, data }]) => [name, tensor(data, shape)]));

describe("Chimera's definition", () => {
  beforeAll(async () => {
    await useBackend("wasm");
  });
  afterEach(() => expect(aliveTensors()).toBe(0));

  function defined() {
    const definition = new ChimeraDefinition(target, heads, batch, length);
    const result = { states: [] as Float32Array[], logits: [] as Float32Array[], anchors: definition.anchors };
    tidy(() => {
      const { states, logits } = definition.run(parametersOf(), { ids, hidden });
      result.states.push(...states.map(read));
      result.logits.push(...logits.map(read));
      return undefined;
    });
    definition.close();
    return result;
  }

  it.each(["simd", "plain"] as const)("is what the running encoders compute, draft by draft: %s", async (kernels) => {
    const running = new ChimeraHeads(target, weights, await openKernels({ kernels }));
    const { states, logits, anchors } = defined();
    let worst = 0;
    const differ = (got: Float32Array, expected: Float32Array) => {
      expect(got.length).toBe(expected.length);
      got.forEach((value, i) => {
        worst = Math.max(worst, Math.abs(value - expected[i]!));
      });
    };
    for (let s = 0; s < batch; s++) {
      const text = Array.from(ids.subarray(s * length, (s + 1) * length));
      const context = running.open(length + heads);
      for (let anchor = 0; anchor < anchors; anchor++) {
        // Pending: text[anchor + 1]. The draft is the text itself, in nodes 0, 1, 2.
        context.commit({ data: raw, rows: batch * length, columns: width }, [s * length + anchor]);
        for (let depth = 0; depth < heads; depth++) {
          const trigram = trigramAt(text.slice(Math.max(0, anchor + depth - 1), anchor + depth + 2));
          const ancestors = Array.from({ length: depth }, (_, i) => i);
          context.encode([{ node: depth, depth, trigram, ancestors, kept: true }], depth);
          const r = s * anchors + anchor;
          const of = (rows: Float32Array, columns: number) => rows.subarray(r * columns, (r + 1) * columns);
          differ(context.state(0), of(states[depth]!, width));
          differ(context.logits(0), of(logits[depth]!, vocabularySize));
        }
      }
      context.close();
    }
    expect(worst).toBeLessThan(1e-4);
  });
});
