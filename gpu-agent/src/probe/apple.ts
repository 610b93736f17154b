import { parseJson } from "@vibeserve/shared";
import type { ToolRun, VendorTools } from "../device/vendor-tool.ts";
import { acceleratorDevice, NOTHING, type Found, type Host } from "./accelerator.ts";
import { member, textOf } from "./loose-json.ts";
import { parseOutline, valueAt } from "./outline.ts";

export interface AppleOutputs {
  /** `system_profiler SPHardwareDataType SPDisplaysDataType -json`, or the same as text. */
  readonly profiler: ToolRun;
  /** `sysctl hw.memsize kern.osproductversion iogpu.wired_limit_mb` */
  readonly sysctl: ToolRun;
}

/** Nothing is asked on other systems: a program of that name there is another one. */
export async function probeApple(tools: VendorTools, host: Host, platform: string = process.platform): Promise<Found> {
  if (platform !== "darwin") return NOTHING;
  const [profiler, sysctl] = await Promise.all([
    tools.run("system_profiler", ["SPHardwareDataType", "SPDisplaysDataType", "-json"]),
    tools.run("sysctl", ["hw.memsize", "kern.osproductversion", "iogpu.wired_limit_mb"]),
  ]);
  return appleDevices({ profiler, sysctl }, host);
}

/** The chip's GPU, which shares the machine's memory. An Intel Mac gives none. */
export function appleDevices({ profiler, sysctl }: AppleOutputs, host: Host): Found {
  if (profiler.kind === "missing") return NOTHING;
  if (profiler.kind === "failed") return { devices: [], problems: [profiler.why] };
  const facts = factsOf(profiler.text);
  if (facts === null) return { devices: [], problems: ["system_profiler printed no hardware overview"] };
  const chip = /^Apple (M\d+(?: \w+)?)(?: \(Virtual\))?$/.exec(facts.chip ?? "")?.[1];
  if (chip === undefined) return facts.chip === null ? NOTHING : { devices: [], problems: [`the chip "${facts.chip}" is not known`] };
  const kernel = parseOutline(sysctl.kind === "ok" ? sysctl.text : "");
  const bytes = Number(valueAt(kernel, "hw.memsize") ?? NaN);
  const memBytes = Number.isSafeInteger(bytes) && bytes > 0 ? bytes : (facts.memoryGib ?? 0) * 2 ** 30;
  if (memBytes === 0) return { devices: [], problems: ["its memory could not be read"] };
  const isVirtual = facts.chip?.includes("(Virtual)") === true;
  const device = acceleratorDevice(
    {
      kind: "apple",
      name: facts.chip ?? "",
      // "M3 Pro" and "M3 Max" are one generation: the same instructions, more cores.
      isa: `apple-${chip.split(" ")[0]?.toLowerCase() ?? ""}`,
      // "apple-gpu" is what skills ask for.
      isaBits: ["apple-gpu", ...(facts.metal === null ? [] : [facts.metal.toLowerCase().replaceAll(" ", "")])],
      memBytes,
      uuid: null,
      index: 0,
      // The same chip is sold with different numbers of GPU cores.
      pool: ["apple", chip, facts.gpuCores === null ? "" : `${facts.gpuCores}c`, isVirtual ? "virtual" : ""],
      labels: {
        "vibeserve.dev/apple.chip": facts.chip,
        "vibeserve.dev/apple.model": facts.model,
        "vibeserve.dev/apple.cores.performance": facts.performance,
        "vibeserve.dev/apple.cores.efficiency": facts.efficiency,
        "vibeserve.dev/apple.gpu.cores": facts.gpuCores,
        "vibeserve.dev/apple.metal": facts.metal,
        "vibeserve.dev/apple.virtual": isVirtual ? "true" : null,
        "vibeserve.dev/apple.wired-limit.mib": Number(valueAt(kernel, "iogpu.wired_limit_mb") ?? 0) || null,
        "vibeserve.dev/os.version": valueAt(kernel, "kern.osproductversion"),
        "vibeserve.dev/gpu.unified-memory": "true",
      },
    },
    host,
  );
  return { devices: [device], problems: [] };
}

interface Facts {
  readonly chip: string | null;
  readonly model: string | null;
  readonly memoryGib: number | null;
  readonly performance: number | null;
  readonly efficiency: number | null;
  readonly gpuCores: number | null;
  readonly metal: string | null;
}

const number = (text: string | undefined): number | null => (text === undefined ? null : Number(text));

function factsOf(text: string): Facts | null {
  if (text.trimStart().startsWith("{")) return factsOfJson(text);
  const outline = parseOutline(text);
  const above = outline.find((o) => o.key === "Hardware")?.children ?? outline;
  const hardware = above.find((o) => o.key === "Hardware Overview")?.children;
  if (hardware === undefined) return null;
  const graphics = outline.find((o) => o.key === "Graphics/Displays")?.children[0]?.children ?? [];
  const [, performance, efficiency] =
    /\((\d+) performance and (\d+) efficiency\)/i.exec(valueAt(hardware, "Total Number of Cores") ?? "") ?? [];
  return {
    chip: valueAt(hardware, "Chip"),
    model: valueAt(hardware, "Model Identifier"),
    memoryGib: number(/^(\d+) GB$/.exec(valueAt(hardware, "Memory") ?? "")?.[1]),
    performance: number(performance),
    efficiency: number(efficiency),
    gpuCores: number(/^\d+/.exec(valueAt(graphics, "Total Number of Cores") ?? "")?.[0]),
    metal: valueAt(graphics, "Metal Support"),
  };
}

function factsOfJson(text: string): Facts | null {
  const json = parseJson(text);
  const hardware = member(json, "SPHardwareDataType", "0");
  if (hardware === undefined) return null;
  const graphics = member(json, "SPDisplaysDataType", "0");
  // "proc 16:12:4" is all, performance, efficiency; a virtual machine gives only a number.
  const [, performance, efficiency] = /^proc \d+:(\d+):(\d+)/.exec(textOf(member(hardware, "number_processors")) ?? "") ?? [];
  return {
    chip: textOf(member(hardware, "chip_type")),
    model: textOf(member(hardware, "machine_model")),
    memoryGib: number(/^(\d+) GB$/.exec(textOf(member(hardware, "physical_memory")) ?? "")?.[1]),
    performance: number(performance),
    efficiency: number(efficiency),
    gpuCores: number(/^\d+/.exec(textOf(member(graphics, "sppci_cores")) ?? "")?.[0]),
    metal: /^spdisplays_(metal\d*)$/.exec(textOf(member(graphics, "spdisplays_mtlgpufamilysupport")) ?? "")?.[1] ?? null,
  };
}
