/** The command line as a function of the words typed: the whole program but the process around it. */
import { ArgumentError, TokenthriftError } from "../errors.ts";
import { benchCommand } from "./bench.ts";
import { type Command, commandHelp, overallHelp, parseInput, UsageError, unknown } from "./command-line.ts";
import { demoCommand } from "./demo.ts";
import { explainCommand } from "./explain.ts";
import { listCommand } from "./list.ts";
import type { Io } from "./output.ts";
import { runCommand } from "./run.ts";
import { trainCommand } from "./train.ts";
import { version } from "./version.ts";

export const commands: readonly Command[] = [
  listCommand,
  explainCommand,
  runCommand,
  benchCommand,
  demoCommand,
  trainCommand,
];

const synopsis = "tokenthrift: every published way to spend fewer tokens, small, exact and runnable.";

/**
 * @param words what was typed after `tokenthrift`
 * @returns exit code: 0 done; 1 something was wrong with the input, or a claim did not hold; 2 the command line itself
 *   was wrong; 130 stopped by the user
 * @throws what is not the user's doing: a bug
 */
export async function main(words: readonly string[], io: Io): Promise<number> {
  try {
    const [first, ...rest] = words;
    if (first === undefined || first === "--help" || first === "-h") return print(io, overallHelp(commands, synopsis));
    if (first === "--version" || first === "-V") return print(io, `${version()}\n`);
    if (first === "help") {
      if (rest[0] === undefined) return print(io, overallHelp(commands, synopsis));
      return print(io, commandHelp(findCommand(rest[0])));
    }
    const command = findCommand(first);
    const input = parseInput(command, rest);
    if (input === "help") return print(io, commandHelp(command));
    return await command.run(input, io);
  } catch (error) {
    const usage = error instanceof UsageError;
    if (!usage && !(error instanceof TokenthriftError)) throw error;
    io.stderr.write(`tokenthrift: ${asTyped(error).replace(/\s*\n\s*/g, " ")}\n`);
    return usage ? 2 : 1;
  }
}

function findCommand(name: string): Command {
  const command = commands.find((candidate) => candidate.name === name);
  if (command !== undefined) return command;
  const names = [...commands.map((candidate) => candidate.name), "help"];
  throw name.startsWith("-") ? unknown("option", name, ["--help", "--version"]) : unknown("command", name, names);
}

/** The message, with the library's `topP:` written as the option it came from, `--top-p:`. */
function asTyped(error: Error): string {
  if (!(error instanceof ArgumentError)) return error.message;
  const option = error.argument.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const typed = commands.some(({ options }) => options.some(({ name }) => name === option));
  return typed ? error.message.replace(error.argument, `--${option}`) : error.message;
}

function print({ stdout }: Io, text: string): number {
  stdout.write(text);
  return 0;
}
