import type { RunningStack } from "../serve/running-stack.ts";
import type { StackSpec } from "../serve/server-spec.ts";
import { startStack } from "../serve/start-stack.ts";
import type { JobContext } from "./job-context.ts";

/** A stack may dequantise its weights at load; the seed takes about a second on idle cores. */
export const HEALTH_TIMEOUT_MS = 60_000;

/** Serves a build in its job's sandbox, on the job's processors and all of its devices, until the job is stopped. Default of healthTimeoutMs: 60 s. */
export const startBuilt = (
  { sandbox, device, devices, signal }: JobContext,
  spec: Omit<StackSpec, "cpus" | "devices" | "signal" | "healthTimeoutMs"> & Partial<Pick<StackSpec, "healthTimeoutMs">>,
): Promise<RunningStack> =>
  startStack({ sandbox }, { healthTimeoutMs: HEALTH_TIMEOUT_MS, ...spec, cpus: device.cpus, devices: devices.length, signal });
