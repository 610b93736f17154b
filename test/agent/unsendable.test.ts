import { join } from "node:path";
import { pino } from "pino";
import { expect, it } from "vitest";
import type { AgentInfo, JobResult, Outcome } from "@vibeserve/shared";
import { ContentCache } from "../../gpu-agent/src/artifact/content-cache.ts";
import { ObjectArtifacts } from "../../gpu-agent/src/artifact/object-artifacts.ts";
import { loadIdentity } from "../../gpu-agent/src/bus/identity.ts";
import { Spool } from "../../gpu-agent/src/spool/spool.ts";
import { Worker } from "../../gpu-agent/src/worker/worker.ts";
import { simulatedDevice } from "../kit/fake-outcomes.ts";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { noSandbox } from "./kit.ts";
import { TinyCoordinator } from "./fleet-kit.ts";

it("a job whose outcome no message can carry is done once, answered as the harness's failure, and off the stream", async () => {
  using dir = tempDir("unsendable");
  const fleet = new TinyCoordinator(await startBroker(dir.path), join(dir.path, "agents"));
  try {
    await fleet.open();
    fleet.simulated = true;
    const [agentId, pool] = ["a1", "p1"];
    const identity = await loadIdentity(join(dir.path, "agent.nk"));
    await fleet.broker.broker.enroll({ agentId, publicKey: identity.publicKey, pools: [pool] });
    const nc = await fleet.broker.connectAgent(agentId, identity.seed);
    const device = simulatedDevice(agentId);
    const { publicKey } = identity;
    const info: AgentInfo = {
      ...{ v: 1, kind: "agent", agentId, publicKey, version: "0", pools: [pool], devices: [device], tools: [] },
      ...{ sandbox: "none", state: "ready", pid: process.pid, host: "h", startedAt: Date.now() },
    };
    let runs = 0;
    const build = async (): Promise<Outcome> => {
      runs++;
      return { status: "built", buildDigest: "0".repeat(64), cached: false, seconds: Infinity, bytes: 1 };
    };
    const never = (): Promise<never> => Promise.reject(new Error("not this one"));
    const worker = new Worker({
      ...{ nc, agentId, identity, devices: [device], tools: [], info, log: pino({ level: "silent" }) },
      sandbox: await noSandbox(),
      artifacts: new ObjectArtifacts(nc, new ContentCache(join(dir.path, "artifacts"))),
      spool: await Spool.open(join(dir.path, "spool")),
      handlers: { build, check: never, bench: never, baseline: never, profile: never, exec: never },
    });
    void worker.start();
    const job = await fleet.build(pool);
    const answers = (): JobResult[] => fleet.results.filter((r) => r.jobId === job.id);
    await fleet.until("answered", () => answers().length > 0);
    await expect.poll(() => fleet.jobsLeft(pool), { timeout: 5000 }).toBe(0);
    await worker.drain(0);
    expect(answers()).toMatchObject([{ outcome: { status: "failed", failure: { attribution: "harness", code: "unsendable" } } }]);
    expect(runs).toBe(1);
  } finally {
    await fleet.close();
  }
});
