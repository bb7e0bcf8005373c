/**
 * The errors tokenthrift throws. Every one says which argument or file was wrong, what was expected, what was got,
 * and what to do about it; `instanceof TokenthriftError` tells a bad input from a bug.
 */

/** Base class of every error the library throws on purpose. */
export class TokenthriftError extends Error {
  override readonly name: string = "TokenthriftError";
}

/** An argument is outside its documented range. `argument` names it. */
export class ArgumentError extends TokenthriftError {
  override readonly name = "ArgumentError";
  readonly argument: string;

  /**
   * @param argument name of the argument, as the caller knows it (`"temperature"`, `"options.vocabSize"`)
   * @param expected what it should be, as a noun phrase (`"a number >= 0"`)
   * @param got what it was; printed as JSON, shortened
   * @param advice what to do, a full sentence; optional
   */
  constructor(argument: string, expected: string, got: unknown, advice?: string) {
    super(`${argument}: expected ${expected}, got ${shown(got)}.${advice === undefined ? "" : ` ${advice}`}`);
    this.argument = argument;
  }
}

/** A file's or buffer's content breaks its format. `source` names the file or format. */
export class FormatError extends TokenthriftError {
  override readonly name = "FormatError";
  readonly source: string;

  constructor(source: string, problem: string, advice?: string) {
    super(`${source}: ${problem}.${advice === undefined ? "" : ` ${advice}`}`);
    this.source = source;
  }
}

/** A sequence would grow past what the model was built for. The session stays as it was before the call. */
export class ContextOverflowError extends TokenthriftError {
  override readonly name = "ContextOverflowError";
  readonly needed: number;
  readonly available: number;

  constructor(needed: number, available: number) {
    super(
      `context: the sequence would hold ${needed} tokens, the model's context holds ${available}. ` +
        "Shorten the prompt, ask for fewer new tokens, or truncate the session.",
    );
    this.needed = needed;
    this.available = available;
  }
}

/** A model or cache would not fit into memory. Nothing was allocated. */
export class MemoryError extends TokenthriftError {
  override readonly name = "MemoryError";
  /** Bytes asked for. */
  readonly needed: number;
  /** Bytes there are. */
  readonly available: number;

  constructor(needed: number, available: number) {
    super(
      `memory: ${mebibytes(needed)} are needed, ${mebibytes(available)} are available. ` +
        "Keep weights as stored (16-bit), take a smaller model, close sessions, or raise the limit.",
    );
    this.needed = needed;
    this.available = available;
  }
}

/** A tensor backend was asked for and cannot be had. */
export class BackendError extends TokenthriftError {
  override readonly name = "BackendError";
}

/** A file or folder could not be read or written. `path` names it. */
export class FileError extends TokenthriftError {
  override readonly name = "FileError";
  readonly path: string;

  constructor(path: string, problem: string, advice?: string) {
    super(`${path}: ${problem}.${advice === undefined ? "" : ` ${advice}`}`);
    this.path = path;
  }
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 2 : 0)} MiB`;
}

function shown(value: unknown): string {
  if (typeof value === "number" || typeof value === "bigint" || value === undefined) return String(value);
  let text: string;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    text = String(value);
  }
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
