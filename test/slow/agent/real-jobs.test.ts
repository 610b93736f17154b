import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Arm, BuiltStack, JobResult, JobSpec } from "@vibeserve/shared";
import { startBroker } from "../../kit/real-broker.ts";
import { tempDir } from "../../kit/temp-dir.ts";
import { CACHE } from "../../agent/kit.ts";
import { TinyCoordinator } from "../../agent/fleet-kit.ts";

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
  await fleet.pool("cpu");
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

it("a stack that does not declare what the judge needs fails its check by name, though it serves it", async () => {
  const files = seedFiles();
  const manifest = JSON.parse(Buffer.from(files.get("stack.json") ?? "").toString()) as { features: string[] };
  const features = manifest.features.filter((f) => f !== "logprobs");
  const stack = await build(files.set("stack.json", Buffer.from(JSON.stringify({ ...manifest, features }))));
  const checked = await run({ kind: "check", stack, model: MODEL, level: "screen", accuracy: "exact" });
  const candidate = "stack.json does not declare logprobs, which the judge needs";
  expect(checked.outcome).toMatchObject({ status: "checked", report: { ok: false, firstFailure: { candidate } } });
});
