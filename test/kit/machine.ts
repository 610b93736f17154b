import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { tempDir } from "./temp-dir.ts";

/** What a test did in a machine. Output and errors together, as a person would see them. */
export interface Ran {
  code: number | null;
  text: string;
}

/** Hierarchies that systemd as process 1 of a cgroup namespace writes to. */
const CGROUPS = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"].filter((dir) => existsSync(`${dir}/cgroup.procs`));
const BOOT_MS = 30_000;

/**
 * A machine of its own: processes, mounts, network (loopback only), host name, and a root whose changes are in memory. With `systemd` as its process 1, units really
 * run. Needs root and Linux: `machineProblem` says why there can be none.
 */
export class Machine implements AsyncDisposable {
  readonly #unshare: ChildProcess;
  readonly #pid: number;
  readonly #folder: ReturnType<typeof tempDir>;
  readonly #cgroup: string;

  private constructor(unshare: ChildProcess, pid: number, folder: ReturnType<typeof tempDir>, cgroup: string) {
    [this.#unshare, this.#pid, this.#folder, this.#cgroup] = [unshare, pid, folder, cgroup];
  }

  /** binds: folder here → folder there. */
  static async start(init: "systemd" | "none", binds: Record<string, string> = {}): Promise<Machine> {
    const folder = tempDir("machine");
    const cgroup = `vibeserve-test-${process.pid}-${Date.now()}`;
    if (init === "systemd") for (const root of CGROUPS) mkdirSync(join(root, cgroup));
    // The shell moves itself into the group before it becomes unshare: the namespace's root is where it is then.
    const enter = init === "systemd" ? CGROUPS.map((root) => `echo $$ >${join(root, cgroup)}/cgroup.procs; `).join("") : "";
    const args = Object.entries(binds).map(([from, to]) => `${from}=${to}`);
    const script = `${enter}exec unshare -m -p -i -u -n -C --fork --kill-child "$@"`;
    const argv = ["-c", script, "sh", "bash", join(import.meta.dirname, "machine.sh"), init, folder.path, ...args];
    const unshare = spawn("/bin/sh", argv, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [unshare.stdout, unshare.stderr])
      stream.on("data", (chunk: Buffer) => {
        said += chunk.toString();
      });
    const end = Date.now() + BOOT_MS;
    for (;;) {
      await sleep(50);
      const pid = Number(childrenOf(unshare.pid)[0] ?? 0);
      const machine = new Machine(unshare, pid, folder, cgroup);
      // Its host's root is unmounted last, so a machine without /mnt/proc is whole.
      const ready =
        pid > 0 && machine.sh(`test -d /run/upper -a ! -e /mnt/proc${init === "systemd" ? " && systemctl is-system-running --wait" : ""}`);
      if (ready && (ready.code === 0 || ready.text.includes("degraded"))) return machine;
      if (unshare.exitCode !== null || Date.now() > end) {
        await machine[Symbol.asyncDispose]();
        throw new Error(`no machine of its own (${init}): ${said} ${ready ? ready.text : ""}`);
      }
    }
  }

  /** Runs a script as its root, with the system's PATH. */
  sh(script: string, shell: readonly string[] = ["/bin/sh"]): Ran {
    const enter = ["-t", String(this.#pid), "-m", "-p", "-i", "-u", "-n", "-C", "-w", "env", "-i"];
    const { status, stdout, stderr } = spawnSync(
      "nsenter",
      [...enter, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/run", ...shell, "-c", `exec 2>&1; ${script}`],
      { encoding: "utf8", maxBuffer: 2 ** 26 },
    );
    return { code: status, text: `${stdout}${stderr}` };
  }

  /**
   * Everything that was added to or changed in its file tree, sorted, a line each: kind, mode, owner, path, and what it holds. But for logs, what is bound to /srv, and
   * /etc's lists of users, which are written again in the same words; and for these paths.
   */
  changes(...left: string[]): string[] {
    const users = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"].flatMap((name) => [`etc/${name}`, `etc/${name}-`]);
    const skipped = ["var/log", "var/tmp", "var/lib/systemd", "root", "srv", "etc/.pwd.lock", ...users, ...left];
    const not = skipped.map((path) => `-path /run/upper/${path} -o`).join(" ");
    const where = `/run/upper \\( ${not} -path /run/upper/nothing \\) -prune -o`;
    const { text } = this.sh(`find ${where} -printf '%y %m %U:%G %p %l\\n'; find ${where} -type f -print0 | xargs -0 -r sha256sum`);
    // Folders that were there before are copied up when something in them is changed.
    return text
      .split("\n")
      .filter((line) => line !== "" && !(line.startsWith("d ") && this.#wasThere(line)))
      .sort();
  }

  /**
   * Puts a program of this name before the system's, whose call of a given number fails; all others do as ever. `run` runs a script with it and says whether there was
   * such a call.
   */
  failing(tool: string): { run(nth: number, script: string): Ran & { reached: boolean } } & Disposable {
    this.sh(
      `mkdir -p /tmp/stubs; touch /tmp/count; chmod 666 /tmp/count; printf '#!/bin/sh\\nn=$(($(cat /tmp/count) - 1)); echo $n >/tmp/count; [ $n = 0 ] && exit 1\\nPATH=\${PATH#*:} exec ${tool} "$@"\\n' >/tmp/stubs/${tool}; chmod +x /tmp/stubs/${tool}`,
    );
    return {
      run: (nth, script) => {
        const ran = this.sh(`echo ${nth} >/tmp/count; PATH=/tmp/stubs:$PATH ${script}`);
        return { ...ran, reached: Number(this.sh("cat /tmp/count").text) <= 0 };
      },
      [Symbol.dispose]: () => void this.sh("rm -rf /tmp/stubs"),
    };
  }

  #wasThere(line: string): boolean {
    return existsSync(line.split(" ")[3]?.replace("/run/upper", "") || "/");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = this.#unshare.exitCode === null && this.#unshare.signalCode === null ? once(this.#unshare, "exit") : null;
    this.#unshare.kill("SIGKILL");
    await gone;
    for (const root of CGROUPS) await removeGroup(join(root, this.#cgroup));
    this.#folder[Symbol.dispose]();
  }
}

function childrenOf(pid: number | undefined): string[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
      .trim()
      .split(" ")
      .filter((text) => text !== "");
  } catch {
    return [];
  }
}

/** A group's processes are gone a moment after their namespace's first; only then can it be removed. */
export async function removeGroup(dir: string): Promise<void> {
  for (let round = 0; existsSync(dir) && round < 100; round++) {
    removeTree(dir);
    await sleep(50);
  }
}

function removeTree(dir: string): void {
  try {
    for (const entry of readdirSync(dir, { withFileTypes: true })) if (entry.isDirectory()) removeTree(join(dir, entry.name));
    rmdirSync(dir);
  } catch {
    // Next round.
  }
}

/** Why no machine of its own can be made here, or null. */
export function machineProblem(init: "systemd" | "none"): string | null {
  if (process.platform !== "linux") return "not Linux";
  if (process.getuid?.() !== 0) return "not root";
  if (init === "systemd" && !existsSync("/lib/systemd/systemd")) return "systemd is not installed";
  if (init === "systemd" && CGROUPS.length === 0) return "no control groups";
  const probe = tempDir("machine-probe");
  try {
    writeFileSync(join(probe.path, "file"), "");
    const script = `mount -t tmpfs tmpfs ${probe.path} && mkdir ${probe.path}/u ${probe.path}/w ${probe.path}/r && mount -t overlay overlay -o lowerdir=/,upperdir=${probe.path}/u,workdir=${probe.path}/w ${probe.path}/r`;
    const { status, stderr } = spawnSync("unshare", ["-m", "-p", "-i", "-u", "-n", "-C", "--fork", "sh", "-c", script], {
      encoding: "utf8",
    });
    return status === 0 ? null : `no namespaces with an overlay: ${stderr.trim()}`;
  } finally {
    probe[Symbol.dispose]();
  }
}
