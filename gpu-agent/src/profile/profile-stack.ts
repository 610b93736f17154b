import { OUT_FILE, type Device, type Profile, type Workload } from "@vibeserve/shared";
import { readUntrusted } from "../artifact/untrusted-file.ts";
import { metricsOf } from "../bench/metrics.ts";
import { limitsFor, refusalOf, type QuietLimits } from "../bench/quiet.ts";
import type { ModelTools } from "../bench/bench-job.ts";
import { warmUpWorkload } from "../bench/workload.ts";
import { tempFolder } from "../process/temp-folder.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { StackError, type RunningStack } from "../serve/running-stack.ts";
import type { StackSpec } from "../serve/server-spec.ts";
import { JobError } from "../worker/job-error.ts";
import { CALLGRIND_SUFFIX, callgrindArgv, parseCallgrind, without } from "./callgrind.ts";
import { NoNcu, ncuProfile } from "./ncu.ts";
import { NoPerf, readRecording, startPerf, type Recording } from "./perf.ts";
import { load, type Counted } from "./profile-load.ts";
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
  /** Nsight Compute's; looked at on an accelerator alone. */
  readonly ncu: string | null;
}

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

/** Each profiles, or throws why it can't here. `tried`: what was tried before it, and why that did not work. */
type Profiler = (workload: Workload, deps: ProfileDeps, tried: readonly string[]) => Promise<Profile>;

const ON_PROCESSORS: readonly Profiler[] = [perfProfile, callgrindProfile];
/** A GPU's driver does not run under valgrind. What its processors do is still worth knowing: a step of many small kernels is bound by them. */
const ON_ACCELERATOR: readonly Profiler[] = [ncuProfile, perfProfile];
const FIX = "install perf (Debian: linux-perf) and let this user attach it (kernel.perf_event_paranoid, CAP_PERFMON)";
const NVIDIA_FIX =
  "install Nsight Compute and let it read the GPU's counters (an agent that is root with driver 565 or newer, or nvidia.ko's NVreg_RestrictProfilingToAdminUsers=0)";

/**
 * Where the time of a stack goes under `workload`: by perf attached from outside, or, where that is missing or not permitted, by callgrind in the sandbox; on
 * an accelerator by Nsight Compute, or, where that can't be, by perf, which sees the processors alone.
 * Throws JobError device `no-profiler` where none works, with what to install or allow; candidate where the stack itself fails under the load.
 */
export async function profileStack(workload: Workload, deps: ProfileDeps): Promise<Profile> {
  const { kind } = deps.device;
  const tried: string[] = [];
  for (const profiler of kind === "cpu" ? ON_PROCESSORS : ON_ACCELERATOR) {
    const profile = await profiler(workload, deps, tried).catch(noProfiler);
    if (typeof profile !== "string") return profile;
    tried.push(profile);
    deps.progress(`another profiler: ${profile}`);
  }
  const fix = kind === "nvidia" ? `${NVIDIA_FIX}, or ${FIX}` : kind === "cpu" ? `${FIX}, or install valgrind` : FIX;
  throw new JobError("device", "no-profiler", `no profiler works here: ${tried.join("; ")}: ${fix}`);
}

/** Why it can't be done here; everything else goes on. */
function noProfiler(error: unknown): string {
  if (error instanceof NoPerf || error instanceof NoCallgrind || error instanceof NoNcu) return error.message;
  throw error;
}

class NoCallgrind extends Error {}

async function perfProfile(workload: Workload, deps: ProfileDeps, tried: readonly string[]): Promise<Profile> {
  if (deps.perf === null) throw new NoPerf("perf is not installed");
  // The report's own user passes through.
  await using temporary = await tempFolder("vs-perf-");
  const folder = temporary.path;
  let stack: RunningStack | null = null;
  let recording: Recording | null = null;
  try {
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
    const blind = tried.length === 0 ? "" : `the processors' time, none of the device's kernels: ${tried.join("; ")}`;
    return profileOf("perf", rows, observerEffect, [blind, noise(workload, limitsFor(deps.device), plain, watched)]);
  } finally {
    await recording?.discard();
    await stack?.stop();
  }
}

/** Two runs, since loading a model takes far more instructions than a short request: one only starts, and is taken off. */
async function callgrindProfile(_: Workload, deps: ProfileDeps, tried: readonly string[]): Promise<Profile> {
  if (deps.valgrind === null) throw new NoCallgrind("valgrind is not installed");
  const under = { argv: callgrindArgv(deps.valgrind) };
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
  return profileOf("callgrind", rows, null, ["instructions under emulation, which has no AVX-512 or AMX, not time", ...tried]);
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

const rateOf = (w: Workload, end: Counted): number => metricsOf(w, end.requests).output_tokens_per_second;

/** What would have had a benchmark's run refused on this kind of device. */
export function noise(w: Workload, limits: QuietLimits, ...ends: readonly Pick<Counted, "quiet">[]): string {
  const open = w.arrival.process === "poisson";
  const reasons = ends.flatMap((end) => refusalOf(end.quiet, open, limits)?.reason ?? []);
  return reasons.length === 0 ? "" : `the device was not quiet: ${reasons.join(", ")}`;
}
