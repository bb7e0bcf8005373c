import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Two forks: the suite is sized for a two-core machine.
    pool: "forks",
    maxWorkers: 2,
  },
});
