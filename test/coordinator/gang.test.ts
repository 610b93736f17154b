import { countOf, type AgentInfo, type CampaignFact, type Device, type Failure, type JobResult, type Outcome } from "@vibeserve/shared";
import { describe, expect, it } from "vitest";
import { costOf } from "../../coordinator/src/campaign/cost.ts";
import { deviceS } from "../../coordinator/src/campaign/caps.ts";
import type { EffectContext } from "../../coordinator/src/campaign/effect-handlers.ts";
import { requested, settled } from "../../coordinator/src/campaign/ledger.ts";
import type { AgentRegistry } from "../../coordinator/src/fleet/agent-registry.ts";
import { bindDevice } from "../../coordinator/src/fleet/bind.ts";
import { FleetHealth } from "../../coordinator/src/fleet/health.ts";
import { staleness } from "../../coordinator/src/fleet/lease-table.ts";
import { agent, device, target, World } from "../campaign/world.ts";

const four = { ...target, deviceCount: 4 };

/** An agent with so many cards of one pool. */
function machine(agentId: string, count: number, labels: Record<string, string> = {}): AgentInfo {
  const devices = Array.from({ length: count }, (_, i): Device => ({
    ...device,
    id: `${agentId}-${i}`,
    labels: { ...device.labels, ...labels },
  }));
  return { ...agent, agentId, pools: ["cards"], devices };
}

describe("a campaign whose target takes four devices", () => {
  const world = new World([{ id: "q4", seam: "linear", stated: 9, truth: 10 }], { target: four });
  const answer = world.result.bind(world);
  world.result = (job, outcome) => {
    const gang = job.deviceCount === undefined ? {} : { devices: ["d0", "d1", "d2", "d3"] };
    return { ...answer(job, outcome), deviceId: "d0", ...gang };
  };
  const c = world.run();
  const asked = world.events.flatMap(({ fact }) => (fact.type === "job.requested" ? [fact.job] : []));

  it("has each check and bench take them all, and builds none", () => {
    expect(c.ended?.outcome).toBe("proven");
    for (const job of asked) expect([job.spec.kind, job.deviceCount]).toEqual([job.spec.kind, job.spec.kind === "build" ? undefined : 4]);
    expect(asked.some((job) => job.spec.kind === "bench")).toBe(true);
    expect(countOf({ deviceCount: 1 })).toEqual({});
  });

  it("pays for each of them", () => {
    const ms = asked.reduce((sum, job) => sum + world.workMs * (job.deviceCount ?? 1), 0);
    expect(ms).toBeGreaterThan(asked.length * world.workMs * 2);
    expect(deviceS(c)).toBeCloseTo(ms / 1000);
    expect(costOf(world.events, 1).device.totalS).toBeCloseTo(ms / 1000);
  });

  it("tries a job that a device failed without that device, and where none is named without any of them", () => {
    const [job] = asked.filter((j) => j.deviceCount === 4);
    if (!job) throw new Error("no job");
    const after = (failure: Partial<Failure>, verdict?: Parameters<typeof settled>[3]) => {
      const outcome: Outcome = { status: "failed", failure: { attribution: "device", code: "x", message: "", logTail: "", ...failure } };
      return settled(requested({}, job), world.result(job, outcome), 1, verdict)[job.id]?.avoid;
    };
    expect(after({ device: "d2" })).toEqual(["d2"]);
    expect(after({})).toEqual(["d0", "d1", "d2", "d3"]);
    expect(after({ device: "another's" })).toEqual(["d0", "d1", "d2", "d3"]);
    expect(after({ attribution: "candidate" }, { attribution: "candidate", code: "x", secondDevice: true, why: "" })).toHaveLength(4);
  });
});

describe("a device's part in what several failed", () => {
  const agents = [machine("a", 4), machine("b", 4)];
  const open = () => new FleetHealth({ file: null, agents: () => agents, changed: () => undefined, log: () => undefined, now: () => 5 });
  const devices = agents[0]!.devices.map((d) => d.id);
  const result = (outcome: Outcome, jobId = "j"): JobResult => ({
    ...{ v: 1, kind: "result", campaign: "c", jobId, attempt: 1, agentId: "a", deviceId: "a-0", devices, leaseToken: 7, sandbox: "none" },
    ...{ startedAt: 1, endedAt: 2, log: null, sig: "", outcome },
  });
  const failed = (failure: Partial<Failure>): Outcome => ({
    status: "failed",
    failure: { attribution: "device", code: "device-unhealthy", message: "Xid 79", logTail: "", ...failure },
  });
  const suspects = (health: FleetHealth): string[] => devices.filter((id) => health.of(id).health !== "good");

  it("is noted for the one that is named, and for none where none is", () => {
    const health = open();
    health.answered(result(failed({})), null, null);
    expect(suspects(health)).toEqual([]);
    health.answered(result(failed({ device: "a-2" })), null, null);
    expect(suspects(health)).toEqual(["a-2"]);
  });

  it("asks for a second verdict only where another agent has as many, and accuses each of numbers that can't be", () => {
    const crash = failed({ attribution: "candidate", code: "run-timeout" });
    const health = open();
    expect(health.judge(result(crash), { doubted: null })).toMatchObject({ secondDevice: true });
    for (const id of ["b-0"]) health.answered({ ...result(failed({})), deviceId: id, devices: [id] }, null, null);
    expect(health.of("b-0").health).toBe("suspect");
    expect(health.judge(result(crash), { doubted: null })).toBeNull();
    const wrong = { attribution: "device" as const, code: "impossible-numbers", secondDevice: false, why: "" };
    health.answered(result(crash), wrong, null);
    expect(suspects(health)).toEqual(devices);
  });

  it("is no lease's where the answer names other devices than were given", () => {
    const lease = { v: 1 as const, kind: "lease" as const, deviceId: "a-0", agentId: "a", jobId: "j", attempt: 1, token: 7 };
    const held = { lease: { ...lease, grantedAt: 1, ttlMs: 1, deadline: 1 }, devices };
    expect(staleness(held, result(failed({})))).toBeNull();
    expect(staleness(held, { ...result(failed({})), devices: ["a-0", "b-1"] })).toBe(
      "the lease is for a-0, a-1, a-2, a-3, not for a-0, b-1",
    );
  });
});

describe("binding", () => {
  const registryOf = (agents: AgentInfo[]) => ({ list: () => agents, onChange: () => () => undefined }) as unknown as AgentRegistry;
  const bind = (agents: AgentInfo[], deviceCount = 4): Promise<CampaignFact | string> => {
    const abort = new AbortController();
    return new Promise((resolve) => {
      const waits = (why: string | null) => (why === null ? undefined : setImmediate(() => resolve(why)));
      const context = { campaign: { target: { ...target, deviceCount } }, waits, signal: abort.signal } as unknown as EffectContext;
      void bindDevice(registryOf(agents), context).then(resolve);
    });
  };

  it("takes an agent that has as many of one pool, and says how many each has where none does", async () => {
    expect(await bind([machine("two", 2), machine("four", 4)])).toMatchObject({ type: "device.bound", device: { id: "four-0" } });
    const why = await bind([machine("two", 2)]);
    expect(why).toMatch(
      /^waits for a ready agent with 4 devices of one pool that have .*; registered: two: two-0 is one of 2 in pool cards; /,
    );
  });

  it("takes no slices of a card together", async () => {
    expect(await bind([machine("mig", 4, { "nvidia.com/gpu.slices.gi": "1" })])).toMatch(/mig-0 is one of 1 in pool cards/);
  });
});
