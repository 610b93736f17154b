import { isRecord, type Device } from "@vibeserve/shared";
import { amdSmiList, type AmdSmiEntry } from "../probe/amd-smi.ts";
import { probeAmd } from "../probe/amd.ts";
import { amount, member, textOf } from "../probe/loose-json.ts";
import type { DeviceAdapter, DeviceHealth, DeviceSample } from "./adapter.ts";
import { given } from "./conditions.ts";
import { kernelLines } from "./kernel-log.ts";
import { untilIdle } from "./quiesce.ts";
import type { VendorTools } from "./vendor-tool.ts";

/** amd-smi's violations. PPT is the power limit, which is the device's own; the rest is heat, or hardware that protects itself. */
const VIOLATIONS = [
  { key: "prochot_violation_status", name: "processor hot", slows: true },
  { key: "ppt_violation_status", name: "power limit", slows: false },
  { key: "socket_thermal_violation_status", name: "thermal, socket", slows: true },
  { key: "vr_thermal_violation_status", name: "thermal, voltage regulator", slows: true },
  { key: "hbm_thermal_violation_status", name: "thermal, memory", slows: true },
];
const RECENT_S = 600;
/** amd-smi's AmdSmiDeviceNotFoundException, for the card that it was asked about. */
const LOST = /can not find a device/i;

/** By amd-smi. Where only rocm-smi is installed there is no sample: a run is then judged by the processors alone, and its certificate says nothing of the GPU. */
export function amdAdapter(tools: VendorTools): DeviceAdapter {
  const entry = async (device: Device, args: readonly string[]): Promise<AmdSmiEntry | null | { why: string }> => {
    const run = await tools.run("amd-smi", [...args, "--json", "-g", device.labels["vibeserve.dev/gpu.bus-id"] ?? "0"]);
    if (run.kind !== "ok") return { why: run.kind === "missing" ? "amd-smi is not installed" : run.why };
    return amdSmiList(run.text)[0] ?? null;
  };
  const metrics = async (device: Device): Promise<AmdSmiEntry | null> => {
    const found = await entry(device, ["metric"]);
    return found === null || "why" in found ? null : found;
  };
  const sample = async (device: Device): Promise<DeviceSample | null> => {
    const [metric, processes] = await Promise.all([metrics(device), entry(device, ["process"])]);
    if (metric === null) return null;
    const active = VIOLATIONS.filter((v) => textOf(member(metric, "throttle", v.key)) === "ACTIVE");
    return {
      clocksMHz: gfxClocks(metric),
      ...given("temperatureC", amount(member(metric, "temperature", "hotspot"), "C")),
      ...given("powerW", amount(member(metric, "power", "socket_power"), "W")),
      ...given("memoryMiB", amount(member(metric, "mem_usage", "used_vram"), "MB")),
      throttle: active.map((v) => v.name),
      slowed: active.filter((v) => v.slows).map((v) => v.name),
      pids: processes === null || "why" in processes ? null : pidsOf(processes),
    };
  };
  return {
    kind: "amd",
    probe: (host) => probeAmd(tools, host),
    health: async (device) => {
      const found = await entry(device, ["metric"]);
      if (found === null) return { problems: ["amd-smi does not list it any more"], facts: [] };
      if ("why" in found) {
        const why = String(found["why"]);
        return { problems: tools.find("amd-smi") === null ? [] : [why], facts: [why], ...(LOST.test(why) ? { gone: true } : {}) };
      }
      return addKernel(tools, device, healthOfMetric(found));
    },
    quiesce: (device, own, withinMs, signal) => untilIdle(() => sample(device), own, withinMs, signal),
    clocks: async (device) => {
      const max = Number(device.labels["vibeserve.dev/gpu.clock.max.mhz"] ?? NaN);
      return { nowMHz: gfxClocks(await metrics(device)), maxMHz: Number.isFinite(max) ? max : null };
    },
    sample,
    // rocprof is not wired.
    kernelProfiler: () => null,
  };
}

/** Each compute die has a clock of its own: "gfx_0" … "gfx_7". */
function gfxClocks(metric: AmdSmiEntry | null): number[] {
  const clocks = member(metric, "clock");
  if (!isRecord(clocks)) return [];
  return Object.entries(clocks)
    .filter(([name]) => /^gfx(_\d+)?$/.test(name))
    .map(([, clock]) => amount(member(clock, "clk"), "MHz"))
    .filter((mhz) => mhz !== null);
}

/** A daemon that only reads the GPU's sensors is listed too, with no memory on it: https://github.com/ROCm/ROCm/issues/4411. */
function pidsOf(entry: AmdSmiEntry): number[] | null {
  const list = member(entry, "process_list");
  if (!Array.isArray(list)) return null;
  return list.flatMap((process) => {
    const info = member(process, "process_info");
    const pid = member(info, "pid");
    const vram = amount(member(info, "memory_usage", "vram_mem"), "B");
    return typeof pid === "number" && vram !== 0 ? [pid] : [];
  });
}

function healthOfMetric(metric: AmdSmiEntry): DeviceHealth {
  const uncorrectable = amount(member(metric, "ecc", "total_uncorrectable_count"), "");
  const hot = amount(member(metric, "temperature", "hotspot"), "C");
  return {
    problems: uncorrectable !== null && uncorrectable > 0 ? [`ECC: ${uncorrectable} uncorrectable errors`] : [],
    facts: [
      ...(uncorrectable === null ? [] : [`uncorrectable ECC errors: ${uncorrectable}`]),
      ...(hot === null ? [] : [`temperature ${hot} °C`]),
    ],
  };
}

/** RAS events and resets, as amdgpu writes them into the kernel's log. */
async function addKernel(tools: VendorTools, device: Device, health: DeviceHealth): Promise<DeviceHealth> {
  const bus = device.labels["vibeserve.dev/gpu.bus-id"];
  if (bus === undefined) return health;
  const lines = await kernelLines(
    tools,
    new RegExp(`amdgpu ${bus.replaceAll(".", "\\.")}:.*(uncorrectable hardware errors|GPU reset begin|RAS: .*fatal)`, "i"),
  );
  if (lines === null) return { ...health, facts: [...health.facts, "the kernel's log is not readable, so RAS events are not known"] };
  const recent = lines.filter((line) => line.ageS <= RECENT_S).map((line) => line.text.slice(0, 160));
  return { problems: [...health.problems, ...recent.slice(-3)], facts: health.facts };
}
