/** The trained hypernetwork from its folder: with the package comes the one of the embedded target. */
import { ArgumentError, FormatError } from "../errors.ts";
import { type KernelOptions, openKernels } from "../kernels/kernels.ts";
import type { HeadTarget } from "../speculative/head-layers.ts";
import { type LoadPartOptions, readHeadTarget, readPart } from "../speculative/trained-parts.ts";
import { Hypernetwork, type HypernetworkConfig } from "./hypernetwork.ts";
import { targetTables } from "./tokenizer-transfer.ts";

export interface LoadHypernetworkOptions extends LoadPartOptions, KernelOptions {
  /** Checkpoint of the model it was trained for. Default: the embedded target. */
  readonly target?: string;
}

export interface LoadedHypernetwork {
  readonly hypernetwork: Hypernetwork;
  /** Embeddings and final norm of its model, for `retokenized` and for other predictors (`targetTables`). */
  readonly target: HeadTarget;
  /** What `training.json` says; absent when there is none. */
  readonly training?: unknown;
}

/**
 * Load a hypernetwork and the embeddings it reads.
 * @throws FileError, FormatError when a file is missing or damaged; ArgumentError when network and target do not fit
 */
export async function loadHypernetwork(options: LoadHypernetworkOptions = {}): Promise<LoadedHypernetwork> {
  const { embeddedFolder } = await import("../model/embedded.ts");
  const { path, kind: _, weights, details, ...training } = await readPart("hypernetwork", options);
  const { config } = (details ?? {}) as { readonly config?: object };
  if (config === undefined) throw new FormatError(path, "its metadata has no config");
  const target = await readHeadTarget(options.target ?? embeddedFolder("target"));
  const space = await openKernels(options);
  try {
    const hypernetwork = new Hypernetwork(targetTables(target), config as HypernetworkConfig, weights, space);
    return { hypernetwork, target, ...training };
  } catch (error) {
    // Tables are the target's to answer for, all else the file's.
    if (!(error instanceof ArgumentError) || error.argument.startsWith("tables")) throw error;
    throw new FormatError(path, `its metadata is damaged: ${error.message}`);
  }
}
