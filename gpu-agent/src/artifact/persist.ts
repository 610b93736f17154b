import { setTimeout as sleep } from "node:timers/promises";
import { JetStreamApiError } from "@nats-io/jetstream";
import { ClosedConnectionError, DrainingConnectionError, PermissionViolationError } from "@nats-io/transport-node";
import { JobError } from "../worker/job-error.ts";

/** A transfer that does not get on for this long is given up: a broker restarts in seconds. Below two minutes, for which the broker knows a repeated message. */
const STALL_MS = 60_000;
const [FIRST_MS, LAST_MS] = [50, 2_000];

/**
 * One step of a transfer, tried again while the connection is away, so that what was transferred before is kept. Throws what is no matter of the connection at
 * once: the broker's refusal, this machine's disk, a closed connection.
 */
export async function persist<T>(step: () => Promise<T>, stallMs = STALL_MS): Promise<T> {
  const ends = Date.now() + stallMs;
  for (let waitMs = FIRST_MS; ; waitMs = Math.min(waitMs * 2, LAST_MS)) {
    try {
      return await step();
    } catch (error) {
      if (!passes(error) || Date.now() + waitMs > ends) throw error;
      await sleep(waitMs * (0.75 + Math.random() / 2));
    }
  }
}

function passes(error: unknown): boolean {
  if (error instanceof JetStreamApiError) return error.status === 503;
  for (const kind of [JobError, ClosedConnectionError, DrainingConnectionError, PermissionViolationError])
    if (error instanceof kind) return false;
  return !isSystemError(error);
}

/** Of this machine's files. */
export const isSystemError = (error: unknown): boolean => error instanceof Error && "errno" in error;
