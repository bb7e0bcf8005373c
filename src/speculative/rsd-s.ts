/**
 * RSD-S: recursive speculative decoding with stochastic beam search, whole sequences drawn without replacement.
 * Jeon et al., arXiv 2402.14160; stochastic beam search: Kool et al., arXiv 1903.06059.
 *
 * A constant branching factor gives an unlikely node as many children as a likely one. Here each level has W nodes, and
 * they compete: perturb the log-probability of every sequence with Gumbel noise and keep the W largest, which draws W
 * sequences without replacement. It can be done level by level, because the largest of a node's descendants is the
 * node's own perturbed value: so the children's values are drawn, and then conditioned on having that maximum.
 *
 *     phi_y = phi + ln q(y)                    log-probability of the sequence that ends in y; phi = G = 0 at the root
 *     g_y   = phi_y + Gumbel(0, 1),   Z = max_y g_y
 *     G_y   = -ln(exp(-G) - exp(-Z) + exp(-g_y))                      so that max_y G_y = G, and their order is that of g_y
 *     keep the W largest G_y of all children of the level; siblings in descending order
 *
 * Siblings so ordered are drawn without replacement, each with the law q without the earlier ones, as in RSD-C. Keeping
 * only some is no harm: how large the k-th perturbed value is says nothing about which token it belongs to.
 *
 * **Deviations**: none in the method. At temperature 0, which the paper leaves to the limit, the noise is nothing beside
 * the log-probabilities: G = phi, plain beam search, its guesses chosen without chance.
 *
 * **Unlike** RSD-C, a node may have any number of children, 0 to W, and a draft has W nodes per level, however deep.
 *
 * Worked example: G = 0, q = [.6, .3, .1], noise [.2, 1.1, -.3]: g = [-.3108, -.1040, -2.6026], G_y = [-.2271, 0, -2.5944].
 */
import { ArgumentError } from "../errors.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Random } from "../tensor/random.ts";
import { largest } from "./branching-drafter.ts";
import type { GrowingTree, ModelDrafterOptions } from "./model-drafter.ts";
import { ModelDrafter } from "./model-drafter.ts";
import { lawWithout } from "./without-replacement.ts";

export interface RsdSOptions extends ModelDrafterOptions {
  /** W: nodes per level, an integer >= 1. 1 is a chain. Default 3. */
  readonly beamWidth?: number;
  /** L: levels below the root, hence draft passes per step, an integer >= 0. Default 4. */
  readonly depth?: number;
}

/** A drafter that draws `beamWidth` sequences of `depth` tokens without replacement. */
export class RsdSDrafter extends ModelDrafter {
  readonly beamWidth: number;
  readonly depth: number;

  /** @throws ArgumentError on a beam width below 1, a depth below 0, or sampling options out of range */
  constructor(model: LanguageModel, options: RsdSOptions = {}) {
    const { beamWidth = 3, depth = 4 } = options;
    if (!(Number.isSafeInteger(beamWidth) && beamWidth >= 1)) {
      throw new ArgumentError("beamWidth", "an integer >= 1", beamWidth);
    }
    if (!(Number.isSafeInteger(depth) && depth >= 0)) throw new ArgumentError("depth", "an integer >= 0", depth);
    super(model, options);
    this.beamWidth = beamWidth;
    this.depth = depth;
  }

  protected override grow(tree: GrowingTree): void {
    const greedy = tree.sampling.temperature === 0;
    let beam = [{ node: 0, logProbability: 0, perturbed: 0 }];
    const depth = Math.min(this.depth, tree.maxDepth);
    for (let level = 0; level < depth && tree.room > 0; level++) {
      const width = Math.min(this.beamWidth, tree.room);
      const laws = tree.laws(
        beam.map(({ node }) => node),
        greedy ? { temperature: 1 } : tree.sampling,
      );
      const candidates = beam.flatMap((parent, place) => {
        const law = laws[place]!;
        if (law === null) return [];
        const phi = law.map((probability) => parent.logProbability + Math.log(probability));
        const perturbed = greedy ? phi : conditionalGumbels(phi, parent.perturbed, tree.random);
        return largest(perturbed, width).map((token) => ({
          place,
          token,
          logProbability: phi[token]!,
          perturbed: perturbed[token]!,
        }));
      });
      candidates.sort((a, b) => b.perturbed - a.perturbed);
      beam = candidates.slice(0, width).map(({ place, token, logProbability, perturbed }) => {
        const law = laws[place]!;
        const node = tree.add(beam[place]!.node, token, greedy ? null : law);
        // What the next sibling is drawn from.
        laws[place] = lawWithout(law!, token);
        return { node, logProbability, perturbed };
      });
    }
  }
}

/**
 * Gumbel numbers with the given locations, conditioned on their largest being `maximum`. One draw per finite location.
 * @param locations log-probabilities; -Infinity for what cannot be, [n]
 * @returns -ln(exp(-maximum) - exp(-Z) + exp(-g)), computed without overflow; `maximum` itself at the largest, [n]
 */
export function conditionalGumbels(locations: Float64Array, maximum: number, random: Random): Float64Array {
  const gumbels = locations.map((location) =>
    location > Number.NEGATIVE_INFINITY ? location + random.gumbel() : location,
  );
  const largestGumbel = gumbels.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return gumbels.map((gumbel) => {
    if (gumbel === Number.NEGATIVE_INFINITY) return gumbel;
    // -Infinity for the largest, which leaves `maximum`.
    const v = maximum - gumbel + Math.log1p(-Math.exp(gumbel - largestGumbel));
    return maximum - Math.max(v, 0) - Math.log1p(Math.exp(-Math.abs(v)));
  });
}
