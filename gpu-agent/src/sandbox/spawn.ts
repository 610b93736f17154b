import { randomBytes } from "node:crypto";
import { lchown, lstat, mkdtemp, readdir, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PLATFORM } from "../platform.ts";
import { ProcessTree, type TreeCommand } from "../process/process-tree.ts";
import { MARK_NAME } from "../process/sweep.ts";
import { bwrapArgv } from "./bwrap-argv.ts";
import { privateUid } from "./private-uid.ts";
import { rlimitArgv, ulimitArgv } from "./rlimits.ts";
import { type Sandbox, type SandboxCommand, SandboxRefused } from "./sandbox.ts";
import { seatbeltArgv } from "./seatbelt.ts";
import { seccompProgram } from "./seccomp.ts";

const PATH = "/usr/bin:/bin";

const isRoot = (): boolean => process.getuid?.() === 0;

/** A file, or a folder and all that the agent put into it. No link is followed. */
async function giveTo(path: string, uid: number): Promise<void> {
  const within = (await lstat(path)).isDirectory() ? await readdir(path, { recursive: true, withFileTypes: true }) : [];
  for (const entry of within) await lchown(join(entry.parentPath, entry.name), uid, uid);
  await lchown(path, uid, uid);
}

/**
 * Runs a command in the sandbox. Throws SandboxRefused where this code may not run on this machine. What is mounted "rw", a file or a folder, is handed
 * to the uid that the command gets, so it must be the command's alone. The caller stops the tree.
 */
export async function spawnSandboxed(sandbox: Sandbox, command: SandboxCommand): Promise<ProcessTree> {
  if (sandbox.kind === "none") refuseUnsafe(sandbox, command);
  const own = isRoot() && sandbox.tools.setpriv !== null && ownUser(sandbox, command) ? privateUid() : null;
  if (own !== null) for (const m of command.mounts) if (m.mode === "rw") await giveTo(m.from, own);
  const mark = `${MARK_NAME}=${sandbox.tag ?? "agent"}-${randomBytes(8).toString("hex")}`;
  const limits = [...dropArgv(sandbox, own, command.counters === true), ...limitArgv(sandbox, command)];
  const inner = [...limits, ...command.argv];
  const outer = command.cpus !== null && sandbox.tools.taskset !== null ? [sandbox.tools.taskset, "-c", command.cpus] : [];
  const { python, device } = sandbox;
  // torch.compile and others name their caches after the user, whom no /etc/passwd in there knows.
  const given = { USER: "stack", ...(python ? { PATH: `${python.bin}:${PATH}` } : {}), ...device?.env, ...command.env };
  const listen = {
    ...(command.onStdout ? { onStdout: command.onStdout } : {}),
    ...(sandbox.platform ? { processes: sandbox.platform.processes } : {}),
  };
  const bare = { cwd: command.cwd, uid: own, mark, bwrap: null, ...listen };
  if (sandbox.kind === "seatbelt") return startInSeatbelt(sandbox, command, limits, { ...bare, env: { PATH, LANG: "C.UTF-8", ...given } });
  if (sandbox.kind === "none")
    return ProcessTree.start({
      argv: [...outer, ...inner],
      env: { PATH, HOME: "/nonexistent", TMPDIR: "/tmp", LANG: "C.UTF-8", ...given },
      ...bare,
    });
  if (sandbox.bwrap === null) throw new TypeError("a bubblewrap sandbox without bwrap");
  const seccomp = seccompProgram(process.arch, sandbox.masked === true && command.seal === true);
  const argv = bwrapArgv({
    bwrap: sandbox.bwrap,
    drop: sandbox.drop,
    seccomp: seccomp !== null,
    mounts: [...(python?.mounts ?? []).map((from) => ({ from, mode: "ro" as const })), ...command.mounts],
    ...(device ? { device } : {}),
    env: given,
    cwd: command.cwd,
    tmpBytes: command.limits.fileBytes,
    argv: inner,
  });
  return ProcessTree.start({
    argv: [...outer, ...argv],
    env: { PATH },
    cwd: "/",
    uid: own,
    mark,
    bwrap: { seccomp: seccomp ?? new Uint8Array() },
    ...listen,
  });
}

/** With a home and temporary folder of its own, which goes when it ends. */
async function startInSeatbelt(
  sandbox: Sandbox,
  command: SandboxCommand,
  limits: readonly string[],
  tree: Omit<TreeCommand, "argv">,
): Promise<ProcessTree> {
  const { sandboxExec } = sandbox.platform ?? PLATFORM;
  if (sandboxExec === null) throw new TypeError("a seatbelt sandbox without sandbox-exec");
  const temporary = await realpath(await mkdtemp(join(tmpdir(), "vs-tmp-")));
  const clear = (): Promise<void> => rm(temporary, { recursive: true, force: true }).catch(() => undefined);
  try {
    const argv = [...limits, ...seatbeltArgv(sandboxExec, sandbox, command, temporary), ...command.argv];
    const started = await ProcessTree.start({ ...tree, argv, env: { HOME: temporary, TMPDIR: temporary, ...tree.env } });
    void started.exited.then(clear);
    return started;
  } catch (error) {
    await clear();
    throw error;
  }
}

function refuseUnsafe(sandbox: Sandbox, command: SandboxCommand): void {
  if (command.provenance === "model" && !sandbox.unsafe)
    throw new SandboxRefused(
      `this machine gives no sandbox (${sandbox.reason}), so code written by a model does not run here; ` +
        `${sandbox.platform?.name === "darwin" ? "" : "allow user namespaces, or "}accept the risk with --unsafe-no-sandbox`,
    );
}

/** Without a sandbox an engine that the agent installed itself runs as the agent's own user: it must read the agent's own folders. */
function ownUser(sandbox: Sandbox, command: SandboxCommand): boolean {
  return sandbox.kind === "bubblewrap" ? sandbox.drop === "setuid" : command.provenance !== "baseline";
}

function dropArgv(sandbox: Sandbox, uid: number | null, counters: boolean): string[] {
  const setpriv = sandbox.tools.setpriv;
  if (setpriv === null) return [];
  // The accelerator's own group and no other, where its files are not open to everyone.
  const groups = sandbox.device && sandbox.device.groups.length > 0 ? `--groups=${sandbox.device.groups.join(",")}` : "--clear-groups";
  const granted = counters && sandbox.kind === "bubblewrap" && seccompProgram() !== null ? ",+perfmon" : "";
  const caps = [`--bounding-set=-all${granted}`, `--inh-caps=-all${granted}`, ...(granted === "" ? [] : [`--ambient-caps=-all${granted}`])];
  const drop = uid === null ? [] : [`--reuid=${uid}`, `--regid=${uid}`, groups, ...caps];
  // Inside bubblewrap its own --die-with-parent holds; without it this at least takes the first process along when the agent dies.
  const death = sandbox.kind === "none" ? ["--pdeathsig=KILL"] : [];
  return [setpriv, "--no-new-privs", ...drop, ...death];
}

function limitArgv(sandbox: Sandbox, command: SandboxCommand): string[] {
  const { name, processes } = sandbox.platform ?? PLATFORM;
  if (name === "darwin") {
    const own = process.getuid?.();
    return ulimitArgv(command.limits, processes.read().filter((p) => processes.uidOf(p) === own).length);
  }
  return sandbox.tools.prlimit === null ? [] : rlimitArgv(sandbox.tools.prlimit, command.limits, sandbox.device !== undefined);
}
