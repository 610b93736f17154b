import type { BuilderDeps } from "./build.job.ts";
import { buildHandler } from "./build.job.ts";
import type { JobHandlers } from "./job-context.ts";
import { JobError } from "./job-error.ts";

/** The real handlers of this agent. */
export function jobHandlers(builder: BuilderDeps): JobHandlers {
  const missing = async (): Promise<never> => {
    throw new JobError("harness", "not-served", "this agent does not serve this kind of job");
  };
  return { build: buildHandler(builder), check: missing, bench: missing, baseline: missing };
}
