import type { Device, Tool } from "@vibeserve/shared";
import type { Compiler } from "./compiler.ts";
import type { CpuFeatures } from "./cpu-features.ts";
import type { Topology } from "./cpu-topology.ts";
import { isaOf } from "./isa.ts";

/** Prefix of every label: the fleet's vocabulary, which targets and operators match on. */
const LABEL = "vibeserve.dev";

/** The processors of this machine as one device. */
export function cpuDevice(topology: Topology, features: CpuFeatures, agentId: string, compiler: Compiler | null): Device {
  const isa = isaOf(features.bits);
  const labels: Record<string, string> = {
    [`${LABEL}/device.kind`]: "cpu",
    [`${LABEL}/arch`]: process.arch,
    [`${LABEL}/os`]: process.platform,
    [`${LABEL}/cpu.model`]: topology.model,
    [`${LABEL}/cpu.cores`]: String(topology.cpus.length),
    [`${LABEL}/cpu.isa`]: isa,
    [`${LABEL}/cpu.isa.source`]: features.source,
    [`${LABEL}/mem.gib`]: String(Math.floor(topology.memBytes / 2 ** 30)),
    [`${LABEL}/compiler`]: compiler === null ? "none" : `${compiler.name}-${compiler.version}`,
  };
  for (const bit of features.bits) labels[`${LABEL}/cpu.isa.${bit}`] = "true";
  for (const cache of topology.caches) labels[`${LABEL}/cpu.cache.l${cache.level}.kib`] = String(cache.bytes / 1024);
  return {
    id: deviceId(agentId),
    kind: "cpu",
    name: topology.model,
    isa,
    isaBits: [...features.bits],
    cores: topology.cpus.length,
    cpus: topology.cpus.join(","),
    memBytes: topology.memBytes,
    labels,
    simulated: false,
  };
}

/** One CPU device an agent. */
export const deviceId = (agentId: string): string => `${agentId.slice(0, 60)}-cpu`;

/** Devices that are interchangeable for measuring: kind, instruction set and cores, such as "cpu-avx2-2c"; an accelerator brings the name in its label. */
export function poolOf(device: Device): string {
  const own = device.labels[`${LABEL}/pool`];
  if (own !== undefined) return own;
  return `${device.kind}-${device.isa}-${device.cores}c`;
}

/** What stands in every measurement beside the device. */
export function toolsOf(compiler: Compiler | null): Tool[] {
  const node: Tool = { name: "node", version: process.versions.node, digest: null };
  return compiler === null ? [node] : [{ name: compiler.name, version: compiler.version, digest: compiler.digest }, node];
}
