export interface SeatbeltPlan {
  /** Beside the system's own folders. */
  readonly readable: readonly string[];
  readonly writable: readonly string[];
  /** Folder of the unix socket that it may listen on; null: it opens none. */
  readonly socketDir: string | null;
  /** It may compute on the GPU. */
  readonly gpu: boolean;
}

/** What a dynamic linker, the frameworks and the shaders' compiler need; nothing of a user's. */
const SYSTEM = [
  "/usr",
  "/bin",
  "/sbin",
  "/System",
  "/Library/Apple",
  "/Library/Developer/CommandLineTools",
  "/private/var/db/dyld",
  "/dev",
];
const DEVICES = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/dtracehelper"];
/** Metal: the GPU's user clients, and the service that compiles shaders. */
const GPU = [
  '(allow iokit-open (iokit-user-client-class "AGXDeviceUserClient" "AGXSharedUserClient" "IOSurfaceRootUserClient" "AppleM2ScalerCSCDriver"))',
  '(allow mach-lookup (global-name "com.apple.MTLCompilerService") (global-name "com.apple.gpu-server"))',
  "(allow iokit-get-properties)",
];

/**
 * A profile for macOS's `sandbox-exec -p`: everything is denied but what stands here. No network but the one unix socket, no other process, no file of a
 * user. Throws TypeError for a path that can't stand in a profile. Never run on a Mac yet.
 */
export function seatbeltProfile(plan: SeatbeltPlan): string {
  const paths = (verb: string, folders: readonly string[]): string[] =>
    folders.length === 0 ? [] : [`(allow ${verb} ${folders.map((path) => `(subpath ${quoted(path)})`).join(" ")})`];
  return [
    "(version 1)",
    "(deny default)",
    "(allow process-exec process-fork)",
    "(allow signal (target same-sandbox))",
    "(allow sysctl-read)",
    "(allow file-read-metadata)",
    ...paths("file-read*", [...SYSTEM, ...plan.readable, ...plan.writable]),
    ...paths("file-write*", plan.writable),
    `(allow file-write* ${DEVICES.map((path) => `(literal ${quoted(path)})`).join(" ")})`,
    ...(plan.socketDir === null
      ? []
      : [
          `(allow file-read* file-write* (subpath ${quoted(plan.socketDir)}))`,
          `(allow network-bind network-inbound (local unix-socket (subpath ${quoted(plan.socketDir)})))`,
        ]),
    ...(plan.gpu ? GPU : []),
    "",
  ].join("\n");
}

function quoted(path: string): string {
  if (!path.startsWith("/") || /\p{Cc}/u.test(path)) throw new TypeError(`${JSON.stringify(path)} can't stand in a sandbox profile`);
  return `"${path.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}
