import { isAlive, signalProcess, type ProcessIdentity } from "./identity.ts";
import { delay } from "./backoff.ts";

/** How often the end of a process that isn't our child is looked for while it is being stopped; there is no event for it. */
const LOOK_MS = 20;

/** SIGTERM, then SIGKILL after `graceMs`. Returns once the process is gone; throws if it survives SIGKILL for 5 s. */
export async function stopProcess(identity: ProcessIdentity, graceMs: number): Promise<"gone" | "terminated" | "killed"> {
  if (!signalProcess(identity, "SIGTERM")) return "gone";
  if (await goneWithin(identity, graceMs)) return "terminated";
  signalProcess(identity, "SIGKILL");
  if (await goneWithin(identity, 5_000)) return "killed";
  throw new Error(`process ${identity.pid} is still there 5 s after SIGKILL`);
}

export async function goneWithin(identity: ProcessIdentity, ms: number): Promise<boolean> {
  const until = Date.now() + ms;
  while (isAlive(identity)) {
    if (Date.now() >= until) return false;
    await delay(LOOK_MS);
  }
  return true;
}
