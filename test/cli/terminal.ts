/** Runs the command line inside the test's process and catches what it prints. */
import { main } from "../../src/cli/main.ts";

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  readonly env?: Readonly<Record<string, string>>;
}

export async function run(words: readonly string[], terminal: Terminal = {}): Promise<Ran> {
  const { isTTY = false, columns = 80, env = {} } = terminal;
  let [stdout, stderr] = ["", ""];
  const code = await main(words, {
    stdout: {
      isTTY,
      columns,
      write(text) {
        stdout += text;
      },
    },
    stderr: {
      isTTY,
      columns,
      write(text) {
        stderr += text;
      },
    },
    env,
  });
  return { code, stdout, stderr };
}

/** Words of a command as a shell would split them: at spaces, double quotes hold together. */
export function split(command: string): string[] {
  return [...command.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare!);
}
