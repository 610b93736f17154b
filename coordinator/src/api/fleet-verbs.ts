import { covers, DeviceGood, ExplainRequest, Explained, Holds, HoldsRequest, type Where } from "@vibeserve/shared";
import type { FleetHealth } from "../fleet/health.ts";
import type { FleetHolds } from "../fleet/holds.ts";
import type { LiveLease } from "../fleet/lease-table.ts";
import type { Scheduler } from "../schedule/scheduler.ts";
import { ApiProblem } from "./problem.ts";
import { verb, type AnyVerb } from "./server.ts";

export interface FleetVerbDeps {
  scheduler: Pick<Scheduler, "explain" | "idle">;
  holds: FleetHolds;
  health: Pick<FleetHealth, "lift">;
  leases: () => readonly LiveLease[];
  now: () => number;
}

/** So many of a list go into one message. */
const LISTED = 500;

export function fleetVerbs({ scheduler, holds, health, leases, now }: FleetVerbDeps): Record<string, AnyVerb> {
  return {
    explain: verb({
      request: ExplainRequest,
      reply: Explained,
      handle: async ({ job: id }) => {
        const listed = (devices: readonly { id: string; doing: string }[]) => ({
          devices: devices.slice(0, LISTED),
          more: Math.max(0, devices.length - LISTED),
        });
        const common = { v: 1 as const, kind: "explained" as const };
        if (id === null) return { ...common, job: null, ...listed(scheduler.idle(now()).map((d) => ({ id: d.id, doing: d.reason }))) };
        const { state, position, etaMs, reason, devices } = scheduler.explain(id, now());
        return { ...common, job: { id, state, position, etaMs, reason }, ...listed(devices) };
      },
    }),
    "device-good": verb({
      request: DeviceGood,
      reply: DeviceGood,
      handle: async (request) => {
        if (!health.lift(request.id, `a person says so: ${request.reason}`))
          throw new ApiProblem("not-found", `nothing is known against a device or agent ${request.id}`);
        return request;
      },
    }),
    holds: verb({
      request: HoldsRequest,
      reply: Holds,
      handle: async ({ add, lift }) => {
        if (lift && !holds.lift(lift)) throw new ApiProblem("not-found", `nothing is held on ${wordsOf(lift)}`);
        if (add) {
          if (add.until !== null && add.until <= now()) throw new ApiProblem("bad-input", "until: has passed");
          holds.add(add);
        }
        const all = holds.list();
        const running = leases()
          .flatMap(({ lease, devices, job }) =>
            devices.map((deviceId) => ({ jobId: lease.jobId, deviceId, agentId: lease.agentId, pool: job.pool })),
          )
          .filter((device) => all.some((hold) => hold.active && covers(hold.where, device)))
          .map(({ jobId, deviceId }) => ({ jobId, deviceId }));
        return { v: 1 as const, kind: "holds" as const, holds: all, running: running.slice(0, LISTED) };
      },
    }),
  };
}

const wordsOf = ({ pool, agentId, deviceId }: Where): string =>
  [pool && `pool ${pool}`, agentId && `agent ${agentId}`, deviceId && `device ${deviceId}`].filter(Boolean).join(", ") || "the whole fleet";
