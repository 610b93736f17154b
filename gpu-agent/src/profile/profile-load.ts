import { randomBytes } from "node:crypto";
import type { Workload } from "@vibeserve/shared";
import { cpuList } from "../bench/cpu-clock.ts";
import { UNLIMITED } from "../bench/quiet.ts";
import { runOnce, type RunEnd } from "../bench/run-once.ts";
import { expandWorkload } from "../bench/workload.ts";
import type { RunningStack } from "../serve/running-stack.ts";
import { JobError } from "../worker/job-error.ts";
import type { ProfileDeps } from "./profile-stack.ts";

/** A run of the load that takes longer says nothing that a shorter load would not: the same bound as a baseline's sweep has. */
const RUN_LIMIT_MS = 120_000;

export type Counted = Extract<RunEnd, { kind: "counted" }>;

/** One run of a load on a stack that is profiled. Verified like every run; nothing is refused, since nothing is ranked by it. Throws JobError candidate. */
export async function load(stack: RunningStack, workload: Workload, deps: ProfileDeps): Promise<Counted> {
  const requests = expandWorkload(workload, randomBytes(16).toString("hex"), deps.tools.drawPrompt);
  const end = await runOnce({ stack, dialect: "openai" }, null, workload, requests, RUN_LIMIT_MS, {
    workDir: deps.workDir,
    processors: cpuList(deps.device.cpus),
    decode: deps.tools.decode,
    limits: UNLIMITED,
    signal: deps.signal,
    slowdownOf: () => 1,
  });
  if (end.kind === "failed") throw new JobError("candidate", end.code, end.message, end.logTail);
  if (end.kind === "refused") throw new Error("a run was refused by limits that refuse nothing");
  return end;
}
