import type { NatsConnection } from "@nats-io/transport-node";
import type { CampaignFact, ListenAddress, Page } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import { probes } from "./checks.ts";
import { Counted } from "./counted.ts";
import { HttpListener } from "./http-listener.ts";
import { Measured, type Measurable } from "./measured.ts";
import { Metrics } from "./metrics.ts";

/** Answers probes and /metrics over HTTP from before the coordinator has begun until after it has ended. Made, and loaded, only where --http is given. */
export class Observer implements AsyncDisposable {
  readonly #metrics = new Metrics();
  readonly #counted = new Counted(this.#metrics);
  readonly #measured = new Measured(this.#metrics);
  #coordinator: Measurable | null = null;
  #http: HttpListener | null = null;

  private constructor() {
    this.#metrics.set("vibeserve_broker_connected", [[{}, 0]]);
  }

  /** lockFile: names this process while it may write to the data folder. Throws HttpListenError. */
  static async open({ listen, lockFile }: { listen: ListenAddress; lockFile: string }): Promise<Observer> {
    const observer = new Observer();
    const { livez, readyz, startupz } = probes(lockFile, () => observer.#coordinator);
    const pages = new Map<string, Page>([
      ["/livez", { checks: livez }],
      ["/readyz", { checks: readyz }],
      ["/startupz", { checks: startupz }],
      ["/metrics", { type: observer.#metrics.contentType, text: () => observer.#text() }],
    ]);
    observer.#http = await HttpListener.open(listen, pages);
    return observer;
  }

  get port(): number {
    return this.#http?.port ?? 0;
  }

  /** This connection carries everything. */
  connected(nc: NatsConnection): void {
    const is = (value: number) => this.#metrics.set("vibeserve_broker_connected", [[{}, value]]);
    is(1);
    void (async () => {
      for await (const { type } of nc.status()) {
        if (type === "disconnect" || type === "reconnect") is(Number(type === "reconnect"));
        if (type === "reconnect") this.#metrics.inc("vibeserve_broker_reconnects_total");
      }
      is(0);
    })();
  }

  /** The coordinator has begun. */
  watch(coordinator: Measurable): void {
    this.#coordinator = coordinator;
  }

  logged(event: string, facts: Record<string, unknown>): void {
    this.#counted.logged(event, facts);
  }

  recorded(fact: CampaignFact, campaign: Campaign): void {
    this.#counted.recorded(fact, campaign);
  }

  /** A fact is on disk, so long after it was published. */
  stored(tookMs: number): void {
    this.#metrics.observe("vibeserve_event_log_write_seconds", tookMs / 1000);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#http?.[Symbol.asyncDispose]();
  }

  async #text(): Promise<string> {
    if (this.#coordinator) await this.#measured.take(this.#coordinator, Date.now());
    return this.#metrics.text();
  }
}
