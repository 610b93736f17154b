import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BootstrapError } from "./bootstrap-error.mjs";
import { handOver } from "./hand-over.mjs";
import { ensurePackages } from "./packages.mjs";
import { ensurePinnedNode } from "./pinned-node.mjs";
import { runFullSuite, runSlowSuite } from "./test-suites.mjs";

/** The repository: this file is `<root>/coordinator/bin/bootstrap/main.mjs`. */
const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");

/** Installs what is missing, then runs the verb. Ends the process with the verb's exit code (2: set-up failed). */
export async function main(argv) {
  const [verb, ...args] = argv;
  try {
    await ensurePackages(root);
    const node = await ensurePinnedNode(root);
    if (verb === "test") process.exit(await runFullSuite(root, node, args));
    if (verb === "test-slow") process.exit(await runSlowSuite(root, node, args));
    await handOver(root, node, [join(root, "coordinator/bin/vibeserve.mjs"), ...argv]);
  } catch (error) {
    if (!(error instanceof BootstrapError)) throw error;
    console.error(error.report());
    process.exit(2);
  }
}
