import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { buildTargetOf, type BuildTarget, type BuiltStack, type JobResult } from "@vibeserve/shared";
import { ContentCache } from "../../gpu-agent/src/artifact/content-cache.ts";
import { ObjectArtifacts } from "../../gpu-agent/src/artifact/object-artifacts.ts";
import { BuildCache } from "../../gpu-agent/src/build/build-cache.ts";
import { ensureBuilt } from "../../gpu-agent/src/build/ensure-built.ts";
import { offeredVersions } from "../../gpu-agent/src/build/library-needs.ts";
import type { AgentProcess } from "../kit/agent-process.ts";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { TinyCoordinator } from "./fleet-kit.ts";
import { bubblewrap } from "./kit.ts";
import { candidateFiles } from "./tree-kit.ts";

const dir = tempDir("builder-only");
let fleet: TinyCoordinator;
let farm: AgentProcess;
let target: BuildTarget;

beforeAll(async () => {
  fleet = new TinyCoordinator(await startBroker(join(dir.path, "broker")), join(dir.path, "agents"));
  await fleet.open();
}, 60_000);
afterAll(async () => {
  await fleet.close();
  dir[Symbol.dispose]();
});

const resultOf = async (jobId: string): Promise<JobResult> => {
  await fleet.until(`result of ${jobId}`, () => fleet.results.some((r) => r.jobId === jobId), 120_000);
  return fleet.results.find((r) => r.jobId === jobId)!;
};
const spec = (note: string): Map<string, Uint8Array> => candidateFiles("plain", { "note.txt": note });

/** A build that the fleet may share, as the coordinator asks for it. */
const build = async (note: string): Promise<{ id: string; stack: Omit<BuiltStack, "buildDigest"> }> => {
  const plain = await fleet.build("p", spec(note), { pool: "nobody" });
  if (plain.spec.kind !== "build") throw new Error("not a build");
  fleet.cancel(plain.id, "only its tree was wanted");
  const { treeDigest, tree, provenance } = plain.spec;
  const { id } = await fleet.publish("p", { ...plain.spec, for: target });
  return { id, stack: { treeDigest, tree, provenance } };
};

it("a builder that measures nothing registers no device, takes the pool's builds, and others need no compiler for them", async () => {
  await fleet.agent("device", "p");
  await expect.poll(() => fleet.registered("device"), { timeout: 60_000 }).not.toBeNull();
  const info = await fleet.registered("device");
  const [cpu] = info?.devices ?? [];
  const own = cpu && buildTargetOf(cpu);
  if (!own) throw new Error("a target was expected");
  target = own;
  // It waits for nobody that can take it, until a builder comes.
  const waiting = await fleet.publish("elsewhere", {
    ...{ kind: "build", treeDigest: "0".repeat(40), tree: { digest: "0".repeat(64), bytes: 1 }, provenance: "model" },
    for: target,
  });
  farm = await fleet.agent("farm", "build-x64", "--builder-only");
  expect(await resultOf(waiting.id)).toMatchObject({ agentId: "farm", outcome: { status: "failed" } });
  const made = expect.arrayContaining([expect.objectContaining({ arch: target.arch })]) as unknown;
  expect(await fleet.registered("farm")).toMatchObject({ devices: [], engines: [], builder: { compilers: made } });

  const { id, stack } = await build("first");
  const { agentId, deviceId, outcome } = await resultOf(id);
  expect([agentId, deviceId]).toEqual(["farm", "farm-builder"]);
  if (outcome.status !== "built" || !outcome.output) throw new Error(JSON.stringify(outcome));
  const nc = await fleet.broker.connectAgent("third", await fleet.broker.enroll("third"));
  const builds = join(dir.path, "builds");
  const built = await ensureBuilt(
    {
      ...{ sandbox: await bubblewrap(), compiler: null, cache: new BuildCache(builds), signal: new AbortController().signal },
      artifacts: new ObjectArtifacts(nc, new ContentCache(join(dir.path, "third"))),
      farm: { own: null, compilers: new Map(), gpus: new Map(), accelerators: new Set(), offered: await offeredVersions() },
      progress: () => undefined,
    },
    { ...stack, buildDigest: outcome.buildDigest, output: outcome.output },
  );
  expect(built.startsWith(builds)).toBe(true);
  expect(await resultOf((await build("first")).id)).toMatchObject({ agentId: "farm", outcome: { cached: true, output: outcome.output } });
}, 240_000);

it("when it leaves, the device's own machine builds", async () => {
  farm.kill("SIGTERM");
  await farm.exited;
  const { id } = await build("second");
  expect(await resultOf(id)).toMatchObject({
    agentId: "device",
    deviceId: "device-builder",
    outcome: { status: "built", output: { arch: target.arch } },
  });
}, 120_000);
