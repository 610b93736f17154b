import { hostname } from "node:os";
import type { AgentInfo, Device, Tool } from "@vibeserve/shared";
import { baselinePython, installedEngines } from "./baseline/installed-engines.ts";
import { RECIPES } from "./baseline/recipe.ts";
import { loadIdentity, type Identity } from "./bus/identity.ts";
import type { AgentConfig } from "./config.ts";
import type { DataFolder } from "./data-folder.ts";
import { findCompiler, type Compiler } from "./probe/compiler.ts";
import { probeCpu } from "./probe/cpu-features.ts";
import { readTopology } from "./probe/cpu-topology.ts";
import { deviceAdapters, type Adapters } from "./device/adapter.ts";
import { vendorTools } from "./device/vendor-tool.ts";
import { confinementLabels } from "./probe/confinement.ts";
import { cpuDevice, poolOf, toolsOf } from "./probe/device.ts";
import { probeDevices } from "./probe/devices.ts";
import { probeToolchains } from "./probe/toolchains.ts";
import { measurePeaks, type Peaks } from "./probe/peaks.ts";
import { bwrapPaths } from "./sandbox/bwrap-paths.ts";
import { probeSandbox } from "./sandbox/probe-sandbox.ts";
import type { Sandbox } from "./sandbox/sandbox.ts";

export const VERSION = "0.1.0";

/** What this agent is: who, on what, with what. */
export interface Probed {
  readonly identity: Identity;
  readonly compiler: Compiler | null;
  readonly sandbox: Sandbox;
  /** Measured devices: the accelerators, or the processors where there are none. The first is what `pools[0]` is about. */
  readonly devices: readonly Device[];
  /** The first of `devices`. */
  readonly device: Device;
  /** The processors, which build and serve the evaluator, whether they are a measured device or not. */
  readonly cpu: Device;
  /** What is wrong with accelerators of this machine, in words. */
  readonly problems: readonly string[];
  readonly adapters: Adapters;
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
  const labels = { ...bare.labels, "vibeserve.dev/sandbox": sandbox.kind };
  const peakDeps = { compiler, cacheDir: config.cache, topology, bits: features.bits };
  const peaks = await measurePeaks(peakDeps);
  const vendors = vendorTools(config.vendorTools, config.python);
  const adapters = deviceAdapters(vendors);
  const found = await probeDevices(adapters, { agentId: config.agentId, topology });
  const own = found.devices.map((d) => ({ ...d, labels: { ...d.labels, ...confinementLabels(), "vibeserve.dev/sandbox": sandbox.kind } }));
  const trouble = Object.fromEntries(found.problems.slice(0, 8).map((problem, i) => [`vibeserve.dev/problem.${i}`, problem]));
  const cpu: Device = { ...bare, labels: { ...labels, ...trouble }, ...(peaks ? { peaks } : {}) };
  const devices = own.length > 0 ? own : [cpu];
  const [device = cpu] = devices;
  const tools = [...toolsOf(compiler), ...(own.length > 0 ? await probeToolchains(vendors) : [])];
  const info: AgentInfo = {
    v: 1,
    kind: "agent",
    agentId: config.agentId,
    publicKey: identity.publicKey,
    version: VERSION,
    pools: [config.pool ?? poolOf(device)],
    devices: [...devices],
    tools,
    engines: await installedEngines(RECIPES, config.cache, baselinePython(config.python)),
    sandbox: sandbox.kind,
    state: "ready",
    pid: process.pid,
    host: hostname(),
    startedAt: Date.now(),
  };
  const { problems } = found;
  return { identity, compiler, sandbox, devices, device, cpu, problems, adapters, tools, info, peaks: () => measurePeaks(peakDeps, true) };
}
