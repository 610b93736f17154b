import { hostname } from "node:os";
import type { AgentInfo, Device, Tool } from "@vibeserve/shared";
import { baselinePython, installedEngines } from "./baseline/installed-engines.ts";
import { RECIPES } from "./baseline/recipe.ts";
import { libcOf, offeredVersions } from "./build/library-needs.ts";
import { builderInfo, type Farm } from "./build/toolchain.ts";
import { loadIdentity, type Identity } from "./bus/identity.ts";
import type { AgentConfig } from "./config.ts";
import type { DataFolder } from "./data-folder.ts";
import { PLATFORM } from "./platform.ts";
import { findCompiler, type Compiler } from "./probe/compiler.ts";
import { probeCpu } from "./probe/cpu-features.ts";
import { readTopology } from "./probe/cpu-topology.ts";
import { deviceAdapters, type Adapters } from "./device/adapter.ts";
import { vendorTools } from "./device/vendor-tool.ts";
import { confinementLabels } from "./probe/confinement.ts";
import { cpuDevice, poolsOf, toolsOf } from "./probe/device.ts";
import { machineDigest } from "./machine/machine-id.ts";
import { machineLockName } from "./machine/machine-lock.ts";
import { probeDevices } from "./probe/devices.ts";
import { maskOf, type IsaMask } from "./probe/isa-mask.ts";
import { probeToolchains, pythonPackages } from "./probe/toolchains.ts";
import { findFarm } from "./probe/farm.ts";
import { measurePeaks, type Peaks } from "./probe/peaks.ts";
import { bwrapPaths } from "./sandbox/bwrap-paths.ts";
import { probeSandbox } from "./sandbox/probe-sandbox.ts";
import { findPython, tryPython } from "./sandbox/python.ts";
import type { Sandbox } from "./sandbox/sandbox.ts";
import { Alone } from "./worker/alone.ts";

export const VERSION = "0.1.0";
/** A machine that measures for longer is left alone: the peaks are measured at a later start. */
const PEAKS_WAIT_MS = 15_000;

/** What this agent is: who, on what, with what. */
export interface Probed {
  readonly identity: Identity;
  /** For candidates: a masked agent's has the level's -march. */
  readonly compiler: Compiler | null;
  /** For what is ours, and measures nothing: the reference. */
  readonly ownCompiler: Compiler | null;
  readonly mask: IsaMask | null;
  readonly alone: Alone;
  readonly farm: Farm;
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

/** Looks at the machine; some 0.3 s, of which the compiler's digest takes most, and some 3 s once in a machine's life, for its peaks. Throws where a compiler, Python or sandbox that was asked for does not work. */
export async function probeAgent(config: AgentConfig, data: DataFolder, platform = PLATFORM): Promise<Probed> {
  const [identity, own, bare, python] = await Promise.all([
    loadIdentity(config.seedFile),
    findCompiler(config.cxx, platform),
    probeSandbox({ bwrapPaths: bwrapPaths(config.bwrap, config.cache), unsafe: config.unsafeNoSandbox, tag: data.tag, platform }),
    findPython(config.python, config.data),
  ]);
  const host = await probeCpu(own, data.probe, platform);
  const mask = config.isaMask === null ? null : maskOf(config.isaMask, host, own);
  // Compiled and run: a compiler that does not know the level says so now.
  if (mask) await probeCpu(mask.compiler, data.probe);
  const { features, compiler } = mask ?? { features: host, compiler: own };
  const sandbox: Sandbox = { ...bare, masked: mask !== null, ...(python ? { python } : {}) };
  if (python) await tryPython(sandbox, python);
  const topology = readTopology();
  const offered = await offeredVersions();
  const libc = libcOf(offered);
  const confined = { "vibeserve.dev/sandbox": sandbox.kind, ...(libc === null ? {} : { "vibeserve.dev/libc": libc }) };
  const found = cpuDevice(topology, features, config.agentId, compiler, mask?.level);
  const peakDeps = { compiler, cacheDir: config.cache, topology, bits: features.bits };
  const { machineLock, lockDir } = config;
  const alone = new Alone(machineLock ?? machineLockName(), machineLock ?? "vibeserve-device", config.agentId, lockDir);
  const { builderOnly, nvcc, hipCxx } = config;
  const peaks = builderOnly ? null : await measurePeaks({ ...peakDeps, alone: (work) => alone.briefly("probe", PEAKS_WAIT_MS, work) });
  const vendors = vendorTools(config.vendorTools, config.python);
  const adapters = deviceAdapters(vendors);
  const accelerators = await probeDevices(adapters, { agentId: config.agentId, topology });
  const { problems } = accelerators;
  const trouble = Object.fromEntries(problems.slice(0, 8).map((problem, i) => [`vibeserve.dev/problem.${i}`, problem]));
  const cpu: Device = { ...found, labels: { ...found.labels, ...confined, ...trouble }, ...(peaks ? { peaks } : {}) };
  const measuredHere = builderOnly ? { device: null, accelerators: [] } : { device: cpu, accelerators: accelerators.devices };
  const farm = await findFarm({ compiler, ...measuredHere, all: builderOnly, offered, nvcc, hipCxx, platform });
  const limits = accelerators.devices.length > 0 ? confinementLabels() : {};
  const measured = accelerators.devices.map((d) => ({ ...d, labels: { ...d.labels, ...limits, ...confined } }));
  const devices = measured.length > 0 ? measured : [cpu];
  const [device = cpu] = devices;
  const more = measured.length > 0 ? await probeToolchains(vendors) : config.python === null ? [] : await pythonPackages(vendors);
  const tools = [...toolsOf(compiler), ...more];
  const info: AgentInfo = {
    v: 1,
    kind: "agent",
    agentId: config.agentId,
    publicKey: identity.publicKey,
    version: VERSION,
    pools: builderOnly ? [config.pool ?? `build-${process.arch}`] : poolsOf(devices, config.pool),
    devices: builderOnly ? [] : [...devices],
    ...(builderOnly ? { builder: builderInfo(farm) } : {}),
    tools,
    // Engines choose their kernels by CPUID, which no mask changes.
    engines: mask || builderOnly ? [] : await installedEngines(RECIPES, config.cache, baselinePython(config)),
    sandbox: sandbox.kind,
    state: "ready",
    pid: process.pid,
    host: hostname(),
    machine: machineDigest(),
    startedAt: Date.now(),
  };
  const self = { identity, compiler, farm, ownCompiler: own, mask, alone, sandbox, devices, device, cpu, problems, adapters, tools, info };
  return { ...self, peaks: () => measurePeaks(peakDeps, true) };
}
