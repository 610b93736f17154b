import { accessSync, constants } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../config-error.ts";
import { PLATFORM, type Platform } from "../platform.ts";
import { probeSeatbelt } from "./probe-seatbelt.ts";
import { SERVE_LIMITS } from "./rlimits.ts";
import type { ProcessTree } from "../process/process-tree.ts";
import type { Sandbox } from "./sandbox.ts";
import { spawnSandboxed } from "./spawn.ts";

export interface SandboxOptions {
  /** Places to look for bwrap, first match that works wins: the cache's own, then the system's. */
  readonly bwrapPaths: readonly string[];
  readonly unsafe: boolean;
  readonly tag?: string;
  /** Tests and operators: do not even try one. */
  readonly forceNone?: boolean;
  /** Default: this process's. */
  readonly platform?: Platform;
}

const TOOL_FOLDERS = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
const TRIAL_MS = 5_000;

/**
 * Which sandbox this machine really gives: runs a command in each that could work and looks at what it printed. Costs some 20 ms where the first works.
 * Throws if not even rlimits can be set (on Linux util-linux's prlimit is missing): then nothing untrusted may run at all. Throws ConfigError where candidates
 * would be root.
 */
export async function probeSandbox(options: SandboxOptions): Promise<Sandbox> {
  const platform = options.platform ?? PLATFORM;
  const tools = { prlimit: findTool("prlimit"), setpriv: findTool("setpriv"), taskset: findTool("taskset") };
  const wrong = rootProblem(platform, tools.setpriv);
  if (wrong !== null) throw new ConfigError(`gpu-agent: ${wrong}`);
  if (platform.name === "darwin") return probeSeatbelt(options, platform);
  if (tools.prlimit === null) throw new Error("prlimit is not installed, so no limits can be set on candidates: install util-linux");
  const base = { tools, unsafe: options.unsafe, tag: options.tag ?? "agent" };
  const reasons: string[] = [];
  if (options.forceNone === true) reasons.push("switched off");
  else {
    const found = options.bwrapPaths.filter(isExecutable);
    if (found.length === 0) reasons.push(`no bubblewrap at ${options.bwrapPaths.join(" or ")}`);
    const drops = process.getuid?.() === 0 && tools.setpriv !== null ? (["setuid", "userns"] as const) : (["userns"] as const);
    for (const bwrap of found)
      for (const drop of drops) {
        const sandbox: Sandbox = { kind: "bubblewrap", reason: "", bwrap, drop, ...base };
        const failure = await trial(sandbox);
        if (failure === null) return sandbox;
        reasons.push(`${bwrap} (${drop}): ${failure}`);
      }
  }
  return { kind: "none", reason: reasons.join("; "), bwrap: null, drop: "userns", ...base };
}

/** Why an agent of this user can't run here, with the way out: root must have something that gives a candidate a user of its own. Null: it can. */
export function rootProblem({ name, uid }: Pick<Platform, "name" | "uid">, setpriv: string | null): string | null {
  if (uid !== 0) return null;
  if (name === "darwin") return "it runs as root, and on macOS candidates would too: run it as a user of its own";
  return setpriv === null
    ? "it runs as root, and without setpriv candidates would too: install util-linux, or run it as a user of its own"
    : null;
}

/** null if the sandbox works: the command ran, as process 2 of its own namespace, with no network but loopback. */
async function trial(sandbox: Sandbox): Promise<string | null> {
  const tree = await spawnSandboxed(sandbox, {
    argv: ["/bin/sh", "-c", "echo pid=$$; while read -r line; do case $line in *:*) echo net=${line%%:*};; esac; done < /proc/net/dev"],
    env: {},
    mounts: [],
    cwd: "/tmp",
    cpus: null,
    limits: { ...SERVE_LIMITS, processes: 64 },
    provenance: "shipped",
  });
  try {
    const { text, failure } = await outcomeOf(tree);
    if (failure !== null) return failure;
    const links = [...text.matchAll(/net=(\S+)/g)].map((m) => m[1]).filter((name) => name !== "lo");
    const pid = Number(/pid=(\d+)/.exec(text)?.[1] ?? NaN);
    if (!(pid < 10)) return `no pid namespace: its pid was ${pid}`;
    return links.length > 0 && !links.every(isInertLink) ? `no network namespace: it saw ${links.join(", ")}` : null;
  } finally {
    await tree.stop(0);
  }
}

/** What a trial printed; `failure`: it did not end well, in words. */
export async function outcomeOf(tree: ProcessTree): Promise<{ readonly text: string; readonly failure: string | null }> {
  const exit = await Promise.race([tree.exited, sleep(TRIAL_MS, null, { ref: false })]);
  if (exit === null) return { text: "", failure: `no answer in ${TRIAL_MS} ms` };
  await tree.logEnded();
  const text = tree.log.text().trim();
  return { text, failure: exit.code === 0 ? null : text || `exit code ${exit.code ?? exit.signal ?? "unknown"}` };
}

/** Kernels with tunnel modules put their (down, unroutable) fallback devices into every new network namespace. */
const isInertLink = (name: string | undefined): boolean =>
  /^(tunl|sit|gre|gretap|erspan|ip_vti|ip6_vti|ip6tnl|ip6gre)\d+$/.test(name ?? "");

/** Absolute path of a program of the system, or null. PATH is not asked: an agent must not run what a user's PATH says. */
export function findTool(name: string): string | null {
  return TOOL_FOLDERS.map((dir) => `${dir}/${name}`).find(isExecutable) ?? null;
}

export function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
