import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { BrokerAccess } from "../../coordinator/src/broker/access.ts";
import { writePrivate } from "../../coordinator/src/broker/principals.ts";
import { upLock } from "../../coordinator/src/cli/up.ts";
import { loadSettings } from "../../coordinator/src/config.ts";
import { CHECKS } from "../../coordinator/src/operate/doctor/doctor.ts";
import type { Finding, Patient } from "../../coordinator/src/operate/doctor/check.ts";
import { dialCoordinator, type Dialled } from "../../coordinator/src/operate/doctor/dialled.ts";
import { acquireLock } from "../../coordinator/src/process/lock.ts";
import { natsServer, startBroker, type RealBroker } from "../kit/real-broker.ts";

export const PROJECT = join(import.meta.dirname, "../..");

/** Writes a file under a folder, with the folders that it needs. */
export function put(root: string, path: string, text: string, mode = 0o644): void {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text, { mode });
  chmodSync(file, mode);
}

/** A program that prints something and ends. */
export const program = (dir: string, name: string, body: string): void => put(dir, name, `#!/bin/sh\n${body}\n`, 0o755);

/** A machine of files, on which nothing is wrong. */
export function healthyMachine(root: string): void {
  put(root, "/proc/mounts", "/dev/sda1 / ext4 rw 0 0\n");
  put(
    root,
    "/proc/self/limits",
    "Limit  Soft Limit  Hard Limit  Units\nMax open files            65536                65536                files\n",
  );
  put(root, "/proc/sys/kernel/perf_event_paranoid", "1\n");
  put(root, "/sys/fs/cgroup/memory.max", "max\n");
  put(root, "/proc/self/cgroup", "0::/system/agent\n");
  put(root, "/sys/fs/cgroup/cpu.max", "max 100000\n");
  put(root, "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  put(root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
  put(root, "/etc/machine-id", `${"0123456789abcdef".repeat(2)}\n`);
  mkdirSync(join(root, "dev"), { recursive: true });
}

/** Programs that say what good ones say; what a doctor runs is found on this PATH alone. */
function healthyPrograms(bin: string): void {
  program(bin, "git", "echo git version 2.47.1");
  program(bin, "c++", "exit 0");
  program(bin, "python3", "echo 3.12.1");
  program(bin, "bwrap", "exit 0");
  program(bin, "node", "echo v24.3.0");
}

const DESCRIPTION = { sandbox: "bubblewrap", device: { name: "a processor", isa: "avx2", labels: {} }, devices: [{ name: "a processor" }] };

/** An installation whose agent's probe says this. */
export function installation(root: string, labels: Record<string, string> = {}): void {
  for (const path of ["coordinator/src", "shared/src", "stacks", "prompts/skills"]) mkdirSync(join(root, path), { recursive: true });
  const said = { ...DESCRIPTION, device: { ...DESCRIPTION.device, labels } };
  put(root, "gpu-agent/src/main.ts", `process.stdout.write(${JSON.stringify(JSON.stringify(said))});\n`);
}

export interface Ward extends AsyncDisposable {
  patient: Patient;
  dir: string;
  bin: string;
  real: RealBroker;
  /** Dials anew: what changed since is seen. */
  redial: (dial: () => Promise<Dialled>) => void;
}

/** What `up` leaves for others beside a coordinator, or what stands for one, in this process. */
export function announce(data: string, { url, seeds }: { url: string; seeds: Pick<BrokerAccess["seeds"], "client"> }): { release(): void } {
  const context = { v: 1, kind: "client", servers: [url], seed: seeds.client, pid: process.pid, startedAt: 1 };
  writePrivate(join(data, "client.json"), JSON.stringify(context));
  return acquireLock(upLock(data), "a test");
}

/** A data folder with a real broker at work in it, on a healthy machine. */
export async function openWard(dir: string): Promise<Ward> {
  const [data, bin, machine, root] = [join(dir, "data"), join(dir, "bin"), join(dir, "machine"), join(dir, "root")];
  mkdirSync(data, { mode: 0o700 });
  mkdirSync(join(dir, "cache"));
  const real = await startBroker(data);
  const lock = announce(data, real.broker);
  healthyMachine(machine);
  healthyPrograms(bin);
  installation(root);
  const settings = { ...loadSettings({ data }, { PATH: bin, HOME: dir }), natsServer, root, cache: join(dir, "cache") };
  const open: Dialled[] = [];
  let dialled: Promise<Dialled> | null = null;
  let how = () => dialCoordinator(settings);
  const patient: Patient = {
    ...{
      settings,
      node: false,
      data,
      agentId: "a1",
      online: false,
      root: machine,
      env: { PATH: bin },
      uid: process.getuid?.() ?? 0,
      gids: [0],
    },
    ...{ execPath: process.execPath, now: Date.now, disk: { failBytes: 1, warnBytes: 2 } },
    dial: () => (dialled ??= how().then((d) => (open.push(d), d))),
  };
  return {
    ...{ patient, dir, bin, real },
    redial: (dial) => {
      how = dial;
      dialled = null;
    },
    [Symbol.asyncDispose]: async () => {
      for (const d of open) if (d.kind === "open") await d.close();
      lock.release();
      await real[Symbol.asyncDispose]();
    },
  };
}

export async function look(name: string, patient: Patient): Promise<Finding> {
  const check = CHECKS.find((c) => c.name === name);
  if (!check) throw new Error(`there is no check ${name}`);
  return check.look(patient);
}
