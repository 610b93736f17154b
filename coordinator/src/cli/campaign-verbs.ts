import type { CampaignList } from "@vibeserve/shared";
import { commandLine } from "../command-line.ts";
import { table } from "../report/summary-table.ts";
import { connectClient } from "./context.ts";
import type { Invocation } from "./invocation.ts";
import { repeatWords, submission, type SubmissionOptions } from "./submission.ts";

/** The verbs that ask once and print the answer. */

export async function submit({ settings, context, output }: Invocation, file: string, options: SubmissionOptions): Promise<void> {
  const words = [...(context === undefined ? [] : ["--context", context]), ...repeatWords(file, options)];
  const request = submission(file, options, commandLine("submit", words));
  await using client = await connectClient(settings, context);
  const campaign = await client.submit(request);
  output.answer(campaign, `campaign ${campaign.campaign} submitted; watch it with: ${commandLine("watch", [campaign.campaign])}`);
}

export async function campaigns({ settings, context, output }: Invocation): Promise<void> {
  await using client = await connectClient(settings, context);
  const list = await client.campaigns();
  output.answer(list, campaignTable(list));
}

/** pause, resume and cancel: without an id they mean the newest campaign. */
export async function change(
  { settings, context, output }: Invocation,
  verb: "pause" | "resume" | "cancel",
  id: string | undefined,
): Promise<void> {
  await using client = await connectClient(settings, context);
  const campaign = await client.change(verb, id ?? null);
  output.answer(campaign, `campaign ${campaign.campaign}: ${campaign.state}, ${campaign.reason}`);
}

export async function status({ settings, context, output }: Invocation): Promise<void> {
  await using client = await connectClient(settings, context);
  const answer = await client.status();
  const agents = answer.agents.map((a) => [
    a.agentId,
    a.state,
    a.pools.join(","),
    a.devices.map((d) => `${d.name} (${d.isa})`).join(", "),
    a.sandbox,
  ]);
  const lines = [
    `coordinator ${answer.version}, pid ${answer.pid}, since ${new Date(answer.startedAt).toISOString()}`,
    `broker ${answer.broker.version}, pid ${answer.broker.pid}, sync always: ${answer.broker.syncAlways}, ${answer.broker.storeDir}`,
    "",
    agents.length === 0 ? "no agents" : table(["agent", "state", "pools", "devices", "sandbox"], agents),
    ...((answer.registered ?? 0) > agents.length ? [`${answer.registered} agents are registered, these are the first`] : []),
    "",
    campaignTable(answer),
  ];
  output.answer(answer, lines.join("\n"));
}

function campaignTable({ campaigns, unreadable }: Pick<CampaignList, "campaigns" | "unreadable">): string {
  const refused = unreadable.map(({ campaign, reason }) => `campaign ${campaign} can't be read and is not run: ${reason}`);
  if (campaigns.length === 0) return ["no campaigns", ...refused].join("\n");
  const readable = table(
    ["campaign", "target", "state", "experiments", "champion", "time", "budget", "reason"],
    campaigns.map((c) => [
      c.campaign,
      c.target,
      c.outcome ?? c.state,
      String(c.experiments),
      c.champion ?? "-",
      `${Math.round(c.elapsedS)} s`,
      `${Math.round(c.budgetS)} s`,
      c.reason,
    ]),
  );
  return [readable, ...refused].join("\n");
}
