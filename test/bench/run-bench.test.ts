import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { canonicalJson, Certificate, digestOf, Outcome, sha256 } from "@vibeserve/shared";
import { expect, it } from "vitest";
import type { BenchArm } from "../../gpu-agent/src/bench/arms.ts";
import { benchHandler } from "../../gpu-agent/src/bench/bench-job.ts";
import { QUIET_LIMITS, UNLIMITED } from "../../gpu-agent/src/bench/quiet.ts";
import { unlessAborted } from "../../gpu-agent/src/process/unless-aborted.ts";
import { runBench, type BenchDeps, type BenchResult } from "../../gpu-agent/src/bench/run-bench.ts";
import { untilQuiet } from "../../gpu-agent/src/bench/until-quiet.ts";
import { deviceAdapters } from "../../gpu-agent/src/device/adapter.ts";
import { vendorTools } from "../../gpu-agent/src/device/vendor-tool.ts";
import { JobError } from "../../gpu-agent/src/worker/job-error.ts";
import { benchDeps, benchSpec, closed, fakeDevice, jobContext, jobOf, workFolder } from "./bench-kit.ts";
import type { FakeSpec } from "./fake-candidate.ts";
import { startFake } from "./fake-stack.ts";

const FAST: FakeSpec = { firstMs: 10, tokenMs: 4 };
const SLOW: FakeSpec = { firstMs: 20, tokenMs: 8 };
const SMALL = closed(2, 6, 8);

const arm = (stack: BenchArm["stack"], role: BenchArm["role"]): BenchArm => ({
  role,
  stack,
  dialect: "openai",
  treeDigest: "1".repeat(40),
  buildDigest: "0".repeat(64),
  engine: null,
});

async function compare(
  challenger: FakeSpec,
  champion: FakeSpec,
  spec = benchSpec(SMALL),
  deps: Partial<BenchDeps> = {},
): Promise<BenchResult> {
  await using folder = await workFolder();
  await using a = await startFake(challenger);
  await using b = await startFake(champion);
  const arms = { challenger: arm(a, "challenger"), champion: arm(b, spec.champion.role) };
  return await runBench(spec, arms, benchDeps(folder.path, deps));
}

const failure = (run: Promise<unknown>): Promise<JobError> =>
  run.then(
    () => Promise.reject(new Error("it did not fail")),
    (e: unknown) => (e instanceof JobError ? e : Promise.reject(e instanceof Error ? e : new Error(String(e)))),
  );

it("an arm that is twice as fast is measured as about twice as fast, in ABBA order, and the samples say how", async () => {
  const { comparison, challenger, champion, samples } = await compare(FAST, SLOW, benchSpec(SMALL, { pairs: { min: 4, max: 4 } }));
  expect(comparison).toMatchObject({ pairs: 4, confidence: 0.95, stop: "better" });
  expect(comparison.point).toBeGreaterThan(1.5);
  expect(comparison.point).toBeLessThan(2.5);
  expect(challenger.value / champion.value).toBeGreaterThan(1.5);
  expect(challenger.seeds.length).toBe(4);
  expect(new Set(challenger.seeds).size).toBe(4);
  expect(challenger.samplesRef).toEqual({ digest: sha256(samples.bytes), bytes: samples.bytes.length });
  const content = JSON.parse(gunzipSync(samples.bytes).toString()) as {
    runs: { side: string; startedAt: number; window: { kind: string } }[];
  };
  const order = content.runs.map((r) => (r.side === "challenger" ? "A" : "B")).join("");
  expect(order).toBe("ABBAABBA");
  expect(content.runs.map((r) => r.startedAt)).toEqual(content.runs.map((r) => r.startedAt).toSorted((x, y) => x - y));
  expect(content.runs.every((r) => r.window.kind === "steady")).toBe(true);
});

it("a latency metric has the same ratio, greater than 1 for the faster arm", async () => {
  const metric = { name: "tpot_p50", unit: "ms", direction: "minimize" as const };
  const { comparison, challenger } = await compare(FAST, SLOW, benchSpec(SMALL, { metric }));
  expect(comparison.point).toBeGreaterThan(1.5);
  expect(challenger.value).toBeGreaterThan(3.5);
  expect(challenger.value).toBeLessThan(7);
});

it("well-formed answers whose ids are not the model's are found by the hidden probes", async () => {
  const e = await failure(compare({ ...FAST, trick: "wrong-ids" }, SLOW));
  expect(e).toMatchObject({ attribution: "candidate", code: "wrong-tokens" });
});

it("a baseline that computes another model is measured all the same, and the samples say how far off it is", async () => {
  await using folder = await workFolder();
  await using a = await startFake(FAST);
  await using b = await startFake({ ...SLOW, trick: "wrong-ids" });
  const spec = benchSpec(SMALL, {
    purpose: "baseline",
    champion: { role: "baseline", stack: { source: "baseline", engine: "x", setting: null } },
  });
  const baseline = {
    ...arm(b, "baseline"),
    treeDigest: null,
    buildDigest: null,
    engine: { name: "x", version: "1", setting: "as-shipped" },
  };
  const { champion, samples } = await runBench(spec, { challenger: arm(a, "champion"), champion: baseline }, benchDeps(folder.path));
  expect(champion).toMatchObject({ role: "baseline", treeDigest: null, engine: { name: "x" } });
  const { probes } = JSON.parse(gunzipSync(samples.bytes).toString()) as { probes: { side: string; ok: boolean }[] };
  expect(probes.map((p) => `${p.side} ${p.ok}`)).toEqual([...Array<string>(4).fill("challenger true"), "champion false"]);
});

it.each([
  ["false-usage", "cheat-usage"],
  ["crash", "died-under-load"],
  ["hang", "run-timeout"],
  ["flood", "flood"],
  ["refuse", "broken-stream"],
] as const)("a challenger that plays %s fails with %s, and it is its own failure", async (trick, code) => {
  const e = await failure(compare({ ...FAST, trick }, SLOW, benchSpec(SMALL, { runLimitMs: 2000 })));
  expect(e).toMatchObject({ attribution: "candidate", code });
});

it("a champion or a baseline that breaks is never the challenger's failure", async () => {
  const broken: FakeSpec = { ...SLOW, trick: "short" };
  expect(await failure(compare(FAST, broken))).toMatchObject({ attribution: "harness", code: "champion-failed" });
  const spec = benchSpec(SMALL, { champion: { role: "baseline", stack: { source: "baseline", engine: "x", setting: null } } });
  expect(await failure(compare(FAST, broken, spec))).toMatchObject({ attribution: "harness", code: "baseline-failed" });
});

it("an arm that dies while it waits for its turn fails as that arm", async () => {
  await using folder = await workFolder();
  await using a = await startFake(FAST);
  await using b = await startFake(SLOW);
  const deps = benchDeps(folder.path, { progress: (phase) => phase.startsWith("pair 1") && process.kill(b.pid, "SIGKILL") });
  const e = await failure(runBench(benchSpec(SMALL), { challenger: arm(a, "challenger"), champion: arm(b, "champion") }, deps));
  expect(e).toMatchObject({ attribution: "harness", code: "champion-failed" });
  expect(e.message).toMatch(/died-under-load: champion .* by SIGKILL/);
});

it("the job signs both measurements over what it says, stores the samples, and leaves no arm running", async () => {
  await using folder = await workFolder();
  const stacks = [await startFake(FAST), await startFake(SLOW)];
  const stored: Uint8Array[] = [];
  const ctx = jobContext({
    sign: (value) => sha256(canonicalJson(value)),
    artifacts: {
      ...jobContext().artifacts,
      put: (bytes) => Promise.resolve(stored.push(bytes)).then(() => ({ digest: sha256(bytes), bytes: bytes.length })),
    },
  });
  const handler = benchHandler({
    startArm: (a) => Promise.resolve(arm(stacks[a.role === "challenger" ? 0 : 1]!, a.role)),
    modelTools: () => Promise.resolve(benchDeps(folder.path)),
    workDir: folder.path,
    limits: UNLIMITED,
  });
  const spec = benchSpec(SMALL);
  const outcome = Outcome.parse(await handler(jobOf(spec), ctx));
  if (outcome.status !== "measured") throw new Error(JSON.stringify(outcome));
  for (const m of [outcome.challenger, outcome.champion]) {
    const { sig, ...unsigned } = m;
    expect(sig).toBe(sha256(canonicalJson(unsigned)));
    expect(m.samplesRef.digest).toBe(sha256(stored[0] ?? ""));
    expect(m.workloadDigest).toBe(digestOf(spec.workload));
  }
  expect(stored.length).toBe(1);
  for (const s of stacks) expect(await s.exited).toMatchObject({ signal: "SIGKILL" });
});

it("a job that is cancelled while the reference answers others first ends at once, and so do its arms", async () => {
  await using folder = await workFolder();
  const stacks = [await startFake(FAST), await startFake(SLOW)];
  const abort = new AbortController();
  const judge: BenchDeps["judge"] = (_, __, signal) => {
    const cancelled = unlessAborted(new Promise<never>(() => undefined), signal);
    abort.abort(new Error("cancelled"));
    return cancelled;
  };
  const handler = benchHandler({
    startArm: (a) => Promise.resolve(arm(stacks[a.role === "challenger" ? 0 : 1]!, a.role)),
    modelTools: () => Promise.resolve(benchDeps(folder.path, { judge })),
    workDir: folder.path,
    limits: UNLIMITED,
  });
  await expect(handler(jobOf(benchSpec(SMALL)), jobContext({ signal: abort.signal }))).rejects.toThrow("cancelled");
  for (const s of stacks) expect(await s.exited).toMatchObject({ signal: "SIGKILL" });
  expect(readdirSync(folder.path)).toEqual([]);
});

it("runs beside busy neighbours are refused, and too many of them are the device's failure", async () => {
  const burners = [0, 1].map(() => spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" }));
  try {
    const limits = { ...UNLIMITED, foreignCpuPct: QUIET_LIMITS.foreignCpuPct };
    const e = await failure(compare(FAST, SLOW, benchSpec(SMALL), { limits, maxRefusals: 1 }));
    expect(e).toMatchObject({ attribution: "device", code: "device-noisy" });
    expect(e.message).toMatch(/refused runs: 1: challenger: foreign CPU time \d+\.\d\d% > 8%/);
  } finally {
    for (const b of burners) b.kill("SIGKILL");
  }
});

it("waiting for a quiet device ends when it is quiet, or when its time is up", async () => {
  const wait = async (foreignCpuPct: number): Promise<number> => {
    const start = performance.now();
    await untilQuiet([0, 1], { ...UNLIMITED, foreignCpuPct }, 1200, AbortSignal.timeout(10_000));
    return performance.now() - start;
  };
  expect(await wait(101)).toBeLessThan(1000);
  expect(await wait(-Infinity)).toBeGreaterThan(1200);
});

it("a refused pair is run again with prompts that nobody has seen, and the certificate names it", async () => {
  const bodies: string[] = [];
  let draws = 0;
  // Refuses by schedule: the limits are looked up for each run, and the fifth (after two warm-ups and a pair) meets one that no reading keeps,
  // whatever error a run that short is granted.
  const limits = {
    stealPct: Infinity,
    scheduleSlipP99Ms: Infinity,
    loopDelayP99Ms: Infinity,
    slowdown: Infinity,
    get foreignCpuPct() {
      return ++draws === 5 ? -Infinity : 101;
    },
  };
  const kit = benchDeps("/nowhere");
  const drawPrompt: BenchDeps["drawPrompt"] = (rng, tokens) => {
    const prompt = kit.drawPrompt(rng, tokens);
    bodies.push(prompt.messages[0]?.content ?? "");
    return prompt;
  };
  const { comparison, challenger } = await compare(FAST, SLOW, benchSpec(SMALL), { limits, drawPrompt });
  expect(comparison.pairs).toBe(2);
  expect(challenger.certificate.refused).toHaveLength(1);
  expect(challenger.certificate.refused[0]).toMatch(/^pair 2, champion: foreign CPU time/);
  // What the clocks can't tell of its foreign CPU time: runs this short are within a few of their ticks.
  expect(challenger.certificate.resolutionPct).toBeGreaterThan(0);
  // Two warm-ups of two, and three pairs of six.
  expect(bodies.length).toBe(22);
  expect(new Set(bodies).size).toBe(22);
});

it("an abort ends the comparison and leaves no load generator behind", async () => {
  const abort = new AbortController();
  const run = compare({ firstMs: 50, tokenMs: 50 }, SLOW, benchSpec(SMALL), {
    signal: abort.signal,
    progress: () => setTimeout(() => abort.abort(new JobError("harness", "lease-lost", "the lease is lost")), 700),
  });
  expect(await failure(run)).toMatchObject({ code: "lease-lost" });
});

it("a run in which the device was hot, or was shared, is refused and run again; the certificate holds what its sensors said of the rest", async () => {
  const cool = { clocksMHz: [1980], temperatureC: 60, throttle: ["power limit"], slowed: [], pids: null };
  const hot = { ...cool, clocksMHz: [900], temperatureC: 95, throttle: ["thermal"], slowed: ["thermal"] };
  let waits = 0;
  let refused = 0;
  const sensors = {
    id: "d",
    sample: () => Promise.resolve(refused === 0 && waits === 0 ? hot : cool),
    quiesce: () => Promise.resolve(void (waits += 1)),
  };
  const progress = (phase: string): void => void (refused += phase.includes("the device was slowed: thermal") ? 1 : 0);
  const { challenger } = await compare(FAST, SLOW, benchSpec(SMALL), {
    sensors: [sensors],
    progress,
    device: { ...fakeDevice, kind: "nvidia" },
  });
  expect([refused, waits]).toEqual([1, 1]);
  expect(challenger.certificate.refused).toEqual(["pair 1, challenger: the device was slowed: thermal"]);
  expect(challenger.certificate.device).toMatchObject({ clockMHz: { min: 1980, max: 1980 }, temperatureC: 60, throttle: ["power limit"] });
  const shared = { ...cool, pids: [process.ppid] };
  const e = await failure(
    compare(FAST, SLOW, benchSpec(SMALL), { sensors: [{ ...sensors, sample: () => Promise.resolve(shared) }], maxRefusals: 2 }),
  );
  expect(e).toMatchObject({ attribution: "device", code: "device-noisy" });
  expect(e.message).toContain("the device was shared with 1 other processes");
});

it("of several devices one that was hot has the run refused by its name, and the certificate names all", async () => {
  const cool = { clocksMHz: [1980], temperatureC: 60, throttle: [], slowed: [], pids: null };
  let waits = 0;
  const sensors = ["d0", "d1"].map((id) => ({
    id,
    sample: async () => (id === "d1" && waits === 0 ? { ...cool, slowed: ["thermal"] } : { ...cool, temperatureC: id === "d0" ? 60 : 70 }),
    quiesce: async () => void (waits += 1),
  }));
  const { challenger } = await compare(FAST, SLOW, benchSpec(SMALL), { sensors, device: { ...fakeDevice, kind: "nvidia" } });
  expect(waits).toBe(2);
  const { certificate } = challenger;
  expect(certificate.refused).toEqual(["pair 1, challenger: d1: the device was slowed: thermal"]);
  expect(certificate.devices).toMatchObject([
    { id: "d0", conditions: { temperatureC: 60 } },
    { id: "d1", conditions: { temperatureC: 70 } },
  ]);
  expect(certificate.device).toMatchObject({ temperatureC: 70 });
  expect(Certificate.parse(certificate)).toEqual(certificate);
});

it("a device that speaks against itself is not measured on, and no arm is started", async () => {
  await using folder = await workFolder();
  const adapters = { cpu: { ...deviceAdapters(vendorTools()).cpu, health: () => Promise.resolve({ problems: ["Xid 79"], facts: [] }) } };
  const run = benchHandler({
    startArm: () => Promise.reject(new Error("an arm was started")),
    modelTools: () => Promise.reject(new Error("the model was opened")),
    workDir: folder.path,
    adapters: { ...deviceAdapters(vendorTools()), ...adapters },
  });
  const e = await failure(run(jobOf(benchSpec(SMALL)), jobContext()));
  expect(e).toMatchObject({ attribution: "device", code: "device-unhealthy", message: "cpu0: Xid 79" });
});

it("an arm that comes to its time limit beside busy neighbours is refused if it was working, and fails if it was asleep", async () => {
  const burners = [0, 1].map(() => spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" }));
  try {
    const limits = { ...UNLIMITED, foreignCpuPct: QUIET_LIMITS.foreignCpuPct };
    const spec = benchSpec(SMALL, { runLimitMs: 1500 });
    const slow: FakeSpec = { firstMs: 5, tokenMs: 400, burnMs: 100 };
    const busy = await failure(compare(slow, SLOW, spec, { limits, maxRefusals: 1 }));
    expect(busy).toMatchObject({ attribution: "device", code: "device-noisy" });
    const asleep = await failure(compare({ firstMs: 60_000, tokenMs: 1 }, SLOW, spec, { limits, maxRefusals: 1 }));
    expect(asleep).toMatchObject({ attribution: "candidate", code: "run-timeout" });
  } finally {
    for (const b of burners) b.kill("SIGKILL");
  }
});
