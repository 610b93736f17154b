import type { BenchSpec, Device, JobSpec, Workload } from "@vibeserve/shared";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LoadPlan } from "../../gpu-agent/loadgen/plan.ts";
import { runLoad } from "../../gpu-agent/src/bench/load-generator.ts";
import { UNLIMITED } from "../../gpu-agent/src/bench/quiet.ts";
import type { BenchDeps } from "../../gpu-agent/src/bench/run-bench.ts";
import type { DrawPrompt } from "../../gpu-agent/src/bench/workload.ts";
import { probeSandbox } from "../../gpu-agent/src/sandbox/probe-sandbox.ts";
import type { JobContext, JobOf } from "../../gpu-agent/src/worker/job-context.ts";
import { idsOf, textOf } from "./fake-candidate.ts";

/** A prompt of the fake's language: so many letters, each one token. */
export const drawFakePrompt: DrawPrompt = (rng, tokens) => {
  const content = Array.from({ length: tokens }, () => String.fromCharCode(97 + rng.int(26))).join("");
  return { messages: [{ role: "user", content }], ids: [...Buffer.from(content)] };
};

/** Knows what the fake must answer, as the reference knows it of a model. */
export const judgeFake: BenchDeps["judge"] = async (promptIds, servedIds) => {
  const expected = idsOf(Buffer.from(promptIds).toString(), servedIds.length);
  const at = servedIds.findIndex((id, n) => id !== expected[n]);
  return { ok: at < 0, detail: at < 0 ? "all as expected" : `token ${at} is ${servedIds[at]}, not ${expected[at]}` };
};

export const closed = (concurrency: number, requests: number, outputTokens: number): Workload => ({
  arrival: { process: "closed", concurrency },
  prompt: { distribution: "uniform", min: 20, max: 40 },
  output: { distribution: "fixed", tokens: outputTokens },
  requests,
});

const digest = "0".repeat(64);
const artifact = { digest, bytes: 1 };
const build = { treeDigest: "1".repeat(40), tree: artifact, buildDigest: digest, provenance: "shipped" as const };

export function benchSpec(workload: Workload, more: Partial<BenchSpec> = {}): BenchSpec {
  return {
    kind: "bench",
    purpose: "screen",
    challenger: { role: "challenger", stack: { source: "build", build } },
    champion: { role: "champion", stack: { source: "build", build } },
    model: { name: "fake", file: "fake.gguf", sha256: digest },
    workload,
    metric: { name: "output_tokens_per_second", unit: "tok/s", direction: "maximize" },
    pairs: { min: 2, max: 2 },
    confidence: 0.95,
    runLimitMs: 10_000,
    ...more,
  };
}

export const fakeDevice: Device = {
  id: "cpu0",
  kind: "cpu",
  name: "test",
  isa: "avx2",
  isaBits: [],
  cores: 2,
  cpus: "0-1",
  memBytes: 1,
  labels: {},
  simulated: true,
};

export function benchDeps(workDir: string, more: Partial<BenchDeps> = {}): BenchDeps {
  return {
    device: fakeDevice,
    leaseToken: 7,
    tools: [],
    drawPrompt: drawFakePrompt,
    decode: textOf,
    judge: judgeFake,
    workDir,
    signal: AbortSignal.timeout(60_000),
    progress: () => undefined,
    // Test machines are shared and never quiet: what is not about refusals must not be refused.
    limits: UNLIMITED,
    ...more,
  };
}

export async function workFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "vs-bench-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Plans `count` requests of `outputTokens` each with a prompt of ten letters. */
export function loadPlan(socketPath: string, count: number, outputTokens: number, more: Partial<LoadPlan> = {}): LoadPlan {
  const body = (i: number): string =>
    JSON.stringify({
      messages: [{ role: "user", content: `prompt ${String(i).padStart(3, "0")}` }],
      max_tokens: outputTokens,
      stream: true,
    });
  return {
    socketPath,
    path: "/v1/chat/completions",
    dialect: "openai",
    requests: Array.from({ length: count }, (_, i) => ({ body: body(i), atMs: 0 })),
    mode: "closed",
    connections: 4,
    limitMs: 10_000,
    responseBytes: 1e6,
    totalBytes: 1e7,
    ...more,
  };
}

export const promptOf = (index: number): string => `prompt ${String(index).padStart(3, "0")}`;

export async function load(plan: LoadPlan): ReturnType<typeof runLoad> {
  await using folder = await workFolder();
  const hooks = { onReady: () => Promise.resolve(), onEnded: () => Promise.resolve() };
  return await runLoad(plan, hooks, folder.path, AbortSignal.timeout(30_000));
}

/** A job of these, first attempt. */
export const jobOf = <S extends JobSpec>(spec: S): JobOf<S> => ({
  v: 1,
  kind: "job",
  id: "j",
  campaign: "c",
  experiment: "x",
  attempt: 1,
  pool: "p",
  issuedAt: 1,
  deadlineMs: 60_000,
  spec,
});

/** What this machine gives without namespaces: tests run what they wrote themselves. */
const noSandbox = await probeSandbox({ bwrapPaths: [], unsafe: false, forceNone: true });

/** The context of a job on a machine without a sandbox, where nothing can be stored. */
export function jobContext(more: Partial<JobContext> = {}): JobContext {
  const unused = (): Promise<never> => Promise.reject(new Error("this test stores nothing"));
  return {
    lease: { v: 1, kind: "lease", deviceId: "cpu0", agentId: "a", jobId: "j", attempt: 1, token: 1, grantedAt: 1, ttlMs: 1, deadline: 2 },
    device: fakeDevice,
    devices: [more.device ?? fakeDevice],
    agentId: "a",
    tools: [],
    signal: AbortSignal.timeout(60_000),
    progress: () => undefined,
    artifacts: { put: unused, putFile: unused, get: unused, getFile: unused },
    sandbox: noSandbox,
    log: () => undefined,
    sign: () => "",
    ...more,
  };
}
