import { digestOf, type BuildOutput, type BuiltStack } from "@vibeserve/shared";
import { JobError } from "../worker/job-error.ts";
import { digestOfOutputs, type BuildEntry } from "./build-cache.ts";
import { buildKey, buildStack, type BuildDeps } from "./build-stack.ts";
import { lacking } from "./library-needs.ts";
import { ARCHIVE_BYTES, unpackOutput } from "./output-archive.ts";

/**
 * Folder of the very build that a job names, for startStack: from the cache; or what its builder stored of it; or built here where that is not to be had or does
 * not fit this machine. Throws JobError harness `build-differs` if it comes out different: then what was checked is not what would be measured.
 */
export async function ensureBuilt(deps: BuildDeps, stack: BuiltStack): Promise<string> {
  const taken = stack.output && ((await cachedBuild(deps, stack)) ?? (await takeOutput(deps, stack, stack.output)));
  if (taken) return taken.dir;
  const built = await buildStack(deps, stack);
  if (built.buildDigest !== stack.buildDigest)
    throw new JobError(
      "harness",
      "build-differs",
      `tree ${stack.treeDigest} builds to ${built.buildDigest} here, not to ${stack.buildDigest}`,
    );
  return built.dir;
}

const takenKey = ({ buildDigest }: BuiltStack): string => digestOf({ v: 1, taken: buildDigest });

async function cachedBuild({ cache, compiler, sandbox }: BuildDeps, stack: BuiltStack): Promise<BuildEntry | null> {
  const own = compiler && (await cache.find(buildKey(stack, compiler, sandbox)));
  return own?.buildDigest === stack.buildDigest ? own : cache.find(takenKey(stack));
}

/** Null: to be built here, for a reason that is in the job's progress. What can't be had from the network may still be built. */
async function takeOutput(deps: BuildDeps, stack: BuiltStack, output: BuildOutput): Promise<BuildEntry | null> {
  // A masked agent disassembles what it runs: it builds for itself.
  if (deps.mask) return null;
  const missing = output.arch === process.arch ? lacking(output.needs, deps.farm?.offered ?? []) : `it is for ${output.arch}`;
  if (missing !== null) {
    deps.progress(`building here: what was built elsewhere needs ${missing}`);
    return null;
  }
  deps.progress("fetching the build");
  try {
    const tar = await deps.artifacts.getFile(output.tar, ARCHIVE_BYTES);
    return await deps.cache.receive(takenKey(stack), async (draft) => {
      const files = await unpackOutput(tar, draft);
      const found = digestOfOutputs(files);
      if (found !== stack.buildDigest)
        throw new JobError("harness", "build-differs", `it holds the build ${found}, not ${stack.buildDigest}`);
      return files;
    });
  } catch (error) {
    deps.signal.throwIfAborted();
    if (!(error instanceof JobError)) throw error;
    deps.progress(`building here: ${error.code}: ${error.message}`);
    return null;
  }
}
