import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Profile, type Device } from "@vibeserve/shared";
import { limitsFor } from "../../gpu-agent/src/bench/quiet.ts";
import { kernelRegions, parseNcu, type Launch } from "../../gpu-agent/src/profile/ncu-report.ts";
import { noise, profileStack, type ProfileDeps } from "../../gpu-agent/src/profile/profile-stack.ts";
import { SERVE_LIMITS } from "../../gpu-agent/src/sandbox/rlimits.ts";
import type { Mount, Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { spawnSandboxed } from "../../gpu-agent/src/sandbox/spawn.ts";
import type { Under } from "../../gpu-agent/src/serve/server-spec.ts";
import { startServer } from "../../gpu-agent/src/serve/start-server.ts";
import { closed, drawFakePrompt, fakeDevice } from "../bench/bench-kit.ts";
import { textOf, type FakeSpec } from "../bench/fake-candidate.ts";
import { bubblewrap, NODE } from "./kit.ts";
import { FIXTURES, output } from "./probe-kit.ts";

const CANDIDATES = join(import.meta.dirname, "../bench");
const root = mkdtempSync(join(tmpdir(), "vs-ncu-test-"));
const device: Device = { ...fakeDevice, kind: "nvidia", cpus: "0" };
let sandbox: Sandbox;
let n = 0;

beforeAll(async () => {
  chmodSync(root, 0o711);
  mkdirSync(join(root, "work"));
  sandbox = await bubblewrap();
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A fake ncu, installed as the real one is; `at`: its installation's folder. */
function fakeNcu(mode = "plain", at = String(n++)): string {
  const folder = join(root, at, "target/linux-desktop-x64");
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(import.meta.dirname, "profiles/fake-ncu.sh"), join(folder, "ncu"));
  copyFileSync(join(FIXTURES, "nvidia/h200-vm-ncu.txt"), join(folder, "printed.txt"));
  writeFileSync(join(folder, "mode"), mode);
  return join(folder, "ncu");
}

/** A stack that speaks the contract, as a server of its own process; `ran` takes the words that it was started with. */
function deps(ncu: string | null, ran: string[][], spec: Partial<FakeSpec> = {}): ProfileDeps {
  const words = [NODE, join(CANDIDATES, "fake-candidate.ts"), "${SOCKET}", JSON.stringify({ firstMs: 1, tokenMs: 1, ...spec })];
  const mounts = [dirname(NODE), CANDIDATES].map((from) => ({ from, mode: "ro" as const }));
  return {
    start: ({ under, onStopped }: { under?: Under; onStopped?: (socket: string) => Promise<void> }) => {
      ran.push([...(under?.argv ?? [])]);
      return startServer(
        { sandbox },
        {
          argv: [...(under?.argv ?? []), ...words],
          env: {},
          mounts: [...mounts, ...(under?.mounts ?? [])],
          counters: under?.counters === true,
          cpus: "0",
          healthTimeoutMs: 30_000,
          provenance: "shipped",
          ...(onStopped ? { onStopped } : {}),
        },
      );
    },
    tools: { drawPrompt: drawFakePrompt, decode: textOf },
    ...{ sandbox, device, ncu, perf: null, valgrind: null, buildDir: root, workDir: join(root, "work") },
    signal: new AbortController().signal,
    progress: () => undefined,
  };
}

it("a stack's kernels are those behind what a start and its prompts launched, by their share of the time, with what they reached", async () => {
  const ran: string[][] = [];
  const profile = await profileStack(closed(4, 16, 64), deps(fakeNcu(), ran));
  expect(Profile.parse(profile)).toEqual(profile);
  // Rows 6 to 13 of the output: two rounds of GEMM, SiLU, copy and softmax.
  expect(profile).toMatchObject({ source: "ncu", samples: 8, observerEffect: null });
  expect(profile.regions).toHaveLength(4);
  expect(profile.regions.map((r) => r.samples)).toEqual([2, 2, 2, 2]);
  expect(profile.regions.reduce((sum, r) => sum + r.share, 0)).toBeCloseTo(1);
  expect(profile.regions[0]?.name).toMatch(
    /cunn_SoftMaxForwardReg.* \[2 x 35\.\d us, memory 10 %, compute 58 %, warps 46 %, 37 registers\]$/,
  );
  expect(profile.regions[1]?.name).toMatch(/^nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_TNT \[2 x 2\d\.\d us, memory 3\d %, compute 72 %/);
  expect(profile.note).toMatch(
    /^8 launches, .* after 6 of a start and its prompts: decode steps of 4 sequences behind prompts of 30 tokens; /,
  );
  expect(ran).toHaveLength(2);
  expect(ran[0]?.join(" ")).toMatch(/--target-processes all --graph-profiling node .*--launch-count 6000$/);
  expect(ran[1]?.join(" ")).toMatch(/--metrics gpu__time_duration.sum,\S+ --launch-skip 6 --launch-count 2000$/);
});

it("where the driver does not let it read counters the result says so, what to allow, and nothing is tried twice", async () => {
  const ran: string[][] = [];
  await expect(profileStack(closed(2, 2, 8), deps(fakeNcu("denied"), ran))).rejects.toMatchObject({
    attribution: "device",
    code: "no-profiler",
    message: expect.stringMatching(
      /not permitted: .*ERR_NVGPUCTRPERM.*; perf is not installed: .*NVreg_RestrictProfilingToAdminUsers=0/,
    ) as string,
  });
  expect(ran).toHaveLength(1);
  await expect(profileStack(closed(2, 2, 8), deps(null, ran))).rejects.toMatchObject({
    message: expect.stringMatching(/Nsight Compute \(ncu\) is not installed/) as string,
  });
});

it("a chip on which it does not know a counter is asked for the sections that every chip has", async () => {
  const ran: string[][] = [];
  const profile = await profileStack(closed(2, 2, 8), deps(fakeNcu("unknown"), ran));
  expect(profile.samples).toBe(8);
  expect(ran.at(-1)?.join(" ")).toMatch(/--section SpeedOfLight .*--launch-count 300$/);
});

it("a stack that does not answer under ncu is not blamed for it: another profiler is asked", async () => {
  const ran: string[][] = [];
  await expect(profileStack(closed(2, 4, 8), deps(fakeNcu(), ran, { trick: "short" }))).rejects.toMatchObject({
    attribution: "device",
    message: expect.stringMatching(/under Nsight Compute the stack does not work: \S+: .*perf is not installed/) as string,
  });
});

it("ncu brings its installation into the sandbox, not the folder that a link to it lies in; one with the agent's own folder in it is refused", async () => {
  const home = join(root, "home");
  mkdirSync(join(home, "bin"), { recursive: true });
  const shown: (readonly Mount[])[] = [];
  const under = async (ncu: string, more: Partial<ProfileDeps> = {}): Promise<Profile> => {
    const plain = deps(ncu, []);
    return profileStack(closed(2, 2, 8), {
      ...plain,
      start: (asked) => {
        shown.push(asked.under?.mounts ?? []);
        return plain.start(asked);
      },
      ...more,
    });
  };
  symlinkSync(fakeNcu("plain", "home/nsight"), join(home, "bin/ncu"));
  expect((await under(join(home, "bin/ncu"))).source).toBe("ncu");
  expect(shown[0]?.map((m) => m.from).filter((path) => path.startsWith(root))).toEqual([join(home, "nsight")]);
  // A program without an installation around it is shown alone.
  const alone = join(home, "bin/alone");
  copyFileSync("/bin/true", alone);
  await expect(under(alone)).rejects.toMatchObject({ code: "no-profiler" });
  expect(
    shown
      .at(-1)
      ?.map((m) => m.from)
      .filter((path) => path.startsWith(root)),
  ).toEqual([alone]);
  const before = shown.length;
  const around = fakeNcu();
  await expect(under(around, { workDir: join(root, String(n - 1), "work") })).rejects.toThrow(
    "which no candidate may see: install it in a folder of its own",
  );
  expect(shown).toHaveLength(before);
});

it("an accelerator's run is noisy beyond what an accelerator's benchmark refuses, not what the processors' does", () => {
  const quiet = { stealPct: 0, foreignCpuPct: 0, armCpuPct: 10, generatorCpuPct: 1, scheduleSlipP99Ms: 0, loopDelayP99Ms: 0 };
  const end = { quiet: { ...quiet, slowdown: 1.4, resolutionPct: 1 } };
  const of = (kind: Device["kind"]): string => noise(closed(2, 2, 8), limitsFor({ kind }), end);
  expect([of("nvidia"), of("apple")]).toEqual(["", ""]);
  expect(of("cpu")).toBe("the device was not quiet: slowdown of the machine 1.40× > 1.25×");
});

it("what a stack is run under by root has the one capability that counters need, and no other; else none", async () => {
  const capabilities = async (counters: boolean): Promise<string> => {
    const tree = await spawnSandboxed(sandbox, {
      argv: ["/bin/sh", "-c", "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status; id -u"],
      ...{ env: {}, mounts: [], cwd: "/tmp", cpus: null, limits: SERVE_LIMITS, provenance: "shipped", counters },
    });
    await tree.exited;
    await tree.logEnded();
    await tree.stop(0);
    return tree.stdout.text();
  };
  const granted = sandbox.kind === "bubblewrap" && sandbox.drop === "setuid" && process.getuid?.() === 0;
  const [without, given] = [await capabilities(false), await capabilities(true)];
  if (granted) {
    // CAP_PERFMON is 38.
    expect(given.match(/^Cap\w+:\t0000004000000000$/gm)).toHaveLength(4);
    expect(without.match(/^Cap\w+:\t0{16}$/gm)).toHaveLength(4);
    expect(given).toMatch(/^[1-9]\d+$/m);
  } else expect(given.replace(/^\d+$/m, "")).toBe(without.replace(/^\d+$/m, ""));
});

it("what one ncu printed is read cell by cell: names with commas, numbers with separators, columns by their names", () => {
  const { launches, trouble } = parseNcu(output("nvidia/h200-vm-ncu"));
  expect(trouble).toBe("");
  expect(launches).toHaveLength(14);
  expect(launches[0]?.kernel).toMatch(/^void at::<unnamed>::distribution_elementwise_grid_stride_kernel<float, 4, /);
  expect(launches[2]).toEqual({
    kernel: "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_TNT",
    ...{ ns: 25_440, memoryPct: 31.35, computePct: 72.68, warpsPct: 14.12, registers: 168 },
  });
  // The few counters that one run gives say the same as the sections' greatest of many.
  const few = parseNcu(output("nvidia/h200-vm-ncu").replaceAll("gpu__dram_throughput", "x").replaceAll("sm__throughput", "y"));
  expect(few.launches).toEqual(launches);
});

it("a report is the candidate's to forge and is believed in nothing: no escapes, no long names, no numbers that are none; cut anywhere it never throws", () => {
  const text = output("nvidia/h200-vm-ncu");
  for (let at = 0; at < text.length; at += 97) parseNcu(text.slice(0, at));
  expect(parseNcu('"ID","Kernel Name"\n"","",\n"'.repeat(3)).launches).toEqual([]);
  expect(parseNcu(text.replaceAll('"25,440"', '"1e999"').replaceAll('"ns"', '"parsec"')).launches).toEqual([]);
  // Each line by itself could take the agent's memory; as many launches, its time for hours.
  const head = '"ID","Kernel Name","gpu__time_duration.sum"\n"","","ns"\n';
  expect(parseNcu(`${head}"${"a".repeat(15e6)}`).launches).toEqual([]);
  expect(parseNcu(`${head}${'"",'.repeat(4e6)}`).launches).toEqual([]);
  const flood = parseNcu(head + '"","k","1"\n'.repeat(1e6)).launches;
  expect(flood).toHaveLength(9_999);
  expect(kernelRegions(flood)).toMatchObject({ regions: [{ samples: flood.length, share: 1 }] });
  const forged = parseNcu(text.replace("nvjet_sm90", `\u001b[31m\u202e${"x".repeat(500)}`)).launches;
  const name = kernelRegions(forged).regions.find((r) => r.name.startsWith("xxx"))?.name;
  expect(name).toMatch(/^x+ \[1 x 25\.4 us, memory 31 %, compute 73 %, warps 14 %, 168 registers\]$/);
  expect(name).toHaveLength(200);
  const none = { memoryPct: null, computePct: null, warpsPct: null, registers: null };
  const many = Array.from({ length: 100 }, (_, i): Launch => ({ kernel: `k${i}`, ns: 1e3, ...none }));
  const { regions, samples } = kernelRegions(many);
  expect([regions.length, samples, regions[0]]).toEqual([60, 100, { name: "k0 [1 x 1.0 us]", share: 0.01, samples: 1 }]);
  expect(Profile.parse({ source: "ncu", regions, samples, observerEffect: null, note: "" }).regions).toEqual(regions);
});
