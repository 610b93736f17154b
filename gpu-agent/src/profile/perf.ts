import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { readUntrusted } from "../artifact/untrusted-file.ts";
import { cleanText } from "../process/log-ring.ts";
import { placeMounts } from "../sandbox/placement.ts";
import { findTool } from "../sandbox/probe-sandbox.ts";
import { SERVE_LIMITS } from "../sandbox/rlimits.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { spawnSandboxed } from "../sandbox/spawn.ts";
import { parsePerfReport, type ProfileRow } from "./regions.ts";

/** There is no perf here, or the kernel does not let this user profile another process. The message is for people. */
export class NoPerf extends Error {
  override readonly name = "NoPerf";
}

/** A prime, so that samples don't fall into step with what a program does at a fixed rate; 500 a second and processor disturb by less than a percent. */
const SAMPLES_PER_S = 499;
/** perf attaches within milliseconds; to write what it has takes a little longer. */
const ANSWER_MS = 20_000;
const REPORT_MS = 60_000;
/** A line is some 100 bytes; what a candidate's symbols make longer is cut off. */
const REPORT_BYTES = 4 * 2 ** 20;
const DATA = "perf.data";
const REPORT = "report.txt";

const tooLate = (): Promise<boolean> => sleep(ANSWER_MS, false, { ref: false });

export interface Recording {
  /** Ends the recording; resolves when it is in its file. */
  stop(): Promise<void>;
  /** Ends it without a result. Idempotent, never rejects. */
  discard(): Promise<void>;
}

/**
 * Attaches perf from outside the sandbox to running processes, their threads and what they start. Resolves when it samples. `perf record` reads no file of
 * the candidate's: it writes addresses only. Throws NoPerf where that can't be done here. `folder` is the recording's alone.
 */
export async function startPerf(pids: readonly number[], folder: string, perf: string | null = findTool("perf")): Promise<Recording> {
  if (perf === null) throw new NoPerf("perf is not installed");
  const options = ["--no-buildid", "--no-buildid-cache", "-D", "-1", "--control", "fd:3,4", "-o", join(folder, DATA)];
  const child = spawn(perf, ["record", "-e", "cpu-clock", "-F", String(SAMPLES_PER_S), ...options, "-p", pids.join(",")], {
    stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
    env: { PATH: "/usr/bin:/bin", HOME: "/nonexistent", LC_ALL: "C" },
  });
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => (said = (said + chunk.toString()).slice(-4000)));
  const exited = once(child, "close").catch(() => undefined);
  const [control, answers] = [child.stdio[3] as Duplex, child.stdio[4] as Duplex];
  control.on("error", () => undefined);
  answers.on("error", () => undefined);
  /** Sends one command and waits until perf has carried it out; false where it ended instead, or never answered. */
  const carriedOut = async (command: string): Promise<boolean> => {
    control.write(`${command}\n`);
    return Promise.race([once(answers, "data").then(() => true), exited.then(() => false), tooLate()]);
  };
  const discard = async (): Promise<void> => {
    child.kill("SIGKILL");
    await exited;
  };
  if (!(await carriedOut("enable"))) {
    await discard();
    throw new NoPerf(
      `perf can't attach to another process: ${cleanText(said).replace(/\s+/g, " ").trim().slice(0, 600) || "it did not say why"}`,
    );
  }
  return {
    discard,
    stop: async () => {
      // Interrupted it writes its file and ends by that same signal.
      child.kill("SIGINT");
      const ended = await Promise.race([exited.then(() => true), tooLate()]);
      await discard();
      if (!ended) throw new Error(`perf did not end within ${ANSWER_MS} ms`);
    },
  };
}

/**
 * What was recorded, by symbol. `perf report` reads the candidate's own program, so it is run in the sandbox: there the program lies at the path at which
 * the candidate was started, and a broken symbol table can hurt nobody. The candidate may still run or not; without bubblewrap it must.
 */
export async function readRecording(sandbox: Sandbox, folder: string, buildDir: string, signal: AbortSignal): Promise<ProfileRow[]> {
  const perf = findTool("perf") ?? "perf";
  const mounts = [
    { from: buildDir, to: "/stack", mode: "ro" as const },
    { from: folder, to: "/profile", mode: "rw" as const },
  ];
  const placement = await placeMounts(sandbox, mounts, "shipped", folder);
  const at = (name: string): string => join(placement.path(folder), name);
  const script = `exec "$0" report --stdio -f -q -i "$1" -F sample,dso,sym -t '|' > "$2"`;
  const tree = await spawnSandboxed(sandbox, {
    argv: ["/bin/sh", "-c", script, perf, at(DATA), at(REPORT)],
    env: { PERF_PAGER: "cat", LC_ALL: "C" },
    mounts: placement.mounts,
    cwd: placement.path(folder),
    cpus: null,
    limits: SERVE_LIMITS,
    provenance: "shipped",
  });
  const exit = await tree.untilEnded(AbortSignal.any([signal, AbortSignal.timeout(REPORT_MS)]));
  signal.throwIfAborted();
  if (exit.code !== 0) throw new Error(`perf report ended with ${exit.code ?? exit.signal ?? "?"}: ${tree.log.tail(600)}`);
  return parsePerfReport(await readUntrusted(join(folder, REPORT), REPORT_BYTES));
}
