import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ClientContext } from "@vibeserve/shared";
import type { Credential } from "../bus/connect.ts";
import { localContext } from "../cli/context.ts";
import { upLock } from "../cli/up.ts";
import type { Settings } from "../config.ts";
import { lockHolder } from "../process/lock.ts";

/** What the coordinator leaves while it runs; null: there is none, or it can't be read. */
export function leftContext(data: string): ClientContext | null {
  const path = localContext({ data });
  if (!existsSync(path)) return null;
  try {
    return ClientContext.safeParse(JSON.parse(readFileSync(path, "utf8"))).data ?? null;
  } catch {
    return null;
  }
}

/** Of the coordinator that runs in this folder, on this machine; null: none does. */
export const runningContext = (data: string): ClientContext | null => (lockHolder(upLock(data)) === null ? null : leftContext(data));

/** How the coordinator itself logs in at the broker of `context`, by the keys in its data folder. Throws where they are not there. */
export function ownCredential(
  { data }: Pick<Settings, "data">,
  { servers, ca }: ClientContext,
  role: "coordinator" | "system",
): Promise<Credential> {
  const seed = readFileSync(join(data, "nats", "keys", `${role}.nk`), "utf8").trim();
  return Promise.resolve({ servers, ca, seed, principal: role });
}
