import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Patient } from "../../coordinator/src/operate/doctor/check.ts";
import { healthyMachine, installation, program, put, type Ward } from "./doctor-kit.ts";

/** A lock of a process that does not run. */
export const holder = JSON.stringify({ pid: 4_000_000, start: "gone/1" });

/** What is changed of a healthy coordinator's machine, and what the check must say of it. */
export type Case = [check: string, what: string, change: () => Partial<Patient>, status: "fail" | "warn", saw: RegExp, fix: RegExp];

/** `dir`: a folder for what they make. */
export function casesOf(dir: () => string, ward: () => Ward): Case[] {
  let made = 0;
  const folder = (): string => {
    const path = join(dir(), `case-${made++}`);
    mkdirSync(path, { mode: 0o700 });
    return path;
  };
  /** The healthy machine with one thing else. */
  const machine = (path: string, text: string | null, mode?: number): Partial<Patient> => {
    const root = folder();
    healthyMachine(root);
    if (text === null) rmSync(join(root, path));
    else put(root, path, text, mode);
    return { root };
  };
  /** The healthy programs with one that does this. */
  const programs = (name: string, body: string | null): Partial<Patient> => {
    const bin = folder();
    for (const good of ["git", "c++", "python3", "bwrap"]) if (good !== name) program(bin, good, "exit 0");
    if (body !== null) program(bin, name, body);
    return { env: { PATH: bin } };
  };
  const settings = (more: Partial<Patient["settings"]>): Partial<Patient> => ({ settings: { ...ward().patient.settings, ...more } });
  const withFile = (path: string, text: string, mode = 0o600): Partial<Patient> => {
    const data = folder();
    put(data, path, text, mode);
    return { data };
  };

  function withMode(mode: number): Partial<Patient> {
    const data = folder();
    chmodSync(data, mode);
    return { data };
  }
  function revokedIsIn(): Partial<Patient> {
    const { data = "" } = withFile(
      "nats/keys/agents.json",
      JSON.stringify({ v: 1, agents: [{ agentId: "a", publicKey: "U", pools: ["p"] }] }),
    );
    const revoked = [{ agentId: "a", publicKey: "U", at: 1, reason: "r" }];
    put(data, "nats/keys/enrolment.json", JSON.stringify({ v: 1, kind: "enrolments", tokens: [], waiting: [], refused: [], revoked }));
    return { data };
  }
  function closedCard(): Partial<Patient> {
    const { root = "" } = machine("/dev/nvidia0", "", 0o660);
    for (const name of ["nvidiactl", "nvidia-uvm"]) put(root, `/dev/${name}`, "", 0o666);
    return { root, uid: 4242, gids: [4242] };
  }
  function withProblem(text: string): string {
    const root = folder();
    installation(root, { "vibeserve.dev/problem.0": text });
    return root;
  }
  function broken(): string {
    const root = folder();
    put(root, "gpu-agent/src/main.ts", 'process.stderr.write("gpu-agent: no such compiler\\n"); process.exit(2);\n');
    return root;
  }

  return [
    [
      "node-version",
      "an old Node",
      () => ({ execPath: join(programs("node", "echo v20.11.0").env?.["PATH"] ?? "", "node") }),
      "fail",
      /v20\.11\.0; sources run on 24/,
      /npm ci/,
    ],
    [
      "installation",
      "an unpacked half",
      () => settings({ root: folder() }),
      "fail",
      /lacks coordinator\/src, gpu-agent\/src/,
      /install\.sh/,
    ],
    ["git", "no git", () => programs("git", null), "fail", /not on PATH/, /apt-get install git/],
    ["git", "an old git", () => programs("git", "echo git version 2.17.1"), "fail", /2\.17\.1; 2\.28 is needed/, /apt-get install git/],
    ["nats-server", "none", () => settings({ natsServer: "/nowhere/nats-server" }), "fail", /is not there/, /VIBESERVE_NATS_SERVER/],
    [
      "nats-server",
      "an old one",
      () => settings({ natsServer: join(programs("nats-server", "echo nats-server: v2.9.10").env?.["PATH"] ?? "", "nats-server") }),
      "fail",
      /2\.9\.10; 2\.10 is needed/,
      /npm start/,
    ],
    ["compiler", "none", () => programs("c++", null), "fail", /no C\+\+ compiler/, /apt-get install g\+\+/],
    [
      "compiler",
      "one of C++17",
      () => programs("c++", "echo \"error: unrecognized '-std=c++20'\" >&2; exit 1"),
      "fail",
      /unrecognized '-std=c\+\+20'/,
      /12 or later/,
    ],
    [
      "python",
      "one without venv",
      () => programs("python3", "echo \"No module named 'ensurepip'\" >&2; exit 1"),
      "warn",
      /No module named 'ensurepip'/,
      /python3-venv/,
    ],
    ["cache-folder", "another's cache", () => ({ uid: 4242 }), "fail", /this is uid 4242/, /chown -R 4242/],
    ["data-mode", "a folder that is open to all", () => withMode(0o755), "fail", /is 0755: others/, /chmod 700 \S+case-/],
    ["data-owner", "a folder of another user", () => ({ data: folder(), uid: 4242 }), "fail", /this is uid 4242/, /chown -R 4242/],
    [
      "key-files",
      "a key that others can read",
      () => withFile("nats/keys/coordinator.nk", "S", 0o644),
      "fail",
      /coordinator\.nk: 0644/,
      /chmod 600 \S+coordinator\.nk/,
    ],
    [
      "disk-space",
      "a disk that is full",
      () => ({ disk: { failBytes: 2 ** 60, warnBytes: 2 ** 61 } }),
      "fail",
      /are needed: everything waits/,
      /artifacts prune/,
    ],
    [
      "disk-space",
      "a disk that is nearly full",
      () => ({ disk: { failBytes: 1, warnBytes: 2 ** 60 } }),
      "warn",
      /MiB free/,
      /artifacts prune/,
    ],
    [
      "locks",
      "a lock of a process that was killed",
      () => withFile("up.lock", holder),
      "warn",
      /up\.lock names pid 4000000/,
      /takes the lock over/,
    ],
    [
      "locks",
      "an agent's lock of such a process",
      () => ({ ...withFile("agent.lock", JSON.stringify({ pid: 4_000_000, start: 1 })), node: true }),
      "warn",
      /agent\.lock names pid 4000000/,
      /start it again/,
    ],
    [
      "broker-process",
      "a broker that is gone",
      () => withFile("nats/broker.json", holder),
      "warn",
      /pid 4000000, which does not run/,
      /npx vibeserve up/,
    ],
    [
      "restored",
      "a restore that was cut off",
      () => withFile("restore.unfinished", "{}"),
      "fail",
      /did not end/,
      /npx vibeserve restore FILE/,
    ],
    [
      "release",
      "a folder of a later protocol",
      () => withFile("release.json", JSON.stringify({ v: 1, kind: "release", version: "9.0.0", protocol: 9, log: 1, at: 1 })),
      "fail",
      /wrote protocol 9/,
      /install release 9\.0\.0/,
    ],
    ["enrolment", "a file that is none", () => withFile("nats/keys/agents.json", '{"agents": 3}'), "fail", /can't be read/, /agents\.json/],
    [
      "enrolment",
      "one key twice",
      () =>
        withFile(
          "nats/keys/agents.json",
          JSON.stringify({ v: 1, agents: ["a", "b"].map((agentId) => ({ agentId, publicKey: "U", pools: ["p"] })) }),
        ),
      "fail",
      /agent b or its key is enrolled twice/,
      /restore/,
    ],
    ["enrolment", "a revoked key that is in", revokedIsIn, "fail", /agent a is enrolled with a key that was revoked/, /agents revoke a/],
    [
      "sandbox",
      "user namespaces switched off",
      () => ({
        ...programs("bwrap", "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1"),
        ...machine("/proc/sys/kernel/unprivileged_userns_clone", "0\n"),
      }),
      "fail",
      /No permissions.*unprivileged_userns_clone forbids it/,
      /sysctl -w kernel\.unprivileged_userns_clone=1/,
    ],
    [
      "sandbox",
      "none left",
      () => ({
        ...programs("bwrap", "echo 'No space left on device' >&2; exit 1"),
        ...machine("/proc/sys/user/max_user_namespaces", "0\n"),
      }),
      "fail",
      /max_user_namespaces forbids/,
      /max_user_namespaces=15000/,
    ],
    [
      "sandbox",
      "AppArmor's switch",
      () => ({
        ...programs("bwrap", "echo 'setting up uid map: Permission denied' >&2; exit 1"),
        ...machine("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"),
      }),
      "fail",
      /uid map: Permission denied.*apparmor/,
      /apparmor_restrict_unprivileged_userns=0/,
    ],
    [
      "sandbox",
      "a container's seccomp",
      () => programs("bwrap", "echo 'bwrap: Operation not permitted' >&2; exit 1"),
      "fail",
      /Operation not permitted: code written by models is refused/,
      /hostUsers: false/,
    ],
    ["sandbox", "no bubblewrap", () => programs("bwrap", null), "fail", /not installed/, /apt-get install bubblewrap/],
    [
      "perf",
      "perf for root only",
      () => machine("/proc/sys/kernel/perf_event_paranoid", "3\n"),
      "warn",
      /paranoid is 3/,
      /perf_event_paranoid=2/,
    ],
    [
      "device-files",
      "a card of another group",
      () => ({ ...machine("/dev/kfd", "", 0o660), ...{ uid: 4242, gids: [4242] } }),
      "fail",
      /renderD\* is not/,
      /--device \/dev\/dri/,
    ],
    [
      "device-files",
      "a card without its memory's file",
      () => machine("/dev/nvidia0", "", 0o666),
      "fail",
      /nvidia-uvm, is not|nvidia-uvm is not/,
      /nvidia-modprobe/,
    ],
    ["device-files", "files that this user may not open", closedCard, "fail", /uid 4242 may not open \/dev\/nvidia0/, /usermod -aG/],
    [
      "devices",
      "a driver that is not its library's",
      () => settings({ root: withProblem("nvidia-smi ended with 18: Failed to initialize NVML: Driver/library version mismatch") }),
      "fail",
      /Driver\/library version mismatch/,
      /driver-mismatch/,
    ],
    [
      "devices",
      "an agent that does not start",
      () => settings({ root: broken() }),
      "fail",
      /can't look at this machine: .*no such compiler/,
      /vibeserve agent/,
    ],
    ["cgroup", "a small container", () => machine("/sys/fs/cgroup/memory.max", "536870912\n"), "fail", /512 MiB/, /4Gi/],
    ["cgroup", "a small cgroup above its own", () => machine("/sys/fs/cgroup/system/memory.max", "536870912\n"), "fail", /512 MiB/, /4Gi/],
    ["cgroup", "a CPU quota", () => machine("/sys/fs/cgroup/cpu.max", "200000 100000\n"), "warn", /CPU quota/, /remove the CPU limit/],
    [
      "huge-pages",
      "none",
      () => machine("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
      "warn",
      /are off/,
      /echo madvise/,
    ],
    [
      "cpu-governor",
      "one that saves power",
      () => machine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
      "warn",
      /governor powersave/,
      /cpupower/,
    ],
    [
      "machine-id",
      "an image that was never started",
      () => machine("/etc/machine-id", "uninitialized\n"),
      "warn",
      /"uninitialized"/,
      /systemd-machine-id-setup/,
    ],
    ["machine-id", "none", () => machine("/etc/machine-id", null), "warn", /not there/, /systemd-machine-id-setup/],
    [
      "open-files",
      "few",
      () => machine("/proc/self/limits", "Max open files            1024                 524288               files\n"),
      "warn",
      /^1024 files/,
      /LimitNOFILE/,
    ],
    [
      "proxies",
      "one that Node does not heed",
      () => ({
        ...settings({ anthropic: { ...ward().patient.settings.anthropic, apiKey: "k" } }),
        env: { HTTPS_PROXY: "http://proxy:3128" },
      }),
      "warn",
      /HTTPS_PROXY is set/,
      /NODE_USE_ENV_PROXY=1/,
    ],
    [
      "models",
      "a provider that nobody reaches",
      () => ({
        ...settings({ anthropic: { ...ward().patient.settings.anthropic, apiKey: "k", baseUrl: "http://127.0.0.1:64999" } }),
        online: true,
      }),
      "fail",
      /127\.0\.0\.1:64999\/v1\/models/,
      /curl/,
    ],
  ];
}
