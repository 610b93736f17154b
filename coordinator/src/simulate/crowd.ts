import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createUser } from "@nats-io/nkeys";
import type { Device } from "@vibeserve/shared";
import { loadPrincipals, publicKeyOf, saveAgents } from "../broker/principals.ts";
import { childEnvironment } from "../config.ts";
import type { FleetModel } from "./simulated-work.ts";

/** An agent that a crowd's process plays. */
export interface CrowdMember {
  agentId: string;
  publicKey: string;
  seed: string;
  pool: string;
  devices: Device[];
}

/** What such a process is given. model null: every job is answered at once. */
export interface CrowdFile {
  members: readonly CrowdMember[];
  model: FleetModel | null;
}

export function newMember(agentId: string, pool: string, devices: Device[]): CrowdMember {
  const seed = new TextDecoder().decode(createUser().getSeed());
  return { agentId, publicKey: publicKeyOf(seed), seed, pool, devices };
}

/** Before a broker starts in `data`: it knows them all at once. Thousands, enrolled one by one, would each reload it. */
export function enrolBeforehand(data: string, members: readonly Pick<CrowdMember, "agentId" | "publicKey" | "pool">[]): void {
  const keys = join(data, "nats", "keys");
  mkdirSync(join(data, "nats"), { recursive: true, mode: 0o700 });
  loadPrincipals(keys);
  saveAgents(
    keys,
    members.map(({ agentId, publicKey, pool }) => ({ agentId, publicKey, pools: [pool] })),
  );
}

/** One process that plays the members on the broker at `url`; its files are `<folder>/crowd-<n>.*`. It ends with `own`. */
export async function startCrowd(
  url: string,
  file: CrowdFile,
  folder: string,
  n: number,
  own: AsyncDisposableStack,
): Promise<ChildProcess> {
  const path = join(folder, `crowd-${n}.json`);
  writeFileSync(path, JSON.stringify(file), { mode: 0o600 });
  const err = openSync(join(folder, `crowd-${n}.err`), "w");
  const child = fork(join(import.meta.dirname, "crowd-child.ts"), [url, path], {
    env: childEnvironment({}),
    stdio: ["ignore", err, err, "ipc"],
  });
  own.defer(async () => {
    const gone = child.exitCode === null && child.signalCode === null ? once(child, "exit") : null;
    child.kill("SIGKILL");
    await gone;
  });
  const ended = once(child, "exit").then(([code]) => Promise.reject(new Error(`a crowd's process ended with ${String(code)}`)));
  await Promise.race([once(child, "message"), ended]);
  ended.catch(() => undefined);
  return child;
}
