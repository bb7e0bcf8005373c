#!/usr/bin/env node
/** The program `tokenthrift`: the process around `cli/main.ts`. */
import process from "node:process";
import { main } from "./cli/main.ts";

// `tokenthrift list | head -1`: whoever closes the pipe has read enough.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});
// Nobody reads remarks and progress any more: the work goes on.
process.stderr.on("error", () => {});

// Set, not exited with: what is still being written to a pipe gets there. A bug rejects, and Node prints its stack.
process.exitCode = await main(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  onInterrupt(stop) {
    // Once: a second Ctrl-C finds no listener and ends the process at once.
    process.once("SIGINT", stop);
    process.once("SIGTERM", stop);
  },
});
