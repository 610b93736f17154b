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
  /** Its devices that another agent has registered, in words; null: none. */
  twice: (agentId: string) => string | null;
}

/** Rows by id, one an agent id, of those after `after`; an id that was revoked and is enrolled or waits again with another key shows as what it is now. Pure. */
export function agentRows(view: FleetView, after: string | null, limit: number): { rows: AgentRow[]; more: boolean } {
  const row = new Map<string, () => AgentRow>();
  for (const outcast of view.revoked) row.set(outcast.agentId, () => revokedRow(outcast));
  for (const applicant of view.waiting) row.set(applicant.agentId, () => waitingRow(applicant));
  for (const agent of view.enrolled) row.set(agent.agentId, () => enrolledRow(agent, view));
  const ids = [...row.keys()].filter((id) => after === null || id > after).sort();
  return { rows: ids.slice(0, limit).flatMap((id) => row.get(id)?.() ?? []), more: ids.length > limit };
}

const revokedRow = ({ agentId, publicKey, at, reason }: Outcast): AgentRow => ({
  ...nothing(agentId, publicKey),
  ...{ state: "revoked", since: at, note: reason },
});

const waitingRow = ({ agentId, publicKey, pools, devices, version, since }: Applicant): AgentRow => ({
  ...nothing(agentId, publicKey),
  ...{ state: "waiting", pools, devices, version, since, note: "approve or refuse it" },
});

function enrolledRow(
  { agentId, publicKey, pools, enrolledAt }: AgentPrincipal,
  { info, heardAt, health, incompatible, twice }: FleetView,
): AgentRow {
  const now = info(agentId);
  const devices = (now?.devices ?? []).map(({ id, name, isa, simulated }) => ({ ...{ id, name, isa, simulated }, ...known(health(id)) }));
  const other = incompatible(agentId);
  return {
    ...nothing(agentId, publicKey),
    ...{ state: now?.state ?? "away", pools: now?.pools ?? pools, devices, version: now?.version ?? null },
    ...(now?.protocol === undefined ? {} : { protocol: now.protocol }),
    ...{ since: enrolledAt ?? null, heardAt: heardAt(agentId), note: twice(agentId) ?? unconfined(now) },
    ...(other ? { state: "incompatible" as const, version: other.version, protocol: other.protocol, note: other.why } : {}),
  };
}

/** A simulated device runs nothing. */
const unconfined = (info: AgentInfo | null): string | null =>
  info?.sandbox === "none" && info.devices.some((d) => !d.simulated)
    ? "no sandbox: code that a model wrote is refused there, unless it was started with --unsafe-no-sandbox; its log says why"
    : null;

const known = <T>(health: T | null): { health?: T } => (health === null ? {} : { health });

const nothing = (agentId: string, publicKey: string): AgentRow => ({
  ...{ agentId, publicKey, state: "away", pools: [], devices: [], version: null, since: null, heardAt: null, note: null },
});
