import type { CampaignEvent } from "@vibeserve/shared";
import type { ApiClient } from "../api/client.ts";
import { fold, type Campaign } from "../campaign/campaign.machine.ts";
import { openLines, openLive, type View } from "../view/live-view.ts";
import { connectClient } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";
import { stopSignal } from "./stop-signal.ts";

/** Drawn in place on a terminal, plain lines elsewhere. */
export function openView(stream: NodeJS.WriteStream): View {
  return stream.isTTY ? openLive(stream, () => Date.now()) : openLines(stream);
}

/** How watching ended: the campaign did, it was paused, or the watcher was told to stop. */
export type Watched =
  | { kind: "ended"; campaign: Campaign; outcome: NonNullable<Campaign["ended"]>["outcome"] }
  | { kind: "paused"; campaign: Campaign; reason: string }
  | { kind: "stopped"; campaign: Campaign | null };

/** Shows a campaign until it ends or the signal aborts; a pause ends it too where `untilPaused` says so. */
export async function follow(
  client: ApiClient,
  id: string | null,
  view: View,
  signal: AbortSignal,
  options: { untilPaused: boolean; seen?: (event: CampaignEvent) => void },
): Promise<Watched> {
  let campaign: Campaign | null = null;
  for await (const event of client.watch(id, signal, (progress) => view.progress(progress))) {
    if (event === "caught-up") {
      // Earlier pauses are history; this one is where the campaign stands.
      if (options.untilPaused && campaign?.pausedAt) return { kind: "paused", campaign, reason: campaign.pausedFor };
      continue;
    }
    campaign = fold(campaign, event);
    view.event(event);
    options.seen?.(event);
    if (event.fact.type === "campaign.ended") return { kind: "ended", campaign, outcome: event.fact.outcome };
  }
  return { kind: "stopped", campaign };
}

export async function watch({ settings, context, output }: Invocation, id: string | undefined): Promise<void> {
  const signal = stopSignal();
  await using client = await connectClient(settings, context);
  const view = openView(output.view);
  const events: CampaignEvent[] = [];
  const watched = await follow(client, id ?? null, view, signal, { untilPaused: false, seen: (event) => events.push(event) });
  view.close();
  const outcome = watched.kind === "ended" ? watched.outcome : null;
  output.answer({ v: 1, kind: "watched", campaign: watched.campaign?.id ?? null, outcome, events }, "");
  if (outcome !== null && outcome !== "proven") throw new CliError(EXIT.negative, `campaign ended: ${outcome}`);
}
