/** What a command accepts, reading it from the words typed, and the help that describes it. */
import { parseArgs } from "node:util";
import { nearest } from "./nearest.ts";
import type { Io } from "./output.ts";

/** The command line itself is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export interface Option {
  /** Without the two hyphens. */
  readonly name: string;
  /** What stands for its value in the help; absent for an option that has none. */
  readonly value?: string;
  readonly help: string;
}

export interface Command {
  readonly name: string;
  /** One line, for the list of commands. */
  readonly summary: string;
  /** Its one argument, if it takes one. */
  readonly argument?: { readonly name: string; readonly optional: boolean };
  readonly options: readonly Option[];
  /** Complete commands that work as they stand. */
  readonly examples: readonly string[];
  /** @returns the exit code */
  readonly run: (input: Input, io: Io) => Promise<number>;
}

/** The words typed after a command's name, sorted. */
export class Input {
  readonly argument: string | undefined;
  readonly #values: ReadonlyMap<string, string | true>;

  constructor(argument: string | undefined, values: ReadonlyMap<string, string | true>) {
    this.argument = argument;
    this.#values = values;
  }

  /** Whether the option was given. */
  has(option: string): boolean {
    return this.#values.has(option);
  }

  /** Its value; the last one counts. */
  text(option: string): string | undefined {
    const value = this.#values.get(option);
    return value === true ? undefined : value;
  }

  /** @throws UsageError when it is not written as a number; the range is the library's to check */
  number(option: string): number | undefined {
    const text = this.text(option);
    if (text === undefined) return undefined;
    if (!/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text)) {
      throw new UsageError(`--${option}: expected a number, got ${JSON.stringify(text)}.`);
    }
    return Number(text);
  }

  /** @throws UsageError when it is not written as an integer */
  integer(option: string): number | undefined {
    const value = this.number(option);
    if (value !== undefined && !Number.isSafeInteger(value)) {
      throw new UsageError(`--${option}: expected an integer, got ${JSON.stringify(this.text(option))}.`);
    }
    return value;
  }
}

const helpOption: Option = { name: "help", help: "show this help" };

/**
 * Sorts the words after a command's name.
 * @returns `"help"` where `--help` or `-h` is among them
 * @throws UsageError on an unknown option (naming the nearest), a missing or superfluous value or argument
 */
export function parseInput(command: Command, words: readonly string[]): Input | "help" {
  const known = [...command.options, helpOption];
  const { tokens } = parseArgs({
    args: [...words],
    // Our own checks: parseArgs would refuse `--temperature -1` and cannot suggest.
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      known.map(({ name, value }) => [
        name,
        { type: value === undefined ? ("boolean" as const) : ("string" as const) },
      ]),
    ),
  });
  if (tokens.some((token) => token.kind === "option" && (token.name === "help" || token.rawName === "-h")))
    return "help";

  const values = new Map<string, string | true>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const option = known.find(({ name }) => name === token.name);
    if (option === undefined)
      throw unknown(
        "option",
        token.rawName,
        known.map(({ name }) => `--${name}`),
        command,
      );
    if (option.value === undefined) {
      if (token.value !== undefined) throw new UsageError(`--${option.name} takes no value, got "${token.value}".`);
      values.set(option.name, true);
    } else {
      // `--model --json`: the next option is not meant as this one's value.
      const swallowed = token.value?.startsWith("--") && !token.inlineValue;
      if (token.value === undefined || swallowed) {
        throw new UsageError(`--${option.name} needs a value: --${option.name} ${option.value}`);
      }
      values.set(option.name, token.value);
    }
  }

  const { argument } = command;
  const extra = positionals[argument === undefined ? 0 : 1];
  if (extra !== undefined) {
    throw new UsageError(`${command.name}: unexpected argument "${extra}". ${seeHelp(command)}`);
  }
  if (argument !== undefined && !argument.optional && positionals.length === 0) {
    throw new UsageError(`${command.name}: which ${argument.name}? ${seeHelp(command)}`);
  }
  return new Input(positionals[0], values);
}

/** "unknown technique ...", with the nearest of `candidates` where one is near. */
export function unknown(kind: string, got: string, candidates: readonly string[], command?: Command): UsageError {
  const near = nearest(got, candidates);
  const suggestion = near === undefined ? "" : ` Did you mean "${near}"?`;
  const where = kind === "technique" ? "See: tokenthrift list" : seeHelp(command);
  return new UsageError(`unknown ${kind} "${got}".${suggestion} ${where}`);
}

function seeHelp(command: Command | undefined): string {
  return command === undefined ? "See: tokenthrift --help" : `See: tokenthrift help ${command.name}`;
}

/** Help for one command. */
export function commandHelp(command: Command): string {
  const { name, summary, argument, options, examples } = command;
  const operand = argument === undefined ? "" : argument.optional ? ` [${argument.name}]` : ` <${argument.name}>`;
  const written = [...options, helpOption].map((option) => [spelling(option), option.help] as const);
  const width = Math.max(...written.map(([text]) => text.length));
  return [
    `${name}: ${summary}`,
    "",
    `Usage: tokenthrift ${name}${operand}${options.length > 0 ? " [options]" : ""}`,
    "",
    "Options:",
    ...written.map(([text, help]) => `  ${text.padEnd(width)}  ${help}`),
    "",
    examples.length === 1 ? "Example:" : "Examples:",
    ...examples.map((example) => `  ${example}`),
    "",
  ].join("\n");
}

/** Help for all of them. */
export function overallHelp(commands: readonly Command[], synopsis: string): string {
  const written = commands.map(({ name, argument, summary }) => [
    argument === undefined ? name : `${name} ${argument.optional ? `[${argument.name}]` : `<${argument.name}>`}`,
    summary,
  ]);
  const width = Math.max(...written.map(([text]) => text!.length));
  return [
    synopsis,
    "",
    "Usage: tokenthrift <command> [options]",
    "",
    "Commands:",
    ...written.map(([text, summary]) => `  ${text!.padEnd(width)}  ${summary}`),
    "",
    "  tokenthrift help <command>, or <command> --help, describes one; tokenthrift --version prints the version.",
    "",
    "Examples:",
    ...commands.map(({ examples }) => `  ${examples[0]}`),
    "",
  ].join("\n");
}

function spelling({ name, value }: Option): string {
  return `--${name}${value === undefined ? "" : ` ${value}`}`;
}

/** The named ones of `known`, or all. @throws UsageError naming the first that is none of them */
export function chosen<Name extends string>(
  text: string | undefined,
  known: readonly Name[],
  kind: string,
  command: Command,
): readonly Name[] {
  if (text === undefined) return known;
  return text.split(",").map((word) => {
    const name = known.find((candidate) => candidate === word.trim());
    if (name === undefined) throw unknown(kind, word.trim(), known, command);
    return name;
  });
}

/** Numbers with commas between them. @throws UsageError */
export function numbers(input: Input, option: string): number[] | undefined {
  return input
    .text(option)
    ?.split(",")
    .map((word) => {
      const value = Number(word);
      if (word.trim() === "" || !Number.isFinite(value)) {
        throw new UsageError(`--${option}: expected numbers with commas between them, got "${word}".`);
      }
      return value;
    });
}
