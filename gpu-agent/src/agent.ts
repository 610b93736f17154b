import { hostname } from "node:os";
import type { AgentInfo, Device, Tool } from "@vibeserve/shared";
import { baselinePython, installedEngines } from "./baseline/installed-engines.ts";
import { RECIPES } from "./baseline/recipe.ts";
import { offeredVersions } from "./build/library-needs.ts";
import { builderInfo, type Farm } from "./build/toolchain.ts";
import { loadIdentity, type Identity } from "./bus/identity.ts";
import type { AgentConfig } from "./config.ts";
import type { DataFolder } from "./data-folder.ts";
import { findCompiler, type Compiler } from "./probe/compiler.ts";
import { probeCpu } from "./probe/cpu-features.ts";
import { readTopology } from "./probe/cpu-topology.ts";
import { cpuDevice, poolOf, toolsOf } from "./probe/device.ts";
import { findFarm } from "./probe/farm.ts";
import { measurePeaks, type Peaks } from "./probe/peaks.ts";
import { bwrapPaths } from "./sandbox/bwrap-paths.ts";
import { probeSandbox } from "./sandbox/probe-sandbox.ts";
import type { Sandbox } from "./sandbox/sandbox.ts";

export const VERSION = "0.1.0";

/** What this agent is: who, on what, with what. */
export interface Probed {
  readonly identity: Identity;
  readonly compiler: Compiler | null;
  readonly farm: Farm;
  readonly sandbox: Sandbox;
  readonly device: Device;
  readonly tools: readonly Tool[];
  readonly info: AgentInfo;
  /** Measures the device's peaks anew, for when it is quiet. */
  readonly peaks: () => Promise<Peaks | null>;
}

/** Looks at the machine; some 0.3 s, of which the compiler's digest takes most, and some 3 s once in a machine's life, for its peaks. Throws where a compiler or sandbox that was asked for does not work. */
export async function probeAgent(config: AgentConfig, data: DataFolder): Promise<Probed> {
  const [identity, compiler, sandbox] = await Promise.all([
    loadIdentity(config.seedFile),
    findCompiler(config.cxx),
    probeSandbox({ bwrapPaths: bwrapPaths(config.bwrap, config.cache), unsafe: config.unsafeNoSandbox, tag: data.tag }),
  ]);
  const features = await probeCpu(compiler, data.probe);
  const topology = readTopology();
  const bare = cpuDevice(topology, features, config.agentId, compiler);
  const labels: Record<string, string> = { ...bare.labels, "vibeserve.dev/sandbox": sandbox.kind };
  const offered = await offeredVersions();
  const libc = offered.find((o) => o.name === "GLIBC")?.min;
  if (libc !== undefined) labels["vibeserve.dev/libc"] = libc;
  const peakDeps = { compiler, cacheDir: config.cache, topology, bits: features.bits };
  const { builderOnly, nvcc, hipCxx } = config;
  const peaks = builderOnly ? null : await measurePeaks(peakDeps);
  const device: Device = { ...bare, labels, ...(peaks ? { peaks } : {}) };
  const farm = await findFarm({ compiler, device: builderOnly ? null : device, all: builderOnly, offered, nvcc, hipCxx });
  const tools = toolsOf(compiler);
  const info: AgentInfo = {
    v: 1,
    kind: "agent",
    agentId: config.agentId,
    publicKey: identity.publicKey,
    version: VERSION,
    pools: [config.pool ?? (builderOnly ? `build-${process.arch}` : poolOf(device))],
    devices: builderOnly ? [] : [device],
    ...(builderOnly ? { builder: builderInfo(farm) } : {}),
    tools,
    engines: builderOnly ? [] : await installedEngines(RECIPES, config.cache, baselinePython(config.python)),
    sandbox: sandbox.kind,
    state: "ready",
    pid: process.pid,
    host: hostname(),
    startedAt: Date.now(),
  };
  return { identity, compiler, farm, sandbox, device, tools, info, peaks: () => measurePeaks(peakDeps, true) };
}
