import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { STREAMS, subjects, type JobResult } from "@vibeserve/shared";
import { readTable } from "../../gpu-agent/src/process/proc-table.ts";
import { Spool } from "../../gpu-agent/src/spool/spool.ts";
import type { AgentProcess } from "../kit/agent-process.ts";
import { startBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { TinyCoordinator } from "./fleet-kit.ts";
import { candidateFiles } from "./tree-kit.ts";

const dir = tempDir("agent");
let fleet: TinyCoordinator;
let agents = 0;
/** Takes jobs all the time; for claims that need no agent of their own. */
let steady: AgentProcess;

beforeAll(async () => {
  fleet = new TinyCoordinator(await startBroker(dir.path), join(dir.path, "agents"));
  await fleet.open();
  steady = await fleet.agent("steady", "steady");
});
afterAll(async () => {
  await fleet.close();
  dir[Symbol.dispose]();
});

/** A build that takes this long; `mark` is seen in the processes' arguments. */
const slow = (seconds: number, mark: string): Map<string, Uint8Array> =>
  candidateFiles("plain", { "build.sh": `#!/bin/sh\nsh -c 'sleep ${seconds}' ${mark}\nprintf '#!/bin/sh\\n' > "$2"; chmod +x "$2"\n` });
const processesWith = (mark: string): number =>
  readTable().filter((p) => {
    try {
      return p.state !== "Z" && readFileSync(`/proc/${p.pid}/cmdline`, "latin1").includes(mark);
    } catch {
      return false;
    }
  }).length;
const resultsOf = (jobId: string): JobResult[] => fleet.results.filter((r) => r.jobId === jobId);
const started = (jobId: string, times = 1): Promise<void> =>
  fleet.until(`${jobId} started ${times} times`, () => fleet.leases.filter((l) => l.jobId === jobId).length >= times);
const answered = (jobId: string): Promise<void> => fleet.until(`${jobId} answered`, () => resultsOf(jobId).length > 0);
async function noJobsLeft(pool = "steady"): Promise<void> {
  await expect.poll(() => fleet.jobsLeft(pool), { timeout: 5000 }).toBe(0);
}

/** An agent and a pool of its own, gone afterwards. */
async function withAgent(flags: string[], use: (agent: AgentProcess, id: string) => Promise<void>): Promise<void> {
  const id = `a${agents++}`;
  const agent = await fleet.agent(id, id, ...flags);
  try {
    await use(agent, id);
  } finally {
    agent.kill("SIGKILL");
    await agent.exited;
  }
}

describe("an agent", () => {
  it("registers what it probed, builds, and answers with a signed result under its lease's token", async () => {
    const job = await fleet.build("steady");
    await answered(job.id);
    const [result] = resultsOf(job.id);
    expect(result).toMatchObject({
      agentId: "steady",
      deviceId: "steady-builder",
      attempt: 1,
      sandbox: "bubblewrap",
      outcome: { status: "built", cached: false },
    });
    expect(result?.leaseToken).toBe(fleet.leases.find((l) => l.jobId === job.id)?.token);
    expect(result && fleet.isSigned(result, "steady")).toBe(true);
    expect(result && fleet.isSigned({ ...result, attempt: 2 }, "steady")).toBe(false);
    expect(fleet.progress.filter((p) => p.jobId === job.id).length).toBeGreaterThan(0);
    await noJobsLeft();
    const info = await fleet.registered("steady");
    expect(info).toMatchObject({ agentId: "steady", pools: ["steady"], state: "ready", sandbox: "bubblewrap" });
    expect(info?.engines).toBeInstanceOf(Array);
    expect(info?.devices[0]?.peaks).toMatchObject({ type: expect.stringMatching(/^(int8|bf16|f32)/) as string });
  });

  it("runs one command in the tree that a build was made of, on the device's lease", async () => {
    const { spec } = await fleet.build("steady");
    if (spec.kind !== "build") throw new Error(spec.kind);
    const { treeDigest, tree } = spec;
    const argv = ["sh", "-c", "ls; exit 4"];
    const job = await fleet.publish("steady", { kind: "exec", treeDigest, tree, provenance: "model", argv, limitMs: 10_000 });
    await answered(job.id);
    const outcome = { status: "ran", exitCode: 4, timedOut: false, stdout: "build.sh\nmain.cpp\nstack.json\n", stderr: "" };
    expect(resultsOf(job.id)).toMatchObject([{ deviceId: "steady-cpu", outcome }]);
  });

  it("answers a candidate that does not build with the candidate's failure and its log", async () => {
    const job = await fleet.build("steady", candidateFiles("plain", { "main.cpp": "int main() { return kernel(); }" }));
    await answered(job.id);
    expect(resultsOf(job.id)[0]?.outcome).toMatchObject({ status: "failed", failure: { attribution: "candidate", code: "build-failed" } });
    expect(resultsOf(job.id)[0]?.log).not.toBeNull();
  });

  it("killed by SIGKILL in the middle of a job leaves no process behind; the job comes back and is answered once", async () => {
    await withAgent([], async (first, id) => {
      const job = await fleet.build(id, slow(1, "mark-kill"));
      await started(job.id);
      await expect.poll(() => processesWith("mark-kill"), { timeout: 5000 }).toBeGreaterThan(0);
      first.kill("SIGKILL");
      await first.exited;
      await expect.poll(() => processesWith("mark-kill"), { timeout: 2000 }).toBe(0);
      const second = await fleet.agent(id, id);
      await answered(job.id);
      await noJobsLeft(id);
      const tokens = fleet.leases.filter((l) => l.jobId === job.id).map((l) => l.token);
      expect(tokens).toHaveLength(2);
      // The coordinator tells a stale result by its token: the one answer carries the newer.
      expect(resultsOf(job.id).map((r) => r.leaseToken)).toEqual([tokens[1]]);
      second.kill("SIGKILL");
      await second.exited;
    });
  });

  it("sends what an earlier life left in its spool before it is known and takes a job", async () => {
    const id = "spooler";
    const job = await fleet.build("steady");
    await answered(job.id);
    const [done] = resultsOf(job.id);
    if (!done) throw new Error("no result");
    const spool = await Spool.open(join(fleet.dataOf(id), "spool"));
    const { sig: _sig, ...body } = { ...done, jobId: "job-spooled", agentId: id, campaign: "c9", leaseToken: 7 };
    await spool.add({ ...body, sig: await fleet.sign(id, body) });
    const next = await fleet.build(id);
    const agent = await fleet.agent(id, id);
    await answered(next.id);
    expect(fleet.results.filter((r) => r.agentId === id).map((r) => [r.jobId, r.leaseToken])).toEqual([
      ["job-spooled", 7],
      [next.id, fleet.leases.find((l) => l.jobId === next.id)?.token],
    ]);
    await expect.poll(() => readdirSync(join(fleet.dataOf(id), "spool/pending"))).toEqual([]);
    agent.kill("SIGKILL");
    await agent.exited;
  });

  it("goes on when the broker is killed in the middle of a job, and answers once", async () => {
    const job = await fleet.build("steady", slow(2, "mark-broker"));
    await started(job.id);
    const restarted = fleet.broker.reported("broker.started");
    process.kill(fleet.broker.broker.pid ?? 0, "SIGKILL");
    await restarted;
    await answered(job.id);
    await noJobsLeft();
    expect(resultsOf(job.id)).toHaveLength(1);
  });

  it("stops a job whose lease is revoked, without a result; an old token revokes nothing", async () => {
    const job = await fleet.build("steady", slow(30, "mark-revoke"));
    await started(job.id);
    await expect.poll(() => processesWith("mark-revoke"), { timeout: 5000 }).toBeGreaterThan(0);
    const lease = fleet.leases.find((l) => l.jobId === job.id);
    if (!lease) throw new Error("no lease");
    fleet.revoke({ ...lease, token: lease.token - 1 }, "stale");
    await fleet.rolled("steady");
    expect(processesWith("mark-revoke")).toBeGreaterThan(0);
    fleet.cancel(job.id, "cancelled");
    await expect.poll(() => processesWith("mark-revoke"), { timeout: 5000 }).toBe(0);
    await answered((await fleet.build("steady")).id);
    expect(resultsOf(job.id)).toEqual([]);
  });

  it("stops a job at its own deadline and says whose fault it is", async () => {
    const job = await fleet.build("steady", slow(30, "mark-deadline"), { deadlineMs: 600 });
    await answered(job.id);
    expect(resultsOf(job.id)[0]?.outcome).toMatchObject({ status: "failed", failure: { attribution: "candidate", code: "deadline" } });
    expect(processesWith("mark-deadline")).toBe(0);
  });

  it("says that an assignment was not understood, and takes the next", async () => {
    await fleet.broker.bus.js.publish(subjects.assignment("steady", "steady-builder"), new TextEncoder().encode("not an assignment"));
    await expect.poll(() => steady.log(), { timeout: 2000 }).toContain("an assignment was not understood");
    const job = await fleet.build("steady");
    await answered(job.id);
  });

  it("finishes a short job after SIGTERM, answers it, leaves the registry and exits 0", async () => {
    await withAgent([], async (agent, id) => {
      const job = await fleet.build(id, slow(1, "mark-drain"));
      await started(job.id);
      agent.kill("SIGTERM");
      expect(await agent.exited).toEqual({ code: 0, signal: null });
      await answered(job.id);
      expect(resultsOf(job.id)[0]?.outcome.status).toBe("built");
      expect(await fleet.registered(id)).toBeNull();
    });
  });

  it("hands a long job back after SIGTERM, within its bound, and another life finishes it", async () => {
    await withAgent(["--drain-ms", "200"], async (agent, id) => {
      const job = await fleet.build(id, slow(2, "mark-handback"));
      await started(job.id);
      const at = Date.now();
      agent.kill("SIGTERM");
      expect(await agent.exited).toEqual({ code: 0, signal: null });
      expect(Date.now() - at).toBeLessThan(6_000);
      expect(processesWith("mark-handback")).toBe(0);
      expect(resultsOf(job.id)).toEqual([]);
      const next = await fleet.agent(id, id);
      await answered(job.id);
      next.kill("SIGKILL");
      await next.exited;
    });
  });

  it("refuses a private folder that another agent holds, and says who", async () => {
    const second = await fleet.agent("steady", "steady");
    expect(await second.exited).toEqual({ code: 2, signal: null });
    expect(second.log()).toContain(`is in use by the agent with pid ${steady.pid}`);
  });

  it("without a sandbox runs shipped code only, says so in its registration, and kills at its start what an earlier life left running", async () => {
    await withAgent(["--bwrap", "/nonexistent"], async (first, id) => {
      const refused = await fleet.build(id);
      await answered(refused.id);
      expect(resultsOf(refused.id)[0]).toMatchObject({
        sandbox: "none",
        outcome: { status: "failed", failure: { attribution: "device", code: "no-sandbox" } },
      });
      expect(await fleet.registered(id)).toMatchObject({ sandbox: "none", devices: [{ labels: { "vibeserve.dev/sandbox": "none" } }] });
      const daemon = "#!/bin/sh\nsetsid sh -c 'while :; do sleep 1; done' mark-orphan &\nsleep 30\n";
      const job = await fleet.build(id, candidateFiles("plain", { "build.sh": daemon }), {}, "shipped");
      await started(job.id);
      await expect.poll(() => processesWith("mark-orphan"), { timeout: 5000 }).toBe(1);
      first.kill("SIGKILL");
      await first.exited;
      expect(processesWith("mark-orphan")).toBe(1);
      fleet.cancel(job.id, "cancelled");
      const second = await fleet.agent(id, id, "--bwrap", "/nonexistent");
      await expect.poll(() => processesWith("mark-orphan"), { timeout: 10_000 }).toBe(0);
      await noJobsLeft(id);
      second.kill("SIGKILL");
      await second.exited;
    });
  });

  it("may not answer for another agent: the broker refuses", async () => {
    const seed = await fleet.broker.enroll("mallory");
    const nc = await fleet.broker.connectAgent("mallory", seed);
    await nc.flush();
    const before = (await fleet.broker.bus.jsm.streams.info(STREAMS.results)).state.last_seq;
    nc.publish(subjects.result("a0", "c1"), "forged");
    nc.publish("$KV.vs-agents.a0.info", "forged");
    await nc.flush();
    expect((await fleet.broker.bus.jsm.streams.info(STREAMS.results)).state.last_seq).toBe(before);
  });
});
