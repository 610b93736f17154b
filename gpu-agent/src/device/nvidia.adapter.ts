import { isSlice, type Device } from "@vibeserve/shared";
import { brokenKeys, quantity, valueAt, type Outline } from "../probe/outline.ts";
import { parseCsv, parseQuery } from "../probe/nvidia-text.ts";
import { probeNvidia } from "../probe/nvidia.ts";
import type { DeviceAdapter, DeviceHealth, DeviceSample } from "./adapter.ts";
import { given } from "./conditions.ts";
import { kernelLines } from "./kernel-log.ts";
import { untilIdle } from "./quiesce.ts";
import type { VendorTools } from "./vendor-tool.ts";

/** Bits of `clocks_throttle_reasons.active`, from nvml.h. Idle, a set application clock and a display's clock are no throttling. */
const REASONS: readonly { readonly bit: number; readonly name: string; readonly slows: boolean }[] = [
  { bit: 0x4, name: "power limit", slows: false },
  { bit: 0x8, name: "hardware slowdown", slows: true },
  { bit: 0x10, name: "sync boost", slows: false },
  { bit: 0x20, name: "thermal, by software", slows: true },
  { bit: 0x40, name: "thermal, by hardware", slows: true },
  { bit: 0x80, name: "power brake", slows: true },
];
/** The same field before and since driver 535; older drivers refuse the whole query for the new name, newer ones take the old and answer with the new. */
const ACTIVE = ["clocks_throttle_reasons.active", "clocks_event_reasons.active"];
/**
 * Xids by which a device, its link or its firmware says that it is broken (NVIDIA, "XID errors"): ECC, page retirement, NVLink, off the bus, timeouts of
 * the GSP. What a program can cause by itself (13, 31, 43, 45, …) is a fact and no problem.
 */
const BROKEN_XIDS = new Set([48, 61, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120, 121, 140, 143]);
/** How nvidia-smi says that a card that it is asked about is not there. */
const LOST = /GPU is lost|Unable to determine the device handle|No devices were found/i;
/** Which card it says that of, "0000:2A:00.0" with a domain of any length: asked about one card it may fail for another. */
const BUS_ID = /0*([0-9a-f]+:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])/i;
/** The kernel's log goes back to the boot; a device that was reset since has nothing to do with that. */
const RECENT_S = 600;

export function nvidiaAdapter(tools: VendorTools): DeviceAdapter {
  let active = 0;
  const select = (device: Device): string[] => [
    "-i",
    device.labels["vibeserve.dev/gpu.bus-id"] ?? device.labels["vibeserve.dev/gpu.uuid"] ?? "0",
  ];
  const query = (device: Device, fields: readonly string[]): Promise<Record<string, string> | null> =>
    tools
      .run("nvidia-smi", [...select(device), `--query-gpu=${fields.join(",")}`, "--format=csv"])
      .then((run) => (run.kind === "ok" ? (parseCsv(run.text)[0] ?? null) : null));
  const reading = async (device: Device): Promise<{ row: Record<string, string>; mask: number } | null> => {
    const fields = (name: string): string[] => ["clocks.current.sm", "temperature.gpu", "power.draw", "memory.used", name];
    for (const next of [active, 1 - active]) {
      const row = await query(device, fields(ACTIVE[next] ?? ""));
      if (row === null) continue;
      active = next;
      const hex = ACTIVE.map((name) => row[name]).find((value) => value !== undefined) ?? "";
      return { row, mask: /^0x[0-9a-f]+$/i.test(hex) ? Number.parseInt(hex.slice(-8), 16) : 0 };
    }
    return null;
  };
  const sample = async (device: Device): Promise<DeviceSample | null> => {
    const [read, apps] = await Promise.all([
      reading(device),
      isSlice(device) ? null : tools.run("nvidia-smi", [...select(device), "--query-compute-apps=pid,used_memory", "--format=csv"]),
    ]);
    if (read === null) return null;
    const { row, mask } = read;
    const sm = quantity(row["clocks.current.sm"] ?? null, "MHz");
    const reasons = REASONS.filter((r) => (mask & r.bit) !== 0);
    return {
      clocksMHz: sm === null ? [] : [sm],
      ...given("temperatureC", quantity(row["temperature.gpu"] ?? null, "")),
      ...given("powerW", quantity(row["power.draw"] ?? null, "W")),
      ...given("memoryMiB", quantity(row["memory.used"] ?? null, "MiB")),
      throttle: reasons.map((r) => r.name),
      slowed: reasons.filter((r) => r.slows).map((r) => r.name),
      // In a slice the tool lists the whole card's processes, which do not share its memory or its units.
      pids: apps?.kind === "ok" ? parseCsv(apps.text).flatMap((app) => (/^\d+$/.test(app["pid"] ?? "") ? [Number(app["pid"])] : [])) : null,
    };
  };
  return {
    kind: "nvidia",
    probe: (host) => probeNvidia(tools, host),
    health: async (device) => {
      const run = await tools.run("nvidia-smi", ["-q", ...select(device)]);
      if (run.kind !== "ok")
        return run.kind === "missing"
          ? { problems: ["nvidia-smi is gone"], facts: [] }
          : { problems: [run.why], facts: [], gone: LOST.test(run.why) && !ofAnother(run.why, device) };
      const gpu = parseQuery(run.text).gpus[0];
      if (gpu === undefined) return { problems: ["nvidia-smi does not list it any more"], facts: [], gone: true };
      const xids = await xidsOf(tools, device);
      const card = healthOf(gpu);
      return { problems: [...card.problems, ...xids.problems], facts: [...card.facts, ...xids.facts] };
    },
    quiesce: (device, own, withinMs, signal) => untilIdle(() => sample(device), own, withinMs, signal),
    clocks: async (device) => {
      const row = await query(device, ["clocks.current.sm", "clocks.max.sm"]);
      const now = quantity(row?.["clocks.current.sm"] ?? null, "MHz");
      return { nowMHz: now === null ? [] : [now], maxMHz: quantity(row?.["clocks.max.sm"] ?? null, "MHz") };
    },
    sample,
    kernelProfiler: () => tools.find("ncu"),
  };
}

/** Whether the tool's words name a card, and it is not this one. */
function ofAnother(why: string, { labels }: Device): boolean {
  const place = (text: string | undefined): string | undefined => BUS_ID.exec(text ?? "")?.[1]?.toLowerCase();
  const [named, own] = [place(why), place(labels["vibeserve.dev/gpu.bus-id"])];
  return named !== undefined && own !== undefined && named !== own;
}

/** What `nvidia-smi -q` knows against a GPU. */
export function healthOf(gpu: readonly Outline[]): DeviceHealth {
  const problems = brokenKeys(gpu).map((key) => `${key} could not be read`);
  const facts: string[] = [];
  const volatile = gpu.find((o) => o.key === "ECC Errors")?.children.find((o) => o.key === "Volatile")?.children ?? [];
  for (const { key, value } of volatile) {
    if (!key.includes("Uncorrectable") || quantity(value, "") === null) continue;
    facts.push(`${key}: ${value}`);
    if (Number(value) > 0) problems.push(`ECC: ${key}: ${value} since the driver was loaded`);
  }
  for (const [problem, bad, ...path] of [
    ["rows of its memory wait to be remapped: it needs a reset", "Yes", "Remapped Rows", "Pending"],
    ["a row of its memory could not be remapped", "Yes", "Remapped Rows", "Remapping Failure Occurred"],
    ["it needs a reset", "Yes", "GPU Reset Status", "Reset Required"],
    // Since driver 570.
    ["its SRAM had more errors than its vendor allows", "Yes", "ECC Errors", "Aggregate", "SRAM Threshold Exceeded"],
    ["memory that can't be repaired", "Yes", "ECC Errors", "Unrepairable Memory"],
    ["a repair waits for a reset", "Yes", "ECC Errors", "Channel Repair Pending"],
    ["a repair waits for a reset", "Yes", "ECC Errors", "TPC Repair Pending"],
    ["hardware slowdown by heat", "Active", "Clocks Event Reasons", "HW Slowdown", "HW Thermal Slowdown"],
    ["hardware slowdown by heat", "Active", "Clocks Throttle Reasons", "HW Slowdown", "HW Thermal Slowdown"],
  ] as const)
    if (valueAt(gpu, ...path) === bad) problems.push(problem);
  const action = valueAt(gpu, "GPU Recovery Action");
  if (action !== null && action !== "None") problems.push(`the driver asks for: ${action}`);
  const temperature = valueAt(gpu, "Temperature", "GPU Current Temp");
  if (temperature !== null) facts.push(`temperature ${temperature}`);
  return { problems, facts };
}

async function xidsOf(tools: VendorTools, device: Device): Promise<DeviceHealth> {
  // The kernel says "PCI:0000:18:00", nvidia-smi "00000000:18:00.0".
  const bus = /([0-9a-f]{2}:[0-9a-f]{2})\.\d$/i.exec(device.labels["vibeserve.dev/gpu.bus-id"] ?? "")?.[1] ?? "??";
  const lines = await kernelLines(tools, new RegExp(`NVRM: Xid \\(PCI:[0-9a-f]+:${bus}`, "i"));
  if (lines === null) return { problems: [], facts: ["the kernel's log is not readable, so Xids are not known"] };
  const xids = lines.flatMap((line) => {
    const xid = Number(/Xid \([^)]*\): (\d+)/.exec(line.text)?.[1] ?? NaN);
    return Number.isInteger(xid) ? [{ xid, ageS: Math.round(line.ageS) }] : [];
  });
  const recent = xids.filter((x) => x.ageS <= RECENT_S);
  return {
    problems: [...new Set(recent.filter((x) => BROKEN_XIDS.has(x.xid)).map((x) => `Xid ${x.xid} within the last ${RECENT_S / 60} min`))],
    facts: recent.slice(-8).map((x) => `Xid ${x.xid} ${x.ageS} s ago`),
  };
}
