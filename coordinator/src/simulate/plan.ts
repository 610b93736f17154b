import type { KindUse } from "./kind-use.ts";
import type { CampaignUse, Simulated, Work } from "./simulation.ts";

/** What an operator wants to know beforehand of a fleet and what it is to do. Everything in it is simulated, and says so. */
export interface FleetPlan {
  simulated: true;
  fleet: string;
  seed: string;
  makespanMs: number;
  /** max(total work of a kind ÷ its devices, longest chain of a campaign): no schedule ends sooner. */
  lowerBoundMs: number;
  boundBy: string;
  kinds: (KindPlan & { kind: string; devices: number; usdPerHour: number })[];
  campaigns: CampaignUse[];
  jobs: number;
  agentLosses: number;
  /** Devices paid from the start to the end; what agents' turns cost. */
  rentUsd: number;
  turnsUsd: number;
  bounds: Bound[];
}
interface KindPlan {
  workMs: number;
  utilisation: number;
  /** Share of device-time that was idle while a job waited for this kind; null: none ever waited. */
  idleWithBacklog: number | null;
  queuePeak: number;
  queuePeakAtMs: number;
  /** Most over least device-time among equal campaigns while all of them were there and jobs waited; null: nothing to compare. */
  fairness: number | null;
}
interface Bound {
  what: string;
  value: number | null;
  limit: number;
  ok: boolean;
}

/** Bounds that issue and docs state: what a schedule may lose, and what equals may differ. */
export const MAKESPAN_LIMIT = 1.1;
export const FAIRNESS_LIMIT = 1.1;
export const IDLE_LIMIT = 0.05;
/** A comparison of shares needs so many jobs of each: with fewer, one job more or less is more than the limit. */
const FAIR_JOBS = 20;
/** Campaigns compete when something waits for so much of the time; else each gets what it asks for, and asks for what it likes. */
const CONTENDED = 0.9;

export function planOf(run: Simulated): FleetPlan {
  const kinds = run.kinds.map((use) => ({
    kind: use.kind.name,
    devices: use.kind.count,
    usdPerHour: use.kind.usdPerHour,
    ...kindPlan(use, run),
  }));
  const chains = run.campaigns.map((c) => ({ what: `the chain of ${c.id}`, ms: c.startMs + c.chainMs }));
  const pools = kinds.map((k) => ({ what: `the work for ${k.kind}`, ms: k.workMs / k.devices }));
  const bound = [...chains, ...pools].reduce((a, b) => (b.ms > a.ms ? b : a));
  const rentUsd = kinds.reduce((usd, k) => usd + (k.devices * k.usdPerHour * run.makespanMs) / 3_600_000, 0);
  const busyUsd = kinds.reduce((usd, k) => usd + (k.usdPerHour * k.workMs) / 3_600_000, 0);
  const worst = (values: (number | null)[]) => values.reduce((a, b) => (b !== null && (a === null || b > a) ? b : a), null);
  const check = (what: string, value: number | null, limit: number): Bound => ({
    what,
    value,
    limit,
    ok: value === null || value <= limit,
  });
  const late = run.campaigns.filter((c) => c.deadlineMs !== null && c.endMs > c.deadlineMs).length;
  return {
    simulated: true,
    fleet: run.fleet,
    seed: run.seed,
    makespanMs: run.makespanMs,
    lowerBoundMs: bound.ms,
    boundBy: bound.what,
    kinds,
    campaigns: run.campaigns,
    jobs: run.works.length,
    agentLosses: run.agentLosses,
    rentUsd,
    turnsUsd: run.campaigns.reduce((usd, c) => usd + c.usd, 0) - busyUsd,
    bounds: [
      check("makespan ÷ lower bound", run.makespanMs / bound.ms, MAKESPAN_LIMIT),
      check("most ÷ least device-time among equals", worst(kinds.map((k) => k.fairness)), FAIRNESS_LIMIT),
      check("idle share with a backlog", worst(kinds.map((k) => k.idleWithBacklog)), IDLE_LIMIT),
      check("campaigns past their deadline", late, 0),
    ],
  };
}

function kindPlan(use: KindUse, { works, campaigns, makespanMs }: Simulated): KindPlan {
  const mine = works.filter((w) => w.kind === use.kind.name);
  const workMs = mine.reduce((ms, w) => ms + timeOf(w), 0);
  return {
    workMs,
    utilisation: use.busyMs / (use.kind.count * makespanMs),
    idleWithBacklog: use.backlogMs > 0 ? use.idleMs / use.backlogMs : null,
    queuePeak: use.peak,
    queuePeakAtMs: use.peakAt,
    fairness: fairness(use, mine, campaigns),
  };
}

/** Of campaigns alike in weight, priority and gang, with builds where the machine compiles for itself, from the last one's start to the first one's end. */
function fairness(use: KindUse, works: readonly Work[], campaigns: readonly CampaignUse[]): number | null {
  const groups = Map.groupBy(
    campaigns.filter((c) => c.kind === use.kind.name),
    (c) => [c.weight, c.priority, c.devices].join(),
  );
  const spreads = [...groups.values()].flatMap((group) => {
    const from = Math.max(...group.map((c) => c.startMs));
    const to = Math.min(...group.map((c) => c.endMs));
    const ids = new Set(group.map((c) => c.id));
    const seen = works.filter((w) => ids.has(w.campaign) && w.endMs > from && w.startMs < to);
    const shares = group.map(({ id }) => seen.filter((w) => w.campaign === id));
    const contended = use.backlogMs / use.kind.count / (to - from) >= CONTENDED;
    if (group.length < 2 || !contended || shares.some((s) => s.length < FAIR_JOBS)) return [];
    const times = shares.map((s) =>
      s.reduce((ms, w) => ms + timeOf({ ...w, startMs: Math.max(from, w.startMs), endMs: Math.min(to, w.endMs) }), 0),
    );
    return [Math.max(...times) / Math.min(...times)];
  });
  return spreads.length > 0 ? Math.max(...spreads) : null;
}

const timeOf = ({ startMs, endMs, devices }: Pick<Work, "startMs" | "endMs" | "devices">): number => (endMs - startMs) * devices;
