import { NoRespondersError, RequestError, TimeoutError, type NatsConnection } from "@nats-io/transport-node";
import type { CampaignEvent } from "@vibeserve/shared";
import {
  ApiError,
  CampaignList,
  CampaignRequest,
  CampaignSummary,
  CoordinatorStatus,
  decode,
  EmptyRequest,
  encode,
  EventPage,
  PlaintextError,
  Progress,
  subjects,
  SubmitRequest,
  WatchRequest,
  type ClientContext,
} from "@vibeserve/shared";
import { z } from "zod";
import { connectBus } from "../bus/connect.ts";
import { decodeNext, type Logged } from "../log/chain.ts";
import { Backoff, delay } from "../process/backoff.ts";
import { messageOf } from "../process/message-of.ts";
import { ApiProblem } from "./problem.ts";

/** No coordinator answers where the context says. */
export class UnreachableError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UnreachableError";
  }
}

/** Exporting a long campaign and enrolling (a reload of the broker) are the slowest. */
const ANSWER_MS = 30_000;
/** A watcher outlives a restart of the coordinator: replaying a campaign takes seconds at the most. */
const WATCH_PATIENCE_MS = 60_000;

/** A client's side of the verbs. */
export class ApiClient implements AsyncDisposable {
  readonly #nc: NatsConnection;
  #reconnects: Set<() => void> | null = null;

  private constructor(nc: NatsConnection) {
    this.#nc = nc;
  }

  /** patienceMs: how long the first dial is tried again; 0: its failure is an answer. After it a watcher outlives restarts. Throws UnreachableError, PlaintextError. */
  static async connect(context: ClientContext, patienceMs = 0): Promise<ApiClient> {
    try {
      const { servers, ca, seed, claim } = context;
      return new ApiClient(await connectBus({ servers, ca, seed, claim, principal: "client" }, patienceMs));
    } catch (error) {
      if (error instanceof PlaintextError) throw error;
      throw new UnreachableError(`no coordinator at ${context.servers.join(", ")}: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Throws ApiProblem (the coordinator says no) or UnreachableError. */
  async ask<Q extends z.ZodType, A extends z.ZodType>(verb: string, schema: Q, request: z.input<Q>, reply: A): Promise<z.output<A>> {
    const subject = subjects.api(verb);
    let data: Uint8Array;
    try {
      data = (await this.#nc.request(subject, encode(schema, request, subject), { timeout: ANSWER_MS })).data;
    } catch (error) {
      if (error instanceof TimeoutError || error instanceof NoRespondersError || error instanceof RequestError)
        throw new UnreachableError(`no coordinator answers ${subject}: ${messageOf(error)}`, { cause: error });
      throw error;
    }
    const failure = z.object({ kind: z.literal("error") }).safeParse(decode(z.unknown(), data, subject));
    if (failure.success) {
      const { code, message: text } = decode(ApiError, data, subject);
      throw new ApiProblem(code, text);
    }
    return decode(reply, data, subject);
  }

  async campaigns(): Promise<CampaignList> {
    return this.ask("campaigns", EmptyRequest, { v: 1, kind: "request" }, CampaignList);
  }

  async status(): Promise<CoordinatorStatus> {
    return this.ask("status", EmptyRequest, { v: 1, kind: "request" }, CoordinatorStatus);
  }

  async submit({ target, options }: Pick<SubmitRequest, "target" | "options">): Promise<CampaignSummary> {
    return this.ask("submit", SubmitRequest, { v: 1, kind: "submit", target, options }, CampaignSummary);
  }

  /** null: the newest campaign. */
  async change(verb: "pause" | "resume" | "cancel", campaign: string | null): Promise<CampaignSummary> {
    return this.ask(verb, CampaignRequest, { v: 1, kind: "campaign.request", campaign }, CampaignSummary);
  }

  /**
   * Every event of a campaign (null: the newest), from the first on, then each as it is appended, until the signal aborts; its chain is checked. Live
   * messages only say that there is more: what is read comes from the log, so a lost one loses nothing. "caught-up": nothing more is there right now.
   */
  async *watch(
    campaign: string | null,
    signal: AbortSignal,
    onProgress: (progress: Progress) => void,
  ): AsyncGenerator<CampaignEvent | "caught-up"> {
    let last: Logged | null = null;
    let id = campaign;
    let stopListening: (() => void) | null = null;
    const wake = wakeable();
    const abort = () => wake.wake();
    signal.addEventListener("abort", abort);
    const forget = this.#onReconnect(wake.wake);
    const stopped = () => signal.aborted;
    try {
      while (!stopped()) {
        const page: EventPage = await this.#page(id, last?.event.seq ?? 0, signal);
        for (const bytes of page.events) {
          const event = decodeNext(page.campaign, bytes, last);
          last = { event, bytes, streamSeq: 0 };
          yield event;
        }
        if (stopListening === null) {
          // Only now is the newest campaign's id known; another look closes the gap between the first page and the subscription.
          id = page.campaign;
          stopListening = this.#listen(id, wake.wake, onProgress);
          continue;
        }
        if (page.more) continue;
        yield "caught-up";
        if (!stopped()) await wake.next();
      }
    } finally {
      signal.removeEventListener("abort", abort);
      stopListening?.();
      forget();
    }
  }

  /** Every event of a campaign (null: the newest) so far; its chain is checked. */
  async events(campaign: string | null): Promise<CampaignEvent[]> {
    const events: CampaignEvent[] = [];
    for await (const event of this.watch(campaign, new AbortController().signal, () => undefined)) {
      if (event === "caught-up") break;
      events.push(event);
    }
    return events;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#nc.close();
  }

  async #page(campaign: string | null, after: number, signal: AbortSignal): Promise<EventPage> {
    const backoff = new Backoff(200, 2_000);
    const until = Date.now() + WATCH_PATIENCE_MS;
    for (;;) {
      try {
        return await this.ask("watch", WatchRequest, { v: 1, kind: "watch", campaign, after }, EventPage);
      } catch (error) {
        if (!(error instanceof UnreachableError) || after === 0 || Date.now() > until || signal.aborted) throw error;
        await delay(backoff.nextMs(), signal);
      }
    }
  }

  #listen(campaign: string, wake: () => void, onProgress: (progress: Progress) => void): () => void {
    const live = this.#nc.subscribe(subjects.live(campaign), { callback: () => wake() });
    const progress = this.#nc.subscribe("vs.progress.>", {
      callback: (error, m) => {
        if (error) return;
        const report = Progress.safeParse(decode(z.unknown(), m.data, m.subject));
        if (report.success && report.data.campaign === campaign) onProgress(report.data);
      },
    });
    return () => {
      live.unsubscribe();
      progress.unsubscribe();
    };
  }

  #onReconnect(tell: () => void): () => void {
    const listeners = (this.#reconnects ??= this.#followStatus());
    listeners.add(tell);
    return () => listeners.delete(tell);
  }

  #followStatus(): Set<() => void> {
    const listeners = new Set<() => void>();
    void (async () => {
      for await (const status of this.#nc.status()) if (status.type === "reconnect") for (const tell of listeners) tell();
    })();
    return listeners;
  }
}

/** A doorbell: rings while nobody waits are remembered once. */
function wakeable(): { wake: () => void; next: () => Promise<void> } {
  let bell = Promise.withResolvers<undefined>();
  return {
    wake: () => bell.resolve(undefined),
    next: async () => {
      await bell.promise;
      bell = Promise.withResolvers<undefined>();
    },
  };
}
