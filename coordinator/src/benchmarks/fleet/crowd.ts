import { join } from "node:path";
import type { Device } from "@vibeserve/shared";
import type { Settings } from "../../config.ts";
import { AgentRegistry } from "../../fleet/agent-registry.ts";
import { enrolBeforehand, newMember, startCrowd } from "../../simulate/crowd.ts";
import { openSite, within, type LaneSite } from "../lane.ts";

export const POOL = "crowd";

export interface Crowd extends LaneSite {
  registry: AgentRegistry;
  publicKeyOf: (agentId: string) => string | null;
  agents: number;
}

/** A broker with `agents` agents enrolled, connected and registered, in a process of their own; this process is the coordinator. All of it goes with `own`. */
export async function openCrowd(settings: Settings, agents: number, signal: AbortSignal, own: AsyncDisposableStack): Promise<Crowd> {
  const members = Array.from({ length: agents }, (_, i) => newMember(`crowd-${i}`, POOL, [device(`crowd-${i}-d`)]));
  enrolBeforehand(settings.data, members);
  const site = await openSite(settings, signal, own);
  const known = new Map(members.map((m) => [m.agentId, { publicKey: m.publicKey, pools: [POOL] }]));
  const { broker, nc, js, log } = site;
  const registry = own.use(await AgentRegistry.open({ nc, js, enrolled: (id) => known.get(id) ?? null, log }));
  const registered = new Promise<void>((resolve) => registry.onChange(() => (registry.list().length === agents ? resolve() : undefined)));
  const ready = startCrowd(broker.url, { members, model: null }, join(settings.data, "logs"), 0, own);
  await within(Promise.all([ready, registered]), `${agents} agents register`, signal);
  return {
    ...{ ...site, registry, agents },
    publicKeyOf: (id) => known.get(id)?.publicKey ?? null,
  };
}

const device = (id: string): Device => ({
  ...{ id, kind: "cpu", name: "simulated", isa: "none", isaBits: [], cores: 1, cpus: "0", memBytes: 1, labels: {}, simulated: true },
});
