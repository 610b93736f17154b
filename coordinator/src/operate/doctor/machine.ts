import { existsSync, globSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { z } from "zod";
import { commandLine } from "../../command-line.ts";
import { agentEnvironment } from "../../config.ts";
import { temporaryFolder } from "../../process/temporary-folder.ts";
import { ALL_NAMESPACES } from "../../setup/bubblewrap.ts";
import { bubblewrapAsset, digestsHere, placeOf } from "../../setup/index.ts";
import { messageOf } from "../../process/message-of.ts";
import {
  check,
  executable,
  fail,
  ofAgents,
  ok,
  ran,
  readText,
  skipped,
  warn,
  which,
  type Check,
  type Finding,
  type Patient,
} from "./check.ts";

const DESCRIBE_MS = 90_000;
/** A reference of a small model in float32 with a build beside it. */
const LEAST_MEMORY = 2 * 2 ** 30;
const FILES = 4_096;

/** Which of the kernel's switches forbids namespaces to users, and how it is turned. */
const SYSCTLS = [
  {
    path: "/proc/sys/kernel/unprivileged_userns_clone",
    bad: (v: string) => v === "0",
    fix: "sysctl -w kernel.unprivileged_userns_clone=1",
  },
  { path: "/proc/sys/user/max_user_namespaces", bad: (v: string) => v === "0", fix: "sysctl -w user.max_user_namespaces=15000" },
  {
    path: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    bad: (v: string) => v === "1",
    fix: "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap",
  },
];

/** What measuring and running strangers' code needs of this machine. */
export const MACHINE: readonly Check[] = [
  ofAgents("sandbox", sandbox),
  ofAgents("perf", (at) => {
    const level = readText(at, "/proc/sys/kernel/perf_event_paranoid");
    if (level === null) return skipped("this kernel has no perf events");
    return Number(level) <= 2
      ? ok(`perf_event_paranoid is ${level}`)
      : warn(
          `perf_event_paranoid is ${level}: profiles fall back to callgrind, which is slow and has no hardware counters`,
          "sysctl -w kernel.perf_event_paranoid=2",
        );
  }),
  ofAgents("device-files", deviceFiles),
  ofAgents("devices", devices),
  check("cgroup", "both", (at) => {
    // Its own, and those above it: outside a container the root's has no limit.
    const own =
      /^0::(.*)$/m
        .exec(readText(at, "/proc/self/cgroup") ?? "")?.[1]
        ?.split("/")
        .filter(Boolean) ?? [];
    const folders = ["", ...own.map((_, i) => `/${own.slice(0, i + 1).join("/")}`)];
    const said = folders.map((folder) => readText(at, `/sys/fs/cgroup${folder}/memory.max`));
    // cgroup v1 says "no limit" by a number that no machine has.
    const limits = [...said, readText(at, "/sys/fs/cgroup/memory/memory.limit_in_bytes")].flatMap((max) =>
      Number(max ?? NaN) < 2 ** 60 ? Number(max) : [],
    );
    const memory = limits.length === 0 ? null : Math.min(...limits);
    const quota = (readText(at, "/sys/fs/cgroup/cpu.max") ?? readText(at, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us") ?? "max").split(" ")[0];
    if (memory !== null && memory < LEAST_MEMORY)
      return fail(
        `this cgroup has ${Math.floor(memory / 2 ** 20)} MiB: references and builds are killed`,
        "raise the container's memory limit to 4Gi or more",
      );
    if (quota !== undefined && Number(quota) > 0)
      return warn(
        "this cgroup has a CPU quota: the kernel stops a stack in the middle of a measurement",
        "remove the CPU limit, keep the request (Kubernetes: static CPU manager, whole cores)",
      );
    return ok(memory === null ? "no limit of memory or processors" : `${Math.floor(memory / 2 ** 20)} MiB of memory, no CPU quota`);
  }),
  ofAgents("huge-pages", (at) => {
    const text = readText(at, "/sys/kernel/mm/transparent_hugepage/enabled");
    const chosen = /\[(\w+)\]/.exec(text ?? "")?.[1];
    if (chosen === undefined) return skipped("this kernel has no transparent huge pages");
    return chosen === "never"
      ? warn(
          "transparent huge pages are off: weights are read through 4 KiB pages",
          "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
      : ok(`transparent huge pages: ${chosen}`);
  }),
  ofAgents("cpu-governor", ({ root }) => {
    const governors = globSync(`${root}/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`).map(
      (path) => readText({ root: "" }, path) ?? "?",
    );
    if (governors.length === 0) return skipped("frequencies are not this system's to set (a virtual machine)");
    const slow = [...new Set(governors.filter((g) => g !== "performance"))];
    return slow.length === 0
      ? ok("performance, on every core")
      : warn(`governor ${slow.join(", ")}: clocks follow the load, and measurements with them`, "cpupower frequency-set -g performance");
  }),
  check("machine-id", "both", (at) => {
    if (process.platform !== "linux" && at.root === "") return ok("the platform's own");
    const id = readText(at, "/etc/machine-id");
    if (id !== null && /^[0-9a-f]{32}$/.test(id)) return ok(`${id.slice(0, 8)}…`);
    return warn(
      `/etc/machine-id is ${id === null || id === "" ? "not there" : `"${id.slice(0, 20)}"`}: this machine is known by its boot, and two agents on it may not know that they share it`,
      "systemd-machine-id-setup",
    );
  }),
  check("open-files", "both", (at) => {
    const soft = /^Max open files\s+(\S+)/m.exec(readText(at, "/proc/self/limits") ?? "")?.[1];
    if (soft === undefined) return skipped("limits can't be read here");
    return soft === "unlimited" || Number(soft) >= FILES
      ? ok(`${soft} files at once`)
      : warn(`${soft} files at once; a coordinator of 1,000 agents holds more`, `ulimit -n ${FILES} (LimitNOFILE=65536 in the unit)`);
  }),
];

async function sandbox(at: Patient): Promise<Finding> {
  if (process.platform !== "linux") return skipped("bubblewrap exists on Linux only; an agent's log says which sandbox it has");
  const cached = join(placeOf(bubblewrapAsset, at.settings.cache), digestsHere(bubblewrapAsset)?.run[0] ?? "");
  const bwrap = which(at, "bwrap") ?? (executable(cached) ? cached : null);
  const consequence = "code written by models is refused on this machine";
  if (bwrap === null)
    return fail(`bubblewrap is not installed: ${consequence}`, "apt-get install bubblewrap, or npm start (it fetches one)");
  const { why } = await ran([bwrap, ...ALL_NAMESPACES]);
  if (why === null) return ok(`${bwrap} makes every namespace here`);
  const forbids = SYSCTLS.find(({ path, bad }) => bad(readText(at, path) ?? ""));
  const say = `${bwrap}: ${why}: ${consequence}`;
  return forbids
    ? fail(`${say}; ${forbids.path} forbids it`, forbids.fix)
    : fail(say, "in a container: hostUsers: false and the chart's seccomp profile, or a gVisor or Kata runtimeClass");
}

/** By mode and owner, as the kernel decides; what a container was not given is not there at all. */
function deviceFiles({ root, uid, gids }: Patient): Finding {
  const there = (dir: string, pattern: RegExp) =>
    existsSync(`${root}${dir}`)
      ? readdirSync(`${root}${dir}`)
          .filter((n) => pattern.test(n))
          .map((n) => `${dir}/${n}`)
      : [];
  const cards = there("/dev", /^nvidia\d+$/);
  const files = [...cards, ...there("/dev", /^(nvidiactl|nvidia-uvm|kfd)$/), ...there("/dev/dri", /^renderD\d+$/)];
  if (cards.length > 0 && !files.includes("/dev/nvidia-uvm"))
    return fail("/dev/nvidia0 is there, /dev/nvidia-uvm is not: CUDA finds no device", "nvidia-modprobe -u -c=0");
  if (files.includes("/dev/kfd") && there("/dev/dri", /^renderD\d+$/).length === 0)
    return fail("/dev/kfd is there, /dev/dri/renderD* is not", "give the container /dev/dri too (--device /dev/dri)");
  if (files.length === 0) return ok("no accelerator's files here");
  const closed = files.filter((path) => {
    const { mode, uid: owner, gid } = statSync(`${root}${path}`);
    const bits = owner === uid ? mode >> 6 : gids.includes(gid) ? mode >> 3 : mode;
    return uid !== 0 && (bits & 0o6) !== 0o6;
  });
  if (closed.length === 0) return ok(files.join(", "));
  const { gid } = statSync(`${root}${closed[0] ?? ""}`);
  return fail(
    `uid ${uid} may not open ${closed.join(", ")}`,
    `usermod -aG $(getent group ${gid} | cut -d: -f1) $(id -un ${uid}), then start the agent anew`,
  );
}

/** Of a stack of calls the line that says what went wrong; of an orderly end the last. */
function telling(stderr: string): string {
  const lines = stderr.trim().split("\n");
  return lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1) ?? "";
}

const Described = z.looseObject({
  sandbox: z.string(),
  device: z.looseObject({ name: z.string(), isa: z.string(), labels: z.record(z.string(), z.string()) }),
  devices: z.array(z.looseObject({ name: z.string() })),
});

/** What the agent's own probe finds, in a process of its own. */
async function devices(at: Patient): Promise<Finding> {
  using folder = temporaryFolder("doctor");
  try {
    const { root, cache, python } = at.settings;
    const args = [join(root, "gpu-agent/src/main.ts"), "--describe", "--data", folder.path, "--cache", cache];
    if (python !== null) args.push("--python", python);
    const { stdout } = await promisify(execFile)(at.execPath, args, { timeout: DESCRIBE_MS, env: agentEnvironment(at.env) });
    const { device, devices: found } = Described.parse(JSON.parse(stdout));
    const problems = Object.entries(device.labels).filter(([key]) => key.startsWith("vibeserve.dev/problem."));
    if (problems.length === 0) return ok(found.map((d) => d.name).join(", ") || `${device.name} (${device.isa})`);
    return fail(
      problems.map(([, why]) => why).join("; "),
      "nvidia-smi (or rocminfo) on this machine says the same; load the driver that the library is of, mostly by a reboot: docs/operations.md#driver-mismatch",
    );
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? telling(String(error.stderr)) : "";
    const why = said || messageOf(error).split("\n")[0];
    return fail(`the agent can't look at this machine: ${why}`, `${commandLine("agent")} in the foreground says more`);
  }
}
