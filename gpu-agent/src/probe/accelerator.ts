import type { Device } from "@vibeserve/shared";
import { cpuList } from "../bench/cpu-clock.ts";
import type { Topology } from "./cpu-topology.ts";

/** What a vendor's tools said of this machine: its devices, and in words what is wrong with those that are not offered, or that answer only in part. */
export interface Found {
  readonly devices: readonly Device[];
  readonly problems: readonly string[];
}

export const NOTHING: Found = { devices: [], problems: [] };

/** What is the same for every accelerator of a machine. */
export interface Host {
  readonly agentId: string;
  readonly topology: Topology;
}

export interface Accelerator {
  readonly kind: "nvidia" | "amd" | "apple";
  /** The vendor's own name for it, for people. */
  readonly name: string;
  readonly isa: string;
  readonly isaBits: readonly string[];
  readonly memBytes: number;
  /** Lasts as long as the device does, so that evidence never goes to another one: its UUID; null: its place in the list. */
  readonly uuid: string | null;
  readonly index: number;
  /** Words of the pool's name; what makes two devices differ in speed must be among them. */
  readonly pool: readonly string[];
  /** Processors near it, as the vendor's tool lists them; null: all that the agent has. */
  readonly nearCpus?: string | null;
  readonly labels: Readonly<Record<string, string | number | null>>;
}

/** An accelerator as the fleet knows it. A label whose value is null is left out: nothing is made up for what a tool did not say. */
export function acceleratorDevice(a: Accelerator, { agentId, topology }: Host): Device {
  const given = Object.entries(a.labels).filter((entry): entry is [string, string | number] => entry[1] !== null);
  const own = topology.cpus;
  const listed = a.nearCpus ? cpuList(a.nearCpus) : [];
  const near = own.filter((cpu) => listed.includes(cpu));
  const cpus = near.length > 0 ? near : own;
  return {
    id: `${agentId.slice(0, 44)}-gpu-${a.uuid === null ? a.index : shortUuid(a.uuid)}`,
    kind: a.kind,
    name: a.name,
    isa: a.isa,
    isaBits: [...a.isaBits],
    cores: cpus.length,
    cpus: cpus.join(","),
    memBytes: a.memBytes,
    labels: {
      "vibeserve.dev/device.kind": a.kind,
      "vibeserve.dev/arch": process.arch,
      "vibeserve.dev/os": process.platform,
      "vibeserve.dev/pool": slug(a.pool.join("-")),
      ...Object.fromEntries(given.map(([name, value]) => [name, String(value)])),
    },
    simulated: false,
  };
}

/** "GPU-b42dd28e-ffdd-…" → "b42dd28e"; drivers before 470 name a slice "MIG-GPU-5c89852c-…/7/0" → "5c89852c-7-0". */
function shortUuid(uuid: string): string {
  const [, hex = "", place = ""] = /([0-9a-f]{8})[0-9a-f-]*((?:\/\d+)*)$/i.exec(uuid) ?? [];
  return `${hex.toLowerCase()}${place.replaceAll("/", "-")}` || slug(uuid).slice(-12);
}

/** A word that may stand in a pool's name: "NVIDIA H100 80GB HBM3" → "nvidia-h100-80gb-hbm3". A pool is a token of NATS subjects, so it has no dots. */
function slug(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")
    .slice(0, 64);
}
