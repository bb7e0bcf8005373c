/** The joint law of the first two tokens in one call, judged by its 99.9 % point: what most tests of drafters ask. */
import type { TableModel } from "../../src/model/table-model.ts";
import type { JointLawFit, JointLawOptions } from "../../src/speculative/index.ts";
import { chiSquarePoint, JointLaw } from "../../src/speculative/index.ts";

/** Draws the first two tokens after `prompt` from `draws` generations of up to four tokens. */
export function fitOfFirstTwoTokens(
  target: TableModel,
  prompt: readonly number[],
  draws: number,
  options: JointLawOptions,
): JointLawFit & { /** What a correct sampler exceeds once in a thousand. */ readonly limit: number } {
  const law = new JointLaw(target, prompt, options);
  law.draw(draws);
  const { fit } = law;
  return { ...fit, limit: chiSquarePoint(0.001, Math.max(1, fit.degrees)) };
}
