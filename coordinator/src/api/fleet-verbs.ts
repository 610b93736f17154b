import {
  covers,
  DeviceGood,
  ExplainRequest,
  Explained,
  Holds,
  HoldsRequest,
  type AgentInfo,
  type AgentRow,
  type Where,
} from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import type { JobEntry } from "../campaign/ledger.ts";
import type { CampaignRegistry } from "../campaign/registry.ts";
import type { FleetHealth } from "../fleet/health.ts";
import type { FleetHolds } from "../fleet/holds.ts";
import type { LiveLease } from "../fleet/lease-table.ts";
import { schedulableDevices } from "../fleet/schedulable.ts";
import type { Scheduler } from "../schedule/scheduler.ts";
import { ApiProblem } from "./problem.ts";
import { verb, type AnyVerb } from "./server.ts";

export interface FleetVerbDeps {
  campaigns: Pick<CampaignRegistry, "all" | "list">;
  scheduler: Pick<Scheduler, "explain" | "idle">;
  holds: FleetHolds;
  health: Pick<FleetHealth, "lift">;
  /** Those that are heard of. */
  agents: () => readonly AgentInfo[];
  /** All that are in, heard of or not. */
  enrolled: () => readonly Pick<AgentRow, "agentId" | "pools">[];
  leases: () => readonly LiveLease[];
  now: () => number;
}

/** So many of a list go into one message. */
const LISTED = 500;

export function fleetVerbs({ campaigns, scheduler, holds, health, agents, enrolled, leases, now }: FleetVerbDeps): Record<string, AnyVerb> {
  const devices = () => agents().flatMap((agent) => schedulableDevices(agent));
  const whatBecameOf = async (id: string) => {
    await campaigns.all;
    const owner = campaigns.list().find((actor) => Object.hasOwn(actor.state.ledger, id))?.state;
    const entry = owner?.ledger[id];
    return owner && entry ? whatBecame(owner, entry) : null;
  };
  return {
    explain: verb(ExplainRequest, Explained, async ({ job: id }) => {
      const common = { v: 1 as const, kind: "explained" as const };
      if (id === null) return { ...common, job: null, ...listed(scheduler.idle(now()).map((d) => ({ id: d.id, doing: d.reason }))) };
      const { state, position, etaMs, reason, devices } = scheduler.explain(id, now());
      const became = state === "unknown" ? await whatBecameOf(id) : null;
      return { ...common, job: { id, state, position, etaMs, reason, ...became }, ...listed(devices) };
    }),
    "device-good": verb(DeviceGood, DeviceGood, async (request) => {
      if (!health.lift(request.id, `a person says so: ${request.reason}`))
        throw new ApiProblem("not-found", `nothing is known against a device or agent ${request.id}`);
      return request;
    }),
    holds: verb(HoldsRequest, Holds, async ({ add, lift, ahead }) => {
      if (lift && !holds.lift(lift)) throw new ApiProblem("not-found", `nothing is held on ${wordsOf(lift)}`);
      if (add) {
        if (add.until !== null && add.until <= now()) throw new ApiProblem("bad-input", "until: has passed");
        const absent = ahead === true ? null : whatIsAbsent(add.where, devices(), enrolled());
        if (absent !== null) throw new ApiProblem("not-found", absent);
        holds.add(add);
      }
      const all = holds.list();
      const isHeld = (device: { pool: string; agentId: string; deviceId: string }) =>
        all.some((hold) => hold.active && covers(hold.where, device));
      const running = leases()
        .flatMap(({ lease, devices, job }) =>
          devices.map((deviceId) => ({ jobId: lease.jobId, deviceId, agentId: lease.agentId, pool: job.pool })),
        )
        .filter(isHeld)
        .map(({ jobId, deviceId }) => ({ jobId, deviceId }));
      const held = devices().flatMap(({ id, agentId, pool }) => (isHeld({ deviceId: id, agentId, pool }) ? [id] : []));
      return { v: 1 as const, kind: "holds" as const, holds: all, running: running.slice(0, LISTED), ...listed(held.sort()) };
    }),
  };
}

const listed = <T>(devices: readonly T[]): { devices: T[]; more: number } => ({
  devices: devices.slice(0, LISTED),
  more: Math.max(0, devices.length - LISTED),
});

/** Of a job that neither waits nor runs. */
function whatBecame(c: Campaign, entry: JobEntry): { reason: string; endedAt: number | null } {
  const endedAt = entry.endedAt > 0 ? entry.endedAt : null;
  const { status, outcome, devices } = entry;
  const how = outcome?.status === "failed" ? `failed (${outcome.failure.code}): ${outcome.failure.message}` : (outcome?.status ?? "");
  if (status === "over") return { reason: `${how}${devices.length === 0 ? "" : `, on ${devices.join(", ")}`}`, endedAt };
  const why = c.ended
    ? `its campaign ended before it did: ${c.ended.reason}`
    : c.pausedAt
      ? `its campaign is paused: ${c.pausedFor}`
      : "its next attempt is about to be asked for";
  return { reason: how === "" ? why : `${why}; the last attempt: ${how}`, endedAt };
}

/** Which name of these nobody has, and the names that there are; null: all are there. */
function whatIsAbsent(
  { pool, agentId, deviceId }: Where,
  devices: readonly { id: string; pool: string }[],
  enrolled: ReturnType<FleetVerbDeps["enrolled"]>,
): string | null {
  const pools = [...enrolled.flatMap((agent) => agent.pools), ...devices.map((device) => device.pool)];
  for (const [what, name, there] of [
    ["pool", pool, pools],
    ["agent", agentId, enrolled.map((agent) => agent.agentId)],
    ["device of an agent that is heard of,", deviceId, devices.map((device) => device.id)],
  ] as const) {
    if (name === undefined || there.includes(name)) continue;
    const names = [...new Set(there)].sort();
    const more = names.length > NAMED ? `, and ${names.length - NAMED} more` : "";
    return `there is no ${what} ${name}; there are: ${names.slice(0, NAMED).join(", ") || "none"}${more}; --ahead holds what is still to come`;
  }
  return null;
}

/** Names that a message lists. */
const NAMED = 20;

const wordsOf = ({ pool, agentId, deviceId }: Where): string =>
  [pool && `pool ${pool}`, agentId && `agent ${agentId}`, deviceId && `device ${deviceId}`].filter(Boolean).join(", ") || "the whole fleet";
