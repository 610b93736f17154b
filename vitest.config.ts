import { defineConfig } from "vitest/config";
import { sharedTestOptions } from "./test/vitest-options.ts";

/** The suite of `npm test`: everything but test/slow, which has vitest.slow.config.ts. */
export default defineConfig({
  test: { ...sharedTestOptions, include: ["test/**/*.test.ts"], exclude: ["test/slow/**", "**/node_modules/**"] },
});
