import type { ConsumerMessages, JetStreamClient, JetStreamManager, JsMsg } from "@nats-io/jetstream";
import { CodecError, decode, JobResult, senderOf, STREAMS, subjects } from "@vibeserve/shared";
import { RESULTS_AT_ONCE, RESULTS_CONSUMER } from "../bus/streams.ts";
import { Allowance } from "../process/allowance.ts";
import { signedBy } from "./signature.ts";

/**
 * The one reader of VS_RESULTS.
 *   R1. A result is believed only with the signature of the agent under whose subject it came, on it and on each of its measurements: what any other
 *       key signed is thrown away.
 *   R2. It is acknowledged only after it is in its campaign's log; a kill before that delivers it again.
 *   R3. Whether it counts is decided by the lease table and the log together, in that campaign's mailbox.
 *   R4. Results of one campaign come to its mailbox in the order in which they were stored; those of others are not waited for.
 *   R5. An agent that sends more that would change nothing than an honest one could is not listened to in that, so that it keeps nobody else's results waiting.
 *   R6. What is acknowledged is purged, many at once, and nothing beyond the first that is not.
 */
export interface IntakeDeps {
  js: JetStreamClient;
  jsm: JetStreamManager;
  publicKeyOf: (agentId: string) => string | null;
  staleness: (result: JobResult) => Promise<string | null>;
  /** It would change nothing, and is one of too many. */
  drop: (result: JobResult) => Promise<void>;
  /** Appends; null: no such campaign here. */
  settle: (result: JobResult, stale: string | null) => Promise<boolean | null>;
  /** The result has been recorded, accepted or not. */
  recorded: (result: JobResult, accepted: boolean) => void;
  log: (event: string, facts: Record<string, unknown>) => void;
}

/** A server that is killed takes the question for results with it; half of this without a heartbeat, twice, and it is asked again. The client's own 30 s stop a campaign for as long. */
const ASK_AGAIN_MS = 5_000;
/** A result that could not be recorded now (the broker is away, a campaign has lost its log) comes again after this. */
const RETRY_MS = 5_000;
/** Of an agent's results that change nothing: what waited in its spool while it was cut off, and then one now and again. */
const [IDLE_AT_ONCE, IDLE_PER_S] = [100, 2];
/** Results that are taken away together: some hundred kB, and one write instead of so many. */
export const PURGED_TOGETHER = 256;

export class ResultIntake implements AsyncDisposable {
  readonly #deps: IntakeDeps;
  readonly #messages: ConsumerMessages;
  readonly #done: Promise<void>;
  readonly #taking = new Set<Promise<void>>();
  readonly #idle = new Allowance(IDLE_AT_ONCE, IDLE_PER_S);
  #delivered = 0;
  #purging: Promise<void> = Promise.resolve();

  private constructor(deps: IntakeDeps, messages: ConsumerMessages) {
    this.#deps = deps;
    this.#messages = messages;
    this.#done = this.#follow();
  }

  static async open(deps: IntakeDeps): Promise<ResultIntake> {
    const consumer = await deps.js.consumers.get(STREAMS.results, RESULTS_CONSUMER);
    return new ResultIntake(deps, await consumer.consume({ max_messages: RESULTS_AT_ONCE, expires: ASK_AGAIN_MS }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#messages.close();
    await this.#done;
    await Promise.all(this.#taking);
    await this.#purging;
  }

  async #follow(): Promise<void> {
    for await (const message of this.#messages) {
      const taking = this.#take(message)
        .catch((error: unknown) => {
          this.#deps.log("result.failed", { subject: message.subject, why: error instanceof Error ? error.message : String(error) });
          message.nak(RETRY_MS);
        })
        .finally(() => this.#taking.delete(taking));
      this.#taking.add(taking);
      if (++this.#delivered % PURGED_TOGETHER === 0) this.#purging = this.#purging.then(async () => this.#purge());
    }
  }

  /** R6. What stays because the broker is away goes the next time. */
  async #purge(): Promise<void> {
    const { jsm, log } = this.#deps;
    try {
      const { ack_floor } = await jsm.consumers.info(STREAMS.results, RESULTS_CONSUMER);
      await jsm.streams.purge(STREAMS.results, { seq: ack_floor.stream_seq + 1 });
    } catch (error) {
      log("results.kept", { why: error instanceof Error ? error.message : String(error) });
    }
  }

  async #take(message: JsMsg): Promise<void> {
    const sender = senderOf(message.subject);
    const refuse = (reason: string, why: string, many = !this.#idle.take(sender)) => {
      if (!many) this.#deps.log("result.refused", { subject: message.subject, reason, why });
      message.term(why);
    };
    let result: JobResult;
    try {
      result = decode(JobResult, message.data, message.subject);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      refuse("malformed", error.message);
      return;
    }
    if (message.subject !== subjects.result(result.agentId, result.campaign)) {
      refuse("subject", `says it is agent ${result.agentId}'s for campaign ${result.campaign}`);
      return;
    }
    const stale = await this.#deps.staleness(result);
    if (stale !== null && !this.#idle.take(sender)) {
      await this.#deps.drop(result);
      refuse("stale", stale, true);
      return;
    }
    const publicKey = this.#deps.publicKeyOf(result.agentId);
    const unsigned = unsignedPart(publicKey, result);
    if (unsigned !== null) {
      refuse("signature", `${unsigned} signature is not that of agent ${result.agentId}`);
      return;
    }
    let accepted: boolean | null;
    try {
      accepted = await this.#deps.settle(result, stale);
    } catch (error) {
      // No log can hold it, now or later.
      if (!(error instanceof CodecError)) throw error;
      refuse("unstorable", error.message);
      return;
    }
    if (accepted === null) {
      refuse("unknown-campaign", `no campaign ${result.campaign} here`);
      return;
    }
    this.#deps.log("result.recorded", {
      campaign: result.campaign,
      jobId: result.jobId,
      attempt: result.attempt,
      agentId: result.agentId,
      token: result.leaseToken,
      status: result.outcome.status,
      accepted,
    });
    this.#deps.recorded(result, accepted);
    message.ack();
  }
}

/** Whose signature is missing or another's: "its", one of its measurements'; null: all are this key's. */
function unsignedPart(publicKey: string | null, result: JobResult): string | null {
  if (publicKey === null || !signedBy(publicKey, result)) return "its";
  const { outcome } = result;
  if (outcome.status !== "measured") return null;
  const arm = (["challenger", "champion"] as const).find((a) => !signedBy(publicKey, outcome[a]));
  return arm === undefined ? null : `its ${arm}'s measurement's`;
}
