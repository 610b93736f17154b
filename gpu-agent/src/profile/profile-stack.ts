import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OUT_FILE, type Device, type Profile, type Workload } from "@vibeserve/shared";
import { readUntrusted } from "../artifact/untrusted-file.ts";
import { cpuList } from "../bench/cpu-clock.ts";
import { metricsOf } from "../bench/metrics.ts";
import { QUIET_LIMITS, refusalOf, UNLIMITED } from "../bench/quiet.ts";
import { runOnce, type RunEnd } from "../bench/run-once.ts";
import type { ModelTools } from "../bench/bench-job.ts";
import { expandWorkload, warmUpWorkload } from "../bench/workload.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { StackError, type RunningStack } from "../serve/running-stack.ts";
import type { StackSpec } from "../serve/server-spec.ts";
import { JobError } from "../worker/job-error.ts";
import { CALLGRIND_SUFFIX, callgrindArgv, parseCallgrind, without } from "./callgrind.ts";
import { NoPerf, readRecording, startPerf, type Recording } from "./perf.ts";
import { regionsOf, type ProfileRow } from "./regions.ts";

export interface ProfileDeps {
  /** Starts the stack in question, plainly or with what is given here. */
  start(more: Pick<StackSpec, "under" | "onStopped">): Promise<RunningStack>;
  readonly tools: Pick<ModelTools, "drawPrompt" | "decode">;
  readonly sandbox: Sandbox;
  readonly buildDir: string;
  readonly device: Device;
  /** Private to the agent. */
  readonly workDir: string;
  readonly signal: AbortSignal;
  progress(phase: string): void;
  /** Paths of the tools; null where they are not installed. */
  readonly perf: string | null;
  readonly valgrind: string | null;
}

/** A run of the load that takes longer says nothing that a shorter load would not: the same bound as a baseline's sweep has. */
const RUN_LIMIT_MS = 120_000;
/** Under emulation a token takes some 50 times as long: a few are enough, since instructions are counted and not sampled. */
const SHORT: Workload = {
  arrival: { process: "closed", concurrency: 1 },
  prompt: { distribution: "fixed", tokens: 32 },
  output: { distribution: "fixed", tokens: 8 },
  requests: 1,
};
/** The seed's file has 170 KB. */
const CALLGRIND_BYTES = 16 * 2 ** 20;
/** Above it the profiler, or a neighbour, disturbed the run. */
const OBSERVED = 1.1;
/** Most of the time in code without names: the shares tell an implementer little. */
const UNNAMED = 0.3;

type Counted = Extract<RunEnd, { kind: "counted" }>;

/**
 * Where the time of a stack goes under `workload`: by perf attached from outside, or, where that is missing or not permitted, by callgrind in the sandbox.
 * Throws JobError device `no-profiler` where neither works, with what to install or allow; candidate where the stack itself fails under the load.
 */
export async function profileStack(workload: Workload, deps: ProfileDeps): Promise<Profile> {
  const byPerf = await perfProfile(workload, deps).catch(noProfiler);
  if (typeof byPerf !== "string") return byPerf;
  deps.progress(`no perf, so callgrind: ${byPerf}`);
  const byCallgrind = await callgrindProfile(deps, byPerf).catch(noProfiler);
  if (typeof byCallgrind !== "string") return byCallgrind;
  const fix =
    "install perf (Debian: linux-perf) and let this user attach it (kernel.perf_event_paranoid, CAP_PERFMON), or install valgrind";
  throw new JobError("device", "no-profiler", `no profiler works here: ${byPerf}; ${byCallgrind}: ${fix}`);
}

/** Why it can't be done here; everything else goes on. */
function noProfiler(error: unknown): string {
  if (error instanceof NoPerf || error instanceof NoCallgrind) return error.message;
  throw error;
}

class NoCallgrind extends Error {}

async function perfProfile(workload: Workload, deps: ProfileDeps): Promise<Profile> {
  if (deps.perf === null) throw new NoPerf("perf is not installed");
  const folder = await mkdtemp(join(tmpdir(), "vs-perf-"));
  let stack: RunningStack | null = null;
  let recording: Recording | null = null;
  try {
    // The report's own user passes through.
    await chmod(folder, 0o711);
    deps.progress("starting the stack");
    stack = await deps.start({});
    // Before the load: where it is not permitted, nothing was spent.
    await (await startPerf(stack.pids(), folder, deps.perf)).discard();
    deps.progress("warming up");
    await load(stack, warmUpWorkload(workload), deps);
    deps.progress("running the load without the profiler");
    const plain = await load(stack, workload, deps);
    deps.progress("running the load with the profiler");
    recording = await startPerf(stack.pids(), folder, deps.perf);
    const watched = await load(stack, workload, deps);
    await recording.stop();
    deps.progress("reading the profile");
    const rows = await readRecording(deps.sandbox, folder, deps.buildDir, deps.signal);
    const observerEffect = rateOf(workload, plain) / rateOf(workload, watched);
    return profileOf("perf", rows, observerEffect, [noise(workload, plain, watched)]);
  } finally {
    await recording?.discard();
    await stack?.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Two runs, since loading a model takes far more instructions than a short request: one only starts, and is taken off. */
async function callgrindProfile(deps: ProfileDeps, why: string): Promise<Profile> {
  if (deps.valgrind === null) throw new NoCallgrind("valgrind is not installed");
  const under = callgrindArgv(deps.valgrind);
  const count = async (requests: boolean): Promise<ProfileRow[]> => {
    const written: string[] = [];
    const onStopped = async (socketPath: string): Promise<void> => {
      const text = await readUntrusted(socketPath + CALLGRIND_SUFFIX, CALLGRIND_BYTES).catch(() => null);
      if (text !== null) written.push(text);
    };
    const stack = await deps.start({ under, onStopped }).catch((error: unknown) => {
      if (error instanceof StackError) throw new NoCallgrind(`under callgrind the stack does not start: ${error.code}: ${error.message}`);
      throw error;
    });
    try {
      if (requests) await load(stack, SHORT, deps);
    } finally {
      await stack.stop();
    }
    const [text] = written;
    if (text === undefined) throw new NoCallgrind("callgrind left no file: the stack did not end within 2 s of SIGTERM");
    return parseCallgrind(text);
  };
  deps.progress("counting the instructions of a start");
  const base = await count(false);
  deps.progress("counting the instructions of a request");
  const rows = without(await count(true), base);
  return profileOf("callgrind", rows, null, ["instructions under emulation, which has no AVX-512 or AMX, not time", why]);
}

function profileOf(
  source: Profile["source"],
  rows: readonly ProfileRow[],
  observerEffect: number | null,
  notes: readonly string[],
): Profile {
  const { regions, samples, unnamedShare } = regionsOf(rows, OUT_FILE);
  const all = [
    unnamedShare > UNNAMED ? `${Math.round(100 * unnamedShare)} % lie in code without symbols: was the program stripped?` : "",
    observerEffect !== null && observerEffect > OBSERVED ? "slower while it was profiled: shares are hints only" : "",
    ...notes,
  ];
  const note = all.filter((n) => n !== "").join("; ");
  return { source, regions, samples, observerEffect, note: note.slice(0, 500) };
}

/** Verified like every run; nothing is refused, since nothing is ranked by it. */
async function load(stack: RunningStack, workload: Workload, deps: ProfileDeps): Promise<Counted> {
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

const rateOf = (w: Workload, end: Counted): number => metricsOf(w, end.requests).output_tokens_per_second;

/** What would have had a benchmark's run refused. */
function noise(w: Workload, ...ends: readonly Counted[]): string {
  const open = w.arrival.process === "poisson";
  const reasons = ends.flatMap((end) => refusalOf(end.quiet, open, QUIET_LIMITS)?.reason ?? []);
  return reasons.length === 0 ? "" : `the device was not quiet: ${reasons.join(", ")}`;
}
