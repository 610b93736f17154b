import type { Device } from "@vibeserve/shared";
import { JobError } from "../worker/job-error.ts";
import type { Adapters } from "./adapter.ts";

/** A job that waits for a card which is not there any more waits to its deadline; a look costs a vendor's tool some 50 ms of one processor. */
const EVERY_MS = 10_000;

export interface Trouble {
  /** The failure of one device, or where it can't be told whose it is, of none by name. */
  readonly error: JobError;
  readonly gone: readonly Device[];
}

/**
 * What its vendor's tool says that speaks against one of the devices; null: nothing. One that is gone comes first. What it says of all in the same words, such as that it
 * gives no answer, is laid to none.
 */
export async function troubleOf(
  adapters: Adapters,
  devices: readonly Device[],
  said: (fact: string) => void = () => undefined,
): Promise<Trouble | null> {
  const found = await Promise.all(devices.map(async (device) => ({ device, ...(await adapters[device.kind].health(device)) })));
  for (const { device, facts } of found) for (const fact of facts) said(devices.length > 1 ? `${device.id}: ${fact}` : fact);
  const gone = found.filter((f) => f.gone === true);
  const bad = gone[0] ?? found.find((f) => f.problems.length > 0);
  if (!bad) return null;
  const why = bad.problems.join("; ");
  const code = gone.length > 0 ? "device-lost" : "device-unhealthy";
  const ofAll = found.every((f) => f.problems.join("; ") === why && f.gone === bad.gone);
  const whose = ofAll ? devices.map((d) => d.id).join(", ") : bad.device.id;
  const error = new JobError("device", code, `${whose}: ${why}`, "", ofAll ? undefined : bad.device.id);
  return { error, gone: gone.map((f) => f.device) };
}

/**
 * While a job has several devices: looks every 10 s whether one of them does not answer, and aborts `signal` with that device's failure where its vendor's tool
 * says that it is gone. The others would wait for it in a collective operation for ever.
 */
export function guardDevices(
  adapters: Adapters,
  devices: readonly Device[],
  everyMs = EVERY_MS,
): { readonly signal: AbortSignal; readonly found: Trouble | null } & Disposable {
  const abort = new AbortController();
  let found: Trouble | null = null;
  let looking = false;
  const look = async (): Promise<void> => {
    const samples = await Promise.all(devices.map((device) => adapters[device.kind].sample(device)));
    if (!samples.includes(null)) return;
    const trouble = await troubleOf(adapters, devices);
    if (trouble === null || trouble.gone.length === 0) return;
    found ??= trouble;
    abort.abort(trouble.error);
  };
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => (looking = false));
  }, everyMs);
  return {
    signal: abort.signal,
    get found() {
      return found;
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
