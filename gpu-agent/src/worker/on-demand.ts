import type { JobHandlers } from "./job-context.ts";

/** Handlers that are loaded with the first job: all that judges, measures, serves and profiles is half of what an agent has in memory, and most agents wait. */
export function onDemand(load: () => Promise<JobHandlers>): JobHandlers {
  let loading: Promise<JobHandlers> | null = null;
  const handlers = async (): Promise<JobHandlers> => (loading ??= load());
  return {
    build: async (job, ctx) => (await handlers()).build(job, ctx),
    check: async (job, ctx) => (await handlers()).check(job, ctx),
    bench: async (job, ctx) => (await handlers()).bench(job, ctx),
    baseline: async (job, ctx) => (await handlers()).baseline(job, ctx),
    profile: async (job, ctx) => (await handlers()).profile(job, ctx),
    exec: async (job, ctx) => (await handlers()).exec(job, ctx),
  };
}
