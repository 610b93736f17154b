import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { chmod, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Profile } from "@vibeserve/shared";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { buildStack } from "../../gpu-agent/src/build/build-stack.ts";
import { findCompiler, type Compiler } from "../../gpu-agent/src/probe/compiler.ts";
import { parseCallgrind, without } from "../../gpu-agent/src/profile/callgrind.ts";
import { NoPerf, readRecording, startPerf, type Recording } from "../../gpu-agent/src/profile/perf.ts";
import { profileStack } from "../../gpu-agent/src/profile/profile-stack.ts";
import { parsePerfReport, regionsOf, type ProfileRow } from "../../gpu-agent/src/profile/regions.ts";
import { SERVE_LIMITS } from "../../gpu-agent/src/sandbox/rlimits.ts";
import type { Sandbox } from "../../gpu-agent/src/sandbox/sandbox.ts";
import { spawnSandboxed } from "../../gpu-agent/src/sandbox/spawn.ts";
import { jobContext, localArtifacts } from "./context-kit.ts";
import { bubblewrap, noSandbox } from "./kit.ts";
import { candidateFiles, packed } from "./tree-kit.ts";

const root = mkdtempSync(join(tmpdir(), "vs-profile-test-"));
const artifacts = localArtifacts(join(root, "artifacts"));
const signal = new AbortController().signal;
let sandbox: Sandbox;
let compiler: Compiler | null;

beforeAll(async () => {
  // Without bubblewrap another user reads what lies in here.
  chmodSync(root, 0o711);
  [sandbox, compiler] = await Promise.all([bubblewrap(), findCompiler(null)]);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Spends nearly all its time in one function of a namespace, in a second thread. */
const SPINNING = `
#include <cstdio>
#include <thread>
namespace engine {
struct Block { int n; };
__attribute__((noinline)) unsigned hot_loop(const Block& b) {
  unsigned x = 1;
  for (int i = 0; i < b.n; i++) x = x * 1664525u + 1013904223u;
  return x;
}
}
int main() {
  std::thread([] {
    unsigned sum = 0;
    for (int i = 0; i < 1 << 20; i++) sum += engine::hot_loop({1 << 22});
    std::printf("%u", sum);
  }).join();
}
`;

async function spinning(strip: boolean): Promise<string> {
  const build = `#!/bin/sh\n$1 -O1 -std=c++20 -pthread ${strip ? "-s" : ""} -o "$2" main.cpp\n`;
  const { tar, treeDigest } = packed(candidateFiles("plain", { "main.cpp": SPINNING, "build.sh": build }));
  const cache = new BuildCache(join(root, "builds"));
  const deps = { sandbox, compiler, artifacts, cache, signal, progress: () => undefined };
  return (await buildStack(deps, { tree: await artifacts.put(tar), treeDigest, provenance: "shipped" })).dir;
}

/** Rows of half a second of it; or why this machine gives none. */
async function recorded(box: Sandbox, buildDir: string): Promise<ProfileRow[] | NoPerf> {
  const folder = await mkdtemp(join(root, "perf-"));
  await chmod(folder, 0o711);
  const inside = box.kind === "bubblewrap";
  const tree = await spawnSandboxed(box, {
    argv: [inside ? "/stack/stack" : join(buildDir, "stack")],
    env: {},
    mounts: inside ? [{ from: buildDir, to: "/stack", mode: "ro" }] : [],
    cwd: "/tmp",
    cpus: "0",
    limits: SERVE_LIMITS,
    provenance: "baseline",
  });
  let recording: Recording | null = null;
  try {
    const busyFor = (seconds: number): Promise<void> => expect.poll(() => tree.cpuSeconds(), { timeout: 20_000 }).toBeGreaterThan(seconds);
    await busyFor(0.1);
    const pids = tree.members().map((p) => p.pid);
    recording = await startPerf(pids, folder);
    await busyFor(0.6);
    await recording.stop();
    return await readRecording(box, folder, buildDir, signal);
  } catch (error) {
    if (error instanceof NoPerf) return error;
    throw error;
  } finally {
    await recording?.discard();
    await tree.stop(0);
  }
}

it("perf attached from outside names the functions of a program in the sandbox, demangled, whatever user and namespaces it has", async () => {
  const rows = await recorded(sandbox, await spinning(false));
  if (rows instanceof NoPerf) {
    expect(rows.message).toMatch(/perf (is not installed|can't attach)/);
    return;
  }
  const { regions, samples, unnamedShare } = regionsOf(rows, "stack");
  expect(regions[0]).toMatchObject({ name: "engine::hot_loop" });
  expect(regions[0]?.share).toBeGreaterThan(0.5);
  expect(samples).toBeGreaterThan(20);
  expect(unnamedShare).toBeLessThan(0.5);
  expect(readdirSync(root).filter((name) => name.includes("debug"))).toEqual([]);
});

it("a program without symbols is one region that says so", async () => {
  const rows = await recorded(sandbox, await spinning(true));
  if (rows instanceof NoPerf) return;
  const { regions, unnamedShare } = regionsOf(rows, "stack");
  expect(regions[0]).toMatchObject({ name: "[no symbol] stack" });
  expect(unnamedShare).toBeGreaterThan(0.5);
});

it("without a sandbox the same functions are named", async () => {
  const rows = await recorded(await noSandbox(), await spinning(false));
  if (rows instanceof NoPerf) return;
  expect(regionsOf(rows, "stack").regions[0]).toMatchObject({ name: "engine::hot_loop" });
});

it("where perf is not there, or may not attach, the reason is said and nothing is left running", async () => {
  const folder = await mkdtemp(join(root, "none-"));
  await expect(startPerf([process.pid], folder, null)).rejects.toThrow("perf is not installed");
  const refusing = join(import.meta.dirname, "profiles/perf-not-permitted.sh");
  await expect(startPerf([process.pid], folder, refusing)).rejects.toThrow(/^perf can't attach to another process: .*perf_event_paranoid/);
});

it("a real report of perf is read line by line; comments and blank lines are none", () => {
  const rows = parsePerfReport(readFileSync(join(import.meta.dirname, "profiles/perf-report.txt"), "utf8"));
  const { regions, samples } = regionsOf(rows, "stack");
  expect(samples).toBe(681);
  expect(regions[0]).toEqual({ name: "linear_compute", share: 666 / 681, samples: 666 });
  expect(regions.find((r) => r.name === "[kernel]")?.samples).toBe(7);
});

it("names are the candidate's and are believed in nothing: no escapes, no line ends, at most 200 characters, at most 60 regions", () => {
  const evil = ` 9 |stack|[.] \u001b[31mred\u001b[0m\u0007 \u202ename ${"x".repeat(400)}`;
  const many = Array.from({ length: 100 }, (_, i) => `1|libm.so.6|[.] f${i}`);
  const rows = parsePerfReport(
    [evil, " 2|stack|[.] 0x000000000001f2a0", " 3|[kernel.kallsyms]|[k] 0xffffffff81000000", ...many].join("\n"),
  );
  const { regions, samples, unnamedShare } = regionsOf(rows, "stack");
  expect(regions).toHaveLength(60);
  expect(samples).toBe(114);
  expect(unnamedShare).toBeCloseTo(2 / 114);
  expect(regions[0]?.name).toMatch(/^red name x+$/);
  expect(regions[0]?.name).toHaveLength(200);
  expect(regions.slice(1, 4).map((r) => r.name)).toEqual(["[kernel]", "[no symbol] stack", "f0 (libm.so.6)"]);
  expect(Profile.parse({ source: "perf", regions, samples, observerEffect: 1, note: "" }).regions).toEqual(regions);
  expect(regionsOf([], "stack")).toEqual({ regions: [], samples: 0, unnamedShare: 0 });
});

it("a real file of callgrind is read: a function's own instructions, what it calls counted where it belongs, a start taken off", () => {
  const text = readFileSync(join(import.meta.dirname, "profiles/callgrind.out"), "utf8");
  const rows = parseCallgrind(text);
  const total = Number(/^summary: (\d+)$/m.exec(text)?.[1]);
  expect(rows.reduce((sum, r) => sum + r.samples, 0)).toBe(total);
  // callgrind_annotate says the same of it.
  expect(rows.find((r) => r.symbol === "engine::hot(int)")).toEqual({
    samples: 30_006,
    object: "stack",
    symbol: "engine::hot(int)",
    kernel: false,
  });
  expect(without(rows, rows)).toEqual([]);
  expect(without(rows, [])).toEqual(rows);
});

it("without any profiler the job fails as the device's, says what to install, and starts nothing", async () => {
  const start = (): never => {
    throw new Error("started");
  };
  const profiling = profileStack(
    {
      arrival: { process: "closed", concurrency: 1 },
      prompt: { distribution: "fixed", tokens: 8 },
      output: { distribution: "fixed", tokens: 2 },
      requests: 1,
    },
    {
      ...{ start, sandbox, signal, buildDir: root, workDir: root, perf: null, valgrind: null, ncu: null, progress: () => undefined },
      tools: { drawPrompt: start, decode: start },
      device: jobContext(sandbox, artifacts).device,
    },
  );
  await expect(profiling).rejects.toMatchObject({
    attribution: "device",
    code: "no-profiler",
    message: expect.stringMatching(/perf is not installed; valgrind is not installed: install perf/) as string,
  });
});
