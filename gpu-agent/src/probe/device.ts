import type { Device, Tool } from "@vibeserve/shared";
import { ConfigError } from "../config-error.ts";
import type { Compiler } from "./compiler.ts";
import type { CpuFeatures } from "./cpu-features.ts";
import type { Topology } from "./cpu-topology.ts";
import { isaOf } from "./isa.ts";
import type { IsaLevel } from "./isa-mask.ts";

/** Prefix of every label: the fleet's vocabulary, which targets and operators match on. */
const LABEL = "vibeserve.dev";
const MASKED = `${LABEL}/masked`;
const SUFFIX = "-masked";

/** The processors of this machine as one device; of a masked agent, as a device that has only its level's bits. */
export function cpuDevice(
  topology: Topology,
  features: CpuFeatures,
  agentId: string,
  compiler: Compiler | null,
  mask: IsaLevel | null = null,
): Device {
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
  if (mask !== null) Object.assign(labels, { [MASKED]: "true", [`${LABEL}/isa.mask`]: mask });
  for (const bit of features.bits) labels[`${LABEL}/cpu.isa.${bit}`] = "true";
  for (const cache of topology.caches) labels[`${LABEL}/cpu.cache.l${cache.level}.kib`] = String(cache.bytes / 1024);
  return {
    id: `${deviceId(agentId)}${mask === null ? "" : SUFFIX}`,
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

/**
 * Devices that are interchangeable for measuring: kind, instruction set and cores, such as "cpu-avx2-2c"; an accelerator brings the name in its label. A masked
 * device is never in a pool with one that is not, whatever the pool is called: its name alone ends in "-masked". Throws ConfigError where a given name says otherwise.
 */
export function poolOf(device: Device, named: string | null = null): string {
  const suffix = device.labels[MASKED] === "true" ? SUFFIX : "";
  if (named === null) return device.labels[`${LABEL}/pool`] ?? `${device.kind}-${device.isa}-${device.cores}c${suffix}`;
  if (named.endsWith(SUFFIX) === (suffix !== "")) return named;
  throw new ConfigError(`gpu-agent: --pool ${named}: the name of a masked agent's pool ends in "${SUFFIX}", and no other's does`);
}

/** Of all devices of an agent: the first one's, which may have a name given, then that of each other kind. Throws ConfigError. */
export function poolsOf(devices: readonly Device[], named: string | null = null): string[] {
  const [first] = devices;
  if (!first) return named === null ? [] : [named];
  const others = [...new Set(devices.map((d) => poolOf(d)))].filter((pool) => pool !== poolOf(first));
  if (named !== null && others.includes(named))
    throw new ConfigError(`gpu-agent: --pool ${named}: that is the pool of another kind of device here; it names that of ${first.id}`);
  return [poolOf(first, named), ...others];
}

/** Which of its devices an agent that is in these pools offers: the first one's kind, and kinds whose own pool is among them. Else two kinds would share a pool. */
export function offeredIn(devices: readonly Device[], pools: readonly string[]): Device[] {
  const [first] = devices;
  return devices.filter((d) => (first && poolOf(d) === poolOf(first)) || pools.includes(poolOf(d)));
}

/** What stands in every measurement beside the device. */
export function toolsOf(compiler: Compiler | null): Tool[] {
  const node: Tool = { name: "node", version: process.versions.node, digest: null };
  return compiler === null ? [node] : [{ name: compiler.name, version: compiler.version, digest: compiler.digest }, node];
}
