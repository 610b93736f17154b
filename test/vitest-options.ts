import { delimiter, join } from "node:path";

const bin = join(import.meta.dirname, "../node_modules/.bin");

/**
 * Puts Node 24 (npm's `node` package) before the system's, for vitest started as `node_modules/.bin/vitest` under an older system Node.
 * vitest forks its workers with `process.execPath`, and tests start the product's processes as `node`: both must be able to run `.ts`.
 */
function preferPinnedNode(): void {
  if (Number(process.versions.node.split(".")[0]) >= 24) return;
  process.execPath = join(bin, "node");
  process.env["PATH"] = `${bin}${delimiter}${process.env["PATH"] ?? ""}`;
}

preferPinnedNode();

/** What both suites share. Two workers, since test machines have two cores; forks, since tests change environment and working directory. */
export const sharedTestOptions = {
  pool: "forks" as const,
  maxWorkers: 2,
  testTimeout: 30_000,
  hookTimeout: 60_000,
  teardownTimeout: 10_000,
  restoreMocks: true,
  env: { NODE_ENV: "test" },
};
