import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Arm, BuiltStack, JobResult, JobSpec } from "@vibeserve/shared";
import { startBroker } from "../../kit/real-broker.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { modelTools } from "../../../gpu-agent/src/bench/model-tools.ts";
import { BuildCache } from "../../../gpu-agent/src/build/build-cache.ts";
import { ensureBuilt } from "../../../gpu-agent/src/build/ensure-built.ts";
import { findCompiler } from "../../../gpu-agent/src/probe/compiler.ts";
import { profileStack } from "../../../gpu-agent/src/profile/profile-stack.ts";
import { findTool } from "../../../gpu-agent/src/sandbox/probe-sandbox.ts";
import { startStack } from "../../../gpu-agent/src/serve/start-stack.ts";
import { Evaluator } from "../../../gpu-agent/src/worker/evaluator.ts";
import { jobContext, localArtifacts } from "../../agent/context-kit.ts";
import { bubblewrap, CACHE } from "../../agent/kit.ts";
import { TinyCoordinator } from "../../agent/fleet-kit.ts";
import { packed } from "../../agent/tree-kit.ts";

const STACK = join(import.meta.dirname, "../../../stacks/cpu");
const MODEL = {
  name: "SmolLM2-135M-Instruct",
  file: "SmolLM2-135M-Instruct.Q4_1.gguf",
  sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};
const dir = tempDir("real-jobs");
let fleet: TinyCoordinator;

beforeAll(async () => {
  fleet = new TinyCoordinator(await startBroker(dir.path), join(dir.path, "agents"));
  await fleet.open();
  await fleet.agent("real", "cpu", "--cache", CACHE);
});
afterAll(async () => {
  await fleet.close();
  dir[Symbol.dispose]();
});

/** The seed as a tree: what the coordinator composes. */
function seedFiles(): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  for (const folder of ["", "core", "seams", "seed"])
    for (const entry of readdirSync(join(STACK, folder), { withFileTypes: true }))
      if (entry.isFile()) files.set(join(folder, entry.name), readFileSync(join(STACK, folder, entry.name)));
  return files;
}

async function build(files: Map<string, Uint8Array>): Promise<BuiltStack> {
  const job = await fleet.build("cpu", files, { deadlineMs: 600_000 });
  await fleet.until("build", () => fleet.results.some((r) => r.jobId === job.id), 600_000);
  const outcome = fleet.results.find((r) => r.jobId === job.id)?.outcome;
  if (outcome?.status !== "built" || job.spec.kind !== "build") throw new Error(JSON.stringify(outcome));
  const { treeDigest, tree } = job.spec;
  return { treeDigest, tree, buildDigest: outcome.buildDigest, provenance: "model" };
}

async function run(spec: JobSpec): Promise<JobResult> {
  const job = await fleet.publish("cpu", spec, { deadlineMs: 600_000 });
  await fleet.until(spec.kind, () => fleet.results.some((r) => r.jobId === job.id), 600_000);
  const result = fleet.results.find((r) => r.jobId === job.id);
  if (!result) throw new Error("no result");
  return result;
}

it("the seed is built, passes a screening check, and is compared with itself on one lease", async () => {
  const stack = await build(seedFiles());
  const checked = await run({ kind: "check", stack, model: MODEL, level: "screen", accuracy: "exact" });
  expect(checked.outcome).toMatchObject({ status: "checked", report: { ok: true, firstFailure: null } });

  const arm = (role: Arm["role"]): Arm => ({ role, stack: { source: "build", build: stack } });
  const measured = await run({
    kind: "bench",
    purpose: "screen",
    challenger: arm("challenger"),
    champion: arm("champion"),
    model: MODEL,
    workload: {
      arrival: { process: "closed", concurrency: 4 },
      prompt: { distribution: "fixed", tokens: 40 },
      output: { distribution: "fixed", tokens: 4 },
      requests: 4,
    },
    metric: { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" },
    pairs: { min: 2, max: 2 },
    confidence: 0.95,
    runLimitMs: 120_000,
  });
  // On a machine that is not quiet the runs are refused, and the result says so.
  if (measured.outcome.status === "failed") expect(measured.outcome.failure).toMatchObject({ attribution: "device", code: "device-noisy" });
  else expect(measured.outcome).toMatchObject({ status: "measured", challenger: { certificate: { sandbox: "bubblewrap" } } });
  expect(fleet.isSigned(measured, "real")).toBe(true);
});

it("the seed's time is laid to its functions, beside the device's bound; a command runs in its tree", async () => {
  const stack = await build(seedFiles());
  const profiled = await run({
    kind: "profile",
    stack,
    model: MODEL,
    workload: {
      arrival: { process: "closed", concurrency: 4 },
      prompt: { distribution: "fixed", tokens: 40 },
      output: { distribution: "fixed", tokens: 12 },
      requests: 8,
    },
  });
  const { outcome } = profiled;
  if (outcome.status === "failed") expect(outcome.failure).toMatchObject({ attribution: "device", code: "no-profiler" });
  else if (outcome.status === "profiled") {
    const { profile, roofline } = outcome;
    expect(profile.regions[0]?.name).toMatch(/^linear_compute/);
    expect(profile.samples).toBeGreaterThan(100);
    expect(profile.observerEffect === null).toBe(profile.source === "callgrind");
    expect(roofline?.tokPerS).toBeGreaterThan(10);
  } else throw new Error(outcome.status);
  expect(fleet.isSigned(profiled, "real")).toBe(true);
  const { treeDigest, tree, provenance } = stack;
  const ran = await run({
    kind: "exec",
    treeDigest,
    tree,
    provenance,
    argv: ["sh", "-c", "$CXX --version | head -1; ls"],
    limitMs: 20_000,
  });
  expect(ran.outcome).toMatchObject({ status: "ran", exitCode: 0, stdout: expect.stringMatching(/\ncore\nseams\nseed\n/) as string });
});

it("where perf is missing the same functions are counted by callgrind in the sandbox, without the loading of the model", async () => {
  const stack = await build(seedFiles());
  const [sandbox, compiler] = await Promise.all([bubblewrap(), findCompiler(null)]);
  const artifacts = { ...localArtifacts(join(dir.path, "a")), get: async () => packed(seedFiles()).tar };
  const ctx = jobContext(sandbox, artifacts);
  const buildDir = await ensureBuilt(
    { ...ctx, compiler, cache: new BuildCache(join(dir.path, "agents/real/builds")), progress: () => undefined },
    stack,
  );
  const evaluator = new Evaluator({
    dir: join(dir.path, "evaluator"),
    cacheDir: CACHE,
    compiler,
    threads: 2,
    idle: (work, signal) => work(signal),
    log: pino({ level: "silent" }),
  });
  const { path, tokenizer, reference } = await evaluator.model(MODEL);
  const valgrind = findTool("valgrind");
  const started: string[] = [];
  const profiling = profileStack(
    {
      arrival: { process: "closed", concurrency: 1 },
      prompt: { distribution: "fixed", tokens: 40 },
      output: { distribution: "fixed", tokens: 4 },
      requests: 1,
    },
    {
      ...{ sandbox, buildDir, valgrind, perf: null, ncu: null, device: ctx.device, signal: ctx.signal, workDir: dir.path },
      start: async (more) => {
        const stack = { ...more, buildDir, modelPath: path, cpus: "0,1", healthTimeoutMs: 300_000, provenance: "model" as const };
        const running = await startStack({ sandbox }, stack);
        started.push(running.socketPath);
        return running;
      },
      tools: modelTools(tokenizer, reference),
      progress: () => undefined,
    },
  );
  if (valgrind === null) {
    await expect(profiling).rejects.toMatchObject({ attribution: "device", code: "no-profiler" });
    return;
  }
  const profile = await profiling;
  expect(profile).toMatchObject({
    source: "callgrind",
    observerEffect: null,
    note: expect.stringContaining("perf is not installed") as string,
  });
  expect(profile.regions[0]?.name).toMatch(/^linear_compute/);
  // It dequantises all weights when it starts, and none for a request.
  expect(profile.regions.some((r) => r.name.startsWith("dequantise_row") && r.share > 0.05)).toBe(false);
  expect(started.map((socket) => existsSync(dirname(socket)))).toEqual([false, false]);
});

it("a stack that does not declare what the judge needs fails its check by name, though it serves it", async () => {
  const files = seedFiles();
  const manifest = JSON.parse(Buffer.from(files.get("stack.json") ?? "").toString()) as { features: string[] };
  const features = manifest.features.filter((f) => f !== "logprobs");
  const stack = await build(files.set("stack.json", Buffer.from(JSON.stringify({ ...manifest, features }))));
  const checked = await run({ kind: "check", stack, model: MODEL, level: "screen", accuracy: "exact" });
  const candidate = "stack.json does not declare logprobs, which the judge needs";
  expect(checked.outcome).toMatchObject({ status: "checked", report: { ok: false, firstFailure: { candidate } } });
});
