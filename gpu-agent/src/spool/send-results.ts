import { setTimeout as sleep } from "node:timers/promises";
import type { JetStreamClient } from "@nats-io/jetstream";
import { encode, JobResult } from "@vibeserve/shared";
import { resultSubject, type Spool, type Spooled } from "./spool.ts";

/** First and longest pause between tries; ±50 % so that a fleet does not come back in step. */
const FIRST_MS = 200;
const LONGEST_MS = 10_000;

/**
 * Publishes a spooled result until JetStream has acknowledged it; then it leaves the spool. Returns false if the signal aborted first: it stays spooled,
 * and is sent when the agent starts again. Sending twice is harmless: the log knows a signature that it has. It bears no message id: another agent could use it first, and the
 * stream would drop this one for a copy.
 */
export async function sendResult(
  js: JetStreamClient,
  spool: Spool,
  spooled: Spooled,
  signal: AbortSignal,
  onRetry: (why: string) => void,
): Promise<boolean> {
  const subject = resultSubject(spooled.result);
  const bytes = encode(JobResult, spooled.result, subject);
  for (let waitMs = FIRST_MS; !signal.aborted; waitMs = Math.min(waitMs * 2, LONGEST_MS)) {
    try {
      await js.publish(subject, bytes, { timeout: 5_000 });
      await spool.sent(spooled);
      return true;
    } catch (error) {
      onRetry(error instanceof Error ? error.message : String(error));
      await sleep(waitMs * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined);
    }
  }
  return false;
}
