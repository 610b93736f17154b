import { spawnSync } from "node:child_process";
import { join } from "node:path";

const node = join(import.meta.dirname, "../node_modules/.bin/node");

/**
 * Starts vitest anew under Node 24 (npm's `node` package) when it was started as `node_modules/.bin/vitest` under an older system Node, which
 * can run neither vitest 5 in full nor the product's `.ts` files. `npm test` starts it rightly.
 */
function insistOnPinnedNode(): void {
  if (Number(process.versions.node.split(".")[0]) >= 24) return;
  const path = `${join(node, "..")}:${process.env["PATH"] ?? ""}`;
  const { status } = spawnSync(node, process.argv.slice(1), { stdio: "inherit", env: { ...process.env, PATH: path } });
  process.exit(status ?? 1);
}

insistOnPinnedNode();

/** What both suites share. Two workers, since test machines have two cores; forks, since tests change environment and working directory. */
export const sharedTestOptions = {
  pool: "forks" as const,
  maxWorkers: 2,
  testTimeout: 30_000,
  hookTimeout: 60_000,
  teardownTimeout: 10_000,
  restoreMocks: true,
  // Of expect.poll; a busy machine is not ready in the default second.
  expect: { poll: { timeout: 10_000 } },
  env: { NODE_ENV: "test" },
};
