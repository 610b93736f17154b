import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Certificate, type Device } from "@vibeserve/shared";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { deviceAdapters, type DeviceSample } from "../../gpu-agent/src/device/adapter.ts";
import { clocksOfCpuinfo, cpuAdapter } from "../../gpu-agent/src/device/cpu.adapter.ts";
import { conditionsOf, foreignPids, worstOf } from "../../gpu-agent/src/device/conditions.ts";
import { speedLimit } from "../../gpu-agent/src/device/apple.adapter.ts";
import { vendorTools } from "../../gpu-agent/src/device/vendor-tool.ts";
import { watchDevice } from "../../gpu-agent/src/device/watch.ts";
import { cpuDevice } from "../../gpu-agent/src/probe/device.ts";
import { probeDevices } from "../../gpu-agent/src/probe/devices.ts";
import { probeToolchains } from "../../gpu-agent/src/probe/toolchains.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { FIXTURES, host, output } from "./probe-kit.ts";

const MAIN = join(import.meta.dirname, "../../gpu-agent/src/main.ts");
const dir = tempDir("vendor-tools");
afterAll(() => dir[Symbol.dispose]());
let folder: string;
let n = 0;
beforeEach(() => {
  folder = join(dir.path, String(n++));
  mkdirSync(folder);
});

/** A vendor's tool as a process: a shell script that answers by its arguments. */
function fake(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
}

/** nvidia-smi for one H200: its real -q, and what a query of the fields prints in the tool's format. */
function fakeNvidia(more: { mask?: string; apps?: string; query?: string } = {}): void {
  fake(
    "nvidia-smi",
    `case "$*" in
*throttle_reasons*) ${more.query ?? `printf 'clocks.current.sm [MHz], temperature.gpu, power.draw [W], memory.used [MiB], clocks_throttle_reasons.active\\n1755 MHz, 61, 512.30 W, 70412 MiB, ${more.mask ?? "0x0000000000000004"}\\n'`} ;;
*event_reasons*) printf 'clocks.current.sm [MHz], temperature.gpu, power.draw [W], memory.used [MiB], clocks_event_reasons.active\\n1980 MHz, 40, [N/A], 1 MiB, 0x0000000000000000\\n' ;;
*clocks.max.sm*) printf 'clocks.current.sm [MHz], clocks.max.sm [MHz]\\n345 MHz, 1980 MHz\\n' ;;
*compute-apps*) printf 'pid, used_gpu_memory [MiB]\\n${more.apps ?? ""}' ;;
*compute_cap*) printf 'uuid, compute_cap\\nGPU-cb3dfa52-e2f3-9ca4-a399-7d16041c3732, 9.0\\n' ;;
-q*) cat ${join(FIXTURES, "nvidia/h200-q.txt")} ;;
-L) printf 'GPU 0: NVIDIA H200 (UUID: GPU-cb3dfa52-e2f3-9ca4-a399-7d16041c3732)\\n' ;;
*) printf '\\tGPU0\\tCPU Affinity\\nGPU0\\t X \\t2-3\\n' ;;
esac`,
  );
}

const adapters = (): ReturnType<typeof deviceAdapters> => deviceAdapters(vendorTools(folder));

async function h200(): Promise<Device> {
  const [device] = (await probeDevices(adapters(), host)).devices;
  if (!device) throw new Error("the fake was not found");
  return device;
}

describe("tools", () => {
  it("one that is not there is missing; one that fails, floods or hangs is given up with its own words", async () => {
    const tools = vendorTools(folder);
    expect(await tools.run("nvidia-smi", [])).toEqual({ kind: "missing" });
    fake("nvidia-smi", `cat ${join(FIXTURES, "nvidia/broken-mismatch.txt")}; exit 18`);
    expect(await tools.run("nvidia-smi", [])).toEqual({
      kind: "failed",
      why: "nvidia-smi ended with 18: Failed to initialize NVML: Driver/library version mismatch NVML library version: 580.173",
    });
    fake("rocminfo", "exec yes ERR");
    expect(await tools.run("rocminfo", [])).toEqual({ kind: "failed", why: "rocminfo printed more than 4 MiB" });
    fake("amd-smi", `sleep 60 & echo $! > ${folder}/pid; wait`);
    expect(await tools.run("amd-smi", [], 300)).toEqual({ kind: "failed", why: "amd-smi gave no answer in 0.3 s" });
    fake("system_profiler", "printf 'a\\033[31mb\\n' >&2; exit 1");
    expect(await tools.run("system_profiler", [])).toMatchObject({ why: "system_profiler ended with 1: ab" });
  });

  it("a machine where every tool is broken has no accelerator, a problem each, and no exception", async () => {
    for (const name of ["nvidia-smi", "rocminfo"]) fake(name, "echo 'Segmentation fault' >&2; exit 139");
    expect(await probeDevices(adapters(), host)).toEqual({
      devices: [],
      problems: ["nvidia-smi ended with 139: Segmentation fault", "rocminfo ended with 139: Segmentation fault"],
    });
  });

  it("compilers and Python's packages are named with their versions and digests; what does not run is left out", async () => {
    fake("nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
    fake("hipcc", "exit 1");
    fake("python3", `echo '[["torch", "2.9.1+cu129", "${"a".repeat(64)}"], ["triton", "3.5.1", null]]'`);
    const found = await probeToolchains(vendorTools(folder, join(folder, "python3")));
    expect(found.filter((t) => t.name !== "clang")).toEqual([
      { name: "nvcc", version: "12.4.131", digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string },
      { name: "torch", version: "2.9.1+cu129", digest: "a".repeat(64) },
      { name: "triton", version: "3.5.1", digest: null },
    ]);
  });
});

describe("an agent", () => {
  const describeAgent = (): { pools: string[]; devices: Device[]; device: Device } =>
    JSON.parse(
      execFileSync(
        process.execPath,
        [MAIN, "--describe", "--data", join(folder, "data"), "--agent-id", "node-1", "--vendor-tools", folder],
        {
          encoding: "utf8",
        },
      ),
    ) as ReturnType<typeof describeAgent>;

  it("with a card registers the card and its pool; with a broken driver its processors, and a label says why", () => {
    fakeNvidia();
    expect(describeAgent()).toMatchObject({ pools: ["nvidia-h200"], devices: [{ id: "node-1-gpu-cb3dfa52", kind: "nvidia" }] });
    fake("nvidia-smi", `cat ${join(FIXTURES, "nvidia/broken-permission.txt")}; exit 4`);
    const { devices, device } = describeAgent();
    expect(devices.map((d) => [d.id, d.kind])).toEqual([["node-1-cpu", "cpu"]]);
    expect(device.labels["vibeserve.dev/problem.0"]).toBe("nvidia-smi ended with 4: Failed to initialize NVML: Insufficient Permissions");
  });
});

describe("nvidia", () => {
  it("is found through its tool, near the processors that the tool names", async () => {
    fakeNvidia();
    expect(await h200()).toMatchObject({ kind: "nvidia", isa: "sm_90a", cpus: "2,3", cores: 2 });
  });

  it("a sample holds clocks, heat, power, memory and reasons; the power limit is a reason that refuses nothing", async () => {
    fakeNvidia({ apps: "77, 69000 MiB\\n" });
    const sample = await adapters().nvidia.sample(await h200());
    const shown = {
      clocksMHz: [1755],
      temperatureC: 61,
      powerW: 512.3,
      memoryMiB: 70412,
      throttle: ["power limit"],
      slowed: [],
      pids: [77],
    };
    expect(sample).toEqual(shown);
    expect(sample && conditionsOf([sample], [[]])?.refusal).toBeNull();
    expect(await adapters().nvidia.clocks(await h200())).toEqual({ nowMHz: [345], maxMHz: 1980 });
  });

  it("heat and another process refuse a run, with the reason", async () => {
    fakeNvidia({ mask: "0x0000000000000068" });
    const sample = await adapters().nvidia.sample(await h200());
    expect(sample?.slowed).toEqual(["hardware slowdown", "thermal, by software", "thermal, by hardware"]);
    expect(sample && conditionsOf([sample], [[4711]])?.refusal).toBe(
      "the device was slowed: hardware slowdown, thermal, by software, thermal, by hardware, the device was shared with 1 other processes",
    );
  });

  it("a driver that has renamed the field is asked by its new name; [N/A] is no number; a tool that is gone gives no sample", async () => {
    fakeNvidia({ query: `echo 'Field "clocks_throttle_reasons.active" is not a valid field to query.'; exit 2` });
    const device = await h200();
    expect(await adapters().nvidia.sample(device)).toEqual({
      clocksMHz: [1980],
      temperatureC: 40,
      memoryMiB: 1,
      throttle: [],
      slowed: [],
      pids: [],
    });
    fake("nvidia-smi", "exit 9");
    expect(await adapters().nvidia.sample(device)).toBeNull();
    expect((await adapters().nvidia.health(device)).problems).toEqual(["nvidia-smi ended with 9: it printed nothing"]);
  });

  it("health: lost is the card that the tool names, also where it says so when it is asked about another", async () => {
    fakeNvidia();
    const device = await h200();
    const lost = async (name: string): Promise<boolean | undefined> => {
      fake("nvidia-smi", `echo 'Unable to determine the device handle for ${name}: GPU is lost.'; exit 15`);
      return (await adapters().nvidia.health(device)).gone;
    };
    expect(device.labels["vibeserve.dev/gpu.bus-id"]).toMatch(/03:00\.0$/);
    expect(await lost("GPU 0000:03:00.0")).toBe(true);
    expect(await lost("GPU1: 0000:18:00.0")).toBe(false);
    expect(await lost("GPU 0008:03:00.0")).toBe(false);
    expect(await lost("gpu 1")).toBe(true);
  });

  it("health: a recent Xid of the hardware is a problem, a program's own and an old one are facts, another GPU's is nothing", async () => {
    fakeNvidia();
    const uptime = (await import("node:os")).uptime();
    const line = (ageS: number, bus: string, xid: number): string =>
      `[${(uptime - ageS).toFixed(6)}] NVRM: Xid (PCI:0000:${bus}): ${xid}, pid=1234, name=x`;
    fake("dmesg", `cat <<'END'\n${[line(30, "03:00", 31), line(20, "03:00", 79), line(10, "18:00", 48)].join("\n")}\nEND`);
    const { problems, facts } = await adapters().nvidia.health(await h200());
    expect(problems).toEqual(["Xid 79 within the last 10 min"]);
    expect(facts.join()).toMatch(/DRAM Uncorrectable: 0,temperature 28 C,Xid 31 (29|30|31) s ago,Xid 79/);
    fake("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1");
    const blind = await adapters().nvidia.health(await h200());
    expect([blind.problems, blind.facts.at(-1)]).toEqual([[], "the kernel's log is not readable, so Xids are not known"]);
  });

  it("health: uncorrectable errors, rows to be remapped and a reset that is due speak against it", async () => {
    const device = await (fakeNvidia(), h200());
    const broken = output("nvidia/h200-q")
      .replace("DRAM Uncorrectable            : 0", "DRAM Uncorrectable            : 3")
      .replace("Pending                           : No", "Pending                           : Yes")
      .replace("Reset Required                    : No", "Reset Required                    : Yes");
    writeFileSync(join(folder, "q.txt"), broken);
    fake("nvidia-smi", `cat ${folder}/q.txt`);
    fake("dmesg", "true");
    expect((await adapters().nvidia.health(device)).problems).toEqual([
      "ECC: DRAM Uncorrectable: 3 since the driver was loaded",
      "rows of its memory wait to be remapped: it needs a reset",
      "it needs a reset",
    ]);
  });

  it("quiesce waits for another process to leave, not for our own, and no longer than it may", async () => {
    fakeNvidia({ apps: `${process.pid}, 10 MiB\\n` });
    const device = await h200();
    const never = new AbortController().signal;
    await adapters().nvidia.quiesce(device, () => new Set([process.pid]), 60_000, never);
    await adapters().nvidia.quiesce(device, () => new Set(), 0, never);
    const stop = new AbortController();
    const waiting = adapters().nvidia.quiesce(device, () => new Set(), 60_000, stop.signal);
    stop.abort(new Error("the job is over"));
    await expect(waiting).rejects.toThrow("the job is over");
  });
});

describe("amd", () => {
  const metric = {
    gpu: 0,
    power: { socket_power: { value: 612, unit: "W" } },
    clock: {
      gfx_0: { clk: { value: 1900, unit: "MHz" } },
      gfx_1: { clk: { value: 2080, unit: "MHz" } },
      mem_0: { clk: { value: 1300, unit: "MHz" } },
    },
    temperature: { edge: "N/A", hotspot: { value: 71, unit: "C" } },
    ecc: { total_correctable_count: 0, total_uncorrectable_count: 2 },
    mem_usage: { used_vram: { value: 4976, unit: "MB" } },
    throttle: { ppt_violation_status: "ACTIVE", hbm_thermal_violation_status: "ACTIVE", vr_thermal_violation_status: "NOT ACTIVE" },
  };
  const processes = {
    gpu: 0,
    process_list: [
      { process_info: { name: "a", pid: 1, memory_usage: { vram_mem: { value: 0, unit: "B" } } } },
      { process_info: { name: "b", pid: 2, memory_usage: { vram_mem: { value: 2147483648, unit: "B" } } } },
    ],
  };
  const fakeAmd = (): void => {
    fake("rocminfo", `cat ${join(FIXTURES, "amd/mi300x-rocminfo.txt")}`);
    fake(
      "amd-smi",
      `case "$*" in
metric*) echo '${JSON.stringify([metric])}' ;;
process*) echo '${JSON.stringify({ gpu_data: [processes] })}' ;;
*) echo '[]' ;;
esac`,
    );
  };

  it("a sample holds every die's clock; a daemon with no memory on the GPU is not counted; heat refuses, the power limit does not", async () => {
    fakeAmd();
    const [device] = (await probeDevices(adapters(), host)).devices;
    const sample = device && (await adapters().amd.sample(device));
    expect(sample).toEqual({
      ...{ clocksMHz: [1900, 2080], temperatureC: 71, powerW: 612, memoryMiB: 4976, pids: [2] },
      ...{ throttle: ["power limit", "thermal, memory"], slowed: ["thermal, memory"] },
    });
  });

  it("a card that amd-smi can't find is gone; one of which it only fails to tell something is not", async () => {
    fakeAmd();
    const [device] = (await probeDevices(adapters(), host)).devices;
    const said = async (error: string): Promise<boolean | undefined> => {
      fake("amd-smi", `echo '${JSON.stringify({ error, code: 195 })}'; exit 195`);
      return device && (await adapters().amd.health(device)).gone;
    };
    expect(await said(`AMD-SMI Can not find a device: GPU "0000:26:00.0".`)).toBe(true);
    expect(await said("AMD-SMI An unknown error has occurred.")).toBeUndefined();
  });

  it("uncorrectable errors and amdgpu's RAS events are problems", async () => {
    fakeAmd();
    fake(
      "dmesg",
      `echo "[$(cut -d' ' -f1 /proc/uptime)0000] amdgpu 0000:26:00.0: amdgpu: 3 uncorrectable hardware errors detected in umc block"`,
    );
    const [device] = (await probeDevices(adapters(), host)).devices;
    expect(device && (await adapters().amd.health(device)).problems).toEqual([
      "ECC: 2 uncorrectable errors",
      "amdgpu 0000:26:00.0: amdgpu: 3 uncorrectable hardware errors detected in umc block",
    ]);
  });
});

describe("apple", () => {
  it("tells only whether heat slows it", async () => {
    fake("pmset", "printf 'Note: No thermal warning level has been recorded\\n2026-01-01 \\nCPU_Speed_Limit \\t= 80\\n'");
    const device = { kind: "apple", id: "a", labels: {} } as unknown as Device;
    expect(await adapters().apple.sample(device)).toMatchObject({ slowed: ["thermal, 80 % of its speed"], clocksMHz: [], pids: null });
    expect(speedLimit("Note: No CPU power status has been recorded\n")).toBeNull();
  });
});

describe("cpu", () => {
  it("this machine's processors give a sample that a certificate can hold, and no tool is needed", async () => {
    const device = cpuDevice(host.topology, { bits: [], source: "cpuid" }, "a", null);
    const sample = await cpuAdapter().sample({ ...device, cpus: "0" });
    expect(sample).toMatchObject({ throttle: [], slowed: [], pids: null });
    const watched = sample && conditionsOf([sample], [null]);
    expect(Certificate.shape.device.parse(watched?.conditions)).toEqual(watched?.conditions);
  });

  it("clocks come from cpufreq, or from cpuinfo for these processors alone; the hottest zone of a processor is its temperature", async () => {
    const write = (path: string, text: string): void => {
      mkdirSync(join(folder, path, ".."), { recursive: true });
      writeFileSync(join(folder, path), text);
    };
    write("proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2100.5\n\nprocessor\t: 1\ncpu MHz\t\t: 3000\n");
    expect(clocksOfCpuinfo("processor\t: 0\ncpu MHz\t\t: 2100.5\n\nprocessor\t: 1\ncpu MHz\t\t: 3000\n", [1])).toEqual([3000]);
    write("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
    write("sys/class/thermal/thermal_zone0/temp", "64000\n");
    write("sys/class/thermal/thermal_zone1/type", "nvme\n");
    write("sys/class/thermal/thermal_zone1/temp", "90000\n");
    const device = { ...cpuDevice(host.topology, { bits: [], source: "cpuid" }, "a", null), cpus: "0" };
    expect(await cpuAdapter(folder).sample(device)).toMatchObject({ clocksMHz: [2100.5], temperatureC: 64 });
    write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1800000\n");
    write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "7\n");
    const adapter = cpuAdapter(folder);
    expect(await adapter.sample(device)).toMatchObject({ clocksMHz: [1800], slowed: [] });
    write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "8\n");
    expect((await adapter.sample(device))?.slowed).toEqual(["thermal"]);
  });
});

describe("a watched run", () => {
  const sample = (more: Partial<DeviceSample>): DeviceSample => ({ clocksMHz: [], throttle: [], slowed: [], pids: null, ...more });

  it("takes a sample at once and one at the end, and keeps the worst; a tool that never answers leaves no conditions", async () => {
    const answers = [
      sample({ clocksMHz: [1980], temperatureC: 50, pids: [1] }),
      sample({ clocksMHz: [1410, 1500], temperatureC: 70, pids: [1] }),
    ];
    const watched = await watchDevice(
      () => Promise.resolve(answers.shift() ?? null),
      () => new Set([1]),
    ).stop();
    expect(watched).toEqual({
      conditions: { samples: 2, clockMHz: { min: 1410, max: 1980 }, temperatureC: 70, throttle: [], foreignProcesses: 0 },
      refusal: null,
    });
    expect(
      await watchDevice(
        () => Promise.resolve(null),
        () => new Set(),
      ).stop(),
    ).toBeNull();
  });

  it("processes by numbers of another pid namespace can't be told from our own: then the certificate says nothing, and refuses nothing", () => {
    const gone = [2 ** 22 + 1, 2 ** 22 + 2].filter((pid) => !existsSync(`/proc/${pid}`));
    expect(foreignPids(gone, new Set([process.pid]))).toBeNull();
    expect(foreignPids([process.pid, ...gone], new Set([process.pid]))).toEqual(gone);
    expect(foreignPids([process.pid], new Set())).toEqual([process.pid]);
    expect(foreignPids([], new Set())).toEqual([]);
    expect(conditionsOf([sample({ pids: gone })], [null])?.conditions).toEqual({ samples: 1, throttle: [] });
  });

  it("a certificate holds the worst of all runs", () => {
    const all = [
      { samples: 3, clockMHz: { min: 1900, max: 1980 }, powerW: 300, throttle: ["power limit"] },
      { samples: 2, clockMHz: { min: 1500, max: 1600 }, throttle: [] },
    ];
    expect(worstOf(all)).toEqual({ samples: 5, clockMHz: { min: 1500, max: 1980 }, powerW: 300, throttle: ["power limit"] });
    expect(worstOf([])).toBeNull();
  });
});
