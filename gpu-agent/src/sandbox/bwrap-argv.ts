import { existsSync, lstatSync, readlinkSync } from "node:fs";
import type { DeviceNodes } from "./device-nodes.ts";
import type { Mount } from "./sandbox.ts";

export interface BwrapPlan {
  readonly bwrap: string;
  /** setuid: root drops to a user of its own inside, by setpriv. userns: an unprivileged user's own namespace. */
  readonly drop: "setuid" | "userns";
  readonly seccomp: boolean;
  readonly mounts: readonly Mount[];
  /** An accelerator's device files and what its runtime reads; absent: none. */
  readonly device?: DeviceNodes;
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Size of /tmp, which is memory. */
  readonly tmpBytes: number;
  /** Prefix that runs inside (setpriv, prlimit), then the command. */
  readonly argv: readonly string[];
}

/** What a dynamic linker and a toolchain need of /etc; nothing that names users, hosts or keys. */
const ETC = ["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"];
/** Topology, which engines read to place threads. */
const SYS = ["/sys/devices/system/cpu", "/sys/devices/system/node"];
const SYSTEM = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
const SHM_BYTES = 64 * 2 ** 20;

/** argv of bubblewrap. Later mounts lie over earlier ones, so the order matters: system, private folders, then the caller's by depth, then read-only roots. */
export function bwrapArgv(plan: BwrapPlan): string[] {
  const args = [plan.bwrap, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"];
  if (plan.drop === "userns") args.push("--unshare-user", "--disable-userns");
  args.push("--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv");
  for (const [name, value] of Object.entries({ PATH: "/usr/bin:/bin", HOME: "/tmp", TMPDIR: "/tmp", LANG: "C.UTF-8", ...plan.env }))
    args.push("--setenv", name, value);
  args.push("--ro-bind", "/usr", "/usr");
  for (const path of SYSTEM) args.push(...systemFolder(path));
  args.push(...foldersAbove([...ETC, ...SYS]));
  for (const path of [...ETC, ...SYS]) args.push("--ro-bind-try", path, path);
  const read = plan.device?.readOnly ?? [];
  args.push(...foldersAbove(read));
  for (const path of read) args.push("--ro-bind", path, path);
  args.push("--proc", "/proc", "--dev", "/dev");
  args.push(...foldersAbove(plan.device?.nodes ?? []));
  for (const node of plan.device?.nodes ?? []) args.push("--dev-bind", node, node);
  args.push("--perms", "1777", "--size", String(plan.device?.shmBytes ?? SHM_BYTES), "--tmpfs", "/dev/shm");
  args.push("--perms", "1777", "--size", String(plan.tmpBytes), "--tmpfs", "/tmp");
  const inside = (m: Mount): string => m.to ?? m.from;
  const depth = (m: Mount): number => inside(m).split("/").length;
  const mounts = [...plan.mounts].sort((a, b) => depth(a) - depth(b));
  args.push(...foldersAbove(mounts.map(inside)));
  for (const m of mounts) args.push(m.mode === "rw" ? "--bind" : "--ro-bind", m.from, inside(m));
  args.push("--remount-ro", "/dev", "--remount-ro", "/");
  args.push("--chdir", plan.cwd, "--json-status-fd", "3");
  if (plan.seccomp) args.push("--seccomp", "4");
  args.push("--", ...plan.argv);
  return args;
}

/** bubblewrap makes missing parents with mode 0700, which the user that root drops to could not enter. */
function foldersAbove(paths: readonly string[]): string[] {
  const above = new Set<string>();
  for (const path of paths) {
    const parts = path.split("/").slice(1, -1);
    parts.forEach((_, i) => above.add(`/${parts.slice(0, i + 1).join("/")}`));
  }
  const made = [...above].filter((dir) => !/^\/(usr|bin|sbin|lib[^/]*|proc|dev|tmp)$/.test(dir) && !dir.startsWith("/usr/"));
  return made.flatMap((dir) => ["--perms", "0755", "--dir", dir]);
}

/** /lib and its like are links into /usr on merged systems, folders on others. */
function systemFolder(path: string): string[] {
  if (!existsSync(path)) return [];
  return lstatSync(path).isSymbolicLink() ? ["--symlink", readlinkSync(path), path] : ["--ro-bind", path, path];
}
