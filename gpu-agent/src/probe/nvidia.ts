import type { Device } from "@vibeserve/shared";
import type { ToolRun, VendorTools } from "../device/vendor-tool.ts";
import { acceleratorDevice, NOTHING, type Found, type Host } from "./accelerator.ts";
import { parseCsv, parseList, parseQuery, parseTopology, type Links, type Query, type Slice } from "./nvidia-text.ts";
import { brokenKeys, quantity, valueAt, type Outline } from "./outline.ts";

/** What nvidia-smi prints that the probe reads; only the first must have worked. */
export interface NvidiaOutputs {
  /** `-q` */
  readonly query: ToolRun;
  /** `-L` */
  readonly list: ToolRun;
  /** `--query-gpu=uuid,compute_cap --format=csv`: no other output has the compute capability. Drivers before 470 don't know the field. */
  readonly capabilities: ToolRun;
  /** `topo -m` */
  readonly topology: ToolRun;
}

export async function probeNvidia(tools: VendorTools, host: Host): Promise<Found> {
  if (tools.find("nvidia-smi") === null) return NOTHING;
  const [query, list, capabilities, topology] = await Promise.all([
    tools.run("nvidia-smi", ["-q"]),
    tools.run("nvidia-smi", ["-L"]),
    tools.run("nvidia-smi", ["--query-gpu=uuid,compute_cap", "--format=csv"]),
    tools.run("nvidia-smi", ["topo", "-m"]),
  ]);
  return nvidiaDevices({ query, list, capabilities, topology }, host);
}

/** One device a GPU, or one a slice where MIG is on. What can't be offered is a problem, with what the tool said. */
export function nvidiaDevices(outputs: NvidiaOutputs, host: Host): Found {
  if (outputs.query.kind === "missing") return NOTHING;
  if (outputs.query.kind === "failed") return { devices: [], problems: [outputs.query.why] };
  const query = parseQuery(outputs.query.text);
  const problems: string[] = [];
  if (query.gpus.length === 0) problems.push(`nvidia-smi lists no GPU: ${outputs.query.text.trim().slice(0, 160) || "it printed nothing"}`);
  else if (query.attached !== null && query.attached > query.gpus.length)
    problems.push(`nvidia-smi lists ${query.gpus.length} of ${query.attached} GPUs: the others do not answer`);
  const text = (run: ToolRun): string => (run.kind === "ok" ? run.text : "");
  const slices = parseList(text(outputs.list));
  const capabilities = parseCsv(text(outputs.capabilities));
  const links = parseTopology(text(outputs.topology));
  const devices: Device[] = [];
  for (const [index, gpu] of query.gpus.entries()) {
    const seen: Seen = {
      query,
      gpu,
      index,
      links: links.find((l) => l.index === index) ?? null,
      capability: capabilityOf(gpu, capabilities),
    };
    const name = `GPU ${valueAt(gpu, "PCI", "Bus Id") ?? valueAt(gpu, "GPU UUID") ?? index}`;
    for (const key of brokenKeys(gpu)) problems.push(`${name}: ${key} could not be read`);
    const made = devicesOf(seen, slices, host);
    if (typeof made === "string") problems.push(`${name}: ${made}`);
    else devices.push(...made);
  }
  return { devices, problems };
}

interface Seen {
  readonly query: Query;
  readonly gpu: readonly Outline[];
  readonly index: number;
  readonly links: Links | null;
  readonly capability: { readonly value: string; readonly source: "query" | "architecture" } | null;
}

/** The devices of one GPU, or why it gives none. */
function devicesOf(seen: Seen, slices: readonly Slice[], host: Host): Device[] | string {
  const { gpu } = seen;
  const name = valueAt(gpu, "Product Name");
  const uuid = valueAt(gpu, "GPU UUID");
  const memory = quantity(valueAt(gpu, "FB Memory Usage", "Total"), "MiB");
  if (name === null) return "it has no product name";
  // A whole GPU that is really in slices can't be computed on.
  if (brokenKeys(gpu).some((key) => key.startsWith("MIG Mode"))) return "whether it is in slices could not be read";
  if (valueAt(gpu, "MIG Mode", "Current") !== "Enabled") {
    if (memory === null) return "its memory could not be read";
    return [device(seen, host, { name, uuid, memMiB: memory, slice: null, nominal: false })];
  }
  const own = slices.filter((s) => s.gpuUuid === uuid);
  if (own.length === 0) return "MIG is on, and there is no instance";
  const described = gpu.find((o) => o.key === "MIG devices" || o.key === "MIG Devices")?.children ?? gpu;
  return own.map((slice) => {
    const of = described.find((o) => o.key === "MIG Device" && valueAt(o.children, "Index") === String(slice.index));
    const exact = of === undefined ? null : quantity(valueAt(of.children, "FB Memory Usage", "Total"), "MiB");
    // The profile's own name says so many 10^9 bytes.
    const nominal = Math.floor((Number(/(\d+)gb/.exec(slice.profile)?.[1] ?? 0) * 1e9) / 2 ** 20);
    return device(seen, host, { name, uuid: slice.uuid, memMiB: exact ?? nominal, slice, nominal: exact === null });
  });
}

interface Part {
  readonly name: string;
  readonly uuid: string | null;
  readonly memMiB: number;
  readonly slice: Slice | null;
  readonly nominal: boolean;
}

function device({ query, gpu, index, links, capability }: Seen, host: Host, part: Part): Device {
  const { name, uuid, memMiB, slice } = part;
  const watts = (key: string): number | null =>
    quantity(valueAt(gpu, "GPU Power Readings", `Current ${key}`) ?? valueAt(gpu, "Power Readings", key), "W");
  const limit = watts("Power Limit");
  const usual =
    quantity(valueAt(gpu, "GPU Power Readings", "Default Power Limit") ?? valueAt(gpu, "Power Readings", "Default Power Limit"), "W") ??
    limit;
  const [major = null, minor = null] = capability?.value.split(".") ?? [];
  const [gi = null, ci = null] = slice ? [/(\d+)g\./.exec(slice.profile)?.[1] ?? null, /^(\d+)c\./.exec(slice.profile)?.[1] ?? null] : [];
  const product = name.replaceAll(" ", "-");
  const sm = major === null || minor === null ? null : `sm_${major}${minor}`;
  // From Hopper on, the instructions that make a generation fast belong to it alone and are built for with an "a".
  const best = sm !== null && Number(major) >= 9 ? `${sm}a` : sm;
  const [dMajor = null, dMinor = null, dRevision = null] = query.driver?.split(".") ?? [];
  const [cMajor = null, cMinor = null] = query.cuda?.split(".") ?? [];
  return acceleratorDevice(
    {
      kind: "nvidia",
      name: slice ? `${name} MIG ${slice.profile}` : name,
      isa: best ?? "unknown",
      isaBits: sm === null ? [] : [...new Set([best ?? sm, sm])],
      memBytes: memMiB * 2 ** 20,
      uuid,
      index,
      // Another power limit is another speed: such a card is in a pool of its own.
      pool: [/^nvidia/i.test(name) ? "" : "nvidia", name, slice ? `mig ${slice.profile}` : "", limit === usual ? "" : `${limit}w`],
      nearCpus: links?.cpus ?? null,
      labels: {
        "nvidia.com/gpu.product": slice ? `${product}-MIG-${slice.profile}` : product,
        "nvidia.com/gpu.memory": part.nominal ? null : memMiB,
        "nvidia.com/gpu.count": query.gpus.filter((g) => valueAt(g, "Product Name") === name).length,
        "nvidia.com/gpu.family": valueAt(gpu, "Product Architecture")?.toLowerCase().replaceAll(" ", "-") ?? null,
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/gpu.slices.gi": gi,
        "nvidia.com/gpu.slices.ci": slice ? (ci ?? gi) : null,
        "nvidia.com/mig.capable": String(valueAt(gpu, "MIG Mode", "Current") !== null),
        "nvidia.com/mig.strategy": slice ? "single" : "none",
        "nvidia.com/cuda.driver-version.full": query.driver,
        "nvidia.com/cuda.driver-version.major": dMajor,
        "nvidia.com/cuda.driver-version.minor": dMinor,
        "nvidia.com/cuda.driver-version.revision": dRevision,
        "nvidia.com/cuda.runtime-version.full": query.cuda,
        "nvidia.com/cuda.runtime-version.major": cMajor,
        "nvidia.com/cuda.runtime-version.minor": cMinor,
        "vibeserve.dev/gpu.compute.source": capability?.source ?? null,
        "vibeserve.dev/gpu.memory.nominal.mib": part.nominal ? memMiB : null,
        "vibeserve.dev/gpu.uuid": uuid,
        "vibeserve.dev/gpu.bus-id": valueAt(gpu, "PCI", "Bus Id"),
        "vibeserve.dev/gpu.minor": valueAt(gpu, "Minor Number"),
        "vibeserve.dev/gpu.power-limit.w": limit,
        "vibeserve.dev/gpu.clock.max.mhz": quantity(valueAt(gpu, "Max Clocks", "SM"), "MHz"),
        "vibeserve.dev/gpu.clock.max.memory.mhz": quantity(valueAt(gpu, "Max Clocks", "Memory"), "MHz"),
        "vibeserve.dev/gpu.ecc": valueAt(gpu, "ECC Mode", "Current")?.toLowerCase() ?? null,
        "vibeserve.dev/gpu.link.peers": links && links.peers.length > 0 ? links.peers.length : null,
        "vibeserve.dev/gpu.link.each": links && links.peers.length > 0 ? `nvlink-${Math.min(...links.peers.map((p) => p.links))}` : null,
      },
    },
    host,
  );
}

/** Generations with one capability for all their products, where the driver is too old to be asked; Ampere and Blackwell have several. */
const BY_ARCHITECTURE: Readonly<Record<string, string>> = { Hopper: "9.0", "Ada Lovelace": "8.9", Turing: "7.5" };

function capabilityOf(gpu: readonly Outline[], rows: readonly Record<string, string>[]): Seen["capability"] {
  const uuid = valueAt(gpu, "GPU UUID");
  const name = valueAt(gpu, "Product Name");
  const row = rows.find((r) => (r["uuid"] === undefined ? r["name"] === name : r["uuid"] === uuid));
  const value = row?.["compute_cap"] ?? "";
  if (/^\d+\.\d+$/.test(value)) return { value, source: "query" };
  const known = BY_ARCHITECTURE[valueAt(gpu, "Product Architecture") ?? ""];
  return known === undefined ? null : { value: known, source: "architecture" };
}
