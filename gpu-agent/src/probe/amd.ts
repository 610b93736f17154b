import type { Device } from "@vibeserve/shared";
import { firstWords, type ToolRun, type VendorTools } from "../device/vendor-tool.ts";
import { readText } from "../process/read-text.ts";
import { acceleratorDevice, NOTHING, type Found, type Host } from "./accelerator.ts";
import { amdSmiList, type AmdSmiEntry } from "./amd-smi.ts";
import { amount, member, textOf } from "./loose-json.ts";
import { parseOutline, quantity, valueAt, type Outline } from "./outline.ts";

export interface AmdOutputs {
  /** `rocminfo`: the only one that must have worked, since it is what a ROCm program sees. */
  readonly rocminfo: ToolRun;
  /** `amd-smi static --json`: driver, power cap, partition. */
  readonly amdSmi: ToolRun;
  /** `amd-smi topology --json`: links between GPUs. */
  readonly topology: ToolRun;
  /** `rocm-smi --showdriverversion --showmaxpower --showbus`, asked only where amd-smi gave nothing. */
  readonly rocmSmi: ToolRun;
  /** ROCm's own version file; null where there is none. */
  readonly rocm: string | null;
}

const MISSING: ToolRun = { kind: "missing" };

export async function probeAmd(tools: VendorTools, host: Host): Promise<Found> {
  if (tools.find("rocminfo") === null) return NOTHING;
  const [rocminfo, amdSmi, topology] = await Promise.all([
    tools.run("rocminfo", []),
    tools.run("amd-smi", ["static", "--json"]),
    tools.run("amd-smi", ["topology", "--json"]),
  ]);
  const asked = rocminfo.kind === "ok" && amdSmi.kind !== "ok";
  const rocmSmi = asked ? await tools.run("rocm-smi", ["--showdriverversion", "--showmaxpower", "--showbus"]) : MISSING;
  return amdDevices(
    { rocminfo, amdSmi, topology, rocmSmi, rocm: /^[\w.-]+/.exec(readText("/opt/rocm/.info/version") ?? "")?.[0] ?? null },
    host,
  );
}

/** One device an agent of HSA that is a GPU: a whole GPU, or a partition of one in CPX or TPX mode. */
export function amdDevices(outputs: AmdOutputs, host: Host): Found {
  const { rocminfo } = outputs;
  if (rocminfo.kind === "missing") return NOTHING;
  if (rocminfo.kind === "failed") return { devices: [], problems: [rocminfo.why] };
  const agents = parseOutline(rocminfo.text)
    .filter((o) => /^Agent \d+$/.test(o.key) && valueAt(o.children, "Device Type") === "GPU")
    .map((o) => o.children);
  // Without permission it says so and ends with 0.
  if (agents.length === 0) return { devices: [], problems: [`rocminfo lists no GPU: ${firstWords(rocminfo.text)}`] };
  const text = (run: ToolRun): string => (run.kind === "ok" ? run.text : "");
  const known = amdSmiList(text(outputs.amdSmi));
  const links = amdSmiList(text(outputs.topology));
  const lines = parseRocmSmi(text(outputs.rocmSmi));
  const module = /^ROCk module version (\S+) is loaded/m.exec(rocminfo.text)?.[1] ?? null;
  const problems = [outputs.amdSmi, outputs.topology].flatMap((run) => (run.kind === "failed" ? [run.why] : []));
  const devices: Device[] = [];
  for (const [index, agent] of agents.entries()) {
    const bus = busOf(agent);
    const smi = known.find((e) => bus !== null && textOf(member(e, "bus", "bdf")) === bus) ?? null;
    const cap = lines.find((l) => l["PCI Bus"] === bus)?.["Max Graphics Package Power (W)"] ?? null;
    const peers = links.find((e) => bus !== null && textOf(member(e, "bdf")) === bus);
    const made = device(
      { agent, index, bus, smi, count: agents.length, rocm: outputs.rocm },
      { cap: cap === null ? null : Number(cap), driver: lines[0]?.["Driver version"] ?? module, xgmi: xgmiPeers(peers ?? null) },
      host,
    );
    if (typeof made === "string") problems.push(`GPU ${bus ?? index}: ${made}`);
    else devices.push(made);
  }
  return { devices, problems };
}

interface Seen {
  readonly agent: readonly Outline[];
  readonly index: number;
  readonly bus: string | null;
  readonly smi: AmdSmiEntry | null;
  readonly count: number;
  readonly rocm: string | null;
}

function device(seen: Seen, other: { cap: number | null; driver: string | null; xgmi: number | null }, host: Host): Device | string {
  const { agent, smi } = seen;
  const isa = valueAt(agent, "Name");
  const pool = agent.find((o) => o.key === "Pool Info")?.children.find((p) => /COARSE GRAINED/.test(valueAt(p.children, "Segment") ?? ""));
  const kib = quantity(/^\d+/.exec(pool ? (valueAt(pool.children, "Size") ?? "") : "")?.[0] ?? null, "");
  if (isa === null || !/^gfx[0-9a-f]+$/.test(isa)) return `its instruction set could not be read: ${isa ?? "rocminfo names none"}`;
  if (kib === null) return "its memory could not be read";
  const chip = /\((0x[0-9a-f]+)\)/.exec(valueAt(agent, "Chip ID") ?? "")?.[1]?.slice(2) ?? null;
  const name =
    valueAt(agent, "Marketing Name") ?? textOf(member(smi, "asic", "market_name")) ?? `AMD ${isa}${chip === null ? "" : ` ${chip}`}`;
  const units = quantity(valueAt(agent, "Compute Unit"), "");
  const simds = quantity(valueAt(agent, "SIMDs per CU"), "");
  const compute = (
    textOf(member(smi, "partition", "accelerator_partition")) ?? textOf(member(smi, "partition", "compute_partition"))
  )?.toLowerCase();
  const memory = textOf(member(smi, "partition", "memory_partition"))?.toLowerCase();
  const partition = compute !== undefined && memory !== undefined ? `${compute}_${memory}` : null;
  const target = valueAt(agent.find((o) => o.key === "ISA Info")?.children.find((o) => o.key === "ISA 1")?.children ?? [], "Name") ?? "";
  return acceleratorDevice(
    {
      kind: "amd",
      name,
      isa,
      isaBits: [isa, ...target.split(":").slice(1)],
      memBytes: kib * 1024,
      uuid: valueAt(agent, "Uuid")?.replace(/^GPU-XX$/, "") || null,
      index: seen.index,
      // Partitions of another mode are another pool; whole GPUs need no word for it.
      pool: ["amd", name.replace(/^AMD (Instinct )?/, ""), partition === null || partition === "spx_nps1" ? "" : partition],
      labels: {
        "amd.com/gpu.family": /^gfx9(0[68a]|4\d|50)$/.test(isa) ? "AI" : null,
        "amd.com/gpu.device-id": chip,
        "amd.com/gpu.product-name": name.replaceAll(" ", "_"),
        "amd.com/gpu.vram": `${Math.round(kib / 2 ** 20)}G`,
        "amd.com/gpu.cu-count": units,
        "amd.com/gpu.simd-count": units === null || simds === null ? null : units * simds,
        "amd.com/gpu.driver-version": textOf(member(smi, "driver", "version")) ?? other.driver,
        "amd.com/compute-memory-partition": partition,
        "vibeserve.dev/gpu.count": seen.count,
        "vibeserve.dev/rocm": seen.rocm,
        "vibeserve.dev/gpu.uuid": valueAt(agent, "Uuid"),
        "vibeserve.dev/gpu.bus-id": seen.bus,
        "vibeserve.dev/gpu.clock.max.mhz": quantity(valueAt(agent, "Max Clock Freq. (MHz)"), ""),
        "vibeserve.dev/gpu.power-limit.w": powerCap(smi) ?? other.cap,
        "vibeserve.dev/gpu.link.peers": other.xgmi,
        "vibeserve.dev/gpu.link.each": other.xgmi === null ? null : "xgmi",
        "vibeserve.dev/gpu.unified-memory": /\bAPU\b/.test(valueAt(agent, "Memory Properties") ?? "") ? "true" : null,
      },
    },
    host,
  );
}

/** rocminfo's BDFID holds bus, device and function: 9728 is 0x2600, "0000:26:00.0". */
function busOf(agent: readonly Outline[]): string | null {
  const id = quantity(valueAt(agent, "BDFID"), "");
  if (id === null) return null;
  const hex = (n: number): string => n.toString(16).padStart(2, "0");
  return `0000:${hex((id >> 8) & 0xff)}:${hex((id >> 3) & 0x1f)}.${id & 7}`;
}

/** The cap in force: ROCm 6 names it max_power, ROCm 7 one a sensor. */
const powerCap = (smi: AmdSmiEntry | null): number | null =>
  amount(member(smi, "limit", "ppt0", "socket_power_limit"), "W") ??
  amount(member(smi, "limit", "socket_power"), "W") ??
  amount(member(smi, "limit", "max_power"), "W");

function xgmiPeers(entry: AmdSmiEntry | null): number | null {
  const links = member(entry, "links");
  if (!Array.isArray(links)) return null;
  const peers = links.filter(
    (link) => textOf(member(link, "link_type")) === "XGMI" && textOf(member(link, "bdf")) !== textOf(member(entry, "bdf")),
  );
  return peers.length === 0 ? null : peers.length;
}

/** rocm-smi's lines "GPU[0]  : PCI Bus: 0000:26:00.0", one record a GPU; what it says of the machine is in each. */
export function parseRocmSmi(text: string): Record<string, string>[] {
  const driver = /^Driver version: (\S+)$/m.exec(text)?.[1];
  const common: Record<string, string> = driver === undefined ? {} : { "Driver version": driver };
  const records = new Map<string, Record<string, string>>();
  for (const [, gpu = "", key = "", value = ""] of text.matchAll(/^GPU\[(\d+)\]\s*: ([^:]+): (.+)$/gm)) {
    const record = records.get(gpu) ?? { ...common };
    records.set(gpu, { ...record, [key.trim()]: value.trim() });
  }
  return [...records.values()];
}
