import { setTimeout as sleep } from "node:timers/promises";
import type { Workload } from "@vibeserve/shared";
import type { LoadPlan, LoadResult } from "../../loadgen/plan.ts";
import type { Certificate, DeviceConditions } from "@vibeserve/shared";
import type { DeviceSample } from "../device/adapter.ts";
import { watchedOf } from "../device/conditions.ts";
import { watchDevice } from "../device/watch.ts";
import { PLATFORM } from "../platform.ts";
import { descendants } from "../process/process-table.ts";
import type { RunningStack } from "../serve/running-stack.ts";
import type { Dialect } from "../../loadgen/event.ts";
import { readCpu, type CpuReading } from "./cpu-clock.ts";
import { bodyOf, pathOf } from "./dialect.ts";
import { runLoad } from "./load-generator.ts";
import { quietOf, refusalOf, type Quiet, type QuietLimits, type Refusal } from "./quiet.ts";
import { starved } from "./metrics.ts";
import { verifyRun, type VerifiedRequest } from "./verify.ts";
import type { BenchRequest } from "./workload.ts";

export interface RunDeps {
  readonly workDir: string;
  /** Processors of the device. */
  readonly processors: readonly number[];
  readonly decode: (ids: readonly number[]) => string;
  readonly limits: QuietLimits;
  readonly signal: AbortSignal;
  /** Each device's own sensors are read once a second while the run is timed; absent: it has none. */
  readonly sensors?: readonly { readonly id: string; readonly sample: () => Promise<DeviceSample | null> }[];
  /** The speed probe of a run over the best so far. */
  readonly slowdownOf: (probeMs: number) => number;
}

/** What one run of one arm came to. `failed` is the arm's own fault (I8). */
export type RunEnd =
  | {
      readonly kind: "counted";
      readonly requests: readonly VerifiedRequest[];
      readonly quiet: Quiet;
      readonly load: LoadResult;
      /** The worst of all devices; null where there are no sensors that can be read. */
      readonly conditions: DeviceConditions | null;
      /** Each of them; absent: there is but one. */
      readonly devices?: NonNullable<Certificate["devices"]>;
    }
  | {
      readonly kind: "refused";
      readonly refusal: Refusal;
      readonly quiet: Quiet;
      /** Every request was answered, and stood up; false: the time limit came first. */
      readonly answered: boolean;
    }
  | { readonly kind: "failed"; readonly code: string; readonly message: string; readonly logTail: string };

/** Connections opened beforehand in an open loop: as many as every candidate must accept. */
const OPEN_LOOP_CONNECTIONS = 64;

export interface LoadedArm {
  readonly stack: RunningStack;
  readonly dialect: Dialect;
}

/**
 * One timed run of `arm` while the other arm (null: there is none) is stopped. The device's clock and the CPU time of those who may use it are read just before the first
 * request and just after the last response, so neither the generator's start nor its parsing is in the window.
 */
export async function runOnce(
  arm: LoadedArm,
  other: RunningStack | null,
  w: Workload,
  requests: readonly BenchRequest[],
  limitMs: number,
  deps: RunDeps,
): Promise<RunEnd> {
  const { stack } = arm;
  const dead = await deathOf(stack, 0);
  if (dead) return dead;
  await other?.pause();
  await stack.resume();
  const window: { before?: Sample; after?: Sample } = {};
  const own = (): ReadonlySet<number> => ownPids(other === null ? [stack] : [stack, other]);
  const watches = (deps.sensors ?? []).map(({ id, sample }) => ({ id, watch: watchDevice(sample, own) }));
  const load = await runLoad(
    planOf(stack.socketPath, arm.dialect, w, requests, limitMs),
    {
      onReady: async () => void (window.before = await sample(stack, deps.processors)),
      onEnded: async () => void (window.after = await sample(stack, deps.processors)),
    },
    deps.workDir,
    deps.signal,
  ).finally(() => watches.forEach(({ watch }) => watch.cancel()));
  const watched = watchedOf(await Promise.all(watches.map(async ({ id, watch }) => ({ id, seen: await watch.stop() }))));
  const quiet = window.before && window.after ? quietBetween(window.before, window.after, load, deps) : null;
  const refusal = quiet && both(refusalOf(quiet, w.arrival.process === "poisson", deps.limits), watched.refusal);
  // A run that was too slow on a disturbed device says nothing of the arm, unless it did not even want to run; any other failure is its own anywhere.
  if (quiet && refusal?.device && load.end === "limit" && quiet.armCpuPct > HUNG_CPU_PCT) {
    return { kind: "refused", refusal, quiet, answered: false };
  }
  if (load.end !== "complete") return (await deathOf(stack, DEATH_GRACE_MS)) ?? incomplete(load, stack);
  const verdict = verifyRun(load.records, requests, deps.decode);
  if (!verdict.ok) return { kind: "failed", code: verdict.code, message: verdict.message, logTail: stack.logTail() };
  const left = starved(w, verdict.requests);
  if (left) {
    const message = `request ${left.index} got its first token after ${left.overtakenBy} later requests were answered in full`;
    return { kind: "failed", code: "cheat-starved", message, logTail: stack.logTail() };
  }
  if (!quiet) throw new Error("the load generator completed a run that it did not announce");
  return refusal
    ? { kind: "refused", refusal, quiet, answered: true }
    : { kind: "counted", requests: verdict.requests, quiet, load, ...watched.said };
}

/** The arms' processes, and the agent's own: a reference that waits for its next question holds memory of the device meanwhile, and computes nothing. */
export const ownPids = (arms: readonly Pick<RunningStack, "pids">[]): ReadonlySet<number> =>
  new Set([...descendants(PLATFORM.processes.read()), ...arms.flatMap((arm) => arm.pids())]);

/** What the processors' clocks say against a run, and what the device's own sensors say. */
function both(refusal: Refusal | null, device: string | null): Refusal | null {
  if (device === null) return refusal;
  return { reason: refusal === null ? device : `${refusal.reason}, ${device}`, device: true };
}

/** Whoever wants to run beside ten others still gets some percent of a processor; who gets less sleeps. */
const HUNG_CPU_PCT = 1;

/** From a broken connection to the exit of the process that held it. */
const DEATH_GRACE_MS = 1000;

/** Null where the arm lives, and still does after `withinMs`. */
export async function deathOf(arm: RunningStack, withinMs: number): Promise<Extract<RunEnd, { kind: "failed" }> | null> {
  const exit = await Promise.race([arm.exited, sleep(withinMs, null, { ref: false })]);
  if (!exit) return null;
  const how = exit.signal === null ? `with code ${exit.code}` : `by ${exit.signal}`;
  return { kind: "failed", code: "died-under-load", message: `the server ended ${how} while it was loaded`, logTail: arm.logTail() };
}

/** Codes: `run-timeout`, `flood`, `broken-stream`. */
function incomplete(load: LoadResult, arm: RunningStack): RunEnd {
  const code = load.end === "limit" ? "run-timeout" : load.end === "flood" ? "flood" : "broken-stream";
  const answered = load.records.filter((r) => r.endMs !== null).length;
  const detail = load.end === "broken" ? (load.records.find((r) => r.error !== null)?.error ?? "") : "";
  return { kind: "failed", code, message: `${load.reason}; ${answered} requests were answered. ${detail}`.trim(), logTail: arm.logTail() };
}

interface Sample {
  readonly cpu: CpuReading;
  /** Null where the tree is gone. */
  readonly armS: number | null;
  readonly agentS: number;
}

async function sample(arm: RunningStack, processors: readonly number[]): Promise<Sample> {
  const [cpu, armS] = await Promise.all([readCpu(processors), arm.cpuSeconds().catch(() => null)]);
  const own = process.cpuUsage();
  return { cpu, armS, agentS: (own.user + own.system) / 1e6 };
}

function quietBetween(before: Sample, after: Sample, load: LoadResult, deps: RunDeps): Quiet | null {
  if (before.armS === null || after.armS === null) return null;
  const known = {
    armS: after.armS - before.armS,
    generatorS: load.self.cpuS,
    agentS: after.agentS - before.agentS,
    processors: deps.processors.length,
  };
  return quietOf(before.cpu, after.cpu, known, load.self, deps.slowdownOf(load.self.probeMs));
}

/** Bytes that one response may have: an honest event is ~250 bytes, so this is 16 times what is needed, and bounds the generator's memory. */
const BYTES_PER_TOKEN = 4096;

function planOf(socketPath: string, dialect: Dialect, w: Workload, requests: readonly BenchRequest[], limitMs: number): LoadPlan {
  const responses = requests.map((r) => 64 * 1024 + r.outputTokens * BYTES_PER_TOKEN);
  return {
    socketPath,
    path: pathOf(dialect),
    dialect,
    requests: requests.map((r) => ({ body: bodyOf(dialect, r), atMs: r.atMs })),
    mode: w.arrival.process === "closed" ? "closed" : "open",
    connections: Math.min(requests.length, w.arrival.process === "closed" ? w.arrival.concurrency : OPEN_LOOP_CONNECTIONS),
    limitMs,
    responseBytes: Math.max(...responses),
    totalBytes: Math.min(
      256 * 1024 * 1024,
      responses.reduce((a, b) => a + b, 0),
    ),
  };
}
