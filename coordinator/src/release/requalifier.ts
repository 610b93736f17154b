import type { AgentInfo, CampaignOptions, Target } from "@vibeserve/shared";
import type { Campaign } from "../campaign/campaign.machine.ts";
import { championsOf } from "../findings/champions.ts";
import { due } from "../findings/requalify.ts";
import { messageOf } from "../process/message-of.ts";
import { applyVerdict } from "./apply-verdict.ts";

export interface RequalifierDeps {
  data: string;
  /** auto: stale champions are tested without being asked for. */
  mode: "auto" | "ask";
  campaigns: () => readonly Campaign[];
  agents: () => readonly AgentInfo[];
  submit: (target: Target, options: CampaignOptions) => Promise<unknown>;
  log: (event: string, facts: Record<string, unknown>) => void;
}

/**
 * What a coordinator does by itself about champions that may not be good any more. Both only look at logs and at who is registered, so that nothing is lost where
 * it was killed in between, and nothing is done twice.
 */
export class Requalifier {
  readonly #deps: RequalifierDeps;
  #busy = Promise.resolve();

  constructor(deps: RequalifierDeps) {
    this.#deps = deps;
  }

  /** An agent joined or changed, or the coordinator started. */
  look(): void {
    if (this.#deps.mode === "auto") this.#busy = this.#busy.then(() => this.#submitDue());
  }

  /** A campaign has ended: where it did not confirm a champion, channels that serve that champion go back. */
  ended(campaign: Campaign): void {
    const { data, campaigns, log } = this.#deps;
    try {
      const changed = applyVerdict(data, campaign, campaigns());
      if (changed.length > 0) log("channel.rolled-back", { campaign: campaign.id, channels: changed, why: campaign.ended?.reason });
    } catch (error) {
      log("channel.failed", { campaign: campaign.id, why: messageOf(error) });
    }
  }

  async #submitDue(): Promise<void> {
    const { campaigns, agents, submit, log } = this.#deps;
    try {
      for (const { champion, target, options } of due(championsOf(campaigns()), campaigns(), agents())) {
        await submit(target, options);
        log("requalify.submitted", { champion: champion.name, because: options.trial?.because });
      }
    } catch (error) {
      log("requalify.failed", { why: messageOf(error) });
    }
  }
}
