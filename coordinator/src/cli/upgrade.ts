import { existsSync } from "node:fs";
import { join } from "node:path";
import { AgentRow, EmptyRequest } from "@vibeserve/shared";
import { z } from "zod";
import { UnreachableError } from "../api/client.ts";
import type { Settings } from "../config.ts";
import { isUnreadable } from "../log/chain.ts";
import { listCampaigns, readLog } from "../log/event-log.ts";
import { openDataBus } from "../operate/data-bus.ts";
import { readRelease, thisRelease, type Release } from "../operate/release-file.ts";
import { checkUpgrade, type Installed } from "../operate/upgrade.ts";
import { allAgents } from "./agents.ts";
import { backupData } from "./backup.ts";
import { connectClient, localContext } from "./context.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** A coordinator of any release, asked for no more than what is compared. */
const AnyStatus = z.looseObject({ version: z.string(), protocol: z.int().default(1), log: z.int().default(1) });
const AnyRow = z.looseObject({ ...AgentRow.pick({ agentId: true, protocol: true, version: true }).shape, state: z.string() });
const AnyList = z.looseObject({
  campaigns: z.array(z.looseObject({ campaign: z.string() })),
  unreadable: z.array(z.looseObject({ campaign: z.string() })),
});
const AnyPage = z.looseObject({ agents: z.array(AnyRow), more: z.boolean() });

/** Throws CliError: 1 where this release must not take over, 3 where there is nothing to take over; UnreachableError where the logs' cluster is not reached. */
export async function upgrade(invocation: Invocation, options: { check?: boolean; backupTo?: string; withKeys?: boolean }): Promise<void> {
  const { settings, context, output, version } = invocation;
  if (!options.check)
    throw new CliError(EXIT.badInput, "upgrade installs nothing: give --check; docs/operations.md#upgrade has the order of steps");
  const runs = context !== undefined || existsSync(localContext(settings));
  const data = context === undefined ? readRelease(settings.data) : null;
  if (!runs && !existsSync(settings.data))
    throw new CliError(EXIT.unreachable, `there is neither a coordinator nor a data folder ${settings.data} to upgrade`);
  // Of a pod that is seconds old connections are refused: only when the cluster answers, a coordinator that does not is away.
  if (runs && context === undefined && settings.nats) await (await openDataBus(settings, "vibeserve upgrade"))[Symbol.asyncDispose]();
  const installed: Installed = { data, coordinator: null, agents: [], unreadable: [], ...(runs ? await asked(invocation) : {}) };
  const to = thisRelease(version);
  // Logs of a later version are not even opened: this release would say of each what is said once.
  const unreadable = checkUpgrade(installed, to).ok ? await (context === undefined ? readFolder(settings) : readRemote(invocation)) : [];
  const checked = checkUpgrade({ ...installed, unreadable }, to);
  if (checked.ok && options.backupTo !== undefined) {
    if (context !== undefined) throw new CliError(EXIT.badInput, "--backup-to needs the data folder: run it where the coordinator runs");
    await backupData(
      { ...invocation, output: { ...output, answer: (_object, text) => output.say(text) } },
      { to: options.backupTo, withKeys: options.withKeys === true },
    );
  }
  const words = ({ version, protocol, log }: Release) => `release ${version} (protocol ${protocol}, log ${log})`;
  const lines = [`from  ${words(checked.from)}`, `to    ${words(checked.to)}`, ...checked.refused.map((why) => `NO    ${why}`)];
  if (checked.ok) lines.push(...checked.advice.map((what) => `note  ${what}`));
  if (checked.unknown.length > 0) lines.push(`note  not heard of, so of an unknown release: ${checked.unknown.join(", ")}`);
  output.answer({ v: 1, kind: "upgrade", ...checked }, [...lines, checked.ok ? "ok" : ""].join("\n").trim());
  if (!checked.ok) throw new CliError(EXIT.negative, `release ${version} must not take over: ${checked.refused[0] ?? ""}`);
}

/** One that was killed, or begins again and again, must not keep a release out that mends it: then the folder alone is looked at. */
async function asked({ settings, context, output }: Invocation): Promise<Partial<Installed>> {
  try {
    await using client = await connectClient(settings, context);
    const { version, protocol, log } = await client.ask("status", EmptyRequest, { v: 1, kind: "request" }, AnyStatus);
    return { coordinator: { version, protocol, log }, agents: await allAgents(client, AnyPage) };
  } catch (error) {
    if (!(error instanceof UnreachableError) || context !== undefined) throw error;
    output.say(`the coordinator does not answer, so its agents' releases are not known: ${error.message}`);
    return {};
  }
}

/** Every log is decoded with this release's own schemas, and its chain is checked. */
async function unreadableOf(ids: readonly string[], read: (id: string) => Promise<unknown>): Promise<Installed["unreadable"]> {
  const unreadable: { campaign: string; reason: string }[] = [];
  for (const campaign of ids)
    await read(campaign).catch((error: unknown) => {
      if (!isUnreadable(error)) throw error;
      unreadable.push({ campaign, reason: error.message });
    });
  return unreadable;
}

async function readFolder(settings: Settings): Promise<Installed["unreadable"]> {
  if (!existsSync(join(settings.data, "nats"))) return [];
  await using data = await openDataBus(settings, "vibeserve upgrade");
  return await unreadableOf(await listCampaigns(data.bus), (id) => readLog(data.bus, id));
}

/** What that coordinator can't read either speaks against its disk, not against this release. */
async function readRemote({ settings, context, output }: Invocation): Promise<Installed["unreadable"]> {
  await using client = await connectClient(settings, context);
  const { campaigns, unreadable } = await client.ask("campaigns", EmptyRequest, { v: 1, kind: "request" }, AnyList);
  for (const { campaign } of unreadable) output.say(`campaign ${campaign} can't be read by the coordinator that runs either`);
  return await unreadableOf(
    campaigns.map((c) => c.campaign),
    (id) => client.events(id),
  );
}
