import { isBuilder, type CampaignEvent } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { PlannedCampaign } from "./fleet-campaigns.ts";
import { measures, workerOf, type FleetFile, type FleetKind } from "./fleet-file.ts";
import { KindUses } from "./kind-use.ts";
import { turnMs } from "./simulated-campaign.ts";
import type { FleetModel } from "./simulated-work.ts";
import type { CampaignUse, Simulated, Work } from "./simulation.ts";

/** A lease as the coordinator reported it, ms since 1970; endedAt: when it was answered, lost or handed back. */
export interface Granted {
  at: number;
  endedAt: number;
  jobId: string;
  attempt: number;
  agentId: string;
  deviceId: string;
  token: number;
}
/** Devices of a kind that came, or went (a negative count). */
export interface Coming {
  at: number;
  kind: string;
  devices: number;
}
export interface Played {
  planned: PlannedCampaign;
  state: Campaign;
  events: readonly CampaignEvent[];
  pauses: number;
}

/** Over the protocol each machine compiles what it serves: kinds that only compile have as many devices as there are machines that would have asked them. */
const kindsOverProtocol = (fleet: FleetFile): FleetKind[] =>
  fleet.kinds.map((kind) =>
    measures(fleet, kind)
      ? kind
      : { ...kind, count: fleet.kinds.reduce((n, k) => n + (k.builtOn === kind.name ? k.count / k.perAgent : 0), 0), perAgent: 1 },
  );

/** What a fleet did by its campaigns' logs and the coordinator's leases, in simulated time from `from`: the same account as virtual time keeps. */
export function recordedRun(
  { fleet, seed, speed }: FleetModel,
  from: number,
  played: readonly Played[],
  leases: readonly Granted[],
  comings: readonly Coming[],
): Simulated {
  const ms = (at: number) => Math.round((at - from) * speed);
  const campaignOf = new Map(played.map((p) => [p.state.id, p]));
  const changes: { at: number; kind: string; by: Parameters<KindUses["change"]>[1] }[] = [];
  for (const { at, kind, devices } of comings) changes.push({ at: Math.max(0, ms(at)), kind, by: { up: devices } });
  const kinds = kindsOverProtocol(fleet);
  for (const kind of kinds) if (!measures(fleet, kind)) changes.push({ at: 0, kind: kind.name, by: { up: kind.count } });
  const works: Work[] = [];
  for (const { at, endedAt, jobId, deviceId } of leases) {
    const of = campaignOf.get(jobId.slice(0, jobId.indexOf("_")));
    // A canary: it is of no campaign, and its device shows as idle.
    if (!of) continue;
    const { on, id } = of.planned;
    const build = isBuilder(deviceId);
    const kind = workerOf(on, build);
    const devices = build ? 1 : of.planned.devices;
    changes.push({ at: ms(at), kind, by: { busy: devices } }, { at: ms(endedAt), kind, by: { busy: -devices } });
    works.push({ campaign: id, kind, startMs: ms(at), endMs: ms(endedAt), devices });
  }
  const grants = Map.groupBy(leases, (l) => `${l.jobId}.${l.attempt}`);
  for (const { planned, events } of played)
    for (const { fact, at } of events) {
      if (fact.type !== "job.requested") continue;
      const { id, attempt, spec } = fact.job;
      const kind = workerOf(planned.on, spec.kind === "build");
      // Handed back, it waits again; that is rare, and counts as begun.
      const granted = grants.get(`${id}.${attempt}`)?.[0]?.at;
      if (granted !== undefined) changes.push({ at: ms(at), kind, by: { waiting: 1 } }, { at: ms(granted), kind, by: { waiting: -1 } });
    }
  const uses = new KindUses(kinds, 0);
  for (const { at, kind, by } of changes.sort((a, b) => a.at - b.at)) {
    uses.elapse(at);
    uses.change(kind, by);
  }
  const campaigns = played.map((p) => campaignUse(fleet, seed, p, works, ms));
  return {
    simulated: true,
    fleet: fleet.name,
    seed,
    makespanMs: Math.max(...campaigns.map((c) => c.endMs)),
    kinds: uses.sums,
    campaigns,
    works: works.sort((a, b) => a.endMs - b.endMs),
    agentLosses: comings.filter((c) => c.devices < 0).length,
  };
}

function campaignUse(
  fleet: FleetFile,
  seed: string,
  { planned, state, pauses }: Played,
  works: readonly Work[],
  ms: (at: number) => number,
): CampaignUse {
  const { on, experiments: _, ...of } = planned;
  const mine = works.filter((w) => w.campaign === planned.id);
  const price = (kind: string) => fleet.kinds.find((k) => k.name === kind)?.usdPerHour ?? 0;
  const turnsMs = state.experiments.reduce((sum, x) => sum + turnMs(fleet, seed, planned.id, x.id), 0);
  return {
    ...of,
    kind: on.name,
    endMs: state.ended ? ms(state.ended.at) : Infinity,
    chainMs: turnsMs + mine.reduce((sum, w) => sum + w.endMs - w.startMs, 0),
    experiments: state.experiments.length,
    gain: state.champions.at(-1)?.ratio.point ?? 1,
    usd:
      state.experiments.length * fleet.turn.usd +
      mine.reduce((sum, w) => sum + (price(w.kind) * w.devices * (w.endMs - w.startMs)) / 3_600_000, 0),
    pauses,
  };
}
