import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ClientContext } from "@vibeserve/shared";
import type { Credential } from "../bus/connect.ts";
import { localContext } from "../cli/context.ts";
import { upLock } from "../cli/up.ts";
import type { Settings } from "../config.ts";
import { lockHolder } from "../process/lock.ts";
import { readJson } from "../process/read-json.ts";

/** What the coordinator leaves while it runs; null: there is none, or it can't be read. */
export function leftContext(data: string): ClientContext | null {
  return ClientContext.safeParse(readJson(localContext({ data }))).data ?? null;
}

/** Of the coordinator that runs in this folder, on this machine; null: none does. */
export const runningContext = (data: string): ClientContext | null => (lockHolder(upLock(data)) === null ? null : leftContext(data));

/** How the coordinator itself logs in at the broker of `context`, by the keys in its data folder, or by those of its cluster. Throws where they are not there. */
export async function ownCredential(
  { data, nats }: Pick<Settings, "data" | "nats">,
  { servers, ca }: Pick<ClientContext, "servers" | "ca">,
  role: "coordinator" | "system",
): Promise<Credential> {
  if (nats) {
    const [{ caOf, readClusterKeys }, { roleJwt }] = [
      await import("../broker/cluster/keys.ts"),
      await import("../broker/cluster/claims.ts"),
    ];
    const keys = readClusterKeys(nats.keysDir);
    return { servers: nats.servers, ca: caOf(keys), seed: keys.seeds[role], claim: await roleJwt(keys, role), principal: role };
  }
  const seed = readFileSync(join(data, "nats", "keys", `${role}.nk`), "utf8").trim();
  return { servers, ca, seed, principal: role };
}
