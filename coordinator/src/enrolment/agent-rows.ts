import type { AgentInfo, AgentRow } from "@vibeserve/shared";
import type { AgentPrincipal } from "../broker/principals.ts";
import type { Incompatible } from "../fleet/agent-registry.ts";
import type { Health } from "../fleet/health.machine.ts";
import type { Applicant, Outcast } from "./enrolment.machine.ts";

export interface FleetView {
  enrolled: readonly AgentPrincipal[];
  waiting: readonly Applicant[];
  revoked: readonly Outcast[];
  /** Its entry in the registry; null: it is not there. */
  info: (agentId: string) => AgentInfo | null;
  heardAt: (agentId: string) => number | null;
  /** Of a device; null: nothing is known against it. */
  health: (deviceId: string) => { health: Health; reason: string; since: number } | null;
  incompatible: (agentId: string) => Incompatible | null;
}

/** One row an agent id, by id. An id that was revoked and is enrolled or waits again with another key shows as what it is now. Pure. */
export function agentRows({ enrolled, waiting, revoked, info, heardAt, health, incompatible }: FleetView): AgentRow[] {
  const rows = new Map<string, AgentRow>();
  for (const { agentId, publicKey, at, reason } of revoked)
    rows.set(agentId, { ...nothing(agentId, publicKey), state: "revoked", since: at, note: reason });
  for (const { agentId, publicKey, pools, devices, version, since } of waiting)
    rows.set(agentId, { ...nothing(agentId, publicKey), state: "waiting", pools, devices, version, since, note: "approve or refuse it" });
  for (const { agentId, publicKey, pools, enrolledAt } of enrolled) {
    const now = info(agentId);
    const devices = (now?.devices ?? []).map(({ id, name, isa, simulated }) => ({
      ...{ id, name, isa, simulated },
      ...known(health(id)),
    }));
    const other = incompatible(agentId);
    rows.set(agentId, {
      ...nothing(agentId, publicKey),
      ...{ state: now?.state ?? "away", pools: now?.pools ?? pools, devices, version: now?.version ?? null },
      ...{ since: enrolledAt ?? null, heardAt: heardAt(agentId) },
      ...(other ? { state: "incompatible" as const, version: other.version, note: other.why } : {}),
    });
  }
  return [...rows.values()].sort((a, b) => (a.agentId < b.agentId ? -1 : 1));
}

const known = <T>(health: T | null): { health?: T } => (health === null ? {} : { health });

const nothing = (agentId: string, publicKey: string): AgentRow => ({
  ...{ agentId, publicKey, state: "away", pools: [], devices: [], version: null, since: null, heardAt: null, note: null },
});
