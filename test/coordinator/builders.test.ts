import { describe, expect, it } from "vitest";
import { buildTargetOf, canBuildFor, compareVersions, type AgentInfo, type BuilderInfo, type Device, type Job } from "@vibeserve/shared";
import { stackOf } from "../../coordinator/src/campaign/job-specs.ts";
import { eligible, sharedTarget } from "../../coordinator/src/fleet/builders.ts";
import { schedulableDevices } from "../../coordinator/src/fleet/schedulable.ts";

const AVX2 = ["avx", "f16c", "fma", "avx2", "bmi2"];
const AVX512 = [...AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl"];

const device = (id: string, more: Partial<Device> = {}, labels: Record<string, string> = {}): Device => ({
  ...{ id, kind: "cpu", name: "", isa: "avx2", isaBits: AVX2, cores: 2, cpus: "0,1", memBytes: 1, simulated: false },
  labels: { "vibeserve.dev/arch": "x64", "vibeserve.dev/os": "linux", "vibeserve.dev/libc": "2.36", ...labels },
  ...more,
});
const agent = (agentId: string, pool: string, more: Partial<AgentInfo> = {}): AgentInfo => ({
  ...{ v: 1, kind: "agent", agentId, publicKey: "U", version: "0", pools: [pool], devices: [device(`${agentId}-cpu`)], tools: [] },
  ...{ sandbox: "bubblewrap", state: "ready", pid: 1, host: "h", startedAt: 1 },
  ...more,
});
const compiler = (arch: "x64" | "arm64", libc: string | null) => ({ arch, digest: "ab".repeat(32), libc });
const builder = (agentId: string, made: Partial<BuilderInfo> = {}, more: Partial<AgentInfo> = {}): AgentInfo =>
  agent(agentId, "build-x64", { devices: [], builder: { compilers: [compiler("x64", "2.36")], gpus: [], ...made }, ...more });

const job = (spec: Partial<Extract<Job["spec"], { kind: "build" }>> = {}): Job => ({
  ...{ v: 1, kind: "job", id: "j", campaign: "c", experiment: "e", attempt: 1, pool: "p", issuedAt: 1, deadlineMs: 1 },
  spec: { kind: "build", treeDigest: "a".repeat(40), tree: { digest: "b".repeat(64), bytes: 1 }, provenance: "model", ...spec },
});

describe("what a build is for", () => {
  it("is the device's architecture, level, what it has beyond that, and its C library", () => {
    expect(buildTargetOf(device("d"))).toEqual({ arch: "x64", march: "x86-64-v3", more: [], libc: "2.36", gpu: null });
    expect(buildTargetOf(device("d", { isaBits: [...AVX512, "avx512_vnni", "amx_tile"] }))).toMatchObject({
      march: "x86-64-v4",
      more: ["-mavx512vnni", "-mamx-tile"],
    });
    expect(buildTargetOf(device("d", { isaBits: ["avx"] }))).toMatchObject({ march: "x86-64-v2", more: [] });
    const arm = device("d", { isaBits: ["neon", "dotprod", "i8mm"] }, { "vibeserve.dev/arch": "arm64" });
    expect(buildTargetOf(arm)).toMatchObject({ arch: "arm64", march: "armv8.2-a+dotprod+i8mm" });
  });

  it("of an accelerator is its own architecture on the processors that it is served from", () => {
    const host = device("cpu", { isaBits: AVX512 });
    const nvidia = (isa: string): Device => device("gpu", { kind: "nvidia", isa });
    expect(buildTargetOf(nvidia("sm_90a"), host)).toMatchObject({ march: "x86-64-v4", gpu: "sm_90a" });
    expect(buildTargetOf(nvidia("sm_89"), host)).toMatchObject({ gpu: "sm_89" });
    expect(buildTargetOf(device("gpu", { kind: "amd", isa: "gfx942" }), host)).toMatchObject({ gpu: "gfx942" });
    expect(buildTargetOf(device("gpu", { kind: "nvidia", isa: "unknown" }), host)).toBeNull();
  });

  it("of a masked device or another system only its own machine can tell", () => {
    expect(buildTargetOf(device("d", {}, { "vibeserve.dev/masked": "true" }))).toBeNull();
    expect(buildTargetOf(device("d", {}, { "vibeserve.dev/os": "darwin" }))).toBeNull();
  });

  it("is said only where more than one agent may build it or need it, and never of what is simulated", () => {
    const [one, two, other] = [agent("a", "p"), agent("b", "p"), agent("c", "q")];
    const of = (agents: AgentInfo[], d = one.devices[0]!) => sharedTarget(one, d, agents);
    expect(of([one, other])).toBeUndefined();
    expect(of([one, two])).toMatchObject({ march: "x86-64-v3" });
    expect(of([one, builder("f")])).toMatchObject({ march: "x86-64-v3" });
    expect(of([one, builder("f", { compilers: [compiler("arm64", null)] })])).toBeUndefined();
    expect(of([one, two], device("d", { simulated: true }))).toBeUndefined();
  });
});

it("later jobs name what was stored of a build", () => {
  const output = { tar: { digest: "c".repeat(64), bytes: 1 }, arch: "x64" as const, needs: [] };
  const built = { status: "built" as const, buildDigest: "d".repeat(64), cached: false, seconds: 1, bytes: 1 };
  const git = { treeDigest: "a".repeat(40), tree: { digest: "b".repeat(64), bytes: 1 } };
  expect(stackOf(git, "model", { ...built, output })).toEqual({ ...git, buildDigest: built.buildDigest, provenance: "model", output });
  expect(stackOf(git, "shipped", built)).not.toHaveProperty("output");
});

describe("a builder", () => {
  const target = buildTargetOf(device("d"))!;
  it.each([
    ["has no compiler for it", { compilers: [compiler("arm64", null)], gpus: [] }, {}, false],
    ["has a later C library", { compilers: [compiler("x64", "2.39")], gpus: [] }, {}, false],
    ["has the same C library", { compilers: [compiler("x64", "2.36")], gpus: [] }, {}, true],
    ["has an older one", { compilers: [compiler("x64", "2.9")], gpus: [] }, {}, true],
    ["lacks its GPU's compiler", { compilers: [compiler("x64", null)], gpus: ["sm_89"] }, { gpu: "sm_90a" }, false],
    ["has that too", { compilers: [compiler("x64", null)], gpus: ["sm_90a"] }, { gpu: "sm_90a" }, true],
  ] as const)("that %s can build: see", (_what, info, more, can) => {
    expect(canBuildFor({ compilers: [...info.compilers], gpus: [...info.gpus] }, { ...target, ...more })).toBe(can);
  });

  it("that measures nothing is preferred, the device's own pool takes what it leaves", () => {
    const agents = [agent("a", "p"), builder("f")];
    expect(eligible(job({ for: target }), agents)).toEqual({ pools: ["build-x64", "p"] });
    expect(eligible(job(), agents)).toEqual({ pools: ["p"] });
    expect(eligible(job({ for: target }), [agent("a", "p")])).toEqual({ pools: ["p"] });
  });

  it("that can't do it is left out, though its pool can; so is one without a sandbox for what a model wrote", () => {
    const agents = [agent("a", "p"), builder("able"), builder("arm", { compilers: [compiler("arm64", null)] })];
    expect(eligible(job({ for: target }), agents)).toEqual({ pools: ["build-x64", "p"], only: ["a-builder", "able-builder"] });
    const open = [agent("a", "p"), builder("f", {}, { sandbox: "none" })];
    expect(eligible(job({ for: target }), open)).toEqual({ pools: ["p"] });
    expect(eligible(job({ for: target, provenance: "shipped" }), open)).toEqual({ pools: ["build-x64", "p"] });
  });

  it("alone is one builder and no device, and real", () => {
    expect(schedulableDevices(builder("f"))).toMatchObject([{ id: "f-builder", slot: "builder", simulated: false }]);
  });

  it("orders versions as numbers", () => {
    expect(["2.9", "2.36", "2.36.1", "3.4.30"].sort(compareVersions)).toEqual(["2.9", "2.36", "2.36.1", "3.4.30"]);
  });
});
