import { isDeepStrictEqual } from "node:util";
import {
  createRng,
  type AgentInfo,
  type CampaignEvent,
  type CampaignFact,
  type Job,
  type JobResult,
  type JobSpec,
  type Lease,
  type Outcome,
} from "@vibeserve/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { fold, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { expiring, settling } from "../../coordinator/src/campaign/counting.ts";
import { MAX_VITAL_FAILURES, type JobEntry } from "../../coordinator/src/campaign/ledger.ts";
import { attributionOfLoss, type LostBy } from "../../coordinator/src/fleet/attribution.ts";
import { FleetHealth } from "../../coordinator/src/fleet/health.ts";
import { staleness } from "../../coordinator/src/fleet/lease-table.ts";
import { agent, device, target } from "../campaign/world.ts";
import { simulatedOutcome } from "../kit/fake-outcomes.ts";

/**
 * What the network, agents and restarts can do to results, against the code that decides what counts: the fold, the ledger, the lease table, the verdicts. I3: only the current
 * attempt under the current token changes anything, once. I5: the log alone gives the same state. I8: only the candidate's own failure counts against an idea.
 */
const hex = "0".repeat(64);
const tree = { treeDigest: "a".repeat(40), tree: { digest: hex, bytes: 1 } };
const stack = { ...tree, buildDigest: hex, provenance: "shipped" as const };
const build = { source: "build" as const, build: stack };
const bench: JobSpec = {
  ...{ kind: "bench", purpose: "screen", model: target.model, workload: target.slice, metric: target.objective },
  ...{ challenger: { role: "challenger", stack: build }, champion: { role: "champion", stack: build } },
  ...{ pairs: { min: 2, max: 4 }, confidence: 0.9, runLimitMs: 1 },
};
const check: JobSpec = { kind: "check", stack, model: target.model, level: "screen", accuracy: "exact" };
const specs: readonly JobSpec[] = [bench, check];

const agents: AgentInfo[] = ["a1", "a2", "a3"].map((agentId) => ({ ...agent, agentId, devices: [{ ...device, id: `${agentId}-d` }] }));
const jobOf = (id: string, attempt: number, spec: JobSpec): Job => ({
  ...{ v: 1, kind: "job", id, campaign: "sim", experiment: "e1", attempt, pool: "p", issuedAt: 1, deadlineMs: 1, spec },
});
const leaseOf = (job: Job, of: AgentInfo, token: number): Lease => ({
  ...{ v: 1, kind: "lease", deviceId: of.devices[0]?.id ?? "", agentId: of.agentId, jobId: job.id, attempt: job.attempt, token },
  ...{ grantedAt: 1, ttlMs: 1, deadline: 1 },
});

const honest = new Map<JobSpec, Outcome>();
for (const spec of specs) {
  const job = jobOf("j", 1, spec);
  const as = { device, speedOf: async () => 1, sign: () => "" };
  honest.set(spec, await simulatedOutcome(job, leaseOf(job, agents[0] ?? agent, 1), as));
}

const failure = (attribution: "candidate" | "device" | "harness" | "network", code: string, message = "-"): Outcome => ({
  status: "failed",
  failure: { attribution, code, message, logTail: "" },
});

/** What an agent may say: the truth, failures of all four, and what can't be. */
function answerOf(job: Job, token: number, kind: number): Outcome {
  const good = honest.get(job.spec);
  if (!good) throw new Error("no such spec");
  const fresh = (o: Outcome): Outcome =>
    o.status === "measured"
      ? { ...o, challenger: { ...o.challenger, leaseToken: token }, champion: { ...o.champion, leaseToken: token } }
      : o;
  switch (kind) {
    case 0:
      return failure("candidate", "died-under-load", "the server ended by SIGSEGV while it was loaded");
    case 1:
      return failure("candidate", "bad-manifest");
    case 2:
      return failure("device", "device-unhealthy", "ECC");
    case 3:
      return failure("harness", "internal");
    case 4:
      return failure("network", "artifact-unavailable");
    case 5:
      return good.status === "checked" ? { ...good, report: { ...good.report, ok: false } } : fresh(good);
    case 6: {
      const o = fresh(good);
      return o.status === "measured" ? { ...o, comparison: { ...o.comparison, point: 1e6, lo: 9e5, hi: 1.1e6 } } : o;
    }
    default:
      return fresh(good);
  }
}

const against = (o: Outcome | null): boolean =>
  o?.status === "failed" ? o.failure.attribution === "candidate" : o?.status === "checked" && !o.report.ok;

class History {
  readonly events: CampaignEvent[] = [];
  state: Campaign | null = null;
  readonly rng;
  readonly health: FleetHealth;
  readonly jobs = new Map<string, Job>();
  /** What the broker keeps: the newest assignment of each device. */
  readonly stored = new Map<string, Lease>();
  /** The coordinator's table. */
  live = new Map<string, Lease>();
  known = new Set<string>();
  /** Whoever ever got an assignment may still answer it. */
  readonly given: { job: Job; lease: Lease }[] = [];
  readonly mail: JobResult[] = [];
  readonly counted = new Set<string>();
  token = 0;
  sigs = 0;

  constructor(seed: string) {
    this.rng = createRng(seed);
    this.health = new FleetHealth({
      file: null,
      agents: () => agents,
      changed: () => undefined,
      log: () => undefined,
      now: () => this.events.length,
    });
    const options = { baselines: [], repeat: null };
    this.append({ type: "campaign.created", target, workloadDigest: hex, stackDigest: hex, options });
  }

  get c(): Campaign {
    if (!this.state) throw new Error("no campaign");
    return this.state;
  }

  append(fact: CampaignFact): void {
    const seq = this.events.length + 1;
    const event: CampaignEvent = { v: 1, kind: "event", campaign: "sim", seq, at: seq, prev: hex, fact };
    this.events.push(event);
    this.state = fold(this.state, event);
    if (fact.type === "job.settled") this.known.add(fact.result.sig);
  }

  step(): void {
    const { rng } = this;
    switch (rng.int(12)) {
      case 0:
      case 1:
        this.request();
        return;
      case 2:
      case 3:
        this.grant();
        return;
      case 4:
      case 5:
        this.answer();
        return;
      case 6:
      case 7:
      case 8:
        this.deliver();
        return;
      case 9:
        this.lose(agents[rng.int(3)]?.devices[0]?.id ?? "", (["silence", "restart", "deadline", "gone"] as const)[rng.int(4)] ?? "silence");
        return;
      case 10:
        this.restart();
        return;
      default:
        if (rng.int(8) === 0) this.append({ type: "campaign.paused", reason: "-" });
        if (rng.int(8) === 0) this.append({ type: "campaign.resumed", reason: "-" });
        if (rng.int(60) === 0) this.append({ type: "campaign.ended", outcome: "cancelled", reason: "-" });
    }
  }

  request(): void {
    if (this.c.ended) return;
    const again = Object.values(this.c.ledger).find((e) => e.status === "again");
    const id = again?.id ?? `j${this.jobs.size}`;
    const job = jobOf(id, (again?.attempt ?? 0) + 1, again?.spec ?? specs[this.rng.int(2)] ?? bench);
    this.jobs.set(id, job);
    this.append({ type: "job.requested", job });
  }

  grant(): void {
    const of = agents[this.rng.int(3)] ?? agent;
    const id = of.devices[0]?.id ?? "";
    const leased = new Set([...this.live.values()].map((l) => l.jobId));
    const open = Object.values(this.c.ledger).filter((e) => e.status === "open" && !leased.has(e.id));
    const job = this.jobs.get(open[this.rng.int(Math.max(1, open.length))]?.id ?? "");
    if (this.c.ended || !job || this.live.has(id)) return;
    const lease = leaseOf(job, of, ++this.token);
    this.live.set(id, lease);
    this.stored.set(id, lease);
    this.given.push({ job, lease });
  }

  /** Now, late, twice with another answer, with a token or an attempt of its own making: all may happen. */
  answer(): void {
    const given = this.given[this.rng.int(Math.max(1, this.given.length))];
    if (!given) return;
    const { job, lease } = given;
    const lies = this.rng.int(6) === 0;
    const leaseToken = Math.max(1, lease.token + (lies ? this.rng.int(3) - 1 : 0));
    const attempt = Math.max(1, job.attempt + (lies ? this.rng.int(3) - 1 : 0));
    const { agentId, deviceId } = lease;
    const outcome = answerOf(job, leaseToken, this.rng.int(11));
    const of = { jobId: job.id, campaign: "sim", attempt, agentId, deviceId, leaseToken, startedAt: 1, endedAt: 2, log: null };
    this.mail.push({ v: 1, kind: "result", sandbox: "none", outcome, ...of, sig: `s${this.sigs++}` });
  }

  deliver(): void {
    const at = this.rng.int(Math.max(1, this.mail.length));
    const result = this.mail[at];
    if (!result) return;
    if (this.rng.int(3) > 0) this.mail.splice(at, 1);
    const { jobId, attempt, deviceId, agentId, leaseToken } = result;
    const before = this.c;
    const entry = before.ledger[jobId];
    const lease = this.live.get(deviceId);
    const current = [
      !before.ended,
      entry?.status === "open" && entry.attempt === attempt,
      lease?.jobId === jobId && lease.attempt === attempt && lease.token === leaseToken && lease.agentId === agentId,
      !this.known.has(result.sig),
    ].every(Boolean);
    const fact = settling(before, this.known, result, staleness(lease ? { lease, devices: [lease.deviceId] } : null, result), (e) =>
      this.health.judge(result, e),
    );
    const verdict = fact?.verdict ?? null;
    if (fact) this.append(fact);
    const after = this.c.ledger[jobId];
    expect(fact?.accepted ?? false).toBe(current);
    if (!current) {
      // I3, also for what is delivered twice.
      expect(this.c.ledger).toBe(before.ledger);
      return;
    }
    if (!entry || !after) throw new Error("accepted for a job that is not there");
    expect(this.counted.has(`${jobId}.${attempt}`)).toBe(false);
    this.counted.add(`${jobId}.${attempt}`);
    this.health.answered(result, verdict, entry.doubted);
    this.live.delete(deviceId);
    this.blames(entry, after, result);
  }

  /** I8. */
  blames(before: JobEntry, after: JobEntry, { outcome, deviceId }: JobResult): void {
    const said = against(outcome);
    if (after.status === "over" && against(after.outcome)) {
      expect(said).toBe(true);
      const crash = outcome.status === "checked" || (outcome.status === "failed" && outcome.failure.code === "died-under-load");
      // Three devices are there: a crash or wrong numbers stand on the word of two attempts, or all others are out of service.
      const others = agents.map((a) => a.devices[0]?.id ?? "").filter((id) => id !== deviceId && this.health.of(id).health === "good");
      if (crash && others.length > 0) expect(before.doubted).not.toBeNull();
    }
    if (outcome.status === "measured" && outcome.comparison.point === 1e6) expect(after.outcome?.status).toBe("failed");
    if (before.doubted !== null) expect(after.doubted).toBe(before.doubted);
  }

  lose(deviceId: string, by: LostBy): void {
    const lease = this.live.get(deviceId);
    if (!lease) return;
    this.live.delete(deviceId);
    const fact = expiring(this.c, lease.jobId, lease.attempt, by, attributionOfLoss(by));
    if (fact) this.append(fact);
  }

  /** I5: the coordinator comes back with its log and what the broker stored. */
  restart(): void {
    let folded: Campaign | null = null;
    for (const event of this.events) folded = fold(folded, event);
    expect(isDeepStrictEqual(folded, this.state)).toBe(true);
    this.state = folded;
    this.known = new Set(this.events.flatMap(({ fact }) => (fact.type === "job.settled" ? [fact.result.sig] : [])));
    const open = (l: Lease) => this.c.ledger[l.jobId]?.status === "open" && this.c.ledger[l.jobId]?.attempt === l.attempt;
    this.live = new Map([...this.stored].filter(([, lease]) => !this.c.ended && open(lease)));
  }
}

test("in 10,000 histories of lost, doubled, reordered, stale and forged results, restarts and pauses, only current answers count, once, and for whom they say", () => {
  let accepted = 0;
  let evidence = 0;
  let doubted = 0;
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const history = new History(String(seed));
      const over = new Map<string, JobEntry>();
      for (let i = 0; i < 70; i++) {
        history.step();
        for (const entry of Object.values(history.c.ledger)) {
          const known = over.get(entry.id);
          if (known && (entry.outcome !== known.outcome || entry.attempt !== known.attempt || entry.status !== "over"))
            if (!isDeepStrictEqual(entry, known)) throw new Error(`job ${entry.id} was over and changed`);
            else if (entry.status === "over") over.set(entry.id, entry);
          // Two counts of failures and one doubt.
          if (entry.attempt > 2 * MAX_VITAL_FAILURES + 1) throw new Error(`job ${entry.id} is at attempt ${entry.attempt}`);
        }
      }
      history.restart();
      for (const { fact } of history.events) {
        if (fact.type !== "job.settled") continue;
        if (fact.accepted) accepted++;
        else evidence++;
        if (fact.verdict?.secondDevice) doubted++;
      }
    }),
    { numRuns: 10_000 },
  );
  // The histories reach what they are about.
  expect(Math.min(accepted, evidence, doubted)).toBeGreaterThan(1_000);
}, 120_000);
