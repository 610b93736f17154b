import type { BuiltStack } from "@vibeserve/shared";
import { JobError } from "../worker/job-error.ts";
import { buildStack, type BuildDeps } from "./build-stack.ts";

/**
 * Folder of the very build that a job names, for startStack: from the cache, or built again where the cache lost it (another agent of the pool built it, or
 * an entry was damaged). Throws JobError harness `build-differs` if it comes out different: then what was checked is not what would be measured.
 */
export async function ensureBuilt(deps: BuildDeps, stack: BuiltStack): Promise<string> {
  const built = await buildStack(deps, stack);
  if (built.buildDigest !== stack.buildDigest)
    throw new JobError(
      "harness",
      "build-differs",
      `tree ${stack.treeDigest} builds to ${built.buildDigest} here, not to ${stack.buildDigest}`,
    );
  return built.dir;
}
