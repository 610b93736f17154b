import { randomBytes } from "node:crypto";
import { METRICS, type Device, type Metric, type Workload } from "@vibeserve/shared";
import { JobError } from "../worker/job-error.ts";
import { cpuList } from "./cpu-clock.ts";
import { metricsOf } from "./metrics.ts";
import { limitsFor, type QuietLimits } from "./quiet.ts";
import { runOnce, type LoadedArm, type RunEnd } from "./run-once.ts";
import type { Decode } from "./verify.ts";
import { QUIET_WAIT_MS, untilQuiet } from "./until-quiet.ts";
import { expandWorkload, warmUpWorkload, type DrawPrompt } from "./workload.ts";

export interface AloneDeps {
  readonly device: Device;
  readonly drawPrompt: DrawPrompt;
  readonly decode: Decode;
  readonly workDir: string;
  readonly signal: AbortSignal;
  readonly limits?: QuietLimits;
  /** Runs refused before it gives up; default 4. */
  readonly maxRefusals?: number;
}

/**
 * One server's value of a metric on one run after a warm-up, for choosing among settings of a baseline: verified like every run, but no comparison, and
 * no claim is made from it. Throws JobError: candidate (the server's own failure), or device `device-noisy`.
 */
export async function measureAlone(arm: LoadedArm, w: Workload, metric: Metric, limitMs: number, deps: AloneDeps): Promise<number> {
  const name = Object.values(METRICS).find((m) => m.name === metric.name)?.name;
  if (!name) throw new JobError("harness", "unknown-metric", `no load generator here measures "${metric.name}"`);
  const limits = deps.limits ?? limitsFor(deps.device);
  let best = Infinity;
  const run = async (workload: Workload): Promise<RunEnd> => {
    const requests = expandWorkload(workload, randomBytes(16).toString("hex"), deps.drawPrompt);
    const end = await runOnce(arm, null, workload, requests, limitMs, {
      workDir: deps.workDir,
      processors: cpuList(deps.device.cpus),
      decode: deps.decode,
      limits,
      signal: deps.signal,
      slowdownOf: (probeMs) => probeMs / (best = Math.min(best, probeMs)),
    });
    if (end.kind === "failed") throw new JobError("candidate", end.code, end.message, end.logTail);
    return end;
  };
  const refused: string[] = [];
  const warm = await run(warmUpWorkload(w));
  if (warm.kind === "refused" && !warm.answered) refused.push(warm.refusal.reason);
  while (refused.length < (deps.maxRefusals ?? 4)) {
    const end = await run(w);
    if (end.kind === "counted") return metricsOf(w, end.requests)[name];
    if (end.kind === "refused") refused.push(end.refusal.reason);
    await arm.stack.pause();
    await untilQuiet(cpuList(deps.device.cpus), limits, QUIET_WAIT_MS, deps.signal);
  }
  throw new JobError("device", "device-noisy", `refused runs: ${refused.length}: ${refused.join("; ")}`);
}
