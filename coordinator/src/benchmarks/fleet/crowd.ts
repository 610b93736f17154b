import { fork } from "node:child_process";
import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createUser } from "@nats-io/nkeys";
import { loadPrincipals, publicKeyOf, saveAgents } from "../../broker/principals.ts";
import { childEnvironment, type Settings } from "../../config.ts";
import { AgentRegistry } from "../../fleet/agent-registry.ts";
import { openSite, within, type LaneSite } from "../lane.ts";

export const POOL = "crowd";

export interface Crowd extends LaneSite {
  registry: AgentRegistry;
  publicKeyOf: (agentId: string) => string | null;
  agents: number;
}

interface Member {
  agentId: string;
  publicKey: string;
  seed: string;
}

/** A site whose broker knows these agents from its start: thousands at once, enrolled one by one, would each reload it. */
export async function openEnrolled(
  settings: Settings,
  members: readonly Member[],
  signal: AbortSignal,
  own: AsyncDisposableStack,
): Promise<LaneSite> {
  const dir = join(settings.data, "nats");
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const keys = join(dir, "keys");
  loadPrincipals(keys);
  saveAgents(
    keys,
    members.map(({ agentId, publicKey }) => ({ agentId, publicKey, pools: [POOL] })),
  );
  return openSite(settings, signal, own);
}

/** A broker with `agents` agents enrolled, connected and registered, in a process of their own; this process is the coordinator. All of it goes with `own`. */
export async function openCrowd(settings: Settings, agents: number, signal: AbortSignal, own: AsyncDisposableStack): Promise<Crowd> {
  const members = Array.from({ length: agents }, (_, i) => {
    const seed = new TextDecoder().decode(createUser().getSeed());
    return { agentId: `crowd-${i}`, publicKey: publicKeyOf(seed), seed };
  });
  const site = await openEnrolled(settings, members, signal, own);
  const { broker, nc, js, log } = site;
  const known = new Map(members.map((m) => [m.agentId, { publicKey: m.publicKey, pools: [POOL] }]));
  const registry = own.use(await AgentRegistry.open({ nc, js, enrolled: (id) => known.get(id) ?? null, log }));
  const file = join(settings.data, "crowd.json");
  writeFileSync(file, JSON.stringify(members), { mode: 0o600 });
  const err = openSync(join(settings.data, "logs", "crowd.err"), "w");
  const child = fork(join(import.meta.dirname, "crowd-child.ts"), [broker.url, file, POOL], {
    env: childEnvironment({}),
    stdio: ["ignore", err, err, "ipc"],
  });
  own.defer(() => void child.kill("SIGKILL"));
  const ready = new Promise<void>((resolve, reject) => {
    child.once("message", () => resolve());
    child.once("exit", (code) => reject(new Error(`the crowd ended with ${code}`)));
  });
  const registered = new Promise<void>((resolve) => registry.onChange(() => (registry.list().length === agents ? resolve() : undefined)));
  await within(Promise.all([ready, registered]), `${agents} agents register`, signal);
  return {
    ...{ ...site, registry, agents },
    publicKeyOf: (id) => known.get(id)?.publicKey ?? null,
  };
}
