import type { Consumer, JetStreamClient, JsMsg } from "@nats-io/jetstream";
import { STREAMS } from "@vibeserve/shared";
import type { Logger } from "pino";
import { pause } from "../spool/send-results.ts";
import type { Machine } from "./machine.ts";

/** A pull waits this long on the server before it is renewed: two messages a minute while idle. */
const PULL_MS = 30_000;
/** Pauses between tries while the consumer is missing (no coordinator yet) or the broker is away. */
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 2_000;
/** Given back because the machine was taken in between: another agent may want it. */
const BUSY_MS = 100;
/** Given back because this agent failed: long enough not to spin. */
const BROKEN_MS = 5_000;

export interface JobLoopDeps {
  readonly js: JetStreamClient;
  readonly durable: string;
  readonly machine: Machine;
  readonly log: Logger;
  /** Calls back when the connection came back: a pull that was waiting is lost then. */
  onReconnect(tell: () => void): () => void;
  attempt(message: JsMsg, ackWaitMs: number): Promise<void>;
}

/** Pulls one job at a time from one durable consumer, and only while the machine is free, until the signal aborts. Never rejects. */
export async function runJobLoop(deps: JobLoopDeps, signal: AbortSignal): Promise<void> {
  let retryMs = FIRST_RETRY_MS;
  let consumer: Consumer | null = null;
  for (;;) {
    await deps.machine.free(signal);
    if (signal.aborted) return;
    try {
      consumer ??= await deps.js.consumers.get(STREAMS.jobs, deps.durable);
      const message = await pullOne(deps, consumer, signal);
      retryMs = FIRST_RETRY_MS;
      if (message === null) continue;
      if (!deps.machine.tryTake()) {
        message.nak(BUSY_MS);
        continue;
      }
      try {
        const ackWaitMs = ((await consumer.info(true)).config.ack_wait ?? 30e9) / 1e6;
        await deps.attempt(message, ackWaitMs);
      } catch (error) {
        // Not the job's doing (a full disk under the spool, a bug): someone else may do better, and so may this agent a little later.
        deps.log.error({ durable: deps.durable, why: String(error) }, "an attempt was given up");
        message.nak(BROKEN_MS);
      } finally {
        deps.machine.release();
      }
    } catch (error) {
      consumer = null;
      deps.log.debug({ durable: deps.durable, why: String(error) }, "no jobs for now");
      await pause(retryMs * (0.75 + Math.random() / 2), signal);
      retryMs = Math.min(retryMs * 2, LONGEST_RETRY_MS);
    }
  }
}

/** One job, or null when none came, the machine was taken by the other loop, the connection was new, or the signal aborted. */
async function pullOne(deps: JobLoopDeps, consumer: Consumer, signal: AbortSignal): Promise<JsMsg | null> {
  const messages = await consumer.fetch({ max_messages: 1, expires: PULL_MS });
  const stop = (): void => messages.stop();
  const cancels = [deps.machine.onTaken(stop), deps.onReconnect(stop)];
  signal.addEventListener("abort", stop, { once: true });
  try {
    if (deps.machine.busy || signal.aborted) stop();
    for await (const message of messages) return message;
    return null;
  } finally {
    signal.removeEventListener("abort", stop);
    for (const cancel of cancels) cancel();
  }
}
