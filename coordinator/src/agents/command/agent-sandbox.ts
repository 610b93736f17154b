import { existsSync, lstatSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { bubblewrapAsset, findProgram, placeOf } from "../../setup/index.ts";
import { digestsHere } from "../../setup/pinned-assets.ts";
import { runTool } from "../../setup/run-tool.ts";

/** Whether this machine can hold a coding agent. There is no way round it: what it can't hold does not run. */
export type AgentSandbox = { bwrap: string } | { refused: string };

/** Its own namespaces of every kind, no way to make more, no capability, a user that is not root. */
const ISOLATED = [
  ...["--unshare-all", "--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"],
  ...["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"],
];

const FIX =
  "a coding agent runs only in a sandbox: on Linux, install bubblewrap 0.8 or newer (`apt install bubblewrap`) or run the set-up, and allow user namespaces " +
  "(sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0; in a container " +
  "--security-opt seccomp=unconfined); or choose another agent";

/** Tries the system's bubblewrap, then the one that the set-up fetched into `cacheDir`, with the very isolation that is used later; some 20 ms. */
export async function locateBubblewrap(cacheDir: string, signal?: AbortSignal): Promise<AgentSandbox> {
  const fetched = digestsHere(bubblewrapAsset)?.run.map((file) => join(placeOf(bubblewrapAsset, cacheDir), file)) ?? [];
  const places = [await findProgram("bwrap", signal), ...fetched].filter((p) => p !== undefined);
  const reasons: string[] = [];
  for (const bwrap of places.filter((p) => existsSync(p))) {
    const trial = await runTool([bwrap, ...ISOLATED, "--ro-bind", "/", "/", "/bin/sh", "-c", "exit 0"], { signal });
    if (trial.kind === "ended" && trial.code === 0) return { bwrap };
    reasons.push(`${bwrap}: ${trial.kind === "missing" ? "is gone" : (trial.text.trim().split("\n").at(-1) ?? "failed")}`);
  }
  return { refused: `${reasons.length === 0 ? "there is no bubblewrap here" : reasons.join("; ")}; ${FIX}` };
}

/** Where things are in the sandbox: always the same, so that prompts can be cached and say nothing of this machine. */
export const INSIDE = {
  worktree: "/worktree",
  home: "/home/agent",
  bin: "/vibeserve/bin",
  node: "/vibeserve/bin/node",
  enter: "/vibeserve/enter.mjs",
  mcp: "/vibeserve/mcp-stdio.mjs",
  run: "/vibeserve/run",
} as const;

export interface SandboxPlan {
  bwrap: string;
  /** The only folder of this machine that can be written to. */
  worktree: string;
  /** Sockets, prompt and plan of this run; read-only. */
  run: string;
  /** Files and folders of the CLI's installation; read-only, under their own paths. */
  installation: readonly string[];
  env: Readonly<Record<string, string>>;
}

/** Memory that each of /tmp, /dev/shm and the home may take. */
const TMPFS_BYTES = 1024 * 2 ** 20;
/** A candidate's tree is at most 16 MiB; objects of a trial build are larger. */
const FILE_BYTES = 256 * 2 ** 20;
const PRLIMIT = "/usr/bin/prlimit";
/** Public certificates and the linker's own; nothing that names users, hosts or keys. */
const ETC = [
  ...["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"],
  ...["/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted"],
];
const OURS = ["passwd", "group", "hosts"];

/** What stands in the sandbox's /etc/passwd and its like: some CLIs ask who they are. */
export const ETC_FILES: Readonly<Record<string, string>> = {
  passwd: `agent:x:1000:1000::${INSIDE.home}:/bin/sh\n`,
  group: "agent:x:1000:\n",
  hosts: "127.0.0.1 localhost sandbox\n",
  nothing: "",
};

/** argv of bubblewrap, which reports on descriptor 3. Later mounts lie over earlier ones. No credential is known here, so none can get in. */
export function sandboxArgv(plan: SandboxPlan): string[] {
  const args = [plan.bwrap, ...ISOLATED];
  const ro = (from: string, to = from) => args.push("--ro-bind", from, to);
  const env = {
    PATH: `${INSIDE.bin}:/usr/local/bin:/usr/bin:/bin`,
    HOME: INSIDE.home,
    TMPDIR: "/tmp",
    LANG: "C.UTF-8",
    USER: "agent",
    TERM: "dumb",
  };
  for (const [name, value] of Object.entries({ ...env, NO_COLOR: "1", ...plan.env })) args.push("--setenv", name, value);
  ro("/usr");
  for (const path of ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"].filter((p) => existsSync(p)))
    if (lstatSync(path).isSymbolicLink()) args.push("--symlink", readlinkSync(path), path);
    else ro(path);
  for (const path of ETC) args.push("--ro-bind-try", path, path);
  args.push("--proc", "/proc", "--dev", "/dev");
  for (const path of ["/dev/shm", "/tmp", INSIDE.home]) args.push("--perms", "0700", "--size", String(TMPFS_BYTES), "--tmpfs", path);
  for (const path of plan.installation) if (!path.startsWith("/usr/")) ro(path);
  ro(process.execPath, INSIDE.node);
  ro(join(import.meta.dirname, "inside", "enter.mjs"), INSIDE.enter);
  ro(join(import.meta.dirname, "inside", "mcp-stdio.mjs"), INSIDE.mcp);
  ro(plan.run, INSIDE.run);
  for (const name of OURS) ro(join(plan.run, "etc", name), `/etc/${name}`);
  args.push("--bind", plan.worktree, INSIDE.worktree);
  // The worktree's link to its repository: names a path of this machine, and is not the agent's to change.
  if (existsSync(join(plan.worktree, ".git"))) ro(join(plan.run, "etc", "nothing"), `${INSIDE.worktree}/.git`);
  args.push("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", INSIDE.worktree, "--json-status-fd", "3", "--");
  if (existsSync(PRLIMIT)) args.push(PRLIMIT, "--nproc=2048", "--nofile=16384", `--fsize=${FILE_BYTES}`, "--core=0", "--");
  return [...args, INSIDE.node, INSIDE.enter, `${INSIDE.run}/plan.json`];
}
