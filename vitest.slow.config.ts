import { defineConfig } from "vitest/config";
import { sharedTestOptions } from "./test/vitest-options.ts";

/** The suite of `npm run test:slow`: whole campaigns, fault injection, builds from source; minutes each. An empty folder passes. */
export default defineConfig({
  test: {
    ...sharedTestOptions,
    include: ["test/slow/**/*.test.ts"],
    exclude: ["**/node_modules/**"],
    passWithNoTests: true,
    maxWorkers: 1,
    testTimeout: 15 * 60_000,
    hookTimeout: 10 * 60_000,
  },
});
