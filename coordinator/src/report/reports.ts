import { RESERVED_LABEL } from "@vibeserve/shared";
import type { CampaignActor } from "../campaign/campaign.actor.ts";
import type { EventLogger } from "../process/log-file.ts";
import { messageOf } from "../process/message-of.ts";
import { writeReport } from "./write-report.ts";

/** Writes the report of each campaign that ends, but for those on reserved devices; closing waits for those of campaigns that have ended. */
export class Reports implements AsyncDisposable {
  readonly #data: string;
  readonly #log: EventLogger;
  readonly #writing = new Set<Promise<void>>();

  constructor(data: string, log: EventLogger) {
    this.#data = data;
    this.#log = log;
  }

  follow(actor: CampaignActor): void {
    if (actor.state.target.device[RESERVED_LABEL] !== undefined) return;
    void actor.ended.then(() => {
      const writing = this.#write(actor).finally(() => this.#writing.delete(writing));
      this.#writing.add(writing);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#writing);
  }

  async #write(actor: CampaignActor): Promise<void> {
    try {
      await writeReport(this.#data, actor.state);
      this.#log("report.written", { campaign: actor.id });
    } catch (error) {
      this.#log("report.failed", { campaign: actor.id, why: messageOf(error) });
    }
  }
}
