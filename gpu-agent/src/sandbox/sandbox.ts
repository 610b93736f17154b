import type { SandboxKind } from "@vibeserve/shared";
import type { Platform } from "../platform.ts";
import type { DeviceNodes } from "./device-nodes.ts";
import type { SandboxPython } from "./python.ts";

/**
 * Where untrusted code runs. "bubblewrap": its own namespaces, no network, read-only toolchain. "seatbelt": macOS's sandbox-exec: no network, no file but
 * what is named, under this machine's own paths. "none": this machine gives neither; then only code that ships with the product runs, under rlimits and, where
 * the agent is root on Linux, as a user of its own; every record carries the label.
 * Made by probeSandbox(), which really tries it.
 */
export interface Sandbox {
  readonly kind: SandboxKind;
  /** Absent: that of this process. */
  readonly platform?: Platform;
  /** Why it is "none", for people; else empty. */
  readonly reason: string;
  readonly bwrap: string | null;
  /** How bubblewrap takes privileges away: root drops to a uid of its own inside; others get a user namespace. */
  readonly drop: "setuid" | "userns";
  /** Helpers of util-linux, null where not installed. */
  readonly tools: { readonly prlimit: string | null; readonly setpriv: string | null; readonly taskset: string | null };
  /** --unsafe-no-sandbox: code from a model may run without a sandbox. */
  readonly unsafe: boolean;
  /** The agent is held to a level of instructions: what it serves must not make code while it runs, see seccompProgram(). Absent: no. */
  readonly masked?: boolean;
  /** The accelerators that what runs here may use; absent: none. */
  readonly device?: DeviceNodes;
  /** The Python that a stack's `python3` is; absent: the system's. */
  readonly python?: SandboxPython;
  /** Names the agent in the environment of what it runs, see killLeftovers(); default "agent". */
  readonly tag?: string;
}

/** A file or folder of this machine that the command may see. `to` is its path inside, by default the same; only bubblewrap has an inside, see placeMounts(). */
export interface Mount {
  readonly from: string;
  readonly to?: string;
  readonly mode: "ro" | "rw";
}

/** Bounds per process, by rlimits, except `memBytes`, which also bounds the resident memory of the whole tree (checked once a second). */
export interface Limits {
  readonly memBytes: number;
  /** Processes and threads. */
  readonly processes: number;
  readonly openFiles: number;
  readonly cpuSeconds: number;
  /** Largest file that it may write. */
  readonly fileBytes: number;
}

/** What to run and what it may touch. */
export interface SandboxCommand {
  readonly argv: readonly string[];
  /** The whole environment beside PATH, HOME, TMPDIR, LANG and USER. */
  readonly env: Readonly<Record<string, string>>;
  readonly mounts: readonly Mount[];
  readonly cwd: string;
  /** Processors it may use, as for taskset: "0,1"; null for all of the agent's. */
  readonly cpus: string | null;
  readonly limits: Limits;
  /** "baseline": a known engine that the agent installed itself; without a sandbox it runs as the agent's own user. */
  readonly provenance: "shipped" | "model" | "baseline";
  /** On a masked agent no code may be made in memory. Not for compilers and profilers, which are not what is measured. */
  readonly seal?: boolean;
  /**
   * The accelerator's counters may be read: CAP_PERFMON (NVIDIA's driver since 565 asks for no more) and no other capability. Given only where root drops to a
   * user of its own in bubblewrap; of what else it opens, the filter of system calls there shuts perf_event_open and bpf.
   */
  readonly counters?: boolean;
  /** Gets all of stdout as it comes; the log keeps its ends only. */
  readonly onStdout?: (chunk: Buffer) => void;
}

/** Code that may not run here, with the fix in its message. */
export class SandboxRefused extends Error {
  override readonly name = "SandboxRefused";
}
