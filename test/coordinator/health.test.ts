import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { AgentInfo, Job, Lease, Outcome } from "@vibeserve/shared";
import { attributionOfLoss, verdictOf, type Evidence } from "../../coordinator/src/fleet/attribution.ts";
import { judgeCanary } from "../../coordinator/src/fleet/canary.ts";
import { FleetHealth } from "../../coordinator/src/fleet/health.ts";
import { stepHealth, unknownDevice, type DeviceRecord, type HealthEvent } from "../../coordinator/src/fleet/health.machine.ts";
import { impossible } from "../../coordinator/src/fleet/impossible.ts";
import { agent, device, target } from "../campaign/world.ts";
import { simulatedOutcome } from "../kit/fake-outcomes.ts";
import { tempDir } from "../kit/temp-dir.ts";

const failure = (attribution: "candidate" | "device" | "harness" | "network", code: string, message = "-"): Outcome => ({
  status: "failed",
  failure: { attribution, code, message, logTail: "" },
});
const stack = {
  treeDigest: "a".repeat(40),
  tree: { digest: "0".repeat(64), bytes: 1 },
  buildDigest: "0".repeat(64),
  provenance: "shipped" as const,
};
const arm = { source: "build" as const, build: stack };
const job: Job = {
  ...{ v: 1, kind: "job", id: "j", campaign: "c", experiment: "e", attempt: 1, pool: "p", issuedAt: 1, deadlineMs: 1 },
  spec: {
    ...{ kind: "bench", purpose: "screen", model: target.model, workload: target.slice, metric: target.objective },
    ...{ challenger: { role: "challenger", stack: arm }, champion: { role: "champion", stack: arm } },
    ...{ pairs: { min: 3, max: 4 }, confidence: 0.9, runLimitMs: 1 },
  },
};
const lease: Lease = {
  ...{ v: 1, kind: "lease", deviceId: "d", agentId: "a1", jobId: "j", attempt: 1, token: 7, grantedAt: 1, ttlMs: 1, deadline: 1 },
};
const measured = await simulatedOutcome(job, lease, { device, speedOf: async () => 2, sign: () => "" });
if (measured.status !== "measured") throw new Error("a bench measures");
const wrong: Outcome = {
  status: "checked",
  seconds: 1,
  report: { ok: false, level: "screen", gates: [], positions: 1, servedTokens: 1, firstFailure: null },
};

describe("whose a failure is", () => {
  const sick = failure("candidate", "died-under-load", "the server ended by SIGSEGV while it was loaded");
  const beside = { health: "good" as const, others: 1, doubted: null };
  it.each<[string, Outcome, Omit<Evidence, "result" | "others"> & { others: number }, string]>([
    ["a crash by SIGSEGV, beside another device", sick, beside, "second"],
    ["the same by SIGBUS", failure("candidate", "exited-at-start", "ended by SIGBUS"), beside, "second"],
    ["a hang", failure("candidate", "run-timeout"), beside, "second"],
    ["a build that hangs", failure("candidate", "deadline"), beside, "second"],
    ["wrong numbers", wrong, beside, "second"],
    [
      "killed, and by none of its own limits: the machine's memory",
      failure("candidate", "died-under-load", "ended by SIGKILL"),
      beside,
      "second",
    ],
    ["killed at its own memory limit", failure("candidate", "memory-limit", "over 2 GiB, ended by SIGKILL"), beside, "as said"],
    ["an exit code of its own", failure("candidate", "died-under-load", "the server ended with code 3"), beside, "as said"],
    ["a compiler's error", failure("candidate", "build-failed", "the build ended with exit code 1"), beside, "as said"],
    ["a crash that a second device has seen too", sick, { ...beside, doubted: "other" }, "as said"],
    ["a crash on the only device, a good one", sick, { ...beside, others: 0 }, "as said"],
    ["a crash on the only device, a suspect one", sick, { ...beside, others: 0, health: "suspect" }, "second"],
    ["what the device says of itself", failure("device", "device-unhealthy", "Xid 79"), beside, "as said"],
    ["the harness's own", failure("harness", "internal"), beside, "as said"],
    ["the network's own", failure("network", "artifact-unavailable"), beside, "as said"],
    ["an honest measurement", measured, beside, "as said"],
    ["one that can't be", { ...measured, comparison: { ...measured.comparison, point: -1 } }, { ...beside, others: 0 }, "device"],
  ])("%s: %#", (_what, outcome, evidence, expected) => {
    const verdict = verdictOf({ result: { outcome, deviceId: "d", leaseToken: 7 }, ...evidence, others: () => evidence.others });
    expect(verdict === null ? "as said" : verdict.secondDevice ? "second" : verdict.attribution).toBe(expected);
  });

  it("a lease that ends without an answer is the network's when it fell silent, the device's when that is gone, else the harness's", () => {
    expect((["silence", "gone", "restart", "deadline", "revoked"] as const).map(attributionOfLoss)).toEqual([
      ...["network", "device", "harness", "harness", "harness"],
    ]);
  });
});

describe("numbers that can't be", () => {
  const { comparison: c, challenger } = measured;
  const scaled = { ...c, point: c.point * 1e6, lo: c.lo * 1e6, hi: c.hi * 1e6, ratios: c.ratios.map((r) => r * 1e6) };
  it.each<[string, Outcome, RegExp | null]>([
    ["honest", measured, null],
    ["no measurement at all", failure("harness", "x"), null],
    ["a negative rate", { ...measured, challenger: { ...challenger, value: -5 } }, /challenger's output_tokens_per_second is -5/],
    ["a rate of nothing", { ...measured, champion: { ...challenger, value: 0 } }, /champion's .* is 0/],
    ["a ratio times a million", { ...measured, comparison: scaled }, /beyond what any stack can gain/],
    [
      "an interval beside its ratio",
      { ...measured, comparison: { ...c, lo: c.point * 1.5, hi: c.point * 2 } },
      /does not hold its own ratio/,
    ],
    [
      "a ratio that is none of its pairs'",
      { ...measured, comparison: { ...c, point: c.point * 1.1, hi: c.hi * 2 } },
      /outside its own pairs/,
    ],
    ["rates of another comparison", { ...measured, challenger: { ...challenger, value: challenger.value * 10 } }, /rates have the ratio/],
    ["a measurement of another lease", { ...measured, challenger: { ...challenger, leaseToken: 8 } }, /under lease token 8/],
  ])("%s", (_what, outcome, expected) => {
    const said = impossible({ outcome, leaseToken: 7 });
    if (expected === null) expect(said).toBeNull();
    else expect(said).toMatch(expected);
  });
});

describe("a canary", () => {
  const at = (rate: number): Outcome => ({
    ...measured,
    comparison: { ...measured.comparison, point: 1, lo: 0.98, hi: 1.02 },
    champion: { ...measured.champion, value: rate },
  });
  it.each<[string, Outcome, number[], boolean]>([
    ["the first", at(100), [], true],
    ["as fast as ever", at(101), [100, 99, 101, 100, 102], true],
    ["4 % slower: within 5 %", at(96), [100, 100.1, 99.9, 100, 100], true],
    ["6 % slower on a device that never varies", at(94), [100, 100.1, 99.9, 100, 100], false],
    ["6 % faster there", at(106), [100, 100.1, 99.9, 100, 100], false],
    ["6 % slower on one that always varies so", at(94), [100, 95, 105, 98, 103], true],
    ["6 % slower, and too few to know its spread", at(94), [100, 101], false],
    [
      "a stack faster than itself",
      { ...at(100), comparison: { ...measured.comparison, point: 1.2, lo: 1.1, hi: 1.3 } } as Outcome,
      [100],
      false,
    ],
    ["one that fails a stack that is known to work", failure("candidate", "died-under-load"), [100], false],
  ])("%s", (_what, outcome, rates, passed) => {
    expect(judgeCanary(outcome, rates).passed).toBe(passed);
  });
});

describe("a device's health", () => {
  const after = (...events: HealthEvent[]): DeviceRecord => events.reduce((r, e, i) => stepHealth(r, e, i + 1), unknownDevice);
  const failed = (jobId: string, more: Partial<Extract<HealthEvent, { type: "failed" }>> = {}): HealthEvent => ({
    ...{ type: "failed", jobId, code: "disk-full", why: "no space", alone: false },
    ...more,
  });
  const accused: HealthEvent = { type: "accused", why: "it drifts", alone: false };
  const good: HealthEvent = { type: "worked" };

  it("two jobs in a row make it suspect, three quarantined; the same job twice is one; one that ends well begins the row anew", () => {
    expect(after(failed("a"), failed("a"), failed("a")).health).toBe("good");
    expect(after(failed("a"), failed("b"))).toMatchObject({
      health: "suspect",
      since: 2,
      reason: expect.stringMatching(/2 jobs in a row/) as string,
    });
    expect(after(failed("a"), failed("b"), failed("c")).health).toBe("quarantined");
    expect(after(failed("a"), good, failed("b"), good, failed("c")).health).toBe("good");
  });

  it("one accusation makes it suspect, the next quarantined; its own sensors accuse it", () => {
    expect(after(accused).health).toBe("suspect");
    expect(after(accused, good, accused).health).toBe("quarantined");
    expect(after(failed("a", { code: "device-unhealthy" })).health).toBe("suspect");
  });

  it("two jobs that went well elsewhere are one accusation; ten that it ends well absolve it of the first", () => {
    const contradicted = (jobId: string): HealthEvent => ({ type: "contradicted", jobId, why: "went well elsewhere", alone: false });
    expect(after(contradicted("a"), contradicted("a")).health).toBe("good");
    expect(after(contradicted("a"), good, contradicted("b")).health).toBe("suspect");
    expect(after(contradicted("a"), ...Array<HealthEvent>(10).fill(good), contradicted("b")).health).toBe("good");
  });

  it("keeps the rates of canaries that passed, of one build and load at a time", () => {
    const passed = (key: string, rate: number): HealthEvent => ({ type: "passed", why: "-", key, rate });
    expect(after(passed("k", 1), passed("k", 2)).history).toEqual({ key: "k", rates: [1, 2] });
    expect(after(passed("k", 1), passed("other", 2)).history).toEqual({ key: "other", rates: [2] });
    expect(after(...Array.from({ length: 30 }, (_, i) => passed("k", i))).history?.rates).toHaveLength(20);
  });

  it("what it lacks says nothing of its numbers, nor what others do on it", () => {
    for (const code of ["no-profiler", "no-compiler", "machine-busy", "device-noisy"])
      expect(after(failed("a", { code }), failed("b", { code }), failed("c", { code })).health).toBe("good");
  });

  it("work never makes it good again; a canary lifts suspicion, only a person a quarantine", () => {
    const passed: HealthEvent = { type: "passed", why: "as fast as ever", key: "k", rate: 100 };
    expect(after(accused, good, good).health).toBe("suspect");
    expect(after(accused, passed)).toMatchObject({ health: "good", reason: "as fast as ever", row: [] });
    expect(after(accused, accused, passed).health).toBe("quarantined");
    expect(after(accused, accused, { type: "lifted", why: "by hand" })).toMatchObject({ health: "good", reason: "by hand" });
  });

  it("the last good device of a pool stays for failures, and what is known against it is told", () => {
    const alone = ["a", "b", "c", "d"].map((id) => failed(id, { alone: true }));
    expect(after(...alone)).toMatchObject({ health: "good", reason: expect.stringMatching(/4 jobs in a row/) as string });
    expect(after(...alone).since, "when it was said").toBeGreaterThan(0);
    expect(after({ ...accused, alone: true })).toMatchObject({ health: "good", reason: "it drifts" });
  });

  it("outlives the coordinator; a file that can't be read stops the start", () => {
    using dir = tempDir("health");
    const file = join(dir.path, "health.json");
    const agents: AgentInfo[] = ["a1", "a2"].map((agentId) => ({ ...agent, agentId, devices: [{ ...device, id: `${agentId}-d` }] }));
    const changed: string[] = [];
    const open = () =>
      new FleetHealth({ file, agents: () => agents, changed: (id) => void changed.push(id), log: () => undefined, now: () => 5 });
    const first = open();
    const of = {
      v: 1,
      kind: "result",
      campaign: "c",
      attempt: 1,
      agentId: "a1",
      deviceId: "a1-d",
      leaseToken: 7,
      sandbox: "none",
    } as const;
    const result = { ...of, startedAt: 1, endedAt: 2, log: null, sig: "", outcome: failure("device", "disk-full") };
    first.answered({ ...result, jobId: "j1" }, null, null);
    // One failure says nothing of its health yet, and is kept all the same.
    expect(open().known("a1-d")).toBeNull();
    first.answered({ ...result, jobId: "j2" }, null, null);
    expect(changed).toEqual(["a1"]);
    const again = open();
    expect(again.known("a1-d")).toMatchObject({ health: "suspect", since: 5 });
    expect(again.known("a2-d")).toBeNull();
    expect(again.lift("a1", "mended")).toBe(true);
    expect(open().known("a1-d")).toMatchObject({ health: "good", reason: "mended" });
    expect(again.lift("a1", "mended")).toBe(false);
    writeFileSync(file, "{");
    expect(open).toThrow(/JSON/);
  });
});
