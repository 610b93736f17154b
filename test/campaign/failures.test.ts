import type { Failure, Job, JobResult, Outcome } from "@vibeserve/shared";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { pending, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { MAX_FAILURES, MAX_VITAL_FAILURES, requested, settled, type Ledger } from "../../coordinator/src/campaign/ledger.ts";
import { World, type SimSkill } from "./world.ts";

const SKILLS: SimSkill[] = [
  { id: "q4", seam: "linear", stated: 9, truth: 10 },
  { id: "pool", seam: "threading", stated: 2, truth: 1.9 },
];

/** A world in which a job fails whenever `cause` says whose fault it is. */
function failing(cause: (job: Job) => Failure["attribution"] | null, options: { baselines?: string[] } = {}): World {
  const world = new World(SKILLS, options);
  const honest = world.answer.bind(world);
  world.answer = (job): Outcome => {
    const attribution = cause(job);
    const failure = { code: attribution === "device" ? "device-noisy" : "internal", message: "steal time 9.00% > 3%", logTail: "" };
    return attribution === null ? honest(job) : { status: "failed", failure: { attribution, ...failure } };
  };
  return world;
}

const pauses = (world: World): string[] => world.events.flatMap(({ fact }) => (fact.type === "campaign.paused" ? [fact.reason] : []));

/** Runs to the end; whenever the campaign is paused, someone resumes it. */
function runResuming(world: World): Campaign {
  while (!world.run().ended) {
    expect(world.state.pausedAt).toBeGreaterThan(0);
    world.append({ type: "campaign.resumed", reason: "asked" });
  }
  return world.state;
}

const skillsOf = (c: Campaign): string[] => c.experiments.flatMap((x) => x.hypothesis.skills);
const isScreen = (job: Job): boolean => job.spec.kind === "bench" && job.spec.purpose === "screen";

describe("failures that are not the candidate's", () => {
  it("a device that fails three times pauses the campaign with the reason; once resumed, nothing is lost", () => {
    const world = failing((job) => (isScreen(job) && job.attempt <= MAX_FAILURES ? "device" : null));
    world.run();
    expect(pauses(world)).toEqual([
      "3 attempts at the bench of e1 failed on device sim-0 for no fault of its own; the last: device-noisy (device): steal time 9.00% > 3%",
    ]);
    expect(world.state.experiments).toMatchObject([{ id: "e1", settled: null }]);
    expect(pending(world.state)).toEqual([]);
    world.append({ type: "campaign.resumed", reason: "asked" });
    expect(pending(world.state)).toMatchObject([{ type: "dispatch", job: { experiment: "e1", attempt: MAX_FAILURES + 1 } }]);
    const c = runResuming(world);
    expect(c.ended?.outcome).toBe("proven");
    expect(c.experiments.map((x) => x.settled?.outcome)).toEqual(["proven", "proven"]);
  });

  it("a device that never gets better ends a job after six attempts, and the campaign with it: no endless loop", () => {
    const world = failing((job) => (isScreen(job) ? "device" : null));
    const c = runResuming(world);
    expect(c.ended?.outcome).toBe("not-proven");
    expect(c.experiments.map((x) => x.settled?.outcome)).toEqual(Array<string>(4).fill("blocked"));
    expect(pauses(world)).toHaveLength(4);
    const screens = Object.values(c.ledger).filter((job) => job.id.endsWith("_screen"));
    expect(screens.map((job) => job.attempt)).toEqual(Array<number>(4).fill(MAX_VITAL_FAILURES));
  });

  it("what the harness fails three times is blocked, comes once more after the other ideas, and pauses nothing", () => {
    let failures = MAX_FAILURES;
    const world = failing((job) => (isScreen(job) && failures-- > 0 ? "harness" : null));
    const c = world.run();
    expect(pauses(world)).toEqual([]);
    expect(skillsOf(c)).toEqual(["q4", "pool", "q4"]);
    expect(c.experiments.map((x) => x.settled?.outcome)).toEqual(["blocked", "proven", "proven"]);
    expect(c.ended?.outcome).toBe("proven");
  });

  it("a leader does not lose its crown to the harness: the campaign is paused, and the leader is crowned once resumed", () => {
    const world = failing((job) => (job.id.endsWith("_repeat") && job.attempt <= MAX_FAILURES ? "harness" : null));
    world.run();
    expect(pauses(world)).toEqual([expect.stringMatching(/^3 attempts at the bench of e2 failed .*: internal \(harness\)/)]);
    const c = runResuming(world);
    expect(c.champions.at(-1)?.experimentId).toBe(c.leaders.at(-1));
  });

  it("attempts that expire count like the harness' failures, and apart from the device's", () => {
    const world = new World(SKILLS);
    while (pending(world.state)[0]?.type !== "dispatch") world.run(1);
    for (const end of ["expired", "device", "expired", "device", "expired"] as const) {
      const [effect] = pending(world.state);
      if (effect?.type !== "dispatch") throw new Error(`expected a dispatch, not ${effect?.type ?? "nothing"}`);
      const job = { ...effect.job, issuedAt: 1, pool: "p" };
      world.append({ type: "job.requested", job });
      const failure: Failure = { attribution: "device", code: "disk-full", message: "full", logTail: "" };
      if (end === "expired") world.append({ type: "job.expired", jobId: job.id, attempt: job.attempt, why: "agent a1 was silent" });
      else world.append({ type: "job.settled", result: world.result(job, { status: "failed", failure }), accepted: true, why: "current" });
    }
    expect(Object.values(world.state.ledger)).toMatchObject([
      { attempt: 5, status: "stuck", failures: { device: 2, other: 3 }, outcome: { failure: { code: "expired" } } },
    ]);
  });

  it("a baseline that fails is left out after three attempts, whoever's fault it is, and pauses nothing", () => {
    const world = failing((job) => (job.experiment === "campaign" ? "device" : null), { baselines: ["openvino-genai"] });
    const c = world.run();
    expect(pauses(world)).toEqual([]);
    expect(c.ended?.outcome).toBe("proven");
    expect(Object.values(c.ledger).find((job) => job.experiment === "campaign")?.attempt).toBe(MAX_FAILURES);
  });

  it("I8: whatever fails for whatever other reason, the campaign ends, and no idea is said to have failed", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(null, "device", "harness", "network"), { minLength: 1, maxLength: 40 }), (causes) => {
        let jobs = 0;
        const world = failing(() => causes[jobs++ % causes.length] ?? null);
        const c = runResuming(world);
        expect(c.experiments.map((x) => x.settled?.outcome)).not.toContain("implementation_failed");
        for (const job of Object.values(c.ledger)) expect(job.attempt).toBeLessThan(2 * MAX_VITAL_FAILURES);
      }),
      { numRuns: 60 },
    );
  });

  it("a device without a profiler is a good device: the profile is left out, and nobody is asked to look at it", () => {
    const job = (attempt: number): Job => ({
      ...{ v: 1, kind: "job", id: "c_e1_profile", campaign: "c", experiment: "e1", attempt, pool: "p", deadlineMs: 1, issuedAt: 1 },
      spec: { kind: "profile" } as Job["spec"],
    });
    const failure: Failure = { attribution: "device", code: "no-profiler", message: "no perf", logTail: "" };
    let ledger: Ledger = {};
    for (let n = 1; n <= MAX_FAILURES; n++) {
      expect(ledger["c_e1_profile"]?.status ?? "again").toBe("again");
      ledger = requested(ledger, job(n));
      const result = { jobId: "c_e1_profile", attempt: n, outcome: { status: "failed", failure }, deviceId: "d", startedAt: 1, endedAt: 2 };
      ledger = settled(ledger, result as JobResult, 3);
    }
    expect(ledger["c_e1_profile"]).toMatchObject({ status: "over", outcome: { status: "failed" } });
  });
});
