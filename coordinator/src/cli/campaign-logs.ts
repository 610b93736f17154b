import { existsSync } from "node:fs";
import { join } from "node:path";
import type { AgentInfo, CampaignEvent } from "@vibeserve/shared";
import type { Settings } from "../config.ts";
import { listCampaigns, readLog } from "../log/event-log.ts";
import { openDataBus } from "../operate/data-bus.ts";
import { messageOf } from "../process/message-of.ts";
import { connectClient, localContext } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

export interface CampaignLogs {
  /** Every readable campaign's events, oldest first each. */
  logs: CampaignEvent[][];
  /** Who is registered; null: no coordinator runs. */
  agents: readonly AgentInfo[] | null;
}

/**
 * All campaigns: of the coordinator that --context names or that runs in the data folder, else of the folder itself, which is held meanwhile. What can't be
 * read is said and left out. Throws CliError where the folder holds none.
 */
export async function campaignLogs({
  settings,
  context,
  output,
}: Pick<Invocation, "settings" | "context" | "output">): Promise<CampaignLogs> {
  const unread = (campaign: string, why: string): void => output.say(`campaign ${campaign} can't be read and is left out: ${why}`);
  if (context !== undefined || existsSync(localContext(settings))) return ofCoordinator(settings, context, unread);
  return { logs: await ofFolder(settings, unread), agents: null };
}

type Unread = (campaign: string, why: string) => void;

async function ofCoordinator(settings: Settings, context: string | undefined, unread: Unread): Promise<CampaignLogs> {
  await using client = await connectClient(settings, context);
  const { campaigns, unreadable } = await client.campaigns();
  const { agents } = await client.status();
  for (const { campaign, reason } of unreadable) unread(campaign, reason);
  const logs: CampaignEvent[][] = [];
  for (const { campaign } of campaigns) logs.push(await client.events(campaign));
  return { logs, agents };
}

/** Only the broker is started: a coordinator would go on with what is unfinished. */
async function ofFolder(settings: Settings, unread: Unread): Promise<CampaignEvent[][]> {
  if (!existsSync(join(settings.data, "nats"))) throw new CliError(EXIT.badInput, `${settings.data} holds no campaigns`);
  await using data = await openDataBus(settings, "vibeserve, reading campaigns");
  const logs: CampaignEvent[][] = [];
  for (const id of await listCampaigns(data.bus))
    try {
      logs.push((await readLog(data.bus, id)).map((l) => l.event));
    } catch (error) {
      unread(id, messageOf(error));
    }
  return logs;
}
