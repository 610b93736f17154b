import { realpathSync } from "node:fs";
import type { Sandbox, SandboxCommand } from "./sandbox.ts";

export interface SeatbeltPlan {
  /** Beside the system's own folders. */
  readonly readable: readonly string[];
  /** Folders of its own, in which it may also listen on unix sockets. */
  readonly writable: readonly string[];
  /** It may compute on the GPU. */
  readonly gpu: boolean;
}

/** What a dynamic linker, a shell, the frameworks and the shaders' compiler need; nothing of a user's, and neither /usr/local, where the agent's own folders lie, nor /System/Volumes/Data, which has all. */
const SYSTEM = [
  "/usr/bin",
  "/usr/lib",
  "/usr/libexec",
  "/usr/sbin",
  "/usr/share",
  "/bin",
  "/sbin",
  "/System/Cryptexes",
  "/System/Library",
  "/System/Volumes/Preboot/Cryptexes",
  "/Library/Apple",
  "/Library/Developer/CommandLineTools",
  "/private/var/db/dyld",
  "/private/var/db/timezone",
  "/private/var/db/xcode_select_link",
  "/private/var/select",
];
const DEVICES = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/dtracehelper"];
/** Metal: the GPU's user client, under the names with which others ran MLX, PyTorch and llama.cpp on M1 to M4, and the service that compiles shaders. */
const GPU = [
  '(allow iokit-open (iokit-user-client-class "AGXDeviceUserClient") (iokit-user-client-class "IOGPUDeviceUserClient"))',
  '(allow mach-lookup (global-name "com.apple.MTLCompilerService"))',
  "(allow iokit-get-properties)",
];

/**
 * A profile for macOS's `sandbox-exec -p`: everything is denied but what stands here. No network but unix sockets of its own, no signal to another process, no file of a
 * user. Paths must be real ones: the kernel compares what links lead to. Throws TypeError for a path that can't stand in a profile. Never run on a Mac yet.
 */
export function seatbeltProfile(plan: SeatbeltPlan): string {
  const within = (folders: readonly string[]): string => folders.map((path) => `(subpath ${quoted(path)})`).join(" ");
  return [
    "(version 1)",
    "(deny default)",
    "(allow process-exec process-fork)",
    "(allow process-info* (target same-sandbox))",
    "(allow signal (target same-sandbox))",
    "(allow sysctl-read)",
    "(allow file-read-metadata)",
    // The linker opens the root folder itself.
    `(allow file-read* (subpath "/dev/fd") ${["/", "/dev", ...DEVICES].map((path) => `(literal ${quoted(path)})`).join(" ")})`,
    `(allow file-read* file-map-executable ${within([...SYSTEM, ...plan.readable, ...plan.writable])})`,
    `(allow file-write* ${[...DEVICES.map((path) => `(literal ${quoted(path)})`), within(plan.writable)].join(" ").trim()})`,
    ...(plan.writable.length === 0
      ? []
      : ["(allow system-socket)", `(allow network-bind network-inbound ${plan.writable.map(socketsIn).join(" ")})`]),
    ...(plan.gpu ? GPU : []),
    "",
  ].join("\n");
}

/** argv prefix that runs a command in the sandbox. `temporary`: a folder that is its alone. Throws Error where what it is to see is not there. */
export function seatbeltArgv(
  sandboxExec: string,
  sandbox: Sandbox,
  { mounts }: Pick<SandboxCommand, "mounts">,
  temporary: string,
): string[] {
  const real = (paths: readonly string[]): string[] => [...new Set(paths.flatMap((path) => [path, realpathSync(path)]))];
  const of = (mode: "ro" | "rw"): string[] => mounts.filter((m) => m.mode === mode).map((m) => m.from);
  const profile = seatbeltProfile({
    readable: real([...(sandbox.python?.mounts ?? []), ...of("ro")]),
    writable: real([...of("rw"), temporary]),
    gpu: sandbox.device !== undefined,
  });
  return [sandboxExec, "-p", profile];
}

const socketsIn = (folder: string): string => `(local unix-socket (subpath ${quoted(folder)}))`;

function quoted(path: string): string {
  if (!path.startsWith("/") || /\p{Cc}/u.test(path)) throw new TypeError(`${JSON.stringify(path)} can't stand in a sandbox profile`);
  return `"${path.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}
