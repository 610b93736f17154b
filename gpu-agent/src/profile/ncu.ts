import { existsSync, readFileSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { clientsOf, type Profile, type Workload } from "@vibeserve/shared";
import { readUntrusted } from "../artifact/untrusted-file.ts";
import { firstWords } from "../device/vendor-tool.ts";
import { forbidden, outermost, within } from "../sandbox/forbidden.ts";
import type { Mount } from "../sandbox/sandbox.ts";
import { type RunningStack, StackError } from "../serve/running-stack.ts";
import type { Under } from "../serve/server-spec.ts";
import { JobError } from "../worker/job-error.ts";
import { FEW_COUNTERS, kernelRegions, parseNcu, TIME, type NcuReport } from "./ncu-report.ts";
import { load } from "./profile-load.ts";
import type { ProfileDeps } from "./profile-stack.ts";
import { meanLength } from "./roofline.ts";

/** Nsight Compute is not here, or it may not read the counters, or the stack does not run under it. The message is for people. */
export class NoNcu extends Error {}

/** Where a vendor's packages put Nsight Compute; its programs look for their own files beside them. */
const NSIGHT = "/opt/nvidia/nsight-compute";
const SUFFIX = ".ncu";
/** Caches and clocks as they are: the kernels' shares are to be those of serving. A graph's kernels one by one; whatever processes the stack starts. */
const ALWAYS = ["--target-processes", "all", "--graph-profiling", "node", "--clock-control", "none", "--cache-control", "none"];
const PRINTED = ["--print-units", "base", "--csv", "--page", "raw", "--log-file", `\${SOCKET}${SUFFIX}`];
/** A launch that is looked at costs some milliseconds, and starts and prompts may have thousands: their number, and the tokens of all prompts, keep the job in its time. */
const [MOST_BEFORE, PROMPT_TOKENS] = [6_000, 4_096];
/** A chat's template alone has some twenty tokens. */
const LEAST_PROMPT = 32;
/** Long enough for the launches below to be decode steps at full concurrency. */
const DECODE_TOKENS = 32;
/**
 * What is asked for, and of how many launches: few counters, which one run of a kernel should give, so that no memory is saved and no kernel run again; where
 * ncu does not know one of them, the sections that every chip has, which run each kernel some ten times.
 */
const COLLECT = [
  { what: ["--metrics", FEW_COUNTERS.join(",")], launches: 2_000 },
  { what: ["--section", "SpeedOfLight", "--section", "LaunchStats", "--section", "Occupancy"], launches: 300 },
];
/** 2,000 lines with the names of C++ templates have 4 MB; a socket's folder may hold 16 MiB. */
const REPORT_BYTES = 15 * 2 ** 20;
/** A stack that does not end when it is told to; then, for ncu to write what it has. */
const [END_MS, WRITE_MS] = [5_000, 60_000];

/**
 * Kernels of the decode steps under `workload`, by their share of the device's time. ncu runs the stack in the sandbox, twice, and looks at launches
 * one at a time. Which of them serve, it can't be told: a range by NVTX or cudaProfilerStart is the program's own to mark. So the first run counts the launches
 * of a start and of one prompt a client, and the second skips that many. Evidence for who reads it, never a measurement: ncu's own half lies in the candidate's
 * process. Throws NoNcu.
 */
export async function ncuProfile(workload: Workload, deps: ProfileDeps): Promise<Profile> {
  const { ncu, device } = deps;
  if (ncu === null)
    throw new NoNcu(
      device.kind === "nvidia" ? "Nsight Compute (ncu) is not installed" : `no profiler of kernels is wired for ${device.kind} devices`,
    );
  const clients = clientsOf(workload);
  const requests = Math.min(workload.requests, clients);
  const prompt = Math.min(Math.round(meanLength(workload.prompt)), Math.max(LEAST_PROMPT, Math.floor(PROMPT_TOKENS / requests)));
  const answers = (tokens: number): Workload => ({
    arrival: { process: "closed", concurrency: clients },
    prompt: { distribution: "fixed", tokens: prompt },
    output: { distribution: "fixed", tokens },
    requests,
  });
  deps.progress("counting the kernels of a start and of the prompts");
  const counting = ["--metrics", TIME, "--print-kernel-base", "function", "--launch-count", String(MOST_BEFORE)];
  const before = await runUnder(ncu, counting, answers(2), deps);
  const skip = before.launches.length;
  if (skip === 0) throw new NoNcu(whyNothing(before));
  const tokens = Math.max(4, Math.min(DECODE_TOKENS, Math.round(meanLength(workload.output))));
  for (const { what, launches } of COLLECT) {
    deps.progress(`looking at ${launches} kernels after ${skip}`);
    const asked = [...what, "--launch-skip", String(skip), "--launch-count", String(launches)];
    const report = await runUnder(ncu, asked, answers(tokens), deps);
    if (report.launches.length === 0 && /Failed to find metric/i.test(report.trouble)) continue;
    if (report.launches.length === 0) throw new NoNcu(whyNothing(report));
    const { regions, samples } = kernelRegions(report.launches);
    const notes = [
      `${samples} launches, one at a time without what lies between them, after ${skip} of a start and its prompts: decode steps of ${requests} sequences behind prompts of ${prompt} tokens`,
      "behind a name: launches x mean time, percent of peak memory, of peak compute, and of the warps an SM holds, registers a thread",
      skip === MOST_BEFORE ? "a start has more launches than were counted: some of these may be its own" : "",
    ];
    return {
      source: "ncu",
      regions,
      samples,
      observerEffect: null,
      note: notes
        .filter((n) => n !== "")
        .join("; ")
        .slice(0, 500),
    };
  }
  throw new NoNcu("Nsight Compute knows none of the counters that are asked for on this device");
}

function whyNothing({ trouble }: NcuReport): string {
  if (trouble.includes("ERR_NVGPUCTRPERM"))
    return "not permitted: the driver lets no user but root read the GPU's counters (ERR_NVGPUCTRPERM), and the stack has a user of its own";
  return trouble === "" ? "Nsight Compute saw no kernel of the stack" : `Nsight Compute: ${trouble}`;
}

/** One start of the stack under ncu, one load, one end; what ncu wrote. */
async function runUnder(ncu: string, collect: readonly string[], workload: Workload, deps: ProfileDeps): Promise<NcuReport> {
  const written: string[] = [];
  const onStopped = async (socketPath: string): Promise<void> => {
    const text = await readUntrusted(socketPath + SUFFIX, REPORT_BYTES).catch(() => null);
    if (text !== null) written.push(text);
  };
  const { program, mounts } = installed(ncu, deps.workDir);
  const under: Under = { argv: [program, ...ALWAYS, ...PRINTED, ...collect], mounts, counters: true };
  try {
    const stack = await deps.start({ under, onStopped });
    try {
      await load(stack, workload, deps);
      await endTarget(stack);
    } finally {
      await stack.stop();
    }
  } catch (error) {
    deps.signal.throwIfAborted();
    if (!(error instanceof StackError) && !(error instanceof JobError && error.attribution === "candidate")) throw error;
    const said = firstWords([...written, error.logTail.slice(-400)].join("\n"));
    throw new NoNcu(`under Nsight Compute the stack does not work: ${error.code}: ${error.message}: ${said}`);
  }
  const [text] = written;
  if (text === undefined) throw new NoNcu("Nsight Compute left no file");
  return parseNcu(text);
}

/** ncu's own file, and what of its installation the sandbox has not got anyway: the folder that holds `target/`, or where there is none the file alone. Throws NoNcu where that folder may not be shown. */
function installed(ncu: string, workDir: string): { program: string; mounts: Mount[] } {
  const program = realpathSync(ncu);
  const [, whole] = /^(.+)\/target\/[^/]+\/[^/]+$/.exec(program) ?? [];
  const own = whole ?? (existsSync(join(dirname(program), "target")) ? dirname(program) : program);
  const why = own === program ? null : forbidden(own, workDir, homedir());
  if (why !== null)
    throw new NoNcu(`Nsight Compute needs ${own}, and ${why}, which no candidate may see: install it in a folder of its own`);
  const needed = [NSIGHT, own].filter((path) => existsSync(path) && !within(path, "/usr"));
  return { program, mounts: outermost(needed).map((from): Mount => ({ from, mode: "ro" })) };
}

/** Ends what ncu runs and waits until ncu has written: ncu itself must not be told to end, as all of a tree is by stop(). */
async function endTarget(stack: RunningStack): Promise<void> {
  for (const [signal, ms] of [
    ["SIGTERM", END_MS],
    ["SIGKILL", WRITE_MS],
  ] as const) {
    for (const pid of stack.pids())
      try {
        if (!isOurs(pid)) process.kill(pid, signal);
      } catch {
        // It has ended.
      }
    if (await Promise.race([stack.exited.then(() => true), sleep(ms, false, { ref: false })])) return;
  }
}

/** By the first words of its command line (a script's is the second): ncu, the launcher that it puts before the program, and the sandbox. All else is the stack's. */
function isOurs(pid: number): boolean {
  let words: string[] = [];
  try {
    words = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0").slice(0, 2);
  } catch {
    // It has ended.
  }
  return words.some((word) => /^(ncu|bwrap|TreeLauncher\w*)$/.test(basename(word)));
}
